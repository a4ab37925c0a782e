//! The classes of bytes in the header automaton.

/// Room for classes; a power of two, because the verifier understands a mask.
pub(super) const CLASS_COUNT: usize = 32;

/// Byte → class.
pub(super) static CLASSES: [u8; 256] = classes();
pub(super) const OTHER: u8 = 0;
pub(super) const WS: u8 = 1;
pub(super) const CR: u8 = 2;
pub(super) const LF: u8 = 3;
pub(super) const COLON: u8 = 4;
pub(super) const SEMI: u8 = 5;
pub(super) const COMMA: u8 = 6;
pub(super) const LT: u8 = 7;
pub(super) const GT: u8 = 8;
pub(super) const QUOTE: u8 = 9;
pub(super) const BACKSLASH: u8 = 10;
pub(super) const AT: u8 = 11;
pub(super) const EQUAL: u8 = 12;
pub(super) const CONTROL: u8 = 13;
pub(super) const DASH: u8 = 14;
/// Letters that are in a name which matters, in either case, from this class on.
pub(super) const LETTERS: &[u8] = b"acdefgilmnoprsty";
pub(super) const LETTER: u8 = 15;

const fn classes() -> [u8; 256] {
    let mut table = [OTHER; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = class(byte as u8);
        byte += 1;
    }
    table
}

pub(super) const fn class(byte: u8) -> u8 {
    let mut i = 0;
    while i < LETTERS.len() {
        if byte.to_ascii_lowercase() == LETTERS[i] {
            return LETTER + i as u8;
        }
        i += 1;
    }
    match byte {
        b' ' | b'\t' => WS,
        b'\r' => CR,
        b'\n' => LF,
        b':' => COLON,
        b';' => SEMI,
        b',' => COMMA,
        b'<' => LT,
        b'>' => GT,
        b'"' => QUOTE,
        b'\\' => BACKSLASH,
        b'@' => AT,
        b'=' => EQUAL,
        b'-' => DASH,
        0..=31 | 127 => CONTROL,
        _ => OTHER,
    }
}

/// Returns the class of a lower-case letter or of `-`.
pub(super) const fn letter(byte: u8) -> u8 {
    class(byte)
}

const _: () = assert!(LETTER as usize + LETTERS.len() <= CLASS_COUNT);
