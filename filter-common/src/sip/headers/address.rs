//! The states in the value of a `From`, `To` or `P-Asserted-Identity`.

use super::class::{AT, CONTROL, EQUAL, letter};
use super::step::{BAD, VALUE, VALUE_CR, VALUE_LINE, noted, noted_if};
use crate::sip::automaton::{BACKSLASH, COLON, COMMA, CR, GT, LF, LT, QUOTE, SEMI, WS};
use crate::sip::fields::{Field, Form};

/// A header field whose value is a `name-addr` or an `addr-spec`. All three have the
/// same states, from `base` on.
pub(super) struct Address {
    pub(super) base: u8,
    /// The fields to note at a URI of a known scheme, at a value, at a tag.
    pub(super) uri: Option<Field>,
    pub(super) value: Option<Field>,
    pub(super) tag: Option<Field>,
    /// Whether commas separate values.
    pub(super) list: bool,
    /// The field to note where the value breaks the grammar; the rest of it is passed over then.
    /// `None`: the message is bad.
    pub(super) fault: Option<Field>,
}

impl Address {
    pub(super) const fn state(&self, part: u8) -> u8 {
        self.base + part
    }
}

/// Before the value.
pub(super) const BEFORE: u8 = 0;
const BEFORE_CR: u8 = 1;
const BEFORE_LINE: u8 = 2;
/// In a quoted display name; after a backslash there.
const QUOTED: u8 = 3;
const QUOTED_CR: u8 = 4;
const QUOTED_LINE: u8 = 5;
const ESCAPED: u8 = 6;
/// After a quoted display name: only `<` may follow.
const NAMED: u8 = 7;
const NAMED_CR: u8 = 8;
const NAMED_LINE: u8 = 9;
/// In an unquoted display name; in white space after a word of it.
const WORD: u8 = 10;
const WORDS: u8 = 11;
const WORDS_CR: u8 = 12;
const WORDS_LINE: u8 = 13;
/// After `s`, `si`, `sip`, `sips`, `t`, `te`, `tel` at the start of the value: a scheme, or a word.
const BARE_SIP: u8 = 14;
const BARE_TEL: u8 = 18;
/// In a bare URI, before and after an `@`.
const BARE: u8 = 21;
const BARE_HOST: u8 = 22;
/// After `<`, and then as above.
const ANGLE: u8 = 23;
const ANGLE_SIP: u8 = 24;
const ANGLE_TEL: u8 = 28;
/// In a URI in angle brackets: of an unknown scheme, before and after an `@`.
const ANGLE_OTHER: u8 = 31;
const ANGLE_URI: u8 = 32;
const ANGLE_HOST: u8 = 33;
/// After the URI.
const AFTER: u8 = 34;
const AFTER_CR: u8 = 35;
const AFTER_LINE: u8 = 36;
/// After a `;`, then after `t`, `ta`, `tag`.
const PARAM: u8 = 37;
const PARAM_CR: u8 = 38;
const PARAM_LINE: u8 = 39;
const PARAM_T: u8 = 40;
const PARAM_TA: u8 = 41;
const PARAM_TAG: u8 = 42;
/// In white space after `tag`.
const TAG: u8 = 43;
const TAG_CR: u8 = 44;
const TAG_LINE: u8 = 45;
/// After `tag=`.
const TAG_IS: u8 = 46;
const TAG_IS_CR: u8 = 47;
const TAG_IS_LINE: u8 = 48;
/// In the rest of a parameter, where a quote has no place; in a quoted value of one.
const REST: u8 = 49;
const REST_CR: u8 = 50;
const REST_LINE: u8 = 51;
const VALUE_QUOTED: u8 = 52;
const VALUE_QUOTED_CR: u8 = 53;
const VALUE_QUOTED_LINE: u8 = 54;
const VALUE_ESCAPED: u8 = 55;
/// In the name of another parameter; in white space after it; after the `=`. Only there a quoted value
/// may begin.
const PARAM_NAME: u8 = 56;
const PARAM_NAME_WS: u8 = 57;
const PARAM_IS: u8 = 58;
pub(super) const PARTS: u8 = 59;

/// Returns the step in the value of a `From`, `To` or `P-Asserted-Identity`:
/// ( name-addr / addr-spec ) *( SEMI param ), RFC 3261 §20.10, §25.1. `None`: a new line begins.
pub(super) const fn in_address(address: &Address, part: u8, class: u8) -> Option<u16> {
    match part {
        // A CR alone is no line end.
        BEFORE_CR | QUOTED_CR | NAMED_CR | WORDS_CR | AFTER_CR | PARAM_CR | TAG_CR | TAG_IS_CR
        | REST_CR | VALUE_QUOTED_CR => {
            let next = if class == LF { address.state(part + 1) } else { BAD };
            return Some(next as u16);
        }
        // A quoted string that is still open, and a name without an address, end badly.
        QUOTED_LINE | NAMED_LINE | VALUE_QUOTED_LINE if class != WS => return Some(BAD as u16),
        BEFORE_LINE | WORDS_LINE | AFTER_LINE | PARAM_LINE | TAG_LINE | TAG_IS_LINE | REST_LINE
            if class != WS =>
        {
            return None;
        }
        _ => {}
    }
    let step = match class {
        // An LF alone is a line end (Kamailio, pjsip, sofia-sip): what follows it follows CR LF.
        LF => match in_line(address, part, CR) {
            step if step as u8 == BAD => step,
            step => step + 1,
        },
        _ => in_line(address, part, class),
    };
    match address.fault {
        Some(fault) if step as u8 == BAD && keeps_line(part, class) => {
            let state = match class {
                CR => VALUE_CR,
                LF => VALUE_LINE,
                _ => VALUE,
            };
            Some(noted(state, fault))
        }
        _ => Some(step),
    }
}

/// Returns whether it is sure where the line of a value ends that breaks the grammar at this byte.
const fn keeps_line(part: u8, class: u8) -> bool {
    let ends = class == CR || class == LF;
    class != CONTROL && !(ends && (part == ESCAPED || part == VALUE_ESCAPED))
}

/// Returns the step in a line of the value, whose LF is read as its CR.
const fn in_line(address: &Address, part: u8, class: u8) -> u16 {
    let next = match (part, class) {
        // Nothing below allows these anywhere.
        (_, CONTROL) => return BAD as u16,

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

        (BEFORE, CR) => BEFORE_CR,
        (BEFORE, QUOTE) => return noted_if(address.state(QUOTED), address.value),
        (BEFORE, LT) => return noted_if(address.state(ANGLE), address.value),
        (BEFORE, COMMA | SEMI | GT | COLON | BACKSLASH | AT | EQUAL) => return BAD as u16,
        (BEFORE, _) => {
            return noted_if(address.state(scheme(BARE_SIP, class, WORD)), address.value);
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
        (BARE | BARE_HOST, LT | GT | QUOTE | BACKSLASH) | (BARE_HOST, AT) => {
            return BAD as u16;
        }
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

        (PARAM..=REST | PARAM_NAME..=PARAM_IS, LT | GT) => return BAD as u16,
        (PARAM..=REST | PARAM_NAME..=PARAM_IS, COMMA) => return comma(address),
        (PARAM..=REST | PARAM_NAME..=PARAM_IS, SEMI) => PARAM,
        (PARAM, CR) => PARAM_CR,
        (PARAM_T | PARAM_TA | REST | PARAM_NAME..=PARAM_IS, CR) => REST_CR,
        (PARAM_TAG | TAG, CR) => TAG_CR,
        (TAG_IS, CR) => TAG_IS_CR,
        (PARAM_TAG | TAG, EQUAL) => TAG_IS,
        (TAG_IS, QUOTE) => return noted_if(address.state(VALUE_QUOTED), address.tag),
        (TAG_IS, _) => return noted_if(address.state(REST), address.tag),
        (PARAM_IS, WS) => PARAM_IS,
        (PARAM_IS, QUOTE) => VALUE_QUOTED,
        // A server may take such a quote for an open one, and find another tag.
        (PARAM..=REST | PARAM_NAME..=PARAM_NAME_WS, QUOTE) => return BAD as u16,
        (PARAM_T | PARAM_TA | PARAM_NAME | PARAM_NAME_WS, WS) => PARAM_NAME_WS,
        (PARAM_T | PARAM_TA | PARAM_NAME | PARAM_NAME_WS, EQUAL) => PARAM_IS,
        (PARAM, _) if class == letter(b't') => PARAM_T,
        (PARAM_T, _) if class == letter(b'a') => PARAM_TA,
        (PARAM_TA, _) if class == letter(b'g') => PARAM_TAG,
        // `tag x=y` is no tag, and nothing that the grammar knows.
        (TAG, _) => return BAD as u16,
        (PARAM | PARAM_T | PARAM_TA | PARAM_TAG | PARAM_NAME, _) => PARAM_NAME,
        (PARAM_NAME_WS | PARAM_IS | REST, _) => REST,

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

/// Returns the step at a comma between values: only a list has them.
const fn comma(address: &Address) -> u16 {
    if address.list { address.state(BEFORE) as u16 } else { BAD as u16 }
}

/// Returns the part after the first letter of a scheme; `base` is the part after `s`, `other` that of
/// an unknown scheme.
const fn scheme(base: u8, class: u8, other: u8) -> u8 {
    if class == letter(b's') {
        base
    } else if class == letter(b't') {
        base + 4
    } else {
        other
    }
}

/// Returns the part after the next letter of a scheme, after `s si sip sips t te tel`.
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

/// Returns the step at the colon after a scheme: notes the URI when it is `sip`, `sips` or `tel`.
const fn known_scheme(address: &Address, state: u8, read: u8, sip: Form, tel: Form) -> u16 {
    let form = match read {
        2 | 3 => sip,
        6 => tel,
        _ => return state as u16,
    };
    match address.uri {
        Some(field) => noted(state, field) | (form as u16) << 14,
        None => state as u16,
    }
}

const _: () = assert!(BARE_TEL == BARE_SIP + 4 && ANGLE_TEL == ANGLE_SIP + 4);
