//! The header automaton: from the first byte of the Request-URI to the empty line.
//!
//! Each byte is a step; some steps note their offset as a [`Field`]. The grammar is
//! that of RFC 3261 §25.1 where it decides what the caller number is, and no more.
//! A message that breaks it there ends in [`BAD`] and passes.

mod address;
mod class;
mod step;

use crate::sip::automaton::{BACKSLASH, COLON, COMMA, CR, GT, LF, LT, QUOTE, SEMI, Spelling, WS};
use crate::sip::fields::Field;
use crate::sip::swar::{TOP, splat};
use address::{Address, BEFORE, PARTS, in_address};
use class::{AT, CLASS_COUNT, CLASSES, CONTROL, EQUAL, letter};
pub use step::{BAD, END, START, Step};
use step::{VALUE, VALUE_CR, VALUE_LINE, noted};

impl Step {
    /// Returns the next step.
    #[inline(always)]
    #[must_use]
    pub fn next(self, byte: u8) -> Step {
        const ROW: u64 = 255 * CLASS_COUNT as u64;
        let class = CLASSES[byte as usize] as usize & (CLASS_COUNT - 1);
        Step(STEPS[(self.0 & ROW) as usize | class] as u64)
    }

    /// Returns whether eight bytes change nothing: a value that does not matter goes on, and no line ends.
    /// `false` where that is not sure.
    #[inline(always)]
    #[must_use]
    pub const fn stays(self, word: u64) -> bool {
        // The lowest find is exact, and all that counts is whether there is one.
        let below_16 = word.wrapping_sub(splat(0x10)) & !word & TOP;
        self.state() == VALUE && below_16 == 0
    }
}

/// State and class → step.
static STEPS: [u32; 256 * CLASS_COUNT] = steps();

// ---- states ----

/// In the Request-URI, after its first byte.
const REQUEST_URI: u8 = 3;
/// In the SIP-Version.
const VERSION: u8 = 4;
/// After the CR of the request line.
const REQUEST_CR: u8 = 5;
/// At the first header line: nothing there that could be folded.
const FIRST_LINE: u8 = 6;
/// After the CR of the empty line.
const LAST_CR: u8 = 10;
/// In a header name that does not matter; in white space after it.
const NAME: u8 = 11;
const NAME_WS: u8 = 12;
/// In the Call-ID's value: before it, in it, after it.
const ID_BEFORE: u8 = 13;
const ID_BEFORE_CR: u8 = 14;
const ID_BEFORE_LINE: u8 = 15;
const ID: u8 = 16;
const ID_AFTER: u8 = 17;
const ID_AFTER_CR: u8 = 18;
const ID_AFTER_LINE: u8 = 19;

/// A header name that matters.
struct Name {
    spelling: Spelling,
    /// The compact form (RFC 3261 §7.3.3), one letter.
    compact: Option<u8>,
    /// State after the compact letter.
    compact_state: u8,
    /// The field of its colon, and the state after that.
    field: Field,
    value: u8,
}

/// `f` is the first letter of `from` and its compact form, so both share a state; so
/// do `t` and `to`. `i` needs one of its own.
const NAMES: [Name; 5] = [
    Name {
        spelling: Spelling { long: b"from", first: 20, base: 20 },
        compact: Some(b'f'),
        compact_state: 20,
        field: Field::From,
        value: FROM.state(BEFORE),
    },
    Name {
        spelling: Spelling { long: b"to", first: 25, base: 25 },
        compact: Some(b't'),
        compact_state: 25,
        field: Field::To,
        value: TO.state(BEFORE),
    },
    Name {
        spelling: Spelling { long: b"call-id", first: 28, base: 28 },
        compact: Some(b'i'),
        compact_state: 36,
        field: Field::CallId,
        value: ID_BEFORE,
    },
    Name {
        spelling: Spelling { long: b"p-asserted-identity", first: 37, base: 37 },
        compact: None,
        compact_state: BAD,
        field: Field::Pai,
        value: PAI.state(BEFORE),
    },
    Name {
        spelling: Spelling { long: b"replaces", first: 57, base: 57 },
        compact: None,
        compact_state: BAD,
        field: Field::Replaces,
        value: VALUE,
    },
];
const NAMES_FROM: u8 = 20;
const NAMES_TO: u8 = 65;
const FROM: Address = Address {
    base: NAMES_TO + 1,
    uri: Some(Field::FromUri),
    value: None,
    tag: None,
    list: false,
    fault: Some(Field::FromFault),
};
const TO: Address = Address {
    base: FROM.base + PARTS,
    uri: None,
    value: None,
    tag: Some(Field::ToTag),
    list: false,
    fault: None,
};
const PAI: Address = Address {
    base: TO.base + PARTS,
    uri: Some(Field::PaiUri),
    value: Some(Field::PaiValue),
    tag: None,
    list: true,
    fault: None,
};

/// Only the beginnings of these names are read. [`attempt_identity`](crate::sip::attempt_identity) reads the rest: names and
/// values need more states than are left. The last character notes the field, and the others have a state each.
const SESSION: &[u8] = b"session-";
/// State after the first letter of `session-`.
const SESSION_FROM: u8 = PAI.base + PARTS;
/// State after `p-c`.
const P_C: u8 = SESSION_FROM + SESSION.len() as u8 - 1;
/// Index of `call-id` in [`NAMES`], and the letters that it shares with `call-info`.
const CALL_ID: usize = 2;
const CALL_I: usize = 6;
/// Index of `p-asserted-identity` in [`NAMES`], and the letters that it shares with `p-charging-vector`.
const ASSERTED: usize = 3;
const P: usize = 2;

const fn steps() -> [u32; 256 * CLASS_COUNT] {
    let mut table = [0; 256 * CLASS_COUNT];
    let mut state = 0;
    while state < 256 {
        let mut class = 0;
        while class < CLASS_COUNT {
            table[state * CLASS_COUNT + class] = Step::pack(next(state as u8, class as u8));
            class += 1;
        }
        state += 1;
    }
    table
}

/// Returns the step in an address, or the one at the beginning of the line that follows it.
const fn or_line(step: Option<u16>, class: u8) -> u16 {
    match step {
        Some(step) => step,
        None => line(class),
    }
}

const fn next(state: u8, class: u8) -> u16 {
    if state >= NAMES_FROM && state <= NAMES_TO {
        return in_name(state, class);
    }
    if state >= FROM.base && state < FROM.base + PARTS {
        return or_line(in_address(&FROM, state - FROM.base, class), class);
    }
    if state >= TO.base && state < TO.base + PARTS {
        return or_line(in_address(&TO, state - TO.base, class), class);
    }
    if state >= PAI.base && state < PAI.base + PARTS {
        return or_line(in_address(&PAI, state - PAI.base, class), class);
    }
    if state >= SESSION_FROM && state <= P_C {
        return in_beginning(state, class);
    }
    let next = match (state, class) {
        // The two ends are never left.
        (END, _) => END,
        (BAD, _) => BAD,

        // Request-Line = Method SP Request-URI SP SIP-Version CRLF
        (START | REQUEST_URI, LF | CR) | (START | REQUEST_URI | VERSION, CONTROL) => BAD,
        (START, WS) => BAD,
        (REQUEST_URI, WS) => VERSION,
        (START | REQUEST_URI, _) => REQUEST_URI,
        (VERSION, CR) => return noted(REQUEST_CR, Field::LineEnd),
        (VERSION, LF) => return noted(FIRST_LINE, Field::LineEnd),
        (VERSION, WS) => BAD,
        (VERSION, _) => VERSION,
        (REQUEST_CR, LF) => FIRST_LINE,

        (FIRST_LINE, _) => return line(class),

        (VALUE, CR) => VALUE_CR,
        // An LF alone is a line end, as for Kamailio, pjsip and sofia-sip.
        (VALUE, LF) => VALUE_LINE,
        (VALUE, _) => VALUE,
        (VALUE_CR, LF) => VALUE_LINE,
        (VALUE_LINE, WS) => VALUE,
        (VALUE_LINE, _) => return line(class),
        (LAST_CR, LF) => END,

        (NAME, _) => return other_name(class),
        (NAME_WS, WS) => NAME_WS,
        (NAME_WS, COLON) => VALUE,

        (ID_BEFORE, WS) => ID_BEFORE,
        (ID_BEFORE, CR) => ID_BEFORE_CR,
        (ID_BEFORE | ID_BEFORE_CR, LF) => ID_BEFORE_LINE,
        (ID_BEFORE_LINE, WS) => ID_BEFORE,
        (ID_BEFORE_LINE, _) => return line(class),
        (ID_BEFORE | ID, CONTROL) => BAD,
        (ID_BEFORE, _) => return noted(ID, Field::CallIdStart),
        (ID, WS) => return noted(ID_AFTER, Field::CallIdEnd),
        (ID, CR) => return noted(ID_AFTER_CR, Field::CallIdEnd),
        (ID, LF) => return noted(ID_AFTER_LINE, Field::CallIdEnd),
        (ID, _) => ID,
        (ID_AFTER, WS) => ID_AFTER,
        (ID_AFTER, CR) => ID_AFTER_CR,
        (ID_AFTER | ID_AFTER_CR, LF) => ID_AFTER_LINE,
        (ID_AFTER_LINE, WS) => ID_AFTER,
        (ID_AFTER_LINE, _) => return line(class),

        _ => BAD,
    };
    next as u16
}

/// Returns the step at the first byte of a line that does not continue the one before.
const fn line(class: u8) -> u16 {
    let mut i = 0;
    while i < NAMES.len() {
        let name = &NAMES[i];
        if class == letter(name.spelling.long[0]) {
            return name.spelling.first as u16;
        }
        if let Some(compact) = name.compact
            && class == letter(compact)
        {
            return name.compact_state as u16;
        }
        i += 1;
    }
    if class == letter(SESSION[0]) {
        return SESSION_FROM as u16;
    }
    match class {
        CR => LAST_CR as u16,
        LF => END as u16,
        COLON | WS => BAD as u16,
        _ => other_name(class),
    }
}

/// Returns the step in a header name that does not matter (any more).
const fn other_name(class: u8) -> u16 {
    let next = match class {
        COLON => VALUE,
        WS => NAME_WS,
        CR | LF | SEMI | COMMA | LT | GT | QUOTE | BACKSLASH | AT | EQUAL | CONTROL => BAD,
        _ => NAME,
    };
    next as u16
}

/// Returns the step in a header name that matters so far. HCOLON = *( SP / HTAB ) ":" SWS
const fn in_name(state: u8, class: u8) -> u16 {
    let mut i = 0;
    while i < NAMES.len() {
        let name = &NAMES[i];
        let letters = name.spelling.letters(state);
        let compact = name.compact.is_some() && state == name.compact_state;
        if letters == name.spelling.long.len() || state == name.spelling.ws() || compact {
            if class == COLON {
                return noted(name.value, name.field);
            }
            if class == WS {
                return name.spelling.ws() as u16;
            }
            if state == name.spelling.ws() {
                return BAD as u16;
            }
        }
        if letters > 0
            && letters < name.spelling.long.len()
            && class == letter(name.spelling.long[letters])
        {
            return name.spelling.base as u16 + letters as u16;
        }
        i += 1;
    }
    if class == letter(b'n') && NAMES[CALL_ID].spelling.letters(state) == CALL_I {
        return noted(NAME, Field::CallInfo);
    }
    if class == letter(b'c') && NAMES[ASSERTED].spelling.letters(state) == P {
        return P_C as u16;
    }
    other_name(class)
}

/// Returns the step in a name that begins as `session-` or `p-ch` so far.
const fn in_beginning(state: u8, class: u8) -> u16 {
    let letters = (state - SESSION_FROM) as usize + 1;
    if state == P_C && class == letter(b'h') {
        noted(NAME, Field::ChargingOrSession)
    } else if state == P_C || class != letter(SESSION[letters]) {
        other_name(class)
    } else if letters + 1 == SESSION.len() {
        noted(NAME, Field::ChargingOrSession)
    } else {
        state as u16 + 1
    }
}

const _: () = {
    assert!(NAMES[4].spelling.ws() == NAMES_TO);
    assert!(P_C >= PAI.base);
};

#[cfg(test)]
mod tests;
