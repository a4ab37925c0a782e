//! Room in a map for a datagram that the host has put together.

use filter_common::bytes::{OFFSET_MAX, WINDOW};
use filter_common::handed_over::HandedOver;
use filter_common::sip::message::Walk;

/// Length of the Ethernet header that is written before the IP packet: the packet then reads like a frame.
pub const ETHERNET_LEN: usize = 14;
/// Bytes of a datagram that are copied; a power of two.
pub const COPY_MAX: usize = OFFSET_MAX;

/// Room for one datagram, and for the walk over its headers.
#[repr(C, align(8))]
pub struct Room {
    /// The head of the entry for the daemon, if it answers the call. The entry goes on with the frame.
    pub head: HandedOver,
    /// An Ethernet header, the IP packet, and room for the last read.
    pub bytes: [u8; ETHERNET_LEN + COPY_MAX + WINDOW],
    /// How many of the bytes are of this datagram.
    pub readable: usize,
    /// How long the frame would be.
    pub frame_len: usize,
    /// Length of the IP packet, where the kernel does not show it.
    pub packet_len: usize,
    /// Its EtherType in network order.
    pub ethertype: usize,
    /// See [`crate::maps::SCRUB_SLOT`].
    pub scrub_slot: usize,
    /// How far the headers were read.
    pub walk: Walk,
}
