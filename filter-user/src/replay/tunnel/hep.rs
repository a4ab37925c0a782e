//! The Homer encapsulation protocol: messages in which a capture agent sends SIP to a collector.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;
use flate2::read::{GzDecoder, ZlibDecoder};

/// Port of collectors. Versions 1 and 2 have no mark, so they are read on this port only.
const PORT: u16 = 9060;
/// Largest payload of a UDP datagram over IPv4.
const PAYLOAD_MAX: u64 = 65_507;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Protocol type of SIP.
const SIP: u8 = 1;

/// The fields of a HEP message.
#[derive(Default)]
struct Fields {
    protocol: u8,
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    source_port: u16,
    destination_port: u16,
}

/// Returns the IP packet that a HEP message describes; `None` if it is not one, or not about SIP.
pub(super) fn packet(message: &[u8], port: u16) -> Option<Vec<u8>> {
    if message.starts_with(b"HEP3") {
        return version_3(message);
    }
    let is_old = port == PORT && matches!(message.first()?, 1 | 2);
    is_old.then(|| version_1_or_2(message))?
}

/// Reads the chunks of version 3 (HEP3/EEP specification, sipcapture).
fn version_3(message: &[u8]) -> Option<Vec<u8>> {
    let len = usize::from(be16(message.get(4..)?)?);
    let mut chunks = message.get(6..len.min(message.len()))?;
    let mut fields = Fields::default();
    let (mut kind, mut payload) = (0, None);
    while !chunks.is_empty() {
        let (vendor, id) = (be16(chunks)?, be16(chunks.get(2..)?)?);
        let len = usize::from(be16(chunks.get(4..)?)?);
        let value = chunks.get(6..len)?;
        chunks = chunks.get(len..)?;
        // Chunks of other vendors have other meanings.
        match (vendor, id) {
            (0, 0x02) => fields.protocol = *value.first()?,
            (0, 0x03 | 0x05) => fields.source = Some(address(value)?),
            (0, 0x04 | 0x06) => fields.destination = Some(address(value)?),
            (0, 0x07) => fields.source_port = be16(value)?,
            (0, 0x08) => fields.destination_port = be16(value)?,
            (0, 0x0B) => kind = *value.first()?,
            (0, 0x0F) => payload = Some(value.to_vec()),
            (0, 0x10) => payload = Some(decompressed(value)?),
            _ => {}
        }
    }
    if kind == SIP { made(&fields, &payload?) } else { None }
}

/// Reads versions 1 and 2: a fixed header, whose length is its second byte. Agents differ in what they count,
/// so the message is looked for where a name of SIP can begin.
fn version_1_or_2(message: &[u8]) -> Option<Vec<u8>> {
    let [version, len, family, protocol, ports @ ..] = message.first_chunk::<8>()?;
    let len = usize::from(*len);
    let size = match *family {
        2 => 4,
        10 => 16,
        _ => return None,
    };
    // Version 2 ends with a time and the number of the agent, with or without padding.
    let least = 8 + 2 * size;
    let fixed = if *version == 2 { [least + 10, least + 12] } else { [least, least] };
    let is_sip = |at: &usize| {
        let begin = message.get(*at..at.saturating_add(3));
        *at >= least && begin.is_some_and(|begin| begin.iter().all(u8::is_ascii_uppercase))
    };
    let start = [len, fixed[0], fixed[1]].into_iter().find(is_sip)?;
    let fields = Fields {
        protocol: *protocol,
        source: Some(address(message.get(8..8 + size)?)?),
        destination: Some(address(message.get(8 + size..8 + 2 * size)?)?),
        source_port: be16(ports)?,
        destination_port: be16(ports.get(2..)?)?,
    };
    made(&fields, message.get(start..)?)
}

fn be16(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.first_chunk()?))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(bytes).into());
    }
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into())
}

/// Returns a payload that gzip or zlib compressed; `None` if it is longer than a datagram.
fn decompressed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut payload = Vec::new();
    let read = if bytes.starts_with(&[0x1F, 0x8B]) {
        GzDecoder::new(bytes).take(PAYLOAD_MAX + 1).read_to_end(&mut payload)
    } else {
        ZlibDecoder::new(bytes).take(PAYLOAD_MAX + 1).read_to_end(&mut payload)
    };
    (read.ok()? as u64 <= PAYLOAD_MAX).then_some(payload)
}

/// Returns an IP packet with these fields.
fn made(fields: &Fields, payload: &[u8]) -> Option<Vec<u8>> {
    let ip = match (fields.source?, fields.destination?) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            PacketBuilder::ipv4(source.octets(), destination.octets(), 64)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            PacketBuilder::ipv6(source.octets(), destination.octets(), 64)
        }
        _ => return None,
    };
    let mut packet = Vec::new();
    let (source, destination) = (fields.source_port, fields.destination_port);
    let written = match fields.protocol {
        UDP => ip.udp(source, destination).write(&mut packet, payload),
        TCP => ip.tcp(source, destination, 0, 0).write(&mut packet, payload),
        _ => return None,
    };
    written.ok().map(|()| packet)
}
