//! Judges past calls by another policy. It counts the outcomes for that policy and for the policy
//! that it is compared with, and lists the numbers whose outcome changes.
//!
//! It is pure: frames and records come in one by one, ordered by time.

pub mod frames;
pub mod plot;
pub mod records;
pub mod tally;
pub mod timeline;

use filter_common::abi::{Event, Verdict};
use filter_common::reason::Reason;

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The call was not forwarded to the SIP server.
    pub refused: bool,
    /// The reason, from the closed list of reasons, or [`NO_NUMBER`].
    pub reason: &'static str,
}

/// Reason of a call whose record has no caller number. Such a call passes under any policy.
pub const NO_NUMBER: &str = "no-number";

impl Outcome {
    /// Returns the outcome of a call that passes.
    #[must_use]
    pub const fn pass(reason: &'static str) -> Outcome {
        Outcome { refused: false, reason }
    }

    /// Returns the outcome of a frame that the gate judged.
    #[must_use]
    pub fn of(event: &Event) -> Outcome {
        let reason = Reason::from_number(event.reason).unwrap_or(Reason::NoPolicy);
        Outcome { refused: event.verdict != Verdict::Pass as u8, reason: reason.name() }
    }

    /// Checks whether a redial grant let the call through.
    #[must_use]
    pub fn granted(self) -> bool {
        !self.refused && self.reason == Reason::RedialGrant.name()
    }
}
