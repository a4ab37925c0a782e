//! What the kernel and user space of Palang must agree on.
//!
//! This crate is compiled for the host and for BPF. It has no I/O, no clock, no
//! allocation and no idea of XDP or Aya: bytes come through [`bytes::Bytes`], look-ups
//! and the time through [`decide::PolicyLookup`] and [`judge::JudgeContext`]. Start at [`judge::judge`].
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod abi;
pub mod bytes;
pub mod decide;
pub mod egress;
pub mod frame;
pub mod judge;
pub mod maps;
pub mod number;
pub mod plan;
pub mod reason;
pub mod sip;
