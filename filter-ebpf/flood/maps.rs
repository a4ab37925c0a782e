//! The maps that `packet` needs.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};

#[map]
pub static SCRUB_SLOT: PerCpuArray<usize> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub static REPLAY_LEN: Array<u32> = Array::with_max_entries(1, 0);
