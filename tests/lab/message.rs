//! The SIP messages of the lab.

use super::address::{GATE, TRUNK};

/// Returns an initial INVITE to 112.
pub fn invite(caller: &str, call_id: &str) -> String {
    request("INVITE", caller, call_id)
}

/// Returns an OPTIONS, which every gate lets through.
pub fn options(call_id: &str) -> String {
    request("OPTIONS", "lab", call_id)
}

fn request(method: &str, from: &str, call_id: &str) -> String {
    format!(
        "{method} sip:112@{GATE} SIP/2.0\r\n\
         Via: SIP/2.0/UDP {TRUNK}:5060;branch=z9hG4bK-{call_id}\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:{from}@{TRUNK}>;tag={call_id}\r\n\
         To: <sip:112@{GATE}>\r\n\
         Call-ID: {call_id}\r\n\
         CSeq: 1 {method}\r\n\
         Contact: <sip:{TRUNK}:5060>\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

/// Returns the value of a header, by its full name.
pub fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Returns the user part of the From header.
pub fn from_user(message: &str) -> Option<&str> {
    header(message, "From")?.strip_prefix("<sip:")?.split_once('@').map(|(user, _)| user)
}
