//! Finds the packet in a tunnel, and in the HEP message of a capture agent.
//!
//! The tunnels are VLANs that the program does not read, PPPoE, MPLS, GRE, ERSPAN, VXLAN, GENEVE, GTP-U, and
//! IP in IP.
//!
//! A live filter sees the outer packet. So the inner one is only judged where somebody asks for it.

mod hep;

use std::borrow::Cow;

use etherparse::{LaxIpSlice, UdpSlice, ip_number};
use filter_common::frame::VLANS_MAX;

use crate::replay::link::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, frame_of};

/// Layers that are followed. No real frame has half of them.
const LAYERS_MAX: usize = 32;
/// MPLS labels that are followed.
const LABELS_MAX: usize = 16;

const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88A8;
const QINQ_OLD: u16 = 0x9100;
/// Used for outer tags by some switches; the program does not read it.
const QINQ_OLDER: u16 = 0x9200;
const PPPOE_SESSION: u16 = 0x8864;
const MPLS: u16 = 0x8847;
const MPLS_MULTICAST: u16 = 0x8848;
const IPV4: u16 = u16::from_be_bytes(ETHERTYPE_IPV4);
const IPV6: u16 = u16::from_be_bytes(ETHERTYPE_IPV6);
/// An Ethernet frame in GRE (NVGRE, RFC 7637) or GENEVE (RFC 8926).
const BRIDGED: u16 = 0x6558;
/// PPP in GRE (PPTP, RFC 2637).
const PPP: u16 = 0x880B;
/// ERSPAN types I and II, and type III (draft-foschiano-erspan).
const ERSPAN: u16 = 0x88BE;
const ERSPAN_III: u16 = 0x22EB;

const PORT_GTP_U: u16 = 2152;
const PORT_VXLAN: u16 = 4789;
/// VXLAN of Linux before the number was assigned.
const PORT_VXLAN_OLD: u16 = 8472;
const PORT_VXLAN_GPE: u16 = 4790;
const PORT_GENEVE: u16 = 6081;

/// A packet that was in one or more tunnels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inner {
    /// The innermost packet as an Ethernet frame without tags.
    pub frame: Vec<u8>,
    /// The tunnels, the outermost first.
    pub tunnels: Vec<&'static str>,
    /// A number for the keys of the tunnels (VLAN id, GRE key, VNI, TEID); 0: no tunnel has a key. Two tunnels may
    /// use the same addresses, but hardly ever have the same number.
    pub channel: u64,
}

impl Inner {
    /// Returns the names of the tunnels, the outermost first.
    #[must_use]
    pub fn names(&self) -> String {
        self.tunnels.join(", ")
    }
}

/// The tunnels that were entered.
#[derive(Default)]
struct Way {
    names: Vec<&'static str>,
    channel: u64,
}

impl Way {
    fn push(&mut self, name: &'static str) {
        self.names.push(name);
    }

    fn key(&mut self, key: u32) {
        self.channel = mixed(self.channel, u64::from(key));
    }
}

/// Mixes a further key into those of the tunnels outside (FNV-1a with whole words).
#[must_use]
pub fn mixed(channel: u64, key: u64) -> u64 {
    // A key of 0 makes a difference, too.
    (channel ^ key.wrapping_add(1)).wrapping_mul(0x0000_0100_0000_01B3)
}

/// The bytes that a layer begins with.
enum Layer<'a> {
    /// An Ethernet frame.
    Ethernet(&'a [u8]),
    /// The bytes after an EtherType.
    Typed(u16, &'a [u8]),
    /// PPP, from its protocol field on.
    Ppp(&'a [u8]),
    /// An IP packet of either version.
    Ip(&'a [u8]),
    /// A packet that a capture agent took apart.
    Made(Vec<u8>),
}

/// Returns the innermost IP packet of an Ethernet frame; `None` if the program reads the frame as it is.
#[must_use]
pub fn inner(frame: &[u8]) -> Option<Inner> {
    let mut tunnels = Way::default();
    let mut tags = 0;
    let mut layer = Layer::Ethernet(frame);
    // The innermost packet so far, and the tunnels around it.
    let mut found: Option<(u16, Cow<'_, [u8]>, usize, u64)> = None;
    for _ in 0..LAYERS_MAX {
        let next = match layer {
            Layer::Ethernet(frame) => {
                tags = 0;
                ethernet(frame)
            }
            Layer::Typed(VLAN | QINQ | QINQ_OLD | QINQ_OLDER, _) if tags > LABELS_MAX => None,
            Layer::Typed(kind @ (VLAN | QINQ | QINQ_OLD | QINQ_OLDER), bytes) => {
                tags += 1;
                let is_read = kind != QINQ_OLDER && tags <= VLANS_MAX;
                if !is_read && tunnels.names.last() != Some(&"VLAN") {
                    tunnels.push("VLAN");
                }
                tunnels.key(u32::from(be16(bytes, 0).unwrap_or(0) & 0x0FFF));
                be16(bytes, 2).zip(bytes.get(4..)).map(|(kind, rest)| Layer::Typed(kind, rest))
            }
            Layer::Typed(kind @ (IPV4 | IPV6), packet) => {
                found = Some((kind, Cow::Borrowed(packet), tunnels.names.len(), tunnels.channel));
                ip(packet, &mut tunnels)
            }
            Layer::Typed(kind, bytes) => typed(kind, bytes, &mut tunnels),
            Layer::Ppp(bytes) => ppp(bytes),
            Layer::Ip(packet) => by_version(packet),
            Layer::Made(packet) => {
                // The agent read the headers itself, so the packet has no further tunnel.
                let Some(kind) = version(&packet) else { break };
                found = Some((kind, Cow::Owned(packet), tunnels.names.len(), tunnels.channel));
                None
            }
        };
        let Some(next) = next else { break };
        layer = next;
    }
    let (kind, packet, depth, channel) = found?;
    let mut tunnels = tunnels.names;
    tunnels.truncate(depth);
    let frame = frame_of(kind.to_be_bytes(), &[0; 6], &packet);
    (!tunnels.is_empty()).then_some(Inner { frame, tunnels, channel })
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn ethernet(frame: &[u8]) -> Option<Layer<'_>> {
    Some(Layer::Typed(be16(frame, 12)?, frame.get(14..)?))
}

/// Returns the EtherType of an IP packet.
fn version(packet: &[u8]) -> Option<u16> {
    match packet.first()? >> 4 {
        4 => Some(IPV4),
        6 => Some(IPV6),
        _ => None,
    }
}

fn by_version(packet: &[u8]) -> Option<Layer<'_>> {
    Some(Layer::Typed(version(packet)?, packet))
}

/// Reads the header that an EtherType names, and adds its tunnel.
fn typed<'a>(kind: u16, bytes: &'a [u8], tunnels: &mut Way) -> Option<Layer<'a>> {
    match kind {
        // Version, type and code of a session (RFC 2516 §4).
        PPPOE_SESSION if bytes.first_chunk()? == &[0x11, 0] => {
            tunnels.push("PPPoE");
            Some(Layer::Ppp(bytes.get(6..)?))
        }
        MPLS | MPLS_MULTICAST => {
            tunnels.push("MPLS");
            mpls(bytes)
        }
        BRIDGED => Some(Layer::Ethernet(bytes)),
        PPP => Some(Layer::Ppp(bytes)),
        _ => None,
    }
}

/// Reads the protocol of a PPP frame (RFC 1661 §2), which may be one byte, after a header like that of HDLC.
fn ppp(bytes: &[u8]) -> Option<Layer<'_>> {
    let bytes = bytes.strip_prefix(&[0xFF, 0x03]).unwrap_or(bytes);
    let is_short = bytes.first()? & 1 == 1;
    let (protocol, rest) = if is_short {
        (u16::from(*bytes.first()?), bytes.get(1..)?)
    } else {
        (be16(bytes, 0)?, bytes.get(2..)?)
    };
    match protocol {
        0x0021 => Some(Layer::Typed(IPV4, rest)),
        0x0057 => Some(Layer::Typed(IPV6, rest)),
        0x0281 => Some(Layer::Typed(MPLS, rest)),
        _ => None,
    }
}

/// Reads a stack of labels (RFC 3032 §2.1). No field says what is in it.
fn mpls(bytes: &[u8]) -> Option<Layer<'_>> {
    let last = bytes.chunks_exact(4).take(LABELS_MAX).position(|label| label[2] & 1 == 1)?;
    let rest = bytes.get(4 * (last + 1)..)?;
    match rest.first()? >> 4 {
        // The first byte of a frame without control word may be 4x or 6x, too.
        4 | 6 if is_ethernet(rest) && !is_packet(rest) => Some(Layer::Ethernet(rest)),
        4 | 6 => Some(Layer::Ip(rest)),
        // The control word of a pseudowire (RFC 4385 §3), or an address that begins with 0.
        0 if rest.get(4..).is_some_and(is_ethernet) => Some(Layer::Ethernet(rest.get(4..)?)),
        _ if is_ethernet(rest) => Some(Layer::Ethernet(rest)),
        _ => None,
    }
}

/// Returns whether bytes are certainly an IP packet. The header checksum of IPv4 (RFC 791 §3.1) is right, or the
/// payload length of IPv6 (RFC 8200 §3) fits.
fn is_packet(bytes: &[u8]) -> bool {
    match version(bytes) {
        Some(IPV4) => etherparse::Ipv4HeaderSlice::from_slice(bytes).is_ok_and(|header| {
            header.to_header().calc_header_checksum() == header.header_checksum()
        }),
        Some(IPV6) => be16(bytes, 4).is_some_and(|len| usize::from(len) + 40 == bytes.len()),
        Some(_) | None => false,
    }
}

/// Returns whether bytes may be an Ethernet frame with a packet.
fn is_ethernet(bytes: &[u8]) -> bool {
    let kind = be16(bytes, 12);
    kind.is_some_and(|kind| {
        matches!(kind, VLAN | QINQ | QINQ_OLD | QINQ_OLDER | IPV4 | IPV6 | PPPOE_SESSION | MPLS)
    })
}

/// Reads an IP packet that is whole, and the tunnel in it. Fragments are put together elsewhere.
fn ip<'a>(packet: &'a [u8], tunnels: &mut Way) -> Option<Layer<'a>> {
    // A packet that was captured in part is read as far as it goes.
    let (ip, _) = LaxIpSlice::from_slice(packet).ok()?;
    let payload = ip.payload();
    if payload.fragmented {
        return None;
    }
    let bytes = payload.payload;
    match payload.ip_number {
        ip_number::UDP => udp(bytes, tunnels),
        ip_number::GRE => gre(bytes, tunnels),
        ip_number::IPV4 | ip_number::IPV6 => {
            tunnels.push("IP in IP");
            by_version(bytes)
        }
        _ => None,
    }
}

/// Reads a GRE header (RFC 2784, RFC 2890; version 1: RFC 2637 §4.1).
fn gre<'a>(bytes: &'a [u8], tunnels: &mut Way) -> Option<Layer<'a>> {
    let flags = be16(bytes, 0)?;
    let kind = be16(bytes, 2)?;
    let has = |bit: u16| usize::from(flags & bit != 0);
    let (checksum, routing, key, sequence) = (has(0x8000), has(0x4000), has(0x2000), has(0x1000));
    let acknowledgment = match flags & 7 {
        0 => 0,
        1 => has(0x0080),
        _ => return None,
    };
    if routing == 1 {
        return None;
    }
    let rest = bytes.get(4 + 4 * (checksum + key + sequence + acknowledgment)..)?;
    if key == 1 {
        tunnels.key(be32(bytes, 4 + 4 * checksum)?);
    }
    match kind {
        // Only type II has a sequence number, and a header of its own.
        ERSPAN => {
            tunnels.push("ERSPAN");
            Some(Layer::Ethernet(rest.get(8 * sequence..)?))
        }
        ERSPAN_III => {
            tunnels.push("ERSPAN");
            let last = be16(rest, 10)?;
            let extra = usize::from(last & 1);
            let rest = rest.get(12 + 8 * extra..)?;
            match last >> 10 & 0x1F {
                0 => Some(Layer::Ethernet(rest)),
                2 => Some(Layer::Ip(rest)),
                _ => None,
            }
        }
        _ => {
            tunnels.push("GRE");
            Some(Layer::Typed(kind, rest))
        }
    }
}

/// Reads a datagram to the port of a tunnel.
fn udp<'a>(bytes: &'a [u8], tunnels: &mut Way) -> Option<Layer<'a>> {
    let datagram = UdpSlice::from_slice_lax(bytes).ok()?;
    let payload = datagram.payload();
    let (tunnel, layer) = match datagram.destination_port() {
        PORT_VXLAN | PORT_VXLAN_OLD => ("VXLAN", vxlan(payload)),
        PORT_VXLAN_GPE => ("VXLAN", vxlan_gpe(payload)),
        PORT_GENEVE => ("GENEVE", geneve(payload)),
        PORT_GTP_U => ("GTP-U", gtp_u(payload)),
        port => ("HEP", hep::packet(payload, port).map(Layer::Made)),
    };
    if layer.is_some() {
        tunnels.push(tunnel);
        // A VNI of 24 bits, or a TEID of 32. HEP has neither.
        if tunnel != "HEP"
            && let Some(key) = be32(payload, 4)
        {
            tunnels.key(key);
        }
    }
    layer
}

/// Reads a VXLAN header (RFC 7348 §5): the flag I must be set.
fn vxlan(bytes: &[u8]) -> Option<Layer<'_>> {
    let has_network = bytes.first()? & 0x08 != 0;
    let rest = bytes.get(8..)?;
    has_network.then_some(Layer::Ethernet(rest))
}

/// Reads a VXLAN header with a next protocol (draft-ietf-nvo3-vxlan-gpe §3).
fn vxlan_gpe(bytes: &[u8]) -> Option<Layer<'_>> {
    let rest = bytes.get(8..)?;
    match (bytes.first()? & 0x3C, bytes.get(3)?) {
        (0x0C, 1) => Some(Layer::Typed(IPV4, rest)),
        (0x0C, 2) => Some(Layer::Typed(IPV6, rest)),
        (0x0C, 3) | (0x08, _) => Some(Layer::Ethernet(rest)),
        _ => None,
    }
}

/// Reads a GENEVE header of version 0 (RFC 8926 §3.4).
fn geneve(bytes: &[u8]) -> Option<Layer<'_>> {
    let first = *bytes.first()?;
    let rest = bytes.get(8 + 4 * usize::from(first & 0x3F)..)?;
    (first >> 6 == 0).then_some(Layer::Typed(be16(bytes, 2)?, rest))
}

/// Reads a G-PDU of GTP version 1 and its extension headers (3GPP TS 29.281 §5).
fn gtp_u(bytes: &[u8]) -> Option<Layer<'_>> {
    let [flags, kind] = *bytes.first_chunk()?;
    // Version 1, GTP and not GTP'; the message type of a G-PDU.
    if flags >> 4 != 3 || kind != 0xFF {
        return None;
    }
    let mut at = 8;
    if flags & 7 != 0 {
        let mut next = if flags & 4 == 0 { 0 } else { *bytes.get(11)? };
        at = 12;
        while next != 0 {
            let len = 4 * usize::from(*bytes.get(at)?);
            if len == 0 {
                return None;
            }
            at += len;
            next = *bytes.get(at - 1)?;
        }
    }
    Some(Layer::Ip(bytes.get(at..)?))
}

#[cfg(test)]
mod tests;
