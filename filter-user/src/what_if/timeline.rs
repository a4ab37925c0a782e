//! Counts refusals and grants over time, in steps that become wider as the time becomes longer.

use std::collections::BTreeMap;

const SECOND: u64 = 1_000_000_000;
/// Maximum number of steps.
const STEPS_MAX: u64 = 200;
/// Round widths of a step in seconds; larger widths double.
const WIDTHS: [u64; 12] =
    [1, 5, 15, 60, 300, 900, 3600, 6 * 3600, 86_400, 7 * 86_400, 28 * 86_400, 364 * 86_400];

/// Counts of calls within one step: policy, baseline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Refused calls.
    pub refused: [u64; 2],
    /// Calls that a redial grant let through.
    pub granted: [u64; 2],
}

/// Steps by their beginning in nanoseconds since 1970. Steps without a call may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// Width of a step in nanoseconds.
    width: u64,
    steps: BTreeMap<u64, Step>,
}

impl Default for Timeline {
    fn default() -> Timeline {
        Timeline { width: WIDTHS[0] * SECOND, steps: BTreeMap::new() }
    }
}

impl Timeline {
    /// Counts N calls: whether they were refused or let through by a grant, by the policy and the
    /// baseline.
    pub fn add(&mut self, calls: u64, time: u64, refused: [bool; 2], granted: [bool; 2]) {
        let step = self.steps.entry(time - time % self.width).or_default();
        for side in 0..2 {
            step.refused[side] += calls * u64::from(refused[side]);
            step.granted[side] += calls * u64::from(granted[side]);
        }
        while self.span() / self.width >= STEPS_MAX {
            self.widen();
        }
    }

    /// Returns the time from the first step to the last, in nanoseconds.
    fn span(&self) -> u64 {
        let ends = self.steps.first_key_value().zip(self.steps.last_key_value());
        ends.map_or(0, |((first, _), (last, _))| last - first)
    }

    fn widen(&mut self) {
        let wider = WIDTHS.iter().map(|seconds| seconds * SECOND).find(|w| *w > self.width);
        self.width = wider.unwrap_or_else(|| self.width.saturating_mul(2));
        for (time, step) in std::mem::take(&mut self.steps) {
            let into = self.steps.entry(time - time % self.width).or_default();
            for side in 0..2 {
                into.refused[side] += step.refused[side];
                into.granted[side] += step.granted[side];
            }
        }
    }

    /// Returns the width of a step in seconds.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        self.width / SECOND
    }

    /// Returns all steps from the first call to the last, by their beginning in seconds since 1970.
    pub fn steps(&self) -> impl Iterator<Item = (u64, Step)> {
        let ends = self.steps.first_key_value().zip(self.steps.last_key_value());
        let (first, last) = ends.map_or((1, 0), |((first, _), (last, _))| (*first, *last));
        let width = usize::try_from(self.width).unwrap_or(usize::MAX);
        (first..=last)
            .step_by(width)
            .map(|time| (time / SECOND, self.steps.get(&time).copied().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Checks that no call is lost in any order, and that the number of steps stays small.
        #[test]
        fn every_call_is_in_a_step(
            calls in prop::collection::vec((any::<u64>(), 0u32..64, any::<[bool; 4]>()), 0..200),
        ) {
            let mut timeline = Timeline::default();
            let mut expected = Step::default();
            for (time, shift, [a, b, c, d]) in calls {
                timeline.add(1, time >> shift, [a, b], [c, d]);
                for (side, (refused, granted)) in [(a, c), (b, d)].into_iter().enumerate() {
                    expected.refused[side] += u64::from(refused);
                    expected.granted[side] += u64::from(granted);
                }
            }
            let mut found = Step::default();
            let mut count = 0;
            for (_, step) in timeline.steps() {
                count += 1;
                for side in 0..2 {
                    found.refused[side] += step.refused[side];
                    found.granted[side] += step.granted[side];
                }
            }
            prop_assert_eq!(found, expected);
            prop_assert!(count <= STEPS_MAX);
        }
    }

    #[test]
    fn steps_are_only_as_wide_as_needed() {
        let width_of = |hours: u64| {
            let mut timeline = Timeline::default();
            for hour in 0..=hours {
                timeline.add(1, hour * 3600 * SECOND, [true, false], [false; 2]);
            }
            timeline.seconds()
        };
        assert_eq!([0, 1, 24, 7 * 24].map(width_of), [1, 60, 900, 3600]);
    }
}
