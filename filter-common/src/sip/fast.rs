//! The fast reader: an INVITE in the usual form, eight bytes at a time.
//!
//! It answers only where it is sure that the header automaton would say the same, mark for mark, and
//! leaves everything else to it: folded lines, white space before a colon, escapes, display names
//! without quotes, header fields that stand there twice.

use crate::bytes::{Bytes, WINDOW, Window};
use crate::sip::headers::{Form, Mark, Marks, lane};
use crate::sip::message::SCAN_MAX;

/// Looks for the end of a line, [`WINDOW`] bytes each, near the end of what is readable eight.
const LOOKS_MAX: usize = 48;
/// Words of a header name that are followed, its colon included.
const NAME_WORDS: usize = 4;
/// Nothing is read from farther away on. Behind it there is room below
/// [`OFFSET_MAX`](crate::bytes::OFFSET_MAX) for all that is read from one place on, so that the verifier
/// does not walk what follows once more for each byte of it that could be too far.
const NEAR: usize = crate::bytes::OFFSET_MAX - 256;
/// Words that are followed of a Request-URI, a display name, a URI, its parameters, a Call-ID.
const VALUE_WORDS: usize = 16;

/// Walks the headers from the Request-URI at `start` to the empty line, `len` bytes at most. 1: the
/// empty line was reached, with one `From`, `To` and `Call-ID`, and `marks`, which come all zero,
/// are what the automaton leaves; 0: unsure, and the marks are of no use.
#[inline(always)]
pub fn scan<B: Bytes>(bytes: &B, start: usize, len: usize, marks: &mut Marks) -> u32 {
    let mut at = request_line(bytes, start, marks);
    if at == 0 {
        return 0;
    }
    let mut looks = 0;
    // One conditional jump back, at the end: Linux 6.1 refuses a loop that is entered at its middle.
    let end = loop {
        at = bytes.forget(at);
        if at > NEAR {
            return 0;
        }
        let (seen, found) = look(bytes, at);
        let (seen, found) = (bytes.forget(seen), bytes.forget(found as usize) as u64);
        at = if found == 0 {
            seen
        } else {
            let end = bytes.forget(seen + lowest(found) - 8);
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
            line(bytes, start, end + 2, word, marks)
        };
        looks += 1;
        if at == 0 || looks == LOOKS_MAX {
            return 0;
        }
    };
    if end - start > len || end - start > SCAN_MAX {
        return 0;
    }
    (from(bytes, start, marks)
        && to(bytes, start, marks)
        && call_id(bytes, start, marks)
        && asserted(bytes, start, marks)) as u32
}

/// Where the request line ends; 0: unsure.
#[inline(always)]
fn request_line<B: Bytes>(bytes: &B, start: usize, marks: &mut Marks) -> usize {
    let space = seek(bytes, start, not_graphic);
    if space <= start {
        return 0;
    }
    match (bytes.word(space), bytes.be16(space + 8)) {
        (Some(word), Some(0x0D0A)) if VERSION.begins(word) => {
            marks[Mark::LineEnd as usize] = (space + 8 - start) as u64;
            space + 8
        }
        _ => 0,
    }
}

/// One header line and its first word: notes the colon of a name that matters. Where to look for the
/// end of the line from; 0: unsure.
#[inline(always)]
fn line<B: Bytes>(bytes: &B, start: usize, at: usize, word: u64, marks: &mut Marks) -> usize {
    let (mut slot, mut colon) = (0, 0);
    if FIRST_LETTERS >> (word & 31) & 1 != 0 {
        if FROM.begins(word) {
            (slot, colon) = (Mark::From as usize, 4);
        } else if TO.begins(word) {
            (slot, colon) = (Mark::To as usize, 2);
        } else if CALL_ID.begins(word) {
            (slot, colon) = (Mark::CallId as usize, 7);
        } else if COMPACT_FROM.begins(word) {
            (slot, colon) = (Mark::From as usize, 1);
        } else if COMPACT_TO.begins(word) {
            (slot, colon) = (Mark::To as usize, 1);
        } else if COMPACT_CALL_ID.begins(word) {
            (slot, colon) = (Mark::CallId as usize, 1);
        } else if ASSERTED[0].begins(word) {
            match (bytes.word(at + 8), bytes.word(at + 16)) {
                (Some(more), Some(rest))
                    if ASSERTED[1].begins(more) && ASSERTED[2].begins(rest) =>
                {
                    (slot, colon) = (Mark::Pai as usize, 19);
                }
                _ => return 0,
            }
        }
    }
    // Slot 0 is the waste-paper basket, as for the automaton.
    let slot = bytes.forget(slot) & 0xF;
    let offset = bytes.forget(at - start + colon) as u64 & 0x3FFF;
    marks[slot] = marks[slot] << 16 | offset;
    if slot == 0 { name_end(bytes, at, word) } else { at }
}

/// The word with the colon behind a header name of which every byte is good; 0: unsure.
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

/// Looks for a control character from `at` on: the place behind a word and what was found in it;
/// nothing found: where to look next.
#[inline(always)]
fn look<B: Bytes>(bytes: &B, at: usize) -> (usize, u64) {
    let Some(window) = bytes.window(at) else {
        // The last bytes that can be read, and zeros behind them, which are found.
        let last = bytes.forget(at.min(bytes.readable().wrapping_sub(8)));
        let word = match bytes.word(last) {
            Some(word) => word >> ((8 * (at - last)) & 63),
            None => 0,
        };
        return (at + 8, word.wrapping_sub(all(0x10)) & TOP);
    };
    let control = bytes.pinned(all(0x10));
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

/// `From`, in a URI of a known scheme, with or without parameters.
#[inline(always)]
fn from<B: Bytes>(bytes: &B, start: usize, marks: &mut Marks) -> bool {
    let colon = marks[Mark::From as usize];
    if colon == 0 || colon > 0xFFFF {
        return false;
    }
    let value = value(bytes, bytes.forget(start + colon as usize));
    let address = display_name(bytes, value);
    let uri = scheme(bytes, start, address);
    marks[Mark::FromUri as usize] = uri;
    if uri == 0 {
        return false;
    }
    let end = in_brackets(bytes, address);
    let end = if stands(bytes, end, b';') { seek(bytes, end + 1, not_in_parameters) } else { end };
    stands(bytes, end, b'\r')
}

/// `To`, in a URI of any scheme, without parameters or with a tag only.
#[inline(always)]
fn to<B: Bytes>(bytes: &B, start: usize, marks: &mut Marks) -> bool {
    let colon = marks[Mark::To as usize];
    if colon == 0 || colon > 0xFFFF {
        return false;
    }
    let value = value(bytes, bytes.forget(start + colon as usize));
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
        marks[Mark::ToTag as usize] = (tag - start) as u64;
        end = seek(bytes, tag, |x| not_in_parameters(x) | is(x, b';'));
        if end == tag {
            return false;
        }
    }
    stands(bytes, end, b'\r')
}

/// `Call-ID`.
#[inline(always)]
fn call_id<B: Bytes>(bytes: &B, start: usize, marks: &mut Marks) -> bool {
    let colon = marks[Mark::CallId as usize];
    if colon == 0 || colon > 0xFFFF {
        return false;
    }
    let value = value(bytes, bytes.forget(start + colon as usize));
    let end = seek(bytes, value, not_graphic);
    if end <= value {
        return false;
    }
    marks[Mark::CallIdStart as usize] = (value - start) as u64;
    marks[Mark::CallIdEnd as usize] = (end - start) as u64;
    stands(bytes, end, b'\r')
}

/// `P-Asserted-Identity`, where there is one, with one value.
#[inline(always)]
fn asserted<B: Bytes>(bytes: &B, start: usize, marks: &mut Marks) -> bool {
    let colon = marks[Mark::Pai as usize];
    if colon == 0 {
        return true;
    }
    if colon > 0xFFFF {
        return false;
    }
    let value = value(bytes, bytes.forget(start + colon as usize));
    let address = display_name(bytes, value);
    let uri = scheme(bytes, start, address);
    marks[Mark::PaiValue as usize] = (value - start) as u64;
    marks[Mark::PaiUri as usize] = uri;
    uri != 0 && stands(bytes, in_brackets(bytes, address), b'\r')
}

/// Where the value begins behind the colon and one space, if there is one.
#[inline(always)]
fn value<B: Bytes>(bytes: &B, colon: usize) -> usize {
    let space = bytes.byte(colon + 1) == Some(b' ');
    bytes.forget(colon + 1 + space as usize)
}

/// Where the `<` stands, behind a display name in quotes, if there is one; 0: unsure.
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
    at = bytes.forget(at);
    if bytes.byte(at) == Some(b'<') { at } else { 0 }
}

/// The lane of the colon behind the scheme of the URI whose `<` stands at `at`; 0: unsure.
#[inline(always)]
fn scheme<B: Bytes>(bytes: &B, start: usize, at: usize) -> u64 {
    let Some(word) = bytes.word(at) else {
        return 0;
    };
    let (colon, form) = if SIP.begins(word) {
        (4, Form::Sip)
    } else if TEL.begins(word) {
        (4, Form::Tel)
    } else if SIPS.begins(word) {
        (5, Form::Sip)
    } else {
        return 0;
    };
    bytes.forget(lane((at + colon - start) as u64, form) as usize) as u64
}

/// Behind the `>` of the URI whose `<` stands at `at`; 0: unsure.
#[inline(always)]
fn in_brackets<B: Bytes>(bytes: &B, at: usize) -> usize {
    if at == 0 {
        return 0;
    }
    let mut end = seek(bytes, at + 1, not_in_brackets);
    if stands(bytes, end, b'@') {
        end = seek(bytes, end + 1, not_in_brackets);
    }
    let end = bytes.forget(end);
    if stands(bytes, end, b'>') { end + 1 } else { 0 }
}

/// Whether this byte stands at `at`, which is not 0.
#[inline(always)]
fn stands<B: Bytes>(bytes: &B, at: usize, byte: u8) -> bool {
    at != 0 && bytes.byte(at) == Some(byte)
}

/// The first byte from `at` on that `stop` finds; 0: unsure.
#[inline(always)]
fn seek<B: Bytes>(bytes: &B, at: usize, stop: impl Fn(u64) -> u64) -> usize {
    let at = bytes.forget(at);
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
            return bytes.forget(at + 8 * words + lowest(found));
        }
        words += 1;
    }
    0
}

// ---- eight bytes at once ----

/// The same byte eight times.
pub(super) const fn all(byte: u8) -> u64 {
    0x0101_0101_0101_0101 * byte as u64
}

/// The top bit of each byte, where the functions below leave what they find. Only the lowest byte
/// that they find is exact: borrows and carries go upwards.
pub(super) const TOP: u64 = all(0x80);

/// Which byte the lowest bit of [`TOP`] stands for.
#[inline(always)]
pub(super) const fn lowest(found: u64) -> usize {
    ((found & found.wrapping_neg()) >> 7).wrapping_mul(0x0001_0203_0405_0607) as usize >> 56
}

/// This byte, and some above 0x7F.
#[inline(always)]
const fn is(x: u64, byte: u8) -> u64 {
    (x ^ all(byte)).wrapping_sub(all(1))
}

/// `<`, `>`, and some bytes above 0x7F.
#[inline(always)]
const fn is_bracket(x: u64) -> u64 {
    is(x & all(!2), b'<')
}

/// All but 0x21 to 0x7E.
#[inline(always)]
const fn not_graphic(x: u64) -> u64 {
    x.wrapping_sub(all(0x21)) | x.wrapping_add(all(1))
}

/// What a quoted string has to escape, its end, and all above 0x7E.
#[inline(always)]
const fn not_in_quotes(x: u64) -> u64 {
    x.wrapping_sub(all(0x20)) | x.wrapping_add(all(1)) | is(x, b'"') | is(x, b'\\')
}

/// What no URI in angle brackets has, its end, an `@`, and all above 0x7E.
#[inline(always)]
const fn not_in_brackets(x: u64) -> u64 {
    not_graphic(x) | is(x, b'"') | is(x, b'\\') | is(x, b'@') | is_bracket(x)
}

/// What ends parameters or makes them other than plain, and all above 0x7E.
#[inline(always)]
const fn not_in_parameters(x: u64) -> u64 {
    not_graphic(x) | is(x, b'"') | is(x, b',') | is_bracket(x)
}

/// All but letters, digits and what else stands in a header name, as the automaton has it.
#[inline(always)]
const fn not_in_name(x: u64) -> u64 {
    let separator = x.wrapping_add(all(0x80 - 0x3A)) ^ x.wrapping_add(all(0x80 - 0x41));
    x.wrapping_sub(all(0x2D)) | x.wrapping_add(all(1)) | separator | is(x, b'\\')
}

/// Up to eight characters, letters in either case.
struct Text {
    small: u64,
    case: u64,
    mask: u64,
}

impl Text {
    const fn new(text: &[u8]) -> Text {
        let mut new = Text { small: 0, case: 0, mask: 0 };
        let mut i = 0;
        while i < text.len() {
            new.small |= (text[i] as u64) << (8 * i);
            new.case |= (text[i].is_ascii_lowercase() as u64 * 0x20) << (8 * i);
            new.mask |= 0xFF << (8 * i);
            i += 1;
        }
        new
    }

    #[inline(always)]
    const fn begins(&self, word: u64) -> bool {
        (word | self.case) & self.mask == self.small
    }
}

const VERSION: Text = Text::new(b" sip/2.0");
const FROM: Text = Text::new(b"from:");
const COMPACT_FROM: Text = Text::new(b"f:");
const TO: Text = Text::new(b"to:");
const COMPACT_TO: Text = Text::new(b"t:");
const CALL_ID: Text = Text::new(b"call-id:");
const COMPACT_CALL_ID: Text = Text::new(b"i:");
const ASSERTED: [Text; 3] = [Text::new(b"p-assert"), Text::new(b"ed-ident"), Text::new(b"ity:")];
const SIP: Text = Text::new(b"<sip:");
const SIPS: Text = Text::new(b"<sips:");
const TEL: Text = Text::new(b"<tel:");
const TAG: Text = Text::new(b";tag=");

/// The low five bits of the letters, in either case, that names begin with which matter.
const FIRST_LETTERS: u64 = 1 << 3 | 1 << 6 | 1 << 9 | 1 << 16 | 1 << 20;
