//! The daemon, the CLI and the filter on live interfaces.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test panics where it fails")]

mod api;
mod auto_rate;
mod backup;
mod causality;
mod clock;
mod death;
mod direct;
mod disk;
mod doctor;
mod faults;
mod gate;
mod interfaces;
mod lists;
mod metrics;
mod monitor;
mod other_layout;
mod person;
mod preload;
mod promise;
mod protected;
mod redial;
mod reports;
mod roles;
mod routes;
mod scale;
mod selftest;
mod service;
mod socket;
mod strange_xdp;
mod upgrade;
