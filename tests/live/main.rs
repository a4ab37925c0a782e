//! The daemon, the CLI and the filter on live interfaces.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test panics where it fails")]

mod api;
mod backup;
mod causality;
mod death;
mod direct;
mod faults;
mod gate;
mod lists;
mod other_layout;
mod protected;
mod redial;
mod roles;
mod routes;
mod scale;
mod service;
mod socket;
mod upgrade;
