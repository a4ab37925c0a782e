//! The header automaton: from the first byte of the Request-URI to the empty line.
//!
//! Each byte is a step; some steps note their offset as a [`Mark`]. The grammar is
//! that of RFC 3261 §25.1 where it decides what the caller number is, and no more.
//! What breaks it there ends in [`BAD`], and the message passes.

use crate::bytes::Bytes;
use crate::sip::fast::{TOP, all};

/// A place in a message that the reader needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mark {
    /// The CR that ends the request line.
    LineEnd = 1,
    /// A `From` header field: its colon.
    From = 2,
    /// The colon behind the scheme of a `From` URI, with its [`Form`].
    FromUri = 3,
    /// A `To` header field: its colon.
    To = 4,
    /// The first byte of a `tag` of a `To`.
    ToTag = 5,
    /// A `Call-ID` header field: its colon.
    CallId = 6,
    /// The first byte of a Call-ID.
    CallIdStart = 7,
    /// The byte behind a Call-ID.
    CallIdEnd = 8,
    /// A `P-Asserted-Identity` header field: its colon.
    Pai = 9,
    /// The first byte of a `P-Asserted-Identity` value.
    PaiValue = 10,
    /// The colon behind the scheme of a `P-Asserted-Identity` URI, with its [`Form`].
    PaiUri = 11,
}

/// How a URI stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// `<sip:…>` or `<sips:…>`
    Sip = 0,
    /// `<tel:…>`
    Tel = 1,
    /// `sip:…` or `sips:…` without angle brackets: a `;` ends the URI (RFC 3261 §20).
    SipBare = 2,
    /// `tel:…` without angle brackets.
    TelBare = 3,
}

/// The last four offsets of each [`Mark`], 16 bits each, the newest lowest. An offset
/// counts from the Request-URI and has the [`Form`] in its two top bits. No mark
/// stands at offset 0, so 0 means none.
pub type Marks = [u64; 16];

/// The offset of a mark's lowest lane.
#[must_use]
pub const fn offset(lane: u64) -> usize {
    (lane & 0x3FFF) as usize
}

/// The lane of a scheme's colon at this offset, as a walk marks it.
#[must_use]
pub const fn lane(offset: u64, form: Form) -> u64 {
    (form as u64) << 14 | offset
}

/// The empty line was reached: everything is read.
pub const END: u8 = 0;
/// Not a SIP header section as far as the caller number is concerned.
pub const BAD: u8 = 1;
/// Where the automaton starts: at the first byte of the Request-URI.
pub const START: u8 = 2;

/// Byte → class.
pub static CLASSES: [u8; 256] = classes();
/// State and class → step.
static STEPS: [u32; 256 * CLASS_COUNT] = steps();

/// Room for classes; a power of two, because a mask is what the verifier understands.
pub const CLASS_COUNT: usize = 32;

/// What a byte leads to: the next state in bits 5–12, where it is a row of [`STEPS`], the form of a
/// mark in bits 14–15, the mark in bits 19–22. So each needs only one instruction to be taken out.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Step(u64);

impl Step {
    /// In a state, with nothing to note.
    #[must_use]
    pub const fn at(state: u8) -> Step {
        Step(state as u64 * CLASS_COUNT as u64)
    }

    /// Makes one of a state (bits 0–7), a mark (8–11) and a form (14–15).
    const fn pack(next: u16) -> u32 {
        Step::at(next as u8).0 as u32 | (next & 0xC000) as u32 | ((next >> 8 & 0xF) as u32) << 19
    }

    /// The state.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> u8 {
        (self.0 >> 5) as u8
    }

    /// The next one.
    #[inline(always)]
    #[must_use]
    pub fn next(self, byte: u8) -> Step {
        const ROW: u64 = 255 * CLASS_COUNT as u64;
        let class = CLASSES[byte as usize] as usize & (CLASS_COUNT - 1);
        Step(STEPS[(self.0 & ROW) as usize | class] as u64)
    }

    /// Whether eight bytes change nothing: a value that does not matter goes on, and no line ends.
    /// `false` where that is not sure.
    #[inline(always)]
    #[must_use]
    pub const fn stays(self, word: u64) -> bool {
        // The lowest find is exact, and all that counts is whether there is one.
        let below_16 = word.wrapping_sub(all(0x10)) & !word & TOP;
        self.state() == VALUE && below_16 == 0
    }

    /// The same, on a way that did not look it up anew.
    #[inline(always)]
    #[must_use]
    pub fn unlinked<B: Bytes>(self, bytes: &B) -> Step {
        Step(bytes.unlinked(self.0))
    }

    /// Notes the mark at `offset`; a step without one is noted in slot 0, which nobody reads: a
    /// branch would double the ways that the verifier has to walk.
    #[inline(always)]
    pub fn note(self, marks: &mut Marks, offset: usize) {
        let slot = (self.0 >> 19) as usize & 0xF;
        marks[slot] = (marks[slot] << 16) | offset as u64 | self.0 & 0xC000;
    }
}

// ---- classes ----

const OTHER: u8 = 0;
const WS: u8 = 1;
const CR: u8 = 2;
const LF: u8 = 3;
const COLON: u8 = 4;
const SEMI: u8 = 5;
const COMMA: u8 = 6;
const LT: u8 = 7;
const GT: u8 = 8;
const QUOTE: u8 = 9;
const BACKSLASH: u8 = 10;
const AT: u8 = 11;
const EQUAL: u8 = 12;
const CONTROL: u8 = 13;
const DASH: u8 = 14;
/// Letters that stand in a name which matters, in either case, from this class on.
const LETTERS: &[u8] = b"acdefgilmnoprsty";
const LETTER: u8 = 15;

const fn classes() -> [u8; 256] {
    let mut table = [OTHER; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = class(byte as u8);
        byte += 1;
    }
    table
}

const fn class(byte: u8) -> u8 {
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

// ---- states ----

/// In the Request-URI, behind its first byte.
const REQUEST_URI: u8 = 3;
/// In the SIP-Version.
const VERSION: u8 = 4;
/// Behind the CR of the request line.
const REQUEST_CR: u8 = 5;
/// At the first header line: nothing there that could be folded.
const FIRST_LINE: u8 = 6;
/// In the value of a header field that does not matter; behind its CR; at the next line.
const VALUE: u8 = 7;
const VALUE_CR: u8 = 8;
const VALUE_LINE: u8 = 9;
/// Behind the CR of the empty line.
const LAST_CR: u8 = 10;
/// In a header name that does not matter; in white space behind it.
const NAME: u8 = 11;
const NAME_WS: u8 = 12;
/// In the Call-ID's value: before it, in it, behind it.
const ID_BEFORE: u8 = 13;
const ID_BEFORE_CR: u8 = 14;
const ID_BEFORE_LINE: u8 = 15;
const ID: u8 = 16;
const ID_AFTER: u8 = 17;
const ID_AFTER_CR: u8 = 18;
const ID_AFTER_LINE: u8 = 19;

/// A header name that matters takes a state for each of its letters, and one for the
/// white space behind it.
struct Name {
    long: &'static [u8],
    /// The compact form (RFC 3261 §7.3.3), one letter.
    compact: Option<u8>,
    /// State behind the first letter.
    first: u8,
    /// State behind the second letter, less one; the others follow.
    base: u8,
    /// State behind the compact letter.
    compact_state: u8,
    /// The mark of its colon, and the state behind that.
    mark: Mark,
    value: u8,
}

impl Name {
    const fn ws(&self) -> u8 {
        self.base + self.long.len() as u8
    }

    /// How many of its letters stand before this state; 0: it is none of this name.
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
        mark: Mark::From,
        value: FROM.state(BEFORE),
    },
    Name {
        long: b"to",
        compact: Some(b't'),
        first: 25,
        base: 25,
        compact_state: 25,
        mark: Mark::To,
        value: TO.state(BEFORE),
    },
    Name {
        long: b"call-id",
        compact: Some(b'i'),
        first: 28,
        base: 28,
        compact_state: 36,
        mark: Mark::CallId,
        value: ID_BEFORE,
    },
    Name {
        long: b"p-asserted-identity",
        compact: None,
        first: 37,
        base: 37,
        compact_state: BAD,
        mark: Mark::Pai,
        value: PAI.state(BEFORE),
    },
];
const NAMES_FROM: u8 = 20;
const NAMES_TO: u8 = 56;
/// A header field whose value is a `name-addr` or an `addr-spec`. All three have the
/// same states, from `base` on.
struct Address {
    base: u8,
    /// What to note at a URI of a known scheme, at a value, at a tag.
    uri: Option<Mark>,
    value: Option<Mark>,
    tag: Option<Mark>,
    /// Whether commas separate values.
    list: bool,
}

impl Address {
    const fn state(&self, part: u8) -> u8 {
        self.base + part
    }
}

const FROM: Address =
    Address { base: NAMES_TO + 1, uri: Some(Mark::FromUri), value: None, tag: None, list: false };
const TO: Address = Address {
    base: FROM.base + PARTS,
    uri: None,
    value: None,
    tag: Some(Mark::ToTag),
    list: false,
};
const PAI: Address = Address {
    base: TO.base + PARTS,
    uri: Some(Mark::PaiUri),
    value: Some(Mark::PaiValue),
    tag: None,
    list: true,
};

/// Before the value.
const BEFORE: u8 = 0;
const BEFORE_CR: u8 = 1;
const BEFORE_LINE: u8 = 2;
/// In a quoted display name; behind a backslash there.
const QUOTED: u8 = 3;
const QUOTED_CR: u8 = 4;
const QUOTED_LINE: u8 = 5;
const ESCAPED: u8 = 6;
/// Behind a quoted display name: only `<` may follow.
const NAMED: u8 = 7;
const NAMED_CR: u8 = 8;
const NAMED_LINE: u8 = 9;
/// In an unquoted display name; in white space behind a word of it.
const WORD: u8 = 10;
const WORDS: u8 = 11;
const WORDS_CR: u8 = 12;
const WORDS_LINE: u8 = 13;
/// Behind `s`, `si`, `sip`, `sips`, `t`, `te`, `tel` at the start of the value: a scheme, or a word.
const BARE_SIP: u8 = 14;
const BARE_TEL: u8 = 18;
/// In a bare URI, before and behind an `@`.
const BARE: u8 = 21;
const BARE_HOST: u8 = 22;
/// Behind `<`, and then as above.
const ANGLE: u8 = 23;
const ANGLE_SIP: u8 = 24;
const ANGLE_TEL: u8 = 28;
/// In a URI in angle brackets: of an unknown scheme, before and behind an `@`.
const ANGLE_OTHER: u8 = 31;
const ANGLE_URI: u8 = 32;
const ANGLE_HOST: u8 = 33;
/// Behind the URI.
const AFTER: u8 = 34;
const AFTER_CR: u8 = 35;
const AFTER_LINE: u8 = 36;
/// Behind a `;`, then behind `t`, `ta`, `tag`.
const PARAM: u8 = 37;
const PARAM_CR: u8 = 38;
const PARAM_LINE: u8 = 39;
const PARAM_T: u8 = 40;
const PARAM_TA: u8 = 41;
const PARAM_TAG: u8 = 42;
/// In white space behind `tag`.
const TAG: u8 = 43;
const TAG_CR: u8 = 44;
const TAG_LINE: u8 = 45;
/// Behind `tag=`.
const TAG_IS: u8 = 46;
const TAG_IS_CR: u8 = 47;
const TAG_IS_LINE: u8 = 48;
/// In the rest of a parameter; in a quoted value of one.
const REST: u8 = 49;
const REST_CR: u8 = 50;
const REST_LINE: u8 = 51;
const VALUE_QUOTED: u8 = 52;
const VALUE_QUOTED_CR: u8 = 53;
const VALUE_QUOTED_LINE: u8 = 54;
const VALUE_ESCAPED: u8 = 55;
const PARTS: u8 = 56;

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

const fn marked(state: u8, mark: Mark) -> u16 {
    state as u16 | (mark as u16) << 8
}

const fn marked_if(state: u8, mark: Option<Mark>) -> u16 {
    match mark {
        Some(mark) => marked(state, mark),
        None => state as u16,
    }
}

/// The class of a lower-case letter or of `-`.
const fn letter(byte: u8) -> u8 {
    class(byte)
}

const fn next(state: u8, class: u8) -> u16 {
    if state >= NAMES_FROM && state <= NAMES_TO {
        return in_name(state, class);
    }
    if state >= FROM.base && state < FROM.base + PARTS {
        return in_address(&FROM, state - FROM.base, class);
    }
    if state >= TO.base && state < TO.base + PARTS {
        return in_address(&TO, state - TO.base, class);
    }
    if state >= PAI.base && state < PAI.base + PARTS {
        return in_address(&PAI, state - PAI.base, class);
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
        (VERSION, CR) => return marked(REQUEST_CR, Mark::LineEnd),
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
        (ID_BEFORE, _) => return marked(ID, Mark::CallIdStart),
        (ID, WS) => return marked(ID_AFTER, Mark::CallIdEnd),
        (ID, CR) => return marked(ID_AFTER_CR, Mark::CallIdEnd),
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

/// The first byte of a line that does not continue the one before.
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

/// In a header name that does not matter (any more).
const fn other_name(class: u8) -> u16 {
    let next = match class {
        COLON => VALUE,
        WS => NAME_WS,
        CR | LF | SEMI | COMMA | LT | GT | QUOTE | BACKSLASH | AT | EQUAL | CONTROL => BAD,
        _ => NAME,
    };
    next as u16
}

/// In a header name that matters so far. HCOLON = *( SP / HTAB ) ":" SWS
const fn in_name(state: u8, class: u8) -> u16 {
    let mut i = 0;
    while i < NAMES.len() {
        let name = &NAMES[i];
        let letters = name.letters(state);
        let compact = name.compact.is_some() && state == name.compact_state;
        if letters == name.long.len() || state == name.ws() || compact {
            if class == COLON {
                return marked(name.value, name.mark);
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

/// In the value of a `From`, `To` or `P-Asserted-Identity`:
/// ( name-addr / addr-spec ) *( SEMI param ), RFC 3261 §20.10, §25.1.
const fn in_address(address: &Address, part: u8, class: u8) -> u16 {
    // Nothing below allows these anywhere. A line feed alone is no line end.
    if class == CONTROL {
        return BAD as u16;
    }
    let next = match (part, class) {
        (BEFORE_CR, LF) => BEFORE_LINE,
        (QUOTED_CR, LF) => QUOTED_LINE,
        (NAMED_CR, LF) => NAMED_LINE,
        (WORDS_CR, LF) => WORDS_LINE,
        (AFTER_CR, LF) => AFTER_LINE,
        (PARAM_CR, LF) => PARAM_LINE,
        (TAG_CR, LF) => TAG_LINE,
        (TAG_IS_CR, LF) => TAG_IS_LINE,
        (REST_CR, LF) => REST_LINE,
        (VALUE_QUOTED_CR, LF) => VALUE_QUOTED_LINE,
        (_, LF)
        | (
            BEFORE_CR | QUOTED_CR | NAMED_CR | WORDS_CR | AFTER_CR | PARAM_CR | TAG_CR | TAG_IS_CR
            | REST_CR | VALUE_QUOTED_CR,
            _,
        ) => return BAD as u16,

        // Folding: white space at the start of a line continues the one before.
        (BEFORE | BEFORE_LINE, WS) => BEFORE,
        (QUOTED_LINE, WS) => QUOTED,
        (NAMED | NAMED_LINE, WS) => NAMED,
        (WORD | WORDS | WORDS_LINE, WS) => WORDS,
        (AFTER | AFTER_LINE, WS) => AFTER,
        (PARAM | PARAM_LINE, WS) => PARAM,
        (PARAM_TAG | TAG | TAG_LINE, WS) => TAG,
        (TAG_IS | TAG_IS_LINE, WS) => TAG_IS,
        (REST_LINE, WS) => REST,
        (VALUE_QUOTED_LINE, WS) => VALUE_QUOTED,
        // A quoted string that is still open, and a name without an address, end badly.
        (QUOTED_LINE | NAMED_LINE | VALUE_QUOTED_LINE, _) => return BAD as u16,
        (
            BEFORE_LINE | WORDS_LINE | AFTER_LINE | PARAM_LINE | TAG_LINE | TAG_IS_LINE | REST_LINE,
            _,
        ) => return line(class),

        (BEFORE, CR) => BEFORE_CR,
        (BEFORE, QUOTE) => return marked_if(address.state(QUOTED), address.value),
        (BEFORE, LT) => return marked_if(address.state(ANGLE), address.value),
        (BEFORE, COMMA | SEMI | GT | COLON | BACKSLASH | AT | EQUAL) => return BAD as u16,
        (BEFORE, _) => {
            return marked_if(address.state(scheme(BARE_SIP, class, WORD)), address.value);
        }

        (QUOTED, QUOTE) => NAMED,
        (QUOTED, BACKSLASH) => ESCAPED,
        (QUOTED, CR) => QUOTED_CR,
        (QUOTED, _) => QUOTED,
        (ESCAPED, CR) => return BAD as u16,
        (ESCAPED, _) => QUOTED,
        (NAMED, CR) => NAMED_CR,
        (NAMED, LT) => ANGLE,
        (NAMED, _) => return BAD as u16,

        (BARE_SIP..=20, COLON) => {
            let state = address.state(BARE);
            return known_scheme(address, state, part - BARE_SIP, Form::SipBare, Form::TelBare);
        }
        // Any other scheme: a URI, but none that has a number.
        (WORD, COLON) => BARE,
        (BARE_SIP..=20 | WORD | WORDS, LT) => ANGLE,
        (BARE_SIP..=20 | WORD | WORDS, CR) => WORDS_CR,
        (BARE_SIP..=20, WS) => WORDS,
        (
            BARE_SIP..=20 | WORD | WORDS,
            COLON | COMMA | SEMI | GT | QUOTE | BACKSLASH | AT | EQUAL,
        ) => {
            return BAD as u16;
        }
        (BARE_SIP..=20, _) => scheme_more(BARE_SIP, part, class, WORD),
        (WORD | WORDS, _) => WORD,

        (BARE | BARE_HOST, CR) => AFTER_CR,
        (BARE | BARE_HOST, WS) => AFTER,
        (BARE | BARE_HOST, SEMI) => PARAM,
        (BARE | BARE_HOST, COMMA) => return comma(address),
        (BARE | BARE_HOST, LT | GT | QUOTE | BACKSLASH) | (BARE_HOST, AT) => return BAD as u16,
        (BARE, AT) => BARE_HOST,
        (BARE, _) => BARE,
        (BARE_HOST, _) => BARE_HOST,

        (ANGLE..=ANGLE_HOST, CR | WS | LT | QUOTE | BACKSLASH) => return BAD as u16,
        (ANGLE_SIP..=30, COLON) => {
            let state = address.state(ANGLE_URI);
            return known_scheme(address, state, part - ANGLE_SIP, Form::Sip, Form::Tel);
        }
        (ANGLE, GT) => return BAD as u16,
        (ANGLE..=ANGLE_HOST, GT) => AFTER,
        (ANGLE, _) => scheme(ANGLE_SIP, class, ANGLE_OTHER),
        (ANGLE_SIP..=30, _) => scheme_more(ANGLE_SIP, part, class, ANGLE_OTHER),
        (ANGLE_OTHER, _) => ANGLE_OTHER,
        (ANGLE_URI, AT) => ANGLE_HOST,
        (ANGLE_URI, _) => ANGLE_URI,
        (ANGLE_HOST, AT) => return BAD as u16,
        (ANGLE_HOST, _) => ANGLE_HOST,

        (AFTER, CR) => AFTER_CR,
        (AFTER, SEMI) => PARAM,
        (AFTER, COMMA) => return comma(address),
        (AFTER, _) => return BAD as u16,

        (PARAM..=REST, LT | GT) => return BAD as u16,
        (PARAM..=REST, COMMA) => return comma(address),
        (PARAM..=REST, SEMI) => PARAM,
        (PARAM, CR) => PARAM_CR,
        (PARAM_T | PARAM_TA | REST, CR) => REST_CR,
        (PARAM_TAG | TAG, CR) => TAG_CR,
        (TAG_IS, CR) => TAG_IS_CR,
        (PARAM_TAG | TAG, EQUAL) => TAG_IS,
        (TAG_IS, QUOTE) => return marked_if(address.state(VALUE_QUOTED), address.tag),
        (TAG_IS, _) => return marked_if(address.state(REST), address.tag),
        (PARAM..=REST, QUOTE) => VALUE_QUOTED,
        (PARAM, _) if class == letter(b't') => PARAM_T,
        (PARAM_T, _) if class == letter(b'a') => PARAM_TA,
        (PARAM_TA, _) if class == letter(b'g') => PARAM_TAG,
        // `tag x=y` is no tag, and nothing that the grammar knows.
        (TAG, _) => return BAD as u16,
        (PARAM | PARAM_T | PARAM_TA | PARAM_TAG | REST, _) => REST,

        (VALUE_QUOTED, QUOTE) => REST,
        (VALUE_QUOTED, BACKSLASH) => VALUE_ESCAPED,
        (VALUE_QUOTED, CR) => VALUE_QUOTED_CR,
        (VALUE_QUOTED, _) => VALUE_QUOTED,
        (VALUE_ESCAPED, CR) => return BAD as u16,
        (VALUE_ESCAPED, _) => VALUE_QUOTED,

        _ => return BAD as u16,
    };
    address.state(next) as u16
}

/// A comma between values: only a list has them.
const fn comma(address: &Address) -> u16 {
    if address.list { address.state(BEFORE) as u16 } else { BAD as u16 }
}

/// The first letter of a scheme; `base` is the part behind `s`, `other` the one for
/// anything that is no scheme we know.
const fn scheme(base: u8, class: u8, other: u8) -> u8 {
    if class == letter(b's') {
        base
    } else if class == letter(b't') {
        base + 4
    } else {
        other
    }
}

/// The next letter of a scheme, behind `s si sip sips t te tel`.
const fn scheme_more(base: u8, part: u8, class: u8, other: u8) -> u8 {
    let expected = match part - base {
        0 => b'i',
        1 => b'p',
        2 => b's',
        4 => b'e',
        5 => b'l',
        _ => return other,
    };
    if class == letter(expected) { part + 1 } else { other }
}

/// The colon behind a scheme: notes the URI when it is `sip`, `sips` or `tel`.
const fn known_scheme(address: &Address, state: u8, read: u8, sip: Form, tel: Form) -> u16 {
    let form = match read {
        2 | 3 => sip,
        6 => tel,
        _ => return state as u16,
    };
    match address.uri {
        Some(mark) => marked(state, mark) | (form as u16) << 14,
        None => state as u16,
    }
}

const _: () = {
    assert!(BARE_TEL == BARE_SIP + 4 && ANGLE_TEL == ANGLE_SIP + 4);
    assert!(LETTER as usize + LETTERS.len() <= CLASS_COUNT);
    assert!(NAMES[3].ws() == NAMES_TO);
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Marks of a header section behind the Request-URI, and the last state.
    fn walk(headers: &str) -> (u8, Marks) {
        let text = format!("sip:112@x SIP/2.0\r\n{}\r\n\r\n", headers.replace('\n', "\r\n"));
        let mut marks = [0; 16];
        let mut step = Step::at(START);
        for (offset, byte) in text.bytes().enumerate() {
            step = step.next(byte);
            step.note(&mut marks, offset);
        }
        (step.state(), marks)
    }

    fn count(marks: &Marks, mark: Mark) -> usize {
        (0..4).filter(|lane| marks[mark as usize] >> (16 * lane) & 0xFFFF != 0).count()
    }

    /// All bytes in all places of a word, in every state.
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
        for (name, mark) in [
            ("From", Mark::From),
            ("f", Mark::From),
            ("FROM  ", Mark::From),
            ("t", Mark::To),
            ("tO\t", Mark::To),
            ("i", Mark::CallId),
            ("cALL-iD", Mark::CallId),
            ("P-Asserted-Identity", Mark::Pai),
        ] {
            let (state, marks) = walk(&format!("{name}: <sip:1@x>"));
            assert_eq!((state, count(&marks, mark)), (END, 1), "{name}");
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
            let (state, marks) = walk(&format!("{name}: <sip:1@x>"));
            assert_eq!(state, END, "{name}");
            for mark in [Mark::From, Mark::To, Mark::CallId, Mark::Pai] {
                assert_eq!(count(&marks, mark), 0, "{name}");
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
            let (state, marks) = walk(&format!("To: {to}"));
            assert_eq!((state, count(&marks, Mark::ToTag)), (END, usize::from(tagged)), "{to}");
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
            let (state, marks) = walk(&format!("P-Asserted-Identity: {pai}"));
            let counts = (state, count(&marks, Mark::PaiValue), count(&marks, Mark::PaiUri));
            assert_eq!(counts, (END, values, uris), "{pai}");
        }
        assert_eq!(walk("From: <sip:1@x>, <sip:2@x>").0, BAD);
    }

    #[test]
    fn a_display_name_is_no_uri() {
        let (state, marks) = walk(r#"From: "<sip:1@x>" <sip:2@x>"#);
        assert_eq!((state, count(&marks, Mark::FromUri)), (END, 1));
        let (state, marks) = walk("From: sip <sip:2@x>");
        assert_eq!((state, count(&marks, Mark::FromUri)), (END, 1));
        for from in
            ["sip:1@x <sip:2@x>", "\"a\" b <sip:1@x>", "\"a <sip:1@x>", "<sip:1@x", "<sip:1@y@x>"]
        {
            assert_eq!(walk(&format!("From: {from}")).0, BAD, "{from}");
        }
    }
}
