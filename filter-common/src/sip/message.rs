//! One INVITE: from the payload of a datagram to what the decision needs.

use crate::abi::CALL_ID_HASH_MAX;
use crate::bytes::{Bytes, OFFSET_MAX};
use crate::reason::Reason;
use crate::sip::fast;
pub use crate::sip::fields::SCAN_MAX;
use crate::sip::fields::{Field, FieldOffsets, Fields};
use crate::sip::headers::{BAD, END, START, Step};

/// How many bytes the slim reader reads from the Request-URI on: all that an Ethernet frame of
/// 1,500 bytes can hold.
pub const SLIM_SCAN_MAX: usize = 1472;
/// Empty lines before a request that are skipped (RFC 3261 §7.5).
const CRLF_MAX: usize = 4;

/// `INVITE ` as [`Bytes::word`] reads it, and the bytes of it that count.
const METHOD: u64 = u64::from_le_bytes(*b"INVITE \0");
const METHOD_MASK: u64 = 0x00FF_FFFF_FFFF_FFFF;
const METHOD_LEN: usize = 7;
/// ` SIP/2.0` with small letters; the version is case-insensitive (RFC 3261 §7.1).
const VERSION: u64 = u64::from_le_bytes(*b" sip/2.0");
const VERSION_CASE: u64 = u64::from_le_bytes(*b"\0\x20\x20\x20\0\0\0\0");

/// Returns the offset of the Request-URI of an INVITE in the datagram at `start`, `len` bytes
/// long; 0: not an INVITE. Methods are case-sensitive (RFC 3261 §7.1).
#[inline(never)]
pub fn request_uri<B: Bytes>(bytes: &B, start: usize, len: usize) -> usize {
    let mut at = start;
    let mut skipped = 0;
    while skipped < CRLF_MAX && bytes.be16(at) == Some(0x0D0A) {
        at += 2;
        skipped += 1;
    }
    match bytes.word(at) {
        Some(word) if word & METHOD_MASK == METHOD && at + METHOD_LEN < start + len => {
            at + METHOD_LEN
        }
        _ => 0,
    }
}

/// Which reader walks the headers of a message. Both say the same of every message that both
/// read to its empty line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reader {
    /// The fast reader, and the automaton where that is unsure. Reads [`SCAN_MAX`] bytes.
    #[default]
    Full,
    /// The automaton alone, byte by byte, for a kernel whose verifier refuses the full reader.
    /// Reads [`SLIM_SCAN_MAX`] bytes.
    Slim,
}

/// Walks the headers from the Request-URI at `start` to the empty line, `len` bytes at
/// most. Notes the offsets in `fields`, which come all zero. Returns the last state.
#[inline(never)]
pub fn scan<B: Bytes>(bytes: &B, start: usize, len: usize, fields: &mut Fields) -> u8 {
    if fast::scan(bytes, start, len, fields) != 0 {
        return END;
    }
    *fields = Fields::default();
    scan_all(&bytes.revalidated(), start, len, fields)
}

/// Walks the headers as [`scan`] does, by the slim reader.
#[inline(never)]
pub fn scan_slim<B: Bytes>(bytes: &B, start: usize, len: usize, fields: &mut Fields) -> u8 {
    walk::<B, SLIM_SCAN_MAX, false>(bytes, start, len, fields)
}

/// Runs the automaton on all that the full reader reads.
#[inline(always)]
pub fn scan_all<B: Bytes>(bytes: &B, start: usize, len: usize, fields: &mut Fields) -> u8 {
    walk::<B, SCAN_MAX, true>(bytes, start, len, fields)
}

/// Bytes that a turn of a [`Walk`] reads.
pub const TURN: usize = 64;
/// Turns after which a [`Walk`] is over.
pub const TURNS_MAX: u32 = (OFFSET_MAX / TURN) as u32;

/// A walk over the headers in turns of [`TURN`] bytes. A kernel with `bpf_loop` (Linux 5.17) verifies one
/// turn, however many follow.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Walk {
    step: Step,
    /// Offset of the Request-URI.
    start: u64,
    /// Bytes from there on that may be read.
    len: u64,
    /// Bytes that were read.
    at: u64,
    /// The offsets of the fields.
    pub fields: Fields,
}

impl Walk {
    /// Returns a walk from the Request-URI at `start` on, `len` bytes at most.
    #[inline(always)]
    #[must_use]
    pub fn new(start: usize, len: usize) -> Walk {
        let fields = Fields::default();
        Walk { step: Step::at(START), start: start as u64, len: len as u64, at: 0, fields }
    }

    /// Returns the state that the walk is in.
    #[inline(always)]
    #[must_use]
    pub fn state(&self) -> u8 {
        self.step.state()
    }

    /// Reads the next [`TURN`] bytes. Returns whether the walk is over.
    #[inline(always)]
    pub fn turn<B: Bytes>(&mut self, bytes: &B) -> bool {
        let (start, len) = (self.start as usize, self.len as usize);
        let mut step = self.step;
        let mut at = self.at as usize;
        let mut words = 0;
        let mut is_over = false;
        while words < TURN / 8 && at + 8 <= len {
            let Some(word) = bytes.word(start + at) else {
                is_over = true;
                break;
            };
            step = if step.stays(word) {
                step.break_link(bytes)
            } else {
                eight(step, word, &mut self.fields, at)
            };
            at += 8;
            words += 1;
        }
        let at = bytes.hide_range(at);
        if at + 8 > len {
            step = last(bytes, step, start, at, len, &mut self.fields);
            is_over = true;
        }
        self.step = step;
        self.at = at as u64;
        let state = step.state();
        is_over || state == END || state == BAD
    }
}

/// Walks the headers as [`scan`] does, by the automaton alone and in turns: all that an offset can name,
/// 16 KiB.
#[inline(always)]
pub fn scan_in_turns<B: Bytes>(bytes: &B, start: usize, len: usize, fields: &mut Fields) -> u8 {
    let mut walk = Walk::new(start, len);
    let mut turns = 0;
    while turns < TURNS_MAX && !walk.turn(bytes) {
        turns += 1;
    }
    *fields = walk.fields;
    walk.state()
}

/// Runs the automaton on `MAX` bytes and a few more. With `LEAPS` it steps over eight bytes at once of a
/// value that does not matter. A leap costs the verifier a second way through each turn.
#[inline(always)]
fn walk<B: Bytes, const MAX: usize, const LEAPS: bool>(
    bytes: &B,
    start: usize,
    len: usize,
    fields: &mut Fields,
) -> u8 {
    let (start, len) = (bytes.hide_range(start), bytes.hide_range(len));
    let mut step = Step::at(START);
    let mut i = 0;
    // Eight bytes a look: one bounds check for the verifier and the processor.
    while i < MAX && i + 8 <= len {
        let Some(word) = bytes.word(start + i) else {
            break;
        };
        if LEAPS && step.stays(word) {
            step = step.break_link(bytes);
            i += 8;
            continue;
        }
        step = eight(step, word, fields, i);
        i += 8;
        let state = step.state();
        if state == END || state == BAD {
            return state;
        }
    }
    let (i, len) = (bytes.hide_range(i), bytes.hide_range(len));
    last(bytes, step, start, i, len, fields).state()
}

/// Takes the steps of eight bytes at `offset`, the first one lowest in the word.
#[inline(always)]
fn eight(mut step: Step, word: u64, fields: &mut Fields, offset: usize) -> Step {
    let mut k = 0;
    while k < 8 {
        step = step.next((word >> (8 * k)) as u8);
        step.note(fields, offset + k);
        k += 1;
    }
    step
}

/// Takes the steps of the last bytes, from `offset` to `len`: eight at most, for no word has them.
#[inline(always)]
fn last<B: Bytes>(
    bytes: &B,
    mut step: Step,
    start: usize,
    mut offset: usize,
    len: usize,
    fields: &mut Fields,
) -> Step {
    let mut rest = 0;
    while rest < 8 && offset < len {
        let Some(byte) = bytes.byte(start + offset) else {
            break;
        };
        step = step.next(byte);
        step.note(fields, offset);
        offset += 1;
        rest += 1;
    }
    step
}

/// The parts of an INVITE that the decision needs. Offsets count from the Request-URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invite {
    /// First byte of the Call-ID.
    pub call_id: usize,
    /// Length of the Call-ID in bytes.
    pub call_id_len: usize,
    /// Whether the `To` has a tag: not an initial INVITE.
    pub to_tag: bool,
}

/// Checks what the walk found: one request line, one `From`, one `To`, one `Call-ID`.
///
/// # Errors
/// The reason why this message is not sure enough to be judged.
#[inline(always)]
pub fn check<B: Bytes>(
    bytes: &B,
    start: usize,
    state: u8,
    fields: &Fields,
) -> Result<Invite, Reason> {
    let line_end = fields[Field::LineEnd as usize].newest();
    if state == BAD {
        return Err(if line_end == 0 { Reason::BadRequestLine } else { Reason::BadHeader });
    }
    if line_end != 0 && !has_version(bytes, start + line_end) {
        return Err(Reason::BadRequestLine);
    }
    if state != END {
        return Err(Reason::HeadersCut);
    }
    once(fields[Field::From as usize], Reason::FromMissing, Reason::FromRepeated)?;
    once(fields[Field::To as usize], Reason::ToMissing, Reason::ToRepeated)?;
    once(fields[Field::CallId as usize], Reason::CallIdMissing, Reason::CallIdRepeated)?;
    let call_id = fields[Field::CallIdStart as usize].newest();
    if call_id == 0 {
        return Err(Reason::CallIdMissing);
    }
    Ok(Invite {
        call_id,
        call_id_len: fields[Field::CallIdEnd as usize].newest().wrapping_sub(call_id),
        to_tag: !fields[Field::ToTag as usize].is_missing(),
    })
}

fn once(offsets: FieldOffsets, missing: Reason, repeated: Reason) -> Result<(), Reason> {
    if offsets.is_missing() {
        Err(missing)
    } else if offsets.is_repeated() {
        Err(repeated)
    } else {
        Ok(())
    }
}

/// Returns whether ` SIP/2.0` is before the line end at `line_end`.
fn has_version<B: Bytes>(bytes: &B, line_end: usize) -> bool {
    bytes.word(line_end.wrapping_sub(8)).is_some_and(|word| word | VERSION_CASE == VERSION)
}

/// Returns the hash that separates attempts: equal texts have equal hashes. Not keyed:
/// two Call-IDs with one hash gain a caller no more than one Call-ID that is sent twice.
#[inline(always)]
pub fn call_id_hash<B: Bytes>(bytes: &B, start: usize, len: usize) -> u64 {
    const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15; // 2^64 / golden ratio, odd
    let mut hash = len as u64;
    let mut i = 0;
    while i < CALL_ID_HASH_MAX && i + 8 <= len {
        let Some(word) = bytes.word(start + i) else {
            break;
        };
        hash = (hash ^ word).wrapping_mul(MULTIPLIER);
        hash ^= hash >> 32;
        i += 8;
    }
    let (mut i, len) = (bytes.hide_range(i), bytes.hide_range(len));
    let mut rest = 0;
    while rest < 7 && i < len {
        let Some(byte) = bytes.byte(start + i) else {
            break;
        };
        hash = (hash ^ byte as u64).wrapping_mul(MULTIPLIER);
        hash ^= hash >> 32;
        i += 1;
        rest += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Slice;

    #[test]
    fn an_invite_in_capitals_behind_empty_lines() {
        for (message, expected) in [
            ("INVITE sip:1", 7),
            ("\r\n\r\nINVITE sip:1", 11),
            ("invite sip:1", 0),
            ("INVITES sip:1", 0),
            ("\nINVITE sip:1", 0),
            ("SIP/2.0 200 OK", 0),
            ("\r\n\r\n", 0),
        ] {
            let bytes = Slice::from(message.as_bytes());
            assert_eq!(request_uri(&bytes, 0, message.len()), expected, "{message:?}");
        }
    }

    #[test]
    fn call_ids_are_told_apart() {
        let texts: Vec<String> = (1..40)
            .map(|len| "a".repeat(len))
            .chain((0..40).map(|i| format!("{i}@host")))
            .chain([format!("{}b", "a".repeat(255)), format!("{}c", "a".repeat(255))])
            .collect();
        let mut hashes: Vec<_> = texts
            .iter()
            .map(|text| call_id_hash(&Slice::from(text.as_bytes()), 0, text.len()))
            .collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), texts.len());
    }
}
