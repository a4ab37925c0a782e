//! Fragmented datagrams, in the kernel.

use filter_common::number::{Digits, Number};
use filter_common::reason::Reason;
use palang::model::policy::{Policy, Subject};
use palang_tests::common::gates::{Gates, reason};
use palang_tests::common::packet::{self, Layers, crlf};

use crate::{NOW, SECOND};

const BLOCKED: &str = "+6281234567890";
const INNOCENT: &str = "+6281234567891";
/// The reasons of the fragments of a refused datagram, in order.
const REFUSED: [Reason; 3] =
    [Reason::BlockedNumber, Reason::RefusedFragment, Reason::RefusedFragment];

/// Returns three fragments of an INVITE, the headers in the first one.
fn fragments(number: &str, id: u16) -> [Vec<u8>; 3] {
    let headers = crlf(&format!(
        "INVITE sip:112@psap.example SIP/2.0\nFrom: <sip:{number}@x>\nTo: <sip:112@x>\n\
         Call-ID: {number}-{id}\n\n"
    ));
    let mut message = headers;
    message.resize(1600, b'v');
    let parts = packet::fragments(&Layers::IPV4.frame(&message), id.into(), &[800, 1200]);
    parts.try_into().unwrap()
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
    let parts = fragments(BLOCKED, 7);
    for (part, expected) in parts.iter().zip(REFUSED) {
        assert_eq!(reason(&gates.judge(part, NOW)), expected);
    }
    // In any order, and again.
    for part in [&parts[1], &parts[2], &parts[1]] {
        assert_eq!(reason(&gates.judge(part, NOW)), Reason::RefusedFragment);
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn first_fragment_after_a_later_one_passes_since_the_host_holds_that() {
    let mut gates = gates();
    let [first, middle, last] = fragments(BLOCKED, 7);
    for (part, expected) in [
        (&last, Reason::LaterFragment),
        (&first, Reason::HeadersCut),
        (&middle, Reason::LaterFragment),
    ] {
        assert_eq!(reason(&gates.judge(part, NOW)), expected);
    }
    // Without what was before, it is refused: the host has forgotten the fragment.
    let [first, middle, last] = fragments(BLOCKED, 8);
    assert_eq!(reason(&gates.judge(&last, NOW)), Reason::LaterFragment);
    let later = NOW + 60 * SECOND;
    for (part, expected) in [&first, &middle, &last].into_iter().zip(REFUSED) {
        assert_eq!(reason(&gates.judge(part, later)), expected);
    }
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
         Call-ID: six\n\n{}",
        "v".repeat(60)
    ));
    let frame = Layers { ipv6: true, vlans: 0 }.frame(&message);
    let parts = |id| packet::fragments(&frame, id, &[128, 144]);
    for (part, expected) in parts(0xABCD_EF01).iter().zip(REFUSED) {
        assert_eq!(reason(&gates.judge(part, NOW)), expected);
    }
    // An atomic fragment is a whole datagram (RFC 6946).
    let whole = packet::fragments(&frame, 5, &[]).remove(0);
    assert_eq!(reason(&gates.judge(&whole, NOW)), Reason::BlockedNumber);
}
