//! Fragmented datagrams, in the kernel.

use etherparse::{IpFragOffset, Ipv4Header, Ipv6FragmentHeader, ip_number};
use filter_common::number::{Digits, Number};
use filter_common::reason::Reason;
use palang::model::policy::{Policy, Subject};
use palang_tests::common::gates::{Gates, reason};
use palang_tests::common::packet::{Layers, crlf};

use crate::{NOW, SECOND};

const BLOCKED: &str = "+6281234567890";
const INNOCENT: &str = "+6281234567891";

/// Returns three fragments of an INVITE, the headers in the first one.
fn fragments(number: &str, id: u16) -> [Vec<u8>; 3] {
    let headers = crlf(&format!(
        "INVITE sip:112@psap.example SIP/2.0\nFrom: <sip:{number}@x>\nTo: <sip:112@x>\n\
         Call-ID: {number}-{id}\n\n"
    ));
    let mut message = headers;
    message.resize(1600, b'v');
    let frame = Layers::IPV4.frame(&message);
    let datagram = &frame[34..];
    let part = |range: std::ops::Range<usize>, more: bool| {
        let (header, _) = Ipv4Header::from_slice(&frame[14..]).unwrap();
        let mut header = header;
        header.identification = id;
        header.dont_fragment = false;
        header.more_fragments = more;
        header.fragment_offset = IpFragOffset::try_new((range.start / 8) as u16).unwrap();
        header.set_payload_len(range.len()).unwrap();
        header.header_checksum = header.calc_header_checksum();
        let mut part = frame[..14].to_vec();
        header.write(&mut part).unwrap();
        part.extend_from_slice(&datagram[range]);
        part
    };
    [part(0..800, true), part(800..1200, true), part(1200..datagram.len(), false)]
}

fn gates() -> Gates {
    let mut policy = Policy::default();
    let digits = Digits::parse(&BLOCKED[1..]).unwrap();
    policy.block(Subject::Number(Number::e164(digits)), 0, 0);
    Gates::new(&policy)
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn the_rest_of_a_refused_datagram_is_dropped() {
    let mut gates = gates();
    let [first, middle, last] = fragments(BLOCKED, 7);
    assert_eq!(reason(&gates.judge(&middle, NOW)), Reason::LaterFragment);
    assert_eq!(reason(&gates.judge(&first, NOW)), Reason::BlockedNumber);
    assert_eq!(reason(&gates.judge(&middle, NOW)), Reason::RefusedFragment);
    assert_eq!(reason(&gates.judge(&last, NOW)), Reason::RefusedFragment);
    // The last one ends it.
    assert_eq!(reason(&gates.judge(&middle, NOW)), Reason::LaterFragment);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn refused_datagram_is_forgotten_after_two_seconds() {
    let mut gates = gates();
    let [first, middle, _] = fragments(BLOCKED, 7);
    assert_eq!(reason(&gates.judge(&first, NOW)), Reason::BlockedNumber);
    let late = gates.judge(&middle, NOW + 2 * SECOND);
    assert_eq!(reason(&late), Reason::LaterFragment);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn an_innocent_datagram_with_the_same_id_passes_whole() {
    let mut gates = gates();
    let [first, ..] = fragments(BLOCKED, 7);
    assert_eq!(reason(&gates.judge(&first, NOW)), Reason::BlockedNumber);
    let [first, middle, last] = fragments(INNOCENT, 7);
    assert_eq!(reason(&gates.judge(&first, NOW)), Reason::NotBlocked);
    assert_eq!(reason(&gates.judge(&middle, NOW)), Reason::LaterFragment);
    assert_eq!(reason(&gates.judge(&last, NOW)), Reason::LaterFragment);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn another_id_is_another_datagram() {
    let mut gates = gates();
    let [first, ..] = fragments(BLOCKED, 7);
    assert_eq!(reason(&gates.judge(&first, NOW)), Reason::BlockedNumber);
    let [_, middle, _] = fragments(INNOCENT, 8);
    assert_eq!(reason(&gates.judge(&middle, NOW)), Reason::LaterFragment);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_later_fragment_is_never_taken_for_a_datagram() {
    // Its first bytes read as UDP to port 5060 with an INVITE of the blocked number.
    let mut gates = gates();
    let whole = fragments(BLOCKED, 9);
    let mut disguised = whole[1].clone();
    let datagram = &whole[0][34..34 + 300];
    disguised.splice(34..334, datagram.iter().copied());
    assert_eq!(reason(&gates.judge(&disguised, NOW)), Reason::LaterFragment);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn headers_that_end_in_a_later_fragment_pass() {
    let mut gates = gates();
    let [mut first, ..] = fragments(BLOCKED, 10);
    let empty_line = first.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    first[empty_line..].fill(b'x');
    assert_eq!(reason(&gates.judge(&first, NOW)), Reason::HeadersCut);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn ipv6_fragments_are_followed_too() {
    let mut gates = gates();
    let message = crlf(&format!(
        "INVITE sip:112@psap.example SIP/2.0\nFrom: <sip:{BLOCKED}@x>\nTo: <sip:112@x>\n\
         Call-ID: six\n\n"
    ));
    let frame = Layers { ipv6: true, vlans: 0 }.frame(&message);
    let part = |offset: u16, more: bool, payload: &[u8]| {
        let mut part = frame[..54].to_vec();
        part[20] = 44;
        let len = (payload.len() + 8) as u16;
        part[18..20].copy_from_slice(&len.to_be_bytes());
        let offset = IpFragOffset::try_new(offset / 8).unwrap();
        let header = Ipv6FragmentHeader::new(ip_number::UDP, offset, more, 0xABCD_EF01);
        part.extend_from_slice(&header.to_bytes());
        part.extend_from_slice(payload);
        part
    };
    let mut datagram = frame[54..].to_vec();
    // The length of the whole datagram: more follows.
    let len = (datagram.len() + 8) as u16;
    datagram[4..6].copy_from_slice(&len.to_be_bytes());
    let at = datagram.len() as u16 / 8 * 8;
    assert_eq!(reason(&gates.judge(&part(0, true, &datagram), NOW)), Reason::BlockedNumber);
    assert_eq!(reason(&gates.judge(&part(at, true, &[0; 8]), NOW)), Reason::RefusedFragment);
    assert_eq!(reason(&gates.judge(&part(at + 8, false, &[0; 8]), NOW)), Reason::RefusedFragment);
    assert_eq!(reason(&gates.judge(&part(at, true, &[0; 8]), NOW)), Reason::LaterFragment);
    // An atomic fragment is a whole datagram (RFC 6946).
    let whole = part(0, false, &frame[54..]);
    assert_eq!(reason(&gates.judge(&whole, NOW)), Reason::BlockedNumber);
}
