//! The identity of an attempt, which each leg of a call has although a carrier changes the Call-ID.
//!
//! ```text
//! Call-Info: <urn:emergency:uid:callid:a56e556d871:bcf.example.net>;purpose=emergency-CallId
//! P-Charging-Vector: icid-value=1234bc9876e;icid-generated-at=192.0.6.8
//! Session-ID: ab30317f1a784dc48ff824d0d3715d86;remote=00000000000000000000000000000000
//! ```
//!
//! Sources: NENA-STA-010.3 (emergency call identifier), RFC 7315 §5.6 (`icid-value`), RFC 7989 §5 (`Session-ID`). A form that is
//! not sure has no identity: white space before the colon, a folded line before the value, two such header fields.

use crate::abi::{ATTEMPT_EMERGENCY, ATTEMPT_ICID, ATTEMPT_SESSION};
use crate::bytes::{Bytes, OFFSET_MAX};
use crate::sip::fields::{Field, FieldOffsets, Fields};
use crate::sip::swar::{TOP, Text, is, is_bracket, lowest, not_graphic, splat};

/// Bytes of the shortest identity.
const SHORTEST: usize = 8;
/// Words that an identity is looked for in: the longest has 127 bytes.
const WORDS: usize = 16;
/// Bytes of the UUID of a `Session-ID`: 32 hexadecimal digits.
const UUID: usize = 32;
/// Header fields of one name that are looked at: as many as [`FieldOffsets`] has offsets.
const FINDS: usize = 4;
/// No value begins farther away. Otherwise the verifier walks the following code once more for each word that could be
/// too far.
const NEAR: usize = OFFSET_MAX - 512;

/// The kinds of identities, as they are in the low two bits of an identity.
const EMERGENCY: usize = 1;
const ICID: usize = 2;
const SESSION: usize = 3;

/// The beginning of a header field with an identity.
struct Beginning {
    /// The field of the reader that notes a place in the name.
    field: Field,
    /// The offset of that place in the name.
    place: usize,
    /// The name with its colon.
    name: Words,
    /// The beginning of the value, before the identity.
    value: Words,
}

const CALL_INFO: Beginning = Beginning {
    field: Field::CallInfo,
    place: 6,
    name: Words::new(b"call-info:"),
    value: Words::new(b"<urn:emergency:uid:callid:"),
};
const CHARGING_VECTOR: Beginning = Beginning {
    field: Field::ChargingOrSession,
    place: 3,
    name: Words::new(b"p-charging-vector:"),
    value: Words::new(b"icid-value="),
};
const SESSION_ID: Beginning = Beginning {
    field: Field::ChargingOrSession,
    place: 7,
    name: Words::new(b"session-id:"),
    value: Words::new(b""),
};

/// A text of up to 32 characters, letters in either case.
struct Words {
    words: [Text; 4],
    len: usize,
}

impl Words {
    const fn new(text: &[u8]) -> Words {
        const fn part(text: &[u8], from: usize) -> Text {
            let from = if from < text.len() { from } else { text.len() };
            let (_, rest) = text.split_at(from);
            let (word, _) = rest.split_at(if rest.len() < 8 { rest.len() } else { 8 });
            Text::new(word)
        }
        let words = [part(text, 0), part(text, 8), part(text, 16), part(text, 24)];
        Words { words, len: text.len() }
    }

    /// Returns whether this text is at the offset `at`.
    #[inline(always)]
    fn is_at<B: Bytes>(&self, bytes: &B, at: usize) -> bool {
        let mut i = 0;
        while i < self.words.len() && 8 * i < self.len {
            match bytes.word(at + 8 * i) {
                Some(word) if self.words[i].begins(word) => {}
                _ => return false,
            }
            i += 1;
        }
        true
    }
}

/// Returns the identity of an attempt: a hash, and its kind in the low two bits. 0: the message has none of these `kinds`
/// (`ATTEMPT_…` bits). The first kind counts that the message has exactly once. The hash is not keyed: callers who
/// send an identity that is not theirs only keep their own calls from being counted.
#[inline(never)]
pub fn read<B: Bytes>(bytes: &B, start: usize, fields: &Fields, kinds: u8) -> u32 {
    let (mut at, mut kind) = (0, EMERGENCY);
    if kinds & ATTEMPT_EMERGENCY != 0 {
        at = find(bytes, start, fields, &CALL_INFO);
    }
    if at == 0 && kinds & ATTEMPT_ICID != 0 {
        at = find(bytes, start, fields, &CHARGING_VECTOR);
        kind = ICID;
    }
    if at == 0 && kinds & ATTEMPT_SESSION != 0 {
        at = find(bytes, start, fields, &SESSION_ID);
        kind = SESSION;
    }
    let (at, kind) = (bytes.hide_range(at), bytes.hide_range(kind));
    if at == 0 { 0 } else { value(bytes, at, kind) }
}

/// Returns the kind of an identity as an `ATTEMPT_…` bit; 0: there is no identity.
#[must_use]
pub const fn kind(identity: u32) -> u8 {
    // Of the numbers 1 to 3 the bits 1, 2 and 4.
    (1 << (identity & 3) >> 1) as u8
}

/// Returns where the identity begins in the only header field with this beginning; 0: it is missing or not sure.
#[inline(always)]
fn find<B: Bytes>(bytes: &B, start: usize, fields: &Fields, beginning: &Beginning) -> usize {
    let offsets =
        FieldOffsets(bytes.hide_range(fields[beginning.field as usize].0 as usize) as u64);
    let (mut found, mut finds, mut i) = (0, 0, 0);
    while i < FINDS {
        let offset = offsets.nth(i).offset();
        let at = identity_at(bytes, (start + offset).wrapping_sub(beginning.place), beginning);
        if at != 0 {
            found = at;
            finds += 1;
        }
        i += 1;
    }
    if finds == 1 { found } else { 0 }
}

/// Returns where the identity begins in the line at `line`; 0: it has no such beginning.
#[inline(always)]
fn identity_at<B: Bytes>(bytes: &B, line: usize, beginning: &Beginning) -> usize {
    let line = bytes.hide_range(line);
    if line > NEAR || !beginning.name.is_at(bytes, line) {
        return 0;
    }
    let colon = line + beginning.name.len;
    // No join of a byte that may be missing: LLVM would read its undefined half, and the verifier sees that.
    let Some(first) = bytes.byte(colon) else {
        return 0;
    };
    let value = bytes.hide_range(colon + (first == b' ') as usize);
    if value > NEAR || !beginning.value.is_at(bytes, value) {
        return 0;
    }
    bytes.hide_range(value + beginning.value.len)
}

/// Returns the identity of this kind at `at`; 0: it is malformed.
#[inline(always)]
fn value<B: Bytes>(bytes: &B, at: usize, kind: usize) -> u32 {
    let Some(first) = bytes.byte(at) else {
        return 0;
    };
    let is_quoted = kind == ICID && first == b'"';
    let at = bytes.hide_range(at + is_quoted as usize);
    if at > NEAR {
        return 0;
    }
    let (mut hash, mut len, mut words) = (0, 0, 0);
    while words < WORDS {
        let word = word(bytes, at + 8 * words);
        let found = not_in_identity(word) & TOP;
        if found != 0 {
            let rest = lowest(found);
            len = 8 * words + rest;
            hash = mix(hash, word & !(u64::MAX << (8 * rest)));
            break;
        }
        hash = mix(hash, word);
        words += 1;
    }
    let (hash, len) = (bytes.hide_range(hash as usize) as u64, bytes.hide_range(len));
    if len < SHORTEST {
        return 0;
    }
    let Some(end) = bytes.byte(at + len) else {
        return 0;
    };
    let is_ended = match (kind, end) {
        (EMERGENCY, b'>') => true,
        (ICID, b'"') => is_quoted,
        (ICID, b';' | b' ' | b'\t' | b'\r' | b'\n') => !is_quoted,
        (SESSION, b';' | b' ' | b'\t' | b'\r' | b'\n') => len == UUID && hash != NO_UUID,
        _ => false,
    };
    if is_ended { (hash >> 32) as u32 & !3 | kind as u32 & 3 } else { 0 }
}

/// Returns the eight bytes from `at` on, with zeros after the last that can be read.
#[inline(always)]
fn word<B: Bytes>(bytes: &B, at: usize) -> u64 {
    if let Some(word) = bytes.word(at) {
        return word;
    }
    let last = bytes.hide_range(bytes.readable().wrapping_sub(8));
    match bytes.word(last) {
        Some(word) if at > last && at - last < 8 => word >> (8 * (at - last)),
        _ => 0,
    }
}

/// Finds the end of an identity: a quote, a separator of parameters or values, all but 0x21 to 0x7E.
#[inline(always)]
const fn not_in_identity(x: u64) -> u64 {
    not_graphic(x) | is(x, b'"') | is(x, b'\\') | is(x, b',') | is(x, b';') | is_bracket(x)
}

/// Returns the hash after another word, letters in either case.
#[inline(always)]
const fn mix(hash: u64, word: u64) -> u64 {
    const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15; // 2^64 / golden ratio, odd
    let hash = (hash ^ (word | splat(0x20))).wrapping_mul(MULTIPLIER);
    hash ^ hash >> 32
}

/// The hash of the nil UUID, the name of a session whose name is not known (RFC 7989 §5).
const NO_UUID: u64 = {
    let zeros = u64::from_le_bytes([b'0'; 8]);
    mix(mix(mix(mix(mix(0, zeros), zeros), zeros), zeros), 0)
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::abi::ATTEMPT_ALL as ALL;
    use crate::bytes::Slice;
    use crate::sip::headers::END;
    use crate::sip::message;

    const URN: &str = "Call-Info: <urn:emergency:uid:callid:a56e556d871:bcf.example.net>;purpose=x";
    const ICID: &str = "P-Charging-Vector: icid-value=1234bc9876e;icid-generated-at=192.0.6.8";
    const SESSION: &str = "Session-ID: ab30317f1a784dc48ff824d0d3715d86;remote=0";

    /// Returns the identity in an INVITE with these header lines at its end. Both readers find the same.
    fn read_from(lines: &str, kinds: u8) -> u32 {
        let text = format!(
            "INVITE sip:112@x SIP/2.0\r\nFrom: <sip:1@x>\r\nTo: <sip:2@x>\r\nCall-ID: 1\r\n{lines}\r\n\r\n"
        );
        let bytes = Slice::from(text.as_bytes());
        let (start, len) = (7, text.len() - 7);
        let (mut any, mut slow) = (Fields::default(), Fields::default());
        assert_eq!(message::scan(&bytes, start, len, &mut any), END, "{text}");
        message::scan_in_turns(&bytes, start, len, &mut slow);
        let identity = read(&bytes, start, &any, kinds);
        assert_eq!(read(&bytes, start, &slow, kinds), identity, "{text}");
        identity
    }

    #[test]
    fn first_kind_that_the_trunk_is_trusted_for_counts() {
        let all = format!("{SESSION}\r\n{ICID}\r\nSession-Expires: 1800\r\n{URN}");
        for (kinds, expected) in [
            (0, 0),
            (ALL, ATTEMPT_EMERGENCY),
            (ATTEMPT_ICID | ATTEMPT_SESSION, ATTEMPT_ICID),
            (ATTEMPT_SESSION, ATTEMPT_SESSION),
        ] {
            assert_eq!(kind(read_from(&all, kinds)), expected, "{kinds}");
        }
        for (line, expected) in
            [(URN, ATTEMPT_EMERGENCY), (ICID, ATTEMPT_ICID), (SESSION, ATTEMPT_SESSION)]
        {
            assert_eq!(kind(read_from(line, ALL)), expected, "{line}");
            assert_eq!(read_from(line, ALL & !expected), 0, "{line}");
        }
    }

    #[test]
    fn identity_is_the_same_in_each_form_of_a_field() {
        for forms in [
            &[
                URN,
                "call-info:<URN:Emergency:uid:callid:A56E556D871:bcf.example.net>",
                "Call-Info: <http://x>;purpose=icon\r\nCall-Info: <urn:emergency:uid:incidentid:1:x>\r\n\
                 Call-Info: <urn:emergency:uid:callid:a56e556d871:bcf.example.net>\r\nCall-Info: <cid:1>",
            ][..],
            &[
                ICID,
                "P-CHARGING-VECTOR:ICID-value=1234BC9876E",
                "p-charging-vector: icid-value=1234bc9876e ; orig-ioi=a",
                "p-charging-vector: icid-value=\"1234bc9876e\"",
                "P-Charging-Function-Addresses: ccf=1\r\nP-Called-Party-ID: <sip:1@x>\r\n\
                 P-Charging-Vector: icid-value=1234bc9876e\r\n ;orig-ioi=a",
            ],
            &[
                SESSION,
                "session-id:AB30317F1A784DC48FF824D0D3715D86",
                "Session-Expires: 1800\r\nSession-ID: ab30317f1a784dc48ff824d0d3715d86",
            ],
        ] {
            let first = read_from(forms[0], ALL);
            for form in forms {
                assert_eq!((read_from(form, ALL), first != 0), (first, true), "{form}");
                // However much is after it.
                let longer = format!("{form}\r\nX: {}", "y".repeat(90));
                assert_eq!(read_from(&longer, ALL), first, "{form}");
            }
        }
    }

    #[test]
    fn form_that_is_not_sure_has_no_identity() {
        let long = "1".repeat(128);
        for lines in [
            "Subject: session-id:ab30317f1a784dc48ff824d0d3715d86",
            "Call-Information: <urn:emergency:uid:callid:a56e556d871:x>",
            "Call-Info : <urn:emergency:uid:callid:a56e556d871:x>",
            "Call-Info:\r\n <urn:emergency:uid:callid:a56e556d871:x>",
            "Call-Info: <urn:emergency:uid:incidentid:a56e556d871:x>",
            "Call-Info: urn:emergency:uid:callid:a56e556d871:x",
            "Call-Info: <urn:emergency:uid:callid:a56e556d871:x",
            "Call-Info: <urn:emergency:uid:callid:a56e556d871\r\n :x>",
            "Call-Info: <urn:emergency:uid:callid:a56:x>",
            "P-Charging-Vector: orig-ioi=a;icid-value=1234bc9876e",
            "P-Charging-Vector: icid-value=1234567",
            "P-Charging-Vector: icid-value=\"1234bc9876e",
            "P-Charging-Vector: icid-value=\"1234\\\"bc9876e\"",
            "P-Charging-Vector: icid-value=1234bc9876e,icid-value=1234bc9876f",
            "P-Charging-Vector: icid-value=1234bc9876\u{e9}",
            "P-Charging-Vector: icid-value = 1234bc9876e",
            "P-Charging-Vector: icid-value=",
            &format!("P-Charging-Vector: icid-value={long}"),
            "Session-ID: ab30317f1a784dc48ff824d0d3715d8;remote=0",
            "Session-ID: ab30317f1a784dc48ff824d0d3715d861",
            "Session-ID: ab30317f-1a78-4dc4-8ff8-24d0d3715d86",
            "Session-ID: 00000000000000000000000000000000;remote=ab30317f1a784dc48ff824d0d3715d86",
            &format!("{ICID}\r\n{ICID}"),
            &format!("{URN}\r\nX: 1\r\n{URN}1"),
            "P-Chargings: 1\r\nSession-: 1\r\nCall-In: 1\r\ns: 1\r\nSess: 1",
        ] {
            assert_eq!(read_from(lines, ALL), 0, "{lines}");
        }
        let longest = &long[1..];
        assert_ne!(read_from(&format!("P-Charging-Vector: icid-value={longest}"), ALL), 0);
    }

    proptest! {
        #[test]
        fn equal_texts_have_equal_identities_and_others_do_not(
            a in "[a-z0-9.:@_-]{8,127}",
            b in "[a-z0-9.:@_-]{8,127}",
            rest in "(|;x=y|;icid-generated-at=here|\r\nX: y|\r\nContent-Length: 0)",
        ) {
            let of = |text: &str, rest: &str| {
                read_from(&format!("P-Charging-Vector: icid-value={text}{rest}"), ALL)
            };
            prop_assert_eq!(kind(of(&a, "")), ATTEMPT_ICID);
            prop_assert_eq!(of(&a, &rest), of(&a, ""));
            prop_assert_eq!(of(&a, "") == of(&b, ""), a == b);
        }

        #[test]
        fn any_text_is_read(lines in "(Call-Info|P-Charging-Vector|Session-ID|session-x|p-ch)[ :]{1,3}[ -~]{0,200}") {
            let message = format!("INVITE sip:112@x SIP/2.0\r\n{lines}\r\n\r\n");
            let bytes = Slice::from(message.as_bytes());
            let mut fields = Fields::default();
            message::scan_all(&bytes, 7, message.len() - 7, &mut fields);
            let identity = read(&bytes, 7, &fields, ALL);
            prop_assert_eq!(identity == 0, kind(identity) == 0);
        }
    }
}
