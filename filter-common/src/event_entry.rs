//! Reads the texts in an entry of the event rings.

use crate::abi::{CALL_ID_EVENT_MAX, EVENT_PAI_IGNORED, EventEntry, UNREAD_MAX};
use crate::reason::Reason;

impl EventEntry {
    /// Returns the Call-ID as it was sent, cut at [`CALL_ID_EVENT_MAX`]; empty: not read.
    #[must_use]
    pub fn call_id(&self) -> &[u8] {
        &self.call_id[..usize::from(self.event.call_id_len).min(CALL_ID_EVENT_MAX)]
    }

    /// Returns the value of the header field whose caller could not be read, without its line end, as it
    /// was sent; cut at [`UNREAD_MAX`]. Empty: the caller was read, or there is no such header field.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        if self.is_unread() { self.text() } else { &[] }
    }

    /// Returns the value of the `P-Asserted-Identity` that the trunk does not read, as [`EventEntry::unread`]
    /// does. Empty: there is no such header field, or the caller could not be read.
    #[must_use]
    pub fn ignored_pai(&self) -> &[u8] {
        let is_ignored = self.event.flags & EVENT_PAI_IGNORED != 0;
        if is_ignored && !self.is_unread() { self.text() } else { &[] }
    }

    fn is_unread(&self) -> bool {
        Reason::from_number(self.event.reason).is_some_and(Reason::is_unread)
    }

    fn text(&self) -> &[u8] {
        let bytes = &self.unread[..(self.unread_len as usize).min(UNREAD_MAX)];
        let folds = |at: usize| matches!(bytes.get(at), Some(b' ' | b'\t'));
        let end = (0..bytes.len()).find(|at| match bytes[*at] {
            b'\n' => !folds(at + 1),
            b'\r' => bytes.get(at + 1) != Some(&b'\n') || !folds(at + 2),
            _ => false,
        });
        bytes[..end.unwrap_or(bytes.len())].trim_ascii()
    }
}
