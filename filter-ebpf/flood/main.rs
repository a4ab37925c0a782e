//! The flood of `cargo xtask bench peers` and `goodput`, and two programs that the filter is
//! measured beside. No part of Palang.
#![no_std]
#![no_main]
#![allow(missing_docs, reason = "the xdp macro makes functions without any")]
#![feature(asm_experimental_arch)]

mod maps;
#[path = "../bench/naive.rs"]
mod naive;
mod order;
#[path = "../bench/outer.rs"]
#[allow(dead_code, reason = "the benchmark of the kernel program uses the rest")]
mod outer;
#[path = "../src/packet.rs"]
#[allow(dead_code, reason = "the filter uses the rest")]
mod packet;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_redirect, bpf_xdp_store_bytes};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::XdpContext;

use crate::order::{FRAME_LEN, Order, VARIANTS, Variant};
use crate::packet::PacketBytes;

/// A sender that was held up makes good at most this many frames: more would be a burst that no
/// caller sends.
const MADE_GOOD: u64 = 32;

/// The INVITEs. Written by the runner.
#[map]
static INVITES: Array<Variant> = Array::with_max_entries(VARIANTS, 0);

#[map]
static ORDER: Array<Order> = Array::with_max_entries(1, 0);

/// The list of the naive program. Written by the runner.
#[map]
static BLOCKED: HashMap<u64, u8> = HashMap::with_max_entries(16_384, 0);

/// Sends one INVITE in each run on a live frame, or none while none is due.
#[xdp]
pub fn sender(ctx: XdpContext) -> u32 {
    let Some(order) = ORDER.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: an array element of this type; there is one sender.
    let order = unsafe { &mut *order };
    if order.interval != 0 {
        // SAFETY: the helper takes nothing and returns a number.
        let now = unsafe { bpf_ktime_get_ns() };
        if now < order.due {
            return XDP_DROP;
        }
        let earliest = now - order.interval * MADE_GOOD;
        if order.due < earliest {
            order.due = earliest;
        }
        order.due += order.interval;
    }
    if order.copy >= order.copies {
        order.copy = 0;
        // SAFETY: the helper takes nothing and returns a number.
        order.call = unsafe { bpf_get_prandom_u32() };
    }
    order.copy += 1;
    let Some(invite) = INVITES.get(order.call % VARIANTS) else { return XDP_DROP };
    store(&ctx, 0, invite.frame.as_ptr(), FRAME_LEN as u32);
    if order.copies != 0 {
        let digits = digits(order.call);
        store(&ctx, invite.call_id_at, (&raw const digits).cast(), 8);
    }
    order.sent += 1;
    // SAFETY: takes two numbers.
    unsafe { bpf_redirect(order.interface, 0) as u32 }
}

/// Measures the cost of a driver's receive path without a look at the frame.
#[xdp]
pub fn null(_ctx: XdpContext) -> u32 {
    XDP_DROP
}

/// Reads a byte at a time to the number and makes one look-up.
#[xdp]
pub fn naive_filter(ctx: XdpContext) -> u32 {
    if is_blocked(&ctx) == Some(true) { XDP_DROP } else { XDP_PASS }
}

#[inline(always)]
fn is_blocked(ctx: &XdpContext) -> Option<bool> {
    let bytes = PacketBytes::new(ctx.ctx, maps::SCRUB_SLOT.get_ptr_mut(0)?);
    if outer::read(&bytes)?.destination_port != 5060 {
        return None;
    }
    let number = naive::number(&bytes)?;
    // SAFETY: only whether there is one counts.
    Some(unsafe { BLOCKED.get(number.0).is_some() })
}

/// Returns a number as eight hexadecimal digits from `a` on, as text.
#[inline(always)]
fn digits(number: u32) -> [u8; 8] {
    let mut text = [0; 8];
    let mut i = 0;
    while i < 8 {
        text[i] = b'a' + (number >> (4 * i) & 15) as u8;
        i += 1;
    }
    text
}

#[inline(always)]
fn store(ctx: &XdpContext, offset: u32, from: *const u8, len: u32) {
    // SAFETY: there are `len` bytes after `from`. A frame that is too short stays as it is.
    unsafe { bpf_xdp_store_bytes(ctx.ctx, offset, from.cast_mut().cast(), len) };
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // Never reached: the verifier refuses a program that could loop here.
    loop {}
}

/// The kernel lets only GPL-compatible programs call the helpers used here.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
