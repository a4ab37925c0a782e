//! Outer layers, in the kernel: what is followed, and what passes untouched.

use etherparse::{IpNumber, Ipv4Options, PacketBuilder};
use filter_common::number::{Digits, Number};
use filter_common::reason::Reason;
use filter_common::sip::message::Reader;
use palang::model::policy::{Policy, Subject};
use palang_tests::common::gates::{Gates, reason};
use palang_tests::common::packet::{Layers, crlf};

use crate::NOW;

const IPV4: usize = 14;
const UDP4: usize = IPV4 + 20;

fn invite() -> Vec<u8> {
    crlf(
        "INVITE sip:112@psap.example SIP/2.0\nFrom: <sip:+6281234567890@x>\nTo: <sip:112@x>\n\
         Call-ID: 1\n\n",
    )
}

fn gates() -> Gates {
    let mut policy = Policy::default();
    let digits = Digits::parse("6281234567890").unwrap();
    policy.block(Subject::Number(Number::e164(digits)), 0, 0);
    Gates::new(&policy)
}

#[track_caller]
fn assert_reason(gates: &mut Gates, frame: &[u8], expected: Reason) {
    assert_eq!(reason(&gates.judge(frame, NOW)).name(), expected.name());
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn options_and_padding_are_stepped_over() {
    let mut gates = gates();
    // Router alert (RFC 2113).
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ip(etherparse::IpHeaders::Ipv4(
            etherparse::Ipv4Header {
                options: Ipv4Options::try_from(&[148, 4, 0, 0][..]).unwrap(),
                ..etherparse::Ipv4Header::new(0, 64, IpNumber::UDP, [10, 0, 0, 1], [10, 0, 0, 2])
                    .unwrap()
            },
            etherparse::Ipv4Extensions::default(),
        ))
        .udp(5060, 5060);
    let mut frame = Vec::new();
    builder.write(&mut frame, &invite()).unwrap();
    assert_eq!(frame[IPV4] & 0xF, 6, "with options");
    assert_reason(&mut gates, &frame, Reason::BlockedNumber);

    let mut padded = Layers::IPV4.frame(&invite());
    padded.extend([0; 40]);
    assert_reason(&mut gates, &padded, Reason::BlockedNumber);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn extension_headers_are_stepped_over_to_a_limit() {
    let mut gates = gates();
    let plain = Layers { ipv6: true, vlans: 0 }.frame(&invite());
    let with_destination_options = |count: usize| {
        let mut frame = plain[..54].to_vec();
        frame[20] = 60;
        for i in 0..count {
            let next = if i + 1 == count { 17 } else { 60 };
            frame.extend([next, 0, 1, 4, 0, 0, 0, 0]);
        }
        frame.extend_from_slice(&plain[54..]);
        let len = (frame.len() - 54) as u16;
        frame[18..20].copy_from_slice(&len.to_be_bytes());
        frame
    };
    for count in 1..=5 {
        assert_reason(&mut gates, &with_destination_options(count), Reason::BlockedNumber);
    }
    assert_reason(&mut gates, &with_destination_options(6), Reason::ExtensionLimit);

    // Segments left: this is a stop on its way (RFC 8200 §4.4).
    let mut routed = with_destination_options(1);
    routed[20] = 43;
    routed[54 + 3] = 1;
    assert_reason(&mut gates, &routed, Reason::NotUdp);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn lengths_that_disagree_pass() {
    let mut gates = gates();
    let frame = Layers::IPV4.frame(&invite());
    let len = u16::from_be_bytes([frame[UDP4 + 4], frame[UDP4 + 5]]);
    for wrong in [0, 8, len - 1, len + 1] {
        let mut frame = frame.clone();
        frame[UDP4 + 4..UDP4 + 6].copy_from_slice(&wrong.to_be_bytes());
        assert_reason(&mut gates, &frame, Reason::LengthMismatch);
    }
    // Cut by a capture, or a lie.
    assert_reason(&mut gates, &frame[..frame.len() - 1], Reason::BadPacket);
    let mut short = frame.clone();
    short[IPV4] = 0x44;
    assert_reason(&mut gates, &short, Reason::BadPacket);
    let mut version = frame.clone();
    version[IPV4] = 0x65;
    assert_reason(&mut gates, &version, Reason::BadPacket);
    assert_reason(&mut gates, &frame, Reason::BlockedNumber);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_quoted_invite_is_no_call() {
    let mut gates = gates();
    let invite = Layers::IPV4.frame(&invite());
    let mut payload = vec![3, 3, 0, 0, 0, 0, 0, 0];
    payload.extend_from_slice(&invite[IPV4..]);
    for protocol in
        [IpNumber::ICMP, IpNumber::GRE, IpNumber::IPV4, IpNumber::ENCAPSULATING_SECURITY_PAYLOAD]
    {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .write(&mut frame, protocol, &payload)
            .unwrap();
        assert_reason(&mut gates, &frame, Reason::NotUdp);
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_third_vlan_tag_passes() {
    let mut gates = gates();
    let mut frame = Layers { ipv6: false, vlans: 2 }.frame(&invite());
    let third = frame[12..16].to_vec();
    frame.splice(12..12, third);
    assert_reason(&mut gates, &frame, Reason::NotIp);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn tcp_on_a_sip_port_is_counted() {
    let mut gates = gates();
    for (source, destination, expected) in [
        (40_000, 5060, Reason::SipOverTcp),
        (5060, 40_000, Reason::SipOverTcp),
        (40_000, 5061, Reason::NotUdp),
    ] {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(source, destination, 1, 1000)
            .write(&mut frame, &invite())
            .unwrap();
        assert_reason(&mut gates, &frame, expected);
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn the_second_message_of_a_datagram_is_ignored() {
    let mut gates = gates();
    let innocent = String::from_utf8(invite()).unwrap().replace("67890", "67891");
    let mut both = innocent.clone().into_bytes();
    both.extend(invite());
    assert_reason(&mut gates, &Layers::IPV4.frame(&both), Reason::NotBlocked);
    let mut both = invite();
    both.extend(innocent.into_bytes());
    assert_reason(&mut gates, &Layers::IPV4.frame(&both), Reason::BlockedNumber);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn long_messages_are_read_as_far_as_the_frame_is_readable() {
    let mut gates = gates();
    for (vias, expected) in
        [(1, Reason::BlockedNumber), (25, Reason::BlockedNumber), (70, Reason::HeadersCut)]
    {
        let via = "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK0123456789abcdef;rport\r\n";
        let message = String::from_utf8(invite()).unwrap().replacen(
            "From:",
            &format!("{}From:", via.repeat(vias)),
            1,
        );
        let is_slim = gates.kernel().program().reader == Reader::Slim;
        let expected = if is_slim && vias > 1 { Reason::HeadersCut } else { expected };
        assert_reason(&mut gates, &Layers::IPV4.frame(message.as_bytes()), expected);
    }
    let uri = format!("sip:112@{}.example", "x".repeat(1_000));
    let message = String::from_utf8(invite()).unwrap().replacen("sip:112@psap.example", &uri, 1);
    assert_reason(&mut gates, &Layers::IPV4.frame(message.as_bytes()), Reason::BlockedNumber);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn invites_for_another_machine_pass_while_addresses_are_set() {
    let mut gates = gates();
    let to = |address: [u8; 6], layers: Layers| {
        let mut frame = layers.frame(&invite());
        frame[..6].copy_from_slice(&address);
        frame
    };
    let (own, macvlan, other) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3]);
    for layers in Layers::ALL {
        gates.set_own_addresses(None);
        assert_reason(&mut gates, &to(other, layers), Reason::BlockedNumber);
        gates.set_own_addresses(Some(&[own, macvlan]));
        for address in [own, macvlan, [0xFF; 6], [0x33, 0x33, 0, 0, 0, 1], [1, 0, 0x5E, 0, 1, 75]] {
            assert_reason(&mut gates, &to(address, layers), Reason::BlockedNumber);
        }
        for address in [other, [0; 6], [0, 0, 0, 0, 0, 1], [2, 0, 0, 1, 0, 1]] {
            assert_reason(&mut gates, &to(address, layers), Reason::OtherMachine);
        }
        // Another address in place of one, and no address at all: all are judged then.
        gates.set_own_addresses(Some(&[other]));
        assert_reason(&mut gates, &to(other, layers), Reason::BlockedNumber);
        assert_reason(&mut gates, &to(own, layers), Reason::OtherMachine);
        gates.set_own_addresses(Some(&[]));
        assert_reason(&mut gates, &to(own, layers), Reason::BlockedNumber);
    }
    // Other packets have the reason that they always have.
    gates.set_own_addresses(Some(&[own]));
    let mut options = Layers::IPV4.frame(b"OPTIONS sip:112@x SIP/2.0\r\n\r\n");
    options[..6].copy_from_slice(&other);
    assert_reason(&mut gates, &options, Reason::NotInvite);
}
