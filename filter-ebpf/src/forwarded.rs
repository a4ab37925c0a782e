//! A datagram that this machine only forwards, as netfilter gives it (Linux 6.6): netfilter has put it together, and
//! no socket here gets it.
//!
//! aya knows no programs of netfilter. `filter-user/src/datapath/forwarded.rs` loads this one.

use core::ffi::c_void;
use core::mem::{MaybeUninit, transmute};

use aya_ebpf::bindings::bpf_dynptr;
use aya_ebpf::helpers::generated::bpf_dynptr_read;
use filter_common::abi::DYNPTR_FROM_SKB;
use filter_common::frame;

use crate::datagram::{ETHERTYPE_IPV4, IPV4_LEN, IPV6_LEN, Packet, is_port_noted};
use crate::maps;
use crate::packet::Arrival;
use crate::room::Room;

/// Bytes that are read first. They have the ports of IPv4 without options, and of IPv6 (RFC 791 §3.1, RFC 8200 §3).
const START_LEN: usize = 48;
const ETHERTYPE_IPV6: u16 = 0x86DD;

/// The context of the program (Linux `struct bpf_nf_ctx`).
#[repr(C)]
pub struct NetfilterContext {
    _state: *const c_void,
    skb: *mut c_void,
}

/// A packet on its way through this machine. Its length and EtherType are in the room: in registers, the verifier
/// would walk all that follows once for each range of the length.
#[derive(Clone, Copy)]
pub struct Forwarded {
    skb: *mut c_void,
    room: *mut Room,
}

impl Forwarded {
    /// Takes a packet; `None` for one that the first look has surely not noted.
    #[inline(always)]
    pub fn new(context: *mut NetfilterContext) -> Option<Forwarded> {
        // SAFETY: the context that this program was called with.
        let skb = unsafe { (&raw const (*context).skb).read_volatile() };
        let room = maps::SECOND_LOOK_ROOM.get_ptr_mut(0)?;
        if may_be_noted(skb, room) == 0 { None } else { Some(Forwarded { skb, room }) }
    }
}

/// Notes EtherType and length of a packet in the room. Returns 0 for a packet that the first look has surely not noted.
#[inline(never)]
fn may_be_noted(skb: *mut c_void, room: *mut Room) -> u32 {
    let mut start = MaybeUninit::<[u8; START_LEN]>::uninit();
    // SAFETY: room for that number of bytes. They are read only if the kernel has written them.
    let start = unsafe {
        if !load(skb, 0, start.as_mut_ptr().cast(), START_LEN as u32) {
            return 0;
        }
        start.assume_init_ref()
    };
    let number = |at: usize| u16::from_be_bytes([start[at], start[at + 1]]);
    let is_ipv4 = start[0] >> 4 == 4;
    let has_options = is_ipv4 && start[0] & 0xF != (IPV4_LEN / 4) as u8;
    let (ethertype, len, protocol, port) = if is_ipv4 {
        (ETHERTYPE_IPV4, number(2) as usize, start[9], number(IPV4_LEN))
    } else {
        (ETHERTYPE_IPV6, IPV6_LEN + number(4) as usize, start[6], number(IPV6_LEN))
    };
    if !has_options && !is_port_noted(is_ipv4, protocol, port) {
        return 0;
    }
    // SAFETY: the room of this CPU, which no other packet uses meanwhile.
    unsafe {
        (&raw mut (*room).packet_len).write_volatile(len);
        (&raw mut (*room).ethertype).write_volatile(ethertype.to_be() as usize);
    }
    1
}

impl Arrival for Forwarded {
    /// Returns no number: netfilter shows none. Only replies to link-local addresses need it, which nothing forwards.
    #[inline(always)]
    fn interface(self) -> u32 {
        0
    }

    #[inline(always)]
    fn reaches_socket(self, _packet: &frame::Packet) -> bool {
        false
    }
}

impl Packet for Forwarded {
    #[inline(always)]
    fn len(self) -> usize {
        // SAFETY: the room of this CPU.
        unsafe { (&raw const (*self.room).packet_len).read_volatile() }
    }

    #[inline(always)]
    fn ethertype(self) -> u16 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.room).ethertype).read_volatile() as u16 }
    }

    #[inline(always)]
    unsafe fn load(self, offset: u32, to: *mut u8, len: u32) -> bool {
        // SAFETY: as the caller says.
        unsafe { load(self.skb, offset, to, len) }
    }
}

/// Copies bytes of a packet, which may lie in several pieces.
///
/// # Safety
/// `skb` is that of the context, and `to` has room for `len` bytes.
#[inline(always)]
unsafe fn load(skb: *mut c_void, offset: u32, to: *mut u8, len: u32) -> bool {
    type FromSkb = unsafe extern "C" fn(*mut c_void, u64, *mut bpf_dynptr) -> i32;
    let mut pointer = MaybeUninit::<bpf_dynptr>::uninit();
    // SAFETY: the loader puts the kernel's function `bpf_dynptr_from_skb` in place of this number. It writes the
    // pointer, which is valid until the program ends.
    unsafe {
        let from_skb: FromSkb = transmute(DYNPTR_FROM_SKB as usize);
        let found = from_skb(skb, 0, pointer.as_mut_ptr());
        // Without a pointer the read fails too: one way on instead of two.
        let read = bpf_dynptr_read(to.cast(), len, pointer.as_ptr(), offset, 0);
        let words = pointer.as_mut_ptr().cast::<u64>();
        words.write_volatile(0);
        words.add(1).write_volatile(0);
        i64::from(found) | read == 0
    }
}
