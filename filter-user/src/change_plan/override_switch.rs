//! Plans the override: the same limits, texts and answer with and without the daemon.

use filter_common::abi::TOMBSTONE;
use jiff::{SignedDuration, Timestamp};

use crate::api::wire::{self, Persisted, Problem};
use crate::change_plan::checks::{check_text, usage};

/// The effect of a request on the override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverridePlan {
    /// The end by the wall clock; `None`: the override is switched off.
    pub until: Option<Timestamp>,
    /// The value for the kernel's map: the end in boot time, or [`TOMBSTONE`].
    pub deadline: u64,
    /// The reason.
    pub reason: String,
    /// Whether nothing is to be changed.
    pub dry_run: bool,
}

/// Plans a switch of the override. `now` is the wall clock, `boot` the boot time in nanoseconds.
///
/// # Errors
/// [`wire::ProblemKind::Usage`] if the override is longer than [`wire::OVERRIDE_MAX`], has no reason,
/// or has a reason that is too long.
pub fn plan_override(
    set: &wire::SetOverride,
    now: Timestamp,
    boot: u64,
) -> Result<OverridePlan, Problem> {
    let is_on = set.seconds > 0;
    let life = i64::try_from(set.seconds).map_or(SignedDuration::MAX, SignedDuration::from_secs);
    if life > wire::OVERRIDE_MAX {
        return usage("an override lasts at most 7 days");
    }
    if is_on && set.reason.trim().is_empty() {
        return usage("an override needs a reason");
    }
    check_text("reason", &set.reason)?;
    Ok(OverridePlan {
        until: is_on.then(|| now + life),
        deadline: if is_on { boot + set.seconds * 1_000_000_000 } else { TOMBSTONE },
        reason: set.reason.clone(),
        dry_run: set.dry_run,
    })
}

impl OverridePlan {
    /// Returns whether the override is switched on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.until.is_some()
    }

    /// Returns the answer to the request. `order` is the place of the change; 0: it has none.
    #[must_use]
    pub fn answer(self, author: String, persisted: Persisted, order: u64) -> wire::Override {
        let is_on = self.is_on();
        wire::Override {
            until: self.until,
            reason: is_on.then_some(self.reason),
            author: is_on.then_some(author),
            persisted,
            dry_run: self.dry_run,
            order,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seconds: u64, reason: &str) -> Result<OverridePlan, Problem> {
        let set = wire::SetOverride { seconds, reason: reason.to_owned(), dry_run: false };
        plan_override(&set, Timestamp::UNIX_EPOCH, 5)
    }

    #[test]
    fn override_of_a_minute_ends_after_a_minute_on_both_clocks() {
        let plan = plan(60, "flood").unwrap();
        assert_eq!(plan.until.unwrap().as_second(), 60);
        assert_eq!(plan.deadline, 60_000_000_005);
        let answer = plan.answer("siti".to_owned(), Persisted::Yes, 7);
        assert_eq!(
            (answer.reason.as_deref(), answer.author.as_deref()),
            (Some("flood"), Some("siti"))
        );
        assert_eq!(answer.order, 7);
    }

    #[test]
    fn override_that_is_switched_off_needs_no_reason_and_has_no_author() {
        let plan = plan(0, "").unwrap();
        assert_eq!((plan.until, plan.deadline), (None, TOMBSTONE));
        assert_eq!(plan.answer("siti".to_owned(), Persisted::Yes, 1).author, None);
    }

    #[test]
    fn override_without_reason_or_longer_than_seven_days_is_refused() {
        assert!(plan(60, " ").unwrap_err().message.contains("needs a reason"));
        for seconds in [7 * 86_400 + 1, u64::MAX] {
            assert!(plan(seconds, "flood").unwrap_err().message.contains("at most 7 days"));
        }
        assert!(plan(7 * 86_400, "flood").is_ok());
    }
}
