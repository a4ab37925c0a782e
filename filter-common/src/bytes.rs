//! How packet bytes are read: checked, one look at a time.
//!
//! Slices over packet memory do not verify in the kernel, so everything reads
//! through this trait. The kernel implements it with packet pointers, the host
//! with a slice.

/// Offsets from here on are never read: the verifier wants a bound on the sum with a
/// packet pointer. No buffer that a driver hands to XDP in one piece is longer.
pub const OFFSET_MAX: usize = 0x4000;
/// Bytes that are found readable at once.
pub const WINDOW: usize = 64;

/// The readable bytes of a frame, from its first one on.
pub trait Bytes: Sized {
    /// [`WINDOW`] bytes that can be read.
    type Window: Window;

    /// Returns the byte at `offset`; `None` outside the readable part.
    fn byte(&self, offset: usize) -> Option<u8>;

    /// Returns the eight bytes from `offset` on, the first one lowest; `None` when not all
    /// of them are in the readable part.
    fn word(&self, offset: usize) -> Option<u64>;

    /// Returns the [`WINDOW`] bytes from `offset` on; `None` when not all of them are in the readable part.
    fn window(&self, offset: usize) -> Option<Self::Window>;

    /// Returns how many bytes are in the readable part.
    fn readable(&self) -> usize;

    /// Returns the two bytes from `offset` on, in network order.
    fn be16(&self, offset: usize) -> Option<u16>;

    /// Returns the four bytes from `offset` on, in network order.
    fn be32(&self, offset: usize) -> Option<u32>;

    /// Returns the length of the whole frame with the parts that cannot be read directly (Linux 5.18,
    /// `bpf_xdp_get_buff_len`).
    fn frame_len(&self) -> usize;

    /// Returns these bytes with new packet pointers, so that the verifier forgets how many were found
    /// readable. Otherwise it walks the following code again for every way that leads there.
    #[must_use]
    fn revalidated(&self) -> Self;

    /// Replaces these bytes by [`Bytes::revalidated`] ones: their old bounds are left neither in a
    /// register nor on the stack.
    #[inline(always)]
    fn revalidate(&mut self) {
        *self = self.revalidated();
    }

    /// Returns `number` with its range hidden from the kernel's verifier. It then walks the code
    /// after a loop once, and not once for each way out of the loop.
    fn hide_range(&self, number: usize) -> usize {
        number
    }

    /// Returns `number` in a register that the verifier does not link to its copies. Its knowledge about a
    /// copy would otherwise make paths differ. This is cheaper than [`Bytes::hide_range`], and enough
    /// where the verifier knows no range of the number.
    fn break_link(&self, number: u64) -> u64 {
        number
    }

    /// Returns `number`, which the compiler then keeps in a register and does not compute again at each use.
    fn pinned(&self, number: u64) -> u64 {
        number
    }
}

/// [`WINDOW`] bytes that can be read.
pub trait Window {
    /// Returns its eight bytes from `INDEX` × 8 on, the first one lowest.
    fn word<const INDEX: usize>(&self) -> u64;
}

impl Window for [u8; WINDOW] {
    fn word<const INDEX: usize>(&self) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self[INDEX * 8..][..8]);
        u64::from_le_bytes(word)
    }
}

/// A frame on the host.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a> {
    readable: &'a [u8],
    frame_len: usize,
}

impl<'a> Slice<'a> {
    /// Makes a frame whose first `readable` bytes lie in one piece, as in the kernel.
    #[must_use]
    pub fn new(frame: &'a [u8], readable: usize) -> Slice<'a> {
        Slice { readable: &frame[..frame.len().min(readable)], frame_len: frame.len() }
    }

    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset >= OFFSET_MAX {
            return None;
        }
        self.readable.get(offset..offset + N)?.try_into().ok()
    }
}

impl<'a> From<&'a [u8]> for Slice<'a> {
    fn from(frame: &'a [u8]) -> Slice<'a> {
        Slice::new(frame, frame.len())
    }
}

impl Bytes for Slice<'_> {
    type Window = [u8; WINDOW];

    fn byte(&self, offset: usize) -> Option<u8> {
        self.array::<1>(offset).map(|[byte]| byte)
    }

    fn word(&self, offset: usize) -> Option<u64> {
        self.array(offset).map(u64::from_le_bytes)
    }

    fn window(&self, offset: usize) -> Option<[u8; WINDOW]> {
        self.array(offset)
    }

    fn readable(&self) -> usize {
        self.readable.len()
    }

    fn be16(&self, offset: usize) -> Option<u16> {
        self.array(offset).map(u16::from_be_bytes)
    }

    fn be32(&self, offset: usize) -> Option<u32> {
        self.array(offset).map(u32::from_be_bytes)
    }

    fn frame_len(&self) -> usize {
        self.frame_len
    }

    fn revalidated(&self) -> Self {
        *self
    }
}
