//! The daemon, the CLI and the filter on live interfaces.
#![expect(clippy::expect_used, reason = "a test panics where it fails")]

mod backup;
mod faults;
mod roles;
mod routes;
mod scale;
mod service;
mod socket;
