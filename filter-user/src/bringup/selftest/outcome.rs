//! The state of the gate, from the fates of calls.

use filter_common::abi::{Event, Verdict};
use filter_common::reason::Reason;
use serde::Serialize;

use crate::bringup::selftest::veth::Seen;

/// The state of the gate, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Blocked callers are refused, others pass.
    Armed,
    /// The filter works, but blocked callers are only observed and pass.
    Observing,
    /// The filter works, but the override lets blocked callers through.
    Overridden,
    /// A blocked caller passes for an unintended reason, or another caller is refused.
    Broken,
}

impl Outcome {
    /// Returns the name in the CLI and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Armed => "armed",
            Outcome::Observing => "observing",
            Outcome::Overridden => "overridden",
            Outcome::Broken => "broken",
        }
    }
}

/// Returns the reason from the filter's event.
pub fn reason(seen: &Seen) -> Option<Reason> {
    seen.event.and_then(|event| Reason::from_number(event.reason))
}

/// Derives the state of the gate from the outcomes of the three calls.
pub fn judge(
    trunk: usize,
    blocked: &Seen,
    other: &Seen,
    allowed: &Seen,
) -> (Outcome, Option<String>) {
    let broken = |what: String| (Outcome::Broken, Some(what));
    let why = |seen: &Seen| reason(seen).map_or("no reason given", Reason::name);
    if !other.arrived {
        return broken(format!(
            "A CALLER WHO IS NOT BLOCKED IS REFUSED ({}): palang override on",
            why(other)
        ));
    }
    if !allowed.arrived {
        return broken(format!(
            "an allowed caller is refused ({}): palang override on",
            why(allowed)
        ));
    }
    let Some(event) = blocked.event else {
        return broken("the filter sent no event for a blocked caller's call".to_owned());
    };
    if usize::from(event.trunk) != trunk {
        return broken(format!("its calls are assigned to trunk {}", event.trunk));
    }
    if event.policy_verdict != Verdict::Drop as u8 {
        return broken(format!("a blocked caller passes ({})", why(blocked)));
    }
    match (blocked.arrived, reason(blocked)) {
        (false, Some(Reason::BlockedNumber)) => (Outcome::Armed, None),
        (true, Some(Reason::Override)) => (Outcome::Overridden, None),
        (true, Some(Reason::Observe)) => (Outcome::Observing, None),
        (arrived, _) => broken(format!(
            "a blocked caller's call {} ({})",
            if arrived { "passes" } else { "is lost" },
            why(blocked)
        )),
    }
}

/// Derives the state of the gate from two calls in fragments, where calls of one frame lead to `outcome`.
/// `Ok` with the outcome if both agree.
pub fn compare(trunk: usize, outcome: Outcome, blocked: &Seen, other: &Seen) -> Result<(), String> {
    // Whether an allow lets a call through was asked before.
    let allowed = Seen { arrived: true, event: Some(Event::default()) };
    match judge(trunk, blocked, other, &allowed) {
        (found, None) if found == outcome => Ok(()),
        (found, None) => Err(format!("calls in fragments: {}", found.name())),
        (_, Some(problem)) => Err(format!("calls in fragments: {problem}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(arrived: bool, verdict: Verdict, policy_verdict: Verdict, reason: Reason) -> Seen {
        let event = Event {
            verdict: verdict as u8,
            policy_verdict: policy_verdict as u8,
            reason: reason as u8,
            ..Event::default()
        };
        Seen { arrived, event: Some(event) }
    }

    #[test]
    fn armed_requires_that_only_the_blocked_caller_is_refused() {
        let passed = seen(true, Verdict::Pass, Verdict::Pass, Reason::NotBlocked);
        let refused = seen(false, Verdict::Drop, Verdict::Drop, Reason::BlockedNumber);
        let lost = Seen { arrived: false, ..passed };
        let observed = seen(true, Verdict::Pass, Verdict::Drop, Reason::Observe);
        let overridden = seen(true, Verdict::Pass, Verdict::Drop, Reason::Override);
        let unread = seen(true, Verdict::Pass, Verdict::Pass, Reason::HeadersCut);
        let silent = Seen { arrived: true, event: None };
        let granted = seen(true, Verdict::Pass, Verdict::Drop, Reason::RedialGrant);
        for (calls, outcome, says) in [
            ([refused, passed, passed], Outcome::Armed, ""),
            ([observed, passed, passed], Outcome::Observing, ""),
            ([overridden, passed, passed], Outcome::Overridden, ""),
            ([refused, refused, passed], Outcome::Broken, "NOT BLOCKED IS REFUSED"),
            ([refused, lost, passed], Outcome::Broken, "NOT BLOCKED IS REFUSED"),
            ([refused, passed, refused], Outcome::Broken, "an allowed caller is refused"),
            ([unread, passed, passed], Outcome::Broken, "passes (headers-cut)"),
            ([silent, passed, passed], Outcome::Broken, "sent no event"),
            ([granted, passed, passed], Outcome::Broken, "passes (redial-grant)"),
            ([Seen { arrived: true, ..refused }, passed, passed], Outcome::Broken, "passes"),
            ([Seen { arrived: false, ..observed }, passed, passed], Outcome::Broken, "is lost"),
        ] {
            let [blocked, other, allowed] = calls;
            let (found, problem) = judge(0, &blocked, &other, &allowed);
            assert_eq!(found, outcome, "{problem:?}");
            let problem = problem.unwrap_or_default();
            assert!(problem.contains(says) && problem.is_empty() == says.is_empty(), "{problem}");
        }
        let (found, _) = judge(1, &refused, &passed, &passed);
        assert_eq!(found, Outcome::Broken, "a call that another trunk's profile judged");
    }

    #[test]
    fn calls_in_fragments_must_end_as_others_do() {
        let passed = seen(true, Verdict::Pass, Verdict::Pass, Reason::NotBlocked);
        let refused = seen(false, Verdict::Drop, Verdict::Drop, Reason::BlockedNumber);
        let observed = seen(true, Verdict::Pass, Verdict::Drop, Reason::Observe);
        let unread = Seen { arrived: true, event: None };
        let lost = Seen { arrived: false, event: None };
        for (outcome, blocked, other, says) in [
            (Outcome::Armed, refused, passed, ""),
            (Outcome::Observing, observed, passed, ""),
            (Outcome::Armed, observed, passed, "fragments: observing"),
            (Outcome::Armed, unread, passed, "fragments: the filter sent no event"),
            (Outcome::Armed, refused, lost, "fragments: A CALLER WHO IS NOT BLOCKED IS REFUSED"),
        ] {
            let found = compare(0, outcome, &blocked, &other);
            assert_eq!(found.is_ok(), says.is_empty(), "{found:?}");
            assert!(found.err().unwrap_or_default().contains(says));
        }
    }
}
