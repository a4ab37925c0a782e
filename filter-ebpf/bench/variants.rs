//! The input of the benchmark's programs from the runner; `bench/` has this file as a module too.

/// Bytes of every varied frame. The rest after its headers is padding after the datagram.
pub const FRAME_LEN: usize = 960;
/// Most frames of a corpus.
pub const VARIANTS_MAX: u32 = 512;
/// Digits that [`Draw::numbers`] replaces.
pub const DRAWN_DIGITS: usize = 8;

/// One frame, and the offsets that the oracle gets.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Variant {
    /// The first digit of the caller number, after the `+`.
    pub number_at: u16,
    /// How many digits it has, 1 to 15.
    pub number_len: u16,
    /// The first byte of the Call-ID.
    pub call_id_at: u16,
    /// Its length.
    pub call_id_len: u16,
    /// The frame.
    pub frame: [u8; FRAME_LEN],
}

/// How the next frame is drawn.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Draw {
    /// From this many variants, at random; the first one always when it is 1.
    pub variants: u32,
    /// Not 0: the digits after the first four of the caller number become those of a random
    /// number below this, in octal.
    pub numbers: u32,
    /// Not 0: the first bytes of the Call-ID become new ones, so that the attempt is a new one.
    pub new_attempts: u32,
    /// Counts the new ones.
    pub attempt: u32,
}

/// Returns the eight octal digits of a number below 2^24, as text; the first one lowest.
#[inline(always)]
#[must_use]
pub const fn octal(number: u32) -> u64 {
    let mut text = 0x3030_3030_3030_3030;
    let mut i = 0;
    while i < DRAWN_DIGITS {
        text |= ((number >> (21 - 3 * i)) as u64 & 7) << (8 * i);
        i += 1;
    }
    text
}
