//! TODO-DOC

pub mod doctor;
pub mod selftest;
pub mod setup;
