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
mod evidence;
mod faults;
mod flood;
mod gate;
mod interfaces;
mod lists;
mod metrics;
mod monitor;
mod other_layout;
mod person;
mod preload;
mod privileges;
mod promise;
mod protected;
mod redial;
mod removal;
mod reports;
mod roles;
mod routes;
mod scale;
mod service;
mod setup;
mod socket;
mod strange_xdp;
mod top;
mod upgrade;
