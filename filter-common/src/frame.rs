//! From an Ethernet frame to the datagram in it.

use crate::abi::{DatagramKey, FragmentKey, TRANSPORT_TCP, TRANSPORT_UDP};
use crate::bytes::Bytes;
use crate::reason::Reason;

/// VLAN tags that are followed (IEEE 802.1Q, 802.1ad).
pub const VLANS_MAX: usize = 2;
/// Headers after the IPv6 header that are looked at, the one of the transport included.
pub const EXTENSIONS_MAX: usize = 6;

const ETHERNET_LEN: usize = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86DD;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88A8;
/// Used for outer tags before 802.1ad.
const ETHERTYPE_QINQ_OLD: u16 = 0x9100;
const VLAN_ID: u16 = 0x0FFF;

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
const FRAGMENT_LEN: usize = 8;

// Protocol numbers of IPv6 extension headers (RFC 8200 §4.1).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Which part of a fragmented datagram a frame holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// The datagram is whole.
    #[default]
    Whole,
    /// The first fragment.
    First,
    /// A fragment in the middle.
    Later,
    /// The last fragment.
    Last,
}

/// The outer layers of a frame. Filled as far as they could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Addresses, IPv4 mapped (RFC 4291 §2.5.5.2); also the identification and VLANs.
    pub fragment: FragmentKey,
    /// Which part of its datagram this is.
    pub part: Part,
    /// [`TRANSPORT_UDP`], [`TRANSPORT_TCP`], or 0.
    pub transport: u8,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Length of the whole UDP datagram as its header says it (RFC 768); 0 for TCP.
    pub datagram_len: u16,
    /// Checksum of the UDP datagram (RFC 768); 0: it has none.
    pub checksum: u16,
    /// Offset of the datagram's payload in the frame.
    pub payload: usize,
    /// Length of the payload, in a first fragment only its own part.
    pub payload_len: usize,
}

impl Packet {
    /// Returns the datagram, as both looks see it.
    #[inline(always)]
    #[must_use]
    pub const fn datagram(&self) -> DatagramKey {
        DatagramKey {
            source: self.fragment.source,
            source_port: self.source_port,
            len: self.datagram_len,
            sum: self.sum(),
        }
    }

    /// Returns the checksum without the destination, which the host may change and then changes the checksum
    /// too (RFC 1624). It is of the whole datagram, but a first fragment has it. 0: the datagram has none.
    #[inline(always)]
    const fn sum(&self) -> u16 {
        if self.checksum == 0 {
            return 0;
        }
        // The checksum is the complement of a sum, in which the complement is the negative number.
        let mut sum = self.checksum as u64 + self.destination_port as u64;
        let (words, _) = self.fragment.destination.as_chunks::<4>();
        let mut i = 0;
        while i < words.len() {
            sum += u32::from_be_bytes(words[i]) as u64;
            i += 1;
        }
        // Sums of 16 bits with the carry added (RFC 1071 §2).
        sum = (sum & 0xFFFF_FFFF) + (sum >> 32);
        sum = (sum & 0xFFFF) + (sum >> 16);
        sum = (sum & 0xFFFF) + (sum >> 16);
        sum = (sum & 0xFFFF) + (sum >> 16);
        sum as u16
    }
}

/// A further key of the map of addresses. It is there while only frames for this machine are judged. No address
/// has more than 48 bits.
pub const OWN_ADDRESSES_ONLY: u64 = u64::MAX;

/// Returns an Ethernet address as one number, in its low 48 bits.
#[must_use]
pub const fn address_number(address: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = address;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// Returns the Ethernet address that a frame is for, as [`address_number`] does.
#[inline(always)]
pub fn destination<B: Bytes>(bytes: &B) -> Option<u64> {
    Some((bytes.be16(0)? as u64) << 32 | bytes.be32(2)? as u64)
}

/// Reads the outer layers up to the transport's ports into `packet`, which comes all zero.
///
/// # Errors
/// The reason why there is no datagram to read. `packet` then holds what was known
/// before; a later fragment is `Ok`, with no ports.
#[inline(never)]
pub fn read<B: Bytes>(bytes: &B, packet: &mut Packet) -> Result<(), Reason> {
    let mut at = ETHERNET_LEN;
    let mut ethertype = bytes.be16(at - 2).ok_or(Reason::NotIp)?;
    let mut tags = 0;
    while tags < VLANS_MAX {
        if !matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_QINQ | ETHERTYPE_QINQ_OLD) {
            break;
        }
        packet.fragment.vlans[tags] = bytes.be16(at).ok_or(Reason::NotIp)? & VLAN_ID;
        ethertype = bytes.be16(at + 2).ok_or(Reason::NotIp)?;
        at += 4;
        tags += 1;
    }
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(bytes, at, packet),
        ETHERTYPE_IPV6 => ipv6(bytes, at, packet),
        _ => Err(Reason::NotIp),
    }
}

/// Reads an IPv4 header (RFC 791 §3.1).
#[inline(always)]
fn ipv4<B: Bytes>(bytes: &B, at: usize, packet: &mut Packet) -> Result<(), Reason> {
    let bad = Reason::BadPacket;
    let first = bytes.byte(at).ok_or(bad)?;
    let header_len = (first as usize & 0xF) * 4;
    let total_len = bytes.be16(at + 2).ok_or(bad)? as usize;
    let id = bytes.be16(at + 4).ok_or(bad)?;
    let fragment = bytes.be16(at + 6).ok_or(bad)?;
    let protocol = bytes.byte(at + 9).ok_or(bad)?;
    if first >> 4 != 4 || header_len < IPV4_LEN || total_len < header_len {
        return Err(bad);
    }
    if !holds(bytes, at + total_len) {
        return Err(bad);
    }
    packet.fragment.id = id as u32;
    mapped(&mut packet.fragment.source, bytes.be32(at + 12).ok_or(bad)?);
    mapped(&mut packet.fragment.destination, bytes.be32(at + 16).ok_or(bad)?);

    let more = fragment & 0x2000 != 0;
    packet.part = part(fragment & 0x1FFF != 0, more);
    transport(bytes, protocol, at + header_len, total_len - header_len, packet)
}

fn part(behind_first: bool, more: bool) -> Part {
    match (behind_first, more) {
        (false, false) => Part::Whole,
        (false, true) => Part::First,
        (true, true) => Part::Later,
        (true, false) => Part::Last,
    }
}

fn mapped(address: &mut [u8; 16], ipv4: u32) {
    address[10] = 0xFF;
    address[11] = 0xFF;
    let ipv4 = ipv4.to_be_bytes();
    address[12] = ipv4[0];
    address[13] = ipv4[1];
    address[14] = ipv4[2];
    address[15] = ipv4[3];
}

/// Returns whether the frame has as many bytes as its headers say. A frame in several buffers
/// is longer than what can be read directly.
fn holds<B: Bytes>(bytes: &B, len: usize) -> bool {
    bytes.byte(len - 1).is_some() || bytes.frame_len() >= len
}

/// Reads an IPv6 header and its extension headers (RFC 8200 §3, §4).
#[inline(always)]
fn ipv6<B: Bytes>(bytes: &B, at: usize, packet: &mut Packet) -> Result<(), Reason> {
    let bad = Reason::BadPacket;
    let first = bytes.byte(at).ok_or(bad)?;
    let payload_len = bytes.be16(at + 4).ok_or(bad)? as usize;
    let mut next = bytes.byte(at + 6).ok_or(bad)?;
    if first >> 4 != 6 {
        return Err(bad);
    }
    let end = at + IPV6_LEN + payload_len;
    if !holds(bytes, end) {
        return Err(bad);
    }
    let mut i = 0;
    while i < 4 {
        let source = bytes.be32(at + 8 + 4 * i).ok_or(bad)?.to_be_bytes();
        let destination = bytes.be32(at + 24 + 4 * i).ok_or(bad)?.to_be_bytes();
        let mut k = 0;
        while k < 4 {
            packet.fragment.source[4 * i + k] = source[k];
            packet.fragment.destination[4 * i + k] = destination[k];
            k += 1;
        }
        i += 1;
    }

    let mut at = at + IPV6_LEN;
    let mut headers = 0;
    while headers < EXTENSIONS_MAX {
        let len = match next {
            HOP_BY_HOP | DESTINATION => (bytes.byte(at + 1).ok_or(bad)? as usize + 1) * 8,
            ROUTING => {
                // With segments left this is not the last destination yet (RFC 8200 §4.4).
                if bytes.byte(at + 3).ok_or(bad)? != 0 {
                    return Err(Reason::NotUdp);
                }
                (bytes.byte(at + 1).ok_or(bad)? as usize + 1) * 8
            }
            AUTHENTICATION => (bytes.byte(at + 1).ok_or(bad)? as usize + 2) * 4,
            FRAGMENT => {
                if packet.part != Part::Whole {
                    return Err(bad);
                }
                let fragment = bytes.be16(at + 2).ok_or(bad)?;
                packet.fragment.id = bytes.be32(at + 4).ok_or(bad)?;
                packet.part = part(fragment & 0xFFF8 != 0, fragment & 1 != 0);
                FRAGMENT_LEN
            }
            _ => {
                if at > end {
                    return Err(bad);
                }
                return transport(bytes, next, at, end - at, packet);
            }
        };
        next = bytes.byte(at).ok_or(bad)?;
        at += len;
        headers += 1;
        if matches!(packet.part, Part::Later | Part::Last) {
            // The header that `next` names is in the first fragment.
            return Ok(());
        }
    }
    Err(Reason::ExtensionLimit)
}

/// Reads the transport's header at `at`, with `len` bytes of the IP packet left.
#[inline(always)]
fn transport<B: Bytes>(
    bytes: &B,
    protocol: u8,
    at: usize,
    len: usize,
    packet: &mut Packet,
) -> Result<(), Reason> {
    if protocol != TRANSPORT_UDP && protocol != TRANSPORT_TCP {
        return Err(Reason::NotUdp);
    }
    if matches!(packet.part, Part::Later | Part::Last) {
        return if protocol == TRANSPORT_UDP { Ok(()) } else { Err(Reason::NotUdp) };
    }
    if len < UDP_LEN {
        return Err(Reason::BadPacket);
    }
    packet.transport = protocol;
    packet.source_port = bytes.be16(at).ok_or(Reason::BadPacket)?;
    packet.destination_port = bytes.be16(at + 2).ok_or(Reason::BadPacket)?;
    if protocol == TRANSPORT_UDP {
        let word = bytes.be32(at + 4).ok_or(Reason::BadPacket)?;
        packet.datagram_len = (word >> 16) as u16;
        packet.checksum = word as u16;
        let udp_len = packet.datagram_len as usize;
        let agree = if packet.part == Part::Whole { udp_len == len } else { udp_len >= len };
        if !agree {
            return Err(Reason::LengthMismatch);
        }
    }
    packet.payload = at + UDP_LEN;
    packet.payload_len = len - UDP_LEN;
    Ok(())
}
