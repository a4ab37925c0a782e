//! The judged frames: INVITEs in the style of a carrier, of about 900 bytes.

use std::fmt::Write as _;

use palang_tests::common::packet::{Layers, crlf};

use super::programs::{FRAME_LEN, VARIANTS_MAX, Variant};

/// A frame with the positions of its number and Call-ID.
#[derive(Clone)]
pub struct Packet {
    /// The frame without padding.
    pub bytes: Vec<u8>,
    /// Bytes from the method through the empty line; 0 if the frame is not SIP.
    pub headers: usize,
    number: (usize, usize),
    call_id: (usize, usize),
}

impl Packet {
    /// Wraps an INVITE in these layers.
    fn invite(layers: Layers, message: &str) -> Packet {
        let message = crlf(message);
        let bytes = layers.frame(&message);
        let number = find(&bytes, 0, b"\r\nFrom:").and_then(|at| find(&bytes, at, b"<sip:+"));
        let call_id = find(&bytes, 0, b"\r\nCall-ID: ");
        let until = |at: usize, stop: u8| {
            let rest = bytes.get(at..).unwrap_or_default();
            rest.iter().position(|byte| *byte == stop).unwrap_or(0)
        };
        let (number, call_id) = (number.unwrap_or(0), call_id.unwrap_or(0));
        Packet {
            headers: find(&message, 0, b"\r\n\r\n").unwrap_or(0),
            number: (number, until(number, b'@')),
            call_id: (call_id, until(call_id, b'\r')),
            bytes,
        }
    }

    /// Wraps a message that is not an INVITE, or not SIP.
    fn other(layers: Layers, message: &[u8]) -> Packet {
        Packet { bytes: layers.frame(message), headers: 0, number: (0, 0), call_id: (0, 0) }
    }

    /// Returns the padded frame, as the programs get it.
    pub fn variant(&self) -> Variant {
        let mut frame = [0; FRAME_LEN];
        let len = self.bytes.len().min(FRAME_LEN);
        frame[..len].copy_from_slice(&self.bytes[..len]);
        Variant {
            number_at: self.number.0 as u16,
            number_len: self.number.1 as u16,
            call_id_at: self.call_id.0 as u16,
            call_id_len: self.call_id.1 as u16,
            frame,
        }
    }

    /// Returns the frame as an entry of a corpus, whose entries all have the same length.
    pub fn padded(&self) -> Vec<u8> {
        self.variant().frame.to_vec()
    }
}

/// Returns the offset after `text`, from `start` on.
fn find(bytes: &[u8], start: usize, text: &[u8]) -> Option<usize> {
    let rest = bytes.get(start..)?;
    let at = rest.windows(text.len()).position(|window| window == text)?;
    Some(start + at + text.len())
}

/// Returns the fixed INVITE: `From` begins at offset 315 of the payload.
pub fn fixed(layers: Layers, number: &str) -> Packet {
    let via = "Via: SIP/2.0/UDP 203.0.113.9:5060;branch=z9hG4bK7f3a90c1e5d24b68\n";
    let via2 = "Via: SIP/2.0/UDP 198.51.100.23:5060;rport=5060;branch=z9hG4bK-ac1d3e\n";
    let route = "Record-Route: <sip:203.0.113.9;lr;ftag=6b1f02ce>\n";
    let before = format!("{via}{via2}{route}Max-Forwards: 67\nUser-Agent: carrier-sbc/8.4\n");
    let uri = "INVITE sip:112@psap.example.id;user=phone SIP/2.0\n";
    let used = uri.len() + before.len() + 6; // each line end becomes two bytes
    let pad = "x".repeat(315_usize.saturating_sub(used + "X-Trunk: \r\n".len()));
    let message = format!(
        "{uri}{before}X-Trunk: {pad}\n{}",
        rest("\"Siti Rahayu\" ", number, "a84b4c76e66710@198.51.100.23", "6b1f02ce")
    );
    Packet::invite(layers, &message)
}

/// Returns `From` and everything after it.
fn rest(name: &str, number: &str, call_id: &str, tag: &str) -> String {
    let body = "v=0\no=- 2890844526 2890844526 IN IP4 198.51.100.23\ns=-\n\
        c=IN IP4 198.51.100.23\nt=0 0\nm=audio 49172 RTP/AVP 8 101\n\
        a=rtpmap:8 PCMA/8000\na=rtpmap:101 telephone-event/8000\n";
    format!(
        "From: {name}<sip:+{number}@carrier.example.net;user=phone>;tag={tag}\n\
         To: <sip:112@psap.example.id;user=phone>\nCall-ID: {call_id}\nCSeq: 1 INVITE\n\
         Contact: <sip:198.51.100.23:5060>\nAllow: INVITE, ACK, CANCEL, BYE, PRACK, UPDATE\n\
         Supported: timer, 100rel\nSession-Expires: 1800\nMin-SE: 90\n\
         Content-Type: application/sdp\nContent-Length: {}\n\n{body}",
        body.len() + body.lines().count()
    )
}

/// Returns a datagram to the SIP port that is not SIP: a NAT keep-alive.
pub fn not_sip() -> Packet {
    Packet::other(Layers::IPV4, b"\r\n\r\n\0\0\0\0\0\0\0\0\0\0\0\0")
}

/// Returns a SIP message that is not an INVITE.
pub fn not_invite() -> Packet {
    let invite = fixed(Layers::IPV4, "6281234567890");
    let message = String::from_utf8_lossy(&invite.bytes[42..]).replace("INVITE ", "OPTIONS ");
    Packet::other(Layers::IPV4, message.as_bytes())
}

/// Returns INVITEs that differ as calls do: vias, routes, the header before `From`, display name, the
/// digits after the first four, tags and Call-ID. `digits` is the allowed number of digits; a
/// number of 12 digits can be replaced whole when it is drawn.
pub fn varied(start: &str, digits: std::ops::RangeInclusive<u64>) -> Vec<Packet> {
    let mut random = Random(0x5045_4C41_4E47);
    let mut packets = Vec::new();
    while packets.len() < VARIANTS_MAX as usize {
        let packet = one(&mut random, start, digits.clone());
        // This is the space in the corpus.
        if packet.bytes.len() <= FRAME_LEN {
            packets.push(packet);
        }
    }
    packets
}

fn one(random: &mut Random, start: &str, digits: std::ops::RangeInclusive<u64>) -> Packet {
    let mut message = "INVITE sip:112@psap.example.id".to_owned();
    message += ["", ";user=phone", ":5060", ":5060;transport=udp"][random.below(4) as usize];
    message += " SIP/2.0\n";
    for _ in 0..=random.below(3) {
        let (host, branch) = (random.below(254), random.next());
        let len = random.below(12) as usize;
        let _ = writeln!(
            message,
            "Via: SIP/2.0/UDP 203.0.113.{host}:5060;branch=z9hG4bK{branch:x}{}",
            "c".repeat(len)
        );
    }
    for _ in 0..random.below(2) {
        let _ = writeln!(message, "Record-Route: <sip:203.0.113.{};lr>", random.below(254));
    }
    message += ["", "Privacy: none\n", "Max-Forwards: 67\n"][random.below(3) as usize];
    let names = ["", "\"Budi\" ", "\"Siti Rahayu\" ", "Anonymous ", "\"PT. Sumber Air\" "];
    let name = names[random.below(5) as usize];
    let len = digits.start() + random.below(digits.end() - digits.start() + 1);
    let mut number = start.to_owned();
    while (number.len() as u64) < len {
        let _ = write!(number, "{}", random.below(8));
    }
    let call_id = format!("{:016x}-{}@198.51.100.23", random.next(), random.below(1_000_000));
    let tag = format!("{:x}", random.next() >> random.below(32));
    message += &rest(name, &number, &call_id, &tag);
    Packet::invite(Layers::IPV4, &message)
}

/// SplitMix64, so that every run has the same frames.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, below: u64) -> u64 {
        self.next() % below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(packet: &Packet) -> String {
        let (at, len) = packet.number;
        String::from_utf8_lossy(&packet.bytes[at..at + len]).into_owned()
    }

    #[test]
    fn oracle_gets_the_right_offsets() {
        let fixed = fixed(Layers::IPV4, "6281234567890");
        assert_eq!(find(&fixed.bytes[42..], 0, b"\r\nFrom:"), Some(315 + 5));
        assert!((880..=FRAME_LEN).contains(&fixed.bytes.len()), "{}", fixed.bytes.len());
        assert_eq!(digits(&fixed), "6281234567890");
        for packet in varied("6284", 10..=14) {
            let number = digits(&packet);
            assert!((10..=14).contains(&number.len()) && number.starts_with("6284"), "{number}");
            let (at, len) = packet.call_id;
            assert!(packet.bytes[at..at + len].ends_with(b"@198.51.100.23"));
            assert_eq!(&packet.bytes[at + len..at + len + 2], b"\r\n");
        }
    }
}
