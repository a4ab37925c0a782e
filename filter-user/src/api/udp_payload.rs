//! Extracts the SIP message from a kept frame, for output only. The gate has its own frame reader
//! (`filter_common::frame`).

use etherparse::{IpNumber, LaxSlicedPacket, TransportSlice};

/// Length of a UDP header (RFC 768).
const UDP_HEADER: usize = 8;

/// Returns the payload of a UDP datagram, as far as the frame was kept. For a fragmented datagram this
/// is the first part. `None` if the frame is not UDP.
#[must_use]
pub fn udp_payload(frame: &[u8]) -> Option<&[u8]> {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    if let Some(TransportSlice::Udp(datagram)) = &packet.transport {
        return Some(datagram.payload());
    }
    // The library does not look beyond the IP header of a fragment.
    let ip = packet.net.as_ref()?.ip_payload_ref()?;
    if ip.ip_number == IpNumber::UDP { ip.payload.get(UDP_HEADER..) } else { None }
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, VlanId};

    use super::*;

    const MESSAGE: &[u8] = b"INVITE sip:112@x SIP/2.0\r\nX: \xff\r\n\r\n";

    #[test]
    fn payload_is_found_after_tags_in_both_families_and_in_cut_frames() {
        let vlan = VlanId::try_new(100).unwrap();
        let four = PacketBuilder::ethernet2([2; 6], [4; 6])
            .single_vlan(vlan)
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(5060, 5060);
        let six =
            PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([1; 16], [2; 16], 64).udp(5060, 5060);
        for builder in [four, six] {
            let mut frame = Vec::new();
            builder.write(&mut frame, MESSAGE).unwrap();
            assert_eq!(udp_payload(&frame), Some(MESSAGE));
            let cut = frame.len() - 5;
            assert_eq!(udp_payload(&frame[..cut]), Some(&MESSAGE[..MESSAGE.len() - 5]));
            // Padding of a short frame is not part of the payload.
            frame.extend([0; 9]);
            assert_eq!(udp_payload(&frame), Some(MESSAGE));
        }
    }

    #[test]
    fn first_fragment_has_the_beginning_of_the_payload() {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(5060, 5060)
            .write(&mut frame, MESSAGE)
            .unwrap();
        // The flag of more fragments (RFC 791 §3.1).
        frame[14 + 6] = 0x20;
        assert_eq!(udp_payload(&frame), Some(MESSAGE));
    }

    #[test]
    fn frame_without_udp_has_no_payload() {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(5060, 5060, 1, 1)
            .write(&mut frame, MESSAGE)
            .unwrap();
        assert_eq!(udp_payload(&frame), None);
        assert_eq!(udp_payload(&[0; 60]), None);
        assert_eq!(udp_payload(&[]), None);
    }
}
