//! The work of the entry point on a packet, for the filter and for the programs of the benchmark.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::XdpContext;
use filter_common::judge::{JudgeContext as _, Scratch, judge};
use filter_common::reason::Reason;
use filter_common::sip::message::Reader;

use crate::lookup::Kernel;
use crate::maps;
use crate::packet::PacketBytes;
use crate::telemetry;

/// Judges a packet with a reader and reports it. Before the report `hand_over` may end the program. Returns the
/// reason and the number of the `Verdict`. `None` never happens: the maps have those elements.
#[inline(always)]
pub fn run(
    ctx: &XdpContext,
    reader: Reader,
    hand_over: impl FnOnce(&Kernel<*mut xdp_md>, &mut Scratch, Reason),
) -> Option<(Reason, u8)> {
    let scratch = cleared(&maps::SCRATCH)?;
    let mut bytes = PacketBytes::new(ctx.ctx, maps::SCRUB_SLOT.get_ptr_mut(0)?);
    let mut kernel = Kernel::new(ctx.ctx)?;
    let reason = judge(&mut bytes, &mut kernel, scratch, reader);
    hand_over(&kernel, scratch, reason);
    let limit = kernel.settings().map_or(0, |settings| settings.pass_events_per_second);
    telemetry::report(ctx.ctx, scratch, reason, limit);
    Some((reason, scratch.event.verdict))
}

/// Returns a scratch, all zero.
#[inline(always)]
pub fn cleared(room: &PerCpuArray<Scratch>) -> Option<&'static mut Scratch> {
    let scratch = room.get_ptr_mut(0)?;
    // SAFETY: a per-CPU element of one program, and packets do not interrupt each other in it on a
    // CPU. All its bytes may be zero.
    unsafe {
        clear(scratch);
        Some(&mut *scratch)
    }
}

/// Makes the scratch zero, eight bytes at a time. A `memset` would be a call to a loop over
/// bytes. For a packet that is not an INVITE this costs more than the rest of the work.
///
/// # Safety
/// `scratch` is writable and of no use to anybody else.
#[inline(never)]
unsafe fn clear(scratch: *mut Scratch) {
    const WORDS: usize = size_of::<Scratch>() / size_of::<u64>();
    const { assert!(WORDS * size_of::<u64>() == size_of::<Scratch>()) };
    let words = scratch.cast::<u64>();
    let mut i = 0;
    while i < WORDS {
        // SAFETY: within the scratch, which is aligned for words.
        unsafe { words.add(i).write_volatile(0) };
        i += 1;
    }
}
