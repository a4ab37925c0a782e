//! Link layers of captures, re-framed as Ethernet: what the program meets on an interface.

use std::borrow::Cow;

use pcap_file::DataLink;

const ETHERNET_LEN: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xDD];
/// `LINKTYPE_LINUX_SLL2`, which the crate has no name for.
const LINUX_SLL2: u32 = 276;

/// The frame as Ethernet. One that is too short for its own link layer becomes an empty
/// Ethernet frame, which is `not-ip`.
///
/// # Errors
/// A link type that is not known.
pub fn ethernet(link: DataLink, frame: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let reframed = match u32::from(link) {
        1 => return Ok(Cow::Borrowed(frame)),
        // Linux cooked: address at 6, protocol at 14.
        113 => split(frame, 16)
            .map(|(header, packet)| frame_of([header[14], header[15]], &header[6..12], packet)),
        // Linux cooked v2: protocol at 0, address at 12.
        LINUX_SLL2 => split(frame, 20)
            .map(|(header, packet)| frame_of([header[0], header[1]], &header[12..18], packet)),
        // Raw IP, under the numbers that BSDs and Linux have given it.
        12 | 14 | 101 | 228 | 229 => raw(frame),
        // BSD null and loop: the address family, in the byte order of some machine.
        0 | 108 => split(frame, 4).and_then(|(_, packet)| raw(packet)),
        other => return Err(format!("link type {other} is not known; captures on Ethernet are")),
    };
    Ok(Cow::Owned(reframed.unwrap_or_else(|| vec![0; ETHERNET_LEN])))
}

fn split(frame: &[u8], header: usize) -> Option<(&[u8], &[u8])> {
    (frame.len() >= header).then(|| frame.split_at(header))
}

/// An IP packet: its version tells what it is.
fn raw(packet: &[u8]) -> Option<Vec<u8>> {
    let ethertype = match packet.first()? >> 4 {
        4 => ETHERTYPE_IPV4,
        6 => ETHERTYPE_IPV6,
        _ => return None,
    };
    Some(frame_of(ethertype, &[0; 6], packet))
}

fn frame_of(ethertype: [u8; 2], source: &[u8], packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET_LEN + packet.len());
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(source);
    frame.extend_from_slice(&ethertype);
    frame.extend_from_slice(packet);
    frame
}
