//! The status codes that a refused call may be answered with.

/// The answer to a refused call. No other is offered. 500, 503 and 408 take the trunk away from every
/// caller; 607 feeds block lists of carriers. 608 needs a signed card (RFC 8688).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// 600, which hardly any carrier takes as a cause to try another route.
    #[default]
    BusyEverywhere = 1,
    /// 486, the surest busy tone.
    BusyHere = 2,
    /// 603.
    Decline = 3,
    /// 403.
    Forbidden = 4,
    /// 480.
    TemporarilyUnavailable = 5,
    /// 302, with the trunk's [`Contact`](crate::contact::Contact). Only for a trunk whose carrier follows it.
    MovedTemporarily = 6,
}

impl Code {
    /// All codes.
    pub const ALL: [Code; 6] = [
        Code::BusyEverywhere,
        Code::BusyHere,
        Code::Decline,
        Code::Forbidden,
        Code::TemporarilyUnavailable,
        Code::MovedTemporarily,
    ];

    /// Returns the status code of SIP (RFC 3261 §21).
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Code::BusyEverywhere => 600,
            Code::BusyHere => 486,
            Code::Decline => 603,
            Code::Forbidden => 403,
            Code::TemporarilyUnavailable => 480,
            Code::MovedTemporarily => 302,
        }
    }

    /// Returns the code with a number of SIP, `None` for one that is not offered.
    #[must_use]
    pub fn of_status(status: u16) -> Option<Code> {
        Code::ALL.into_iter().find(|code| code.status() == status)
    }

    /// Returns the code with this number, as maps and events carry it; `None` for 0 and unknown ones.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Code> {
        Code::ALL.into_iter().find(|code| *code as u8 == number)
    }

    /// Returns the first line of the reply (RFC 3261 §7.2).
    #[must_use]
    pub const fn status_line(self) -> &'static [u8] {
        match self {
            Code::BusyEverywhere => b"SIP/2.0 600 Busy Everywhere\r\n",
            Code::BusyHere => b"SIP/2.0 486 Busy Here\r\n",
            Code::Decline => b"SIP/2.0 603 Decline\r\n",
            Code::Forbidden => b"SIP/2.0 403 Forbidden\r\n",
            Code::TemporarilyUnavailable => b"SIP/2.0 480 Temporarily Unavailable\r\n",
            Code::MovedTemporarily => b"SIP/2.0 302 Moved Temporarily\r\n",
        }
    }

    /// Returns the header field with the cause of Q.850 (RFC 6432), by the table of RFC 3398 §8.2.6.1. A gateway
    /// plays its tone. `None` for a redirection, which goes on.
    #[must_use]
    pub const fn reason(self) -> Option<&'static [u8; REASON_LEN]> {
        Some(match self {
            Code::BusyEverywhere | Code::BusyHere => b"Reason: Q.850;cause=17\r\n",
            Code::Decline | Code::Forbidden => b"Reason: Q.850;cause=21\r\n",
            Code::TemporarilyUnavailable => b"Reason: Q.850;cause=18\r\n",
            Code::MovedTemporarily => return None,
        })
    }
}

/// Length of each text of [`Code::reason`].
pub(super) const REASON_LEN: usize = 24;
/// Room for each text of [`Code::status_line`].
pub(super) const LINE_ROOM: usize = 40;
/// Room for codes by number; a power of two, because the verifier understands a mask.
const CODES: usize = 8;

/// The texts of a code. The kernel program finds them by its number: a branch for each code would double
/// the paths of the verifier.
#[derive(Clone, Copy)]
pub(super) struct Texts {
    /// The status line; zeros after it.
    pub(super) line: [u8; LINE_ROOM],
    /// The cause; zeros for none.
    pub(super) reason: [u8; REASON_LEN],
    pub(super) line_len: usize,
    pub(super) reason_len: usize,
    /// 1 for a code with a contact, otherwise 0.
    pub(super) contacts: usize,
}

static TEXTS: [Texts; CODES] = texts();

/// Returns the texts of the code with a number; the length 0 for no code.
#[inline(always)]
pub(super) const fn texts_of(number: usize) -> &'static Texts {
    &TEXTS[number & (CODES - 1)]
}

const fn texts() -> [Texts; CODES] {
    let none = Texts {
        line: [0; LINE_ROOM],
        reason: [0; REASON_LEN],
        line_len: 0,
        reason_len: 0,
        contacts: 0,
    };
    let mut texts = [none; CODES];
    let mut i = 0;
    while i < Code::ALL.len() {
        let code = Code::ALL[i];
        let line = code.status_line();
        let entry = &mut texts[code as usize];
        entry.line_len = line.len();
        match code.reason() {
            Some(reason) => (entry.reason, entry.reason_len) = (*reason, REASON_LEN),
            None => entry.contacts = 1,
        }
        let mut k = 0;
        while k < line.len() {
            entry.line[k] = line[k];
            k += 1;
        }
        i += 1;
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_line_has_the_status_of_the_code() {
        for code in Code::ALL {
            let line = std::str::from_utf8(code.status_line()).expect("text");
            assert!(line.starts_with(&format!("SIP/2.0 {} ", code.status())), "{line}");
            assert!(line.ends_with("\r\n"));
        }
    }
}
