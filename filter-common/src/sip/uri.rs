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
use crate::sip::fields::Form;
use crate::sip::swar::{TOP, lowest, splat};

/// How many bytes of a URI are followed, up to the `@` or the `>`.
pub const URI_MAX: usize = 128;

const CLASS_COUNT: usize = 32;

static CLASSES: [u8; 256] = classes();
/// State and class → next state (bits 0–6) and operations (8–13). The others are of the
/// `phone-context`: the bits of the byte that count (16–23), and the factor of all bytes before it (24–31).
static STEPS: [u32; 128 * CLASS_COUNT] = steps();

// ---- operations of a step ----

/// The byte is a digit of the number.
const DIGIT: u32 = 1 << 8;
/// A `+` is before the number.
const PLUS: u32 = 1 << 9;
/// A `phone-context` begins.
const CONTEXT: u32 = 1 << 10;
/// The byte is a digit of the `phone-context`.
const CONTEXT_DIGIT: u32 = 1 << 11;
/// The `phone-context` cannot be read.
const CONTEXT_UNKNOWN: u32 = 1 << 12;
/// The byte is a character of a `phone-context` with a name, such as a domain.
const CONTEXT_NAME: u32 = 1 << 13;

/// Reads the digits of a URI.
///
/// # Errors
/// [`Reason::NoUser`], [`Reason::NotANumber`], [`Reason::UriTooLong`].
#[inline(always)]
pub fn read<B: Bytes>(bytes: &B, start: usize, form: u8) -> Result<Dialled, Reason> {
    let mut state = (form & 3) << 5 | START;
    let (mut high, mut low, mut count) = (0u64, 0u64, 0u32);
    let (mut context, mut context_count, mut contexts) = (0u64, 0u32, 0u32);
    let mut flags = 0u32;
    let mut i = 0;
    while i < URI_MAX {
        let Some(byte) = bytes.byte(start + i) else {
            break;
        };
        let class = CLASSES[byte as usize] as usize & (CLASS_COUNT - 1);
        let step = STEPS[((state as usize & 127) * CLASS_COUNT) | class];
        state = step as u8;
        if state >= FINAL {
            flags |= step;
            break;
        }
        // No branches: the verifier would walk every way through them for every byte.
        let is_digit = (step >> 8) as u64 & 1;
        let mask = 0u64.wrapping_sub(is_digit) & 0xF;
        high = (high << (4 * is_digit)) | ((low >> 60) & mask);
        low = (low << (4 * is_digit)) | (byte as u64 & mask);
        count += is_digit as u32;
        // A number and a name are added up alike, the latter as `plan::context_name` does.
        let bits = byte as u64 & (step >> 16) as u64 & 0xFF;
        context = context.wrapping_mul((step >> 24) as u64).wrapping_add(bits);
        context_count += step >> 11 & 1;
        contexts += step >> 10 & 1;
        flags |= step;
        i += 1;
    }
    // Their ranges differ for every way out of the loop.
    let count = bytes.hide_range(count as usize) as u32;
    let context_count = bytes.hide_range(context_count as usize) as u32;
    let contexts = bytes.hide_range(contexts as usize) as u32;
    match state {
        FOUND => {}
        NO_USER => return Err(Reason::NoUser),
        NOT_A_NUMBER => return Err(Reason::NotANumber),
        _ => return Err(Reason::UriTooLong),
    }
    if count == 0 {
        return Err(if flags & PLUS == 0 { Reason::NoUser } else { Reason::NotANumber });
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
const LETTERS: &[u8] = b"bcdehnoptx";
const LETTER: u8 = 16;

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
        _ => OTHER,
    }
}

// ---- states: the form in bits 5–6, the part in bits 0–4 ----

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

/// States from here on end the reading. They are parts of the last form that
/// no URI without angle brackets reaches.
const FINAL: u8 = 3 << 5 | 28;
const FOUND: u8 = FINAL;
const NO_USER: u8 = FINAL + 1;
const NOT_A_NUMBER: u8 = FINAL + 2;

const fn steps() -> [u32; 128 * CLASS_COUNT] {
    let mut table = [NOT_A_NUMBER as u32; 128 * CLASS_COUNT];
    let mut state = 0;
    while state < FINAL as usize {
        let mut class = 0;
        while class < CLASS_COUNT {
            let form = (state >> 5) as u8;
            let step = next(form, state as u8 & 31, class as u8);
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
        SEMI if !bare => 0,
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
        return end as u32 | unknown;
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
        (START | NUMBER, COLON) if !tel => (PASSWORD, 0),
        (START..=NAME, _) => (NAME, 0),
        // A password has neither (RFC 3261 §25.1).
        (PASSWORD, SEMI | COLON) => (NAME, 0),
        (PASSWORD, _) => (PASSWORD, 0),

        (PARAM_END | CONTEXT_START, SEMI) => (PARAM, CONTEXT_UNKNOWN),
        (PARAM_END, COLON) => (OTHER_PARAM, CONTEXT_UNKNOWN),
        (PARAM..=OTHER_VALUE | CONTEXT_DIGITS | CONTEXT_OTHER, SEMI) => (PARAM, 0),
        (PARAM_END, EQUAL) => (CONTEXT_START, CONTEXT),
        (PARAM..=OTHER_PARAM, EQUAL) => (OTHER_VALUE, 0),
        // An escaped name may be `phone-context` in disguise.
        (PARAM..=OTHER_PARAM, PERCENT) => (OTHER_PARAM, CONTEXT_UNKNOWN),
        (PARAM..PARAM_END, _) => {
            let expected = letter(PHONE_CONTEXT[(part - PARAM) as usize]);
            (if class == expected { part + 1 } else { OTHER_PARAM }, 0)
        }
        (PARAM_END | OTHER_PARAM, _) => (OTHER_PARAM, 0),
        (OTHER_VALUE, _) => (OTHER_VALUE, 0),
        (CONTEXT_START, PLUS_SIGN) => (CONTEXT_DIGITS, 0),
        (CONTEXT_DIGITS, TWO | THREE | EIGHT | NINE | DIGITS) => (CONTEXT_DIGITS, CONTEXT_DIGIT),
        (CONTEXT_DIGITS, DASH | SEPARATOR) => (CONTEXT_DIGITS, 0),
        (CONTEXT_START | CONTEXT_OTHER, PERCENT) | (CONTEXT_DIGITS, _) => {
            (CONTEXT_OTHER, CONTEXT_UNKNOWN)
        }
        (CONTEXT_START | CONTEXT_OTHER, _) => (CONTEXT_OTHER, CONTEXT_NAME),
        _ => return NOT_A_NUMBER as u32,
    };
    (form << 5 | part) as u32 | operation
}

/// Returns whether it is the second digit of `%2D`, `%2E`, `%28` and `%29`: `-`, `.`, `(` and `)`.
const fn is_separator_digit(class: u8) -> bool {
    class == letter(b'd') || class == letter(b'e') || class == EIGHT || class == NINE
}

const fn letter(byte: u8) -> u8 {
    class(byte)
}

const _: () = {
    assert!(PARAM_END < OTHER_PARAM);
    assert!(LETTER as usize + LETTERS.len() <= CLASS_COUNT);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Slice;
    use crate::plan::context_name;

    /// Returns `+`, the digits, and the context of a URI after its scheme.
    fn digits(uri: &str, form: Form) -> Result<String, Reason> {
        let dialled = read(&Slice::from(uri.as_bytes()), 0, form as u8)?;
        let mut text = String::from(if dialled.plus { "+" } else { "" });
        let nibbles = u128::from(dialled.high) << 64 | u128::from(dialled.low);
        for i in (0..dialled.count).rev() {
            text.push_str(&(nibbles >> (4 * i) & 0xF).to_string());
        }
        match dialled.context {
            Context::None => {}
            Context::Global(digits) => text += &format!(" in {digits}"),
            Context::Named(name) => {
                let names = ["ims.example", "national", "n", "5551", "[::1]"];
                let known = names.iter().find(|each| context_name(each.as_bytes()) == name);
                text += &format!(" in {}", known.unwrap_or(&"another name"));
            }
            Context::Unknown => text += " in ?",
        }
        Ok(text)
    }

    #[test]
    fn numbers_are_taken_from_user_parts() {
        for (uri, form, expected) in [
            ("+62812@x>", Form::Sip, "+62812"),
            ("%2B62%38%312@x>", Form::Sip, "+62812"),
            ("%2b62812@x>", Form::Sip, "+62812"),
            ("0812:secret@x>", Form::Sip, "0812"),
            ("0812;a=b;c@x>", Form::Sip, "0812"),
            ("+62-(812).34%2D5@x>", Form::Sip, "+62812345"),
            ("0812@x", Form::SipBare, "0812"),
            ("+62812>", Form::Tel, "+62812"),
            ("+62812;cpc=priority>", Form::Tel, "+62812"),
            ("812;phone-context=+62>", Form::Tel, "812 in 62"),
            ("812;PHONE-Context=+6-2;a=b@x>", Form::Sip, "812 in 62"),
            ("812;phone-context=ims.example>", Form::Tel, "812 in ims.example"),
            ("812;phone-context=IMS.example;a=b@x>", Form::Sip, "812 in ims.example"),
            ("812;phone-context=national@x>", Form::Sip, "812 in national"),
            ("812;phone-context=n>", Form::Tel, "812 in n"),
            ("812;phone-context=5551>", Form::Tel, "812 in 5551"),
            ("812;phone-context=ims.example.>", Form::Tel, "812 in another name"),
            ("812;phone-context=ims.exampl%65>", Form::Tel, "812 in ?"),
            ("812;phone-context=%69ms.example>", Form::Tel, "812 in ?"),
            ("812;phone-context=+62x>", Form::Tel, "812 in ?"),
            ("812;phone-context=n;phone-context=n>", Form::Tel, "812 in ?"),
            ("812;phone-context=n;phone-context=+62>", Form::Tel, "812 in ?"),
            ("812;phone-context=>", Form::Tel, "812 in ?"),
            ("812;phone-context>", Form::Tel, "812 in ?"),
            ("812;phone-context@x>", Form::Sip, "812 in ?"),
            ("812;phone-context;a=b@x>", Form::Sip, "812 in ?"),
            ("812;phone-context:pw@x>", Form::Sip, "812 in ?"),
            ("812;phone-context=+62;phone-context=+1>", Form::Tel, "812 in ?"),
            ("812;%70hone-context=+62>", Form::Tel, "812 in ?"),
            ("812;phone-contexts=+62>", Form::Tel, "812"),
            ("812;a=phone-context=+62>", Form::Tel, "812"),
            ("0812 ", Form::TelBare, "0812"),
            ("0812;tag=1", Form::TelBare, "0812"),
        ] {
            assert_eq!(digits(uri, form).as_deref(), Ok(expected), "{uri}");
        }
    }

    #[test]
    fn what_is_no_number() {
        use Reason::{NoUser, NotANumber, UriTooLong};
        let long = format!("0812;{}@x>", "a".repeat(URI_MAX));
        for (uri, form, expected) in [
            ("10.0.1.199>", Form::Sip, NoUser),
            ("10.0.1.199:5060>", Form::Sip, NoUser),
            ("10.0.1.199;transport=udp>", Form::Sip, NoUser),
            ("10.0.1.199\r", Form::SipBare, NoUser),
            ("@x>", Form::Sip, NoUser),
            (";a=b@x>", Form::Sip, NoUser),
            ("--@x>", Form::Sip, NoUser),
            ("+@x>", Form::Sip, NotANumber),
            ("++62812@x>", Form::Sip, NotANumber),
            ("62+812@x>", Form::Sip, NotANumber),
            ("62%2B812@x>", Form::Sip, NotANumber),
            ("0812%40evil@x>", Form::Sip, NotANumber),
            ("0812%3B@x>", Form::Sip, NotANumber),
            ("0812%@x>", Form::Sip, NotANumber),
            ("0812%3@x>", Form::Sip, NotANumber),
            ("08 12@x>", Form::Sip, NotANumber),
            ("(021)%20555@x>", Form::Sip, NotANumber),
            ("alice@x>", Form::Sip, NotANumber),
            ("0812:;phone-context=+62@x>", Form::Sip, NotANumber),
            ("0812:a:b@x>", Form::Sip, NotANumber),
            ("0812a@x>", Form::Sip, NotANumber),
            ("*110@x>", Form::Sip, NotANumber),
            ("110#@x>", Form::Sip, NotANumber),
            ("0812?a@x>", Form::Sip, NotANumber),
            ("0812@x>", Form::Tel, NotANumber),
            ("0812:1>", Form::Tel, NotANumber),
            (">", Form::Tel, NoUser),
            ("0812", Form::Sip, UriTooLong),
            (&long, Form::Sip, UriTooLong),
        ] {
            assert_eq!(digits(uri, form), Err(expected), "{uri}");
        }
    }

    #[test]
    fn a_plain_user_part_is_read_as_the_automaton_reads_it() {
        let mut plain = 0;
        for text in [
            "+6281234567890@x.example",
            "081234567890@x.example.net",
            "+123456789012345@x",
            "1@x.example.net.example",
            "12345678@x.example.net",
            "1234567@x.example.net.",
            "123456789012345@x",
            "1234567890123456@x",
            "+@x.example.net.example",
            "@x.example.net.example.",
            "++1@x.example.net.example",
            "12345678:@x.example.net",
            "1234\u{80}5@x.example.net",
            "12/4@x.example.net.exam",
            "12:4@x.example.net.exam",
        ] {
            for cut in 0..=text.len() {
                for byte in [None, Some(b'0'), Some(b'@'), Some(b'/'), Some(0xB5), Some(0)] {
                    let mut text = text.as_bytes().to_vec();
                    if let Some(byte) = byte {
                        text.insert(cut, byte);
                    } else {
                        text.truncate(cut);
                    }
                    let bytes = Slice::from(&text[..]);
                    if let Some(dialled) = read_plain(&bytes, 0) {
                        assert_eq!(Ok(dialled), read(&bytes, 0, Form::Sip as u8), "{text:?}");
                        plain += 1;
                    }
                }
            }
        }
        assert!(plain > 200, "{plain}");
    }
}
