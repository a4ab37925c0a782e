//! Converts frames of other link layers to Ethernet, which the program expects.

use std::borrow::Cow;

use pcap_file::DataLink;

const ETHERNET_LEN: usize = 14;
/// EtherType of IPv4.
pub(super) const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
/// EtherType of IPv6.
pub(super) const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xDD];
/// `LINKTYPE_LINUX_SLL2`, for which the crate has no name.
const LINUX_SLL2: u32 = 276;
/// Bits of the link type in the field of a pcap header. The bits above are the length of the frame
/// check sequence (draft-ietf-opsawg-pcap §4).
const LINK_TYPE: u32 = 0xFFFF;

/// The error of a link type that is not supported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "link type {number}{name} is not supported: capture on Ethernet, Linux cooked, raw IP or BSD null"
)]
pub struct UnsupportedLink {
    number: u32,
    /// Its name in parentheses; empty if the crate has no name.
    name: String,
}

/// Converts a frame to Ethernet. A frame shorter than its link layer becomes an empty Ethernet frame,
/// which is `not-ip`.
///
/// # Errors
/// [`UnsupportedLink`] if the link type is not supported.
pub fn ethernet(link: DataLink, frame: &[u8]) -> Result<Cow<'_, [u8]>, UnsupportedLink> {
    let reframed = match u32::from(link) & LINK_TYPE {
        1 => return Ok(Cow::Borrowed(frame)),
        // Linux cooked: address at 6, protocol at 14.
        113 => split(frame, 16)
            .map(|(header, packet)| frame_of([header[14], header[15]], &header[6..12], packet)),
        // Linux cooked v2: protocol at 0, address at 12.
        LINUX_SLL2 => split(frame, 20)
            .map(|(header, packet)| frame_of([header[0], header[1]], &header[12..18], packet)),
        // Raw IP, under the numbers that BSD systems and Linux use.
        12 | 14 | 101 | 228 | 229 => raw(frame),
        // BSD null and loop: an address family.
        0 | 108 => split(frame, 4)
            .and_then(|(header, packet)| Some(frame_of(family(header)?, &[0; 6], packet))),
        number => {
            let has_name = !matches!(link, DataLink::Unknown(_));
            let name = if has_name { format!(" ({link:?})") } else { String::new() };
            return Err(UnsupportedLink { number, name });
        }
    };
    Ok(Cow::Owned(reframed.unwrap_or_else(|| vec![0; ETHERNET_LEN])))
}

fn split(frame: &[u8], header: usize) -> Option<(&[u8], &[u8])> {
    (frame.len() >= header).then(|| frame.split_at(header))
}

/// Converts an IP packet, identified by its version.
fn raw(packet: &[u8]) -> Option<Vec<u8>> {
    let ethertype = match packet.first()? >> 4 {
        4 => ETHERTYPE_IPV4,
        6 => ETHERTYPE_IPV6,
        _ => return None,
    };
    Some(frame_of(ethertype, &[0; 6], packet))
}

/// Returns the EtherType of a BSD address family, in the byte order of the capturing machine.
fn family(header: &[u8]) -> Option<[u8; 2]> {
    let family = u32::from_le_bytes(header.try_into().ok()?);
    match family.min(family.swap_bytes()) {
        2 => Some(ETHERTYPE_IPV4),
        // Linux, NetBSD and OpenBSD, FreeBSD, macOS.
        10 | 24 | 28 | 30 => Some(ETHERTYPE_IPV6),
        _ => None,
    }
}

/// Returns an Ethernet frame with this type, source address and packet.
pub(super) fn frame_of(ethertype: [u8; 2], source: &[u8], packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET_LEN + packet.len());
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(source);
    frame.extend_from_slice(&ethertype);
    frame.extend_from_slice(packet);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ethertype(link: u32, frame: &[u8]) -> Option<[u8; 2]> {
        let frame = ethernet(DataLink::from(link), frame).unwrap();
        (frame.len() > ETHERNET_LEN).then(|| [frame[12], frame[13]])
    }

    #[test]
    fn address_families_are_read_in_either_byte_order() {
        for (family, expected) in [
            (2, Some(ETHERTYPE_IPV4)),
            (10, Some(ETHERTYPE_IPV6)),
            (24, Some(ETHERTYPE_IPV6)),
            (28, Some(ETHERTYPE_IPV6)),
            (30, Some(ETHERTYPE_IPV6)),
            (7, None),
        ] {
            for header in [u32::to_le_bytes(family), u32::to_be_bytes(family)] {
                let frame = [&header[..], &[0x45]].concat();
                assert_eq!(ethertype(0, &frame), expected, "{header:?}");
                assert_eq!(ethertype(108, &frame), expected, "{header:?}");
            }
        }
    }

    #[test]
    fn frame_shorter_than_its_link_layer_becomes_empty() {
        for link in [0, 12, 101, 108, 113, 276] {
            assert_eq!(ethertype(link, &[]), None, "{link}");
            assert_eq!(ethertype(link, &[0; 3]), None, "{link}");
        }
    }

    #[test]
    fn unknown_link_type_error_names_it() {
        let error = ethernet(DataLink::from(105), &[]).unwrap_err().to_string();
        assert!(error.starts_with("link type 105 (IEEE802_11) is not supported"), "{error}");
        let error = ethernet(DataLink::from(9999), &[]).unwrap_err().to_string();
        assert!(error.starts_with("link type 9999 is not supported"), "{error}");
    }

    #[test]
    fn frame_check_sequence_does_not_change_the_link_type() {
        assert_eq!(ethernet(DataLink::from(0x2400_0001), &[1; 20]).unwrap().len(), 20);
    }
}
