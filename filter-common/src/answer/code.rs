//! The status codes that a refused call may be answered with.

/// The answer to a refused call. No other is offered. 500, 503 and 408 take the trunk away from every
/// caller; 607 feeds block lists of carriers. 608 needs a signed card (RFC 8688).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// 600, which hardly any carrier takes as a cause to try another route.
    #[default]
    BusyEverywhere,
    /// 486, the surest busy tone.
    BusyHere,
    /// 603.
    Decline,
    /// 403.
    Forbidden,
    /// 480.
    TemporarilyUnavailable,
}

impl Code {
    /// All codes.
    pub const ALL: [Code; 5] = [
        Code::BusyEverywhere,
        Code::BusyHere,
        Code::Decline,
        Code::Forbidden,
        Code::TemporarilyUnavailable,
    ];

    /// Returns the number of the code (RFC 3261 §21).
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Code::BusyEverywhere => 600,
            Code::BusyHere => 486,
            Code::Decline => 603,
            Code::Forbidden => 403,
            Code::TemporarilyUnavailable => 480,
        }
    }

    /// Returns the first line of the reply (RFC 3261 §7.2).
    #[inline(always)]
    #[must_use]
    pub const fn status_line(self) -> &'static [u8] {
        match self {
            Code::BusyEverywhere => b"SIP/2.0 600 Busy Everywhere\r\n",
            Code::BusyHere => b"SIP/2.0 486 Busy Here\r\n",
            Code::Decline => b"SIP/2.0 603 Decline\r\n",
            Code::Forbidden => b"SIP/2.0 403 Forbidden\r\n",
            Code::TemporarilyUnavailable => b"SIP/2.0 480 Temporarily Unavailable\r\n",
        }
    }

    /// Returns the header field with the cause of Q.850 (RFC 6432), by the table of RFC 3398 §8.2.6.1. A gateway
    /// plays its tone.
    #[inline(always)]
    #[must_use]
    pub const fn reason(self) -> &'static [u8] {
        match self {
            Code::BusyEverywhere | Code::BusyHere => b"Reason: Q.850;cause=17\r\n",
            Code::Decline | Code::Forbidden => b"Reason: Q.850;cause=21\r\n",
            Code::TemporarilyUnavailable => b"Reason: Q.850;cause=18\r\n",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_line_has_the_number_of_the_code() {
        for code in Code::ALL {
            let line = std::str::from_utf8(code.status_line()).expect("text");
            assert!(line.starts_with(&format!("SIP/2.0 {} ", code.number())), "{line}");
            assert!(line.ends_with("\r\n"));
        }
    }
}
