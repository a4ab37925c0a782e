//! Palang, the caller gate for emergency call centres.
//!
//! `main` parses the command line into a command of [`cli`]. [`replay`] runs captures through the kernel
//! program, which [`datapath`] loads with a [`model::policy`]. `xtask/tidy/layers.toml` has the floors
//! of the rooms.

#![deny(unsafe_code)] // Each exception names its reason: bytes of maps, system calls without a wrapper.

pub mod api;
pub mod bringup;
pub mod change_plan;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod datapath;
pub mod exit;
pub mod inspect;
pub mod model;
pub mod offline;
pub mod replay;
pub mod store;
pub mod sys;
pub mod what_if;
