//! Puts the fragments of a capture together, as the host does with a live gate.

use std::borrow::Cow;

use etherparse::defrag::{IpDefragPayloadVec, IpDefragPool};
use etherparse::{EtherType, IpNumber, Ipv4Header, Ipv6Header, NetSlice, SlicedPacket, ip_number};
use filter_common::abi::REASSEMBLY_NS;
use filter_common::bytes::Slice;
use filter_common::frame::{self, Packet, Part};

/// Datagrams that wait for fragments; with more of them, old ones are forgotten.
const WAITING_MAX: usize = 1024;

/// The fragments that wait for others.
#[derive(Default)]
pub struct Reassembly {
    pool: IpDefragPool<u64>,
    added: usize,
}

impl Reassembly {
    /// Adds a frame that arrived at `time`, in nanoseconds. Returns the frame itself if it is not a fragment,
    /// and a UDP datagram as an Ethernet frame if its last fragment came. `None`: others are missing.
    pub fn add<'a>(&mut self, frame: &'a [u8], time: u64) -> Option<Cow<'a, [u8]>> {
        self.add_if(frame, time, |protocol| protocol == ip_number::UDP)
    }

    /// Adds a frame like [`Reassembly::add`], and returns packets of all protocols.
    pub fn add_any<'a>(&mut self, frame: &'a [u8], time: u64) -> Option<Cow<'a, [u8]>> {
        self.add_if(frame, time, |_| true)
    }

    fn add_if<'a>(
        &mut self,
        frame: &'a [u8],
        time: u64,
        is_wanted: impl Fn(IpNumber) -> bool,
    ) -> Option<Cow<'a, [u8]>> {
        let mut packet = Packet::default();
        let _ = frame::read(&Slice::from(frame), &mut packet);
        if packet.part == Part::Whole {
            return Some(Cow::Borrowed(frame));
        }
        self.added += 1;
        if self.added.is_multiple_of(WAITING_MAX) {
            self.pool.retain(|since| time.saturating_sub(*since) < REASSEMBLY_NS);
        }
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        // The host drops fragments that overlap or contradict each other.
        let payload = self.pool.process_sliced_packet(&packet, time, ()).ok()??;
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
