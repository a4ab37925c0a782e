use std::path::Path;

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::replay::capture::Capture;
use crate::replay::frames::Frames;
use crate::replay::message;

/// An INVITE in each kind of tunnel, in the order of `tests/fixtures/tunnels/README.md`. tshark finds the
/// same Call-IDs, except in HEP.
const TUNNELS: [(&str, &str); 22] = [
    ("VLAN", "vlan"),
    ("PPPoE", "pppoe"),
    ("MPLS", "mpls"),
    ("MPLS", "pseudowire"),
    ("GRE", "gre"),
    ("GRE", "gre-key"),
    ("GRE", "pptp"),
    ("GRE", "nvgre"),
    ("ERSPAN", "erspan-1"),
    ("ERSPAN", "erspan-2"),
    ("ERSPAN", "erspan-3"),
    ("VXLAN", "vxlan"),
    ("VXLAN", "vxlan-6"),
    ("GENEVE", "geneve"),
    ("GTP-U", "gtp"),
    ("IP in IP", "ipip"),
    ("IP in IP", "6in4"),
    ("HEP", "hep-3"),
    ("HEP", "hep-3-zlib"),
    ("HEP", "hep-2"),
    ("MPLS, VXLAN", "fragments"),
    ("-", "plain"),
];

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

/// Returns tunnels and Call-ID of each INVITE of a capture.
fn invites(name: &str, frames: &mut Frames) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let read = frames.capture(
        &fixture(name),
        |_| {},
        |_, ethernet, tunnels| {
            let message = message::read(ethernet).1.filter(|message| message.method == "INVITE");
            if let Some(message) = message {
                let names = tunnels.map_or_else(|| "-".to_owned(), Inner::names);
                found.push((names, message.call_id.unwrap_or_default()));
            }
            Ok(())
        },
    );
    read.unwrap();
    found
}

#[test]
fn invite_in_each_tunnel_is_found() {
    let mut frames = Frames::new(true);
    let expected = TUNNELS.map(|(tunnel, name)| (tunnel.to_owned(), format!("{name}@example.com")));
    assert_eq!(invites("tunnels/tunnels.pcap", &mut frames), expected);
    assert!(frames.skipped.tunnelled.is_empty());
}

/// Returns an Ethernet frame with a UDP datagram.
fn datagram(destination: [u8; 6], port: u16, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], destination)
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(5060, port);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

#[test]
fn packets_of_two_tunnels_have_two_channels() {
    let packet = datagram([4; 6], 5060, b"INVITE");
    let vxlan = |vni: u8| {
        let payload = [&[8, 0, 0, 0, 0, 0, vni, 0][..], &packet].concat();
        inner(&datagram([4; 6], PORT_VXLAN, &payload)).unwrap()
    };
    let gre = |key: u8| {
        let header = etherparse::Ipv4Header::new(
            (8 + packet.len() - 14) as u16,
            64,
            ip_number::GRE,
            [10, 0, 0, 1],
            [10, 0, 0, 2],
        );
        let mut frame = packet[..14].to_vec();
        header.unwrap().write(&mut frame).unwrap();
        frame.extend([0x20, 0, 8, 0, 0, 0, 0, key]);
        frame.extend_from_slice(&packet[14..]);
        inner(&frame).unwrap()
    };
    assert_eq!((vxlan(1), gre(1)), (vxlan(1), gre(1)));
    let channels = [0, vxlan(0).channel, vxlan(1).channel, gre(0).channel, gre(2).channel];
    let different: std::collections::BTreeSet<_> = channels.into_iter().collect();
    assert!(different.len() >= 4, "{channels:?}");
    assert_ne!(gre(0).channel, gre(2).channel);
    assert_ne!(vxlan(0).channel, vxlan(1).channel);
}

#[test]
fn frame_in_mpls_whose_address_begins_like_a_packet_is_read() {
    // A label, bottom of the stack.
    let label = [0, 0x01, 0x41, 0xFF];
    for first in [0x40, 0x45, 0x60, 0x65] {
        let frame = datagram([first, 0, 0, 1, 2, 3], 5060, b"INVITE");
        let mpls = [&[4; 6][..], &[2; 6], &[0x88, 0x47], &label, &frame].concat();
        let found = inner(&mpls).unwrap();
        assert_eq!((found.tunnels, &found.frame[14..]), (vec!["MPLS"], &frame[14..]), "{first:x}");
        let mpls = [&[4; 6][..], &[2; 6], &[0x88, 0x47], &label, &frame[14..]].concat();
        assert_eq!(&inner(&mpls).unwrap().frame[14..], &frame[14..], "a packet without a frame");
    }
}

#[test]
fn invite_in_a_tunnel_is_counted_if_it_is_not_unwrapped() {
    let mut frames = Frames::new(false);
    let found = invites("tunnels/tunnels.pcap", &mut frames);
    assert_eq!(found, [("-".to_owned(), "plain@example.com".to_owned())]);
    let counted = &frames.skipped.tunnelled;
    assert_eq!(counted.values().sum::<u64>(), TUNNELS.len() as u64 - 1);
    assert_eq!((counted["GRE"], counted["MPLS, VXLAN"]), (4, 1));
}

// tshark finds the two INVITEs of this recorded VoLTE call in GTP-U, each in two fragments of the inner packet.
#[test]
fn recorded_call_in_gtp_is_found() {
    let name = "pcaps/gpl/open5gs__ipsec_to_nonipsec_call.pcapng";
    let found = invites(name, &mut Frames::new(true));
    assert_eq!(found.iter().filter(|(tunnel, _)| tunnel == "GTP-U").count(), 2, "{found:?}");
}

fn fixture_frames() -> Vec<Vec<u8>> {
    let capture = Capture::open(&fixture("tunnels/tunnels.pcap"), |_| {}).unwrap();
    capture.map(|frame| frame.unwrap().bytes).collect()
}

#[test]
fn frame_that_the_program_reads_is_left_alone() {
    let plain = fixture_frames().pop().unwrap();
    assert_eq!(inner(&plain), None);
    let tagged = |tags: &[u8]| inner(&[&plain[..12], tags, &plain[12..]].concat());
    assert_eq!(tagged(&[0x88, 0xA8, 0, 1, 0x81, 0, 0, 2]), None);
    let unknown = tagged(&[0x92, 0, 0, 1]).unwrap();
    assert_eq!(unknown.tunnels, ["VLAN"], "a tag that the program does not read");
}

#[test]
fn tunnel_without_a_packet_is_left_alone() {
    let udp = |port: u16, payload: &[u8]| {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(5060, port)
            .write(&mut frame, payload)
            .unwrap();
        frame
    };
    let arp = [&[8, 0, 0, 0, 0, 0, 7, 0][..], &[0; 12], &[0x08, 0x06], &[0; 28]].concat();
    for (port, payload) in [
        (PORT_VXLAN, &arp[..]),
        (PORT_VXLAN, &[]),
        (PORT_GTP_U, &[0x30, 1, 0, 0, 0, 0, 0, 0]),
        // An extension header of no length would never end.
        (PORT_GTP_U, &[0x34, 0xFF, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0x85, 0, 0, 0, 0x85]),
        (9060, b"HEP3\0\x0C\0\0\0\x0B\0\0"),
        (9060, b"HEP3\0"),
        (5060, b"\x02\x1C\x02\x11"),
    ] {
        assert_eq!(inner(&udp(port, payload)), None, "{port} {payload:?}");
    }
}

#[test]
fn compressed_message_that_is_too_long_is_left_alone() {
    use std::io::Write as _;
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    zlib.write_all(&vec![b'a'; 1 << 24]).unwrap();
    let zlib = zlib.finish().unwrap();
    let chunk = |kind: u16, value: &[u8]| {
        let len = 6 + value.len() as u16;
        [&[0, 0][..], &kind.to_be_bytes(), &len.to_be_bytes(), value].concat()
    };
    let chunks = [
        chunk(2, &[17]),
        chunk(3, &[10, 0, 0, 1]),
        chunk(4, &[10, 0, 0, 2]),
        chunk(11, &[1]),
        chunk(16, &zlib),
    ]
    .concat();
    let head = [&b"HEP3"[..], &(6 + chunks.len() as u16).to_be_bytes()].concat();
    assert_eq!(hep::packet(&[head, chunks].concat(), 9060), None);
}

#[test]
fn old_hep_is_read_however_an_agent_counts_its_header() {
    let addresses = [192, 0, 2, 1, 192, 0, 2, 2];
    let packets = [(1, 16, 0), (1, 8, 0), (2, 28, 12), (2, 26, 10), (2, 16, 12), (2, 16, 10)].map(
        |(version, len, time)| {
            let head = [version, len, 2, 17, 0x13, 0xC4, 0x13, 0xC4];
            let message = [&head[..], &addresses, &vec![0; time], b"INVITE sip:112@x SIP/2.0"];
            hep::packet(&message.concat(), 9060)
        },
    );
    assert!(packets[0].as_ref().is_some_and(|packet| packet.ends_with(b"sip:112@x SIP/2.0")));
    assert!(packets.iter().all(|packet| *packet == packets[0]), "{packets:?}");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = inner(&bytes);
        let _ = hep::packet(&bytes, 9060);
        let _ = hep::packet(&[b"HEP3", &bytes[..]].concat(), 9060);
    }

    #[test]
    fn changed_tunnels_are_read_without_panic(
        index in 0..TUNNELS.len(),
        cut in 0..400usize,
        changes in proptest::collection::vec((0..400usize, any::<u8>()), 0..6),
    ) {
        let mut frame = fixture_frames().swap_remove(index);
        for (at, byte) in changes {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        frame.truncate(frame.len().saturating_sub(cut));
        if let Some(found) = inner(&frame) {
            prop_assert!(!found.tunnels.is_empty() && found.frame.len() >= 14);
        }
    }
}
