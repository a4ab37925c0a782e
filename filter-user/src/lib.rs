//! Palang, the caller gate for emergency call centres.
//!
//! `main` parses the command line into a command of [`cli`]. `replay` runs captures through
//! the kernel program, which [`datapath`] loads with a [`policy`].

#![deny(unsafe_code)] // Each exception is named where it is: bytes of maps, four system calls.

pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod datapath;
pub mod direct;
pub mod doctor;
pub mod ethtool;
pub mod exit;
pub mod free_text;
pub mod host;
mod kernels;
pub mod ladder;
pub mod netlink;
pub mod number_text;
pub mod object;
pub mod per_ring;
pub mod policy;
pub mod policy_file;
mod profile_file;
pub mod redial;
pub mod replay;
pub mod selftest;
pub mod setup;
pub mod status;
pub mod store;
#[cfg(test)]
mod test_netns;
pub mod udp_payload;
pub mod what_if;
pub mod wire;
pub mod xdp_features;
mod xdp_refusal;
