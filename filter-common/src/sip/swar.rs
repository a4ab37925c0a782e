//! Eight bytes at once in a register (SIMD within a register).

/// Returns a word whose eight bytes are all this byte.
pub(super) const fn splat(byte: u8) -> u64 {
    0x0101_0101_0101_0101 * byte as u64
}

/// The top bit of each byte. The functions below set it in each byte that they find. Only the lowest of
/// these bytes is exact: borrows and carries change the bytes above it.
pub(super) const TOP: u64 = splat(0x80);

/// Returns the index of the byte whose [`TOP`] bit is the lowest.
#[inline(always)]
pub(super) const fn lowest(found: u64) -> usize {
    ((found & found.wrapping_neg()) >> 7).wrapping_mul(0x0001_0203_0405_0607) as usize >> 56
}

/// Finds this byte, and some above 0x7F.
#[inline(always)]
pub(super) const fn is(x: u64, byte: u8) -> u64 {
    (x ^ splat(byte)).wrapping_sub(splat(1))
}

/// Finds `<`, `>`, and some bytes above 0x7F.
#[inline(always)]
pub(super) const fn is_bracket(x: u64) -> u64 {
    is(x & splat(!2), b'<')
}

/// Finds all that the URI reader looks for in a parameter: all but letters, digits, `- . / [ \ ] ^ _` and the
/// like. So `+` too, which it does not look for.
#[inline(always)]
pub(super) const fn not_passed(x: u64) -> u64 {
    let separator = x.wrapping_add(splat(0x80 - 0x3A)) ^ x.wrapping_add(splat(0x80 - 0x41));
    x.wrapping_sub(splat(0x2D)) | separator | x
}

/// Finds all but 0x21 to 0x7E.
#[inline(always)]
pub(super) const fn not_graphic(x: u64) -> u64 {
    x.wrapping_sub(splat(0x21)) | x.wrapping_add(splat(1))
}

/// Finds the characters that a quoted string escapes, its end, and all above 0x7E.
#[inline(always)]
pub(super) const fn not_in_quotes(x: u64) -> u64 {
    x.wrapping_sub(splat(0x20)) | x.wrapping_add(splat(1)) | is(x, b'"') | is(x, b'\\')
}

/// Finds the characters that no URI in angle brackets has, its end, an `@`, and all above 0x7E.
#[inline(always)]
pub(super) const fn not_in_brackets(x: u64) -> u64 {
    not_graphic(x) | is(x, b'"') | is(x, b'\\') | is(x, b'@') | is_bracket(x)
}

/// Finds the ends of plain parameters, and all above 0x7E.
#[inline(always)]
pub(super) const fn not_in_parameters(x: u64) -> u64 {
    not_graphic(x) | is(x, b'"') | is(x, b',') | is_bracket(x)
}

/// Finds all but letters, digits and other characters of a header name, as the automaton does.
#[inline(always)]
pub(super) const fn not_in_name(x: u64) -> u64 {
    let separator = x.wrapping_add(splat(0x80 - 0x3A)) ^ x.wrapping_add(splat(0x80 - 0x41));
    x.wrapping_sub(splat(0x2D)) | x.wrapping_add(splat(1)) | separator | is(x, b'\\')
}

/// Up to eight characters, letters in either case.
pub(super) struct Text {
    small: u64,
    case: u64,
    mask: u64,
}

impl Text {
    pub(super) const fn new(text: &[u8]) -> Text {
        let mut new = Text { small: 0, case: 0, mask: 0 };
        let mut i = 0;
        while i < text.len() {
            new.small |= (text[i] as u64) << (8 * i);
            new.case |= (text[i].is_ascii_lowercase() as u64 * 0x20) << (8 * i);
            new.mask |= 0xFF << (8 * i);
            i += 1;
        }
        new
    }

    #[inline(always)]
    pub(super) const fn begins(&self, word: u64) -> bool {
        (word | self.case) & self.mask == self.small
    }
}
