//! What one writes first: a byte at a time until `\nFrom:`, then a byte at a time to the number.
//! Stops at the first `From`, and would be fooled by a second one, a folded or a compact one.

use filter_common::bytes::Bytes;
use filter_common::number::Number;

use crate::outer::PAYLOAD;

const SCAN_MAX: usize = 1024;
const NAME_MAX: usize = 96;
const HEADER: [u8; 6] = *b"\nFrom:";
const DIGITS_MAX: u64 = 15;

/// The number of the first `From`.
#[inline(always)]
pub fn number<B: Bytes>(bytes: &B) -> Option<Number> {
    let header = bytes.forget(from(bytes));
    let digits = bytes.forget(uri(bytes, header));
    let number = read(bytes, digits);
    (number != 0).then_some(Number(number))
}

/// The offset behind `\nFrom:`; 0: it is not there.
#[inline(never)]
fn from<B: Bytes>(bytes: &B) -> usize {
    let mut i = PAYLOAD;
    while i < SCAN_MAX {
        match bytes.byte(i) {
            Some(b'\n') => {
                if is_from(bytes, bytes.forget(i)) != 0 {
                    return i + HEADER.len();
                }
            }
            Some(_) => {}
            None => break,
        }
        i += 1;
    }
    0
}

#[inline(never)]
fn is_from<B: Bytes>(bytes: &B, at: usize) -> u32 {
    let mut i = 1;
    while i < HEADER.len() {
        if bytes.byte(at + i) != Some(HEADER[i]) {
            return 0;
        }
        i += 1;
    }
    1
}

/// The offset of the first digit behind `<sip:+`; 0: there is none.
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

/// The digits at an offset as a number; 0: there are none, or too many.
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
