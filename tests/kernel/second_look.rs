//! Datagrams that the first look cannot read whole, and the second look judges.

use filter_common::abi::{Event, Verdict};
use filter_common::number::{Digits, Number};
use filter_common::reason::Reason;
use palang::model::policy::{Policy, Subject};
use palang_tests::common::gates::{Gates, reason};
use palang_tests::common::invites;
use palang_tests::common::packet::{Layers, crlf, fragments};

use crate::{NOW, SECOND};

const BLOCKED: &str = "+6281234567890";
const INNOCENT: &str = "+6281234567891";

/// The first fragment of a datagram with nothing but a UDP header in it.
const TINY: [usize; 1] = [8];

/// Returns gates with a second look; `None` on a kernel without one.
fn gates() -> Option<Gates> {
    let mut policy = Policy::default();
    let digits = Digits::parse(&BLOCKED[1..]).unwrap();
    policy.block(Subject::Number(Number::e164(digits)), 0, 0);
    let mut gates = Gates::new(&policy);
    gates.add_second_look().then_some(gates)
}

/// Returns an INVITE whose headers are about this long.
fn invite(number: &str, headers: usize) -> Vec<u8> {
    crlf(&format!(
        "INVITE sip:112@psap.example SIP/2.0\nX: {}\nFrom: <sip:{number}@x>\nTo: <sip:112@x>\n\
         Call-ID: {number}-{headers}\n\nv=0\n",
        "x".repeat(headers)
    ))
}

/// Returns what both looks say of a datagram in fragments: the first fragment and the whole.
fn both(gates: &mut Gates, frame: &[u8], cuts: &[usize]) -> (Reason, Option<Event>) {
    let parts = fragments(frame, 7, cuts);
    let first = reason(&gates.judge(&parts[0], NOW));
    for part in &parts[1..] {
        gates.judge(part, NOW);
    }
    (first, gates.judge_again(frame, NOW))
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn headers_that_end_in_a_later_fragment_are_judged_whole() {
    let Some(mut gates) = gates() else { return };
    for ipv6 in [false, true] {
        for headers in [1500, 2000, 3000] {
            let look = |gates: &mut Gates, number| {
                let frame = Layers { ipv6, vlans: 0 }.frame(&invite(number, headers));
                let (first, again) = both(gates, &frame, &[1480]);
                assert_eq!(first, Reason::SecondLook);
                again.expect("left to the second look")
            };
            let refused = look(&mut gates, BLOCKED);
            assert_eq!(reason(&refused), Reason::BlockedNumber);
            assert_eq!(refused.verdict, Verdict::Drop as u8);
            let passed = look(&mut gates, INNOCENT);
            assert_eq!(reason(&passed), Reason::NotBlocked);
            assert_eq!(passed.number.to_string(), INNOCENT[1..]);
        }
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_call_is_counted_and_reported_once_with_its_call_id() {
    let Some(mut gates) = gates() else { return };
    gates.kernel().evidence().set(10).unwrap();
    let message = invite(BLOCKED, 2000);
    let frame = Layers::IPV4.frame(&message);
    both(&mut gates, &frame, &[1480]);
    let kernel = gates.kernel();
    for (reason, count) in [
        (Reason::SecondLook, 1),
        (Reason::LaterFragment, 1),
        (Reason::BlockedNumber, 1),
        (Reason::HeadersCut, 0),
    ] {
        assert_eq!(kernel.count(0, reason).unwrap(), count, "{}", reason.name());
    }
    let (refused, passed) = kernel.drain_events().unwrap();
    assert_eq!((refused.len(), passed.len()), (1, 0));
    assert_eq!(refused[0].call_id(), format!("{BLOCKED}-2000").as_bytes());
    let kept = kernel.drain_evidence().unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].frame_len as usize, frame.len());
    let len = kept[0].frame().len();
    assert!(len >= 2000, "{len}");
    assert_eq!(kept[0].frame()[..12], [0; 12], "no Ethernet addresses");
    assert_eq!(kept[0].frame()[12..], frame[12..len]);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn an_unread_caller_is_reported_with_its_header_field() {
    let Some(mut gates) = gates() else { return };
    let message = String::from_utf8(invite(BLOCKED, 2000)).unwrap();
    let message = message.replace(&format!("<sip:{BLOCKED}@"), "<sip:siti@");
    both(&mut gates, &Layers::IPV4.frame(message.as_bytes()), &[1480]);
    let (_, passed) = gates.kernel().drain_events().unwrap();
    assert_eq!(passed.len(), 1);
    let text = String::from_utf8_lossy(passed[0].unread());
    assert!(text.starts_with("<sip:siti@"), "{text}");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn only_datagrams_that_the_first_look_left_are_judged_again() {
    let Some(mut gates) = gates() else { return };
    let long = Layers::IPV4.frame(&invite(BLOCKED, 2000));
    assert_eq!(gates.judge_again(&long, NOW), None, "it came by another interface");
    let short = Layers::IPV4.frame(&invite(BLOCKED, 20));
    assert_eq!(reason(&gates.judge(&short, NOW)), Reason::BlockedNumber);
    assert_eq!(gates.judge_again(&short, NOW), None, "the first look has judged it");

    let (first, again) = both(&mut gates, &long, &[1480]);
    assert_eq!((first, again.is_some()), (Reason::SecondLook, true));
    let longer = Layers::IPV4.frame(&invite(BLOCKED, 2001));
    assert_eq!(gates.judge_again(&longer, NOW), None, "another datagram");
    let late = gates.judge_again(&long, NOW + 60 * SECOND);
    assert_eq!(late, None, "the host puts nothing together for so long");
}

// The second look finds the ports of a usual packet at once, and has to look for those of others.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn datagram_after_options_or_extension_headers_is_judged() {
    let Some(mut gates) = gates() else { return };
    let message = invite(BLOCKED, 2_300);
    let plain = Layers::IPV4.frame(&message);
    let mut options = plain.clone();
    // One word of "no operation" (RFC 791 §3.1).
    options[14] = 0x46;
    let total = (plain.len() - 14 + 4) as u16;
    options[16..18].copy_from_slice(&total.to_be_bytes());
    options.splice(34..34, [1; 4]);
    let plain6 = Layers { ipv6: true, vlans: 0 }.frame(&message);
    let mut extension = plain6.clone();
    // Destination options with padding (RFC 8200 §4.6).
    extension[20] = 60;
    let len = (plain6.len() - 54 + 8) as u16;
    extension[18..20].copy_from_slice(&len.to_be_bytes());
    extension.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);
    for (frame, what) in
        [(plain, "IPv4"), (options, "options"), (plain6, "IPv6"), (extension, "extension")]
    {
        assert_eq!(reason(&gates.judge(&frame, NOW)), Reason::SecondLook, "{what}");
        let again = gates.judge_again(&frame, NOW).map(|event| reason(&event));
        assert_eq!(again, Some(Reason::BlockedNumber), "{what}");
    }
}

/// Returns a call whose datagram is as long as any other of this function.
fn alike(number: &str, call: u32) -> Vec<u8> {
    crlf(&format!(
        "INVITE sip:112@psap.example SIP/2.0\nFrom: <sip:{number}@x>\nTo: <sip:112@x>\n\
         Call-ID: {call:06}\n\nv=0\n{}",
        "x".repeat(1_200)
    ))
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn datagram_as_long_as_one_that_was_left_is_judged_once() {
    let Some(mut gates) = gates() else { return };
    for ipv6 in [false, true] {
        let layers = Layers { ipv6, vlans: 0 };
        // Out of order, so left to the second look.
        let left = layers.frame(&alike(INNOCENT, 0));
        let parts = fragments(&left, 7, &[1_000]);
        gates.judge(&parts[1], NOW);
        assert_eq!(reason(&gates.judge(&parts[0], NOW)), Reason::SecondLook);
        for call in 1..200 {
            let other = layers.frame(&alike(INNOCENT, call));
            assert_eq!(other.len(), left.len());
            let (first, again) = both(&mut gates, &other, &[1_000]);
            assert_eq!((first, again), (Reason::NotBlocked, None), "call {call}");
        }
        let again = gates.judge_again(&left, NOW).map(|event| reason(&event));
        assert_eq!(again, Some(Reason::NotBlocked));
    }
}

/// Changes destination and port of a frame as a host does that forwards it to a socket of its own.
fn with_other_destination(frame: &[u8]) -> Vec<u8> {
    use etherparse::{Ethernet2Header, NetHeaders, PacketBuilder, PacketHeaders};
    let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let network = match headers.net.unwrap() {
        NetHeaders::Ipv4(header, _) => link.ipv4(header.source, [172, 17, 0, 9], 63),
        NetHeaders::Ipv6(header, _) => link.ipv6(header.source, [0xFE; 16], 63),
        NetHeaders::Arp(_) => panic!("no IP"),
    };
    let udp = headers.transport.unwrap().udp().unwrap();
    let mut changed = Vec::new();
    let message = headers.payload.slice();
    network.udp(udp.source_port, 15_060).write(&mut changed, message).unwrap();
    assert_eq!(changed.len() - Ethernet2Header::LEN, frame.len() - Ethernet2Header::LEN);
    changed
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn datagram_whose_destination_the_host_changes_is_judged() {
    let Some(mut gates) = gates() else { return };
    for ipv6 in [false, true] {
        for headers in 1_500..1_600 {
            let frame = Layers { ipv6, vlans: 0 }.frame(&invite(BLOCKED, headers));
            let parts = fragments(&frame, 7, &[1_480]);
            assert_eq!(reason(&gates.judge(&parts[0], NOW)), Reason::SecondLook);
            let changed = with_other_destination(&frame);
            let again = gates.judge_again(&changed, NOW).map(|event| reason(&event));
            assert_eq!(again, Some(Reason::BlockedNumber), "{headers} bytes, IPv6 {ipv6}");
        }
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn datagram_without_a_checksum_is_judged() {
    let Some(mut gates) = gates() else { return };
    let mut frame = Layers::IPV4.frame(&invite(BLOCKED, 1_500));
    frame[40..42].fill(0);
    let (first, again) = both(&mut gates, &frame, &[1_480]);
    assert_eq!(first, Reason::SecondLook);
    assert_eq!(again.map(|event| reason(&event)), Some(Reason::BlockedNumber));
    // The host writes a checksum neither into it nor into one with another destination.
    frame[30..34].copy_from_slice(&[172, 17, 0, 9]);
    let again = gates.judge_again(&frame, NOW);
    assert_eq!(again.map(|event| reason(&event)), Some(Reason::BlockedNumber));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn without_a_second_look_cut_headers_pass_and_are_reported() {
    let mut policy = Policy::default();
    let digits = Digits::parse(&BLOCKED[1..]).unwrap();
    policy.block(Subject::Number(Number::e164(digits)), 0, 0);
    let mut gates = Gates::new(&policy);
    let frame = Layers::IPV4.frame(&invite(BLOCKED, 2000));
    let parts = fragments(&frame, 7, &[1480]);
    assert_eq!(reason(&gates.judge(&parts[0], NOW)), Reason::HeadersCut);
    let (refused, passed) = gates.kernel().drain_events().unwrap();
    assert_eq!((refused.len(), passed.len()), (0, 1));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_first_fragment_that_is_late_or_tiny_is_judged_with_the_rest() {
    let Some(mut gates) = gates() else { return };
    let frame = Layers::IPV4.frame(&invite(BLOCKED, 900));
    let parts = fragments(&frame, 7, &[800]);
    assert_eq!(reason(&gates.judge(&parts[1], NOW)), Reason::LaterFragment);
    assert_eq!(reason(&gates.judge(&parts[0], NOW)), Reason::SecondLook);
    let again = gates.judge_again(&frame, NOW).expect("left to the second look");
    assert_eq!(reason(&again), Reason::BlockedNumber);

    let (first, again) = both(&mut gates, &frame, &TINY);
    assert_eq!(first, Reason::SecondLook);
    assert_eq!(again.map(|event| reason(&event)), Some(Reason::BlockedNumber));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn both_looks_read_every_fixture_alike() {
    let Some(mut gates) = gates() else { return };
    let mut compared = 0;
    for invite in invites::all() {
        for ipv6 in [false, true] {
            let frame = Layers { ipv6, vlans: 0 }.frame(&invite.message());
            gates.replace(&invite.policy());
            let first = gates.judge(&frame, NOW);
            if reason(&first) == Reason::NotInvite {
                continue;
            }
            gates.replace(&invite.policy());
            let (left, again) = both(&mut gates, &frame, &TINY);
            assert_eq!(left, Reason::SecondLook, "{}", invite.name);
            let again = again.expect("left to the second look");
            if matches!(reason(&first), Reason::HeadersCut | Reason::SecondLook) {
                assert_ne!(reason(&again), Reason::SecondLook, "{}", invite.name);
                continue;
            }
            assert_eq!(again, first, "{}", invite.name);
            compared += 1;
        }
    }
    assert!(compared > 300, "{compared}");
}
