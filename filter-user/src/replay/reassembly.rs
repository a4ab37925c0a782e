//! Puts the fragments of a capture together, as the host does with a live gate.

use std::borrow::Cow;

use etherparse::defrag::{IpDefragPayloadVec, IpDefragPool};
use etherparse::{EtherType, IpNumber, Ipv4Header, Ipv6Header, NetSlice, SlicedPacket, ip_number};
use filter_common::bytes::Slice;
use filter_common::frame::{self, Packet, Part};

/// Time after its last fragment for which a datagram waits for others, in nanoseconds. Linux counts from its first one
/// (`ipfrag_time`).
const WAIT_NS: u64 = 30 * 1_000_000_000;

/// Time between two looks for datagrams that have waited too long, in nanoseconds. A look goes through all of them.
const LOOK_NS: u64 = 1_000_000_000;

/// The fragments that wait for others.
#[derive(Default)]
pub struct Reassembly {
    pool: IpDefragPool<u64, u64>,
    /// Time of the last look.
    looked: u64,
}

impl Reassembly {
    /// Adds a frame that arrived at `time`, in nanoseconds. Returns the frame itself if it is not a fragment,
    /// and a UDP datagram as an Ethernet frame if its last fragment came. `None`: others are missing. Only
    /// fragments of one `channel` belong together: a tunnel with its key, or 0.
    pub fn add<'a>(&mut self, frame: &'a [u8], time: u64, channel: u64) -> Option<Cow<'a, [u8]>> {
        self.add_if(frame, time, channel, |protocol| protocol == ip_number::UDP)
    }

    /// Adds a frame like [`Reassembly::add`], and returns packets of all protocols.
    pub fn add_any<'a>(
        &mut self,
        frame: &'a [u8],
        time: u64,
        channel: u64,
    ) -> Option<Cow<'a, [u8]>> {
        self.add_if(frame, time, channel, |_| true)
    }

    fn add_if<'a>(
        &mut self,
        frame: &'a [u8],
        time: u64,
        channel: u64,
        is_wanted: impl Fn(IpNumber) -> bool,
    ) -> Option<Cow<'a, [u8]>> {
        let mut packet = Packet::default();
        let _ = frame::read(&Slice::from(frame), &mut packet);
        if packet.part == Part::Whole {
            return Some(Cow::Borrowed(frame));
        }
        if time.saturating_sub(self.looked) >= LOOK_NS {
            self.pool.retain(|since| time.saturating_sub(*since) < WAIT_NS);
            self.looked = time;
        }
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        // The host drops fragments that overlap or contradict each other.
        let payload = self.pool.process_sliced_packet(&packet, time, channel).ok()??;
        let datagram = packet.net.filter(|_| is_wanted(payload.ip_number));
        let datagram = datagram.and_then(|net| whole(&net, &payload));
        self.pool.return_buf(payload);
        datagram.map(Cow::Owned)
    }
}

/// Returns a frame with a whole packet: the addresses are those of one of its fragments.
fn whole(net: &NetSlice, payload: &IpDefragPayloadVec) -> Option<Vec<u8>> {
    let mut frame = vec![0; 12];
    match net {
        NetSlice::Ipv4(ip) => {
            let len = u16::try_from(payload.payload.len()).ok()?;
            let header = ip.header();
            let header = Ipv4Header::new(
                len,
                header.ttl(),
                payload.ip_number,
                header.source(),
                header.destination(),
            );
            frame.extend(EtherType::IPV4.0.to_be_bytes());
            header.ok()?.write(&mut frame).ok()?;
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            let header = Ipv6Header {
                payload_length: u16::try_from(payload.payload.len()).ok()?,
                next_header: payload.ip_number,
                hop_limit: header.hop_limit(),
                source: header.source(),
                destination: header.destination(),
                ..Ipv6Header::default()
            };
            frame.extend(EtherType::IPV6.0.to_be_bytes());
            header.write(&mut frame).ok()?;
        }
        NetSlice::Arp(_) => return None,
    }
    frame.extend_from_slice(&payload.payload);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use etherparse::{IpFragOffset, PacketBuilder};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Returns the two fragments of a UDP datagram.
    fn fragments() -> [Vec<u8>; 2] {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(5060, 5060);
        builder.write(&mut frame, &[b'x'; 24]).unwrap();
        let payload = &frame[34..];
        [(0, true, &payload[..16]), (2, false, &payload[16..])].map(|(offset, more, part)| {
            let mut header = Ipv4Header::new(
                part.len() as u16,
                64,
                ip_number::UDP,
                [10, 0, 0, 1],
                [10, 0, 0, 2],
            )
            .unwrap();
            header.identification = 7;
            header.more_fragments = more;
            header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
            header.header_checksum = header.calc_header_checksum();
            let mut frame = frame[..14].to_vec();
            header.write(&mut frame).unwrap();
            frame.extend_from_slice(part);
            frame
        })
    }

    /// Returns whether the second fragment makes the datagram whole.
    fn is_whole(second_at: u64, second_channel: u64) -> bool {
        let [first, second] = fragments();
        let mut reassembly = Reassembly::default();
        assert!(reassembly.add(&first, SECOND, 5).is_none());
        reassembly.add(&second, second_at, second_channel).is_some()
    }

    #[test]
    fn fragments_of_one_channel_and_of_thirty_seconds_belong_together() {
        assert!(is_whole(2 * SECOND, 5));
        assert!(is_whole(30 * SECOND, 5));
        assert!(!is_whole(31 * SECOND, 5), "too late");
        assert!(!is_whole(2 * SECOND, 6), "another tunnel");
    }
}
