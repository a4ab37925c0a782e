//! The programs that `cargo xtask bench kernel` times beside the filter. No part of Palang.
//!
//! Programs called `…_varied` first write a frame into the packet that is drawn from a corpus. So
//! neither the branch predictor nor the cache knows the next frame. `copy_varied` only writes, and its
//! time is subtracted.
#![no_std]
#![no_main]
#![allow(missing_docs, reason = "the xdp macro makes functions without any")]
#![feature(asm_experimental_arch)]

#[path = "../src/lookup.rs"]
mod lookup;
#[path = "../src/maps.rs"]
mod maps;
mod naive;
mod outer;
#[path = "../src/packet.rs"]
mod packet;
#[path = "../src/room.rs"]
mod room;
#[path = "../src/run.rs"]
mod run;
#[path = "../src/telemetry.rs"]
mod telemetry;
mod told;
mod variants;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::helpers::generated::bpf_xdp_store_bytes;
use aya_ebpf::macros::{cgroup_skb, map, xdp};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::{SkBuffContext, XdpContext};
use filter_common::abi::Verdict;
use filter_common::bytes::Bytes as _;
use filter_common::frame;
use filter_common::judge::JudgeContext as _;
use filter_common::sip::fields::Fields;
use filter_common::sip::message::{self, Reader};

use crate::lookup::Kernel;
use crate::packet::PacketBytes;
use crate::variants::{Draw, FRAME_LEN, VARIANTS_MAX, Variant, octal};

/// The corpus. Written by the runner.
#[map]
static VARIANTS: Array<Variant> = Array::with_max_entries(VARIANTS_MAX, 0);

/// How frames are drawn. Written by the runner.
#[map]
static DRAW: Array<Draw> = Array::with_max_entries(1, 0);

/// Measures the cost of the test run itself.
#[xdp(frags)]
pub fn null(_ctx: XdpContext) -> u32 {
    XDP_DROP
}

/// Measures the cost of the test run that the second look is timed in.
#[cgroup_skb]
pub fn null_again(_ctx: SkBuffContext) -> i32 {
    1
}

/// Reads Ethernet, IPv4, UDP and the port.
#[xdp(frags)]
pub fn parse(ctx: XdpContext) -> u32 {
    verdict(read_port(&ctx))
}

/// Reads the port and makes one look-up in the list of blocked numbers.
#[xdp(frags)]
pub fn lookup(ctx: XdpContext) -> u32 {
    verdict(read_port(&ctx).map(|port| {
        let number = 0x6281_2345_6789_000C_u64.wrapping_add(port as u64 & 1);
        // SAFETY: only whether there is one counts.
        unsafe { maps::BLOCKED_NUMBERS.get(number).is_none() }
    }))
}

/// Reads the outer layers and the headers, and decides nothing.
#[xdp(frags)]
pub fn scan(ctx: XdpContext) -> u32 {
    verdict(scan_of(&ctx, message::scan))
}

/// Reads the same parts by the full reader.
#[xdp(frags)]
pub fn scan_full(ctx: XdpContext) -> u32 {
    verdict(scan_of(&ctx, message::scan_all))
}

/// Decides with all look-ups; the runner gives the offsets of number and Call-ID.
#[xdp(frags)]
pub fn oracle(ctx: XdpContext) -> u32 {
    verdict(oracle_of(&ctx, 0))
}

/// Decides likewise, and finds the number byte by byte.
#[xdp(frags)]
pub fn naive(ctx: XdpContext) -> u32 {
    verdict(naive_of(&ctx, 0))
}

/// Draws a frame.
#[xdp(frags)]
pub fn copy_varied(ctx: XdpContext) -> u32 {
    draw(&ctx);
    XDP_DROP
}

/// Draws a frame and judges it as the filter does.
#[xdp(frags)]
pub fn palang_varied(ctx: XdpContext) -> u32 {
    draw(&ctx);
    verdict(
        run::run(&ctx, Reader::Full, |_, scratch, _| scratch.event.reply = 0)
            .map(|(_, verdict)| verdict == Verdict::Drop as u8),
    )
}

#[xdp(frags)]
pub fn scan_varied(ctx: XdpContext) -> u32 {
    draw(&ctx);
    verdict(scan_of(&ctx, message::scan))
}

#[xdp(frags)]
pub fn scan_full_varied(ctx: XdpContext) -> u32 {
    draw(&ctx);
    verdict(scan_of(&ctx, message::scan_all))
}

#[xdp(frags)]
pub fn oracle_varied(ctx: XdpContext) -> u32 {
    let variant = draw(&ctx);
    verdict(oracle_of(&ctx, variant))
}

#[xdp(frags)]
pub fn naive_varied(ctx: XdpContext) -> u32 {
    let variant = draw(&ctx);
    verdict(naive_of(&ctx, variant))
}

/// Writes a frame of the corpus into the packet, and returns its index.
#[inline(never)]
fn draw(ctx: &XdpContext) -> u32 {
    let Some(how) = DRAW.get_ptr_mut(0) else { return 0 };
    // SAFETY: an array element of this type; benchmarks run on one CPU.
    let how = unsafe { &mut *how };
    let index = random(how.variants);
    let Some(variant) = VARIANTS.get(index) else { return 0 };
    store(ctx, 0, variant.frame.as_ptr(), FRAME_LEN as u32);
    if how.numbers != 0 {
        let digits = octal(random(how.numbers));
        store(ctx, variant.number_at as u32 + 4, (&raw const digits).cast(), 8);
    }
    if how.new_attempts != 0 {
        how.attempt = how.attempt.wrapping_add(1);
        let call_id = octal(how.attempt);
        store(ctx, variant.call_id_at as u32, (&raw const call_id).cast(), 8);
    }
    index
}

/// Returns a random number below `below`.
#[inline(always)]
fn random(below: u32) -> u32 {
    // SAFETY: the helper takes nothing and returns a number.
    let random = unsafe { bpf_get_prandom_u32() };
    ((random as u64 * below as u64) >> 32) as u32
}

#[inline(always)]
fn store(ctx: &XdpContext, offset: u32, from: *const u8, len: u32) {
    // SAFETY: there are `len` bytes after `from`. A packet that is too short stays as it is,
    // and its counter shows that to the runner.
    unsafe { bpf_xdp_store_bytes(ctx.ctx, offset, from.cast_mut().cast(), len) };
}

#[inline(always)]
fn read_port(ctx: &XdpContext) -> Option<bool> {
    let bytes = PacketBytes::new(ctx.ctx, maps::SCRUB_SLOT.get_ptr_mut(0)?);
    Some(outer::read(&bytes)?.destination_port == 5060)
}

#[inline(always)]
fn scan_of(
    ctx: &XdpContext,
    scan: fn(&PacketBytes<*mut xdp_md>, usize, usize, &mut Fields) -> u8,
) -> Option<bool> {
    let scratch = run::cleared(&maps::SCRATCH)?;
    let bytes = PacketBytes::new(ctx.ctx, maps::SCRUB_SLOT.get_ptr_mut(0)?);
    frame::read(&bytes, &mut scratch.packet).ok()?;
    let (payload, len) = (scratch.packet.payload, scratch.packet.payload_len);
    let start = message::request_uri(&bytes, payload, len);
    let bytes = &bytes.revalidated();
    let state = scan(bytes, start, payload + len - start, &mut scratch.fields);
    Some(message::check(bytes, start, state, &scratch.fields).is_ok())
}

#[inline(always)]
fn oracle_of(ctx: &XdpContext, variant: u32) -> Option<bool> {
    let variant = VARIANTS.get(variant)?;
    let bytes = PacketBytes::new(ctx.ctx, maps::SCRUB_SLOT.get_ptr_mut(0)?);
    let outer = outer::read(&bytes)?;
    if !Kernel::new(ctx.ctx)?.is_sip_port(outer.destination_port) {
        return None;
    }
    let number = told::number(&bytes, variant)?;
    told::decide(ctx, &bytes, &outer, number, variant)
}

#[inline(always)]
fn naive_of(ctx: &XdpContext, variant: u32) -> Option<bool> {
    let variant = VARIANTS.get(variant)?;
    let bytes = PacketBytes::new(ctx.ctx, maps::SCRUB_SLOT.get_ptr_mut(0)?);
    let outer = outer::read(&bytes)?;
    if !Kernel::new(ctx.ctx)?.is_sip_port(outer.destination_port) {
        return None;
    }
    let number = naive::number(&bytes)?;
    let bytes = &bytes.revalidated();
    told::decide(ctx, bytes, &outer, number, variant)
}

#[inline(always)]
fn verdict(is_refused: Option<bool>) -> u32 {
    if is_refused == Some(true) { XDP_DROP } else { XDP_PASS }
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
