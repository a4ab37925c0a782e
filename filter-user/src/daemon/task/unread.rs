//! Watches how many calls of each trunk pass because they cannot be read: a gate that reads nothing is worse
//! than none.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use filter_common::reason::Reason;

use crate::daemon::state::Control;
use crate::daemon::task::asserted::Asserted;
use crate::daemon::task::last_hour::LastHour;
use crate::model::policy::Trunk;
use crate::model::reasons::most_frequent;

/// Interval of the counts.
const MINUTE: Duration = Duration::from_secs(60);
/// Fewer unread calls than this are no finding: one scanner sends as many.
const CALLS_MIN: u64 = 5;
/// Fewer unread calls in a hundred are no finding.
const PERCENT_MIN: u64 = 1;

/// Packets of each trunk by reason, repeats included.
type Counts = Vec<Vec<u64>>;

/// The counts of the last hour, and the datagrams that were judged whole.
#[derive(Clone, Default)]
pub struct Unread(Arc<Mutex<LastHour<(Counts, u64)>>>);

impl Unread {
    /// Returns a finding for each trunk with many unread calls in the last hour, or since the start.
    /// `newest` are the present counts, `judged_again` those of [`EventStats`](filter_common::abi::EventStats).
    pub fn findings(
        &self,
        trunks: &[Trunk],
        newest: &[Vec<u64>],
        judged_again: u64,
    ) -> Vec<String> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((oldest, judged_before)) = counts.oldest() else { return Vec::new() };
        let left = left(newest).saturating_sub(left(oldest));
        let not_met = not_met(left, judged_again.saturating_sub(*judged_before));
        let of_others = newest.first().zip(oldest.first());
        let of_others = of_others.and_then(|(newest, oldest)| for_others(newest, oldest));
        let trunks = trunks.iter().zip(newest.iter().zip(oldest));
        trunks
            .filter_map(|(trunk, (newest, oldest))| finding(&trunk.name, newest, oldest))
            .chain(of_others)
            .chain(not_met)
            .collect()
    }

    fn keep(&self, newest: Counts, judged_again: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keep((newest, judged_again));
    }
}

/// Counts every minute, also the calls whose asserted caller is not read.
pub async fn run(control: Arc<Control>, unread: Unread, asserted: Asserted) {
    let mut tick = tokio::time::interval(MINUTE);
    loop {
        tick.tick().await;
        asserted.tick();
        match control.maps.counts().and_then(|counts| Ok((counts, control.maps.event_stats()?))) {
            Ok((newest, stats)) => unread.keep(newest, stats.judged_again),
            Err(error) => tracing::error!(%error, "cannot count unread calls"),
        }
    }
}

/// Returns the number of datagrams that the first look left to a second one.
fn left(counts: &[Vec<u64>]) -> u64 {
    let index = Reason::ALL.iter().position(|reason| *reason == Reason::SecondLook);
    counts.iter().filter_map(|of_trunk| of_trunk.get(index?)).sum()
}

/// Returns the finding about calls that no second look met, of those in the last hour; `None` if it met most of them. A
/// sender of half a call leaves some.
fn not_met(left: u64, judged: u64) -> Option<String> {
    let missed = left.saturating_sub(judged);
    (missed >= CALLS_MIN && missed * 2 >= left).then(|| {
        format!(
            "{missed} of {left} calls in fragments in the last hour met no second look. They passed unread, or did not \
             come whole: palang doctor; docs/reasons.md, \"Calls in fragments\""
        )
    })
}

/// Returns the finding about INVITEs for other machines, by the counts of the profile `default`: they pass before
/// the trunk is looked up.
fn for_others(newest: &[u64], oldest: &[u64]) -> Option<String> {
    let index = Reason::ALL.iter().position(|reason| *reason == Reason::OtherMachine)?;
    let count = newest.get(index)?.saturating_sub(*oldest.get(index)?);
    (count >= CALLS_MIN).then(|| {
        format!(
            "{count} INVITEs in the last hour passed with other-machine (docs/reasons.md): if calls of this centre \
             are among them, set forwarded = true"
        )
    })
}

/// Returns the finding about a trunk, by its counts in the order of [`Reason::ALL`]; `None` if nearly all its
/// calls are read.
fn finding(trunk: &str, newest: &[u64], oldest: &[u64]) -> Option<String> {
    let (mut calls, mut unread) = (0, 0);
    let mut by_reason = Vec::new();
    for (reason, (newest, oldest)) in Reason::ALL.iter().zip(newest.iter().zip(oldest)) {
        // Maps that were replaced count from 0.
        let count = newest.saturating_sub(*oldest);
        if reason.is_attempt() {
            calls += count;
        }
        if reason.is_unread() && !reason.is_without_number() && count > 0 {
            unread += count;
            by_reason.push((reason.name(), count));
        }
    }
    if unread < CALLS_MIN || unread * 100 < calls * PERCENT_MIN {
        return None;
    }
    Some(format!(
        "trunk {trunk}: {unread} of {calls} calls in the last hour passed unread ({}): palang calls --unread \
         --trunk {trunk}; docs/reasons.md says what to set",
        most_frequent(by_reason)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(counts: &[(Reason, u64)]) -> Option<String> {
        let newest: Vec<_> = Reason::ALL
            .iter()
            .map(|reason| {
                7 + counts.iter().find(|(one, _)| one == reason).map_or(0, |(_, count)| *count)
            })
            .collect();
        finding("carrier", &newest, &vec![7; newest.len()])
    }

    #[test]
    fn one_call_in_a_hundred_that_is_not_read_is_a_finding() {
        let found = of(&[
            (Reason::NotBlocked, 400),
            (Reason::BlockedNumber, 90),
            (Reason::HeadersCut, 8),
            (Reason::AmbiguousNumber, 2),
        ]);
        let found = found.expect("a finding");
        let start = "trunk carrier: 10 of 500 calls in the last hour passed unread (headers-cut 8, \
                     ambiguous-number 2): ";
        assert!(found.starts_with(start), "{found}");
    }

    #[test]
    fn invites_for_other_machines_are_a_finding() {
        let counts = |count| {
            let of = |reason: &Reason| if *reason == Reason::OtherMachine { count } else { 0 };
            Reason::ALL.iter().map(of).collect::<Vec<u64>>()
        };
        assert_eq!(for_others(&counts(9), &counts(5)), None);
        let found = for_others(&counts(10), &counts(5)).expect("a finding");
        assert!(
            found.starts_with("5 INVITEs in the last hour passed with other-machine"),
            "{found}"
        );
    }

    #[test]
    fn few_unread_calls_and_callers_without_a_number_are_no_finding() {
        for counts in [
            &[(Reason::BadHeader, 4)][..],
            &[(Reason::NotBlocked, 10_000), (Reason::BadHeader, 99)],
            &[(Reason::NotANumber, 500), (Reason::NoUser, 500), (Reason::NoNumberUri, 500)],
            // No INVITE of a new call.
            &[(Reason::NotInvite, 500), (Reason::SecondLook, 500)],
        ] {
            assert_eq!(of(counts), None, "{counts:?}");
        }
    }

    #[test]
    fn calls_in_fragments_that_mostly_meet_no_second_look_are_a_finding() {
        assert_eq!(not_met(4, 0), None, "too few");
        assert_eq!(not_met(100, 60), None, "most of them are judged");
        assert_eq!(not_met(0, 0), None);
        let finding = not_met(100, 50).unwrap();
        assert!(
            finding.starts_with("50 of 100 calls in fragments in the last hour met no second"),
            "{finding}"
        );
    }
}
