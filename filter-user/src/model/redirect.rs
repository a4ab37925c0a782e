//! The place that a trunk's reply 302 sends a blocked caller to.

use std::net::IpAddr;

use filter_common::contact::{Contact, URI_MAX};

/// Why a text is no contact.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAContact {
    /// Another scheme than `sip:`.
    #[error("{0:?} is no SIP URI: write \"sip:announcement@192.0.2.9\"")]
    Scheme(String),
    /// Too long for the reply.
    #[error("the URI has {0} bytes, and there is room for {URI_MAX}")]
    Long(usize),
    /// A character that a URI in angle brackets cannot have, or a header part.
    #[error("the URI has the character {0:?}; write \"sip:announcement@192.0.2.9\"")]
    Character(char),
    /// The host is missing, or is no name and no address.
    #[error("the URI has no host; write \"sip:announcement@192.0.2.9\"")]
    Host,
}

/// Parses `sip:announcement@192.0.2.9`, a port and parameters too (RFC 3261 §19.1.1). The empty text is no contact.
///
/// # Errors
/// [`NotAContact`] with the reason.
pub fn contact(text: &str) -> Result<Contact, NotAContact> {
    let Some(rest) = text.strip_prefix("sip:") else {
        return Err(NotAContact::Scheme(text.to_owned()));
    };
    if text.len() > URI_MAX {
        return Err(NotAContact::Long(text.len()));
    }
    // Headers (`?`) would become header fields of the new INVITE.
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.!~*'()%:@;=+[]&$,/".contains(c);
    if let Some(wrong) = text.chars().find(|c| !is_allowed(*c)) {
        return Err(NotAContact::Character(wrong));
    }
    let address = rest.split_once('@').map_or(rest, |(_, address)| address);
    if address.contains('@') || rest.starts_with('@') {
        return Err(NotAContact::Character('@'));
    }
    let address = address.split(';').next().unwrap_or_default();
    if !is_host_port(address) {
        return Err(NotAContact::Host);
    }
    Contact::new(text).ok_or(NotAContact::Long(text.len()))
}

/// Checks `host [ ":" port ]`.
fn is_host_port(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => {
            let is_ipv6 = host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
            (if is_ipv6 { "ipv6" } else { "" }, port)
        }
        None => match text.split_once(':') {
            Some((host, _)) => (host, &text[host.len()..]),
            None => (text, ""),
        },
    };
    let is_name =
        !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-');
    let is_port = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    is_name && is_port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contact_is_a_sip_uri_with_a_host() {
        for text in [
            "sip:announcement@192.0.2.9",
            "sip:announcement@192.0.2.9:5080;transport=udp",
            "sip:192.0.2.9",
            "sip:+62215551234@media.psap.example",
            "sip:a@[2001:db8::9]:5060",
        ] {
            assert_eq!(contact(text).expect(text).uri(), text);
        }
        for (text, error) in [
            ("", "no SIP URI"),
            ("sips:a@b", "no SIP URI"),
            ("tel:+62215551234", "no SIP URI"),
            ("<sip:a@b>", "no SIP URI"),
            ("sip:", "no host"),
            ("sip:a@", "no host"),
            ("sip:a@b:", "no host"),
            ("sip:a@b:70000", "no host"),
            ("sip:a@[::x]", "no host"),
            ("sip:@b", "'@'"),
            ("sip:a@b@c", "'@'"),
            ("sip:a@b?X=1", "'?'"),
            ("sip:a b@c", "' '"),
            ("sip:a@b>\r\nX: y", "'>'"),
            ("sip:a@b\r\n", "'\\r'"),
        ] {
            let found = contact(text).expect_err(text).to_string();
            assert!(found.contains(error), "{text}: {found}");
        }
        let long = format!("sip:{}@b", "a".repeat(URI_MAX));
        assert!(contact(&long).expect_err("too long").to_string().contains("room for 64"));
    }
}
