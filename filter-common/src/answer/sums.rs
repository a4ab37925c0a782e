//! Checksums (RFC 1071): whether a request came whole, and those of the reply.

use super::outer::{Network, ROOM, UDP_LEN};
use crate::abi::TRANSPORT_UDP;
use crate::bytes::{Bytes, OFFSET_MAX};
use crate::frame::{Packet, Part};

/// The longest UDP datagram whose sum is made, in bytes: all that an Ethernet frame of 1,500 bytes can hold.
pub const SUM_MAX: usize = 1480;
const IPV4_LEN_MAX: usize = 60;

/// The finding about the checksums of a frame. Only a frame that is [`Checked::Right`] or [`Checked::Partial`] may get a
/// final reply, and [`Checked::Missing`] where the trunk allows it. A damaged frame is dropped, and
/// the client sends it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// The sums of the IPv4 header and of the UDP datagram are right.
    Right,
    /// The sum of the IPv4 header is right. The UDP checksum is only that of the pseudo-header: the frame
    /// never left this machine, and the network card would complete it (`CHECKSUM_PARTIAL`).
    Partial,
    /// The sum of the IPv4 header is right, and the datagram has none (RFC 768).
    Missing,
    /// A sum is wrong, or missing over IPv6 (RFC 8200 §8.1).
    Wrong,
    /// The datagram is not whole, not in one buffer, or too long: [`SUM_MAX`] for [`ROOM`].
    Unread,
}

/// Returns the longest datagram whose reply is made in this room.
const fn longest(room: usize) -> usize {
    if room == ROOM { SUM_MAX } else { OFFSET_MAX }
}

/// Checks the sums of the frame, whose outer layers are in `packet`, before a reply is made in a room of `SIZE` bytes.
#[inline(always)]
#[must_use]
pub fn check<B: Bytes, const SIZE: usize>(bytes: &B, packet: &Packet) -> Checked {
    let datagram = packet.payload.wrapping_sub(UDP_LEN);
    let len = packet.payload_len + UDP_LEN;
    let is_whole = packet.transport == TRANSPORT_UDP && packet.part == Part::Whole;
    if !is_whole || len > const { longest(SIZE) } {
        return Checked::Unread;
    }
    let Some(network) = Network::find(bytes) else {
        return Checked::Unread;
    };
    if network.is_ipv4 {
        let header_len = bytes.byte(network.at).unwrap_or(0) as usize % 16 * 4;
        match of_frame(bytes, network.at, header_len, IPV4_LEN_MAX, Sum::default()) {
            Some(sum) if sum.is_right() => {}
            Some(_) => return Checked::Wrong,
            None => return Checked::Unread,
        }
    }
    let pseudo = Sum::of_pseudo_header(packet, len as u16);
    if packet.checksum == 0 {
        return if network.is_ipv4 { Checked::Missing } else { Checked::Wrong };
    }
    match of_frame(bytes, datagram, len, const { longest(SIZE) }, pseudo) {
        // First: the right sum may by chance be that of the pseudo-header.
        Some(sum) if sum.is_right() => Checked::Right,
        Some(_) if packet.checksum == pseudo.folded() => Checked::Partial,
        Some(_) => Checked::Wrong,
        None => Checked::Unread,
    }
}

/// A sum of 16-bit words, in the byte order of this machine's words: the lowest byte first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum(u64);

impl Sum {
    /// Returns the sum of the pseudo-header of a datagram between the hosts of `packet` (RFC 768, RFC 8200
    /// §8.1). Both directions have one sum.
    #[inline(always)]
    pub(super) fn of_pseudo_header(packet: &Packet, len: u16) -> Sum {
        let mut sum = Sum::default();
        // The twelve bytes before a mapped IPv4 address are one word of all ones, which is zero in this sum.
        let (source, _) = packet.fragment.source.as_chunks::<8>();
        let (destination, _) = packet.fragment.destination.as_chunks::<8>();
        let mut i = 0;
        while i < 2 {
            sum.add(u64::from_le_bytes(source[i]));
            sum.add(u64::from_le_bytes(destination[i]));
            i += 1;
        }
        sum.add(len.swap_bytes() as u64);
        sum.add((TRANSPORT_UDP as u64) << 8);
        sum
    }

    /// Adds four words.
    #[inline(always)]
    fn add(&mut self, words: u64) {
        self.0 += (words & 0xFFFF_FFFF) + (words >> 32);
    }

    /// Returns the sum in 16 bits, with the carries added, in network order.
    #[inline(always)]
    pub(super) fn folded(self) -> u16 {
        let mut sum = (self.0 & 0xFFFF_FFFF) + (self.0 >> 32);
        sum = (sum & 0xFFFF) + (sum >> 16);
        sum = (sum & 0xFFFF) + (sum >> 16);
        sum = (sum & 0xFFFF) + (sum >> 16);
        (sum as u16).swap_bytes()
    }

    /// Returns whether this is the sum of words that include their own checksum.
    #[inline(always)]
    fn is_right(self) -> bool {
        self.folded() == 0xFFFF
    }
}

/// Adds `len` bytes of a frame, at most `max`, which is a constant; `None`: they cannot be read.
#[inline(always)]
fn of_frame<B: Bytes>(
    bytes: &B,
    start: usize,
    len: usize,
    max: usize,
    mut sum: Sum,
) -> Option<Sum> {
    let mut i = 0;
    while i < max && i + 8 <= len {
        sum.add(bytes.word(start + i)?);
        i += 8;
    }
    let (mut i, len) = (bytes.hide_range(i), bytes.hide_range(len));
    let mut rest = 0;
    while rest < 7 && i < len {
        sum.add((bytes.byte(start + i)? as u64) << (8 * rest));
        i += 1;
        rest += 1;
    }
    Some(sum)
}

/// Adds the bytes of the room from `start` to `end`, and those up to the next multiple of eight bytes, which
/// are zero.
#[inline(never)]
pub(super) fn of_room<const ROOM: usize>(
    room: &[u8; ROOM],
    start: usize,
    end: usize,
    sum: Sum,
) -> Sum {
    let mut sum = sum;
    let mut at = start;
    let mut words = 0;
    while words < ROOM / 8 && at < end {
        let mut word = 0;
        let mut k = 0;
        while k < 8 {
            word |= (room[(at + k) & (ROOM - 1)] as u64) << (8 * k);
            k += 1;
        }
        sum.add(word);
        at += 8;
        words += 1;
    }
    sum
}
