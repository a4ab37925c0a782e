//! A datagram that the host has put together, copied into a map: its pieces do not lie in one buffer.

use core::ffi::c_void;
use core::ptr::null_mut;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_ringbuf_output, bpf_skb_load_bytes};
use filter_common::abi::{TRANSPORT_TCP, TRANSPORT_UDP};
use filter_common::bytes::{Bytes, OFFSET_MAX};
use filter_common::handed_over::HandedOver;
use filter_common::sip::fields::Fields;
use filter_common::sip::message::{TURNS_MAX, Walk};

use crate::maps;
use crate::packet::{Frame, barrier_var, clamped, is_replay, reads};
use crate::room::{COPY_MAX, ETHERNET_LEN, Room};

/// Bytes that are enough for the outer layers; those of most datagrams are shorter.
pub const OUTER_MAX: usize = 128;

/// Lengths of headers without options (RFC 791 §3.1, RFC 8200 §3).
pub const IPV4_LEN: usize = 20;
pub const IPV6_LEN: usize = 40;
pub const ETHERTYPE_IPV4: u16 = 0x0800;

/// Returns `false` for a packet of this protocol and source port that the first look has surely not noted. Most packets are
/// such: TCP, or speech from another port.
#[inline(always)]
pub fn is_port_noted(is_ipv4: bool, protocol: u8, port: u16) -> bool {
    match protocol {
        TRANSPORT_UDP => maps::UNREAD_PORTS.get(port as u32).is_some_and(|noted| *noted != 0),
        TRANSPORT_TCP => false,
        // In IPv6 other headers may come before that of UDP.
        _ => !is_ipv4,
    }
}

/// A packet that the host has put together. Its bytes begin with the IP header.
pub trait Packet: Copy {
    /// Returns its length.
    fn len(self) -> usize;
    /// Returns its EtherType in network order.
    fn ethertype(self) -> u16;
    /// Copies `len` bytes from `offset` on. `false`: the packet does not have them.
    ///
    /// # Safety
    /// `to` has room for `len` bytes.
    unsafe fn load(self, offset: u32, to: *mut u8, len: u32) -> bool;
}

impl Packet for *mut __sk_buff {
    #[inline(always)]
    fn len(self) -> usize {
        // SAFETY: the context that this program was called with.
        unsafe { (*self).len as usize }
    }

    #[inline(always)]
    fn ethertype(self) -> u16 {
        // SAFETY: as above.
        unsafe { (*self).protocol as u16 }
    }

    #[inline(always)]
    unsafe fn load(self, offset: u32, to: *mut u8, len: u32) -> bool {
        // SAFETY: as the caller says.
        unsafe { bpf_skb_load_bytes(self.cast(), offset, to.cast(), len) == 0 }
    }
}

/// The datagram in a [`Room`], as a frame.
#[derive(Clone, Copy)]
pub struct Datagram(*mut Room);

impl Datagram {
    /// Takes the room of this CPU. `None` never happens: the map has that element.
    #[inline(always)]
    pub fn of_this_cpu() -> Option<Datagram> {
        maps::SECOND_LOOK_ROOM.get_ptr_mut(0).map(Datagram)
    }

    /// Copies the first bytes of a packet, `MAX` at most, which is a power of two.
    #[inline(always)]
    pub fn fill<const MAX: usize>(&mut self, packet: impl Packet) -> bool {
        const { assert!(MAX.is_power_of_two() && MAX <= COPY_MAX) };
        let len = packet.len();
        let wanted = if len < MAX { len } else { MAX };
        let protocol = packet.ethertype().to_ne_bytes();
        // SAFETY: the room of this CPU, which no other packet uses meanwhile.
        unsafe {
            (&raw mut (*self.0).bytes[ETHERNET_LEN - 2]).write_volatile(protocol[0]);
            (&raw mut (*self.0).bytes[ETHERNET_LEN - 1]).write_volatile(protocol[1]);
            (&raw mut (*self.0).frame_len).write_volatile(frame_len(ETHERNET_LEN + len));
            (&raw mut (*self.0).readable).write_volatile(ETHERNET_LEN + wanted);
            let to = (&raw mut (*self.0).bytes).cast::<u8>().add(ETHERNET_LEN);
            packet.load(0, to, clamped::<MAX>(wanted) as u32)
        }
    }

    /// Walks the headers as `message::scan_in_turns` does, with `bpf_loop` (Linux 5.17).
    #[inline(never)]
    pub fn scan(&self, start: usize, len: usize, fields: &mut Fields) -> u8 {
        // SAFETY: the room of this CPU.
        unsafe {
            (&raw mut (*self.0).walk).write(Walk::new(start, len));
            bpf_loop(TURNS_MAX, turn as *mut c_void, null_mut(), 0);
            let walk = &raw const (*self.0).walk;
            *fields = (*walk).fields;
            (*walk).state()
        }
    }

    /// Returns a pointer to `T` at `offset`, when all of it is readable.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*const T> {
        // The code must add the offset that it checked.
        let offset = barrier_var(offset);
        if offset >= OFFSET_MAX || offset + size_of::<T>() > self.readable() {
            return None;
        }
        Some(barrier_var(self.0 as usize + HandedOver::LEN + offset) as *const T)
    }

    /// Hands the datagram to the daemon, after this head. Returns 1, or 0 if its ring has no room. The datagram has been
    /// copied whole.
    #[inline(never)]
    pub fn hand_over(&self, head: &HandedOver) -> u64 {
        const { assert!(core::mem::offset_of!(Room, bytes) == HandedOver::LEN) };
        let len = clamped::<COPY_MAX>(self.readable().wrapping_sub(ETHERNET_LEN));
        // SAFETY: the room of this CPU. The datagram, its head and an Ethernet header are at its beginning.
        unsafe {
            (&raw mut (*self.0).head).write(*head);
            let ring = (&raw const maps::HANDED_OVER).cast_mut().cast();
            let len = HandedOver::LEN + ETHERNET_LEN + len;
            (bpf_ringbuf_output(ring, self.0.cast(), len as u64, 0) == 0) as u64
        }
    }
}

/// Returns the length of a frame. In a replay the kernel takes no datagram that is longer than a page.
#[inline(always)]
fn frame_len(len: usize) -> usize {
    if is_replay() { maps::REPLAY_LEN.get(0).copied().unwrap_or(0) as usize } else { len }
}

/// Walks one turn on. Returns 1 when the walk is over.
unsafe extern "C" fn turn(_index: u32, _context: *mut c_void) -> i64 {
    let Some(datagram) = Datagram::of_this_cpu() else {
        return 1;
    };
    // SAFETY: the room of this CPU, where `scan` has put the walk.
    unsafe { i64::from((*datagram.0).walk.turn(&datagram)) }
}

impl Bytes for Datagram {
    reads!();

    #[inline(always)]
    fn readable(&self) -> usize {
        // SAFETY: the room of this CPU.
        unsafe { (&raw const (*self.0).readable).read_volatile() }
    }

    #[inline(always)]
    fn frame_len(&self) -> usize {
        // SAFETY: the room of this CPU.
        unsafe { (&raw const (*self.0).frame_len).read_volatile() }
    }

    #[inline(always)]
    fn revalidated(&self) -> Self {
        *self
    }

    #[inline(always)]
    fn hide_range(&self, number: usize) -> usize {
        // SAFETY: the room of this CPU.
        unsafe {
            let slot = &raw mut (*self.0).scrub_slot;
            slot.write_volatile(number);
            slot.read_volatile()
        }
    }
}

/// A packet that is reported as a frame: with an Ethernet header of zeros before it.
#[derive(Clone, Copy)]
pub struct Reassembled<P>(pub P);

impl<P: Packet> Frame for Reassembled<P> {
    #[inline(always)]
    fn frame_len(self) -> usize {
        ETHERNET_LEN + self.0.len()
    }

    #[inline(always)]
    unsafe fn copy<const MAX: usize>(self, offset: usize, to: *mut u8, len: usize) -> bool {
        if offset >= ETHERNET_LEN {
            let at = (offset - ETHERNET_LEN) as u32;
            let len = clamped::<MAX>(len) as u32;
            // SAFETY: as much room as the caller says.
            return unsafe { self.0.load(at, to, len) };
        }
        // Only evidence begins with the Ethernet header, and it has more bytes than that.
        let rest = clamped::<MAX>(len.wrapping_sub(ETHERNET_LEN)).min(MAX - ETHERNET_LEN);
        // SAFETY: as above. The address of Ethernet is six bytes twice, then the type.
        unsafe {
            to.cast::<u64>().write(0);
            to.add(8).cast::<u32>().write(0);
            to.add(12).cast::<u16>().write(self.0.ethertype());
            self.0.load(0, to.add(ETHERNET_LEN), rest as u32)
        }
    }
}
