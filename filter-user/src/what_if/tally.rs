//! Counts calls by policy and by number.

use std::collections::{BTreeMap, HashMap};

use filter_common::number::Number;
use serde::Serialize;

use crate::what_if::Outcome;
use crate::what_if::timeline::Timeline;

/// Counts of all calls under a policy. The JSON form is a contract.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Refused calls.
    pub refused: u64,
    /// Calls that a redial grant let through; they also count as passed.
    pub granted: u64,
    /// Passed calls, by reason.
    pub passed: BTreeMap<&'static str, u64>,
}

impl Counts {
    fn add(&mut self, calls: u64, outcome: Outcome) {
        self.refused += calls * u64::from(outcome.refused);
        self.granted += calls * u64::from(outcome.granted());
        if !outcome.refused {
            *self.passed.entry(outcome.reason).or_default() += calls;
        }
    }
}

/// Calls whose outcome differs from the baseline. The JSON form is a contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Refused by the policy, passed by the baseline.
    pub newly_refused: u64,
    /// Passed by the policy, refused by the baseline.
    pub newly_passed: u64,
    /// Let through by a redial grant under the policy only.
    pub newly_granted: u64,
    /// Let through by a redial grant under the baseline only.
    pub no_longer_granted: u64,
}

impl Difference {
    fn add(&mut self, calls: u64, policy: Outcome, baseline: Outcome) {
        let (before, now) = (baseline.granted(), policy.granted());
        self.newly_refused += calls * u64::from(policy.refused && !baseline.refused);
        self.newly_passed += calls * u64::from(!policy.refused && baseline.refused);
        self.newly_granted += calls * u64::from(now && !before);
        self.no_longer_granted += calls * u64::from(before && !now);
    }

    /// Returns the number of differences, used to sort a list.
    fn calls(&self) -> u64 {
        self.newly_refused + self.newly_passed + self.newly_granted + self.no_longer_granted
    }
}

/// Calls of one number that are refused or let through by a redial grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct OfNumber {
    refused: u64,
    granted: u64,
    baseline_refused: u64,
    baseline_granted: u64,
    difference: Difference,
}

/// A number whose outcome changes; without a baseline, a number that is refused or let through by a
/// redial grant. The JSON form is a contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NumberRow {
    /// The caller number.
    pub number: String,
    /// Calls that the policy refuses.
    pub refused: u64,
    /// Calls that a redial grant lets through.
    pub granted: u64,
    /// Calls that the baseline refuses; null without a baseline.
    pub baseline_refused: Option<u64>,
    /// Calls that a redial grant lets through under the baseline; null without a baseline.
    pub baseline_granted: Option<u64>,
    /// Calls whose outcome differs; null without a baseline.
    pub difference: Option<Difference>,
}

/// Counts so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// All calls.
    pub calls: u64,
    /// Counts under the policy.
    pub policy: Counts,
    /// Counts under the baseline, and the differences.
    pub baseline: Option<(Counts, Difference)>,
    /// Refusals and grants over time.
    pub timeline: Timeline,
    /// Numbers that are refused or let through by either policy.
    numbers: HashMap<Number, OfNumber>,
}

impl Tally {
    /// Creates an empty tally.
    #[must_use]
    pub fn new(with_baseline: bool) -> Tally {
        Tally {
            calls: 0,
            policy: Counts::default(),
            baseline: with_baseline.then(Default::default),
            timeline: Timeline::default(),
            numbers: HashMap::new(),
        }
    }

    /// Counts N calls at `time`, in nanoseconds since 1970.
    pub fn count(
        &mut self,
        calls: u64,
        time: u64,
        number: Option<Number>,
        policy: Outcome,
        baseline: Option<Outcome>,
    ) {
        self.calls += calls;
        self.policy.add(calls, policy);
        if let (Some((counts, difference)), Some(baseline)) = (&mut self.baseline, baseline) {
            counts.add(calls, baseline);
            difference.add(calls, policy, baseline);
        }
        let either =
            |what: fn(Outcome) -> bool| [Some(policy), baseline].map(|o| o.is_some_and(what));
        let (refused, granted) = (either(|outcome| outcome.refused), either(Outcome::granted));
        self.timeline.add(calls, time, refused, granted);
        let touched = [refused, granted].concat().contains(&true);
        if let Some(number) = number.filter(|_| touched) {
            let of_number = self.numbers.entry(number).or_default();
            of_number.refused += calls * u64::from(refused[0]);
            of_number.granted += calls * u64::from(granted[0]);
            of_number.baseline_refused += calls * u64::from(refused[1]);
            of_number.baseline_granted += calls * u64::from(granted[1]);
            if let Some(baseline) = baseline {
                of_number.difference.add(calls, policy, baseline);
            }
        }
    }

    /// Returns the numbers whose outcome changes; without a baseline, those that are refused or let
    /// through. The number with the most calls comes first.
    #[must_use]
    pub fn numbers(&self) -> Vec<NumberRow> {
        let compares = self.baseline.is_some();
        let weight = |of: &OfNumber| match compares {
            true => of.difference.calls(),
            false => of.refused + of.granted,
        };
        let mut rows: Vec<_> = self.numbers.iter().filter(|(_, of)| weight(of) > 0).collect();
        rows.sort_by_key(|(number, of)| (std::cmp::Reverse(weight(of)), **number));
        rows.into_iter()
            .map(|(number, of)| NumberRow {
                number: number.to_string(),
                refused: of.refused,
                granted: of.granted,
                baseline_refused: compares.then_some(of.baseline_refused),
                baseline_granted: compares.then_some(of.baseline_granted),
                difference: compares.then_some(of.difference),
            })
            .collect()
    }
}
