//! Brings the gate up on a machine: setup, checks of the machine, and the self-test.

pub mod doctor;
pub mod selftest;
pub mod setup;
