//! The types and rules that the kernel program and user space of Palang share.
//!
//! This crate is compiled for the host and for BPF. It has no I/O, no clock and no
//! allocation, and does not know XDP or Aya. Bytes come through [`bytes::Bytes`], look-ups
//! and the time through [`decide::PolicyLookup`] and [`judge::JudgeContext`]. Start at [`judge::judge`].
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod abi;
pub mod answer;
pub mod bytes;
pub mod contact;
pub mod decide;
pub mod egress;
mod event_entry;
pub mod frame;
pub mod handed_over;
pub mod judge;
pub mod maps;
pub mod number;
pub mod plan;
pub mod reason;
pub mod sip;
