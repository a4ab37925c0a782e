//! The fast reader: an INVITE in the usual form, eight bytes at a time.
//!
//! It answers only where it is sure that the header automaton would note these fields at these
//! offsets. It leaves all other messages to the automaton: folded lines, white space before a colon, escapes, display names
//! without quotes, repeated header fields. It leaves `Replaces` and lines that end with LF alone to it, too.

use crate::bytes::{Bytes, WINDOW, Window};
use crate::sip::fields::{Field, FieldOffset, FieldOffsets, Fields, Form, SCAN_MAX};
use crate::sip::swar::{
    TOP, Text, is, lowest, not_graphic, not_in_brackets, not_in_name, not_in_parameters,
    not_in_quotes, splat,
};

/// Looks for the end of a line, [`WINDOW`] bytes each, near the end of what is readable eight.
const LOOKS_MAX: usize = 48;
/// Words of a header name that are followed, its colon included.
const NAME_WORDS: usize = 4;
/// Nothing is read from farther away on. After it there is room below
/// [`OFFSET_MAX`](crate::bytes::OFFSET_MAX) for all reads from one place on. Otherwise the verifier
/// walks the following code once more for each byte that could be too far.
const NEAR: usize = crate::bytes::OFFSET_MAX - 256;
/// Words that are followed of a Request-URI, a display name, a URI, its parameters, a Call-ID.
const VALUE_WORDS: usize = 16;

/// Walks the headers from the Request-URI at `start` to the empty line, `len` bytes at most. `fields`
/// come all zero. Returns 1 if it reached the empty line, with one `From`, `To` and `Call-ID`:
/// `fields` are then those of the automaton. 0: unsure, and the fields are of no use.
#[inline(always)]
pub fn scan<B: Bytes>(bytes: &B, start: usize, len: usize, fields: &mut Fields) -> u32 {
    let mut at = request_line(bytes, start, fields);
    if at == 0 {
        return 0;
    }
    let mut looks = 0;
    // One conditional jump back, at the end: Linux 6.1 refuses a loop that is entered at its middle.
    let end = loop {
        at = bytes.hide_range(at);
        if at > NEAR {
            return 0;
        }
        let (seen, found) = look(bytes, at);
        let (seen, found) = (bytes.hide_range(seen), bytes.hide_range(found as usize) as u64);
        at = if found == 0 {
            seen
        } else {
            let end = bytes.hide_range(seen + lowest(found) - 8);
            if end > NEAR {
                return 0;
            }
            match bytes.be32(end) {
                Some(0x0D0A_0D0A) => break end + 4,
                Some(two) if two >> 16 == 0x0D0A => {}
                _ => return 0,
            }
            let Some(word) = bytes.word(end + 2) else {
                return 0;
            };
            line(bytes, start, end + 2, word, fields)
        };
        looks += 1;
        if at == 0 || looks == LOOKS_MAX {
            return 0;
        }
    };
    if end - start > len || end - start > SCAN_MAX {
        return 0;
    }
    (from(bytes, start, fields)
        && to(bytes, start, fields)
        && call_id(bytes, start, fields)
        && asserted(bytes, start, fields)) as u32
}

/// Returns where the request line ends; 0: unsure.
#[inline(always)]
fn request_line<B: Bytes>(bytes: &B, start: usize, fields: &mut Fields) -> usize {
    let space = seek(bytes, start, not_graphic);
    if space <= start {
        return 0;
    }
    match (bytes.word(space), bytes.be16(space + 8)) {
        (Some(word), Some(0x0D0A)) if VERSION.begins(word) => {
            fields[Field::LineEnd as usize] = FieldOffsets::one(space + 8 - start);
            space + 8
        }
        _ => 0,
    }
}

/// Reads a header line with this first word. Notes the colon of a name that matters, or the place in it that the automaton
/// notes. Returns where to look for the end of the line from; 0: unsure.
#[inline(always)]
fn line<B: Bytes>(bytes: &B, start: usize, at: usize, word: u64, fields: &mut Fields) -> usize {
    let (mut slot, mut place) = (0, 0);
    if FIRST_LETTERS >> (word & 31) & 1 != 0 {
        if FROM.begins(word) {
            (slot, place) = (Field::From as usize, 4);
        } else if TO.begins(word) {
            (slot, place) = (Field::To as usize, 2);
        } else if CALL_ID.begins(word) {
            (slot, place) = (Field::CallId as usize, 7);
        } else if COMPACT_FROM.begins(word) {
            (slot, place) = (Field::From as usize, 1);
        } else if COMPACT_TO.begins(word) {
            (slot, place) = (Field::To as usize, 1);
        } else if COMPACT_CALL_ID.begins(word) {
            (slot, place) = (Field::CallId as usize, 1);
        } else if REPLACES.begins(word) {
            return 0;
        } else if ASSERTED[0].begins(word) {
            match (bytes.word(at + 8), bytes.word(at + 16)) {
                (Some(more), Some(rest))
                    if ASSERTED[1].begins(more) && ASSERTED[2].begins(rest) =>
                {
                    (slot, place) = (Field::Pai as usize, 19);
                }
                _ => return 0,
            }
        } else if CALL_IN.begins(word) {
            (slot, place) = (Field::CallInfo as usize, 6);
        } else if P_CH.begins(word) {
            (slot, place) = (Field::ChargingOrSession as usize, 3);
        } else if SESSION.begins(word) {
            (slot, place) = (Field::ChargingOrSession as usize, 7);
        }
    }
    // Slot 0 is the waste-paper basket, as for the automaton.
    let slot = bytes.hide_range(slot) & 0xF;
    let offset = bytes.hide_range(at - start + place) as u64 & 0x3FFF;
    fields[slot].push(offset);
    // Of the last two fields only the beginning of the name was read, as of slot 0.
    let is_whole = slot.wrapping_sub(1) < Field::CallInfo as usize - 1;
    if is_whole { at } else { name_end(bytes, at, word) }
}

/// Returns the offset of the word that has the colon after a header name of valid characters; 0: unsure.
#[inline(always)]
fn name_end<B: Bytes>(bytes: &B, at: usize, word: u64) -> usize {
    if word as u8 == b':' {
        return 0;
    }
    let mut x = word;
    let mut words = 0;
    loop {
        let bad = not_in_name(x) & TOP;
        if bad != 0 {
            // The first that is not of a name has to be the colon.
            let is_colon = is(x, b':') & !x & bad & bad.wrapping_neg();
            return if is_colon != 0 { at + 8 * words } else { 0 };
        }
        words += 1;
        if words == NAME_WORDS {
            return 0;
        }
        match bytes.word(at + 8 * words) {
            Some(word) => x = word,
            None => return 0,
        }
    }
}

/// Looks for a control character from `at` on. Returns the offset after its word and the bits that were
/// found there, or where to look next and 0.
#[inline(always)]
fn look<B: Bytes>(bytes: &B, at: usize) -> (usize, u64) {
    let Some(window) = bytes.window(at) else {
        // The last bytes that can be read, and zeros after them, which are found.
        let last = bytes.hide_range(at.min(bytes.readable().wrapping_sub(8)));
        let word = match bytes.word(last) {
            Some(word) => word >> ((8 * (at - last)) & 63),
            None => 0,
        };
        return (at + 8, word.wrapping_sub(splat(0x10)) & TOP);
    };
    let control = bytes.pinned(splat(0x10));
    let top = bytes.pinned(TOP);
    macro_rules! words {
        ($($index:literal)*) => {
            $(
                let found = window.word::<$index>().wrapping_sub(control) & top;
                if found != 0 {
                    return (at + 8 * ($index + 1), found);
                }
            )*
        };
    }
    words!(0 1 2 3 4 5 6 7);
    (at + WINDOW, 0)
}

/// Reads a `From` with a URI of a known scheme, with or without parameters; `false`: unsure.
#[inline(always)]
fn from<B: Bytes>(bytes: &B, start: usize, fields: &mut Fields) -> bool {
    let Some(colon) = fields[Field::From as usize].only() else {
        return false;
    };
    let value = value(bytes, bytes.hide_range(start + colon));
    let address = display_name(bytes, value);
    let uri = scheme(bytes, start, address);
    fields[Field::FromUri as usize] = FieldOffsets::from(uri);
    if uri == FieldOffset::NONE {
        return false;
    }
    let end = in_brackets(bytes, address);
    let end = if stands(bytes, end, b';') { seek(bytes, end + 1, not_in_parameters) } else { end };
    stands(bytes, end, b'\r')
}

/// Reads a `To` with a URI of any scheme, without parameters or with a tag only; `false`: unsure.
#[inline(always)]
fn to<B: Bytes>(bytes: &B, start: usize, fields: &mut Fields) -> bool {
    let Some(colon) = fields[Field::To as usize].only() else {
        return false;
    };
    let value = value(bytes, bytes.hide_range(start + colon));
    let address = display_name(bytes, value);
    if bytes.byte(address + 1) == Some(b'>') {
        return false;
    }
    let mut end = in_brackets(bytes, address);
    if end == 0 {
        return false;
    }
    if bytes.word(end).is_some_and(|word| TAG.begins(word)) {
        let tag = end + 5;
        fields[Field::ToTag as usize] = FieldOffsets::one(tag - start);
        end = seek(bytes, tag, |x| not_in_parameters(x) | is(x, b';'));
        if end == tag {
            return false;
        }
    }
    stands(bytes, end, b'\r')
}

/// Reads the `Call-ID`; `false`: unsure.
#[inline(always)]
fn call_id<B: Bytes>(bytes: &B, start: usize, fields: &mut Fields) -> bool {
    let Some(colon) = fields[Field::CallId as usize].only() else {
        return false;
    };
    let value = value(bytes, bytes.hide_range(start + colon));
    let end = seek(bytes, value, not_graphic);
    if end <= value {
        return false;
    }
    fields[Field::CallIdStart as usize] = FieldOffsets::one(value - start);
    fields[Field::CallIdEnd as usize] = FieldOffsets::one(end - start);
    stands(bytes, end, b'\r')
}

/// Reads `P-Asserted-Identity`, which may be missing, with one value; `false`: unsure.
#[inline(always)]
fn asserted<B: Bytes>(bytes: &B, start: usize, fields: &mut Fields) -> bool {
    if fields[Field::Pai as usize].is_missing() {
        return true;
    }
    let Some(colon) = fields[Field::Pai as usize].only() else {
        return false;
    };
    let value = value(bytes, bytes.hide_range(start + colon));
    let address = display_name(bytes, value);
    let uri = scheme(bytes, start, address);
    fields[Field::PaiValue as usize] = FieldOffsets::one(value - start);
    fields[Field::PaiUri as usize] = FieldOffsets::from(uri);
    uri != FieldOffset::NONE && stands(bytes, in_brackets(bytes, address), b'\r')
}

/// Returns the offset of the value after `colon`; one space may be in between.
#[inline(always)]
fn value<B: Bytes>(bytes: &B, colon: usize) -> usize {
    let space = bytes.byte(colon + 1) == Some(b' ');
    bytes.hide_range(colon + 1 + space as usize)
}

/// Returns where the `<` is, after a display name in quotes, if there is one; 0: unsure.
#[inline(always)]
fn display_name<B: Bytes>(bytes: &B, at: usize) -> usize {
    let mut at = at;
    if bytes.byte(at) == Some(b'"') {
        let quote = seek(bytes, at + 1, not_in_quotes);
        if quote == 0 {
            return 0;
        }
        at = match bytes.be32(quote).map(u32::to_be_bytes) {
            Some([b'"', b' ', ..]) => quote + 2,
            Some([b'"', ..]) => quote + 1,
            _ => return 0,
        };
    }
    at = bytes.hide_range(at);
    if bytes.byte(at) == Some(b'<') { at } else { 0 }
}

/// Returns the offset of the colon after the scheme of the URI whose `<` is at `at`;
/// [`FieldOffset::NONE`]: unsure.
#[inline(always)]
fn scheme<B: Bytes>(bytes: &B, start: usize, at: usize) -> FieldOffset {
    let Some(word) = bytes.word(at) else {
        return FieldOffset::NONE;
    };
    let (colon, form) = if SIP.begins(word) {
        (4, Form::Sip)
    } else if TEL.begins(word) {
        (4, Form::Tel)
    } else if SIPS.begins(word) {
        (5, Form::Sip)
    } else {
        return FieldOffset::NONE;
    };
    let offset = FieldOffset::new((at + colon - start) as u64, form);
    FieldOffset(bytes.hide_range(offset.0 as usize) as u64)
}

/// Returns the offset after the `>` of the URI whose `<` is at `at`; 0: unsure.
#[inline(always)]
fn in_brackets<B: Bytes>(bytes: &B, at: usize) -> usize {
    if at == 0 {
        return 0;
    }
    let mut end = seek(bytes, at + 1, not_in_brackets);
    if stands(bytes, end, b'@') {
        end = seek(bytes, end + 1, not_in_brackets);
    }
    let end = bytes.hide_range(end);
    if stands(bytes, end, b'>') { end + 1 } else { 0 }
}

/// Returns whether `byte` is at the offset `at`; `false` for the offset 0 (unsure).
#[inline(always)]
fn stands<B: Bytes>(bytes: &B, at: usize, byte: u8) -> bool {
    at != 0 && bytes.byte(at) == Some(byte)
}

/// Returns the offset of the first byte from `at` on that `stop` finds; 0: unsure.
#[inline(always)]
fn seek<B: Bytes>(bytes: &B, at: usize, stop: impl Fn(u64) -> u64) -> usize {
    let at = bytes.hide_range(at);
    if at > NEAR {
        return 0;
    }
    let mut words = 0;
    while words < VALUE_WORDS {
        let Some(x) = bytes.word(at + 8 * words) else {
            return 0;
        };
        let found = stop(x) & TOP;
        if found != 0 {
            return bytes.hide_range(at + 8 * words + lowest(found));
        }
        words += 1;
    }
    0
}

const VERSION: Text = Text::new(b" sip/2.0");
const FROM: Text = Text::new(b"from:");
const COMPACT_FROM: Text = Text::new(b"f:");
const TO: Text = Text::new(b"to:");
const COMPACT_TO: Text = Text::new(b"t:");
const CALL_ID: Text = Text::new(b"call-id:");
const COMPACT_CALL_ID: Text = Text::new(b"i:");
const ASSERTED: [Text; 3] = [Text::new(b"p-assert"), Text::new(b"ed-ident"), Text::new(b"ity:")];
const REPLACES: Text = Text::new(b"replaces");
const CALL_IN: Text = Text::new(b"call-in");
const P_CH: Text = Text::new(b"p-ch");
const SESSION: Text = Text::new(b"session-");
const SIP: Text = Text::new(b"<sip:");
const SIPS: Text = Text::new(b"<sips:");
const TEL: Text = Text::new(b"<tel:");
const TAG: Text = Text::new(b";tag=");

/// The low five bits of the letters, in either case, that names begin with which matter.
const FIRST_LETTERS: u64 = 1 << 3 | 1 << 6 | 1 << 9 | 1 << 16 | 1 << 18 | 1 << 19 | 1 << 20;
