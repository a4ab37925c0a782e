//! The INVITEs of the flood.

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use filter_common::number::Digits;
use palang_tests::lab::{GATE, MACS, TRUNK};

use super::flood::order::{FRAME_LEN, VARIANTS, Variant};

/// Length of Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 42;
/// Position of the UDP checksum.
const CHECKSUM: usize = 40;
/// Number of blocked numbers.
pub const BLOCKED: u32 = 4000;
/// Host in the From of each INVITE.
pub const HOST: &str = "sip.example.net";
/// Prefix of all blocked numbers; four digits from [`FIRST`] on follow.
pub const PREFIX: &str = "628123456";
/// Last digits of the first blocked number.
pub const FIRST: u32 = 1000;

/// Returns a blocked number: E.164 digits without `+`.
pub fn blocked(index: u32) -> String {
    format!("{PREFIX}{}", FIRST + index % BLOCKED)
}

/// Returns the number as a key of the kernel's maps.
pub fn key(number: &str) -> Result<u64> {
    Ok(Digits::parse(number).context("not a number")?.0)
}

/// Returns 512 INVITEs of different blocked callers, with different lengths up to From.
pub fn all() -> Result<Vec<Variant>> {
    (0..VARIANTS).map(variant).collect()
}

fn variant(index: u32) -> Result<Variant> {
    // Spread over the whole list.
    let caller = blocked(index * 7);
    let (names, branches) = (index as usize % 23, index as usize % 29);
    let name = "Bpk Surya Adiningrat Wijaya".get(..names).unwrap_or_default();
    let branch = "b".repeat(branches);
    let proxy = format!("192.0.2.{}", index % 250);
    // The trunk's Via is first: an answer, which nobody should get, would arrive and be counted.
    let mut head = format!(
        "INVITE sip:112@{GATE}:5060 SIP/2.0\r\n\
         Record-Route: <sip:{TRUNK};lr;ftag={index:08x}>\r\n\
         Via: SIP/2.0/UDP {TRUNK}:5060;branch=z9hG4bK{index:05}{branch}\r\n\
         Via: SIP/2.0/UDP {proxy}:5060;branch=z9hG4bK776asdhds{index:05}\r\n"
    );
    if index / 23 % 2 == 1 {
        head += &format!("Via: SIP/2.0/UDP {proxy}:5062;branch=z9hG4bK87a{index:05}\r\n");
    }
    head += "Max-Forwards: 68\r\nFrom: ";
    if !name.is_empty() {
        head += &format!("\"{name}\" ");
    }
    head += &format!("<sip:+{caller}@{HOST}>;tag={index:08x}\r\nTo: <sip:112@{GATE}>\r\nCall-ID: ");
    let call_id_at = HEADERS + head.len();
    head += &format!(
        "{index:08}@{HOST}\r\nCSeq: 1 INVITE\r\nContact: <sip:+{caller}@192.0.2.9:5060>\r\n\
         User-Agent: Trunk 4.2\r\nAllow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE\r\n\
         Content-Type: application/sdp\r\nContent-Length: "
    );
    let body = "v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\nm=audio 40000 RTP/AVP 8 0\r\n";
    // "123\r\n\r\n" and "a=…\r\n"
    let room = (FRAME_LEN - HEADERS).saturating_sub(head.len() + 7);
    ensure!((100..1000).contains(&room) && room >= body.len() + 4, "no room for a body: {room}");
    let padding = "x".repeat(room - body.len() - 4);
    let message = format!("{head}{room}\r\n\r\n{body}a={padding}\r\n");

    let address = |text: &str| {
        let mut bytes = [0; 6];
        for (byte, text) in bytes.iter_mut().zip(text.split(':')) {
            *byte = u8::from_str_radix(text, 16)?;
        }
        anyhow::Ok(bytes)
    };
    let packet = PacketBuilder::ethernet2(address(MACS[0])?, address(MACS[1])?)
        .ipv4(TRUNK.octets(), GATE.octets(), 64)
        .udp(5060, 5060);
    let mut frame = Vec::with_capacity(FRAME_LEN);
    packet.write(&mut frame, message.as_bytes())?;
    // None: the sender changes the Call-ID.
    frame[CHECKSUM..HEADERS].fill(0);
    let frame = <[u8; FRAME_LEN]>::try_from(frame.as_slice()).context("a frame of that length")?;
    Ok(Variant { call_id_at: u32::try_from(call_id_at)?, frame })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn invites_are_whole_and_all_different() {
        let all = all().unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(all.len(), VARIANTS as usize);
        let mut callers = HashSet::new();
        let mut offsets = HashSet::new();
        for variant in &all {
            let message = std::str::from_utf8(&variant.frame[HEADERS..]).unwrap_or_default();
            let (head, body) = message.split_once("\r\n\r\n").unwrap_or_default();
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            assert_eq!(length.and_then(|length| length.parse().ok()), Some(body.len()));
            let from = message.find("\r\nFrom: ").unwrap_or_default();
            let caller =
                message[from..].split_once(":+").and_then(|(_, rest)| rest.split_once('@'));
            callers.insert(caller.map(|(caller, _)| caller.to_owned()));
            offsets.insert(from);
            let call_id = &message[variant.call_id_at as usize - HEADERS..];
            assert!(message[..message.len() - call_id.len()].ends_with("\r\nCall-ID: "));
        }
        assert_eq!(callers.len(), VARIANTS as usize);
        // As in calls of a carrier: after the Vias of its proxies.
        assert!(offsets.iter().all(|offset| (200..400).contains(offset)), "{offsets:?}");
        assert!(offsets.len() > 40, "{}", offsets.len());
    }
}
