//! Parts of the automata that read a message: classes of bytes, and the states of a header name. All of it
//! makes constants.

/// Classes of bytes that separate the parts of a header field (RFC 3261 §25.1).
pub(crate) const WS: u8 = 1;
pub(crate) const CR: u8 = 2;
pub(crate) const LF: u8 = 3;
pub(crate) const COLON: u8 = 4;
pub(crate) const SEMI: u8 = 5;
pub(crate) const COMMA: u8 = 6;
pub(crate) const LT: u8 = 7;
pub(crate) const GT: u8 = 8;
pub(crate) const QUOTE: u8 = 9;
pub(crate) const BACKSLASH: u8 = 10;

/// Returns the class of a byte that separates; 0: it does not.
pub(crate) const fn separator(byte: u8) -> u8 {
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
        _ => 0,
    }
}

/// Returns the class of one of these small letters, in either case: the first one has the class `first`. `None` for
/// another byte.
pub(crate) const fn letter_class(byte: u8, letters: &[u8], first: u8) -> Option<u8> {
    let mut i = 0;
    while i < letters.len() {
        if byte.to_ascii_lowercase() == letters[i] {
            return Some(first + i as u8);
        }
        i += 1;
    }
    None
}

/// Makes the table byte → class from a function. A macro, because a `const fn` takes no function.
macro_rules! classes {
    ($class:path) => {{
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < table.len() {
            table[byte] = $class(byte as u8);
            byte += 1;
        }
        table
    }};
}
pub(crate) use classes;

/// The states of a header name: one for each of its letters, and one for the white space after it.
pub(crate) struct Spelling {
    /// The long form, in small letters (RFC 3261 §7.3.3).
    pub(crate) long: &'static [u8],
    /// State after the first letter.
    pub(crate) first: u8,
    /// State after the second letter, less one; the others follow.
    pub(crate) base: u8,
}

impl Spelling {
    /// Returns the state in the white space after the name.
    pub(crate) const fn ws(&self) -> u8 {
        self.base + self.long.len() as u8
    }

    /// Returns how many of its letters come before this state; 0: not a state of this name.
    pub(crate) const fn letters(&self, state: u8) -> usize {
        if state == self.first {
            1
        } else if state > self.base && state < self.ws() {
            (state - self.base) as usize + 1
        } else {
            0
        }
    }
}
