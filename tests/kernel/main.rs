//! Verdicts of the real program in the kernel, always beside those of the host.
//!
//! `cargo xtask kernels` runs these tests on other kernels too.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test panics where it fails")]

mod attempt_identity;
mod captures;
mod decision;
mod events;
mod fail_open;
mod fragments;
mod frames;
mod generated;
mod grace;
mod hand_written;
mod identities;
mod loading;
mod plans;
mod programs;
mod protected;
mod redial;
mod replies;
mod second_look;
mod state;
mod writing;

/// Some time of a capture: 2026-11-24T08:00:00Z, in nanoseconds.
const NOW: u64 = 1_795_507_200_000_000_000;
/// One second.
const SECOND: u64 = 1_000_000_000;
