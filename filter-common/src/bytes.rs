//! How packet bytes are read: checked, one look at a time.
//!
//! Slices over packet memory do not verify in the kernel, so everything reads
//! through this trait. The kernel implements it with packet pointers, the host
//! with a slice.

/// Offsets from here on are never read: the verifier wants a bound on what is added
/// to a packet pointer, and no buffer that a driver hands to XDP in one piece is longer.
pub const OFFSET_MAX: usize = 0x4000;
/// Bytes that are found readable at once.
pub const WINDOW: usize = 64;

/// The readable bytes of a frame, from its first one on.
pub trait Bytes: Sized {
    /// [`WINDOW`] bytes that can be read.
    type Window: Window;

    /// The byte at `offset`; `None` outside the readable part.
    fn byte(&self, offset: usize) -> Option<u8>;

    /// The eight bytes from `offset` on, the first one lowest; `None` when not all
    /// of them are in the readable part.
    fn word(&self, offset: usize) -> Option<u64>;

    /// The [`WINDOW`] bytes from `offset` on; `None` when not all of them are in the readable part.
    fn window(&self, offset: usize) -> Option<Self::Window>;

    /// How many bytes are in the readable part.
    fn readable(&self) -> usize;

    /// The two bytes from `offset` on, in network order.
    fn be16(&self, offset: usize) -> Option<u16>;

    /// The four bytes from `offset` on, in network order.
    fn be32(&self, offset: usize) -> Option<u32>;

    /// Length of the whole frame, also of what cannot be read directly (Linux 5.18,
    /// `bpf_xdp_get_buff_len`).
    fn frame_len(&self) -> usize;

    /// The same bytes, of which the verifier shall forget how many were found readable:
    /// else everything that follows is walked again for every way that leads there.
    #[must_use]
    fn revalidated(&self) -> Self;

    /// The same in place: what was known of these bytes before is nowhere any more, neither in a
    /// register nor on the stack, whatever the verifier takes for alive.
    #[inline(always)]
    fn revalidate(&mut self) {
        *self = self.revalidated();
    }

    /// `number`, of which the kernel's verifier shall forget what it knows: what follows
    /// a loop is then walked once, and not once for each way out of the loop.
    fn hide_range(&self, number: usize) -> usize {
        number
    }

    /// `number`, of which the verifier shall forget which registers it was copied to: what it learnt
    /// of a copy would else tell ways apart. A cheap [`Bytes::hide_range`] of what no way knows anything about.
    fn break_link(&self, number: u64) -> u64 {
        number
    }

    /// `number`, which the compiler shall keep in a register and not make anew at each use.
    fn pinned(&self, number: u64) -> u64 {
        number
    }
}

/// [`WINDOW`] bytes that can be read.
pub trait Window {
    /// Its eight bytes from `INDEX` × 8 on, the first one lowest.
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
    /// A frame whose first `readable` bytes lie in one piece, as in the kernel.
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
