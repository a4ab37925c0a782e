//! What another policy would have done with calls that came: counts for it and for the policy
//! that it is compared with, and the numbers that would have fared otherwise.
//!
//! Pure: frames and records come in one by one, in the order of time.

pub mod frames;
pub mod plot;
pub mod records;
pub mod tally;
pub mod timeline;

use filter_common::abi::{Event, Verdict};
use filter_common::reason::Reason;

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// It did not go on to the SIP server.
    pub refused: bool,
    /// Why, from the closed list of reasons; or [`NO_NUMBER`].
    pub reason: &'static str,
}

/// Stands for the reason of a call whose record has no caller number: whatever the blocks say,
/// it passes.
pub const NO_NUMBER: &str = "no-number";

impl Outcome {
    /// A call that passes.
    #[must_use]
    pub const fn pass(reason: &'static str) -> Outcome {
        Outcome { refused: false, reason }
    }

    /// What the gate did with a frame.
    #[must_use]
    pub fn of(event: &Event) -> Outcome {
        let reason = Reason::from_number(event.reason).unwrap_or(Reason::NoPolicy);
        Outcome { refused: event.verdict != Verdict::Pass as u8, reason: reason.name() }
    }

    /// Whether a redial grant let it through.
    #[must_use]
    pub fn granted(self) -> bool {
        !self.refused && self.reason == Reason::RedialGrant.name()
    }
}
