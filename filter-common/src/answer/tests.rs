//! Replies to whole requests. The answers on fixtures are read by other stacks in `tests/answers.rs`.

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice, VlanId};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::sums::{Checked, check};
use super::*;
use crate::answer::code::Code;
use crate::bytes::Slice;
use crate::frame::read;

const CONTACT: &str = "sip:announcement@192.0.2.9";
const KEYS: Keys = Keys { keys: [[1, 2], [3, 4]], newest: 1, older_until: 0 };

const INVITE: &str = "INVITE sip:112@psap.example SIP/2.0\r\n\
    Via: SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bK7\r\n\
    Max-Forwards: 70\r\n\
    From: <sip:+6281234567890@ims.example>;tag=f1\r\n\
    To: <sip:112@psap.example>\r\n\
    Call-ID: a84b4c76e66710@10.0.0.1\r\n\
    CSeq: 314159 INVITE\r\n\
    Contact: <sip:10.0.0.1:5060>\r\n\
    User-Agent: an exchange of some make\r\n\
    Content-Length: 0\r\n\r\n";

/// Layers of a frame: IPv6 or IPv4, VLAN tags, source port.
type Layers = (bool, u8, u16);
const PLAIN: Layers = (false, 0, 5080);

fn frame((ipv6, vlans, port): Layers, message: &[u8]) -> Vec<u8> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let vlan = |id| VlanId::try_new(id).expect("12 bits");
    macro_rules! finish {
        ($link:expr) => {{
            let network = if ipv6 {
                $link.ipv6([0xFD; 16], [0xFC; 16], 9)
            } else {
                $link.ipv4([203, 0, 113, 9], [10, 0, 0, 2], 9)
            };
            let mut frame = Vec::new();
            network.udp(port, 5060).write(&mut frame, message).expect("fits a datagram");
            frame
        }};
    }
    match vlans {
        0 => finish!(link),
        1 => finish!(link.single_vlan(vlan(7))),
        _ => finish!(link.double_vlan(vlan(100), vlan(7))),
    }
}

fn packet(frame: &[u8]) -> Packet {
    let mut packet = Packet::default();
    // A frame that is no datagram leaves the packet without one.
    _ = read(&Slice::from(frame), &mut packet);
    packet
}

/// Returns the frame of the reply, and the offset of the message in it.
fn answer_frame(request: &[u8], code: Code) -> Option<(Vec<u8>, usize)> {
    let mut answer = Answer::<ROOM>::default();
    let contact = Contact::new(CONTACT).expect("it fits");
    let reply =
        answer.write(&Slice::from(request), &packet(request), &KEYS, code as u8, &contact)?;
    Some((answer.bytes(reply.start, reply.end).to_vec(), reply.message - reply.start))
}

fn answer(layers: Layers, message: &str) -> Option<String> {
    let (frame, at) = answer_frame(&frame(layers, message.as_bytes()), Code::default())?;
    Some(String::from_utf8(frame[at..].to_vec()).expect("a text"))
}

fn is_answered(message: &str) -> bool {
    answer(PLAIN, message).is_some()
}

fn tag_of(reply: &str) -> &str {
    let at = reply.find(";tag=p1").expect("a tag of ours");
    &reply[at + 5..][..TAG_LEN]
}

#[test]
fn reply_has_the_fields_of_the_request() {
    let reply = answer(PLAIN, INVITE).expect("a reply");
    let tag = tag_of(&reply);
    let expected = format!(
        "SIP/2.0 600 Busy Everywhere\r\n\
         Via: SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bK7;received=203.0.113.9\r\n\
         From: <sip:+6281234567890@ims.example>;tag=f1\r\n\
         To: <sip:112@psap.example>;tag={tag}\r\n\
         Call-ID: a84b4c76e66710@10.0.0.1\r\n\
         CSeq: 314159 INVITE\r\n\
         Reason: Q.850;cause=17\r\n\
         Content-Length: 0\r\n\r\n"
    );
    assert_eq!(reply, expected);
    assert_eq!(answer(PLAIN, INVITE).as_ref(), Some(&reply), "a retransmission has the same tag");
    let other = INVITE.replace("314159", "314160");
    assert_ne!(tag_of(&answer(PLAIN, &other).expect("a reply")), tag);
}

#[test]
fn redirection_has_the_contact_and_no_cause() {
    let request = frame(PLAIN, INVITE.as_bytes());
    let (reply, at) = answer_frame(&request, Code::MovedTemporarily).expect("a reply");
    let reply = std::str::from_utf8(&reply[at..]).expect("a text");
    assert!(reply.starts_with("SIP/2.0 302 Moved Temporarily\r\nVia: "), "{reply}");
    let end = format!("CSeq: 314159 INVITE\r\nContact: <{CONTACT}>\r\nContent-Length: 0\r\n\r\n");
    assert!(reply.ends_with(&end), "{reply}");
    assert!(!reply.contains("Reason"), "{reply}");
    let code = Code::MovedTemporarily as u8;
    let without = Answer::<ROOM>::default().write(
        &Slice::from(&request[..]),
        &packet(&request),
        &KEYS,
        code,
        &Contact::default(),
    );
    assert_eq!(without, None, "a redirection to nowhere");
}

#[test]
fn forms_of_a_request_are_copied_as_they_came() {
    const RECEIVED: &str = ";received=203.0.113.9";
    const RPORT: &str = "=5080;received=203.0.113.9";
    for (from, to, line) in [
        ("Via: ", "v :", format!("v :SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bK7{RECEIVED}\r\n")),
        (
            "Via: ",
            "VIA:\r\n ",
            format!("VIA:\r\n SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bK7{RECEIVED}\r\n"),
        ),
        ("K7\r\n", "K7;rport\r\n", format!(";branch=z9hG4bK7;rport{RPORT}\r\n")),
        (
            "K7\r\n",
            "K7;RPORT \r\n\t;a=\",;\\\"\"\r\n",
            format!(";RPORT \r\n\t{RPORT};a=\",;\\\"\"\r\n"),
        ),
        (
            "K7\r\n",
            "K7 ;rport,SIP/2.0/UDP h;rport;received=1.2.3.4\r\n",
            format!("K7 ;rport{RPORT},SIP/2.0/UDP h;rport;received=1.2.3.4\r\n"),
        ),
        (
            "K7\r\n",
            "K7;rport;x,SIP/2.0/UDP h;rport\r\n",
            format!("K7;rport{RPORT};x,SIP/2.0/UDP h;rport\r\n"),
        ),
        ("K7\r\n", "K7;rport=9\r\n", format!("K7;rport=9{RECEIVED}\r\n")),
        ("K7\r\n", "K7;rports;rpo\r\n", format!("K7;rports;rpo{RECEIVED}\r\n")),
        (
            "K7\r\n",
            "K7\r\nVia: SIP/2.0/TCP [::1]:7;rport;maddr=h\r\n",
            format!("K7{RECEIVED}\r\nVia: SIP/2.0/TCP [::1]:7;rport;maddr=h\r\n"),
        ),
        (
            "UDP 10.0.0.1:5070;branch=z9hG4bK7",
            "UDP h , SIP/2.0/UDP i",
            format!("UDP h {RECEIVED}, SIP/2.0/UDP i\r\n"),
        ),
        (
            "SIP/2.0/UDP 10.0.0.1:5070",
            "SIP / 2.0 /\r\n UDP\t[::1] : 5070 ",
            format!("SIP / 2.0 /\r\n UDP\t[::1] : 5070 ;branch=z9hG4bK7{RECEIVED}\r\n"),
        ),
        ("K7\r\n", "K7\n", format!("K7{RECEIVED}\n")),
        ("CSeq: 314159 INVITE", "cseq:\r\n 7\r\n INVITE", "cseq:\r\n 7\r\n INVITE\r\n".to_owned()),
        ("Call-ID: a84b4c76e66710@10.0.0.1", "i:a ", "\r\ni:a \r\n".to_owned()),
        (
            "From: <",
            "f: \"x;\r\n y\" <",
            "f: \"x;\r\n y\" <sip:+6281234567890@ims.example>;tag=f1\r\n".to_owned(),
        ),
        (
            "To: <sip:112@psap.example>",
            "t: sip:112@h;x=tag",
            "t: sip:112@h;x=tag;tag=p1".to_owned(),
        ),
        (
            "To: <sip:112@psap.example>\r\n",
            "To: \"a;tag=x\"\r\n <sip:1@h;tag=y>\r\n ;b=\"\\\"\"\n",
            "To: \"a;tag=x\"\r\n <sip:1@h;tag=y>\r\n ;b=\"\\\"\";tag=p1".to_owned(),
        ),
    ] {
        assert!(INVITE.contains(from), "{from}");
        let reply = answer(PLAIN, &INVITE.replace(from, to)).unwrap_or_else(|| panic!("{to}"));
        assert!(reply.contains(&line), "{line:?} is not in {reply:?}");
        let rest = INVITE.lines().skip(1).filter(|l| !l.starts_with(['M', 'C'])).count();
        assert!(reply.lines().count() > rest);
    }
}

#[test]
fn unclear_requests_get_no_reply() {
    assert!(is_answered(INVITE));
    for (from, to) in [
        ("Via: SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bK7\r\n", ""),
        ("K7", "K7;maddr=192.0.2.1"),
        ("K7", "K7;rport;MADDR =192.0.2.1"),
        ("K7", "K7;received=192.0.2.1"),
        ("K7", "K7;received"),
        ("K7", "K7;"),
        ("K7", "K7;rport;"),
        ("K7", "K7;a=\"b"),
        ("K7", "K7\u{1}"),
        (":5070", ":0"),
        (":5070", ":65536"),
        (":5070", ":5070:5070"),
        (":5070", ":"),
        ("UDP ", "UDP\r\n"),
        ("SIP/2.0/UDP ", "SIP/2.0 "),
        ("To: <sip:112@psap.example>", "To: <sip:112@psap.example>;tag=x"),
        ("To: <sip:112@psap.example>", "To: <sip:112@psap.example>;\r\n\tTAG = \"x\""),
        ("To: <sip:112@psap.example>", "To: \"<sip:112@psap.example>"),
        ("To: ", "X: "),
        ("From: ", "X: "),
        ("Call-ID: ", "X: "),
        ("CSeq: ", "X: "),
        ("Max-Forwards: 70", "t: <sip:1@h>"),
        ("Max-Forwards: 70", "f: <sip:1@h>"),
        ("Max-Forwards: 70", "i: 1"),
        ("Max-Forwards: 70", "CSEQ: 1 INVITE"),
        ("314159", ""),
        ("314159", "4294967296"),
        ("314159", "00000000001"),
        ("INVITE sip", "BYE sip"),
        ("\r\n\r\n", "\r\n"),
    ] {
        assert!(INVITE.contains(from), "{from}");
        let message = INVITE.replace(from, to);
        assert!(!is_answered(&message), "{message}");
    }
}

#[test]
fn reply_is_never_longer_than_the_request() {
    let replies: Vec<_> = (0..80)
        .map(|len| {
            let message = INVITE
                .replace("Max-Forwards: 70\r\n", "")
                .replace("Contact: <sip:10.0.0.1:5060>\r\n", "")
                .replace("an exchange of some make", &"x".repeat(len));
            let reply = answer(PLAIN, &message);
            assert!(reply.as_ref().is_none_or(|reply| reply.len() <= message.len()));
            reply.map(|reply| (reply.contains("Content-Length: 0"), reply.contains("Reason: ")))
        })
        .collect();
    // First no reply, then the shortest one, then one with the long name, then one with the cause.
    let mut kinds = replies.clone();
    kinds.dedup();
    assert_eq!(kinds, [None, Some((false, false)), Some((true, false)), Some((true, true))]);
    // Each comes as soon as there is room for it.
    let count = |kind| replies.iter().filter(|found| **found == Some(kind)).count();
    assert_eq!(count((false, false)), END.len() - COMPACT_END.len());
    assert_eq!(count((true, false)), Code::default().reason().expect("a cause").len());
}

#[test]
fn reply_goes_to_the_port_of_the_topmost_via() {
    for (from, to, port) in [
        ("", "", 5070),
        (":5070", "", 5060),
        ("K7", "K7;rport", 5080),
        ("K7", "K7;rport\r\nVia: SIP/2.0/UDP h:99", 5080),
        (":5070", "\r\nVia: SIP/2.0/UDP h:99", 5060),
        ("K7", "K7\r\nVia: SIP/2.0/UDP h:99;rport", 5070),
    ] {
        let message = INVITE.replacen(from, to, 1);
        let request = frame(PLAIN, message.as_bytes());
        let (reply, _) = answer_frame(&request, Code::BusyHere).expect("a reply");
        let sliced = SlicedPacket::from_ethernet(&reply).expect("a frame");
        let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("no UDP") };
        assert_eq!((udp.source_port(), udp.destination_port()), (5060, port), "{message}");
    }
}

#[test]
fn ack_of_our_tag_is_known() {
    let reply = answer(PLAIN, INVITE).expect("a reply");
    let tag = tag_of(&reply);
    let ack = format!(
        "ACK sip:112@psap.example SIP/2.0\r\n\
         Via: SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bK7\r\n\
         From: <sip:+6281234567890@ims.example>;tag=f1\r\n\
         To: <sip:112@psap.example>;tag={tag}\r\n\
         Call-ID: a84b4c76e66710@10.0.0.1\r\n\
         CSeq: 314159 ACK\r\nContent-Length: 0\r\n\r\n"
    );
    let is_own = |message: &str| {
        let frame = frame(PLAIN, message.as_bytes());
        is_own_ack(&Slice::from(&frame[..]), &packet(&frame), &KEYS, 1, &mut Answer::default())
    };
    assert!(is_own(&ack));
    for (from, to) in [
        (";tag=p", " ; x ; tag = p"),
        ("To: ", "t:\r\n "),
        ("Call-ID: ", "i:"),
        ("UDP 10.0.0.1:5070;branch=z9hG4bK7", "UDP other;branch=z9hG4bK8"),
    ] {
        assert!(is_own(&ack.replace(from, to)), "{to}");
    }
    let changed = |c: &str| format!("{}{c}", &tag[..TAG_LEN - 1]);
    let last = if tag.ends_with('0') { "1" } else { "0" };
    for (from, to) in [
        (tag, &changed(last)[..]),
        (tag, &changed("")),
        (tag, &format!("{tag}0")),
        (tag, "x"),
        ("psap.example>;tag=", "psap.example>;tag=x;tag="),
        ("psap.example>;tag=", "psap.example>;gat="),
        ("314159", "314158"),
        ("a84b", "b84b"),
        ("ACK sip", "BYE sip"),
        ("\r\n\r\n", "\r\n"),
    ] {
        assert!(!is_own(&ack.replacen(from, to, 1)), "{to}");
    }
    assert!(!is_own(&INVITE.replace("psap.example>", &format!("psap.example>;tag={tag}"))));
}

#[test]
fn sums_of_a_frame_are_checked() {
    for ipv6 in [false, true] {
        for vlans in 0..3 {
            let right = frame((ipv6, vlans, 5060), INVITE.as_bytes());
            let checked = |frame: &[u8]| check::<_, ROOM>(&Slice::from(frame), &packet(frame));
            assert_eq!(checked(&right), Checked::Right);
            let udp = packet(&right).payload - 8;
            let with_sum = |sum: u16| {
                let mut frame = right.clone();
                frame[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
                frame
            };
            assert_eq!(checked(&with_sum(0)), if ipv6 { Checked::Wrong } else { Checked::Missing });
            // By hand: the addresses, the protocol and the length, and no complement.
            let addresses = if ipv6 { udp - 32..udp } else { udp - 8..udp };
            let (words, _) = right[addresses].as_chunks::<2>();
            let mut sum = 17 + (right.len() - udp) as u64;
            sum += words.iter().map(|word| u16::from_be_bytes(*word) as u64).sum::<u64>();
            while sum > 0xFFFF {
                sum = (sum & 0xFFFF) + (sum >> 16);
            }
            assert_eq!(checked(&with_sum(sum as u16)), Checked::Partial);
            assert_eq!(checked(&with_sum(!(sum as u16))), Checked::Wrong);
        }
    }
    let long = frame(PLAIN, &[b'x'; 1473]);
    assert_eq!(check::<_, ROOM>(&Slice::from(&long[..]), &packet(&long)), Checked::Unread);
    let cut = frame(PLAIN, INVITE.as_bytes());
    assert_eq!(check::<_, ROOM>(&Slice::new(&cut, cut.len() - 1), &packet(&cut)), Checked::Unread);
}

#[test]
fn right_sum_that_is_that_of_the_pseudo_header_is_right() {
    let is_chance = |word: &u16| {
        let frame = frame(PLAIN, &word.to_be_bytes());
        let packet = packet(&frame);
        // 203.0.113.9, 10.0.0.2, UDP, and 10 bytes.
        packet.checksum == 0x4627
    };
    let word = (0..=u16::MAX).find(is_chance).expect("one of all words");
    let frame = frame(PLAIN, &word.to_be_bytes());
    assert_eq!(check::<_, ROOM>(&Slice::from(&frame[..]), &packet(&frame)), Checked::Right);
}

fn layers() -> impl Strategy<Value = Layers> {
    (any::<bool>(), 0u8..3, 1u16..)
}

#[test]
fn bytes_of_an_earlier_reply_change_nothing() {
    for layers in [PLAIN, (true, PLAIN.1, PLAIN.2)] {
        let request = frame(layers, INVITE.as_bytes());
        let (reply, _) = answer_frame(&request, Code::default()).expect("a reply");
        let mut used = Answer::<ROOM> { room: [0xA5; ROOM], ..Answer::default() };
        let at = used
            .write(
                &Slice::from(&request[..]),
                &packet(&request),
                &KEYS,
                Code::default() as u8,
                &Contact::default(),
            )
            .expect("a reply");
        assert_eq!(used.bytes(at.start, at.end), reply);
    }
}

proptest! {
    #[test]
    fn reply_frame_is_right_for_etherparse(layers in layers(), code in select(&Code::ALL[..]), pad in 60usize..200) {
        let message = INVITE.replace("Max-Forwards: 70", &format!("X: {}", "x".repeat(pad)))
            .replace("10.0.0.1\r\n", &format!("{}\r\n", "y".repeat(pad)));
        let request = frame(layers, message.as_bytes());
        let (reply, _) = answer_frame(&request, code).expect("a reply");
        prop_assert!(reply.len() <= request.len());
        prop_assert_eq!(&reply[..6], &request[6..12]);
        prop_assert_eq!(&reply[6..12], &request[..6]);
        let network = 14 + 4 * layers.1 as usize;
        prop_assert_eq!(&reply[12..network], &request[12..network]);
        let sliced = SlicedPacket::from_ethernet(&reply).expect("a frame");
        let Some(TransportSlice::Udp(udp)) = &sliced.transport else { panic!("no UDP") };
        let sum = match sliced.net.as_ref().expect("IP") {
            etherparse::NetSlice::Ipv4(ip) => {
                let header = ip.header();
                prop_assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
                prop_assert_eq!((header.source(), header.destination()), ([10, 0, 0, 2], [203, 0, 113, 9]));
                prop_assert!(header.dont_fragment());
                udp.to_header().calc_checksum_ipv4_raw(header.source(), header.destination(), udp.payload())
            }
            etherparse::NetSlice::Ipv6(ip) => {
                let header = ip.header();
                prop_assert_eq!((header.source(), header.destination()), ([0xFC; 16], [0xFD; 16]));
                udp.to_header().calc_checksum_ipv6_raw(header.source(), header.destination(), udp.payload())
            }
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(Ok(udp.checksum()), sum);
        prop_assert_eq!(check::<_, ROOM>(&Slice::from(&reply[..]), &packet(&reply)), Checked::Right);
        // No reply to a reply of ours.
        prop_assert!(answer_frame(&reply, code).is_none());
    }

    #[test]
    fn one_changed_bit_is_found_in_each_sum(layers in layers(), bit: Index) {
        let mut frame = frame(layers, INVITE.as_bytes());
        let network = 14 + 4 * layers.1 as usize;
        // The traffic class, the flow label and the hop limit of IPv6 are in no sum.
        let first = if layers.0 { network + 8 } else { network };
        let bit = first * 8 + bit.index((frame.len() - first) * 8);
        frame[bit / 8] ^= 1 << (bit % 8);
        prop_assert_ne!(check::<_, ROOM>(&Slice::from(&frame[..]), &packet(&frame)), Checked::Right);
    }

    #[test]
    fn any_bytes_get_an_answer_or_none(layers in layers(), text in "([Vvia:FfrTto CcSeqlLIidD1\"\\\\;,<>=rporteceivedmaddrtag/\\[\\] ]|\r\n|\r|\n){0,200}", raw: Vec<u8>) {
        let mut message = b"INVITE sip:1@h SIP/2.0\r\n".to_vec();
        message.extend(text.as_bytes());
        message.extend(&raw);
        for message in [&message[..], &raw] {
            let frame = frame(layers, message);
            if let Some((reply, _)) = answer_frame(&frame, Code::default()) {
                prop_assert!(reply.len() <= frame.len());
            }
            is_own_ack(&Slice::from(&frame[..]), &packet(&frame), &KEYS, 0, &mut Answer::default());
            _ = check::<_, ROOM>(&Slice::from(&frame[..]), &packet(&frame));
        }
        answer_frame(&raw, Code::default());
        _ = check::<_, ROOM>(&Slice::from(&raw[..]), &packet(&raw));
    }
}
