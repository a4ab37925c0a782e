//! Frames around a SIP message.

use etherparse::{IpFragOffset, Ipv4Header, Ipv6FragmentHeader, PacketBuilder, VlanId, ip_number};

/// Source and destination of all frames here.
pub const PORTS: (u16, u16) = (5060, 5060);
/// IPv4 source, as an event has it.
pub const SOURCE4: [u8; 4] = [10, 0, 0, 1];
const DESTINATION4: [u8; 4] = [10, 0, 0, 2];
const MAC: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// The layers around the message.
#[derive(Clone, Copy, Debug)]
pub struct Layers {
    /// IPv6 instead of IPv4.
    pub ipv6: bool,
    /// VLAN tags, 0 to 2.
    pub vlans: u8,
}

impl Layers {
    /// All six of them.
    pub const ALL: [Layers; 6] = [
        Layers { ipv6: false, vlans: 0 },
        Layers { ipv6: false, vlans: 1 },
        Layers { ipv6: false, vlans: 2 },
        Layers { ipv6: true, vlans: 0 },
        Layers { ipv6: true, vlans: 1 },
        Layers { ipv6: true, vlans: 2 },
    ];

    /// Plain IPv4.
    pub const IPV4: Layers = Layers::ALL[0];

    /// Returns an Ethernet frame with the message in one UDP datagram.
    ///
    /// # Panics
    /// When the message does not fit a datagram.
    #[must_use]
    pub fn frame(self, message: &[u8]) -> Vec<u8> {
        let link = PacketBuilder::ethernet2(MAC[0], MAC[1]);
        let mut source6 = [0; 16];
        (source6[0], source6[15]) = (0xfd, 1);
        let mut destination6 = source6;
        destination6[15] = 2;
        let vlan = |id| VlanId::try_new(id).unwrap();
        macro_rules! network {
            ($link:expr) => {{
                let link = $link;
                let network = if self.ipv6 {
                    link.ipv6(source6, destination6, 64)
                } else {
                    link.ipv4(SOURCE4, DESTINATION4, 64)
                };
                let transport = network.udp(PORTS.0, PORTS.1);
                let mut frame = Vec::with_capacity(transport.size(message.len()));
                transport.write(&mut frame, message).unwrap();
                frame
            }};
        }
        match self.vlans {
            0 => network!(link),
            1 => network!(link.single_vlan(vlan(7))),
            _ => network!(link.double_vlan(vlan(100), vlan(7))),
        }
    }
}

/// Cuts an IPv4 or IPv6 frame without VLAN tags into fragments. `cuts` are offsets in the datagram, UDP header
/// included: multiples of 8, rising.
///
/// # Panics
/// When the frame or a cut is not one of these.
#[must_use]
pub fn fragments(frame: &[u8], id: u32, cuts: &[usize]) -> Vec<Vec<u8>> {
    let ipv6 = frame[12..14] == [0x86, 0xDD];
    let datagram = &frame[if ipv6 { 54 } else { 34 }..];
    let starts = [0].into_iter().chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([datagram.len()]);
    starts
        .zip(ends)
        .map(|(start, end)| {
            let offset = IpFragOffset::try_new((start / 8) as u16).unwrap();
            let more = end < datagram.len();
            let mut part;
            if ipv6 {
                part = frame[..54].to_vec();
                part[20] = 44;
                let len = (end - start + 8) as u16;
                part[18..20].copy_from_slice(&len.to_be_bytes());
                let header = Ipv6FragmentHeader::new(ip_number::UDP, offset, more, id);
                part.extend_from_slice(&header.to_bytes());
            } else {
                let (mut header, _) = Ipv4Header::from_slice(&frame[14..]).unwrap();
                header.identification = id as u16;
                header.dont_fragment = false;
                header.more_fragments = more;
                header.fragment_offset = offset;
                header.set_payload_len(end - start).unwrap();
                header.header_checksum = header.calc_header_checksum();
                part = frame[..14].to_vec();
                header.write(&mut part).unwrap();
            }
            part.extend_from_slice(&datagram[start..end]);
            part
        })
        .collect()
}

/// Returns a message with the line ends of SIP.
#[must_use]
pub fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}
