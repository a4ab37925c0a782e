//! The way of a packet: frame, datagram, INVITE, caller number, decision.
//!
//! The kernel program and the host call the same [`judge`], each with its own way to
//! read bytes and to look things up.

use crate::abi::{
    DatagramKey, EVENT_FROM, EVENT_PAI, EVENT_PAI_IGNORED, EVENT_REPEATED, EVENT_TO_TAG,
    EVENT_TWO_IDENTITIES, Event, FRAGMENT_NS, FRAGMENTS_LATER, FRAGMENTS_PASSED, FRAGMENTS_REFUSED,
    FRAGMENTS_UNTIL, FragmentKey, FragmentState, MODE_ENFORCE, Profile, REASSEMBLY_NS,
    REPLY_PATH_DRIVER, Settings, TRANSPORT_TCP, TRANSPORT_UDP, Verdict,
};
use crate::answer::UDP_LEN;
use crate::answer::sums::SUM_MAX;
use crate::bytes::Bytes;
use crate::decide::{self, Call, PolicyLookup};
use crate::frame::{self, Packet, Part};
use crate::handed_over::may_be_by_daemon;
use crate::number::Number;
use crate::plan::Plan;
use crate::reason::Reason;
use crate::sip::attempt_identity;
use crate::sip::fields::{Field, FieldOffset, FieldOffsets, Fields, Form};
use crate::sip::message::{self, Reader, SLIM_SCAN_MAX};
use crate::sip::uri::{self, Unread};

/// The look-ups that [`judge`] needs beside those of a decision.
pub trait JudgeContext: PolicyLookup {
    /// Returns the settings in force; `None` when nothing was loaded.
    fn settings(&self) -> Option<&Settings>;
    /// Returns whether SIP is read on this port.
    fn is_sip_port(&self, port: u16) -> bool;
    /// Returns the index of the profile of the trunk that this source address belongs to; 0, the
    /// profile `default`, for a source outside every trunk.
    fn trunk(&self, source: &[u8; 16]) -> u32;
    /// Returns the profile with this index.
    fn profile(&self, trunk: u32) -> Option<&Profile>;
    /// Returns what is known of the other fragments of a datagram; 0: nothing.
    fn fragments(&self, key: &FragmentKey) -> FragmentState;
    /// Remembers what is known of the other fragments of a datagram.
    fn set_fragments(&mut self, key: &FragmentKey, state: FragmentState);
    /// Returns whether a frame to this Ethernet address, in the low 48 bits, is for this machine. `true` if frames
    /// for other machines are judged too.
    #[inline(always)]
    fn is_for_us(&self, address: u64) -> bool {
        let _ = address;
        true
    }
    /// Returns whether a datagram goes to a socket of this machine, so that a second look meets it. `false` if that is not
    /// known.
    #[inline(always)]
    fn reaches_socket(&self, packet: &Packet) -> bool {
        let _ = packet;
        false
    }
    /// Returns whether a second look judges datagrams once the host has put them together.
    fn has_second_look(&self) -> bool;
    /// Remembers until when a datagram is to be judged by the second look. `false` when that failed.
    fn note_unread(&mut self, key: &DatagramKey, until: u64) -> bool;
    /// Returns until when this datagram is to be judged by the second look; 0: it is not.
    fn unread_until(&self, key: &DatagramKey) -> u64;
}

/// A first fragment with less payload than this may not show that it is an INVITE: four empty lines
/// and the method.
const TINY: usize = 16;

/// Room for the work on one packet: too much for the kernel's stack of 512 bytes. All of
/// it is zero when a packet begins.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Scratch {
    /// The findings.
    pub event: Event,
    /// The outer layers.
    pub packet: Packet,
    /// Where the Request-URI begins in the frame; 0: it is no INVITE.
    pub start: usize,
    /// The offsets of the fields in the headers.
    pub fields: Fields,
}

impl Scratch {
    /// Returns where the header field begins that an event carries; 0: none. It is the one that names an unread
    /// caller, or a `P-Asserted-Identity` that the trunk does not read.
    #[inline(always)]
    #[must_use]
    pub fn text(&self, reason: Reason) -> usize {
        let is_unread = reason.is_unread();
        if !is_unread && self.event.flags & EVENT_PAI_IGNORED == 0 {
            return 0;
        }
        let is_from = is_unread && self.event.identity != EVENT_PAI;
        let field = if is_from { Field::From } else { Field::Pai };
        let colon = self.fields[field as usize].newest();
        if colon == 0 { 0 } else { self.start + colon + 1 }
    }
}

/// Judges one frame with a reader. The result is in `scratch.event`, whose verdict is not
/// `pass` only with a reason that may refuse. Its `reply` is the code that the trunk wants; the caller
/// answers, or sets it to 0. `scratch` comes all zero.
///
/// ```
/// use filter_common::abi::Verdict;
/// use filter_common::bytes::Slice;
/// use filter_common::judge::{Scratch, judge};
/// use filter_common::reason::Reason;
/// use filter_common::sip::message::Reader;
/// # mod gate {
/// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/judge/gate.rs"));
/// # }
/// # use filter_common::number::{Digits, Number};
/// # use gate::{OneBlock, invite};
///
/// // `OneBlock` is a gate with one blocked number, `invite` a frame: see `examples/judge`.
/// # let digits = |text| Digits::parse(text).unwrap();
/// let mut gate = OneBlock::new(Number::e164(digits("6281234567890")));
/// let mut verdict = |caller, gate: &mut OneBlock| {
///     let frame = invite(caller, caller);
///     let mut scratch = Scratch::default();
///     let bytes = &mut Slice::new(&frame, frame.len());
///     let reason = judge(bytes, gate, &mut scratch, Reader::Full);
///     (scratch.event.verdict, reason)
/// };
///
/// // However the number is written, the block is against the caller.
/// let drop = (Verdict::Drop as u8, Reason::BlockedNumber);
/// assert_eq!(verdict("+6281234567890", &mut gate), drop);
/// assert_eq!(verdict("0812-3456-7890", &mut gate), drop);
///
/// // Another number passes, and so does what is not a number.
/// let pass = Verdict::Pass as u8;
/// assert_eq!(verdict("+6281234567891", &mut gate), (pass, Reason::NotBlocked));
/// assert_eq!(verdict("siti", &mut gate), (pass, Reason::NotANumber));
///
/// // The override beats every block.
/// gate.override_until = u64::MAX;
/// assert_eq!(verdict("+6281234567890", &mut gate), (pass, Reason::Override));
/// ```
#[inline(always)]
pub fn judge<B: Bytes, G: JudgeContext>(
    bytes: &mut B,
    gate: &mut G,
    scratch: &mut Scratch,
    reader: Reader,
) -> Reason {
    let reason = match read_and_decide(bytes, gate, scratch, reader) {
        Ok(reason) | Err(reason) => reason,
    };
    scratch.event.reason = reason as u8;
    if scratch.packet.part == Part::First {
        note_first(gate, scratch);
    }
    reason
}

/// Returns whether a frame is for another machine. Broadcasts and multicasts are for this one.
#[inline(never)]
fn is_for_another<B: Bytes, G: JudgeContext>(bytes: &B, gate: &G) -> bool {
    const GROUP: u64 = 1 << 40;
    frame::destination(bytes)
        .is_some_and(|address| address & GROUP == 0 && !gate.is_for_us(address))
}

/// Returns whether a first fragment came after a later one, which the host holds.
#[inline(never)]
fn is_late<G: JudgeContext>(gate: &G, packet: &Packet, now: u64) -> bool {
    if packet.part != Part::First {
        return false;
    }
    let state = gate.fragments(&packet.fragment);
    state >= FRAGMENTS_LATER && now < state & FRAGMENTS_UNTIL
}

/// Notes a datagram for the second look and returns the reason.
#[inline(always)]
fn cut<B: Bytes, G: JudgeContext>(bytes: &B, gate: &mut G, packet: &Packet) -> Reason {
    let readable = bytes.hide_range(bytes.readable());
    if is_left_to_second_look(readable, gate, packet) {
        Reason::SecondLook
    } else {
        Reason::HeadersCut
    }
}

/// Notes a datagram for the second look. `false` if no second look follows, or it would see no more.
#[inline(never)]
fn is_left_to_second_look<G: JudgeContext>(readable: usize, gate: &mut G, packet: &Packet) -> bool {
    let was_whole = packet.part == Part::Whole
        && packet.payload_len <= SLIM_SCAN_MAX
        && packet.payload + packet.payload_len <= readable;
    if was_whole || !gate.has_second_look() {
        return false;
    }
    let until = gate.now() + REASSEMBLY_NS;
    gate.note_unread(&packet.datagram(), until)
}

/// Notes the fate of a first fragment for the later ones. It starts its datagram again: IP ids are used
/// again (RFC 6864).
#[inline(never)]
fn note_first<G: JudgeContext>(gate: &mut G, scratch: &Scratch) {
    let passed = scratch.event.verdict == Verdict::Pass as u8;
    let kind = if passed { FRAGMENTS_PASSED } else { FRAGMENTS_REFUSED };
    let until = gate.now() + FRAGMENT_NS;
    gate.set_fragments(&scratch.packet.fragment, kind | until);
}

/// Returns whether the second look judges this datagram, which the host has put together: the first look
/// could not read it whole. Reads the outer layers into `scratch`, which comes all zero.
#[inline(always)]
pub fn is_noted<B: Bytes, G: JudgeContext>(bytes: &B, gate: &mut G, scratch: &mut Scratch) -> bool {
    if frame::read(bytes, &mut scratch.packet).is_err()
        || scratch.packet.transport != TRANSPORT_UDP
        || scratch.packet.part != Part::Whole
    {
        return false;
    }
    let until = gate.unread_until(&scratch.packet.datagram());
    until != 0 && gate.now() < until
}

/// Judges a datagram for which [`is_noted`] is true. The result is in `scratch.event`, as that of
/// [`judge`]. `scan` walks the headers as [`message::scan_in_turns`] does. The ports are not checked again:
/// the host may have changed the destination.
#[inline(always)]
pub fn judge_again<B: Bytes, G: JudgeContext>(
    bytes: &mut B,
    gate: &mut G,
    scratch: &mut Scratch,
    scan: impl Fn(&B, usize, usize, &mut Fields) -> u8,
) -> Reason {
    note_packet(&mut scratch.event, &scratch.packet);
    let reason = match judge_message::<B, G, false>(bytes, gate, scratch, scan) {
        Ok(reason) | Err(reason) => reason,
    };
    scratch.event.reason = reason as u8;
    reason
}

/// Notes the outer layers of a packet.
#[inline(always)]
fn note_packet(event: &mut Event, packet: &Packet) {
    event.source = packet.fragment.source;
    event.source_port = packet.source_port;
    event.destination_port = packet.destination_port;
    event.transport = packet.transport;
}

#[inline(always)]
fn read_and_decide<B: Bytes, G: JudgeContext>(
    bytes: &mut B,
    gate: &mut G,
    scratch: &mut Scratch,
    reader: Reader,
) -> Result<Reason, Reason> {
    gate.settings().ok_or(Reason::NoPolicy)?;
    let read = frame::read(bytes, &mut scratch.packet);
    let packet = &scratch.packet;
    let event = &mut scratch.event;
    note_packet(event, packet);
    read?;

    if matches!(packet.part, Part::Later | Part::Last) {
        event.transport = TRANSPORT_UDP;
        let now = gate.now();
        let state = gate.fragments(&packet.fragment);
        if now >= state & FRAGMENTS_UNTIL {
            gate.set_fragments(&packet.fragment, FRAGMENTS_LATER | (now + REASSEMBLY_NS));
            return Err(Reason::LaterFragment);
        }
        let enforces = enforces(gate.settings().ok_or(Reason::NoPolicy)?, now);
        if state <= FRAGMENTS_UNTIL && enforces && now >= gate.override_until() {
            event.verdict = Verdict::Drop as u8;
            event.policy_verdict = Verdict::Drop as u8;
            return Ok(Reason::RefusedFragment);
        }
        return Err(Reason::LaterFragment);
    }
    if packet.transport == TRANSPORT_TCP {
        let sip = gate.is_sip_port(packet.destination_port) || gate.is_sip_port(packet.source_port);
        return Err(if sip { Reason::SipOverTcp } else { Reason::NotUdp });
    }
    if !gate.is_sip_port(packet.destination_port) {
        return Err(Reason::OtherPort);
    }
    if packet.part == Part::First && packet.payload_len < TINY {
        return Err(cut(bytes, gate, packet));
    }
    let scan = match reader {
        Reader::Full => message::scan,
        Reader::Slim => message::scan_slim,
    };
    judge_message::<B, G, true>(bytes, gate, scratch, scan)
}

/// Judges the payload of a datagram, whose outer layers are in `scratch`. The `FIRST` look may leave it to
/// the second.
#[inline(always)]
fn judge_message<B: Bytes, G: JudgeContext, const FIRST: bool>(
    bytes: &mut B,
    gate: &mut G,
    scratch: &mut Scratch,
    scan: impl Fn(&B, usize, usize, &mut Fields) -> u8,
) -> Result<Reason, Reason> {
    let packet = &scratch.packet;
    let event = &mut scratch.event;
    let end = packet.payload + packet.payload_len;
    let start = message::request_uri(bytes, packet.payload, packet.payload_len);
    if start == 0 {
        return Err(Reason::NotInvite);
    }
    scratch.start = start;
    // Only now: reading the clock costs more than passing a packet that is no INVITE.
    event.time = gate.now();
    if FIRST && is_for_another(bytes, gate) {
        return Err(Reason::OtherMachine);
    }
    if FIRST && is_late(gate, packet, event.time) {
        return Err(cut(bytes, gate, packet));
    }
    if gate.settings().ok_or(Reason::NoPolicy)?.trunks_configured != 0 {
        find_trunk(gate, event);
        // Before the headers are read: a stranger costs little.
        if event.trunk == 0 {
            return Err(Reason::UnknownTrunk);
        }
    }

    bytes.revalidate();
    let state = scan(bytes, start, end - start, &mut scratch.fields);
    let invite = match message::check(bytes, start, state, &scratch.fields) {
        Err(Reason::HeadersCut) if FIRST => return Err(cut(bytes, gate, packet)),
        checked => checked?,
    };
    event.call_id = message::call_id_hash(bytes, start + invite.call_id, invite.call_id_len);
    event.call_id_offset = (start + invite.call_id) as u16;
    event.call_id_len = invite.call_id_len as u16;
    if invite.to_tag {
        event.flags |= EVENT_TO_TAG;
        return Err(Reason::InDialog);
    }
    if FIRST && is_answered_later(bytes, gate, packet, event.trunk) {
        return Err(Reason::SecondLook);
    }
    let profile = gate.profile(event.trunk as u32).ok_or(Reason::NoPolicy)?;
    let fields = &scratch.fields;
    let mut uris = fields[Field::FromUri as usize];
    if profile.trusts_pai() && !fields[Field::Pai as usize].is_missing() {
        event.identity = EVENT_PAI;
        let values = fields[Field::PaiValue as usize];
        if values.is_above_two() {
            return Err(Reason::TooManyIdentities);
        }
        uris = fields[Field::PaiUri as usize];
        // A value without a URI that has numbers may name anybody.
        if values.is_repeated() && !uris.is_repeated() {
            return Err(Reason::NoNumberUri);
        }
    } else if profile.needs_pai() {
        return Err(Reason::PaiMissing);
    } else {
        event.identity = EVENT_FROM;
        event.flags |= ignored_pai(fields);
        // Only here: where PAI names the caller, nothing is read from `From`.
        if !fields[Field::FromFault as usize].is_missing() {
            return Err(Reason::BadHeader);
        }
    }
    let without_daemon = profile.without_daemon as u32;
    // Replies to datagrams of the second look always need the daemon.
    let without_daemon = if FIRST { without_daemon } else { without_daemon * 2 };
    if profile.attempt_identity != 0 {
        let kinds = profile.attempt_identity;
        event.attempt_identity = attempt_identity::read(bytes, start, fields, kinds);
    }
    bytes.revalidate();
    let (first, second) = numbers(bytes, bytes.hide_range(start), uris, &profile.plan)?;
    let settings = gate.settings().ok_or(Reason::NoPolicy)?;
    let enforced = enforces(settings, event.time) && profile.mode == MODE_ENFORCE;
    let first = Number(bytes.hide_range(first.0 as usize) as u64);
    let second = Number(bytes.hide_range(second.0 as usize) as u64);
    let enforced = bytes.hide_range(enforced as usize) as u32;
    event.number = first;
    if second != Number::NONE {
        event.flags |= EVENT_TWO_IDENTITIES;
    }
    if !scratch.fields[Field::Replaces as usize].is_missing() {
        return Err(Reason::Replaces);
    }

    if FIRST || profile.reply_path != REPLY_PATH_DRIVER {
        event.reply = profile.refuse;
    }
    let separate = profile.separate;
    let call_id = event.call_id;
    let identity = event.attempt_identity;
    let call =
        Call { number: first, second, call_id, identity, enforced, separate, without_daemon };
    let decision = decide::decide(gate, &call);
    event.verdict = decision.verdict as u8;
    if decision.verdict != Verdict::Drop || FIRST && scratch.packet.part != Part::Whole {
        event.reply = 0;
    }
    event.policy_verdict = decision.policy_verdict as u8;
    event.rule = decision.rule;
    event.number = decision.number;
    if decision.repeated {
        event.flags |= EVENT_REPEATED;
    }
    Ok(decision.reason)
}

/// Returns whether a datagram is left to the second look although its headers were read. The driver cannot answer one
/// in fragments, nor one that is longer than an Ethernet frame.
#[inline(never)]
fn is_answered_later<B: Bytes, G: JudgeContext>(
    bytes: &B,
    gate: &mut G,
    packet: &Packet,
    trunk: u16,
) -> bool {
    if packet.part != Part::First && packet.payload_len <= SUM_MAX - UDP_LEN {
        return false;
    }
    gate.profile(trunk as u32).is_some_and(may_be_by_daemon)
        && gate.reaches_socket(packet)
        && is_left_to_second_look(bytes.hide_range(bytes.readable()), gate, packet)
}

/// Returns the flag of a `P-Asserted-Identity`, or 0 without one. A branch would be another way for the verifier.
#[inline(always)]
const fn ignored_pai(fields: &Fields) -> u8 {
    const OFFSET_MAX: usize = 0x3FFF;
    let is_there = (fields[Field::Pai as usize].newest() + OFFSET_MAX) / (OFFSET_MAX + 1);
    EVENT_PAI_IGNORED * is_there as u8
}

/// Notes the trunk that the source belongs to; 0, the profile `default`, when none does.
#[inline(never)]
fn find_trunk<G: JudgeContext>(gate: &G, event: &mut Event) {
    event.trunk = gate.trunk(&event.source) as u16;
}

/// Returns the caller numbers of one or two identities, the lower one first. The second number is
/// [`Number::NONE`] if it is missing, if both are equal, or if one identity is a name.
#[inline(always)]
fn numbers<B: Bytes>(
    bytes: &B,
    start: usize,
    uris: FieldOffsets,
    plan: &Plan,
) -> Result<(Number, Number), Reason> {
    let uris = FieldOffsets(bytes.hide_range(uris.0 as usize) as u64);
    let mut read = [Unread::name(Reason::NoNumberUri).0; 2];
    let mut i = 0;
    while i < 2 {
        let uri = uris.nth(i);
        if uri == FieldOffset::NONE {
            break;
        }
        let value = bytes.hide_range(number::<B, true>(bytes, start, uri, plan) as usize) as u64;
        if value & (0xF | Unread::NAME) == 0 {
            // It may be another number, and it cannot be compared.
            return Err(Unread(value).reason());
        }
        read[i] = bytes.hide_range(value as usize) as u64;
        i += 1;
    }
    let is_number = |value: u64| value & 0xF != 0;
    match read {
        [only, name] if is_number(only) && !is_number(name) => Ok((Number(only), Number::NONE)),
        [name, only] if is_number(only) && !is_number(name) => Ok((Number(only), Number::NONE)),
        [name, _] if !is_number(name) => Err(Unread(name).reason()),
        [a, b] if a == b => Ok((Number(a), Number::NONE)),
        // One order for both orders of the message: attempts have the first one as key.
        [a, b] if a < b => Ok((Number(a), Number(b))),
        [a, b] => Ok((Number(b), Number(a))),
    }
}

/// Returns the caller number of the URI whose scheme ends at `colon`. With a low nibble of 0,
/// which no number has, it is an [`Unread`] instead. With `EXTENSIONS` a number with an extension is another
/// number. One register: a function that returns
/// through a pointer may leave that pointer in `r0`, which the verifier refuses.
#[inline(never)]
pub(crate) fn number<B: Bytes, const EXTENSIONS: bool>(
    bytes: &B,
    start: usize,
    colon: FieldOffset,
    plan: &Plan,
) -> u64 {
    let form = colon.form();
    let user = start + colon.offset() + 1;
    let plain = if form == Form::Sip as u8 { uri::read_plain(bytes, user) } else { None };
    let any = || {
        let (user, form) = (bytes.hide_range(user), bytes.hide_range(form as usize));
        uri::read::<B, EXTENSIONS>(&bytes.revalidated(), user, form as u8)
    };
    let number = match plain.map_or_else(any, Ok) {
        Ok(dialled) => plan.resolve_in(&dialled.hide_ranges(bytes), bytes).map_err(Unread::by_plan),
        Err(unread) => Err(unread),
    };
    match number {
        Ok(number) => number.0,
        Err(unread) => unread.0,
    }
}

/// Returns whether the mode for all trunks enforces blocks.
fn enforces(settings: &Settings, now: u64) -> bool {
    settings.mode == MODE_ENFORCE && (settings.enforce_until == 0 || now < settings.enforce_until)
}
