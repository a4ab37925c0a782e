//! Emergency marks: what a trunk may be trusted to say of a call that must not be refused.
//!
//! `Priority: psap-callback` (RFC 7090 §5) and values of `Resource-Priority` (RFC 4412 §3.1).
//! They count only on a trunk that has any: every call to an emergency number may carry some,
//! and whoever sends the message writes them.

use crate::bytes::Bytes;
use crate::sip::headers::{self, Mark, Marks};

/// Marks that one trunk may have.
pub const MARKS_MAX: usize = 4;
/// Bytes of a mark: what two looks at a packet can read, and not less than what is left of a
/// message behind the first byte of a one-byte value.
pub const LEN: core::ops::RangeInclusive<usize> = 4..=16;

/// A mark as [`Profile`](crate::abi::Profile) has it, never 0; `None`: too short or too long. Not
/// keyed: who finds a text with the same hash gains no more than by sending the mark itself.
#[must_use]
pub fn mark(value: &str) -> Option<u64> {
    let bytes = value.as_bytes();
    if !LEN.contains(&bytes.len()) {
        return None;
    }
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let first = word(&bytes[..bytes.len().min(8)]);
    let last = bytes.len().checked_sub(8).map_or(0, |at| word(&bytes[at..]));
    Some(hash(first, last, bytes.len()))
}

/// Values are compared without regard to case (RFC 3261 §20.26, RFC 4412 §3.1).
#[inline(always)]
fn hash(first: u64, last: u64, len: usize) -> u64 {
    const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15; // 2^64 / golden ratio, odd
    const SMALL: u64 = 0x2020_2020_2020_2020;
    let hash = (first | SMALL).wrapping_mul(MULTIPLIER);
    let hash = (hash ^ hash >> 32 ^ (last | SMALL)).wrapping_mul(MULTIPLIER);
    (hash ^ hash >> 32 ^ len as u64) | 1
}

/// Whether an INVITE carries one of these marks; 1: it does. The last four values count.
#[inline(never)]
pub fn is_marked<B: Bytes>(
    bytes: &B,
    start: usize,
    marks: &Marks,
    wanted: &[u64; MARKS_MAX],
) -> u32 {
    if wanted[0] == 0 {
        return 0;
    }
    let starts = marks[Mark::PriorityStart as usize];
    let ends = marks[Mark::PriorityEnd as usize];
    let mut lane = 0;
    while lane < 64 {
        let from = headers::offset(starts >> lane);
        let len = headers::offset(ends >> lane).wrapping_sub(from);
        let mark = bytes.forget(read(bytes, start + from, len) as usize) as u64;
        let one = mark == wanted[0] || mark == wanted[1] || mark == wanted[2] || mark == wanted[3];
        if one && mark != 0 {
            return 1;
        }
        lane += 16;
    }
    0
}

/// The mark that stands there; 0: none.
#[inline(never)]
fn read<B: Bytes>(bytes: &B, at: usize, len: usize) -> u64 {
    let (at, len) = (bytes.forget(at), bytes.forget(len));
    if !LEN.contains(&len) {
        return 0;
    }
    let Some(mut first) = bytes.word(at) else {
        return 0;
    };
    let mut last = 0;
    if len < 8 {
        first &= (1 << (8 * len)) - 1;
    } else {
        match bytes.word(at + len - 8) {
            Some(word) => last = word,
            None => return 0,
        }
    }
    hash(first, last, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Slice;
    use crate::sip::headers::{START, Step};

    fn marked(headers: &str, wanted: [u64; MARKS_MAX]) -> bool {
        let text = format!("sip:112@x SIP/2.0\r\n{}\r\n\r\n", headers.replace('\n', "\r\n"));
        let mut marks = [0; 16];
        let mut step = Step::at(START);
        for (offset, byte) in text.bytes().enumerate() {
            step = step.next(byte);
            step.note(&mut marks, offset);
        }
        assert_eq!(step.state(), headers::END, "{headers}");
        is_marked(&Slice::from(text.as_bytes()), 0, &marks, &wanted) != 0
    }

    #[test]
    fn values_that_are_trusted() {
        let [callback, esnet] = ["psap-callback", "esnet.0"].map(|text| mark(text).unwrap());
        for (headers, expected) in [
            ("Priority: psap-callback", true),
            ("PRIORITY:PSAP-Callback", true),
            ("priority :\n  psap-callback\n", true),
            ("Priority: emergency", false),
            ("Priority: psap-callbacks", false),
            ("Priority: psap-callbac", false),
            ("Priority: psap-callback;x", false),
            ("Priority: \nSubject: psap-callback", false),
            ("Subject: psap-callback\nX-Priority: psap-callback", false),
            ("Resource-Priority: esnet.0", true),
            ("Resource-Priority: wps.3 , ESNET.0", true),
            ("Resource-Priority: wps.3,esnet.0,dsn.flash", true),
            ("Resource-Priority: wps.3,\n esnet.0", true),
            ("Resource-Priority: ,, esnet.0 ,", true),
            ("Resource-Priority: esnet.1", false),
            ("Resource-Priority: esnet.00", false),
            ("Resource-Priority: esnet.0.0", false),
            ("Resource-Priority: esnet.0\nResource-Priority: wps.3", true),
            ("Resource-Priority: esnet.0, wps.1, wps.2, wps.3", true),
            ("Resource-Priority: esnet.0, wps.1, wps.2, wps.3, wps.4", false),
            ("To: a", false),
        ] {
            assert_eq!(marked(headers, [callback, esnet, 0, 0]), expected, "{headers:?}");
            assert!(!marked(headers, [0; MARKS_MAX]), "{headers:?}");
        }
    }

    #[test]
    fn a_mark_of_any_length_is_found_and_no_other_is_it() {
        let texts: Vec<_> = LEN.map(|len| "0123456789.bcdef"[16 - len..].to_owned()).collect();
        for (index, text) in texts.iter().enumerate() {
            let wanted = [mark(text).unwrap(), 0, 0, 0];
            for (other, text) in texts.iter().enumerate() {
                assert_eq!(marked(&format!("Priority: {text}"), wanted), other == index, "{text}");
                let longer = format!("Priority: {text}0");
                assert!(!marked(&longer, wanted), "{longer}");
            }
        }
        assert_eq!(mark("a.0"), None);
        assert_eq!(mark("0123456789abcdefg"), None);
    }
}
