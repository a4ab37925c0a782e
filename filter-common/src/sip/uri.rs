//! The URI automaton. It walks from the byte after the scheme's colon to the end of the
//! user part. On the way it takes the digits of the number and of a `phone-context`.
//!
//! User parts are split first and %-escapes undone afterwards (RFC 3261 §19.1.1,
//! RFC 3986 §2.4): an escaped delimiter is no delimiter. Visual separators are
//! dropped (RFC 3966 §5.1.1); any other character means that this is no number.

use crate::bytes::Bytes;
use crate::number::{DIGITS_MAX, Digits};
use crate::plan::{CONTEXT_BITS, CONTEXT_FACTOR, Context, Dialled};
use crate::reason::Reason;
use crate::sip::automaton::{classes, letter_class};
use crate::sip::fields::Form;
use crate::sip::swar::{TOP, lowest, not_passed, splat};

/// Turns that the reader makes in a URI, up to the `@` or the `>`. A turn reads a byte, or up to eight
/// bytes of a parameter that does not matter.
pub const TURNS_MAX: usize = 96;

const CLASS_COUNT: usize = 32;

static CLASSES: [u8; 256] = classes!(class);
/// State and class → next state (bits 0–7) and operations (8–15). The others are of the
/// `phone-context`: the bits of the byte that count (16–23), and the factor of all bytes before it (24–31).
static STEPS: [u32; 256 * CLASS_COUNT] = steps();

// ---- operations of a step ----

/// The byte is a digit of the number.
const DIGIT: u32 = 1 << 8;
/// A `phone-context` begins.
const CONTEXT: u32 = 1 << 9;
/// The byte is a digit of the `phone-context`.
const CONTEXT_DIGIT: u32 = 1 << 10;
/// A `+` is before the number.
const PLUS: u32 = 1 << 11;
/// The `phone-context` cannot be read.
const CONTEXT_UNKNOWN: u32 = 1 << 12;
/// An extension or a subaddress begins, or a parameter with an escaped name, which may be one.
const EXTENSION: u32 = 1 << 13;
/// The bytes up to the end of the name, the parameter or the user part do not matter.
const PASSES: u32 = 1 << 14;
/// The user part begins with a letter, or is empty.
const LETTER_FIRST: u32 = 1 << 15;
/// The byte is a character of a `phone-context` with a name, such as a domain. It is one of the
/// bits that count in such a character and not in a digit.
const CONTEXT_NAME: u32 = 1 << 20;

/// Why a URI has no number that can be used: the reason from bit 4 on. The four bits below it are zero, as in no
/// [`Number`](crate::number::Number).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread(pub u64);

impl Unread {
    /// Set where it is for sure no number: the user part begins with a letter, or is empty.
    pub const NAME: u64 = 1 << 12;

    /// Returns what a text is that may be a number.
    #[inline(always)]
    #[must_use]
    pub const fn number(reason: Reason) -> Unread {
        Unread((reason as u64) << 4)
    }

    /// Returns what a text is that is for sure no number.
    #[inline(always)]
    #[must_use]
    pub const fn name(reason: Reason) -> Unread {
        Unread((reason as u64) << 4 | Unread::NAME)
    }

    /// Returns what a text of digits is that a plan does not read. An IMSI is for sure no number.
    #[inline(always)]
    #[must_use]
    pub const fn by_plan(reason: Reason) -> Unread {
        if reason as u8 == Reason::NotANumber as u8 {
            Unread::name(reason)
        } else {
            Unread::number(reason)
        }
    }

    /// Returns the reason.
    #[inline(always)]
    #[must_use]
    pub fn reason(self) -> Reason {
        Reason::from_number((self.0 >> 4) as u8).unwrap_or(Reason::NotANumber)
    }
}

/// Reads the digits of a URI. With `EXTENSIONS` a number with an extension is another number.
///
/// # Errors
/// [`Reason::NoUser`], [`Reason::NotANumber`], [`Reason::UriTooLong`], [`Reason::Extension`].
#[inline(always)]
pub fn read<B: Bytes, const EXTENSIONS: bool>(
    bytes: &B,
    start: usize,
    form: u8,
) -> Result<Dialled, Unread> {
    let mut walk = Walk { step: ((form & 3) << FORM_SHIFT | START) as u64, ..Walk::default() };
    let (mut at, mut turns) = (start, 0);
    // A word a turn, of which one byte takes a step: one bounds check for the verifier.
    while turns < TURNS_MAX && walk.goes_on() {
        let Some(word) = bytes.word(at) else {
            break;
        };
        let passed = walk.passed(word);
        walk.step(word >> (8 * passed));
        at = bytes.hide_range(at + passed as usize + 1);
        turns += 1;
    }
    // The last bytes that can be read.
    walk.hide_ranges(bytes);
    let mut rest = 0;
    while rest < 7 && walk.goes_on() {
        let Some(byte) = bytes.byte(at) else {
            break;
        };
        walk.step(byte as u64);
        at += 1;
        rest += 1;
    }
    walk.hide_ranges(bytes);
    let Walk { step, high, low, context, flags, .. } = walk;
    let (count, contexts, context_count) = (walk.count(0), walk.count(1), walk.count(2));
    let state = step as u8;
    let named = (flags / LETTER_FIRST) as u64 * Unread::NAME;
    match state {
        FOUND => {}
        // The bit of a name is that of the operation, without a branch.
        NO_USER => return Err(Unread(Unread::number(Reason::NoUser).0 | named)),
        NOT_A_NUMBER => return Err(Unread(Unread::number(Reason::NotANumber).0 | named)),
        _ => return Err(Unread::number(Reason::UriTooLong)),
    }
    if count == 0 {
        return Err(if flags & PLUS == 0 {
            Unread(Unread::number(Reason::NoUser).0 | named)
        } else {
            Unread::number(Reason::NotANumber)
        });
    }
    if EXTENSIONS && flags & EXTENSION != 0 {
        return Err(Unread::number(Reason::Extension));
    }
    let context = if flags & CONTEXT_UNKNOWN != 0 || contexts > 1 || context_count > DIGITS_MAX {
        Context::Unknown
    } else if contexts == 0 {
        Context::None
    } else if flags & CONTEXT_NAME != 0 {
        Context::Named(context)
    } else if context_count == 0 {
        Context::Unknown
    } else {
        let shift = (64 - 4 * context_count) & 63;
        Context::Global(Digits(context << shift | context_count as u64))
    };
    Ok(Dialled { high, low, count, plus: flags & PLUS != 0, context })
}

/// The part of a URI that was read so far.
#[derive(Clone, Copy, Default)]
struct Walk {
    /// The last step. In 64 bits: the verifier of Linux 6.1 forgets what is known of a 32-bit OR.
    step: u64,
    /// The operations of all steps.
    flags: u32,
    /// How often [`DIGIT`], [`CONTEXT`] and [`CONTEXT_DIGIT`] were met, a byte each, the first one lowest.
    counts: u32,
    high: u64,
    low: u64,
    context: u64,
}

impl Walk {
    #[inline(always)]
    fn count(&self, operation: u32) -> u32 {
        self.counts >> (8 * operation) & 0xFF
    }

    #[inline(always)]
    fn goes_on(&self) -> bool {
        (self.step as u8) < FINAL
    }

    /// Takes a step by the lowest byte. No branches: the verifier would walk every way through them for
    /// every byte.
    #[inline(always)]
    fn step(&mut self, byte: u64) {
        let class = CLASSES[byte as u8 as usize] as u64 & (CLASS_COUNT as u64 - 1);
        let step = STEPS[(((self.step & 0xFF) * CLASS_COUNT as u64) | class) as usize];
        let is_digit = (step >> 8) as u64 & 1;
        let mask = 0u64.wrapping_sub(is_digit) & 0xF;
        self.high = (self.high << (4 * is_digit)) | ((self.low >> 60) & mask);
        self.low = (self.low << (4 * is_digit)) | (byte & mask);
        // A number and a name are added up alike, the latter as `plan::context_name` does.
        let bits = byte & (step >> 16) as u64 & 0xFF;
        self.context = self.context.wrapping_mul((step >> 24) as u64).wrapping_add(bits);
        // Three bits into a byte each.
        self.counts += ((step >> 8 & 7) * 0x4081) & 0x0001_0101;
        self.flags |= step;
        self.step = step as u64;
    }

    /// Returns how many bytes of a word, 0 to 7, change nothing after the last step.
    #[inline(always)]
    fn passed(&self, word: u64) -> u64 {
        lowest(not_passed(word) & TOP | 1 << 63) as u64 * ((self.step / PASSES as u64) & 1)
    }

    /// Hides ranges, which differ for every way out of a loop.
    #[inline(always)]
    fn hide_ranges<B: Bytes>(&mut self, bytes: &B) {
        self.counts = bytes.hide_range(self.counts as usize) as u32;
    }
}

/// Reads the digits of a plain user part in angle brackets, eight at once: an optional `+`, 1 to 15 digits,
/// `@`. `None`: it is written in another way; see [`read`].
#[inline(always)]
pub fn read_plain<B: Bytes>(bytes: &B, start: usize) -> Option<Dialled> {
    let plus = bytes.byte(start)? == b'+';
    let at = bytes.hide_range(start + plus as usize);
    let (first, second) = (bytes.word(at)?, bytes.word(at + 8)?);
    let (end, count) = match (not_digits(first), not_digits(second)) {
        (0, 0) => return None,
        (0, found) => (second >> (8 * lowest(found)), 8 + lowest(found)),
        (found, _) => (first >> (8 * lowest(found)), lowest(found)),
    };
    if end as u8 != b'@' || count == 0 {
        return None;
    }
    let low = (nibbles(first) << 32 | nibbles(second)) >> ((64 - 4 * count) & 63);
    Some(Dialled { high: 0, low, count: count as u32, plus, context: Context::None })
}

/// Returns the [`TOP`] bits of the bytes that are no digits; the lowest is exact.
#[inline(always)]
const fn not_digits(x: u64) -> u64 {
    let digits = x ^ splat(b'0');
    (digits.wrapping_add(splat(0x80 - 10)) | digits) & TOP
}

/// Packs eight digits as nibbles, the first one highest.
#[inline(always)]
const fn nibbles(digits: u64) -> u64 {
    let x = digits.swap_bytes() & splat(0xF);
    let x = (x | x >> 4) & 0x00FF_00FF_00FF_00FF;
    let x = (x | x >> 8) & 0x0000_FFFF_0000_FFFF;
    (x | x >> 16) & 0xFFFF_FFFF
}

// ---- classes ----

const OTHER: u8 = 0;
const TWO: u8 = 1;
const THREE: u8 = 2;
const EIGHT: u8 = 3;
const NINE: u8 = 4;
const DIGITS: u8 = 5;
const PERCENT: u8 = 6;
const PLUS_SIGN: u8 = 7;
const DASH: u8 = 8;
/// `.`, `(` and `)`
const SEPARATOR: u8 = 9;
const SEMI: u8 = 10;
const COLON: u8 = 11;
const AT: u8 = 12;
const GT: u8 = 13;
const EQUAL: u8 = 14;
/// The end of a URI without angle brackets.
const BREAK: u8 = 15;
const LETTERS: &[u8] = b"bcdehinopstux";
const LETTER: u8 = 16;
/// Any other letter.
const OTHER_LETTER: u8 = LETTER + LETTERS.len() as u8;

const fn class(byte: u8) -> u8 {
    if let Some(class) = letter_class(byte, LETTERS, LETTER) {
        return class;
    }
    match byte {
        b'2' => TWO,
        b'3' => THREE,
        b'8' => EIGHT,
        b'9' => NINE,
        b'0'..=b'9' => DIGITS,
        b'%' => PERCENT,
        b'+' => PLUS_SIGN,
        b'-' => DASH,
        b'.' | b'(' | b')' => SEPARATOR,
        b';' => SEMI,
        b':' => COLON,
        b'@' => AT,
        b'>' => GT,
        b'=' => EQUAL,
        b' ' | b'\t' | b'\r' | b'\n' | b',' => BREAK,
        b'a'..=b'z' | b'A'..=b'Z' => OTHER_LETTER,
        _ => OTHER,
    }
}

// ---- states: the form in bits 6–7, the part in bits 0–5 ----

const FORM_SHIFT: u8 = 6;

/// Nothing yet but separators: a `+` may come.
const START: u8 = 0;
/// In the number.
const NUMBER: u8 = 1;
/// After `%`, `%2` and `%3` in the user part; the first two know whether a `+` may come.
const START_ESCAPE: u8 = 2;
const START_ESCAPE_2: u8 = 3;
const ESCAPE: u8 = 4;
const ESCAPE_2: u8 = 5;
const ESCAPE_3: u8 = 6;
/// In a user part that is no number.
const NAME: u8 = 7;
/// In the password (RFC 3261 §19.1.1).
const PASSWORD: u8 = 8;
/// At the start of a parameter of the number (RFC 3966 §3), then one state for each
/// letter of `phone-context`.
const PARAM: u8 = 9;
const PHONE_CONTEXT: &[u8] = b"phone-context";
const PARAM_END: u8 = PARAM + PHONE_CONTEXT.len() as u8;
/// In another parameter's name; in its value.
const OTHER_PARAM: u8 = 23;
const OTHER_VALUE: u8 = 24;
/// After `phone-context=`; in a global one; in a name, or one that cannot be read.
const CONTEXT_START: u8 = 25;
const CONTEXT_DIGITS: u8 = 26;
const CONTEXT_OTHER: u8 = 27;
/// After each letter of `ext` and `isub` (RFC 3966 §3).
const EXT: &[u8] = b"ext";
const EXT_E: u8 = 28;
const EXT_END: u8 = EXT_E + EXT.len() as u8 - 1;
const ISUB: &[u8] = b"isub";
const ISUB_I: u8 = 31;
const ISUB_END: u8 = ISUB_I + ISUB.len() as u8 - 1;

/// States from here on end the reading. They are parts of the last form that
/// no URI without angle brackets reaches.
const FINAL: u8 = 3 << FORM_SHIFT | 60;
const FOUND: u8 = FINAL;
const NO_USER: u8 = FINAL + 1;
const NOT_A_NUMBER: u8 = FINAL + 2;

const fn steps() -> [u32; 256 * CLASS_COUNT] {
    let mut table = [NOT_A_NUMBER as u32; 256 * CLASS_COUNT];
    let mut state = 0;
    while state < FINAL as usize {
        let mut class = 0;
        while class < CLASS_COUNT {
            let form = (state >> FORM_SHIFT) as u8;
            let part = state as u8 & ((1 << FORM_SHIFT) - 1);
            let step = next(form, part, class as u8);
            table[state * CLASS_COUNT + class] = step | context_step(step);
            class += 1;
        }
        state += 1;
    }
    table
}

/// Returns what a byte with this step does to the `phone-context`.
const fn context_step(step: u32) -> u32 {
    let (factor, bits) = if step & CONTEXT_DIGIT != 0 {
        (16, 0xF)
    } else if step & CONTEXT_NAME != 0 {
        (CONTEXT_FACTOR, CONTEXT_BITS)
    } else {
        (1, 0)
    };
    (factor as u32) << 24 | (bits as u32) << 16
}

const fn next(form: u8, part: u8, class: u8) -> u32 {
    let tel = form == Form::Tel as u8 || form == Form::TelBare as u8;
    let bare = form == Form::SipBare as u8 || form == Form::TelBare as u8;

    // The end of the URI or of the user part, in any part.
    let end = match class {
        AT if tel => NOT_A_NUMBER,
        AT => match part {
            NAME | START_ESCAPE | START_ESCAPE_2 | ESCAPE | ESCAPE_2 | ESCAPE_3 => NOT_A_NUMBER,
            _ => FOUND,
        },
        GT | BREAK if bare != (class == BREAK) => NOT_A_NUMBER,
        // After a bare `tel:` a parameter is the header's by RFC 3261 §20, but the sender may mean the number's.
        SEMI if !bare || tel => 0,
        GT | BREAK | SEMI if !tel => NO_USER,
        GT | BREAK | SEMI => match part {
            NAME | START_ESCAPE | START_ESCAPE_2 | ESCAPE | ESCAPE_2 | ESCAPE_3 => NOT_A_NUMBER,
            _ => FOUND,
        },
        _ => 0,
    };
    if end != 0 {
        // A plan cannot use an empty context.
        let unknown = if part == CONTEXT_START || part == PARAM_END { CONTEXT_UNKNOWN } else { 0 };
        // An empty user part is no number for sure, as a name is.
        let empty = if part == START && class == AT { LETTER_FIRST } else { 0 };
        return end as u32 | unknown | empty;
    }
    let (part, operation) = match (part, class) {
        (START, DASH | SEPARATOR) => (START, 0),
        (START, PLUS_SIGN) => (NUMBER, PLUS),
        (START, PERCENT) => (START_ESCAPE, 0),
        (START_ESCAPE, TWO) => (START_ESCAPE_2, 0),
        (START_ESCAPE, THREE) => (ESCAPE_3, 0),
        (START_ESCAPE_2, _) if class == letter(b'b') => (NUMBER, PLUS),
        (START_ESCAPE_2, _) if is_separator_digit(class) => (START, 0),
        (START | NUMBER | ESCAPE_3, TWO | THREE | EIGHT | NINE | DIGITS) => (NUMBER, DIGIT),
        (NUMBER, DASH | SEPARATOR) => (NUMBER, 0),
        (NUMBER, PERCENT) => (ESCAPE, 0),
        (ESCAPE, TWO) => (ESCAPE_2, 0),
        (ESCAPE, THREE) => (ESCAPE_3, 0),
        (ESCAPE_2, _) if is_separator_digit(class) => (NUMBER, 0),
        (START | NUMBER, SEMI) => (PARAM, 0),
        (START | NUMBER, COLON) if !tel => (PASSWORD, PASSES),
        (START, LETTER..=OTHER_LETTER) => (NAME, PASSES | LETTER_FIRST),
        (START..=NAME, _) => (NAME, PASSES),
        // A password has neither (RFC 3261 §25.1).
        (PASSWORD, SEMI | COLON) => (NAME, PASSES),
        (PASSWORD, _) => (PASSWORD, PASSES),

        // The first colon of a userinfo begins the password (RFC 3261 §25.1).
        (PARAM_END | CONTEXT_START..=CONTEXT_OTHER, COLON) if !tel => {
            (PASSWORD, CONTEXT_UNKNOWN | PASSES)
        }
        (PARAM..=OTHER_VALUE | EXT_E..=ISUB_END, COLON) if !tel => (PASSWORD, PASSES),
        (PARAM_END | CONTEXT_START, SEMI) => (PARAM, CONTEXT_UNKNOWN),
        (PARAM_END, COLON) => (OTHER_PARAM, CONTEXT_UNKNOWN),
        (PARAM..=OTHER_VALUE | CONTEXT_DIGITS..=ISUB_END, SEMI) => (PARAM, 0),
        (PARAM_END, EQUAL) if bare => (OTHER_VALUE, CONTEXT_UNKNOWN | PASSES),
        (PARAM_END, EQUAL) => (CONTEXT_START, CONTEXT),
        (EXT_END | ISUB_END, EQUAL) => (OTHER_VALUE, EXTENSION | PASSES),
        (PARAM..=OTHER_PARAM | EXT_E..=ISUB_END, EQUAL) => (OTHER_VALUE, PASSES),
        // An escaped name may be `phone-context`, `ext` or `isub` in disguise.
        (PARAM..=OTHER_PARAM | EXT_E..=ISUB_END, PERCENT) => {
            (OTHER_PARAM, CONTEXT_UNKNOWN | EXTENSION | PASSES)
        }
        (PARAM, _) if class == letter(EXT[0]) => (EXT_E, 0),
        (PARAM, _) if class == letter(ISUB[0]) => (ISUB_I, 0),
        (PARAM..PARAM_END, _) => name(PHONE_CONTEXT, PARAM, part, class),
        (EXT_E..EXT_END, _) => name(EXT, EXT_E - 1, part, class),
        (ISUB_I..ISUB_END, _) => name(ISUB, ISUB_I - 1, part, class),
        (PARAM_END | OTHER_PARAM | EXT_END | ISUB_END, _) => (OTHER_PARAM, PASSES),
        (OTHER_VALUE, _) => (OTHER_VALUE, PASSES),
        (CONTEXT_START, PLUS_SIGN) => (CONTEXT_DIGITS, 0),
        (CONTEXT_DIGITS, TWO | THREE | EIGHT | NINE | DIGITS) => (CONTEXT_DIGITS, CONTEXT_DIGIT),
        (CONTEXT_DIGITS, DASH | SEPARATOR) => (CONTEXT_DIGITS, 0),
        (CONTEXT_START | CONTEXT_OTHER, PERCENT) | (CONTEXT_DIGITS, _) => {
            (CONTEXT_OTHER, CONTEXT_UNKNOWN)
        }
        (CONTEXT_START | CONTEXT_OTHER, _) => (CONTEXT_OTHER, CONTEXT_NAME),
        _ => return NOT_A_NUMBER as u32,
    };
    (form << FORM_SHIFT | part) as u32 | operation
}

/// Returns part and operation after the next letter of a parameter's name, whose first letter follows the
/// part `base`.
const fn name(name: &[u8], base: u8, part: u8, class: u8) -> (u8, u32) {
    if class == letter(name[(part - base) as usize]) {
        (part + 1, 0)
    } else {
        (OTHER_PARAM, PASSES)
    }
}

/// Returns whether it is the second digit of `%2D`, `%2E`, `%28` and `%29`: `-`, `.`, `(` and `)`.
const fn is_separator_digit(class: u8) -> bool {
    class == letter(b'd') || class == letter(b'e') || class == EIGHT || class == NINE
}

const fn letter(byte: u8) -> u8 {
    class(byte)
}

const _: () = {
    assert!(PARAM_END < OTHER_PARAM && EXT_END < ISUB_I && ISUB_END < 60);
    assert!((OTHER_LETTER as usize) < CLASS_COUNT);
    assert!(CONTEXT_BITS as u32 & !0xF & CONTEXT_NAME >> 16 != 0);
};

#[cfg(test)]
mod tests;
