//! The steps of the reply automaton, as tables: what each byte of a request does to the reply.
//!
//! The automaton walks from the Request-URI to the empty line. A step names the next state,
//! and whether the byte is copied. It notes fields, and leaves room for texts that the request lacks. The states
//! of a value that may be folded come in threes: in a line, after its CR, at the next line.

use crate::sip::automaton::{
    BACKSLASH, COLON, COMMA, CR, GT, LF, LT, QUOTE, SEMI, Spelling, WS, classes, letter_class,
    separator,
};

/// Room for classes; a power of two, because the verifier understands a mask.
const CLASS_COUNT: usize = 64;
const STATE_COUNT: usize = 128;

// ---- classes ----

// 1 to 10 are the classes of `automaton`.
const EQUAL: u8 = 11;
const CONTROL: u8 = 12;
const SLASH: u8 = 13;
const OPEN: u8 = 14;
const CLOSE: u8 = 15;
/// From here on: bytes that a token may have.
const OTHER: u8 = 16;
const DASH: u8 = 17;
const DIGIT: u8 = 18;
/// Letters that are in a name which matters, in either case, from this class on.
const LETTERS: &[u8] = b"acdefgilmopqrstv";
const LETTER: u8 = 19;

/// Byte → class.
static CLASSES: [u8; 256] = classes!(class);

const fn class(byte: u8) -> u8 {
    if let Some(class) = letter_class(byte, LETTERS, LETTER) {
        return class;
    }
    match byte {
        b'=' => EQUAL,
        b'/' => SLASH,
        b'[' => OPEN,
        b']' => CLOSE,
        b'-' => DASH,
        b'0'..=b'9' => DIGIT,
        _ => match separator(byte) {
            0 if byte.is_ascii_control() => CONTROL,
            0 => OTHER,
            class => class,
        },
    }
}

// ---- fields ----

/// A place in a request that the reply needs. Numbers 0 and 8 are never read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Field {
    /// The colon of a `Via`.
    Via = 1,
    /// The colon of a `From`.
    From = 2,
    /// The colon of a `To`.
    To = 3,
    /// The colon of a `Call-ID`.
    CallId = 4,
    /// The colon of a `CSeq`.
    CSeq = 5,
    /// The first byte of a Call-ID.
    CallIdStart = 6,
    /// The byte after a Call-ID.
    CallIdEnd = 7,
    /// The first digit of a `CSeq`.
    CSeqNumber = 9,
    /// The first byte of the tag of a `To`.
    ToTag = 10,
    /// The first digit of the port in the topmost `Via`. This number and the next lose bit 4 after that value,
    /// and are never read then.
    Port = TOPMOST,
    /// The end of the name `received` or `maddr` in the topmost `Via`.
    Foreign = TOPMOST | 8,
}

/// The bit that only fields of the topmost `Via` have.
const TOPMOST: u8 = 16;
/// Room for the fields, by their number.
pub const FIELD_COUNT: usize = 32;

// ---- gaps ----

/// The room for a text that the request does not have comes before the byte of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Gap {
    /// No room.
    None = 0,
    /// After an `rport` without a value, which more parameters follow.
    Rport = 1,
    /// After the topmost value of `Via`.
    ViaEnd = 2,
    /// Both: `rport` without a value is the last parameter.
    RportEnd = 3,
    /// After the value of `To`, line end included.
    To = 4,
}

/// Room for what belongs to a [`Gap`], by its number; a power of two.
pub const GAP_COUNT: usize = 8;

// ---- steps ----

/// A step. The next state is in bits 6–12, where it is a row of the table. The field is in bits 16–20, the
/// gap in bits 21–23. Bit 24: the byte is copied. Bit 25: what was copied of this line is removed. Bit 26: a line
/// begins. Bit 27: the gap is in a `Via`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Step(u64);

const COPY: u32 = 1 << 24;
const UNDO: u32 = 1 << 25;
const LINE: u32 = 1 << 26;
const IN_VIA: u32 = 1 << 27;

impl Step {
    /// Where the automaton starts: in the request line, which is not copied.
    pub const START: Step = Step(to(VALUE) as u64);

    /// Returns the next step.
    #[inline(always)]
    #[must_use]
    pub fn next(self, byte: u8) -> Step {
        const ROW: u64 = ((STATE_COUNT - 1) * CLASS_COUNT) as u64;
        let class = CLASSES[byte as usize] as usize & (CLASS_COUNT - 1);
        Step(STEPS[(self.0 & ROW) as usize | class] as u64)
    }

    /// Returns whether the empty line was reached.
    #[inline(always)]
    #[must_use]
    pub const fn is_end(self) -> bool {
        self.state() == END
    }

    /// Returns whether no further byte changes anything.
    #[inline(always)]
    #[must_use]
    pub const fn is_over(self) -> bool {
        self.state() == END || self.state() == BAD
    }

    #[inline(always)]
    const fn state(self) -> u8 {
        (self.0 >> 6) as u8 & (STATE_COUNT - 1) as u8
    }

    /// Returns the number of the [`Field`] at this byte; 0: none.
    #[inline(always)]
    #[must_use]
    pub const fn field(self) -> usize {
        (self.0 >> 16) as usize & (FIELD_COUNT - 1)
    }

    /// Returns the number of the [`Gap`] before this byte.
    #[inline(always)]
    #[must_use]
    pub const fn gap(self) -> usize {
        (self.0 >> 21) as usize & (GAP_COUNT - 1)
    }

    /// Returns 1 at a gap of a `Via`, otherwise 0.
    #[inline(always)]
    #[must_use]
    pub const fn is_in_via(self) -> u64 {
        self.0 >> 27 & 1
    }

    /// Returns 1 at the end of a value of a `Via`, otherwise 0.
    #[inline(always)]
    #[must_use]
    pub const fn ends_via(self) -> u64 {
        self.0 >> 22 & 1
    }

    /// Returns 1 if the byte is copied, otherwise 0.
    #[inline(always)]
    #[must_use]
    pub const fn copies(self) -> u64 {
        self.0 >> 24 & 1
    }

    /// Returns 1 if what was copied of this line is removed again, otherwise 0.
    #[inline(always)]
    #[must_use]
    pub const fn undoes(self) -> u64 {
        self.0 >> 25 & 1
    }

    /// Returns 1 at the first byte of a header field, otherwise 0.
    #[inline(always)]
    #[must_use]
    pub const fn begins_line(self) -> u64 {
        self.0 >> 26 & 1
    }
}

const fn to(state: u8) -> u32 {
    (state as u32) << 6
}

const fn copied(state: u8) -> u32 {
    to(state) | COPY
}

const fn noted(state: u8, field: Field) -> u32 {
    copied(state) | (field as u32) << 16
}

const fn with_gap(step: u32, gap: Gap) -> u32 {
    let is_in_via = matches!(gap, Gap::Rport | Gap::ViaEnd | Gap::RportEnd);
    step | (gap as u32) << 21 | if is_in_via { IN_VIA } else { 0 }
}

/// State and class → step.
static STEPS: [u32; STATE_COUNT * CLASS_COUNT] = steps();

const fn steps() -> [u32; STATE_COUNT * CLASS_COUNT] {
    let mut table = [to(BAD); STATE_COUNT * CLASS_COUNT];
    let mut state = 0;
    while state < STATE_COUNT {
        let mut class = 0;
        while class < CLASS_COUNT {
            table[state * CLASS_COUNT + class] = next(state as u8, class as u8);
            class += 1;
        }
        state += 1;
    }
    table
}

// ---- states of values that may be folded: in a line; + 1 after its CR; + 2 at the next line ----

/// A value that is not copied.
const VALUE: u8 = 0;
/// A value that is copied to its end: a `From`, and the rest of others.
const PLAIN: u8 = 3;
/// Before and after the Call-ID.
const ID_BEFORE: u8 = 6;
const ID_AFTER: u8 = 9;
/// Before the number of the `CSeq`.
const CSEQ: u8 = 12;
/// In a `To`; in a quoted string of it; after a `;`; after `tag`; after `tag=`.
const TO: u8 = 15;
const TO_QUOTED: u8 = 18;
const TO_PARAM: u8 = 21;
const TO_TAG: u8 = 24;
const TO_TAG_IS: u8 = 27;
/// In the parts of `SIP/2.0/UDP`; before the host; after host or port.
const VIA: u8 = 30;
const VIA_VERSION: u8 = 33;
const VIA_SLASH: u8 = 36;
const VIA_BY: u8 = 39;
const VIA_AFTER: u8 = 42;
/// Before the digits of the port; after a `;`; in a parameter; after the name `rport`; in a quoted value.
const VIA_COLON: u8 = 45;
const VIA_PARAM: u8 = 48;
const VIA_REST: u8 = 51;
const VIA_RPORT: u8 = 54;
const VIA_QUOTED: u8 = 57;
const FOLDED: u8 = 60;

// ---- other states ----

/// The empty line was reached.
const END: u8 = 60;
/// Not a message that is answered.
const BAD: u8 = 61;
/// In a header name that does not matter; in white space after it.
const NAME: u8 = 62;
const NAME_WS: u8 = 63;
/// After the CR of the empty line.
const LAST_CR: u8 = 64;
const ID: u8 = 65;
const TO_ESCAPED: u8 = 66;
const TO_ANGLE: u8 = 67;
const TO_T: u8 = 68;
const TO_TA: u8 = 69;
const VIA_TRANSPORT: u8 = 70;
const VIA_HOST: u8 = 71;
const VIA_IPV6: u8 = 72;
const VIA_DIGITS: u8 = 73;
const VIA_ESCAPED: u8 = 74;
/// After the first letters of `rport`, of `received` and of `maddr`, less one letter.
const VIA_R: u8 = 75;
const VIA_RP: u8 = 76;
const VIA_RE: u8 = 79;
/// After `received` or `maddr`.
const VIA_FOREIGN: u8 = 85;
const VIA_M: u8 = 86;

/// A header name that is copied.
struct Name {
    spelling: Spelling,
    /// State after the compact form (RFC 3261 §7.3.3); [`BAD`]: it has none.
    compact: u8,
    /// The field of its colon, and the state after that.
    field: Field,
    value: u8,
}

const NAMES: [Name; 5] = [
    Name {
        spelling: Spelling { long: b"via", first: 90, base: 90 },
        compact: 90,
        field: Field::Via,
        value: VIA,
    },
    Name {
        spelling: Spelling { long: b"from", first: 94, base: 94 },
        compact: 94,
        field: Field::From,
        value: PLAIN,
    },
    Name {
        spelling: Spelling { long: b"to", first: 99, base: 99 },
        compact: 99,
        field: Field::To,
        value: TO,
    },
    Name {
        spelling: Spelling { long: b"call-id", first: 102, base: 102 },
        compact: COMPACT_ID,
        field: Field::CallId,
        value: ID_BEFORE,
    },
    // It begins as `call-id` does.
    Name {
        spelling: Spelling { long: b"cseq", first: 102, base: 109 },
        compact: BAD,
        field: Field::CSeq,
        value: CSEQ,
    },
];
const NAMES_FROM: u8 = 90;
const COMPACT_ID: u8 = 114;

const fn next(state: u8, class: u8) -> u32 {
    if state >= FOLDED {
        return if state >= NAMES_FROM { in_name(state, class) } else { in_line(state, class) };
    }
    let value = state - state % 3;
    match (state % 3, class) {
        // A CR alone is no line end.
        (1, LF) => copied_if_value(value, value + 2),
        (1, _) => to(BAD),
        // White space at the start of a line continues the one before.
        (2, WS) => in_line(value, WS),
        (2, _) => after_value(value, class),
        // An LF alone is a line end, as for the readers.
        (_, CR) => copied_if_value(value, value + 1),
        (_, LF) => copied_if_value(value, value + 2),
        _ => in_line(value, class),
    }
}

const fn copied_if_value(value: u8, state: u8) -> u32 {
    if value == VALUE { to(state) } else { copied(state) }
}

/// Returns the step at the first byte after the line end of a value.
const fn after_value(value: u8, class: u8) -> u32 {
    let gap = match value {
        VALUE | PLAIN | ID_AFTER => Gap::None,
        TO => Gap::To,
        VIA_AFTER | VIA_REST => Gap::ViaEnd,
        VIA_RPORT => Gap::RportEnd,
        // The value is not complete.
        _ => return to(BAD),
    };
    with_gap(line(class), gap)
}

/// Returns the step at the first byte of a line that does not continue the one before.
const fn line(class: u8) -> u32 {
    let mut i = 0;
    while i < NAMES.len() {
        if class == self::class(NAMES[i].spelling.long[0]) {
            return copied(NAMES[i].spelling.first) | LINE;
        }
        i += 1;
    }
    match class {
        CR => to(LAST_CR),
        LF => to(END),
        _ if class == self::class(b'i') => copied(COMPACT_ID) | LINE,
        _ => other_name(class),
    }
}

/// Returns the step in a header name that is not copied (any more).
const fn other_name(class: u8) -> u32 {
    match class {
        COLON => to(VALUE),
        WS => to(NAME_WS),
        OTHER.. | SLASH | OPEN | CLOSE => to(NAME),
        _ => to(BAD),
    }
}

/// Returns the step in a header name that is copied so far. HCOLON = *( SP / HTAB ) ":" SWS
const fn in_name(state: u8, class: u8) -> u32 {
    let mut i = 0;
    while i < NAMES.len() {
        let name = &NAMES[i];
        let letters = name.spelling.letters(state);
        if letters == name.spelling.long.len()
            || state == name.spelling.ws()
            || state == name.compact
        {
            match class {
                COLON => return noted(name.value, name.field),
                WS => return copied(name.spelling.ws()),
                _ if state == name.spelling.ws() => return to(BAD),
                _ => {}
            }
        }
        if letters > 0
            && letters < name.spelling.long.len()
            && class == self::class(name.spelling.long[letters])
        {
            return copied(name.spelling.base + letters as u8);
        }
        i += 1;
    }
    other_name(class) | UNDO
}

/// Returns the step in a line, which ends in a state that may be folded.
const fn in_line(state: u8, class: u8) -> u32 {
    match (state, class) {
        // The two ends are never left.
        (END, _) => to(END),
        (BAD, _) => to(BAD),
        (VALUE, _) => to(VALUE),
        (LAST_CR, LF) => to(END),
        (NAME, _) => other_name(class),
        (NAME_WS, WS) => to(NAME_WS),
        (NAME_WS, COLON) => to(VALUE),
        (LAST_CR | NAME_WS, _) | (_, CONTROL) => to(BAD),

        (PLAIN, _) => copied(PLAIN),
        (ID_BEFORE, WS) => copied(ID_BEFORE),
        (ID_BEFORE, _) => noted(ID, Field::CallIdStart),
        (ID, WS) => noted(ID_AFTER, Field::CallIdEnd),
        (ID, CR) => noted(ID_AFTER + 1, Field::CallIdEnd),
        (ID, LF) => noted(ID_AFTER + 2, Field::CallIdEnd),
        (ID, _) => copied(ID),
        (ID_AFTER, WS) => copied(ID_AFTER),
        (CSEQ, WS) => copied(CSEQ),
        (CSEQ, DIGIT) => noted(PLAIN, Field::CSeqNumber),

        (TO..VIA | TO_ESCAPED..=TO_TA, _) => in_to(state, class),
        (VIA..FOLDED | VIA_TRANSPORT..NAMES_FROM, _) => in_via(state, class),
        _ => to(BAD),
    }
}

/// Returns the step in a `To`: ( name-addr / addr-spec ) *( SEMI param ), RFC 3261 §20.39, §25.1. The judge
/// has read the same value by its whole grammar; here only the tag and the end count.
const fn in_to(state: u8, class: u8) -> u32 {
    match (state, class) {
        (TO_QUOTED, QUOTE) => copied(TO),
        (TO_QUOTED, BACKSLASH) => copied(TO_ESCAPED),
        (TO_ESCAPED | TO_ANGLE, CR | LF) => to(BAD),
        (TO_QUOTED | TO_ESCAPED, _) => copied(TO_QUOTED),
        (TO_ANGLE, GT) => copied(TO),
        (TO_ANGLE, _) => copied(TO_ANGLE),
        (TO_PARAM | TO_TAG | TO_TAG_IS, WS) => copied(state),
        (TO_PARAM, _) if class == self::class(b't') => copied(TO_T),
        (TO_T, _) if class == self::class(b'a') => copied(TO_TA),
        (TO_TA, _) if class == self::class(b'g') => copied(TO_TAG),
        (TO_TAG, EQUAL) => copied(TO_TAG_IS),
        (TO_TAG_IS, QUOTE) => noted(TO_QUOTED, Field::ToTag),
        (TO_TAG_IS, _) => noted(TO, Field::ToTag),
        (_, QUOTE) => copied(TO_QUOTED),
        (_, LT) => copied(TO_ANGLE),
        (_, SEMI) => copied(TO_PARAM),
        (_, CR) => copied(TO + 1),
        (_, LF) => copied(TO + 2),
        _ => copied(TO),
    }
}

/// Returns the step in a `Via`: SIP/2.0/UDP host [:port] *( SEMI via-params ), more after a comma
/// (RFC 3261 §20.42, §25.1; `rport` by RFC 3581 §3).
const fn in_via(state: u8, class: u8) -> u32 {
    let is_token = class >= OTHER;
    match (state, class) {
        (VIA | VIA_VERSION, SLASH) => copied(state + 3),
        (VIA | VIA_VERSION | VIA_SLASH | VIA_BY | VIA_AFTER | VIA_COLON | VIA_PARAM, WS) => {
            copied(state)
        }
        (VIA | VIA_VERSION, _) if is_token => copied(state),
        (VIA_SLASH | VIA_TRANSPORT, _) if is_token => copied(VIA_TRANSPORT),
        (VIA_TRANSPORT, WS) => copied(VIA_BY),
        (VIA_TRANSPORT, CR) => copied(VIA_BY + 1),
        (VIA_TRANSPORT, LF) => copied(VIA_BY + 2),

        (VIA_BY | VIA_HOST, _) if is_token => copied(VIA_HOST),
        (VIA_BY, OPEN) => copied(VIA_IPV6),
        (VIA_IPV6, CLOSE) => copied(VIA_HOST),
        (VIA_IPV6, COLON) => copied(VIA_IPV6),
        (VIA_IPV6, _) if is_token => copied(VIA_IPV6),
        (VIA_HOST | VIA_AFTER, COLON) => copied(VIA_COLON),
        (VIA_COLON, DIGIT) => noted(VIA_DIGITS, Field::Port),
        (VIA_DIGITS, DIGIT) => copied(VIA_DIGITS),
        (VIA_HOST | VIA_DIGITS, WS) => copied(VIA_AFTER),
        (VIA_HOST | VIA_DIGITS, CR) => copied(VIA_AFTER + 1),
        (VIA_HOST | VIA_DIGITS, LF) => copied(VIA_AFTER + 2),
        (VIA_HOST | VIA_DIGITS | VIA_AFTER, SEMI) => copied(VIA_PARAM),
        (VIA_HOST | VIA_DIGITS | VIA_AFTER, COMMA) => with_gap(copied(PLAIN), Gap::ViaEnd),

        (VIA_PARAM, _) if class == self::class(b'r') => copied(VIA_R),
        (VIA_PARAM, _) if class == self::class(b'm') => copied(VIA_M),
        (VIA_PARAM, _) if is_token => copied(VIA_REST),
        (VIA_R, _) if class == self::class(b'p') => copied(VIA_RP),
        (VIA_R, _) if class == self::class(b'e') => copied(VIA_RE),
        (VIA_RP..VIA_RE, _) if class == letter(b"ort", state - VIA_RP) => {
            copied(if state + 1 == VIA_RE { VIA_RPORT } else { state + 1 })
        }
        (VIA_RE..VIA_FOREIGN, _) if class == letter(b"ceived", state - VIA_RE) => copied(state + 1),
        (VIA_M..NAMES_FROM, _) if class == letter(b"addr", state - VIA_M) => {
            copied(if state + 1 == NAMES_FROM { VIA_FOREIGN } else { state + 1 })
        }
        (VIA_RPORT, WS) => copied(VIA_RPORT),
        (VIA_RPORT, SEMI) => with_gap(copied(VIA_PARAM), Gap::Rport),
        (VIA_RPORT, COMMA) => with_gap(copied(PLAIN), Gap::RportEnd),
        (VIA_FOREIGN, WS | CR | LF | SEMI | COMMA | EQUAL) => {
            in_parameter(class) | (Field::Foreign as u32) << 16
        }
        (VIA_QUOTED, QUOTE) => copied(VIA_REST),
        (VIA_QUOTED, BACKSLASH) => copied(VIA_ESCAPED),
        (VIA_ESCAPED, CR | LF) => to(BAD),
        (VIA_QUOTED | VIA_ESCAPED, _) => copied(VIA_QUOTED),
        (VIA_REST | VIA_RPORT | VIA_R..NAMES_FROM, _) => in_parameter(class),
        _ => to(BAD),
    }
}

/// Returns the step in a parameter of a `Via` that does not matter.
const fn in_parameter(class: u8) -> u32 {
    match class {
        CR => copied(VIA_REST + 1),
        LF => copied(VIA_REST + 2),
        SEMI => copied(VIA_PARAM),
        COMMA => with_gap(copied(PLAIN), Gap::ViaEnd),
        QUOTE => copied(VIA_QUOTED),
        LT | GT | BACKSLASH => to(BAD),
        _ => copied(VIA_REST),
    }
}

/// Returns the class of a letter of a name.
const fn letter(name: &[u8], index: u8) -> u8 {
    class(name[index as usize])
}

const _: () = {
    assert!(LETTER as usize + LETTERS.len() <= CLASS_COUNT);
    assert!(NAMES[4].spelling.ws() < COMPACT_ID && (COMPACT_ID as usize) < STATE_COUNT);
    // The states after the first letters of the parameters' names follow each other.
    assert!(VIA_RP + 3 == VIA_RE && VIA_RE + 6 == VIA_FOREIGN && VIA_M + 4 == NAMES_FROM);
};
