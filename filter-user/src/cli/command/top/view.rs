//! Data of the screen: the latest news from the daemon, and the counts of the minute before.

use std::collections::{BTreeMap, VecDeque};

use filter_common::reason::{Fate, Reason};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::api::wire::Top;

/// Length of the longer period, in nanoseconds.
const MINUTE: u64 = 60_000_000_000;

/// Data to draw.
#[derive(Debug)]
pub struct View {
    /// State of the connection to the daemon.
    pub connection: Connection,
    /// Seconds since the last news.
    pub silent_for: u64,
    /// Whether the kernel measures run times.
    pub measuring: Measuring,
    /// Whether colours are used; every state also has a word.
    pub colours: bool,
    /// Time zone of all times.
    pub zone: TimeZone,
    latest: Option<Top>,
    /// Samples of the last minute, oldest first.
    samples: VecDeque<Sample>,
}

/// States of the connection to the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The daemon sends news.
    Up,
    /// The daemon is connected but sends nothing.
    Silent,
    /// The daemon is gone; the text says why.
    Gone(String),
}

/// Whether the kernel measures the program's run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measuring {
    /// Measured because of this command.
    On,
    /// Not measured by this command; the text says why.
    Off(String),
}

/// Numbers of attempts by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Refused.
    pub refused: u64,
    /// Passed, because they could not be read with certainty.
    pub unread: u64,
    /// Passed after a decision.
    pub passed: u64,
}

impl Attempts {
    /// Counts the attempts among packets by reason.
    #[must_use]
    pub fn of(packets: &BTreeMap<String, u64>) -> Attempts {
        let mut attempts = Attempts::default();
        for reason in Reason::ALL.iter().filter(|reason| reason.is_attempt()) {
            let count = packets.get(reason.name()).copied().unwrap_or_default();
            match reason.fate() {
                Fate::Refuse => attempts.refused += count,
                Fate::Pass if reason.is_unread() => attempts.unread += count,
                Fate::Pass => attempts.passed += count,
            }
        }
        attempts
    }

    /// Returns the number of all attempts.
    #[must_use]
    pub fn all(self) -> u64 {
        self.refused + self.unread + self.passed
    }

    fn since(self, before: Attempts) -> Attempts {
        Attempts {
            refused: self.refused.saturating_sub(before.refused),
            unread: self.unread.saturating_sub(before.unread),
            passed: self.passed.saturating_sub(before.passed),
        }
    }
}

/// Counts at one time.
#[derive(Clone, Debug, Default)]
struct Sample {
    boot_ns: u64,
    packets: u64,
    attempts: Attempts,
    trunks: BTreeMap<String, Attempts>,
    lost: u64,
    run_time_ns: u64,
    run_count: u64,
}

impl Sample {
    fn of(top: &Top) -> Sample {
        Sample {
            boot_ns: top.boot_ns,
            packets: top.status.packets.values().sum(),
            attempts: Attempts::of(&top.status.packets),
            trunks: top
                .trunks
                .iter()
                .map(|trunk| (trunk.name.clone(), Attempts::of(&trunk.packets)))
                .collect(),
            lost: top.status.refused_lost + top.status.passed_lost + top.status.refused_thinned(),
            run_time_ns: top.run_time_ns,
            run_count: top.run_count,
        }
    }

    /// Checks whether the counters were reset since `before`: other maps, or another program.
    fn was_reset(&self, before: &Sample) -> bool {
        self.boot_ns <= before.boot_ns
            || self.packets < before.packets
            || self.run_count < before.run_count
            || self.lost < before.lost
    }
}

/// Changes between two times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Length in seconds.
    pub seconds: f64,
    /// Packets of all kinds.
    pub packets: u64,
    /// Attempts on all trunks.
    pub attempts: Attempts,
    /// Attempts without a record.
    pub lost: u64,
    /// Nanoseconds per packet, if any were measured.
    pub packet_ns: Option<u64>,
}

impl View {
    /// Formats a time of day in the zone of the view.
    pub(crate) fn time(&self, time: Timestamp) -> String {
        time.to_zoned_datetime(self.zone.clone()).strftime("%H:%M:%S").to_string()
    }

    /// Formats a date and time in the zone of the view.
    pub(crate) fn date(&self, time: Timestamp) -> String {
        time.to_zoned_datetime(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// Creates a view without data.
    #[must_use]
    pub fn new(measuring: Measuring, colours: bool, zone: TimeZone) -> View {
        View {
            connection: Connection::Up,
            silent_for: 0,
            measuring,
            colours,
            zone,
            latest: None,
            samples: VecDeque::new(),
        }
    }

    /// Adds news from the daemon.
    pub fn hear(&mut self, top: Top) {
        let sample = Sample::of(&top);
        let restarted =
            self.latest.as_ref().is_some_and(|before| before.status.since != top.status.since);
        if restarted || self.samples.back().is_some_and(|before| sample.was_reset(before)) {
            self.samples.clear();
        }
        let begin = sample.boot_ns.saturating_sub(MINUTE + MINUTE / 120);
        self.samples.retain(|old| old.boot_ns >= begin);
        self.samples.push_back(sample);
        self.latest = Some(top);
        self.connection = Connection::Up;
        self.silent_for = 0;
    }

    /// Returns the latest news.
    #[must_use]
    pub fn latest(&self) -> Option<&Top> {
        self.latest.as_ref()
    }

    /// Returns the changes of the last second; `None` without news.
    #[must_use]
    pub fn second(&self) -> Option<Span> {
        let before = self.samples.len().checked_sub(2)?;
        self.span(self.samples.get(before)?)
    }

    /// Returns the changes of the last minute, or since the first sample.
    #[must_use]
    pub fn minute(&self) -> Option<Span> {
        self.span(self.samples.front()?)
    }

    fn span(&self, from: &Sample) -> Option<Span> {
        let to = self.samples.back().filter(|_| self.connection == Connection::Up)?;
        let seconds = seconds(from, to)?;
        let runs = to.run_count.saturating_sub(from.run_count);
        let ran = to.run_time_ns.saturating_sub(from.run_time_ns);
        Some(Span {
            seconds,
            packets: to.packets.saturating_sub(from.packets),
            attempts: to.attempts.since(from.attempts),
            lost: to.lost.saturating_sub(from.lost),
            packet_ns: ran.checked_div(runs),
        })
    }

    /// Returns attempts per second on a trunk in the last second; `None` if unknown.
    #[must_use]
    pub fn trunk_rate(&self, name: &str) -> Option<f64> {
        let to = self.samples.back().filter(|_| self.connection == Connection::Up)?;
        let from = self.samples.get(self.samples.len().checked_sub(2)?)?;
        let attempts = to.trunks.get(name)?.since(*from.trunks.get(name)?).all();
        Some(attempts as f64 / seconds(from, to)?)
    }
}

/// Returns the seconds between two samples; `None` if they have the same time.
fn seconds(from: &Sample, to: &Sample) -> Option<f64> {
    let between = to.boot_ns.checked_sub(from.boot_ns).filter(|between| *between > 0)?;
    Some(between as f64 / 1e9)
}
