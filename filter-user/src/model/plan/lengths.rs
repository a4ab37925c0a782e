//! Lengths of national numbers: `10`, `7-12`, or by their first digit, `2-7: 7-11`.

use filter_common::number::DIGITS_MAX;

/// Any length is possible: [`Plan::no_lengths`](filter_common::plan::Plan::no_lengths).
pub const ANY: [u16; 16] = [0; 16];
/// No length is possible.
const NONE: u16 = 0xFFFE;
const FIRST_DIGITS: usize = 10;

/// Reasons why a text names no lengths.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a list of lengths: write \"10\", \"7-12\", or with first digits \"2-7,9: 7-11\"; \
     a national number has 1 to {DIGITS_MAX} digits"
)]
pub struct LengthsError(String);

/// Adds the lengths that a text names. The first text of a list makes all others impossible.
///
/// # Errors
/// [`LengthsError`] if it names none.
pub fn add(no_lengths: &mut [u16; 16], text: &str, is_first: bool) -> Result<(), LengthsError> {
    let error = || LengthsError(text.to_owned());
    let (digits, lengths) = text.split_once(':').unwrap_or(("0-9", text));
    let digits = set(digits, 0, 9).ok_or_else(error)?;
    let lengths = set(lengths, 1, DIGITS_MAX).ok_or_else(error)?;
    if is_first {
        no_lengths[..FIRST_DIGITS].fill(NONE);
    }
    for (digit, none) in no_lengths.iter_mut().enumerate().take(FIRST_DIGITS) {
        if digits >> digit & 1 != 0 {
            *none &= !lengths;
        }
    }
    Ok(())
}

/// Reads numbers and ranges between `min` and `max`, separated by commas, as bits.
fn set(text: &str, min: u32, max: u32) -> Option<u16> {
    let mut bits = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u32>().ok();
        let (first, last) = (number(first)?, number(last)?);
        if first < min || last > max || first > last {
            return None;
        }
        for number in first..=last {
            bits |= 1 << number;
        }
    }
    Some(bits)
}

/// Returns the texts of these lengths; none if any length is possible.
#[must_use]
pub fn texts(no_lengths: &[u16; 16]) -> Vec<String> {
    if *no_lengths == ANY {
        return Vec::new();
    }
    let masks = &no_lengths[..FIRST_DIGITS];
    if masks.iter().all(|mask| *mask == masks[0]) {
        return vec![ranges(!masks[0], 1)];
    }
    let mut texts = Vec::new();
    for (digit, mask) in masks.iter().enumerate() {
        let is_new = !masks[..digit].contains(mask);
        if is_new && *mask != NONE {
            let digits = masks.iter().enumerate().filter(|(_, other)| *other == mask);
            let digits = digits.fold(0, |bits, (digit, _)| bits | 1 << digit);
            texts.push(format!("{}: {}", ranges(digits, 0), ranges(!mask, 1)));
        }
    }
    texts
}

/// Prints the set bits from bit `min` on as numbers and ranges.
fn ranges(bits: u16, min: u32) -> String {
    let has = |number: u32| number < 16 && bits >> number & 1 != 0;
    let mut parts = Vec::new();
    let mut number = min;
    while number < 16 {
        if !has(number) {
            number += 1;
            continue;
        }
        let first = number;
        while has(number) {
            number += 1;
        }
        let last = number - 1;
        parts.push(if first == last { first.to_string() } else { format!("{first}-{last}") });
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &[&str]) -> Result<[u16; 16], LengthsError> {
        let mut lengths = ANY;
        for (index, text) in list.iter().enumerate() {
            add(&mut lengths, text, index == 0)?;
        }
        Ok(lengths)
    }

    #[test]
    fn lengths_are_printed_as_they_are_read() {
        for list in [
            &["10"][..],
            &["7-12"],
            &["8,10-11"],
            &["2-7,9: 7-11", "8: 9-12"],
            &["0: 6-11", "3: 9-10"],
            &[],
        ] {
            assert_eq!(texts(&read(list).unwrap()), list, "{list:?}");
        }
        assert_eq!(texts(&read(&["8: 9", "8: 11", "7 : 9 , 11"]).unwrap()), ["7-8: 9,11"]);
        assert_eq!(read(&["1-15"]), Ok(ANY));
    }

    #[test]
    fn text_without_lengths_is_refused() {
        for text in ["", "0", "16", "9-7", "a", "8:", ":8", "x: 8", "10: 8", "8: 9: 10", "-"] {
            assert!(read(&[text]).is_err(), "{text}");
        }
    }
}
