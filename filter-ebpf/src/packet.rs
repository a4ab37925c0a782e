//! The only place that touches packet memory.

use core::arch::asm;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use aya_ebpf::programs::{TcContext, XdpContext};
use filter_common::bytes::{Bytes, OFFSET_MAX, WINDOW, Window};

/// What a program is called with.
pub trait Frame {
    /// The packet pointers: the first byte, and the one behind the last that can be read directly.
    fn pointers(&self) -> (usize, usize);
    /// Length of the whole frame.
    fn len(&self) -> usize;
}

impl Frame for XdpContext {
    #[inline(always)]
    fn pointers(&self) -> (usize, usize) {
        // SAFETY: the context that this program was called with. Volatile, so that the
        // pointers of `renewed` are new ones to the compiler too.
        unsafe {
            (
                (&raw const (*self.ctx).data).read_volatile() as usize,
                (&raw const (*self.ctx).data_end).read_volatile() as usize,
            )
        }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        // SAFETY: the helper only reads the context that this program was called with.
        unsafe { bpf_xdp_get_buff_len(self.as_ptr().cast()) as usize }
    }
}

impl Frame for TcContext {
    #[inline(always)]
    fn pointers(&self) -> (usize, usize) {
        // SAFETY: as above.
        unsafe {
            (
                (&raw const (*self.skb.skb).data).read_volatile() as usize,
                (&raw const (*self.skb.skb).data_end).read_volatile() as usize,
            )
        }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.skb.len() as usize
    }
}

/// The directly readable part of a frame: `start` and `end` are packet pointers. They
/// travel as numbers because a reference to the context would be turned into two
/// 32-bit arguments, which the verifier refuses to extend to pointers again.
pub struct PacketBytes<'a, F> {
    start: usize,
    end: usize,
    ctx: &'a F,
    /// Map memory: what the verifier reads back from there it knows nothing about.
    spare: *mut usize,
}

impl<'a, F: Frame> PacketBytes<'a, F> {
    #[inline(always)]
    pub fn new(ctx: &'a F, spare: *mut usize) -> PacketBytes<'a, F> {
        let (start, end) = ctx.pointers();
        PacketBytes { start, end, ctx, spare }
    }

    /// A pointer to `T` at `offset`, when all of it is readable.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*const T> {
        // The offset that is checked must be the one that is added, and the pointer that
        // is checked the one that is read: LLVM would make sums of its own.
        let offset = opaque(offset);
        if offset >= OFFSET_MAX {
            return None;
        }
        let pointer = opaque(self.start + offset);
        // `p + 1 > end` would become `p >= end`, which tells the verifier nothing.
        if opaque(pointer + size_of::<T>()) > self.end {
            return None;
        }
        Some(pointer as *const T)
    }
}

/// The same number, as one that LLVM knows nothing about. The barrier has to be an
/// instruction: with none the kernel says "Invalid line_info".
#[inline(always)]
pub fn opaque(mut number: usize) -> usize {
    // SAFETY: moves a register onto itself.
    unsafe { asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack)) };
    number
}

/// One load of a packet's bytes, whatever their alignment: the compiler would load them
/// one by one, and the target feature that forbids it also misaligns the stack.
macro_rules! load {
    ($self:ident, $offset:ident, $type:ty, $instruction:literal) => {{
        let pointer = $self.at::<$type>($offset)?;
        let value: u64;
        // SAFETY: `at` has checked all bytes of the load against the end of the packet.
        unsafe {
            asm!($instruction, out(reg) value, in(reg) pointer, options(pure, readonly, nostack));
        }
        Some(value as $type)
    }};
}

/// A packet pointer, with [`WINDOW`] bytes behind it that were checked.
pub struct PacketWindow(*const [u8; WINDOW]);

impl Window for PacketWindow {
    #[inline(always)]
    fn word<const INDEX: usize>(&self) -> u64 {
        const { assert!(INDEX < WINDOW / 8) };
        let word: u64;
        // SAFETY: `at` has checked all bytes of the window against the end of the packet.
        unsafe {
            asm!("{0} = *(u64 *)({1} + {2})", out(reg) word, in(reg) self.0, const INDEX * 8,
                options(pure, readonly, nostack));
        }
        u64::from_le(word)
    }
}

impl<F: Frame> Bytes for PacketBytes<'_, F> {
    type Window = PacketWindow;

    #[inline(always)]
    fn byte(&self, offset: usize) -> Option<u8> {
        load!(self, offset, u8, "{0} = *(u8 *)({1} + 0)")
    }

    #[inline(always)]
    fn word(&self, offset: usize) -> Option<u64> {
        load!(self, offset, u64, "{0} = *(u64 *)({1} + 0)").map(u64::from_le)
    }

    #[inline(always)]
    fn window(&self, offset: usize) -> Option<PacketWindow> {
        self.at(offset).map(PacketWindow)
    }

    #[inline(always)]
    fn readable(&self) -> usize {
        opaque(self.end) - opaque(self.start)
    }

    #[inline(always)]
    fn be16(&self, offset: usize) -> Option<u16> {
        load!(self, offset, u16, "{0} = *(u16 *)({1} + 0)").map(u16::from_be)
    }

    #[inline(always)]
    fn be32(&self, offset: usize) -> Option<u32> {
        load!(self, offset, u32, "{0} = *(u32 *)({1} + 0)").map(u32::from_be)
    }

    #[inline(always)]
    fn frame_len(&self) -> usize {
        self.ctx.len()
    }

    #[inline(always)]
    fn renewed(&self) -> Self {
        PacketBytes::new(self.ctx, self.spare)
    }

    #[inline(always)]
    fn forget(&self, number: usize) -> usize {
        // SAFETY: `spare` is an aligned element of a per-CPU map.
        unsafe {
            self.spare.write_volatile(number);
            self.spare.read_volatile()
        }
    }

    #[inline(always)]
    fn unlinked(&self, mut number: u64) -> u64 {
        // SAFETY: changes no bit of a register.
        unsafe { asm!("{0} ^= 0", inout(reg) number, options(pure, nomem, nostack)) };
        number
    }

    #[inline(always)]
    fn pinned(&self, number: u64) -> u64 {
        opaque(number as usize) as u64
    }
}
