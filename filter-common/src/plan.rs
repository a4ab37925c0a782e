//! The numbering plan of a trunk: turns the digits that it sends into a caller number.
//!
//! Digits that can be read in two ways, or in no way, are not a number: the call passes.

use crate::bytes::Bytes;
use crate::number::{DIGITS_MAX, Digits, Number};
use crate::reason::Reason;

/// Numbers come as E.164 without `+` (ITU-T E.164). With `+` they are always read.
pub const FORMAT_E164: u8 = 1;
/// Numbers come as national numbers with the trunk prefix: `0812…`.
pub const FORMAT_NATIONAL: u8 = 2;
/// Numbers come as national numbers without the trunk prefix: `812…`.
pub const FORMAT_BARE_NATIONAL: u8 = 4;
/// Numbers come as subscriber numbers of the plan's area: `5551234`.
pub const FORMAT_SUBSCRIBER: u8 = 8;

/// The identity of a call is its `From` (RFC 3261 §20.20).
pub const IDENTITY_FROM: u8 = 0;
/// The identity of a call is its `P-Asserted-Identity` where there is one (RFC 3325), otherwise its
/// `From`.
pub const IDENTITY_PAI_ELSE_FROM: u8 = 1;
/// The identity of a call is its `P-Asserted-Identity` alone: without one it has none, and passes.
pub const IDENTITY_PAI: u8 = 2;

/// Most international prefixes of a plan.
pub const INTERNATIONAL_MAX: usize = 8;
/// Longest international prefix in digits (Indonesia: `01016`).
pub const PREFIX_DIGITS_MAX: u32 = 5;
/// No country has shorter numbers than this, country code included.
const E164_DIGITS_MIN: u32 = 7;
/// More digits than this hold no number after any prefix.
const DIALLED_MAX: u32 = DIGITS_MAX + PREFIX_DIGITS_MAX;

/// How one trunk writes numbers.
///
/// ```
/// use filter_common::number::{Digits, Number};
/// use filter_common::plan::{Context, Dialled, FORMAT_E164, FORMAT_NATIONAL, Plan};
/// use filter_common::reason::Reason;
///
/// # let digits = |text| Digits::parse(text).unwrap();
/// let indonesia = Plan {
///     country: digits("62"),
///     trunk_prefix: digits("0"),
///     formats: FORMAT_E164 | FORMAT_NATIONAL,
///     short_digits: 6,
///     ..Plan::default()
/// };
/// // The digits as nibbles, their count, and whether a `+` is before them.
/// let read = |low, count, plus| {
///     indonesia.resolve(&Dialled { high: 0, low, count, plus, context: Context::None })
/// };
///
/// let mobile = Number::e164(digits("6281234567890"));
/// assert_eq!(read(0x6281234567890, 13, true), Ok(mobile)); // +62 812 3456 7890
/// assert_eq!(read(0x6281234567890, 13, false), Ok(mobile)); // 62 812 3456 7890
/// assert_eq!(read(0x081234567890, 12, false), Ok(mobile)); // 0812 3456 7890
///
/// // Up to six digits are a local number: a short code, an extension.
/// assert_eq!(read(0x112, 3, false).ok(), Number::local(digits("112")));
///
/// // A number with a leading zero has no E.164 form, and this trunk sends no other prefix.
/// assert_eq!(read(0x0081234567890, 13, false), Err(Reason::AmbiguousNumber));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Plan {
    /// Country code: `62`.
    pub country: Digits,
    /// Trunk prefix, dialled before a national number: `0`; may be empty.
    pub trunk_prefix: Digits,
    /// Area code without trunk prefix, for subscriber numbers: `21`.
    pub area: Digits,
    /// International prefixes, longest first; unused ones empty.
    pub international: [Digits; INTERNATIONAL_MAX],
    /// `FORMAT_…` bits: what the trunk sends.
    pub formats: u8,
    /// Numbers of at most this many digits are local: short codes and extensions.
    pub short_digits: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

/// Where a number is valid (`phone-context`, RFC 3966 §5.1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// Nothing said: the trunk's plan decides.
    None,
    /// Under these leading digits of E.164 numbers.
    Global(Digits),
    /// In a domain, or in an unknown place: no plan reads it.
    Unknown,
}

/// The digits in a URI, before the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialled {
    /// The digits before the last sixteen, the last of them in the low nibble.
    pub high: u64,
    /// The last sixteen digits, the last of them in the low nibble.
    pub low: u64,
    /// How many digits the URI had; above 32 only the last 32 are kept.
    pub count: u32,
    /// Whether a `+` came before them.
    pub plus: bool,
    /// Where they are valid.
    pub context: Context,
}

impl Dialled {
    /// Returns these digits with hidden ranges: the verifier forgets which reader they come from.
    #[inline(always)]
    pub(crate) fn hide_ranges<B: Bytes>(self, bytes: &B) -> Dialled {
        let (context, digits) = match self.context {
            Context::None => (0, Digits::EMPTY),
            Context::Unknown => (1, Digits::EMPTY),
            Context::Global(digits) => (2, digits),
        };
        let digits = Digits(bytes.hide_range(digits.0 as usize) as u64);
        Dialled {
            high: bytes.hide_range(self.high as usize) as u64,
            low: bytes.hide_range(self.low as usize) as u64,
            count: bytes.hide_range(self.count as usize) as u32,
            plus: bytes.hide_range(self.plus as usize) & 1 != 0,
            context: match bytes.hide_range(context) {
                0 => Context::None,
                2 => Context::Global(digits),
                _ => Context::Unknown,
            },
        }
    }

    /// Returns the first sixteen digits as nibbles from the top. Only for 1 to 20 digits.
    const fn top(&self) -> u64 {
        if self.count <= 16 {
            self.low << ((64 - 4 * self.count) & 63)
        } else {
            (self.high << ((128 - 4 * self.count) & 63))
                | (self.low >> ((4 * self.count - 64) & 63))
        }
    }

    /// Returns the digits after the first `skip`; `None` when no digit or more than 15 are left.
    const fn behind(&self, skip: u32) -> Option<Digits> {
        let len = self.count.wrapping_sub(skip);
        if len == 0 || len > DIGITS_MAX {
            return None;
        }
        Some(Digits((self.low << ((64 - 4 * len) & 63)) | len as u64))
    }
}

/// The readings of one text. Two that agree are one.
struct Readings {
    number: Number,
    conflict: bool,
    /// A reading had more digits than an E.164 number.
    too_long: bool,
}

impl Readings {
    const NONE: Readings = Readings { number: Number::NONE, conflict: false, too_long: false };

    fn add(&mut self, reading: Option<Number>) {
        if let Some(number) = reading {
            self.conflict |= self.number != Number::NONE && self.number != number;
            self.number = number;
        }
    }
}

impl Plan {
    /// Returns the caller number of dialled digits.
    ///
    /// # Errors
    /// [`Reason::TooManyDigits`] and [`Reason::AmbiguousNumber`].
    pub fn resolve(&self, dialled: &Dialled) -> Result<Number, Reason> {
        if dialled.count == 0 || dialled.count > DIALLED_MAX {
            return Err(Reason::TooManyDigits);
        }
        let mut readings = Readings::NONE;
        if dialled.plus {
            readings.add(dialled.behind(0).and_then(|digits| self.e164(digits)));
        } else {
            match dialled.context {
                Context::None => self.read_plain(dialled, &mut readings),
                Context::Global(context) if context == self.country => {
                    self.read_in_country(dialled, &mut readings);
                }
                Context::Global(_) | Context::Unknown => {}
            }
        }
        if readings.conflict {
            Err(Reason::AmbiguousNumber)
        } else if readings.number != Number::NONE {
            Ok(readings.number)
        } else if dialled.count > DIGITS_MAX || readings.too_long {
            Err(Reason::TooManyDigits)
        } else {
            Err(Reason::AmbiguousNumber)
        }
    }

    fn read_plain(&self, dialled: &Dialled, readings: &mut Readings) {
        // No national number begins with an international prefix: it decides alone.
        if let Some(prefix) = self.international_prefix(dialled) {
            readings.add(dialled.behind(prefix).and_then(|digits| self.e164(digits)));
            return;
        }
        if self.formats & FORMAT_NATIONAL != 0 {
            self.behind_trunk_prefix(dialled, readings);
        }
        let Some(digits) = dialled.behind(0) else {
            return;
        };
        if digits.first() == 0 {
            return;
        }
        let own_e164 = self.formats & FORMAT_E164 != 0 && self.has_own_country(digits);
        if own_e164 {
            readings.add(Some(Number::e164(digits)));
        }
        if digits.len() <= self.short_digits as u32 {
            if !own_e164 {
                readings.add(Number::local(digits));
            }
            return;
        }
        if self.formats & FORMAT_E164 != 0 {
            readings.add(self.e164(digits));
        }
        if self.formats & FORMAT_BARE_NATIONAL != 0 {
            self.national(digits, readings);
        }
        if self.formats & FORMAT_SUBSCRIBER != 0
            && let Some(digits) = join(self.area, digits)
        {
            self.national(digits, readings);
        }
    }

    /// Adds the readings of a number as dialled in our own country, with or without the prefixes that are
    /// dialled there. Of other contexts only the place is known, not how numbers are
    /// dialled in it: `863-1234;phone-context=+1-914-555` (RFC 3966 §5.1.5).
    fn read_in_country(&self, dialled: &Dialled, readings: &mut Readings) {
        if let Some(prefix) = self.international_prefix(dialled) {
            readings.add(dialled.behind(prefix).and_then(|digits| self.e164(digits)));
            return;
        }
        self.behind_trunk_prefix(dialled, readings);
        let Some(digits) = dialled.behind(0) else {
            return;
        };
        // A short code is no national number, and digits that begin with the country
        // code may be the whole number.
        if digits.len() > self.short_digits as u32 && !digits.starts_with(self.country) {
            self.national(digits, readings);
        }
    }

    /// Returns the length of the international prefix that these digits begin with.
    fn international_prefix(&self, dialled: &Dialled) -> Option<u32> {
        let top = Digits(dialled.top() & !0xF | DIGITS_MAX as u64);
        for prefix in self.international {
            if !prefix.is_empty() && dialled.count > prefix.len() && top.starts_with(prefix) {
                return Some(prefix.len());
            }
        }
        None
    }

    fn behind_trunk_prefix(&self, dialled: &Dialled, readings: &mut Readings) {
        let top = Digits(dialled.top() & !0xF | DIGITS_MAX as u64);
        if !self.trunk_prefix.is_empty()
            && top.starts_with(self.trunk_prefix)
            && let Some(digits) = dialled.behind(self.trunk_prefix.len())
        {
            self.national(digits, readings);
        }
    }

    /// Adds the reading as a national (significant) number, with our country code in front.
    fn national(&self, digits: Digits, readings: &mut Readings) {
        if digits.first() == 0 {
            return;
        }
        match join(self.country, digits) {
            Some(digits) => readings.add(Some(Number::e164(digits))),
            None => readings.too_long = true,
        }
    }

    /// Returns the E.164 number with these digits; `None` if no number can have them.
    fn e164(&self, digits: Digits) -> Option<Number> {
        if digits.first() == 0 {
            return None;
        }
        let possible = if digits.starts_with(self.country) {
            self.has_own_country(digits)
        } else {
            digits.len() >= E164_DIGITS_MIN
        };
        if possible { Some(Number::e164(digits)) } else { None }
    }

    /// Returns whether the digits are our country code and a national number after it.
    fn has_own_country(&self, digits: Digits) -> bool {
        let len = self.country.len();
        digits.starts_with(self.country)
            && digits.len() > len
            && digits.0 << ((4 * len) & 63) >> 60 != 0
    }

    /// Returns the prefix of E.164 numbers that a text such as `62812*`, `+62812*` or `0812*`
    /// names; `None` for any other text. Host only: the kernel never reads prefixes.
    #[must_use]
    pub fn prefix(&self, text: &str) -> Option<Digits> {
        let text = text.strip_suffix('*')?;
        if let Some(global) = text.strip_prefix('+') {
            return Digits::parse(global).filter(|digits| digits.first() != 0);
        }
        let digits = Digits::parse(text)?;
        let behind = |prefix: Digits| Digits::parse(text.get(prefix.len() as usize..)?);
        let international = self
            .international
            .iter()
            .find(|prefix| !prefix.is_empty() && digits.starts_with(**prefix));
        let prefix = if let Some(prefix) = international {
            behind(*prefix)?
        } else if !self.trunk_prefix.is_empty() && digits.starts_with(self.trunk_prefix) {
            let national = behind(self.trunk_prefix)?;
            if national.first() == 0 && !national.is_empty() {
                return None;
            }
            join(self.country, national)?
        } else {
            digits
        };
        (prefix.first() != 0).then_some(prefix)
    }
}

/// Joins `a` and `b`; `None` when that is more than 15 digits.
fn join(a: Digits, b: Digits) -> Option<Digits> {
    let len = a.len() + b.len();
    if len > DIGITS_MAX {
        return None;
    }
    Some(Digits(a.nibbles() | (b.nibbles() >> ((4 * a.len()) & 63)) | len as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the reading of `text`, digits with an optional `+`.
    fn read(plan: &Plan, text: &str) -> Result<String, Reason> {
        let plus = text.starts_with('+');
        let (mut high, mut low, mut count) = (0u64, 0u64, 0);
        for digit in text.bytes().filter(u8::is_ascii_digit) {
            high = high << 4 | low >> 60;
            low = low << 4 | u64::from(digit - b'0');
            count += 1;
        }
        let dialled = Dialled { high, low, count, plus, context: Context::None };
        plan.resolve(&dialled).map(|number| {
            let local = if number.is_local() { "local " } else { "" };
            format!("{local}{number}")
        })
    }

    fn digits(text: &str) -> Digits {
        Digits::parse(text).expect("digits")
    }

    fn plan(formats: u8, international: &[&str]) -> Plan {
        let mut plan = Plan {
            country: digits("62"),
            trunk_prefix: digits("0"),
            area: digits("21"),
            formats,
            short_digits: 6,
            ..Plan::default()
        };
        for (slot, prefix) in plan.international.iter_mut().zip(international) {
            *slot = digits(prefix);
        }
        plan
    }

    const AMBIGUOUS: Result<String, Reason> = Err(Reason::AmbiguousNumber);
    const TOO_MANY: Result<String, Reason> = Err(Reason::TooManyDigits);

    #[track_caller]
    fn assert_read(plan: &Plan, text: &str, expected: &str) {
        assert_eq!(read(plan, text).as_deref(), Ok(expected), "{text}");
    }

    #[test]
    fn e164_and_national() {
        let plan = plan(FORMAT_E164 | FORMAT_NATIONAL, &[]);
        assert_read(&plan, "+6281234567890", "6281234567890");
        assert_read(&plan, "6281234567890", "6281234567890");
        assert_read(&plan, "081234567890", "6281234567890");
        assert_read(&plan, "0811", "62811");
        assert_read(&plan, "6581234567", "6581234567");
        assert_read(&plan, "110", "local 110");
        assert_read(&plan, "+123456789012345", "123456789012345");
        for text in ["+620812", "+62", "0", "00812", "+0812", "+110", "620812345678"] {
            assert_eq!(read(&plan, text), AMBIGUOUS, "{text}");
        }
        for text in ["+1234567890123456", "01234567890123456", "012345678901234"] {
            assert_eq!(read(&plan, text), TOO_MANY, "{text}");
        }
    }

    #[test]
    fn an_international_prefix_decides_alone() {
        let text = "0016581234567";
        let both = FORMAT_E164 | FORMAT_NATIONAL;
        assert_read(&plan(both, &["001"]), text, "6581234567");
        assert_read(&plan(both, &["00"]), text, "16581234567");
        assert_read(&plan(both, &["001", "00"]), text, "6581234567");
        assert_eq!(read(&plan(both, &[]), text), AMBIGUOUS);
        let indonesia = plan(both, &["01016", "01017", "001", "007", "008", "009"]);
        assert_read(&indonesia, "010176281234567890", "6281234567890");
        assert_read(&indonesia, "01017123456789012345", "123456789012345");
        assert_eq!(read(&indonesia, "010171234567890123456"), TOO_MANY);
        assert_eq!(read(&indonesia, "001"), AMBIGUOUS);
        assert_eq!(read(&indonesia, "001620812345678"), AMBIGUOUS);
    }

    #[test]
    fn two_readings_are_none() {
        let plan = plan(FORMAT_E164 | FORMAT_BARE_NATIONAL, &[]);
        assert_eq!(read(&plan, "81234567890"), AMBIGUOUS);
        // With the country code twice it would be too long: one reading is left.
        assert_read(&plan, "62812345678901", "62812345678901");
    }

    #[test]
    fn subscribers_of_an_area() {
        let mut plan = plan(FORMAT_SUBSCRIBER | FORMAT_NATIONAL, &[]);
        assert_read(&plan, "5551234", "62215551234");
        assert_read(&plan, "0215551234", "62215551234");
        assert_read(&plan, "555123", "local 555123");
        plan.short_digits = 5;
        assert_read(&plan, "555123", "6221555123");
    }

    #[test]
    fn prefixes_from_text() {
        let plan = plan(FORMAT_E164 | FORMAT_NATIONAL, &["001"]);
        for (text, expected) in [
            ("+62812*", Some("62812")),
            ("62812*", Some("62812")),
            ("0812*", Some("62812")),
            ("0016581*", Some("6581")),
            ("62812", None),
            ("*", Some("")),
            ("+0*", None),
            ("00812*", None),
            ("08x*", None),
        ] {
            let expected = expected.map(digits).filter(|prefix| !prefix.is_empty());
            assert_eq!(plan.prefix(text), expected, "{text}");
        }
    }
}
