//! The place that a reply 302 sends the caller to.

/// Room for the URI, in bytes.
pub const URI_MAX: usize = 64;
/// Room for the header field.
const CONTACT_ROOM: usize = 80;
const BEFORE: &[u8] = b"Contact: <";
const AFTER: &[u8] = b">\r\n";

/// The header field `Contact` of a trunk's reply 302 (RFC 3261 §21.3.3), whole. Only a `302` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Contact {
    /// The header field with its line end; zeros after it.
    line: [u8; CONTACT_ROOM],
    /// Its length; 0: the trunk has no contact.
    len: u8,
    /// Zero.
    reserved: [u8; 7],
}

impl Default for Contact {
    fn default() -> Contact {
        Contact { line: [0; CONTACT_ROOM], len: 0, reserved: [0; 7] }
    }
}

impl Contact {
    /// Returns the header field with a URI; `None` if that is longer than [`URI_MAX`]. The caller has checked its grammar.
    #[must_use]
    pub fn new(uri: &str) -> Option<Contact> {
        if uri.is_empty() || uri.len() > URI_MAX {
            return None;
        }
        let mut contact = Contact::default();
        for byte in BEFORE.iter().chain(uri.as_bytes()).chain(AFTER) {
            contact.line[contact.len as usize] = *byte;
            contact.len += 1;
        }
        Some(contact)
    }

    /// Returns the URI; empty: the trunk has no contact.
    #[must_use]
    pub fn uri(&self) -> &str {
        let end = self.line_len().saturating_sub(AFTER.len());
        let uri = self.line.get(BEFORE.len()..end).unwrap_or_default();
        core::str::from_utf8(uri).unwrap_or_default()
    }

    /// Returns the header field, with zeros after it.
    #[inline(always)]
    #[must_use]
    pub const fn line(&self) -> &[u8; CONTACT_ROOM] {
        &self.line
    }

    /// Returns the length of the header field. It is below 128, which the verifier understands.
    #[inline(always)]
    #[must_use]
    pub const fn line_len(&self) -> usize {
        self.len as usize & 127
    }
}

const _: () = assert!(BEFORE.len() + URI_MAX + AFTER.len() <= CONTACT_ROOM);
const _: () = assert!(size_of::<Contact>() == 88);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_field_has_the_uri_and_ends_its_line() {
        let contact = Contact::new("sip:announcement@192.0.2.9").expect("it fits");
        assert_eq!(
            &contact.line[..contact.line_len()],
            b"Contact: <sip:announcement@192.0.2.9>\r\n"
        );
        assert_eq!(contact.uri(), "sip:announcement@192.0.2.9");
        assert_eq!(Contact::default().uri(), "");
        assert!(
            Contact::new(&"a".repeat(URI_MAX))
                .is_some_and(|contact| contact.uri().len() == URI_MAX)
        );
        assert_eq!(Contact::new(&"a".repeat(URI_MAX + 1)), None);
    }
}
