//! The ladder: what follows from reported calls of one number. It is pure: it has no clock and no
//! store; the caller passes strikes and a time.
//!
//! - A report that counts is a **strike** with the weight of its kind. Weights are in hundredths, so
//!   that sums are exact: three silent calls are 1.02 strikes.
//! - A strike counts while it is less than `fades` away from the given time. A strike in the future,
//!   because the clock was set back, has the usual weight. If it is further ahead than `fades`, the
//!   clock was wrong and the strike does not count.
//! - The highest rung that the sum reaches decides what follows. Every block ends.
//! - Without a prank or an abusive call among the strikes that count, a block is never longer than
//!   `silent_longest`: a silent caller may be hiding.
//! - Each call is at most one strike, by its newest report. The code that collects strikes ensures
//!   this (`store::reports`).

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(crate) const MINUTE: u64 = 60;
pub(crate) const HOUR: u64 = 60 * MINUTE;
pub(crate) const DAY: u64 = 24 * HOUR;

/// Longest block of a rung in seconds: every block ends.
pub const BLOCK_MAX: u64 = 90 * DAY;
/// Longest time in seconds that a strike can count.
pub const FADES_MAX: u64 = 366 * DAY;
/// Largest weight and largest sum of a rung, in hundredths.
pub(crate) const HUNDREDTHS_MAX: u32 = 100 * 100;
/// Largest number of rungs.
pub(crate) const RUNGS_MAX: usize = 20;

/// Kinds of call that a call-taker reports.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    ToSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum ReportKind {
    /// A joke or a false emergency
    Prank,
    /// Insults or threats
    Abusive,
    /// Nobody spoke; the caller may be unable to
    Silent,
    /// A technician's test call
    Test,
}

impl ReportKind {
    /// All kinds, in display order.
    pub const ALL: [ReportKind; 4] =
        [ReportKind::Prank, ReportKind::Abusive, ReportKind::Silent, ReportKind::Test];

    /// Returns the name in files, the API and the CLI.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ReportKind::Prank => "prank",
            ReportKind::Abusive => "abusive",
            ReportKind::Silent => "silent",
            ReportKind::Test => "test",
        }
    }

    /// Returns the kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<ReportKind> {
        ReportKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Checks whether the caller acted on purpose: then a block may be longer than for a silent caller,
    /// and a redial grant ends.
    #[must_use]
    pub fn is_misuse(self) -> bool {
        match self {
            ReportKind::Prank | ReportKind::Abusive => true,
            ReportKind::Silent | ReportKind::Test => false,
        }
    }
}

impl fmt::Display for ReportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A report that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// Time of the call.
    pub time: Timestamp,
    /// Reported kind.
    pub kind: ReportKind,
}

/// The consequence of the strikes of one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Sum of the strikes that count, in hundredths.
    pub strikes: u32,
    /// Length of the block from now on, in seconds; `None`: no block.
    pub block: Option<u64>,
    /// Whether a person must review it.
    pub review: bool,
    /// Whether it is only a recorded warning, as on the lowest rungs.
    pub warning: bool,
}

/// The consequence of a sum of strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// Smallest sum, in hundredths; above 0.
    pub strikes: u32,
    /// Length of the block in seconds, 60 to [`BLOCK_MAX`]; `None`: only a recorded warning.
    pub block: Option<u64>,
    /// Whether a person must review it.
    pub review: bool,
}

/// Weights and rungs.
///
/// ```
/// use jiff::{SignedDuration, Timestamp};
/// use palang::model::ladder::{Ladder, ReportKind, Strike};
///
/// let ladder = Ladder::default();
/// let now: Timestamp = "2026-11-24T12:00:00Z".parse()?;
/// let strike = |kind, days: i64| Strike { time: now - SignedDuration::from_hours(24 * days), kind };
///
/// // The first prank is a warning on record, the second a block of 24 h.
/// let first = ladder.judge(&[strike(ReportKind::Prank, 1)], now);
/// assert!(first.warning && first.block.is_none());
/// let pranks = [strike(ReportKind::Prank, 1), strike(ReportKind::Prank, 0)];
/// assert_eq!(ladder.judge(&pranks, now).block, Some(24 * 60 * 60));
///
/// // A strike counts for 30 days.
/// let old = [strike(ReportKind::Prank, 31), strike(ReportKind::Prank, 0)];
/// assert!(ladder.judge(&old, now).warning);
///
/// // Silent calls alone never block for longer than 1 h: that caller may be hiding.
/// let silent = [strike(ReportKind::Silent, 0); 12];
/// assert_eq!(ladder.judge(&silent, now).block, Some(60 * 60));
/// # Ok::<(), jiff::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder {
    /// Weights in hundredths, in the order of [`ReportKind::ALL`].
    pub weights: [u32; 4],
    /// Time that a strike counts, in seconds, 3,600 to [`FADES_MAX`].
    pub fades: u64,
    /// Longest block in seconds if only silent calls count.
    pub silent_longest: u64,
    /// Rungs in rising order: each has more strikes than the one before, and no shorter block.
    pub rungs: Vec<Rung>,
}

impl Default for Ladder {
    /// Returns the ladder of `docs/ladder.toml`, which also has the reasons.
    fn default() -> Ladder {
        Ladder {
            weights: [100, 100, 34, 0],
            fades: 30 * DAY,
            silent_longest: HOUR,
            rungs: vec![
                Rung { strikes: 100, block: None, review: false },
                Rung { strikes: 200, block: Some(DAY), review: false },
                Rung { strikes: 300, block: Some(3 * DAY), review: true },
                Rung { strikes: 400, block: Some(7 * DAY), review: true },
            ],
        }
    }
}

impl Ladder {
    /// Returns the weight of a report of this kind, in hundredths.
    #[must_use]
    pub fn weight(&self, kind: ReportKind) -> u32 {
        let [prank, abusive, silent, test] = self.weights;
        match kind {
            ReportKind::Prank => prank,
            ReportKind::Abusive => abusive,
            ReportKind::Silent => silent,
            ReportKind::Test => test,
        }
    }

    /// Checks whether a strike counts at this time.
    #[must_use]
    pub fn counts(&self, strike: &Strike, now: Timestamp) -> bool {
        let away = now.duration_since(strike.time).unsigned_abs();
        self.weight(strike.kind) > 0 && away < std::time::Duration::from_secs(self.fades)
    }

    /// Returns the consequence of these strikes, in any order.
    #[must_use]
    pub fn judge(&self, strikes: &[Strike], now: Timestamp) -> Step {
        let counting = || strikes.iter().filter(|strike| self.counts(strike, now));
        let sum = counting().fold(0_u32, |sum, s| sum.saturating_add(self.weight(s.kind)));
        let Some(rung) = self.rungs.iter().rev().find(|rung| sum >= rung.strikes) else {
            return Step { strikes: sum, ..Step::default() };
        };
        let misused = counting().any(|strike| strike.kind.is_misuse());
        let longest = if misused { BLOCK_MAX } else { self.silent_longest };
        Step {
            strikes: sum,
            block: rung.block.map(|block| block.min(longest)),
            review: rung.review,
            warning: rung.block.is_none(),
        }
    }

    /// Describes the strikes that count: `2.34 strikes: 2 prank, 1 silent`.
    #[must_use]
    pub fn describe(&self, strikes: &[Strike], now: Timestamp) -> String {
        let sum = self.judge(strikes, now).strikes;
        let kinds = ReportKind::ALL.into_iter().filter_map(|kind| {
            let of_kind = |strike: &&Strike| strike.kind == kind && self.counts(strike, now);
            match strikes.iter().filter(of_kind).count() {
                0 => None,
                count => Some(format!("{count} {kind}")),
            }
        });
        let kinds: Vec<_> = kinds.collect();
        format!("{} strikes: {}", decimal(sum), kinds.join(", ")).trim_end_matches(": ").to_owned()
    }
}

/// Formats hundredths as a decimal number: `2.34`.
#[must_use]
pub fn decimal(hundredths: u32) -> String {
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use crate::config::units::length;
    use proptest::prelude::*;
    use std::path::Path;

    use super::*;

    /// A time far from either end of the range.
    const NOW: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn strikes(kinds: &[ReportKind]) -> Vec<Strike> {
        kinds.iter().map(|kind| Strike { time: at(NOW), kind: *kind }).collect()
    }

    #[test]
    fn default_ladder_blocks_step_by_step() {
        use ReportKind::{Abusive, Prank, Silent, Test};
        let ladder = Ladder::default();
        let judge = |kinds: &[ReportKind]| {
            let step = ladder.judge(&strikes(kinds), at(NOW));
            (step.strikes, step.block, step.review, step.warning)
        };
        assert_eq!(judge(&[]), (0, None, false, false));
        assert_eq!(judge(&[Test; 9]), (0, None, false, false));
        assert_eq!(judge(&[Prank]), (100, None, false, true));
        assert_eq!(judge(&[Prank, Abusive]), (200, Some(DAY), false, false));
        assert_eq!(judge(&[Prank, Prank, Prank]), (300, Some(3 * DAY), true, false));
        assert_eq!(judge(&[Prank; 4]), (400, Some(7 * DAY), true, false));
        assert_eq!(judge(&[Prank; 99]), (9900, Some(7 * DAY), true, false));
        assert_eq!(judge(&[Silent; 2]), (68, None, false, false));
        assert_eq!(judge(&[Silent; 3]), (102, None, false, true), "exact, and enough");
        assert_eq!(judge(&[Silent; 6]), (204, Some(HOUR), false, false));
        assert_eq!(judge(&[Silent; 99]), (3366, Some(HOUR), true, false));
        assert_eq!(judge(&[Prank, Silent, Silent, Silent]), (202, Some(DAY), false, false));
    }

    #[test]
    fn strike_fades_and_a_future_one_counts_once() {
        let ladder = Ladder::default();
        let days = 30 * 24 * 60 * 60;
        let sum = |time: i64| {
            let strike = Strike { time: at(time), kind: ReportKind::Prank };
            ladder.judge(&[strike], at(NOW)).strikes
        };
        assert_eq!((sum(NOW), sum(NOW - days + 1), sum(NOW - days)), (100, 100, 0));
        assert_eq!((sum(NOW + days - 1), sum(NOW + days)), (100, 0));
        assert_eq!(sum(Timestamp::MAX.as_second()), 0);
        let silent = Strike { time: at(NOW), kind: ReportKind::Silent };
        let faded = Strike { time: at(NOW - days), kind: ReportKind::Prank };
        let step = ladder.judge(&[[silent; 6].as_slice(), &[faded]].concat(), at(NOW));
        assert_eq!(step.block, Some(HOUR), "a faded prank does not lengthen the block");
    }

    #[test]
    fn strikes_and_lengths_are_described() {
        use ReportKind::{Prank, Silent, Test};
        let ladder = Ladder::default();
        let described = |kinds: &[ReportKind]| ladder.describe(&strikes(kinds), at(NOW));
        assert_eq!(described(&[Silent, Prank, Test, Prank]), "2.34 strikes: 2 prank, 1 silent");
        assert_eq!(described(&[]), "0.00 strikes");
        let lengths = [DAY, 3 * DAY, HOUR, 90 * MINUTE, 61].map(length);
        assert_eq!(lengths, ["24h", "3d", "1h", "90m", "61s"]);
        for kind in ReportKind::ALL {
            assert_eq!(ReportKind::from_name(kind.name()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }

    #[test]
    fn other_ladder_files_in_docs_are_valid() {
        for (name, last) in [("ladder-mild.toml", 24 * HOUR), ("ladder-strict.toml", 7 * DAY)] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
            let ladder = Ladder::read(&path).unwrap();
            assert_ne!(ladder, Ladder::default());
            assert_eq!(ladder.rungs.last().and_then(|rung| rung.block), Some(last), "{name}");
        }
    }

    #[test]
    fn ladder_file_in_docs_is_the_default() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ladder.toml");
        assert_eq!(Ladder::read(&path).unwrap(), Ladder::default());
        let text = std::fs::read_to_string(&path).unwrap();
        for key in ["fades", "silent_longest", "prank", "abusive", "silent", "test"] {
            assert!(text.lines().any(|line| line.starts_with(&format!("{key} = "))), "{key}");
        }
        assert_eq!(text.matches("[[rung]]").count(), Ladder::default().rungs.len());
        for source in ["EENA", "NENA-INF-023", "Indonesia"] {
            assert!(text.contains(source), "{source}");
        }
    }

    /// Checks that an error names the position of `^`.
    #[test]
    fn ladder_error_names_its_position() {
        let rung = "[[rung]]\nstrikes = 1\nblock = \"1d\"\nreview = true\n[[rung]]\n";
        for (text, message) in [
            ("^fade = \"1d\"".to_owned(), "unknown field `fade`"),
            ("fades = ^\"59m\"".to_owned(), "fades: \"59m\" is not 1h to 366d"),
            ("fades = ^\"1 month\"".to_owned(), "is not 1h to 366d"),
            ("silent_longest = ^\"0s\"".to_owned(), "is not 1m to 90d"),
            ("[weights]\nprank = ^0.345".to_owned(), "at most two decimals"),
            ("[weights]\nprank = ^-1".to_owned(), "a weight: 0 to 100"),
            ("[weights]\nprank = ^nan".to_owned(), "a weight: 0 to 100"),
            ("[weights]\n^joke = 1".to_owned(), "unknown field `joke`"),
            ("[[rung]]\nstrikes = ^0".to_owned(), "strikes: 0.01 to 100"),
            ("^[[rung]]\nblock = \"1d\"".to_owned(), "missing field `strikes`"),
            ("[[rung]]\nstrikes = 1\nblock = ^\"91d\"".to_owned(), "block: \"91d\" is not"),
            ("[[rung]]\nstrikes = 1\n^permanent = true".to_owned(), "unknown field `permanent`"),
            (format!("{rung}strikes = ^1"), "must be more than in the rung before"),
            (format!("{rung}strikes = 2\nblock = ^\"23h\""), "must not be shorter"),
            (format!("{rung}strikes = ^2"), "must not be shorter"),
            (format!("{rung}strikes = ^2\nblock = \"2d\""), "review: must be true"),
        ] {
            let place = text.find('^').unwrap();
            let line = text[..place].matches('\n').count() + 1;
            let column = place - text[..place].rfind('\n').map_or(0, |newline| newline + 1) + 1;
            let text = text.replacen('^', "", 1);
            let error = Ladder::parse(&text).err().unwrap();
            let error = error.in_file(Path::new("ladder.toml"), &text).to_string();
            assert!(
                error.starts_with(&format!("ladder.toml:{line}:{column}: ")),
                "{text}\n{error}"
            );
            assert!(error.contains(message), "{text}\n{error}");
        }
        let missing = Ladder::read(Path::new("/nowhere/ladder.toml")).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read /nowhere/ladder.toml: "), "{missing}");
    }

    #[test]
    fn file_changes_only_the_settings_in_it() {
        let ladder = Ladder::parse("[weights]\nsilent = 0.1\ntest = 2").ok().unwrap();
        let expected = Ladder { weights: [100, 100, 10, 200], ..Ladder::default() };
        assert_eq!(ladder, expected);
        let none = Ladder::parse("rung = []").ok().unwrap();
        assert_eq!(none.judge(&strikes(&[ReportKind::Prank; 50]), at(NOW)).block, None);
    }

    fn kind() -> impl Strategy<Value = ReportKind> {
        prop::sample::select(ReportKind::ALL.to_vec())
    }

    /// Strikes around [`NOW`], some of them ahead of it.
    fn some(most: usize) -> impl Strategy<Value = Vec<Strike>> {
        let strike = (-5_000_000_i64..5_000_000, kind())
            .prop_map(|(second, kind)| Strike { time: at(NOW + second), kind });
        prop::collection::vec(strike, 0..most)
    }

    prop_compose! {
        fn ladder()(
            weights in prop::array::uniform4(0u32..300),
            fades in HOUR..=FADES_MAX,
            silent_longest in MINUTE..=BLOCK_MAX,
            steps in prop::collection::vec((1u32..300, 0..20 * DAY, any::<bool>()), 0..6),
        ) -> Ladder {
            let mut rungs: Vec<Rung> = Vec::new();
            for (more, longer, review) in steps {
                let below = rungs.last().copied();
                let block = below.and_then(|rung| rung.block).unwrap_or(0) + longer;
                rungs.push(Rung {
                    strikes: below.map_or(0, |rung| rung.strikes) + more,
                    block: (block >= MINUTE).then_some(block.min(BLOCK_MAX)),
                    review: review || below.is_some_and(|rung| rung.review),
                });
            }
            Ladder { weights, fades, silent_longest, rungs }
        }
    }

    proptest! {
        #[test]
        fn order_of_reports_changes_no_step(
            (sorted, shuffled) in some(12).prop_flat_map(|all| {
                (Just(all.clone()), Just(all).prop_shuffle())
            }),
            ladder in ladder(),
        ) {
            prop_assert_eq!(ladder.judge(&sorted, at(NOW)), ladder.judge(&shuffled, at(NOW)));
            prop_assert_eq!(ladder.describe(&sorted, at(NOW)), ladder.describe(&shuffled, at(NOW)));
        }

        /// Checks that the weight of two joined lists is the sum of both weights.
        #[test]
        fn lists_of_two_edges_add_up(a in some(8), b in some(8), ladder in ladder()) {
            let sum = |strikes: &[Strike]| ladder.judge(strikes, at(NOW)).strikes;
            prop_assert_eq!(sum(&[a.clone(), b.clone()].concat()), sum(&a) + sum(&b));
        }

        /// Checks that past strikes only fade: the weight and the block never grow with time.
        #[test]
        fn past_strikes_fade(
            past in some(12), ladder in ladder(), first in 0i64..50_000_000, more in 0i64..50_000_000,
        ) {
            let past: Vec<_> = past
                .into_iter()
                .map(|strike| Strike { time: strike.time.min(at(NOW)), ..strike })
                .collect();
            let (now, later) = (at(NOW + first), at(NOW + first + more));
            let (now, later) = (ladder.judge(&past, now), ladder.judge(&past, later));
            prop_assert!(later.strikes <= now.strikes);
            prop_assert!(later.block <= now.block);
            prop_assert!(now.review || !later.review);
        }

        #[test]
        fn additional_strike_never_shortens_the_block(
            before in some(12), one in kind(), ladder in ladder(),
        ) {
            let more = [before.clone(), strikes(&[one])].concat();
            let (before, after) = (ladder.judge(&before, at(NOW)), ladder.judge(&more, at(NOW)));
            prop_assert!(after.strikes >= before.strikes);
            prop_assert!(after.block >= before.block);
            prop_assert!(after.review || !before.review);
        }

        /// Checks that every block ends, within `silent_longest` if no prank or abusive call counts.
        #[test]
        fn every_block_ends(all in some(40), ladder in ladder()) {
            let step = ladder.judge(&all, at(NOW));
            prop_assert!(step.block.is_none_or(|block| (MINUTE..=BLOCK_MAX).contains(&block)));
            let misuse = |strike: &Strike| strike.kind.is_misuse() && ladder.counts(strike, at(NOW));
            if !all.iter().any(misuse) {
                prop_assert!(step.block.is_none_or(|block| block <= ladder.silent_longest));
            }
            prop_assert!(!(step.warning && step.block.is_some()));
        }

        /// Checks that a clock step of any size adds no weight: each strike counts at most once.
        #[test]
        fn clock_step_adds_no_weight(
            all in some(12), ladder in ladder(), step in -200_000_000_000_i64..200_000_000_000,
        ) {
            let whole: u32 = all.iter().map(|strike| ladder.weight(strike.kind)).sum();
            let stepped = ladder.judge(&all, at(NOW + step));
            prop_assert!(stepped.strikes <= whole);
            let each = Ladder { fades: u64::MAX / 4, ..ladder.clone() };
            prop_assert!(stepped.block <= each.judge(&all, at(NOW)).block);
        }

        #[test]
        fn ladder_text_causes_no_panic(
            text in "([a-z_]+ = |\\[\\[rung\\]\\]|\\[weights\\]|\"|[0-9.é-]|\n|strikes = 1\n|prank = 1\n){0,20}",
        ) {
            let _ = Ladder::parse(&text);
        }
    }
}
