//! Caller numbers: the canonical form of a call's origin, in one `u64`.
//!
//! Digits are as nibbles from the top, the length in the low nibble, unused
//! nibbles are zero. So a number is unequal to every longer number that begins
//! with it. Its big-endian bytes are a key for an LPM trie. There a prefix of
//! `n` digits has a prefix length of `4 × n` bits, and a whole number one of 64.
//!
//! A local (short) number starts with nibble `0xF` and is never shared between
//! centres: `112` here is not `112` there.

/// Most digits of an E.164 number (ITU-T E.164 §6.2.1), and most nibbles here.
pub const DIGITS_MAX: u32 = 15;

/// The nibble that a local number starts with.
const LOCAL: u64 = 0xF;

/// Up to 15 digits from the top nibble, the count in the low nibble.
///
/// Not yet a caller number: also a country code, a prefix, an area code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Digits(pub u64);

impl Digits {
    /// No digits.
    pub const EMPTY: Digits = Digits(0);

    /// Returns the digits of an ASCII text; `None` when it holds anything else or more than 15.
    #[must_use]
    pub const fn parse(text: &str) -> Option<Digits> {
        let bytes = text.as_bytes();
        if bytes.len() > DIGITS_MAX as usize {
            return None;
        }
        let mut digits = Digits::EMPTY;
        let mut i = 0;
        while i < bytes.len() {
            if !bytes[i].is_ascii_digit() {
                return None;
            }
            digits = digits.push(bytes[i] - b'0');
            i += 1;
        }
        Some(digits)
    }

    /// Returns these digits with one more at the end. The caller has checked that there is room.
    pub(crate) const fn push(self, digit: u8) -> Digits {
        let len = self.len();
        Digits((self.0 | ((digit as u64) << (60 - 4 * len))) + 1)
    }

    /// Returns how many digits there are.
    #[must_use]
    pub const fn len(self) -> u32 {
        (self.0 & 0xF) as u32
    }

    /// Returns whether it has no digits.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Returns the nibbles without the count.
    pub(crate) const fn nibbles(self) -> u64 {
        self.0 & !0xF
    }

    /// Returns the first digit; 0 also without digits.
    pub(crate) const fn first(self) -> u64 {
        self.0 >> 60
    }

    /// Returns a mask over as many top nibbles as there are digits.
    pub(crate) const fn mask(self) -> u64 {
        // Two shifts: 64 - 4 × 0 would be a shift by the whole width.
        !((u64::MAX >> (2 * self.len())) >> (2 * self.len()))
    }

    /// Returns whether these digits begin with all of `prefix`.
    #[must_use]
    pub const fn starts_with(self, prefix: Digits) -> bool {
        self.len() >= prefix.len() && (self.0 & prefix.mask()) == prefix.nibbles()
    }
}

/// A caller number, the key of every list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Number(pub u64);

impl Number {
    /// No number: what an unread caller has in events and maps.
    pub const NONE: Number = Number(0);

    /// Returns an E.164 number from its digits.
    #[must_use]
    pub const fn e164(digits: Digits) -> Number {
        Number(digits.0)
    }

    /// Returns a local number from its digits, at most 14.
    #[must_use]
    pub const fn local(digits: Digits) -> Option<Number> {
        if digits.len() >= DIGITS_MAX {
            return None;
        }
        Some(Number((LOCAL << 60) | (digits.nibbles() >> 4) | (digits.len() + 1) as u64))
    }

    /// Returns whether this is a local number.
    #[must_use]
    pub const fn is_local(self) -> bool {
        self.0 >> 60 == LOCAL
    }

    /// Returns the digits, of a local number without its mark.
    #[must_use]
    pub const fn digits(self) -> Digits {
        if self.is_local() {
            Digits((self.0 & !0xF) << 4 | ((self.0 & 0xF).saturating_sub(1)))
        } else {
            Digits(self.0)
        }
    }

    /// Returns how many digits it has, without the mark of a local number.
    #[must_use]
    pub const fn count(self) -> u32 {
        // No branch: 15 is the only nibble that the sum carries out of.
        let local = ((self.0 >> 60) + 1) >> 4;
        (self.0 & 0xF).wrapping_sub(local) as u32
    }

    /// Returns the key of this number in a hash map or an LPM trie.
    #[must_use]
    pub const fn key(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

impl core::fmt::Display for Digits {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut text = [0u8; DIGITS_MAX as usize];
        let len = self.len() as usize;
        for (i, slot) in text.iter_mut().enumerate().take(len) {
            *slot = b'0' + ((self.0 >> (60 - 4 * i)) & 0xF) as u8;
        }
        f.pad(core::str::from_utf8(&text[..len]).unwrap_or("?"))
    }
}

impl core::fmt::Display for Number {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.digits().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digits(text: &str) -> Digits {
        Digits::parse(text).expect("digits")
    }

    #[test]
    fn a_number_is_not_a_longer_one_that_begins_with_it() {
        assert_ne!(digits("62812").0, digits("628120").0);
        assert!(digits("628120").starts_with(digits("62812")));
        assert!(!digits("62812").starts_with(digits("628120")));
        assert!(digits("62812").starts_with(Digits::EMPTY));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert_eq!(Digits::parse("1234567890123456"), None);
        assert_eq!(Digits::parse("12a"), None);
        assert!(Number::local(digits("123456789012345")).is_none());
    }

    #[test]
    fn a_local_number_is_no_e164_number() {
        let local = Number::local(digits("112")).expect("short");
        assert_ne!(local, Number::e164(digits("112")));
        assert_eq!(local.to_string(), "112");
        assert_eq!(local.key()[0], 0xF1);
    }

    proptest! {
        #[test]
        fn text_survives(text in "[0-9]{0,15}") {
            prop_assert_eq!(digits(&text).to_string(), text.clone());
            prop_assert_eq!(digits(&text).len() as usize, text.len());
            if text.len() < 15 {
                let local = Number::local(digits(&text)).expect("fits");
                prop_assert!(local.is_local());
                prop_assert_eq!(local.digits(), digits(&text));
                prop_assert_eq!(local.count() as usize, text.len());
                prop_assert_eq!(Number::e164(digits(&text)).count() as usize, text.len());
            }
        }

        #[test]
        fn starts_with_is_that_of_text(a in "[0-9]{0,15}", b in "[0-9]{0,4}") {
            prop_assert_eq!(digits(&a).starts_with(digits(&b)), a.starts_with(&b));
        }
    }
}
