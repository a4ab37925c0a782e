//! The header automaton: from the first byte of the Request-URI to the empty line.
//!
//! Each byte is a step; some steps note their offset as a [`Field`]. The grammar is
//! that of RFC 3261 §25.1 where it decides what the caller number is, and no more.
//! A message that breaks it there ends in [`BAD`] and passes.

mod address;
mod class;
mod step;

use crate::sip::fields::Field;
use crate::sip::swar::{TOP, splat};
use address::{Address, BEFORE, PARTS, in_address};
use class::{
    AT, BACKSLASH, CLASS_COUNT, CLASSES, COLON, COMMA, CONTROL, CR, EQUAL, GT, LF, LT, QUOTE, SEMI,
    WS, letter,
};
use step::noted;
pub use step::{BAD, END, START, Step};

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
/// In the value of a header field that does not matter; after its CR; at the next line.
const VALUE: u8 = 7;
const VALUE_CR: u8 = 8;
const VALUE_LINE: u8 = 9;
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

/// A header name that matters takes a state for each of its letters, and one for the
/// white space after it.
struct Name {
    long: &'static [u8],
    /// The compact form (RFC 3261 §7.3.3), one letter.
    compact: Option<u8>,
    /// State after the first letter.
    first: u8,
    /// State after the second letter, less one; the others follow.
    base: u8,
    /// State after the compact letter.
    compact_state: u8,
    /// The field of its colon, and the state after that.
    field: Field,
    value: u8,
}

impl Name {
    const fn ws(&self) -> u8 {
        self.base + self.long.len() as u8
    }

    /// Returns how many of its letters come before this state; 0: not a state of this name.
    const fn letters(&self, state: u8) -> usize {
        if state == self.first {
            1
        } else if state > self.base && state < self.ws() {
            (state - self.base) as usize + 1
        } else {
            0
        }
    }
}

/// `f` is the first letter of `from` and its compact form, so both share a state; so
/// do `t` and `to`. `i` needs one of its own.
const NAMES: [Name; 4] = [
    Name {
        long: b"from",
        compact: Some(b'f'),
        first: 20,
        base: 20,
        compact_state: 20,
        field: Field::From,
        value: FROM.state(BEFORE),
    },
    Name {
        long: b"to",
        compact: Some(b't'),
        first: 25,
        base: 25,
        compact_state: 25,
        field: Field::To,
        value: TO.state(BEFORE),
    },
    Name {
        long: b"call-id",
        compact: Some(b'i'),
        first: 28,
        base: 28,
        compact_state: 36,
        field: Field::CallId,
        value: ID_BEFORE,
    },
    Name {
        long: b"p-asserted-identity",
        compact: None,
        first: 37,
        base: 37,
        compact_state: BAD,
        field: Field::Pai,
        value: PAI.state(BEFORE),
    },
];
const NAMES_FROM: u8 = 20;
const NAMES_TO: u8 = 56;
const FROM: Address =
    Address { base: NAMES_TO + 1, uri: Some(Field::FromUri), value: None, tag: None, list: false };
const TO: Address = Address {
    base: FROM.base + PARTS,
    uri: None,
    value: None,
    tag: Some(Field::ToTag),
    list: false,
};
const PAI: Address = Address {
    base: TO.base + PARTS,
    uri: Some(Field::PaiUri),
    value: Some(Field::PaiValue),
    tag: None,
    list: true,
};

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
    let next = match (state, class) {
        // The two ends are never left.
        (END, _) => END,
        (BAD, _) => BAD,

        // Request-Line = Method SP Request-URI SP SIP-Version CRLF
        (START | REQUEST_URI | VERSION, LF | CONTROL) | (START | REQUEST_URI, CR) => BAD,
        (START, WS) => BAD,
        (REQUEST_URI, WS) => VERSION,
        (START | REQUEST_URI, _) => REQUEST_URI,
        (VERSION, CR) => return noted(REQUEST_CR, Field::LineEnd),
        (VERSION, WS) => BAD,
        (VERSION, _) => VERSION,
        (REQUEST_CR, LF) => FIRST_LINE,

        (FIRST_LINE, _) => return line(class),

        (VALUE, CR) => VALUE_CR,
        (VALUE, LF) => BAD,
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
        (ID_BEFORE_CR, LF) => ID_BEFORE_LINE,
        (ID_BEFORE_LINE, WS) => ID_BEFORE,
        (ID_BEFORE_LINE, _) => return line(class),
        (ID_BEFORE | ID, LF | CONTROL) => BAD,
        (ID_BEFORE, _) => return noted(ID, Field::CallIdStart),
        (ID, WS) => return noted(ID_AFTER, Field::CallIdEnd),
        (ID, CR) => return noted(ID_AFTER_CR, Field::CallIdEnd),
        (ID, _) => ID,
        (ID_AFTER, WS) => ID_AFTER,
        (ID_AFTER, CR) => ID_AFTER_CR,
        (ID_AFTER_CR, LF) => ID_AFTER_LINE,
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
        if class == letter(name.long[0]) {
            return name.first as u16;
        }
        if let Some(compact) = name.compact
            && class == letter(compact)
        {
            return name.compact_state as u16;
        }
        i += 1;
    }
    match class {
        CR => LAST_CR as u16,
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
        let letters = name.letters(state);
        let compact = name.compact.is_some() && state == name.compact_state;
        if letters == name.long.len() || state == name.ws() || compact {
            if class == COLON {
                return noted(name.value, name.field);
            }
            if class == WS {
                return name.ws() as u16;
            }
            if state == name.ws() {
                return BAD as u16;
            }
        }
        if letters > 0 && letters < name.long.len() && class == letter(name.long[letters]) {
            return name.base as u16 + letters as u16;
        }
        i += 1;
    }
    other_name(class)
}

const _: () = {
    assert!(NAMES[3].ws() == NAMES_TO);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::fields::Fields;

    /// Returns the last state and the fields of a header section after the Request-URI.
    fn walk(headers: &str) -> (u8, Fields) {
        let text = format!("sip:112@x SIP/2.0\r\n{}\r\n\r\n", headers.replace('\n', "\r\n"));
        let mut fields = Fields::default();
        let mut step = Step::at(START);
        for (offset, byte) in text.bytes().enumerate() {
            step = step.next(byte);
            step.note(&mut fields, offset);
        }
        (step.state(), fields)
    }

    fn count(fields: &Fields, field: Field) -> u32 {
        fields[field as usize].count()
    }

    /// Tests every byte at every place of a word, in every state.
    #[test]
    fn where_eight_bytes_change_nothing_the_automaton_says_so_too() {
        let mut sure = 0;
        for state in 0..=255 {
            for (byte, place) in (0..=255u8).flat_map(|byte| (0..8).map(move |at| (byte, at))) {
                let mut bytes = *b"a v<:;\\ ";
                bytes[place] = byte;
                let mut step = Step::at(state);
                if !step.stays(u64::from_le_bytes(bytes)) {
                    continue;
                }
                sure += 1;
                for byte in bytes {
                    step = step.next(byte);
                    assert_eq!(step.0, Step::at(state).0, "{bytes:?}");
                }
            }
        }
        assert_eq!(sure, (256 - 16) * 8);
    }

    #[test]
    fn the_ends_are_never_left() {
        for end in [END, BAD] {
            for byte in 0..=255 {
                assert_eq!(Step::at(end).next(byte).0, Step::at(end).0);
            }
        }
    }

    #[test]
    fn every_state_that_is_reached_can_end_well() {
        // Backwards from the end, then forwards from the start.
        let step_of = |state: u8, class: usize| {
            Step(STEPS[usize::from(state) * CLASS_COUNT + class].into()).state()
        };
        let mut good = [false; 256];
        good[usize::from(END)] = true;
        let mut reached = [false; 256];
        reached[usize::from(START)] = true;
        for _ in 0..256 {
            for state in 0..=255u8 {
                for class in 0..CLASS_COUNT {
                    let next = step_of(state, class);
                    if good[usize::from(next)] {
                        good[usize::from(state)] = true;
                    }
                    if reached[usize::from(state)] {
                        reached[usize::from(next)] = true;
                    }
                }
            }
        }
        for state in 0..=255u8 {
            let (good, reached) = (good[usize::from(state)], reached[usize::from(state)]);
            assert!(!reached || good || state == BAD, "state {state} leads nowhere");
        }
    }

    #[test]
    fn no_control_character_or_bare_line_end_gets_through_an_address() {
        for state in FROM.base..PAI.base + PARTS {
            for byte in [0, b'\n', 0x7F] {
                let next = Step::at(state).next(byte).state();
                let line_end = byte == b'\n' && next != BAD;
                assert!(next == BAD || line_end, "state {state}, byte {byte}");
            }
        }
    }

    #[test]
    fn names_long_compact_in_any_case() {
        for (name, field) in [
            ("From", Field::From),
            ("f", Field::From),
            ("FROM  ", Field::From),
            ("t", Field::To),
            ("tO\t", Field::To),
            ("i", Field::CallId),
            ("cALL-iD", Field::CallId),
            ("P-Asserted-Identity", Field::Pai),
        ] {
            let (state, fields) = walk(&format!("{name}: <sip:1@x>"));
            assert_eq!((state, count(&fields, field)), (END, 1), "{name}");
        }
        for name in [
            "Fro",
            "Fromm",
            "X-From",
            "fr",
            "tt",
            "ii",
            "Call-IDs",
            "P-Asserted-Identit",
            "p",
            "P-Asserted-Identityx",
            "Priority",
            "PAsserted-Identity",
        ] {
            let (state, fields) = walk(&format!("{name}: <sip:1@x>"));
            assert_eq!(state, END, "{name}");
            for field in [Field::From, Field::To, Field::CallId, Field::Pai] {
                assert_eq!(count(&fields, field), 0, "{name}");
            }
        }
        for line in ["From x: y", "From\n : y", " From: y", ": y", "no colon", "a<b: y"] {
            assert_eq!(walk(line).0, BAD, "{line}");
        }
    }

    #[test]
    fn a_tag_is_a_parameter_of_the_header() {
        for (to, tagged) in [
            ("<sip:112@x>;tag=a", true),
            ("<sip:112@x> ; TAG = a", true),
            ("<sip:112@x>\n ;\n tag\n =\n a", true),
            ("sip:112@x;tag=a", true),
            ("<urn:service:sos>;a=b;tag=c", true),
            ("<sip:112@x>;tag=\"a\"", true),
            ("<sip:112@x;tag=a>", false),
            ("\"x;tag=a\" <sip:112@x>", false),
            ("<sip:112@x>;tag=", false),
            ("<sip:112@x>;tag", false),
            ("<sip:112@x>;mytag=a", false),
            ("<sip:112@x>;tags=a", false),
            ("<sip:112@x>;a=\";tag=b\"", false),
            ("<sip:112@x>;ta\n g=b", false),
        ] {
            let (state, fields) = walk(&format!("To: {to}"));
            assert_eq!((state, count(&fields, Field::ToTag)), (END, u32::from(tagged)), "{to}");
        }
    }

    #[test]
    fn values_of_a_list() {
        for (pai, values, uris) in [
            ("<sip:1@x>", 1, 1),
            ("<sip:1@x>, <tel:2>", 2, 2),
            ("tel:1, sip:2@x", 2, 2),
            ("\"a, b\" <sip:1@x>", 1, 1),
            ("<urn:x>,<tel:1>", 2, 1),
            ("<sip:1@x>\nP-Asserted-Identity: <tel:2>", 2, 2),
        ] {
            let (state, fields) = walk(&format!("P-Asserted-Identity: {pai}"));
            let counts = (state, count(&fields, Field::PaiValue), count(&fields, Field::PaiUri));
            assert_eq!(counts, (END, values, uris), "{pai}");
        }
        assert_eq!(walk("From: <sip:1@x>, <sip:2@x>").0, BAD);
    }

    #[test]
    fn a_display_name_is_no_uri() {
        let (state, fields) = walk(r#"From: "<sip:1@x>" <sip:2@x>"#);
        assert_eq!((state, count(&fields, Field::FromUri)), (END, 1));
        let (state, fields) = walk("From: sip <sip:2@x>");
        assert_eq!((state, count(&fields, Field::FromUri)), (END, 1));
        for from in
            ["sip:1@x <sip:2@x>", "\"a\" b <sip:1@x>", "\"a <sip:1@x>", "<sip:1@x", "<sip:1@y@x>"]
        {
            assert_eq!(walk(&format!("From: {from}")).0, BAD, "{from}");
        }
    }
}
