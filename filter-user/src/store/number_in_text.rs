//! Finds a number in the text of a caller who could not be read. In doubt it is found: an export shows more then, and
//! an erasure erases more.

use filter_common::abi::UNREAD_MAX;
use percent_encoding::percent_decode_str;

/// Digits at the end of a number that find it in a text, which may be without country code and with separators
/// between the digits. A shorter number must be there whole, without further digits beside it.
const TAIL: usize = 8;
/// Digits at the end of a cut text that find a number which begins so.
const CUT: usize = 5;
/// Longest country code (ITU-T E.164), which a text may lack.
const COUNTRY_DIGITS_MAX: usize = 3;

/// The digit 0 of scripts with ten digits in a row (Unicode, category Nd).
const ZEROS: [u32; 32] = [
    0x30, 0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66,
    0xDE6, 0xE50, 0xED0, 0xF20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x1B50, 0x1BB0, 0x1C40,
    0x1C50, 0xA8D0, 0xA9D0, 0xAA50, 0xABF0, 0xFF10, 0x1FBF0,
];
/// The digits of mathematics: five times ten.
const MATHEMATICAL: std::ops::RangeInclusive<u32> = 0x1D7CE..=0x1D7FF;

/// Returns whether a text may have the digits of a number. `number` has no `+`.
pub(crate) fn may_have(text: &str, number: &str) -> bool {
    let is_cut = text.len() >= UNREAD_MAX - 8;
    let text = percent_decode_str(text).decode_utf8_lossy();
    let digits: String = text.chars().filter_map(digit).collect();
    let is_there = match number.len().checked_sub(TAIL) {
        Some(start) => digits.contains(&number[start..]),
        None => runs(&text).iter().any(|run| run == number),
    };
    is_there || is_cut && is_begun(&text, number)
}

/// Returns whether a cut text ends with the first digits of a number, with or without its country code.
fn is_begun(text: &str, number: &str) -> bool {
    let runs = runs(text);
    let Some(last) =
        runs.last().filter(|_| text.ends_with(|c| digit(c).is_some() || is_separator(c)))
    else {
        return false;
    };
    // A trunk prefix before the number does not count.
    let last = last.trim_start_matches('0');
    let starts = 0..=COUNTRY_DIGITS_MAX.min(number.len());
    last.len() >= CUT && starts.into_iter().any(|start| number[start..].starts_with(last))
}

/// Returns the digits of a text, apart where other characters than separators are between them.
fn runs(text: &str) -> Vec<String> {
    let mut runs = vec![String::new()];
    for c in text.chars() {
        match (digit(c), runs.last_mut()) {
            (Some(digit), Some(run)) => run.push(digit),
            _ if is_separator(c) => {}
            _ => runs.push(String::new()),
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

fn is_separator(c: char) -> bool {
    matches!(c, '-' | '.' | '(' | ')' | ' ' | '/' | '+')
}

/// Returns the ASCII form of a digit of any script.
fn digit(c: char) -> Option<char> {
    let code = u32::from(c);
    let value = if MATHEMATICAL.contains(&code) {
        (code - MATHEMATICAL.start()) % 10
    } else {
        ZEROS.iter().find_map(|zero| code.checked_sub(*zero).filter(|value| *value < 10))?
    };
    char::from_digit(value, 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_in_any_writing_is_found() {
        let number = "6281234567890";
        for text in [
            "<sip:0812-3456-7890x@y>",
            "\"+62 812 3456 7890\" <sip:a@b>",
            "<sip:%30%38%31%32%33%34%35%36%37%38%39%30x@y>",
            "<sip:\u{660}\u{668}\u{661}\u{662}\u{663}\u{664}\u{665}\u{666}\u{667}\u{668}\u{669}\u{660}@y>",
            "<sip:\u{FF18}\u{FF11}\u{FF12}\u{FF13}\u{FF14}\u{FF15}\u{FF16}\u{FF17}\u{FF18}\u{FF19}\u{FF10}@y>",
            "\u{1D7D6}\u{1D7CF}\u{1D7D0}\u{1D7D1}\u{1D7D2}\u{1D7D3}\u{1D7D4}\u{1D7D5}\u{1D7D6}\u{1D7D7}\u{1D7CE}",
        ] {
            assert!(may_have(text, number), "{text}");
        }
        for text in ["<sip:081234567891x@y>", "<sip:siti@x>", ""] {
            assert!(!may_have(text, number), "{text}");
        }
    }

    #[test]
    fn short_number_is_found_where_it_is_whole() {
        for text in ["<sip:5551234@x>", "\"555-1234 office\" <sip:a@b>", "sip:x@y;n=555.1234"] {
            assert!(may_have(text, "5551234"), "{text}");
        }
        for text in ["<sip:15551234@x>", "<sip:555x1234@x>"] {
            assert!(!may_have(text, "5551234"), "{text}");
        }
    }

    #[test]
    fn beginning_of_a_number_is_found_where_the_text_was_cut() {
        let cut = |end: &str| format!("{}{end}", "x".repeat(UNREAD_MAX - end.len()));
        for end in ["<sip:+62812345", "<tel:081234", "<sip:81234", "62-812-34"] {
            assert!(may_have(&cut(end), "6281234567890"), "{end}");
        }
        for end in ["<sip:6281", "<sip:62812345x", "<sip:99812345"] {
            assert!(!may_have(&cut(end), "6281234567890"), "{end}");
        }
        assert!(!may_have("<sip:+62812345", "6281234567890"), "a text that is whole");
    }
}
