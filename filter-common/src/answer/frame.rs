//! The frame around a reply: the layers of the request, turned round.

use super::outer::{ETHERNET_LEN, HEAD, IPV4_LEN, IPV6_LEN, Network, Reply, TAG_LEN, UDP_LEN};
use super::sums::{self, Sum};
use crate::abi::TRANSPORT_UDP;
use crate::bytes::Bytes;
use crate::frame::{Packet, VLANS_MAX};

const TTL: u8 = 64;
/// The datagram is not fragmented, so its identification does not count (RFC 6864 §4.1).
const DO_NOT_FRAGMENT: u8 = 0x40;
/// The bits of the traffic class that routers serve by (RFC 2474); the others are of ECN.
const DSCP: u8 = 0xFC;

/// Writes the layers before the message that ends at `end`: addresses and ports turned round, VLAN tags kept,
/// checksums new. IPv4 options and IPv6 extension headers of the request are not repeated. `port` is where the
/// reply goes. `None`: the request came to no host alone.
#[inline(always)]
pub(super) fn wrap<B: Bytes, const ROOM: usize>(
    bytes: &B,
    packet: &Packet,
    port: u16,
    room: &mut [u8; ROOM],
    end: usize,
) -> Option<Reply> {
    let network = Network::find(bytes)?;
    let to = &packet.fragment.source;
    let from = &packet.fragment.destination;
    // The group bit of the Ethernet address that the reply would go to.
    let is_group = bytes.byte(6)? & 1 != 0;
    if packet.transport != TRANSPORT_UDP
        || is_group
        || packet.source_port == 0
        || is_many(from, network)
        || is_many(to, network)
    {
        return None;
    }
    let udp = HEAD - UDP_LEN;
    let ip = udp - if network.is_ipv4 { IPV4_LEN } else { IPV6_LEN };
    let start = ip.wrapping_sub(network.at);

    let mut i = 0;
    while i < 6 {
        room[(start + i) & (ROOM - 1)] = bytes.byte(i + 6)?;
        room[(start + 6 + i) & (ROOM - 1)] = bytes.byte(i)?;
        i += 1;
    }
    let mut i = 12;
    while i < ETHERNET_LEN + VLANS_MAX * TAG_LEN && i < network.at {
        room[(start + i) & (ROOM - 1)] = bytes.byte(i)?;
        i += 1;
    }

    let udp_len = (end - udp) as u16;
    if network.is_ipv4 {
        let header = [0x45, bytes.byte(network.at + 1)? & DSCP];
        put(room, ip, &header);
        put(room, ip + 2, &(udp_len + IPV4_LEN as u16).to_be_bytes());
        put(room, ip + 4, &[0, 0, DO_NOT_FRAGMENT, 0, TTL, TRANSPORT_UDP, 0, 0]);
        put(room, ip + 12, &[from[12], from[13], from[14], from[15]]);
        put(room, ip + 16, &[to[12], to[13], to[14], to[15]]);
        // The sum reads whole words, and the room may have bytes of an earlier reply.
        put(room, udp, &[0; 4]);
        let sum = sums::of_room(room, ip, udp, Sum::default());
        put(room, ip + 10, &(!sum.folded()).to_be_bytes());
    } else {
        let class = (bytes.be16(network.at)? >> 4) as u8 & DSCP;
        put(room, ip, &[0x60 | class >> 4, class << 4, 0, 0]);
        put(room, ip + 4, &udp_len.to_be_bytes());
        put(room, ip + 6, &[TRANSPORT_UDP, TTL]);
        put(room, ip + 8, from);
        put(room, ip + 24, to);
    }

    put(room, udp, &packet.destination_port.to_be_bytes());
    put(room, udp + 2, &port.to_be_bytes());
    put(room, udp + 4, &udp_len.to_be_bytes());
    put(room, udp + 6, &[0, 0]);
    // The sum reads whole words.
    put(room, end, &[0; 8]);
    let sum = !sums::of_room(room, udp, end, Sum::of_pseudo_header(packet, udp_len)).folded();
    // 0 means that there is no checksum (RFC 768).
    let sum = if sum == 0 { 0xFFFF } else { sum };
    put(room, udp + 6, &sum.to_be_bytes());
    Some(Reply { start, ip, message: HEAD, end })
}

/// Returns whether an address is of no other host alone: multicast, broadcast, loopback, or unspecified.
#[inline(always)]
fn is_many(address: &[u8; 16], network: Network) -> bool {
    if network.is_ipv4 {
        // 0.0.0.0/8, 127.0.0.0/8, and 224.0.0.0/3: multicast, reserved and broadcast addresses.
        address[12] == 0 || address[12] == 127 || address[12] >= 0xE0
    } else {
        // Multicast, unspecified, loopback.
        address[0] == 0xFF || u128::from_be_bytes(*address) <= 1
    }
}

#[inline(always)]
fn put<const LEN: usize, const ROOM: usize>(room: &mut [u8; ROOM], at: usize, bytes: &[u8; LEN]) {
    let mut i = 0;
    while i < LEN {
        room[(at + i) & (ROOM - 1)] = bytes[i];
        i += 1;
    }
}
