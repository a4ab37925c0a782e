//! The XDP program: gives the packet and the maps to `filter_common::judge::judge` and
//! turns the reason into an action. It decides nothing itself.
#![no_std]
#![no_main]
#![allow(missing_docs, reason = "the xdp macro makes a function without any")]
// The barriers that keep LLVM from undoing what the verifier needs to see.
#![feature(asm_experimental_arch)]

mod datagram;
mod egress;
mod forwarded;
mod lookup;
mod maps;
mod packet;
mod reply;
mod room;
mod run;
mod second_look;
mod telemetry;

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::{cgroup_skb, classifier, xdp};
use aya_ebpf::programs::{SkBuffContext, TcContext, XdpContext};
use filter_common::abi::Verdict;
use filter_common::reason::Reason;
use filter_common::sip::message::Reader;

/// `SK_DROP` and `SK_PASS` (`enum sk_action`, Linux `include/uapi/linux/bpf.h`).
const SK_DROP: i32 = 0;
const SK_PASS: i32 = 1;
/// Verdicts of netfilter (Linux `include/uapi/linux/netfilter.h`).
const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;

/// Judges a packet by the full reader. `xdp.frags` (Linux 5.18): also on an interface whose MTU is above one page.
#[xdp(frags)]
pub fn palang(ctx: XdpContext) -> u32 {
    gate(&ctx, Reader::Full)
}

/// Judges a packet by the full reader on a kernel without `xdp.frags`: a frame is one buffer.
#[xdp]
pub fn palang_no_frags(ctx: XdpContext) -> u32 {
    gate(&ctx, Reader::Full)
}

/// Judges a packet by the slim reader, for a kernel that refuses the full one.
#[xdp(frags)]
pub fn palang_slim(ctx: XdpContext) -> u32 {
    gate(&ctx, Reader::Slim)
}

/// Judges by the slim reader on a kernel without `xdp.frags`.
#[xdp]
pub fn palang_slim_no_frags(ctx: XdpContext) -> u32 {
    gate(&ctx, Reader::Slim)
}

#[inline(always)]
fn gate(ctx: &XdpContext, reader: Reader) -> u32 {
    let hand_over = |kernel: &_, scratch: &mut _, reason| {
        reply::hand_over(ctx, kernel, scratch, reason);
    };
    let Some((reason, verdict)) = run::run(ctx, reader, hand_over) else {
        return XDP_PASS;
    };
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(ctx, "{} verdict {}", reason.name(), verdict);
    action(reason, verdict)
}

/// Answers the refused INVITE of a frame. Entered from `palang` and `palang_slim`.
#[xdp(frags)]
pub fn palang_answer(ctx: XdpContext) -> u32 {
    reply::answer::<false>(&ctx).unwrap_or(XDP_DROP)
}

/// Hands the reply to the refused INVITE of a frame to the daemon. Entered from `palang` and `palang_slim`.
#[xdp(frags)]
pub fn palang_hand_over(ctx: XdpContext) -> u32 {
    reply::answer::<true>(&ctx).unwrap_or(XDP_DROP)
}

/// Hands the reply over on a kernel without `xdp.frags`.
#[xdp]
pub fn palang_hand_over_no_frags(ctx: XdpContext) -> u32 {
    reply::answer::<true>(&ctx).unwrap_or(XDP_DROP)
}

/// Drops an ACK on a kernel without `xdp.frags`.
#[xdp]
pub fn palang_ack_no_frags(ctx: XdpContext) -> u32 {
    reply::drop_own_ack(&ctx).unwrap_or(XDP_PASS)
}

/// Drops an ACK for a reply of ours, and lets every other one pass. Entered from `palang` and `palang_slim`.
#[xdp(frags)]
pub fn palang_ack(ctx: XdpContext) -> u32 {
    reply::drop_own_ack(&ctx).unwrap_or(XDP_PASS)
}

/// Notes the numbers that the centre calls, and lets every outgoing packet go on unchanged.
#[classifier]
pub fn palang_egress(ctx: TcContext) -> i32 {
    egress::note_call(&ctx);
    TC_ACT_UNSPEC
}

/// Judges a datagram that the host has put together, when the first look could not read it whole.
#[cgroup_skb]
pub fn palang_second_look(ctx: SkBuffContext) -> i32 {
    match second_look::look_at_own(ctx.skb.skb) {
        Some((reason, verdict)) if is_refused(reason, verdict) => SK_DROP,
        _ => SK_PASS,
    }
}

/// Judges a datagram that this machine only forwards, when the first look could not read it whole. A program of
/// netfilter; aya takes the section for another kind and only relocates it.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket/palang_forward")]
pub fn palang_forward(context: *mut forwarded::NetfilterContext) -> i32 {
    match second_look::look_at_forwarded(context) {
        Some((reason, verdict)) if is_refused(reason, verdict) => NF_DROP,
        _ => NF_ACCEPT,
    }
}

/// Returns the XDP action for a packet. Nothing aborts: that would drop.
fn action(reason: Reason, verdict: u8) -> u32 {
    if is_refused(reason, verdict) { XDP_DROP } else { XDP_PASS }
}

/// Returns whether a packet is refused. A new reason has to choose here. A packet that is not refused for
/// sure passes.
#[inline(always)]
fn is_refused(reason: Reason, verdict: u8) -> bool {
    match reason {
        Reason::RefusedFragment
        | Reason::BlockedNumber
        | Reason::BlockedPrefix
        | Reason::RefusalAck => verdict == Verdict::Drop as u8,
        Reason::NotIp
        | Reason::NotUdp
        | Reason::SipOverTcp
        | Reason::OtherPort
        | Reason::BadPacket
        | Reason::ExtensionLimit
        | Reason::LengthMismatch
        | Reason::LaterFragment
        | Reason::NotInvite
        | Reason::InDialog
        | Reason::NoPolicy
        | Reason::SecondLook
        | Reason::OtherMachine
        | Reason::BadRequestLine
        | Reason::BadHeader
        | Reason::HeadersCut
        | Reason::FromMissing
        | Reason::FromRepeated
        | Reason::ToMissing
        | Reason::ToRepeated
        | Reason::CallIdMissing
        | Reason::CallIdRepeated
        | Reason::NoNumberUri
        | Reason::NoUser
        | Reason::NotANumber
        | Reason::TooManyDigits
        | Reason::AmbiguousNumber
        | Reason::UriTooLong
        | Reason::TooManyIdentities
        | Reason::Extension
        | Reason::PaiMissing
        | Reason::UnknownTrunk
        | Reason::Override
        | Reason::Protected
        | Reason::AllowedNumber
        | Reason::AllowedPrefix
        | Reason::NotBlocked
        | Reason::BlockExpired
        | Reason::Observe
        | Reason::AttemptPassed
        | Reason::RedialGrant
        | Reason::StateFull
        | Reason::CallbackGrace
        | Reason::Replaces
        | Reason::WithoutDaemon => false,
    }
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
