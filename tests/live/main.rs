//! The daemon, the CLI and the filter on live interfaces.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test panics where it fails")]

mod clock;
mod direct;
mod disk;
mod gate;
mod lists;
mod preload;
