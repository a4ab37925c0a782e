//! Answers refused INVITEs, and drops the ACKs for these replies. These programs are entered by a tail call
//! from the program that has judged the frame, on the same CPU: its findings are in `maps::SCRATCH`.

use aya_ebpf::Global;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_ringbuf_output, bpf_xdp_adjust_tail, bpf_xdp_store_bytes};
use aya_ebpf::programs::XdpContext;
use filter_common::abi::{
    BLOCK_REFUSE_DROP, EVENT_BY_DAEMON, EVENT_REPEATED, Event, Profile, ReplyStats, TRUNKS_MAX,
};
use filter_common::answer::{ACK_START, Answer, Outcome, ROOM, Reply, is_own_ack, note_own_ack};
use filter_common::bytes::Bytes as _;
use filter_common::decide::{PolicyLookup as _, refusal};
use filter_common::frame::destination;
use filter_common::handed_over::{
    HANDED_REPEATED, HANDED_WITHOUT_CHECKSUM, HandedOver, is_by_daemon,
};
use filter_common::judge::{JudgeContext as _, Scratch};
use filter_common::reason::Reason;

use crate::lookup::{Kernel, is_own};
use crate::packet::{Arrival as _, PacketBytes, barrier_var, clamped, is_replay};
use crate::{maps, telemetry};

/// 1: the programs of [`maps::NEXT`] are loaded. Set when the program is loaded; it is constant for the
/// verifier, so on a kernel without them no code calls them.
#[unsafe(no_mangle)]
static REPLIES: Global<u32> = Global::new(0);

/// Where the programs are in [`maps::NEXT`]. A kernel without the helpers for a reply in the frame has no [`ANSWER`].
const ANSWER: u32 = 0;
const HAND_OVER: u32 = 1;
const ACK: u32 = 2;

/// Hands a frame over to the program that answers it, or to the one that may drop it as an ACK. Returns only
/// if neither has to do with it, or is not there: then no reply was sent.
#[inline(always)]
pub fn hand_over(
    ctx: &XdpContext,
    kernel: &Kernel<*mut xdp_md>,
    scratch: &mut Scratch,
    reason: Reason,
) {
    if REPLIES.load() == 0 {
        scratch.event.reply = 0;
        return;
    }
    if scratch.event.reply != 0 {
        let next =
            if is_answered_by_daemon(kernel, scratch.event.trunk) { HAND_OVER } else { ANSWER };
        // SAFETY: nothing here has to be dropped.
        unsafe { maps::NEXT.tail_call(ctx, next) };
        scratch.event.reply = 0;
    } else if matches!(reason, Reason::NotInvite)
        && is_ack(ctx, scratch)
        && kernel.settings().is_some_and(|settings| settings.trunks_configured != 0)
    {
        // SAFETY: as above.
        unsafe { maps::NEXT.tail_call(ctx, ACK) };
    }
}

#[inline(always)]
fn is_ack(ctx: &XdpContext, scratch: &Scratch) -> bool {
    let Some(slot) = maps::SCRUB_SLOT.get_ptr_mut(0) else {
        return false;
    };
    PacketBytes::new(ctx.ctx, slot).be32(scratch.packet.payload) == Some(ACK_START)
}

/// Answers the refused INVITE in a frame, and reports it. The driver sends the reply, or the daemon if it is handed over
/// (`BY_DAEMON`). Without a reply the frame is dropped, and the client sends it again. `None` never happens: the maps have
/// those elements.
#[inline(always)]
pub fn answer<const BY_DAEMON: bool>(ctx: &XdpContext) -> Option<u32> {
    // SAFETY: a per-CPU element, and nothing else runs on this CPU meanwhile.
    let scratch = unsafe { &mut *maps::SCRATCH.get_ptr_mut(0)? };
    let kernel = Kernel::new(ctx.ctx)?;
    let trunk = scratch.event.trunk as u32 & (TRUNKS_MAX - 1);
    let profile = kernel.profile(trunk)?;
    let keys = maps::REPLY_KEYS.get(0)?;
    let answer = cleared()?;
    let slot = maps::SCRUB_SLOT.get_ptr_mut(0)?;
    let mut bytes = PacketBytes::new(ctx.ctx, slot);
    let code = refusal(&kernel, &scratch.event);
    // Hidden: the code of the trunk and that of the block would be two paths through all that follows.
    let code = bytes.hide_range(code as usize) as u8;
    let time = scratch.event.time;
    if BY_DAEMON && !kernel.has_daemon(time) {
        stats(trunk)?.without_daemon += (code != BLOCK_REFUSE_DROP) as u64 * first(&scratch.event);
        scratch.event.reply = 0;
        report(ctx, &kernel, scratch);
        return Some(XDP_DROP);
    }
    let has_room = || has_room(trunk, time, profile);
    // A reply in the name of another machine would move that machine in the tables of a switch.
    let is_own = is_replay() || destination(&bytes).is_some_and(is_own);
    let outcome = if !is_own {
        Outcome::Impossible
    } else {
        answer.reply(&mut bytes, &scratch.packet, keys, profile, code, has_room)
    };
    if !BY_DAEMON {
        count(trunk, outcome, scratch.event.flags)?;
    }
    let reply = match outcome {
        Outcome::Written(reply) if BY_DAEMON => {
            let interface = ctx.ctx.interface();
            let ip = (reply.ip - reply.start) as u8;
            let head = head(&scratch.event, trunk, interface, code, profile, ip);
            let is_sent = hand_to_daemon(&bytes, answer, reply, &head);
            stats(trunk)?.lost += 1 - is_sent;
            scratch.event.reply = code * is_sent as u8;
            scratch.event.flags |= EVENT_BY_DAEMON * is_sent as u8;
            None
        }
        Outcome::Written(reply) => {
            scratch.event.reply = code;
            Some(reply)
        }
        Outcome::Damaged | Outcome::Limited | Outcome::Impossible | Outcome::Silent => {
            if BY_DAEMON {
                count(trunk, outcome, 0)?;
            }
            scratch.event.reply = 0;
            None
        }
    };
    // Before the reply is in the frame: the event has the Call-ID of the request.
    report(ctx, &kernel, scratch);
    let Some(reply) = reply else { return Some(XDP_DROP) };
    Some(if send(ctx, &bytes, answer, reply) { XDP_TX } else { XDP_DROP })
}

/// Reports a refused call.
#[inline(always)]
fn report(ctx: &XdpContext, kernel: &Kernel<*mut xdp_md>, scratch: &Scratch) {
    let limit = kernel.settings().map_or(0, |settings| settings.pass_events_per_second);
    let reason = if scratch.event.reason == Reason::BlockedPrefix as u8 {
        Reason::BlockedPrefix
    } else {
        Reason::BlockedNumber
    };
    telemetry::report(ctx.ctx, scratch, reason, limit);
}

/// Returns whether the daemon, and not the driver, sends the reply to a call of this trunk and interface.
#[inline(never)]
fn is_answered_by_daemon(kernel: &Kernel<*mut xdp_md>, trunk: u16) -> bool {
    let interface = || kernel.is_answered_by_daemon();
    match kernel.profile(trunk as u32 & (TRUNKS_MAX - 1)) {
        Some(profile) => is_by_daemon(profile, interface),
        None => interface(),
    }
}

/// Returns 1 for the first INVITE of an attempt, otherwise 0. A call without a reply comes again, but counts once.
#[inline(always)]
pub fn first(event: &Event) -> u64 {
    // A factor, because a branch would be another path for the verifier.
    1 - ((event.flags & EVENT_REPEATED) / EVENT_REPEATED) as u64
}

/// Returns the head of the entry for a call that the daemon answers.
#[inline(always)]
pub fn head(
    event: &Event,
    trunk: u32,
    interface: u32,
    code: u8,
    profile: &Profile,
    ip: u8,
) -> HandedOver {
    // Factors, because a branch would be another path for the verifier.
    let repeated = (event.flags & EVENT_REPEATED) / EVENT_REPEATED * HANDED_REPEATED;
    let flags = repeated + (profile.replies_without_checksum & 1) * HANDED_WITHOUT_CHECKSUM;
    HandedOver { time: event.time, interface, trunk: trunk as u8, code, flags, ip }
}

/// Room before the shortest outer layers, that for the head of an entry included; a power of two above it.
const START_MAX: usize = 64;

/// Hands a reply to the daemon. Returns 1, or 0 if its ring has no room.
#[inline(always)]
fn hand_to_daemon(
    bytes: &PacketBytes<*mut xdp_md>,
    answer: &mut Answer,
    reply: Reply,
    head: &HandedOver,
) -> u64 {
    let (start, end) = (bytes.hide_range(reply.start), bytes.hide_range(reply.end));
    let len = clamped::<ROOM>(end - start);
    let start = barrier_var(start - HandedOver::LEN) & (START_MAX - 1);
    let from = (&raw mut *answer).cast::<u8>();
    // SAFETY: the head and the reply after it are in the answer.
    unsafe {
        const { assert!(size_of::<Answer>() >= START_MAX + HandedOver::LEN + ROOM) };
        let from = from.add(start);
        from.cast::<HandedOver>().write_unaligned(*head);
        let ring = (&raw const maps::HANDED_OVER).cast_mut().cast();
        (bpf_ringbuf_output(ring, from.cast(), (HandedOver::LEN + len) as u64, 0) == 0) as u64
    }
}

/// Puts a reply in the place of the frame. `false`: the kernel refuses it.
#[inline(always)]
fn send(ctx: &XdpContext, bytes: &PacketBytes<*mut xdp_md>, answer: &Answer, reply: Reply) -> bool {
    let (start, end) = (bytes.hide_range(reply.start), bytes.hide_range(reply.end));
    let len = clamped::<ROOM>(end - start);
    let start = barrier_var(start) & (START_MAX - 1);
    let from = (&raw const *answer).cast::<u8>();
    // SAFETY: the helper reads `len` bytes from `start` on, which are in the answer.
    unsafe {
        let from = from.add(start).cast_mut().cast();
        if bpf_xdp_store_bytes(ctx.ctx, 0, from, len as u32) != 0 {
            return false;
        }
        bpf_xdp_adjust_tail(ctx.ctx, len as i32 - bytes.frame_len() as i32) == 0
    }
}

/// Drops the ACK in a frame if it is for a reply of ours. Any other passes. `None` never happens.
#[inline(always)]
pub fn drop_own_ack(ctx: &XdpContext) -> Option<u32> {
    // SAFETY: as in `answer`.
    let scratch = unsafe { &mut *maps::SCRATCH.get_ptr_mut(0)? };
    let mut kernel = Kernel::new(ctx.ctx)?;
    let now = kernel.now();
    let bytes = PacketBytes::new(ctx.ctx, maps::SCRUB_SLOT.get_ptr_mut(0)?);
    let trunk = kernel.trunk(&scratch.event.source) as usize;
    // Hidden: the verifier of Linux 6.1 would walk all that follows once more for the trunk 0.
    let trunk = bytes.hide_range(trunk) as u32 & (TRUNKS_MAX - 1);
    let mut is_own = false;
    // Also of a trunk that no longer answers: the ACK may be late.
    if trunk != 0 {
        let keys = maps::REPLY_KEYS.get(0)?;
        let answer = cleared()?;
        is_own = is_own_ack(&bytes, &scratch.packet, keys, now, answer);
    }
    if !is_own {
        telemetry::report(ctx.ctx, scratch, Reason::NotInvite, 0);
        return Some(XDP_PASS);
    }
    note_own_ack(&mut scratch.event, trunk);
    stats(trunk)?.acks += 1;
    telemetry::report(ctx.ctx, scratch, Reason::RefusalAck, 0);
    Some(XDP_DROP)
}

/// Returns the room for a reply, all zero but for the bytes of the frame.
#[inline(always)]
fn cleared() -> Option<&'static mut Answer> {
    const WORDS: usize = size_of::<Answer>() / size_of::<u64>();
    const { assert!(WORDS * size_of::<u64>() == size_of::<Answer>()) };
    let answer = maps::ANSWER.get_ptr_mut(0)?;
    let words = answer.cast::<u64>();
    let mut i = ROOM / size_of::<u64>();
    while i < WORDS {
        // SAFETY: within the element, which is aligned for words.
        unsafe { words.add(i).write_volatile(0) };
        i += 1;
    }
    // SAFETY: a per-CPU element of one program, and packets do not interrupt each other in it on a CPU. All
    // patterns of its bytes are valid.
    Some(unsafe { &mut *answer })
}

/// Counts a reply of this second. `false`: the trunk has got all of its replies.
#[inline(always)]
pub fn has_room(trunk: u32, time: u64, profile: &Profile) -> bool {
    let Some(window) = maps::REPLY_SECONDS.get_ptr_mut(trunk) else {
        return false;
    };
    // SAFETY: an array element of this type. CPUs that count at the same time may lose one of two counts.
    unsafe {
        let (next, has_room) = (*window).counted(time, profile.replies_per_second);
        *window = next;
        has_room
    }
}

#[inline(always)]
pub fn stats(trunk: u32) -> Option<&'static mut ReplyStats> {
    // SAFETY: a per-CPU element, and nothing else runs on this CPU meanwhile.
    Some(unsafe { &mut *maps::REPLY_STATS.get_ptr_mut(trunk)? })
}

#[inline(always)]
fn count(trunk: u32, outcome: Outcome, flags: u8) -> Option<()> {
    let stats = stats(trunk)?;
    match outcome {
        Outcome::Written(..) => {
            stats.sent += 1;
            stats.repeated += (flags & EVENT_REPEATED != 0) as u64;
        }
        Outcome::Damaged => stats.damaged += 1,
        Outcome::Limited => stats.limited += 1,
        Outcome::Impossible => stats.impossible += 1,
        Outcome::Silent => {}
    }
    Some(())
}
