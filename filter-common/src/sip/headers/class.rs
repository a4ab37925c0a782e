//! The classes of bytes in the header automaton.

use crate::sip::automaton::{classes, letter_class, separator};

/// Room for classes; a power of two, because the verifier understands a mask.
pub(super) const CLASS_COUNT: usize = 32;

/// Byte → class.
pub(super) static CLASSES: [u8; 256] = classes!(class);
pub(super) const OTHER: u8 = 0;
// 1 to 10 are the classes of `automaton`.
pub(super) const AT: u8 = 11;
pub(super) const EQUAL: u8 = 12;
pub(super) const CONTROL: u8 = 13;
pub(super) const DASH: u8 = 14;
/// Letters that are in a name which matters, in either case, from this class on.
pub(super) const LETTERS: &[u8] = b"acdefghilmnoprsty";
pub(super) const LETTER: u8 = 15;

pub(super) const fn class(byte: u8) -> u8 {
    if let Some(class) = letter_class(byte, LETTERS, LETTER) {
        return class;
    }
    match byte {
        b'@' => AT,
        b'=' => EQUAL,
        b'-' => DASH,
        _ => match separator(byte) {
            0 if byte.is_ascii_control() => CONTROL,
            0 => OTHER,
            class => class,
        },
    }
}

/// Returns the class of a lower-case letter or of `-`.
pub(super) const fn letter(byte: u8) -> u8 {
    class(byte)
}

const _: () = assert!(LETTER as usize + LETTERS.len() <= CLASS_COUNT);
