//! The numbering plan of a trunk: turns the digits that it sends into a caller number.
//!
//! Digits that can be read in two ways, or in no way, are not a number: the call passes.

use crate::bytes::{Bytes, Slice};
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
/// Numbers of the plan's country come as E.164 without `+`, and no others do.
pub const FORMAT_OWN_E164: u8 = 16;

/// The identity of a call is its `From` (RFC 3261 §20.20).
pub const IDENTITY_FROM: u8 = 0;
/// The identity of a call is its `P-Asserted-Identity` where there is one (RFC 3325), otherwise its
/// `From`.
pub const IDENTITY_PAI_ELSE_FROM: u8 = 1;
/// The identity of a call is its `P-Asserted-Identity` alone: without one it has none, and passes.
pub const IDENTITY_PAI: u8 = 2;

/// Most international prefixes of a plan (Australia, Finland and South Korea have that many).
pub const INTERNATIONAL_MAX: usize = 16;
/// Longest trunk prefix in digits.
pub const TRUNK_PREFIX_DIGITS_MAX: u32 = 5;
/// Most prefixes of a plan that are removed.
pub const STRIP_MAX: usize = 4;
/// Longest prefix that is removed, in digits.
pub const STRIP_DIGITS_MAX: u32 = 8;
/// Longest international prefix in digits (Australia: `14110011`).
pub const PREFIX_DIGITS_MAX: u32 = 8;
/// Most names of contexts in a plan.
pub const CONTEXTS_MAX: usize = 4;
/// Most mobile country codes in a plan (India has that many).
pub const MCC_MAX: usize = 8;
/// No international prefix fits.
const NO_PREFIX: u32 = 0xFF;
/// Two international prefixes fit. It is more digits than any text has.
const DOUBTFUL: u32 = 0xFE;
/// All formats with which people in our country dial.
const AS_DIALLED: u8 = 0x80;
/// Digits of an IMSI (ITU-T E.212 §4). Shorter ones cannot be distinguished from numbers.
const IMSI_DIGITS: u32 = 15;
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
    /// Prefixes that the carrier puts before numbers, and that are removed first; unused ones empty.
    pub strip: [Digits; STRIP_MAX],
    /// International prefixes, longest first; unused ones empty.
    pub international: [Prefix; INTERNATIONAL_MAX],
    /// Formats of numbers in named contexts; unused ones zero.
    pub contexts: [NamedContext; CONTEXTS_MAX],
    /// Lengths that no national number has: bit `n` of the entry for its first digit. Zero: any
    /// length is possible.
    pub no_lengths: [u16; 16],
    /// Mobile country codes ([`mcc`]) that IMSIs begin with; unused ones zero.
    pub imsi: [u16; MCC_MAX],
    /// `FORMAT_…` bits: what the trunk sends.
    pub formats: u8,
    /// Numbers of at most this many digits are local: short codes and extensions.
    pub short_digits: u8,
    /// 1: national numbers may begin with 0, which stays after the country code (Italy: `+3906…`).
    pub leading_zero: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

/// The digits that a text has to begin with. Some of them may be any digit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Prefix {
    /// The digits; 0 where any digit fits.
    pub digits: Digits,
    /// A nibble `0xF` for each digit that counts. Bit 0 ([`Prefix::IS_DOUBTFUL`]): the same text may
    /// begin with another, shorter prefix of the plan.
    pub mask: u64,
}

/// The format of the numbers in one named context (`phone-context`, RFC 3966 §5.1.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NamedContext {
    /// [`context_name`] of the name.
    pub name: u64,
    /// `FORMAT_…` bits; 0: unused.
    pub formats: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

/// Where a number is valid (`phone-context`, RFC 3966 §5.1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// Nothing said: the trunk's plan decides.
    None,
    /// Under these leading digits of E.164 numbers.
    Global(Digits),
    /// In a domain, or another place with a name: [`context_name`] of it.
    Named(u64),
    /// In an unknown place: no plan reads it.
    Unknown,
}

/// The factor of [`context_name`]: above every character of a name, so that short names never agree.
pub(crate) const CONTEXT_FACTOR: u8 = 251;
/// The bits of a byte that count in the name of a context, which is case-insensitive.
pub(crate) const CONTEXT_BITS: u8 = 0xDF;

/// Returns the name of a context as one number. It is no protection against made-up names: a
/// caller could as well write the real one.
#[must_use]
pub const fn context_name(name: &[u8]) -> u64 {
    let mut hash = 0u64;
    let mut i = 0;
    while i < name.len() {
        hash =
            hash.wrapping_mul(CONTEXT_FACTOR as u64).wrapping_add((name[i] & CONTEXT_BITS) as u64);
        i += 1;
    }
    hash
}

/// Returns a mobile country code in the form of [`Plan::imsi`]; `None` for a text that is not of three
/// digits.
#[must_use]
pub const fn mcc(text: &str) -> Option<u16> {
    match Digits::parse(text) {
        Some(digits) if digits.len() == 3 => Some((digits.0 >> 52) as u16 | MCC_USED),
        _ => None,
    }
}

/// Distinguishes the code 000 from an unused entry.
const MCC_USED: u16 = 1 << 12;

impl Prefix {
    /// Bit of [`Prefix::mask`]: a text that begins with this prefix may be meant in two ways.
    pub const IS_DOUBTFUL: u64 = 1;
    /// No prefix.
    pub const EMPTY: Prefix = Prefix { digits: Digits::EMPTY, mask: 0 };

    /// Returns a prefix of exact digits.
    #[must_use]
    pub const fn exact(digits: Digits) -> Prefix {
        Prefix { digits, mask: digits.mask() & !0xF }
    }

    /// Returns the prefix of a text of digits, in which an `x` is any digit; `None` for another text.
    /// Host only.
    #[must_use]
    pub fn parse(text: &str) -> Option<Prefix> {
        let mut prefix = Prefix::EMPTY;
        for (i, byte) in text.bytes().enumerate() {
            let digit = if byte == b'x' { b'0' } else { byte };
            if i >= DIGITS_MAX as usize || !digit.is_ascii_digit() {
                return None;
            }
            prefix.digits = prefix.digits.push(digit - b'0');
            if byte != b'x' {
                prefix.mask |= 0xF << (60 - 4 * i);
            }
        }
        Some(prefix)
    }

    /// Returns how many digits the prefix has.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.digits.len()
    }

    /// Returns whether it has no digits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.digits.is_empty()
    }

    /// Returns whether these nibbles begin with the prefix.
    const fn begins(&self, nibbles: u64) -> bool {
        (nibbles ^ self.digits.0) & self.mask & !0xF == 0
    }

    /// Returns whether a text can begin with both prefixes.
    #[must_use]
    pub const fn overlaps(&self, other: &Prefix) -> bool {
        (self.digits.0 ^ other.digits.0) & self.mask & other.mask & !0xF == 0
    }
}

impl core::fmt::Display for Prefix {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use core::fmt::Write as _;
        for i in 0..self.len() {
            let shift = 60 - 4 * i;
            if self.mask >> shift & 0xF == 0 {
                f.write_char('x')?;
            } else {
                write!(f, "{}", self.digits.0 >> shift & 0xF)?;
            }
        }
        Ok(())
    }
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
            Context::Named(name) => (3, Digits(name)),
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
                3 => Context::Named(digits.0),
                _ => Context::Unknown,
            },
        }
    }

    /// Returns the first sixteen digits as nibbles from the top. Only of 1 to 32 digits; of others, some.
    const fn top(&self) -> u64 {
        let bits = self.count.wrapping_mul(4);
        if self.count <= 16 {
            self.low << (64u32.wrapping_sub(bits) & 63)
        } else {
            (self.high << (128u32.wrapping_sub(bits) & 63))
                | (self.low >> (bits.wrapping_sub(64) & 63))
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
        self.resolve_in(dialled, &Slice::new(&[], 0))
    }

    /// Returns what [`Plan::resolve`] does, with the ranges of `bytes` hidden between its steps.
    #[inline(always)]
    pub(crate) fn resolve_in<B: Bytes>(
        &self,
        dialled: &Dialled,
        bytes: &B,
    ) -> Result<Number, Reason> {
        let stripped = bytes.hide_range(self.strip_of(dialled) as usize) as u32;
        let dialled = Dialled { count: dialled.count.wrapping_sub(stripped), ..*dialled };
        // Linux 6.1 would otherwise walk all that follows once for each way through `strip_of`.
        let dialled = &dialled.hide_ranges(bytes);
        // The verifier would otherwise walk the following once for each way through these.
        let top = bytes.hide_range(dialled.top() as usize) as u64;
        let count = dialled.count;
        let is_imsi = count == IMSI_DIGITS && !dialled.plus && self.is_imsi(top);
        let is_imsi = bytes.hide_range(is_imsi as usize) != 0;
        let count = bytes.hide_range(count as usize) as u32;
        let dialled = &Dialled { count, ..*dialled };
        if is_imsi {
            return Err(Reason::NotANumber);
        }
        if dialled.count == 0 || dialled.count > DIALLED_MAX {
            return Err(Reason::TooManyDigits);
        }
        let formats = self.formats_in(dialled.context);
        // No national number begins with an international prefix: it decides alone, like a `+`.
        let skip = match (dialled.plus, formats) {
            (true, _) => 0,
            (false, 0) => NO_PREFIX,
            (false, _) => self.prefix_of(top, dialled.count),
        };
        let skip = bytes.hide_range(skip as usize) as u32;
        let mut readings = Readings::NONE;
        if skip != NO_PREFIX {
            readings.add(dialled.behind(skip).and_then(|digits| self.e164(digits)));
        } else if formats == AS_DIALLED {
            self.read_in_country(dialled, top, &mut readings);
        } else if formats != 0 {
            self.read_plain(dialled, top, formats, &mut readings);
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

    /// Returns whether fifteen digits are an IMSI of a network of this plan.
    fn is_imsi(&self, top: u64) -> bool {
        let code = (top >> 52) as u16 | MCC_USED;
        let mut i = 0;
        while i < MCC_MAX {
            if self.imsi[i] == code {
                return true;
            }
            i += 1;
        }
        false
    }

    /// Returns the formats of numbers in a context; 0: the plan does not know it.
    fn formats_in(&self, context: Context) -> u8 {
        match context {
            Context::None => self.formats,
            Context::Named(name) => {
                let mut i = 0;
                while i < CONTEXTS_MAX {
                    if self.contexts[i].name == name {
                        return self.contexts[i].formats;
                    }
                    i += 1;
                }
                0
            }
            Context::Global(context) if context == self.country => AS_DIALLED,
            Context::Global(_) | Context::Unknown => 0,
        }
    }

    fn read_plain(&self, dialled: &Dialled, top: u64, formats: u8, readings: &mut Readings) {
        if formats & FORMAT_NATIONAL != 0 {
            self.behind_trunk_prefix(dialled, top, readings);
        }
        let Some(digits) = dialled.behind(0) else {
            return;
        };
        if digits.first() == 0 && self.leading_zero == 0 {
            return;
        }
        let own_e164 = formats & (FORMAT_E164 | FORMAT_OWN_E164) != 0
            && digits.starts_with(self.country)
            && self.is_national(self.behind_country(digits));
        if own_e164 {
            readings.add(Some(Number::e164(digits)));
        }
        if digits.len() <= self.short_digits as u32 && digits.first() != 0 {
            if !own_e164 {
                readings.add(Number::local(digits));
            }
            return;
        }
        if formats & FORMAT_E164 != 0 && !digits.starts_with(self.country) {
            readings.add(self.e164(digits));
        }
        if formats & FORMAT_BARE_NATIONAL != 0 {
            self.national(digits, readings);
        }
        if formats & FORMAT_SUBSCRIBER != 0
            && let Some(digits) = join(self.area, digits)
        {
            self.national(digits, readings);
        }
    }

    /// Adds the readings of a number as dialled in our own country, with or without the prefixes that are
    /// dialled there. Of other contexts only the place is known, not how numbers are
    /// dialled in it: `863-1234;phone-context=+1-914-555` (RFC 3966 §5.1.5).
    fn read_in_country(&self, dialled: &Dialled, top: u64, readings: &mut Readings) {
        self.behind_trunk_prefix(dialled, top, readings);
        let Some(digits) = dialled.behind(0) else {
            return;
        };
        // A short code is no national number, and digits that begin with the country
        // code may be the whole number.
        if digits.len() > self.short_digits as u32 && !digits.starts_with(self.country) {
            self.national(digits, readings);
        }
    }

    /// Returns the length of the international prefix that these digits begin with; 0: of one that may
    /// also be a shorter one. Host only.
    #[must_use]
    pub fn international_prefix(&self, dialled: &Dialled) -> Option<u32> {
        match self.prefix_of(dialled.top(), dialled.count) {
            NO_PREFIX => None,
            DOUBTFUL => Some(0),
            len => Some(len),
        }
    }

    /// Returns the length of the international prefix; [`NO_PREFIX`] or [`DOUBTFUL`].
    fn prefix_of(&self, top: u64, count: u32) -> u32 {
        for prefix in &self.international {
            if !prefix.is_empty() && count > prefix.len() && prefix.begins(top) {
                let doubtful = prefix.mask & Prefix::IS_DOUBTFUL != 0;
                return if doubtful { DOUBTFUL } else { prefix.len() };
            }
        }
        NO_PREFIX
    }

    fn behind_trunk_prefix(&self, dialled: &Dialled, top: u64, readings: &mut Readings) {
        let top = Digits(top & !0xF | DIGITS_MAX as u64);
        if !self.trunk_prefix.is_empty()
            && top.starts_with(self.trunk_prefix)
            && let Some(digits) = dialled.behind(self.trunk_prefix.len())
        {
            self.national(digits, readings);
        }
    }

    /// Adds the reading as a national (significant) number, with our country code in front.
    fn national(&self, digits: Digits, readings: &mut Readings) {
        if !self.is_national(digits) {
            return;
        }
        match join(self.country, digits) {
            Some(digits) => readings.add(Some(Number::e164(digits))),
            None => readings.too_long = true,
        }
    }

    /// Returns the E.164 number with these digits; `None` if no number can have them. Of a national
    /// number of ours, any length is possible here: these digits cannot mean anything else.
    fn e164(&self, digits: Digits) -> Option<Number> {
        if digits.first() == 0 {
            return None;
        }
        let possible = if digits.starts_with(self.country) {
            let national = self.behind_country(digits);
            !national.is_empty() && (national.first() != 0 || self.leading_zero != 0)
        } else {
            digits.len() >= E164_DIGITS_MIN
        };
        if possible { Some(Number::e164(digits)) } else { None }
    }

    /// Returns the digits after our country code, which they begin with.
    fn behind_country(&self, digits: Digits) -> Digits {
        let len = self.country.len();
        Digits((digits.nibbles() << ((4 * len) & 63)) | (digits.len() - len) as u64)
    }

    /// Returns whether a national number of our country can have these digits.
    fn is_national(&self, digits: Digits) -> bool {
        let first = digits.first() as usize & 15;
        !digits.is_empty()
            && (first != 0 || self.leading_zero != 0)
            && self.no_lengths[first] >> digits.len() & 1 == 0
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
        let behind = |len: u32| Digits::parse(text.get(len as usize..)?);
        let international = self.international.iter().find(|prefix| {
            !prefix.is_empty() && digits.len() >= prefix.len() && prefix.begins(digits.nibbles())
        });
        let prefix = if let Some(prefix) = international {
            if prefix.mask & Prefix::IS_DOUBTFUL != 0 {
                return None;
            }
            behind(prefix.len())?
        } else if !self.trunk_prefix.is_empty() && digits.starts_with(self.trunk_prefix) {
            let national = behind(self.trunk_prefix.len())?;
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

mod strip;
#[cfg(test)]
mod tests;
