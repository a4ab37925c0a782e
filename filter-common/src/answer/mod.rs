//! The reply to a refused INVITE, as a stateless user agent server makes it (RFC 3261 §8.2.6.2, §8.2.7).
//!
//! [`Answer::write`] makes the whole frame from a frame that was judged and refused, and [`is_own_ack`]
//! knows the ACK for it again. [`sums::check`] says whether a frame is whole: a damaged number must not get a
//! final reply. Both are pure and have the form that the kernel's verifier needs: tables instead
//! of branches, one buffer in a map, bounded loops.
//!
//! ARCHITECTURE.md, "Answers to refused calls", has the way of a reply.

pub mod code;
mod frame;
mod outer;
mod steps;
pub mod sums;
pub mod tag;
#[cfg(test)]
mod tests;
mod text;
mod walk;

use crate::abi::{BLOCK_REFUSE_DROP, Event, Keys, Profile, ReplySecond, Verdict};
use crate::bytes::Bytes;
use crate::contact::Contact;
use crate::frame::{Packet, Part};
use crate::reason::Reason;
use crate::sip::message;
use outer::HEAD;
pub use outer::{LONG_ROOM, ROOM, Reply, UDP_LEN};
use steps::{Field, Gap};
use sums::Checked;
use tag::{Call, TAG_LEN};
use text::Text;
pub use walk::WALK_MAX;
use walk::Walk;

/// Port of a `Via` without one (RFC 3261 §18.2.2).
const SIP_PORT: u16 = 5060;
const TAG_NAME: &[u8] = b";tag=";
const END: &[u8] = b"Content-Length: 0\r\n\r\n";
/// The compact form (RFC 3261 §7.3.3, §20.14), for a request that is hardly longer than its reply.
const COMPACT_END: &[u8] = b"l:0\r\n\r\n";
const METHOD_LEN: usize = 4;
/// The first bytes of an ACK (RFC 3261 §7.1), in network order.
pub const ACK_START: u32 = u32::from_be_bytes(*b"ACK ");

/// Room for the work on one reply. All of it is zero when a packet begins. Too much for the kernel's
/// stack: the kernel program has it in a map.
///
/// `SIZE` is the length of the room, a power of two: [`ROOM`] for a request in one frame, [`LONG_ROOM`] for one in several.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Answer<const SIZE: usize = ROOM> {
    /// The frame is in here.
    room: [u8; SIZE],
    walk: Walk,
    rport: Text,
    received: Text,
    tag: Text,
}

impl<const SIZE: usize> Default for Answer<SIZE> {
    fn default() -> Answer<SIZE> {
        Answer {
            room: [0; SIZE],
            walk: Walk::default(),
            rport: Text::default(),
            received: Text::default(),
            tag: Text::default(),
        }
    }
}

/// The outcome for a refused call that is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The reply was written.
    Written(Reply),
    /// A checksum is wrong, or missing where the trunk does not accept that. The client sends the call again.
    Damaged,
    /// The trunk has got its replies of this second.
    Limited,
    /// This call gets no reply: see [`Answer::write`].
    Impossible,
    /// The block wants silence.
    Silent,
}

impl<const SIZE: usize> Answer<SIZE> {
    /// Writes the reply to a frame that the first look has judged and refused, if its sums are right. `code` is
    /// the number of a [`Code`](code::Code), or [`BLOCK_REFUSE_DROP`]. `has_room` returns whether the trunk may get one more reply in this
    /// second; a damaged frame does not count. `self` comes all zero, but for its room.
    #[inline(always)]
    pub fn reply<B: Bytes>(
        &mut self,
        bytes: &mut B,
        packet: &Packet,
        keys: &Keys,
        profile: &Profile,
        code: u8,
        has_room: impl FnOnce() -> bool,
    ) -> Outcome {
        if code == BLOCK_REFUSE_DROP {
            return Outcome::Silent;
        }
        let accepted = match sums::check::<B, SIZE>(bytes, packet) {
            Checked::Right | Checked::Partial => true,
            Checked::Missing => profile.replies_without_checksum != 0,
            Checked::Wrong => false,
            Checked::Unread => return Outcome::Impossible,
        };
        if !accepted {
            return Outcome::Damaged;
        }
        if !has_room() {
            return Outcome::Limited;
        }
        bytes.revalidate();
        self.write(bytes, packet, keys, code, &profile.contact)
            .map_or(Outcome::Impossible, Outcome::Written)
    }

    /// Writes the reply to the INVITE in a frame, whose outer layers are in `packet`. The caller has judged
    /// and refused it, and knows that its checksums are right.
    ///
    /// `None`: this INVITE gets no reply. It is one of these:
    /// - no keys are set, or `code` is the number of no [`Code`](code::Code);
    /// - a `302` without `contact`;
    /// - a fragment, not UDP over IP, or headers that do not end within [`WALK_MAX`] bytes (16 KiB in a longer
    ///   room);
    /// - not exactly one `From`, `To` without a tag, `Call-ID` and `CSeq`, or a `Via` against the grammar;
    /// - a topmost `Via` with `maddr`, which would send the reply elsewhere, or with a `received` of the client;
    /// - a reply that would be longer than the request.
    #[inline(always)]
    pub fn write<B: Bytes>(
        &mut self,
        bytes: &B,
        packet: &Packet,
        keys: &Keys,
        code: u8,
        contact: &Contact,
    ) -> Option<Reply> {
        if packet.part != Part::Whole || !keys.are_set() {
            return None;
        }
        let start = message::request_uri(bytes, packet.payload, packet.payload_len);
        if start == 0 {
            return None;
        }
        let len = packet.payload + packet.payload_len - start;
        let texts = code::texts_of(bytes.hide_range(code as usize));
        put(&mut self.room, HEAD, &texts.line);
        if texts.line_len == 0 {
            return None;
        }
        let contact_len = texts.contacts * contact.line_len();
        if contact_len < texts.contacts {
            return None;
        }
        let at = HEAD + texts.line_len;

        self.rport.set_rport(packet.source_port, &packet.fragment.source);
        self.received.set_received(&packet.fragment.source);
        let tag_len = TAG_NAME.len() + TAG_LEN;
        self.walk.begin(at, self.rport.len(), self.received.len(), tag_len);
        if !self.walk.run(bytes, start, len, &mut self.room) {
            return None;
        }
        let call = self.walk.call(bytes, start)?;
        let is_answered = !self.walk.field(Field::Via).is_missing()
            && self.walk.field(Field::From).only().is_some()
            && self.walk.field(Field::ToTag).is_missing()
            && self.walk.field(Field::Foreign).is_missing();
        if !is_answered {
            return None;
        }
        let port = self.fill_via(bytes, start, packet.source_port)?;
        self.tag.push(TAG_NAME);
        self.tag.push(&keys.tag(bytes, &call));
        fill(&mut self.room, self.walk.gap(Gap::To)?, &self.tag);

        let end = bytes.hide_range(self.walk.at);
        // Written in any case, and skipped without one: a branch would be another path for the verifier.
        put(&mut self.room, end, contact.line());
        let end = bytes.hide_range(end + contact_len);
        put(&mut self.room, end, &texts.reason);
        let with_reason = end + texts.reason_len;
        let room = HEAD + packet.payload_len;
        let end = if with_reason + END.len() <= room {
            put(&mut self.room, with_reason, END)
        } else if end + END.len() <= room {
            put(&mut self.room, end, END)
        } else {
            put(&mut self.room, end, COMPACT_END)
        };
        let end = bytes.hide_range(end);
        if end > room {
            return None;
        }
        frame::wrap(bytes, packet, port, &mut self.room, end)
    }

    /// Writes `received` and `rport` into the topmost `Via` (RFC 3261 §18.2.1, RFC 3581 §4). Returns the
    /// destination port of the reply (RFC 3261 §18.2.2). The address is always the source.
    #[inline(always)]
    fn fill_via<B: Bytes>(&mut self, bytes: &B, start: usize, source_port: u16) -> Option<u16> {
        if let Some(at) = self.walk.gap(Gap::Rport).or(self.walk.gap(Gap::RportEnd)) {
            fill(&mut self.room, at, &self.rport);
            return Some(source_port);
        }
        fill(&mut self.room, self.walk.gap(Gap::ViaEnd)?, &self.received);
        let port = self.walk.field(Field::Port);
        if port.is_missing() {
            return Some(SIP_PORT);
        }
        match number::<B, 5>(bytes, start + port.only()?) {
            0 => None,
            port => u16::try_from(port).ok(),
        }
    }

    /// Returns the bytes of a reply from `start` to `end`.
    #[must_use]
    pub fn bytes(&self, start: usize, end: usize) -> &[u8] {
        self.room.get(start..end).unwrap_or_default()
    }
}

impl Walk {
    /// Returns what request and ACK have in common, where the walk found each part once.
    #[inline(always)]
    fn call<B: Bytes>(&self, bytes: &B, start: usize) -> Option<Call> {
        self.field(Field::To).only()?;
        self.field(Field::CallId).only()?;
        self.field(Field::CSeq).only()?;
        let id = self.field(Field::CallIdStart).only()?;
        let id_len = self.field(Field::CallIdEnd).only()?.checked_sub(id)?;
        let cseq = number::<B, 10>(bytes, start + self.field(Field::CSeqNumber).only()?);
        Some(Call { id: start + id, id_len, cseq: u32::try_from(cseq).ok()? })
    }
}

/// Returns whether the datagram in a frame is an ACK for a reply of ours. Its `To` then has the tag that `keys`
/// make for its `Call-ID` and `CSeq`. `answer` has room for the work and comes all zero.
#[inline(always)]
pub fn is_own_ack<B: Bytes>(
    bytes: &B,
    packet: &Packet,
    keys: &Keys,
    now: u64,
    answer: &mut Answer,
) -> bool {
    if packet.part != Part::Whole
        || !keys.are_set()
        || bytes.be32(packet.payload) != Some(ACK_START)
    {
        return false;
    }
    let start = packet.payload + METHOD_LEN;
    let Some(len) = packet.payload_len.checked_sub(METHOD_LEN) else {
        return false;
    };
    answer.walk.begin(HEAD, 0, 0, 0);
    if !answer.walk.run(bytes, start, len, &mut answer.room) {
        return false;
    }
    let (Some(call), Some(tag)) =
        (answer.walk.call(bytes, start), answer.walk.field(Field::ToTag).only())
    else {
        return false;
    };
    keys.made(bytes, start + tag, &call, now)
}

/// Notes in the event of an ACK for a reply of ours that it is dropped.
#[inline(always)]
pub fn note_own_ack(event: &mut Event, trunk: u32) {
    event.trunk = trunk as u16;
    event.reason = Reason::RefusalAck as u8;
    event.verdict = Verdict::Drop as u8;
    event.policy_verdict = Verdict::Drop as u8;
}

impl ReplySecond {
    /// Counts a reply at a time in ns. Returns the new count, and whether the reply is within the limit of its second.
    #[inline(always)]
    #[must_use]
    pub const fn counted(self, time: u64, per_second: u32) -> (ReplySecond, bool) {
        let second = time / 1_000_000_000;
        let before = if self.second == second { self.count } else { 0 };
        (ReplySecond { second, count: before + 1 }, before < per_second as u64)
    }
}

/// Writes a text at `at` and returns the place after it.
#[inline(always)]
fn put<const ROOM: usize>(room: &mut [u8; ROOM], at: usize, text: &[u8]) -> usize {
    let mut i = 0;
    while i < text.len() {
        room[(at + i) & (ROOM - 1)] = text[i];
        i += 1;
    }
    at + text.len()
}

/// Fills the gap at `at` with a text that is as long. Where the gap comes after a line end, the text comes
/// before it.
#[inline(never)]
fn fill<const ROOM: usize>(room: &mut [u8; ROOM], at: usize, text: &Text) {
    let line_end = [room[at.wrapping_sub(2) & (ROOM - 1)], room[at.wrapping_sub(1) & (ROOM - 1)]];
    let line_end_len = match line_end {
        [b'\r', b'\n'] => 2,
        [_, b'\n'] => 1,
        _ => 0,
    };
    let mut at = at.wrapping_sub(line_end_len);
    let mut i = 0;
    while i < text.len() {
        room[at & (ROOM - 1)] = text.byte(i);
        at += 1;
        i += 1;
    }
    if line_end_len == 2 {
        room[at & (ROOM - 1)] = b'\r';
        at += 1;
    }
    if line_end_len > 0 {
        room[at & (ROOM - 1)] = b'\n';
    }
}

/// Returns the number of 1 to `DIGITS` decimal digits at `at`; `u64::MAX` for no digit or more.
#[inline(never)]
fn number<B: Bytes, const DIGITS: usize>(bytes: &B, at: usize) -> u64 {
    let mut number = 0;
    let mut i = 0;
    while i <= DIGITS {
        let digit = bytes.byte(at + i).unwrap_or(0).wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        number = number * 10 + digit as u64;
        i += 1;
    }
    if i == 0 || i > DIGITS { u64::MAX } else { number }
}
