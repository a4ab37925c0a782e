//! The cheapest way to the ports: Ethernet, IPv4 without options, UDP.

use filter_common::bytes::Bytes;

/// The headers around a datagram.
pub struct Outer {
    /// IPv4 source.
    pub source: u32,
    pub source_port: u16,
    pub destination_port: u16,
}

/// Where the payload begins.
pub const PAYLOAD: usize = 42;

/// Reads them; `None` for anything else.
#[inline(always)]
pub fn read<B: Bytes>(bytes: &B) -> Option<Outer> {
    let usual = bytes.be16(12)? == 0x0800
        && bytes.byte(14)? == 0x45
        && bytes.be16(20)? & 0x3FFF == 0
        && bytes.byte(23)? == 17;
    if !usual {
        return None;
    }
    Some(Outer {
        source: bytes.be32(26)?,
        source_port: bytes.be16(34)?,
        destination_port: bytes.be16(36)?,
    })
}
