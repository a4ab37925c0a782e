//! The room that a reply is written into, and where the layers of a frame are.

use crate::bytes::{Bytes, OFFSET_MAX};
use crate::frame::VLANS_MAX;
use crate::handed_over::HandedOver;

/// Room for a frame with a reply; a power of two, because the verifier understands a mask.
pub const ROOM: usize = 2048;
/// Room for the reply to a request of several frames. Nothing of a request that can be read fills it.
pub const LONG_ROOM: usize = 2 * OFFSET_MAX;
pub(super) const ETHERNET_LEN: usize = 14;
pub(super) const TAG_LEN: usize = 4;
pub(super) const IPV4_LEN: usize = 20;
pub(super) const IPV6_LEN: usize = 40;
/// Length of a UDP header (RFC 768).
pub const UDP_LEN: usize = 8;
/// Where the message begins, after room for all layers, of which this is the longest. The head of an entry in the
/// ring to the daemon is before them.
pub(super) const HEAD: usize =
    HandedOver::LEN + ETHERNET_LEN + VLANS_MAX * TAG_LEN + IPV6_LEN + UDP_LEN;

/// Where a reply is in its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Offset of the first byte of the frame.
    pub start: usize,
    /// Offset of the IP header: what a raw socket sends begins here.
    pub ip: usize,
    /// Offset of the SIP message.
    pub message: usize,
    /// Offset after the last byte.
    pub end: usize,
}

/// The network layer of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    /// Offset of its header.
    pub(super) at: usize,
    /// Whether it is IPv4, otherwise IPv6.
    pub(super) is_ipv4: bool,
}

impl Network {
    /// Finds the network layer after up to two VLAN tags.
    #[inline(always)]
    pub(super) fn find<B: Bytes>(bytes: &B) -> Option<Network> {
        let mut at = ETHERNET_LEN;
        let mut tags = 0;
        while tags <= VLANS_MAX {
            match bytes.be16(at - 2)? {
                0x0800 => return Some(Network { at: bytes.hide_range(at), is_ipv4: true }),
                0x86DD => return Some(Network { at: bytes.hide_range(at), is_ipv4: false }),
                _ => at += TAG_LEN,
            }
            tags += 1;
        }
        None
    }
}
