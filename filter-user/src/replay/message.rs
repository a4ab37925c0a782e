//! What a person wants to see of a message beside the verdict: method, Call-ID, To-tag.

use filter_common::abi::{TRANSPORT_TCP, TRANSPORT_UDP};
use filter_common::bytes::Slice;
use filter_common::frame::{self, Packet, Part};
use filter_common::sip::headers::{self, Mark};
use filter_common::sip::message;

/// A SIP request as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Its method.
    pub method: String,
    /// Its Call-ID, as far as it was read.
    pub call_id: Option<String>,
    /// Whether the `To` has a tag; `None` when the headers were not read to their end.
    pub to_tag: Option<bool>,
}

/// The outer layers of an Ethernet frame, and the SIP request that begins in it.
#[must_use]
pub fn read(frame: &[u8]) -> (Packet, Option<Message>) {
    let mut packet = Packet::default();
    let readable = frame::read(&Slice::from(frame), &mut packet).is_ok()
        && matches!(packet.part, Part::Whole | Part::First);
    let message = readable.then(|| payload(frame, &packet)).flatten().and_then(request);
    (packet, message)
}

fn payload<'a>(frame: &'a [u8], packet: &Packet) -> Option<&'a [u8]> {
    let mut start = packet.payload;
    if packet.transport == TRANSPORT_TCP {
        // `frame` reads the ports only; the header's length is at 12 (RFC 9293 §3.1).
        let header = start.checked_sub(8)?;
        start = header + usize::from(frame.get(header + 12)? >> 4) * 4;
    } else if packet.transport != TRANSPORT_UDP {
        return None;
    }
    let end = (packet.payload + packet.payload_len).min(frame.len());
    frame.get(start..end)
}

fn request(payload: &[u8]) -> Option<Message> {
    let mut text = payload;
    while let Some(rest) = text.strip_prefix(b"\r\n") {
        text = rest;
    }
    let line = text.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    if line.starts_with(b"SIP/") || !line.windows(5).any(|bytes| bytes == b" SIP/") {
        return None;
    }
    let method = line.split(|byte| *byte == b' ').next()?;
    if method.is_empty() || !method.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let mut message =
        Message { method: String::from_utf8_lossy(method).into_owned(), ..Message::default() };

    // From here on as the gate does, from the first byte of the Request-URI.
    let headers = &text[method.len() + 1..];
    let mut marks = [0; 16];
    let state = message::scan(&Slice::from(headers), 0, headers.len(), &mut marks);
    let at = |mark: Mark| headers::offset(marks[mark as usize]);
    if at(Mark::CallIdEnd) > at(Mark::CallIdStart) {
        let call_id = &headers[at(Mark::CallIdStart)..at(Mark::CallIdEnd)];
        message.call_id = Some(String::from_utf8_lossy(call_id).into_owned());
    }
    if state == headers::END {
        message.to_tag = Some(marks[Mark::ToTag as usize] != 0);
    }
    Some(message)
}
