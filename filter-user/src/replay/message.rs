//! Reads the fields of a message that are shown beside the verdict: method, Call-ID, To-tag.

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use filter_common::abi::{TRANSPORT_TCP, TRANSPORT_UDP};
use filter_common::bytes::Slice;
use filter_common::frame::{self, Packet, Part};
use filter_common::reason::Reason;
use filter_common::sip::fields::{Field, Fields};
use filter_common::sip::headers;
use filter_common::sip::message;

/// A SIP request as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Method.
    pub method: String,
    /// Call-ID, as far as it was read.
    pub call_id: Option<String>,
    /// Whether the `To` has a tag; `None` if the headers were not read to their end.
    pub to_tag: Option<bool>,
}

/// Reads the outer layers of an Ethernet frame and the SIP request that begins in it.
#[must_use]
pub fn read(frame: &[u8]) -> (Packet, Option<Message>) {
    let mut packet = Packet::default();
    let payload = match frame::read(&Slice::from(frame), &mut packet) {
        Ok(()) if matches!(packet.part, Part::Whole | Part::First) => payload(frame, &packet),
        Err(Reason::BadPacket | Reason::LengthMismatch) => broken(frame, &mut packet),
        Ok(()) | Err(_) => None,
    };
    (packet, payload.and_then(request))
}

/// Returns the datagram of a packet that the gate does not read further, because it was captured only
/// in part or its lengths disagree. It passes, but the replay still shows the call.
fn broken<'a>(frame: &'a [u8], packet: &mut Packet) -> Option<&'a [u8]> {
    let sliced = LaxSlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Udp(datagram)) = sliced.transport else {
        return None;
    };
    let (source, destination) = match sliced.net? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            (header.source_addr().to_ipv6_mapped(), header.destination_addr().to_ipv6_mapped())
        }
        LaxNetSlice::Ipv6(ip) => (ip.header().source_addr(), ip.header().destination_addr()),
        LaxNetSlice::Arp(_) => return None,
    };
    packet.fragment.source = source.octets();
    packet.fragment.destination = destination.octets();
    packet.transport = TRANSPORT_UDP;
    packet.source_port = datagram.source_port();
    packet.destination_port = datagram.destination_port();
    Some(datagram.payload())
}

fn payload<'a>(frame: &'a [u8], packet: &Packet) -> Option<&'a [u8]> {
    let mut start = packet.payload;
    if packet.transport == TRANSPORT_TCP {
        // `frame` reads only the ports; the header length is at 12 (RFC 9293 §3.1).
        let header = start.checked_sub(8)?;
        start = header + usize::from(frame.get(header + 12)? >> 4) * 4;
    } else if packet.transport != TRANSPORT_UDP {
        return None;
    }
    let end = (packet.payload + packet.payload_len).min(frame.len());
    frame.get(start..end)
}

/// Checks whether a SIP request begins with this line. It accepts a malformed INVITE, because the
/// replay also shows an INVITE that the gate cannot read.
fn is_request_line(line: &[u8]) -> bool {
    // The version is case-insensitive (RFC 3261 §7.1).
    let version: &[u8] = if line.starts_with(b"INVITE ") { b"SIP/" } else { b" SIP/" };
    !line.starts_with(b"SIP/")
        && line.windows(version.len()).any(|bytes| bytes.eq_ignore_ascii_case(version))
}

fn request(payload: &[u8]) -> Option<Message> {
    let mut text = payload;
    while let Some(rest) = text.strip_prefix(b"\r\n") {
        text = rest;
    }
    let line = text.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    if !is_request_line(line) {
        return None;
    }
    let method = line.split(|byte| *byte == b' ').next()?;
    if method.is_empty() || !method.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let mut message =
        Message { method: String::from_utf8_lossy(method).into_owned(), ..Message::default() };

    // From the Request-URI on, this is the gate's own reader.
    let headers = &text[method.len() + 1..];
    let mut fields = Fields::default();
    let state = message::scan_in_turns(&Slice::from(headers), 0, headers.len(), &mut fields);
    let at = |field: Field| fields[field as usize].newest();
    if at(Field::CallIdEnd) > at(Field::CallIdStart) {
        let call_id = &headers[at(Field::CallIdStart)..at(Field::CallIdEnd)];
        message.call_id = Some(String::from_utf8_lossy(call_id).into_owned());
    }
    if state == headers::END {
        message.to_tag = Some(!fields[Field::ToTag as usize].is_missing());
    }
    Some(message)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const INVITE: &str = "INVITE sip:112@x SIP/2.0\r\nFrom: <sip:+6281234567890@x>\r\n\
        To: <sip:112@x>\r\nCall-ID: a@b\r\n\r\n";

    fn frame(message: &str) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(5060, 5062)
            .write(&mut frame, message.as_bytes())
            .unwrap();
        frame
    }

    fn method(message: &str) -> Option<String> {
        read(&frame(message)).1.map(|message| message.method)
    }

    #[test]
    fn requests_are_recognised_by_their_first_line() {
        for (message, expected) in [
            (INVITE, Some("INVITE")),
            ("\r\n\r\nINVITE sip:112@x sip/2.0\r\n", Some("INVITE")),
            ("INVITE sip:112@x;SIP/2.0\r\n", Some("INVITE")),
            ("BYE sip:112@x SIP/2.0\r\n", Some("BYE")),
            ("SIP/2.0 200 OK\r\n", None),
            ("INVITE all of you\r\n SIP/2.0\r\n", None),
            ("GET / HTTP/1.1\r\n", None),
            ("", None),
        ] {
            assert_eq!(method(message).as_deref(), expected, "{message:?}");
        }
    }

    #[test]
    fn call_id_and_to_tag_are_read_from_the_headers() {
        let (packet, message) = read(&frame(INVITE));
        let message = message.unwrap();
        assert_eq!(message.call_id.as_deref(), Some("a@b"));
        assert_eq!(message.to_tag, Some(false));
        assert_eq!(packet.destination_port, 5062);
    }

    #[test]
    fn partly_captured_packet_is_still_an_invite() {
        let whole = frame(INVITE);
        let (packet, message) = read(&whole[..100]);
        assert_eq!(packet.fragment.source[12..], [10, 0, 0, 1]);
        assert_eq!((packet.source_port, packet.destination_port), (5060, 5062));
        let message = message.unwrap();
        assert_eq!((message.method.as_str(), message.to_tag), ("INVITE", None));
        for len in 0..whole.len() {
            let _ = read(&whole[..len]);
        }
    }

    #[test]
    fn packet_whose_lengths_disagree_is_still_an_invite() {
        let mut frame = frame(INVITE);
        frame[39] += 4;
        let (packet, message) = read(&frame);
        assert_eq!(message.unwrap().call_id.as_deref(), Some("a@b"));
        assert_eq!(packet.source_port, 5060);
    }
}
