//! Finds carriers whose machine calls again after a refused call. A second leg has another Call-ID, so it counts as the
//! caller's second attempt and opens the redial grant, although no person has called again.
//!
//! A machine waits for the same time with every caller. The waiting times of people are spread over 8 to 90 s: at most
//! one in fifty is within the same 0.6 s.

use std::collections::HashMap;
use std::hash::Hash;

use filter_common::number::Number;

use crate::model::policy::Trunk;

/// Name of the profile for sources outside all trunks. It has no `[[trunk]]`.
const DEFAULT_TRUNK: &str = "default";
/// Largest difference of two gaps that are the same time: ± 0.3 s.
const SAME_NS: u64 = 600_000_000;
/// Numbers with the same gap that are a machine. People reach it most easily with 8 of 15 within the same 0.6 s. With
/// one in fifty this happens on one of 10^7 days. A lower number would find one person with an automatic redial and
/// several telephones, a higher one needs more pranks before it helps.
const NUMBERS_MIN: usize = 8;
/// How long a gap counts.
const GAP_KEPT_NS: u64 = 24 * 3600 * SECOND;
/// Attempts after this time are a new series of calls. No trunk can have a longer `separate`.
const SERIES_NS: u64 = 600 * SECOND;
/// Numbers of a trunk whose second attempt may still come; further ones displace the oldest.
const WAITING_MAX: usize = 4096;
/// Numbers of a trunk whose gap is kept; further ones displace the oldest.
const GAPS_MAX: usize = 1024;
/// Added to a measured time, so that a slow machine is still before it.
const SPARE: u64 = 3;
const SECOND: u64 = 1_000_000_000;

/// A machine that calls again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The gap between the first and the second attempt, in milliseconds.
    pub gap: u64,
    /// Numbers with this gap.
    pub numbers: usize,
    /// Numbers that called twice in the last day.
    pub of: usize,
}

impl Machine {
    /// Returns the `separate` that makes both attempts one, in seconds.
    #[must_use]
    pub fn separate(self) -> u64 {
        // A tenth of a second is jitter.
        (self.gap + 50).div_euclid(100).div_ceil(10) + SPARE
    }

    /// Describes the finding about a trunk and its cures. `grants`: whether a block opens a redial grant, if it has no
    /// setting of its own.
    #[must_use]
    pub fn finding(self, trunk: &Trunk, grants: bool) -> String {
        let Machine { gap, numbers, of } = self;
        let (name, separate) = (&trunk.name, self.separate());
        let tenths = (gap + 50) / 100;
        let (seconds, tenths) = (tenths / 10, tenths % 10);
        let after =
            if tenths == 0 { format!("{seconds} s") } else { format!("{seconds}.{tenths} s") };
        let effect = if grants {
            "Its machine opens the redial grant"
        } else {
            "Its machine opens the redial grant of blocks with a setting of their own ([redial] attempts is 0)"
        };
        let cure = if trunk.name == DEFAULT_TRUNK {
            format!("name its sources in a [[trunk]], with separate = \"{separate}s\" or a reply")
        } else {
            let other =
                if trunk.profile.refuse == 0 { "refuse with a reply" } else { "try another code" };
            format!("set separate = \"{separate}s\" in [[trunk]] {name}, or {other}")
        };
        format!(
            "trunk {name} seems to retry by itself after {after} ({numbers} of {of} numbers that called twice). {effect}; \
             {cure} (docs/carriers.md)"
        )
    }
}

/// The first attempt of a series.
#[derive(Clone, Copy, Debug)]
struct First {
    time: u64,
    call_id: u64,
    /// The second attempt has come.
    is_over: bool,
}

/// The latest gap of a number.
#[derive(Clone, Copy, Debug)]
struct Gap {
    /// When the second attempt came.
    time: u64,
    gap: u64,
}

/// The refused attempts of one trunk.
#[derive(Clone, Debug, Default)]
pub struct Redials {
    firsts: HashMap<Number, First>,
    gaps: HashMap<Number, Gap>,
}

impl Redials {
    /// Notes an attempt that was refused, or that opened a redial grant: `time` in nanoseconds, `call_id` is the hash of
    /// its Call-ID. It may also be the identity that its legs share. Attempts less than `separate` seconds after the first are the same attempt.
    pub fn note(&mut self, number: Number, call_id: u64, time: u64, separate: u32) {
        let first = First { time, call_id, is_over: false };
        let Some(found) = self.firsts.get_mut(&number) else {
            make_room(&mut self.firsts, WAITING_MAX, |first| first.time);
            self.firsts.insert(number, first);
            return;
        };
        let gap = time.saturating_sub(found.time);
        if gap >= SERIES_NS {
            *found = first;
        } else if !found.is_over && found.call_id != call_id && gap >= u64::from(separate) * SECOND
        {
            found.is_over = true;
            if !self.gaps.contains_key(&number) {
                make_room(&mut self.gaps, GAPS_MAX, |gap| gap.time);
            }
            self.gaps.insert(number, Gap { time, gap });
        }
    }

    /// Returns the machine that calls again, if the gaps of the last day show one. A gap below `separate` seconds
    /// does no harm.
    #[must_use]
    pub fn machine(&self, now: u64, separate: u32) -> Option<Machine> {
        let separate = u64::from(separate) * SECOND;
        let counts = |gap: &&Gap| gap.gap >= separate && now.saturating_sub(gap.time) < GAP_KEPT_NS;
        let mut gaps: Vec<u64> = self.gaps.values().filter(counts).map(|gap| gap.gap).collect();
        gaps.sort_unstable();
        // Callers who know the rule wait just as long as they have to.
        let known = gaps.partition_point(|gap| *gap < separate + SAME_NS);
        let (mut begin, mut most) = (known, 0..0);
        for (end, gap) in gaps.iter().enumerate().skip(known) {
            while gap - gaps[begin] > SAME_NS {
                begin += 1;
            }
            if end + 1 - begin > most.len() {
                most = begin..end + 1;
            }
        }
        let numbers = most.len();
        if numbers < NUMBERS_MIN || numbers * 2 <= gaps.len() {
            return None;
        }
        let gap = gaps[most.start + numbers / 2] / 1_000_000;
        Some(Machine { gap, numbers, of: gaps.len() })
    }
}

/// Removes the older half of a full map.
fn make_room<K: Copy + Eq + Hash, V>(
    map: &mut HashMap<K, V>,
    max: usize,
    time: impl Fn(&V) -> u64,
) {
    if map.len() < max {
        return;
    }
    let mut times: Vec<u64> = map.values().map(&time).collect();
    let (_, middle, _) = times.select_nth_unstable(max / 2);
    let middle = *middle;
    map.retain(|_, value| time(value) > middle);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::policy::Policy;

    const SEPARATE: u32 = 5;

    fn number(index: u64) -> Number {
        Number(index << 8 | 0x1C)
    }

    /// Random numbers, the same in each run.
    struct Chance(u64);

    impl Chance {
        fn new(seed: u64) -> Chance {
            Chance(seed)
        }

        /// Returns a number from 0 to 1 (SplitMix64).
        fn share(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((mixed ^ mixed >> 31) >> 11) as f64 / (1u64 << 53) as f64
        }

        /// Returns a log-normal waiting time of a person: half of them are below 27 s, nearly all from 8 to 90 s.
        fn person(&mut self) -> f64 {
            let normal = (0..12).map(|_| self.share()).sum::<f64>() - 6.0;
            (27.0_f64.ln() + 0.6 * normal).exp().clamp(8.0, 90.0)
        }

        fn machine(&mut self, seconds: f64) -> f64 {
            seconds + (self.share() - 0.5) * 0.5
        }
    }

    /// Notes callers, each a minute after the one before, with these gaps in seconds. Returns the trunk's redials, and
    /// the time of the last attempt.
    fn noted(gaps: &[f64], separate: u32) -> (Redials, u64) {
        let mut redials = Redials::default();
        let mut last = 0;
        for (index, gap) in (1..).zip(gaps) {
            let first = index * 60 * SECOND;
            let second = first + (gap * SECOND as f64) as u64;
            redials.note(number(index), 2 * index, first, separate);
            redials.note(number(index), 2 * index + 1, second, separate);
            last = second;
        }
        (redials, last)
    }

    fn found(gaps: &[f64]) -> Option<Machine> {
        let (redials, last) = noted(gaps, SEPARATE);
        redials.machine(last, SEPARATE)
    }

    #[test]
    fn machine_is_found_with_eight_numbers_and_its_cure_ends_the_finding() {
        for seconds in [6.0, 12.0, 32.0, 64.0, 180.0] {
            let mut chance = Chance::new(1);
            let gaps: Vec<f64> = (0..8).map(|_| chance.machine(seconds)).collect();
            assert_eq!(found(&gaps[..7]), None, "seven numbers are too few");
            let machine = found(&gaps).expect("a machine");
            assert!(machine.gap.abs_diff((seconds * 1000.0) as u64) < 300, "{machine:?}");
            assert_eq!((machine.numbers, machine.of), (8, 8));
            let separate = machine.separate() as u32;
            assert!(f64::from(separate) > seconds + 2.5 && f64::from(separate) < seconds + 5.0);
            let (redials, last) = noted(&gaps, separate);
            assert_eq!(redials.machine(last, separate), None);
            // Also where the gaps were noted before the setting.
            let (redials, last) = noted(&gaps, SEPARATE);
            assert_eq!(redials.machine(last, separate), None);
        }
    }

    #[test]
    fn machine_is_found_among_people_who_are_fewer() {
        let mut chance = Chance::new(2);
        let mut gaps: Vec<f64> = (0..30).map(|_| chance.machine(32.0)).collect();
        gaps.extend((0..20).map(|_| chance.person()));
        let machine = found(&gaps).expect("a machine");
        assert!(machine.gap.abs_diff(32_000) < 300 && machine.of == 50, "{machine:?}");
        gaps.extend((0..20).map(|_| chance.person()));
        assert_eq!(found(&gaps), None, "most are people");
    }

    #[test]
    fn people_of_many_years_are_no_machine() {
        // A centre refuses some hundreds of attempts a day; 40 % of the callers call again.
        for (people, days) in [(8, 36_500), (15, 36_500), (40, 3_650), (200, 365), (1_000, 36)] {
            let mut chance = Chance::new(people);
            for day in 0..days {
                let gaps: Vec<f64> = (0..people).map(|_| chance.person()).collect();
                assert_eq!(found(&gaps), None, "{people} people, day {day}");
            }
        }
    }

    #[test]
    fn callers_who_know_the_rule_are_no_machine() {
        for separate in [5, 9, 35] {
            let gaps: Vec<f64> =
                (0..40).map(|index| f64::from(separate) + f64::from(index) / 70.0).collect();
            let (redials, last) = noted(&gaps, separate);
            assert_eq!(redials.gaps.len(), 40);
            assert_eq!(redials.machine(last, separate), None);
        }
    }

    #[test]
    fn only_the_second_attempt_with_another_call_id_counts() {
        let mut redials = Redials::default();
        for index in 1..=20 {
            let at = |seconds: u64| index * 60 * SECOND + seconds * SECOND;
            redials.note(number(index), index, at(0), SEPARATE);
            // A call after its first verdict was forgotten, and a second route of the carrier.
            redials.note(number(index), index, at(70), SEPARATE);
            redials.note(number(index), 100 + index, at(4), SEPARATE);
            // The second attempt; later ones do not count.
            redials.note(number(index), 200 + index, at(20 + 5 * index), SEPARATE);
            redials.note(number(index), 300 + index, at(250), SEPARATE);
        }
        assert_eq!(redials.gaps.len(), 20);
        assert_eq!(redials.machine(2000 * SECOND, SEPARATE), None);
    }

    #[test]
    fn number_counts_once_and_only_for_a_day() {
        let mut redials = Redials::default();
        for series in 1..=50 {
            let first = series * 3600 * SECOND;
            redials.note(number(1), 2 * series, first, SEPARATE);
            redials.note(number(1), 2 * series + 1, first + 32 * SECOND, SEPARATE);
        }
        assert_eq!(redials.machine(50 * 3600 * SECOND, SEPARATE), None, "one telephone");
        let (redials, last) = noted(&[32.0; 9], SEPARATE);
        assert!(redials.machine(last, SEPARATE).is_some());
        assert_eq!(redials.machine(last + GAP_KEPT_NS, SEPARATE), None);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_go() {
        let (redials, last) = noted(&vec![32.0; 3 * WAITING_MAX], SEPARATE);
        assert!(redials.firsts.len() <= WAITING_MAX && redials.gaps.len() <= GAPS_MAX);
        assert!(redials.firsts.contains_key(&number(3 * WAITING_MAX as u64)));
        assert!(redials.machine(last, SEPARATE).is_some());
        // All at one time: no number is older than another.
        let mut redials = Redials::default();
        for index in 0..2 * WAITING_MAX as u64 {
            redials.note(number(index), index, SECOND, SEPARATE);
        }
        assert!(redials.firsts.len() <= WAITING_MAX);
    }

    #[test]
    fn finding_names_the_time_and_the_cure() {
        let machine = Machine { gap: 32_030, numbers: 9, of: 11 };
        let mut trunk = Policy::default().trunks[0].clone();
        let of_no_trunk = machine.finding(&trunk, true);
        assert!(
            of_no_trunk.contains("name its sources in a [[trunk]], with separate = \"35s\""),
            "{of_no_trunk}"
        );
        trunk.name = "telkom".to_owned();
        assert_eq!(
            machine.finding(&trunk, true),
            "trunk telkom seems to retry by itself after 32 s (9 of 11 numbers that called twice). Its machine opens the \
             redial grant; set separate = \"35s\" in [[trunk]] telkom, or refuse with a reply (docs/carriers.md)"
        );
        let without = machine.finding(&trunk, false);
        assert!(
            without.contains("with a setting of their own ([redial] attempts is 0);"),
            "{without}"
        );
        assert!(Machine { gap: 6_320, ..machine }.finding(&trunk, true).contains("after 6.3 s"));
        trunk.profile.refuse = 1;
        assert!(machine.finding(&trunk, true).contains("or try another code"));
        assert_eq!(Machine { gap: 6_320, ..machine }.separate(), 10);
    }

    proptest! {
        #[test]
        fn machine_has_eight_numbers_and_most_of_all(
            gaps in prop::collection::vec(prop_oneof![Just(32.0), 5.0f64..599.0], 0..40)
        ) {
            let machine = found(&gaps);
            let near = |centre: f64| gaps.iter().filter(|gap| (*gap - centre).abs() <= 0.6).count();
            let most = gaps.iter().map(|gap| near(*gap)).max().unwrap_or(0);
            if let Some(machine) = machine {
                prop_assert!(machine.numbers >= 8 && 2 * machine.numbers > machine.of);
                prop_assert!(machine.numbers <= most && machine.of == gaps.len());
            } else {
                let same = gaps.iter().filter(|gap| **gap == 32.0).count();
                prop_assert!(same < 8 || same * 2 <= gaps.len());
            }
        }
    }
}
