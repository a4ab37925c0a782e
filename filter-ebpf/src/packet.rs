//! The only place that touches the memory of a packet that comes in or leaves.

use core::arch::asm;

use aya_ebpf::Global;
use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::generated::{
    bpf_sk_lookup_udp, bpf_sk_release, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
};
use filter_common::abi::FragmentKey;
use filter_common::bytes::{Bytes, OFFSET_MAX, WINDOW, Window};
use filter_common::frame::Packet;

use crate::maps;

/// 1: this is a replay, and the time is that of the capture. Set when the program is
/// loaded; it is constant for the verifier, so a live filter has no such code.
#[unsafe(no_mangle)]
static REPLAY: Global<u32> = Global::new(0);

/// Returns whether frames of a capture are judged.
#[inline(always)]
pub fn is_replay() -> bool {
    REPLAY.load() != 0
}

/// 1: the kernel has `bpf_xdp_get_buff_len` and `bpf_xdp_load_bytes` (Linux 5.18). Set when the program
/// is loaded; it is constant for the verifier, so on a kernel without them no code calls them.
#[unsafe(no_mangle)]
static BUFFER_HELPERS: Global<u32> = Global::new(1);

/// Returns whether the kernel has the helpers that reach all buffers of a frame. Without them a frame is
/// one buffer.
#[inline(always)]
pub fn has_buffer_helpers() -> bool {
    BUFFER_HELPERS.load() != 0
}

/// The pointer that the kernel calls a program with. It is passed by value, so that no struct holds a
/// reference to one on the stack. After such a reference the verifier of Linux 7.1 takes dead slots of
/// the stack for alive. It then walks the code after it once for each value in them.
pub trait Context: Copy {
    /// Returns the packet pointers: the first byte, and the one after the last that can be read directly.
    fn pointers(self) -> (usize, usize);
    /// Returns the length of the whole frame.
    fn len(self) -> usize;
}

/// The arrival of a packet, as far as its context shows it.
pub trait Arrival: Copy {
    /// Returns the index of the interface that the packet came by.
    fn interface(self) -> u32;
    /// Returns whether a socket of this machine gets the datagram in a frame. Where the host changes the destination, it is
    /// not known.
    fn reaches_socket(self, packet: &Packet) -> bool;
}

/// A frame that is reported: parts of it are copied into rings.
pub trait Frame: Copy {
    /// Returns the length of the frame in bytes.
    fn frame_len(self) -> usize;

    /// Copies `len` bytes of the frame from `offset` on; `len` is 1 to `MAX`, a power of two. Returns `false` if
    /// the frame does not have them, or not in one buffer where the kernel lacks the helpers.
    ///
    /// # Safety
    /// `to` has room for `MAX` bytes and is aligned for words.
    unsafe fn copy<const MAX: usize>(self, offset: usize, to: *mut u8, len: usize) -> bool;
}

impl Frame for *mut xdp_md {
    #[inline(always)]
    fn frame_len(self) -> usize {
        self.len()
    }

    #[inline(always)]
    unsafe fn copy<const MAX: usize>(self, offset: usize, to: *mut u8, len: usize) -> bool {
        const { assert!(MAX.is_power_of_two()) };
        let len = clamped::<MAX>(len);
        if has_buffer_helpers() {
            // SAFETY: the context of this packet, and as much room as the caller says.
            return unsafe { bpf_xdp_load_bytes(self, offset as u32, to.cast(), len as u32) } == 0;
        }
        // SAFETY: as the caller says.
        unsafe { copy_readable::<MAX>(self, offset, to, len) != 0 }
    }
}

/// Returns a length between 1 and `MAX`, also for the verifier of Linux 6.1, which learns nothing from
/// `len != 0`.
#[inline(always)]
pub fn clamped<const MAX: usize>(len: usize) -> usize {
    (barrier_var(len.wrapping_sub(1)) & (MAX - 1)) + 1
}

impl Context for *mut xdp_md {
    #[inline(always)]
    fn pointers(self) -> (usize, usize) {
        // SAFETY: the context that this program was called with. Volatile, so that the
        // pointers of `revalidated` are new ones to the compiler too.
        unsafe {
            (
                (&raw const (*self).data).read_volatile() as usize,
                (&raw const (*self).data_end).read_volatile() as usize,
            )
        }
    }

    #[inline(always)]
    fn len(self) -> usize {
        if !has_buffer_helpers() {
            if is_replay() {
                return maps::REPLAY_LEN.get(0).copied().unwrap_or(0) as usize;
            }
            let (start, end) = self.pointers();
            return barrier_var(end) - barrier_var(start);
        }
        // SAFETY: the helper only reads the context that this program was called with.
        unsafe { bpf_xdp_get_buff_len(self) as usize }
    }
}

impl Arrival for *mut xdp_md {
    #[inline(always)]
    fn interface(self) -> u32 {
        // SAFETY: as above.
        unsafe { (&raw const (*self).ingress_ifindex).read_volatile() }
    }

    #[inline(always)]
    fn reaches_socket(self, packet: &Packet) -> bool {
        has_socket(self, packet) != 0
    }
}

/// Returns 1 if a UDP socket gets the datagram, otherwise 0.
#[inline(never)]
fn has_socket(context: *mut xdp_md, packet: &Packet) -> u32 {
    /// The namespace of the interface (Linux `include/uapi/linux/bpf.h`).
    const CURRENT_NAMESPACE: u64 = u64::MAX;
    const ADDRESS_LEN: usize = 16;
    const IPV4_LEN: usize = 4;
    let FragmentKey { source, destination, .. } = &packet.fragment;
    // Big-endian: `struct bpf_sock_tuple` begins with the addresses, and the ports follow them.
    let ports = [packet.source_port.to_be(), packet.destination_port.to_be()];
    // SAFETY: the helper reads as many bytes as it is given, and the socket that it finds is released.
    unsafe {
        let socket = if is_mapped(source) {
            let mut key = [0u32; 3];
            key[0] = word(source, 12);
            key[1] = word(destination, 12);
            key[2] = ports[0] as u32 | (ports[1] as u32) << 16;
            let len = (2 * IPV4_LEN + 4) as u32;
            bpf_sk_lookup_udp(context.cast(), key.as_mut_ptr().cast(), len, CURRENT_NAMESPACE, 0)
        } else {
            let mut key = [0u32; 9];
            let mut i = 0;
            while i < 4 {
                key[i] = word(source, 4 * i);
                key[4 + i] = word(destination, 4 * i);
                i += 1;
            }
            key[8] = ports[0] as u32 | (ports[1] as u32) << 16;
            let len = (2 * ADDRESS_LEN + 4) as u32;
            bpf_sk_lookup_udp(context.cast(), key.as_mut_ptr().cast(), len, CURRENT_NAMESPACE, 0)
        };
        if socket.is_null() {
            return 0;
        }
        bpf_sk_release(socket.cast());
        1
    }
}

/// Returns four bytes of an address, as they are in memory.
#[inline(always)]
fn word(address: &[u8; 16], at: usize) -> u32 {
    u32::from_ne_bytes([address[at], address[at + 1], address[at + 2], address[at + 3]])
}

/// Returns whether an address is a mapped IPv4 one (RFC 4291 §2.5.5.2).
#[inline(always)]
fn is_mapped(address: &[u8; 16]) -> bool {
    u128::from_be_bytes(*address) >> 32 == 0xFFFF
}

impl Context for *mut __sk_buff {
    #[inline(always)]
    fn pointers(self) -> (usize, usize) {
        // SAFETY: as above.
        unsafe {
            (
                (&raw const (*self).data).read_volatile() as usize,
                (&raw const (*self).data_end).read_volatile() as usize,
            )
        }
    }

    #[inline(always)]
    fn len(self) -> usize {
        // SAFETY: as above.
        unsafe { (*self).len as usize }
    }
}

impl Arrival for *mut __sk_buff {
    #[inline(always)]
    fn interface(self) -> u32 {
        // SAFETY: as above.
        unsafe { (&raw const (*self).ifindex).read_volatile() }
    }

    #[inline(always)]
    fn reaches_socket(self, _: &Packet) -> bool {
        true
    }
}

/// The directly readable part of a frame: `start` and `end` are packet pointers. They
/// travel as numbers: a reference to the context would become two 32-bit arguments, and
/// the verifier refuses to extend them to pointers again.
pub struct PacketBytes<C> {
    start: usize,
    end: usize,
    context: C,
    /// Map memory: what the verifier reads back from there it knows nothing about.
    scrub_slot: *mut usize,
}

impl<C: Context> PacketBytes<C> {
    #[inline(always)]
    pub fn new(context: C, scrub_slot: *mut usize) -> PacketBytes<C> {
        let (start, end) = context.pointers();
        PacketBytes { start, end, context, scrub_slot }
    }

    /// Returns a pointer to `T` at `offset`, when all of it is readable.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*const T> {
        // The code must add the offset that it checked, and read the pointer that it checked:
        // LLVM would make sums of its own.
        let offset = barrier_var(offset);
        if offset >= OFFSET_MAX {
            return None;
        }
        let pointer = barrier_var(self.start + offset);
        // `p + 1 > end` would become `p >= end`, which shows the verifier nothing.
        if barrier_var(pointer + size_of::<T>()) > self.end {
            return None;
        }
        Some(pointer as *const T)
    }
}

/// Copies without a helper; 0: not all of them can be read.
///
/// # Safety
/// As for [`Frame::copy`].
#[inline(never)]
unsafe fn copy_readable<const MAX: usize>(
    context: *mut xdp_md,
    offset: usize,
    to: *mut u8,
    len: usize,
) -> u32 {
    let Some(scrub_slot) = maps::SCRUB_SLOT.get_ptr_mut(0) else {
        return 0;
    };
    let mut bytes = PacketBytes::new(context, scrub_slot);
    let (len, offset) = (bytes.hide_range(len), bytes.hide_range(offset));
    let mut i = 0;
    // The last loop reads the bytes that a loop cannot read, on one way for the verifier.
    while i < MAX && i + WINDOW <= len {
        let Some(window) = bytes.window(offset + i) else {
            break;
        };
        macro_rules! words {
            ($($index:literal)*) => {
                $(
                    // SAFETY: below MAX, and aligned for words.
                    unsafe {
                        let word = window.word::<$index>().to_le();
                        to.add(i + 8 * $index).cast::<u64>().write(word);
                    }
                )*
            };
        }
        words!(0 1 2 3 4 5 6 7);
        i += WINDOW;
    }
    bytes.revalidate();
    let (mut i, len, offset) =
        (bytes.hide_range(i), bytes.hide_range(len), bytes.hide_range(offset));
    let mut words = 0;
    while words < WINDOW / 8 {
        let at = barrier_var(i);
        if at > MAX - 8 || at + 8 > len {
            break;
        }
        let Some(word) = bytes.word(offset + at) else {
            break;
        };
        // SAFETY: below MAX; a multiple of 8.
        unsafe { to.add(at).cast::<u64>().write(word.to_le()) };
        i += 8;
        words += 1;
    }
    bytes.revalidate();
    let (mut i, len, offset) =
        (bytes.hide_range(i), bytes.hide_range(len), bytes.hide_range(offset));
    let mut rest = 0;
    while rest < 8 {
        let at = barrier_var(i);
        if at >= MAX || at >= len {
            break;
        }
        let Some(byte) = bytes.byte(offset + at) else {
            return 0;
        };
        // SAFETY: below MAX.
        unsafe { to.add(at).write(byte) };
        i += 1;
        rest += 1;
    }
    1
}

/// Returns `number` as one that LLVM knows nothing about. The barrier has to be an
/// instruction: with none the kernel says "Invalid line_info".
#[inline(always)]
pub fn barrier_var(mut number: usize) -> usize {
    // SAFETY: moves a register onto itself.
    unsafe { asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack)) };
    number
}

/// One load of bytes of any alignment. The compiler would load them one by one, and the target feature
/// that forbids it also misaligns the stack.
macro_rules! load {
    ($self:ident, $offset:ident, $type:ty, $instruction:literal) => {{
        let pointer = $self.at::<$type>($offset)?;
        let value: u64;
        // SAFETY: `at` has checked that all bytes of the load can be read.
        unsafe {
            core::arch::asm!($instruction, out(reg) value, in(reg) pointer,
                options(pure, readonly, nostack));
        }
        Some(value as $type)
    }};
}
pub(crate) use load;

/// The reads of [`Bytes`], for a type with an `at` that returns a checked pointer.
macro_rules! reads {
    () => {
        type Window = $crate::packet::CheckedWindow;

        #[inline(always)]
        fn byte(&self, offset: usize) -> Option<u8> {
            $crate::packet::load!(self, offset, u8, "{0} = *(u8 *)({1} + 0)")
        }

        #[inline(always)]
        fn word(&self, offset: usize) -> Option<u64> {
            $crate::packet::load!(self, offset, u64, "{0} = *(u64 *)({1} + 0)").map(u64::from_le)
        }

        #[inline(always)]
        fn window(&self, offset: usize) -> Option<$crate::packet::CheckedWindow> {
            self.at(offset).map($crate::packet::CheckedWindow)
        }

        #[inline(always)]
        fn be16(&self, offset: usize) -> Option<u16> {
            $crate::packet::load!(self, offset, u16, "{0} = *(u16 *)({1} + 0)").map(u16::from_be)
        }

        #[inline(always)]
        fn be32(&self, offset: usize) -> Option<u32> {
            $crate::packet::load!(self, offset, u32, "{0} = *(u32 *)({1} + 0)").map(u32::from_be)
        }

        #[inline(always)]
        fn break_link(&self, mut number: u64) -> u64 {
            // SAFETY: changes no bit of a register.
            unsafe {
                core::arch::asm!("{0} ^= 0", inout(reg) number, options(pure, nomem, nostack));
            }
            number
        }

        #[inline(always)]
        fn pinned(&self, number: u64) -> u64 {
            $crate::packet::barrier_var(number as usize) as u64
        }
    };
}
pub(crate) use reads;

/// A pointer, with [`WINDOW`] bytes after it that were checked.
pub struct CheckedWindow(pub *const [u8; WINDOW]);

impl Window for CheckedWindow {
    #[inline(always)]
    fn word<const INDEX: usize>(&self) -> u64 {
        const { assert!(INDEX < WINDOW / 8) };
        let word: u64;
        // SAFETY: `at` has checked that all bytes of the window can be read.
        unsafe {
            asm!("{0} = *(u64 *)({1} + {2})", out(reg) word, in(reg) self.0, const INDEX * 8,
                options(pure, readonly, nostack));
        }
        u64::from_le(word)
    }
}

impl<C: Context> Bytes for PacketBytes<C> {
    // By its path: the programs of the benchmark have no other user of it.
    crate::packet::reads!();

    #[inline(always)]
    fn readable(&self) -> usize {
        barrier_var(self.end) - barrier_var(self.start)
    }

    #[inline(always)]
    fn frame_len(&self) -> usize {
        self.context.len()
    }

    #[inline(always)]
    fn revalidated(&self) -> Self {
        PacketBytes::new(self.context, self.scrub_slot)
    }

    #[inline(always)]
    fn hide_range(&self, number: usize) -> usize {
        // SAFETY: `scrub_slot` is an aligned element of a per-CPU map.
        unsafe {
            self.scrub_slot.write_volatile(number);
            self.scrub_slot.read_volatile()
        }
    }
}
