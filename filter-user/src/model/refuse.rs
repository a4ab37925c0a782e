//! How a trunk refuses a blocked call: with a reply, or in silence.

use filter_common::abi::{BLOCK_REFUSE_DROP, BLOCK_REFUSE_SHIFT};
use filter_common::answer::code::Code;

/// The refusal of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuse {
    /// A reply with this code.
    Reply(Code),
    /// No reply: the carrier sends the call again for 32 s (RFC 3261 §17.1.1.2).
    Drop,
}

/// Why a text is no refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOffered {
    /// A status code of SIP that would hurt other callers, with the reason.
    #[error("{0} is not offered: {1}")]
    Harms(u16, &'static str),
    /// Anything else.
    #[error("{0:?} is no refusal: write \"600\", \"486\", \"603\", \"403\", \"480\" or \"drop\"")]
    Unknown(String),
}

impl Refuse {
    /// The refusal of a trunk without a setting.
    pub const DEFAULT: Refuse = Refuse::Reply(Code::BusyEverywhere);

    /// Parses the refusal of a block, `"600"` or `"drop"`.
    ///
    /// # Errors
    /// [`NotOffered`] with the reason. A redirection is the refusal of a trunk only.
    pub fn parse(text: &str) -> Result<Refuse, NotOffered> {
        match Refuse::named(text)? {
            Refuse::Reply(Code::MovedTemporarily) => {
                let why =
                    "a carrier has to follow it, so only [[trunk]] can have it (docs/carriers.md)";
                Err(NotOffered::Harms(302, why))
            }
            refuse @ (Refuse::Reply(_) | Refuse::Drop) => Ok(refuse),
        }
    }

    /// Parses the refusal of a trunk, `"600"`, `"302"` or `"drop"`.
    ///
    /// # Errors
    /// [`NotOffered`] with the reason.
    pub fn named(text: &str) -> Result<Refuse, NotOffered> {
        if text == "drop" {
            return Ok(Refuse::Drop);
        }
        let status = text.parse().ok().filter(|_| text.len() == 3);
        if let Some(code) = status.and_then(Code::of_status) {
            return Ok(Refuse::Reply(code));
        }
        let why = match status {
            Some(500 | 503) => "a carrier that gets it takes the trunk away from every caller",
            Some(408) => "a carrier takes it for a dead peer and tries another route",
            Some(607) => "it puts the number on block lists of carriers",
            Some(608) => "it needs a signed card of the refusing party (RFC 8688)",
            Some(300..400) => "the only redirection is 302",
            _ => return Err(NotOffered::Unknown(text.to_owned())),
        };
        Err(NotOffered::Harms(status.unwrap_or_default(), why))
    }

    /// Returns the name in the configuration.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Refuse::Reply(code) => code.status().to_string(),
            Refuse::Drop => "drop".to_owned(),
        }
    }

    /// Returns the number in the kernel's maps.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Refuse::Reply(code) => code as u8,
            Refuse::Drop => 0,
        }
    }

    /// Returns the refusal in the flags of a block; `None`: as the trunk refuses.
    #[must_use]
    pub fn of_flags(flags: u8) -> Option<Refuse> {
        match flags >> BLOCK_REFUSE_SHIFT & 7 {
            0 => None,
            BLOCK_REFUSE_DROP => Some(Refuse::Drop),
            number => Some(Refuse::of_number(number)),
        }
    }

    /// Returns the flags of a block without a `302`: only the block of a test redirects, and not what is made of it.
    #[must_use]
    pub fn without_redirect(flags: u8) -> u8 {
        match Refuse::of_flags(flags) {
            Some(Refuse::Reply(Code::MovedTemporarily)) => flags & !(7 << BLOCK_REFUSE_SHIFT),
            Some(_) | None => flags,
        }
    }

    /// Returns the flags of a block with this refusal.
    #[must_use]
    pub const fn flags(self) -> u8 {
        let number = match self {
            Refuse::Reply(code) => code as u8,
            Refuse::Drop => BLOCK_REFUSE_DROP,
        };
        number << BLOCK_REFUSE_SHIFT
    }

    /// Returns the refusal with this number in the kernel's maps.
    #[must_use]
    pub fn of_number(number: u8) -> Refuse {
        Code::from_number(number).map_or(Refuse::Drop, Refuse::Reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_a_name_and_a_number() {
        for refuse in Code::ALL.into_iter().map(Refuse::Reply).chain([Refuse::Drop]) {
            assert_eq!(Refuse::named(&refuse.name()), Ok(refuse));
            let is_of_trunks = refuse == Refuse::Reply(Code::MovedTemporarily);
            assert_eq!(Refuse::parse(&refuse.name()).is_err(), is_of_trunks);
            assert_eq!(Refuse::of_number(refuse.number()), refuse);
            assert_eq!(Refuse::of_flags(refuse.flags() | 3), Some(refuse));
        }
    }

    #[test]
    fn code_that_hurts_others_is_refused_with_the_reason() {
        for text in ["500", "503", "408", "607", "608", "302"] {
            let error = Refuse::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text} is not offered: ")), "{error}");
        }
        for text in ["", "0600", "+600", "600 ", "200", "Drop", "1600"] {
            let error = Refuse::parse(text).unwrap_err().to_string();
            assert!(error.contains("is no refusal: write"), "{error}");
        }
    }
}
