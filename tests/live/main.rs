//! The daemon, the CLI and the filter on live interfaces.
#![expect(clippy::expect_used, reason = "a test panics where it fails")]

mod api;
mod causality;
mod death;
mod interfaces;
mod other_layout;
mod strange_xdp;
mod upgrade;
