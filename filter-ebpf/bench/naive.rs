//! A first attempt at a filter: a byte at a time until `\nFrom:`, then a byte at a time to the number.
//! Stops at the first `From`, and would be fooled by a second one, a folded or a compact one.

use filter_common::bytes::Bytes;
use filter_common::number::Number;

use crate::outer::PAYLOAD;

const SCAN_MAX: usize = 768;
const NAME_MAX: usize = 96;
const HEADER: u64 = u64::from_le_bytes(*b"\nFrom:\0\0");
const HEADER_MASK: u64 = 0x0000_FFFF_FFFF_FFFF;
const HEADER_LEN: usize = 6;
const DIGITS_MAX: u64 = 15;

/// Returns the number of the first `From`.
#[inline(always)]
pub fn number<B: Bytes>(bytes: &B) -> Option<Number> {
    // Renewed each time: otherwise the verifier walks the rest once for every length found readable.
    let header = from(bytes);
    let bytes = &bytes.revalidated();
    let digits = uri(bytes, bytes.hide_range(header));
    let bytes = &bytes.revalidated();
    let number = bytes.hide_range(read(bytes, bytes.hide_range(digits)) as usize) as u64;
    (number != 0).then_some(Number(number))
}

/// Returns the offset after `\nFrom:`; 0: it is not there.
#[inline(never)]
fn from<B: Bytes>(bytes: &B) -> usize {
    let mut i = PAYLOAD;
    while i < SCAN_MAX {
        match bytes.byte(i) {
            // Renewed, or the verifier walks all that follows once more for each line.
            Some(b'\n') => match bytes.revalidated().word(i) {
                Some(word) if word & HEADER_MASK == HEADER => return i + HEADER_LEN,
                Some(_) => {}
                None => break,
            },
            Some(_) => {}
            None => break,
        }
        i += 1;
    }
    0
}

/// Returns the offset of the first digit after `<sip:+`; 0: no digit.
#[inline(never)]
fn uri<B: Bytes>(bytes: &B, header: usize) -> usize {
    let mut i = 0;
    while i < NAME_MAX {
        match bytes.byte(header + i) {
            Some(b'<') => return header + i + 6,
            Some(_) => {}
            None => break,
        }
        i += 1;
    }
    0
}

/// Returns the digits at an offset as a number; 0: no digit, or too many.
#[inline(never)]
fn read<B: Bytes>(bytes: &B, at: usize) -> u64 {
    let mut number = 0;
    let mut len = 0;
    while len <= DIGITS_MAX {
        let digit = match bytes.byte(at + len as usize) {
            Some(byte @ b'0'..=b'9') => u64::from(byte - b'0'),
            _ => return if len == 0 { 0 } else { number | len },
        };
        if len == DIGITS_MAX {
            break;
        }
        number |= digit << (60 - 4 * len);
        len += 1;
    }
    0
}
