//! Notes which numbers the centre calls.

use aya_ebpf::bindings::{__sk_buff, BPF_ANY};
use aya_ebpf::programs::TcContext;
use filter_common::abi::Grace;
use filter_common::bytes::Bytes as _;
use filter_common::decide::PolicyLookup as _;
use filter_common::egress::{READ_MAX, called, is_sip};
use filter_common::judge::{JudgeContext as _, Scratch};
use filter_common::number::Number;

use crate::lookup::Kernel;
use crate::packet::{Context as _, PacketBytes, is_replay};
use crate::{maps, run};

const SECOND: u64 = 1_000_000_000;

/// Opens the call-back grace of the number that a packet calls, if it calls one.
#[inline(always)]
pub fn note_call(ctx: &TcContext) {
    let (Some(scratch), Some(scrub_slot)) =
        (run::cleared(&maps::EGRESS_SCRATCH), maps::EGRESS_SCRUB_SLOT.get_ptr_mut(0))
    else {
        return;
    };
    let Some(mut kernel) = Kernel::new(ctx.skb.skb) else {
        return;
    };
    let number = find(ctx, &kernel, scratch, scrub_slot);
    if is_replay()
        && let Some(last) = maps::REPLAY_EVENT.get_ptr_mut(0)
    {
        // SAFETY: an array element of this type; replays run one at a time.
        unsafe { (*last).number = number };
    }
    if number == Number::NONE {
        return;
    }
    let grace = kernel.settings().map_or(0, |settings| settings.callback_grace);
    let until = kernel.now() + grace as u64 * SECOND;
    // When there is no room the packet goes on all the same.
    let _ = maps::GRACE.insert(number.0, Grace { number, until }, BPF_ANY.into());
}

#[inline(always)]
fn find(
    ctx: &TcContext,
    kernel: &Kernel<*mut __sk_buff>,
    scratch: &mut Scratch,
    scrub_slot: *mut usize,
) -> Number {
    let skb = ctx.skb.skb;
    let mut bytes = PacketBytes::new(skb, scrub_slot);
    if !is_sip(&bytes, kernel, scratch) {
        return Number::NONE;
    }
    let wanted = ctx.len().min(READ_MAX as u32);
    let (start, end) = skb.pointers();
    // Only what is SIP and lies in several pieces is made one. Where that fails, what can be read is.
    if end - start < wanted as usize {
        let _ = ctx.skb.pull_data(wanted);
    }
    bytes.revalidate();
    called(&mut bytes, kernel, scratch)
}
