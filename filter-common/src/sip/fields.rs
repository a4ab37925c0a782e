//! Where things are in a message: the fields that a reader notes, and their offsets.

/// Bytes from the Request-URI on that the full reader reads: more than an Ethernet frame of 1,500 bytes
/// holds. Longer headers are left to the second look. Each byte costs about 70 of the verified
/// instructions that the kernel program may have.
pub const SCAN_MAX: usize = 2048;

/// A place in a message that the reader needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Field {
    /// The CR or LF that ends the request line.
    LineEnd = 1,
    /// A `From` header field: its colon.
    From = 2,
    /// The colon after the scheme of a `From` URI, with its [`Form`].
    FromUri = 3,
    /// A `To` header field: its colon.
    To = 4,
    /// The first byte of a `tag` of a `To`.
    ToTag = 5,
    /// A `Call-ID` header field: its colon.
    CallId = 6,
    /// The first byte of a Call-ID.
    CallIdStart = 7,
    /// The byte after a Call-ID.
    CallIdEnd = 8,
    /// A `P-Asserted-Identity` header field: its colon.
    Pai = 9,
    /// The first byte of a `P-Asserted-Identity` value.
    PaiValue = 10,
    /// The colon after the scheme of a `P-Asserted-Identity` URI, with its [`Form`].
    PaiUri = 11,
    /// Where the value of a `From` breaks the grammar: no number is read from it.
    FromFault = 12,
    /// A `Replaces` header field (RFC 3891): its colon.
    Replaces = 13,
    /// The last letter of `Call-In` at the beginning of a header name, such as `Call-Info`.
    CallInfo = 14,
    /// The last character of `P-Ch` or `Session-` at the beginning of a header name, such as `P-Charging-Vector` or
    /// `Session-ID`.
    ChargingOrSession = 15,
}

/// The form of a URI.
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

/// The offset of a field, counted from the Request-URI, and the [`Form`] of its URI in bits 14–15.
/// No field is at offset 0, so 0 means no field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct FieldOffset(pub u64);

impl FieldOffset {
    /// No field.
    pub const NONE: FieldOffset = FieldOffset(0);

    /// Packs the offset of a scheme's colon and the form of its URI.
    #[inline(always)]
    #[must_use]
    pub const fn new(offset: u64, form: Form) -> FieldOffset {
        FieldOffset((form as u64) << 14 | offset)
    }

    /// Returns the offset in bytes; 0 without a field.
    #[inline(always)]
    #[must_use]
    pub const fn offset(self) -> usize {
        (self.0 & 0x3FFF) as usize
    }

    /// Returns the [`Form`] as number.
    #[inline(always)]
    #[must_use]
    pub const fn form(self) -> u8 {
        (self.0 >> 14) as u8 & 3
    }
}

/// The last four offsets of a [`Field`], 16 bits each, the newest lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct FieldOffsets(pub u64);

impl FieldOffsets {
    /// No offsets.
    pub const NONE: FieldOffsets = FieldOffsets(0);

    /// Makes the offsets of a field that was found once.
    #[inline(always)]
    #[must_use]
    pub const fn one(offset: usize) -> FieldOffsets {
        FieldOffsets(offset as u64)
    }

    /// Adds the offset of another find, in 16 bits.
    #[inline(always)]
    pub const fn push(&mut self, offset: u64) {
        self.0 = self.0 << 16 | offset;
    }

    /// Returns whether the field was not found.
    #[inline(always)]
    #[must_use]
    pub const fn is_missing(self) -> bool {
        self.0 == 0
    }

    /// Returns whether the field was found more than once.
    #[inline(always)]
    #[must_use]
    pub const fn is_repeated(self) -> bool {
        self.0 > 0xFFFF
    }

    /// Returns whether the field was found more than twice.
    #[inline(always)]
    #[must_use]
    pub const fn is_above_two(self) -> bool {
        self.0 > 0xFFFF_FFFF
    }

    /// Returns how often the field was found, 4 at most.
    #[must_use]
    pub const fn count(self) -> u32 {
        (u64::BITS - self.0.leading_zeros()).div_ceil(16)
    }

    /// Returns the offset in bytes of the last find; 0 without one.
    #[inline(always)]
    #[must_use]
    pub const fn newest(self) -> usize {
        FieldOffset(self.0).offset()
    }

    /// Returns the offset in bytes of a field that was found exactly once.
    #[inline(always)]
    #[must_use]
    pub const fn only(self) -> Option<usize> {
        if self.is_missing() || self.is_repeated() { None } else { Some(self.0 as usize) }
    }

    /// Returns the find that `index` later ones follow; 0: the newest.
    #[inline(always)]
    #[must_use]
    pub const fn nth(self, index: usize) -> FieldOffset {
        FieldOffset(self.0 >> (16 * index) & 0xFFFF)
    }
}

impl From<FieldOffset> for FieldOffsets {
    /// Makes the offsets of a field that was found once.
    #[inline(always)]
    fn from(offset: FieldOffset) -> FieldOffsets {
        FieldOffsets(offset.0)
    }
}

/// The offsets of each [`Field`], by its number. The offsets of number 0 are never read.
pub type Fields = [FieldOffsets; 16];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_a_field_are_counted_up_to_four() {
        let mut offsets = FieldOffsets::NONE;
        assert_eq!((offsets.count(), offsets.only(), offsets.is_missing()), (0, None, true));
        for (finds, count) in [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4)] {
            offsets.push(FieldOffset::new(finds * 0x10, Form::SipBare).0);
            assert_eq!((offsets.count(), offsets.newest()), (count, finds as usize * 0x10));
            assert_eq!((offsets.is_repeated(), offsets.is_above_two()), (finds > 1, finds > 2));
        }
        assert_eq!((offsets.nth(3).offset(), offsets.nth(3).form()), (0x20, 2));
        assert_eq!(FieldOffsets::one(7).only(), Some(7));
    }
}
