//! Watches whether carriers acknowledge the replies to refused calls. A person must notice replies that
//! do not arrive.
//!
//! The gate goes on answering: without replies the carrier would see the same silence. And a caller who sends no
//! ACK could otherwise take the replies from everybody.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use filter_common::abi::ReplyStats;

/// Answered calls after which ACKs are compared with them.
const CALLS: u64 = 20;

/// A change that a look at the counters of a trunk shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The carrier acknowledged fewer than half of the calls.
    Bad(Window),
    /// It acknowledged half of them or more again.
    Good(Window),
}

/// Answered calls that were looked at together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Calls that got a reply, without those that came again.
    pub calls: u64,
    /// ACKs for them.
    pub acks: u64,
}

/// The reply paths of all trunks, by the trunk's name.
#[derive(Debug, Default)]
pub struct ReplyPath(Mutex<BTreeMap<String, Watch>>);

impl ReplyPath {
    /// Takes the present counters of a trunk, which are at an index in the map, and returns a change. Call it every few
    /// seconds: an ACK needs that time at most.
    pub fn look(&self, trunk: &str, index: u32, counters: ReplyStats) -> Option<Change> {
        let mut watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = watches.entry(trunk.to_owned()).or_insert_with(|| Watch::new(index, counters));
        // A change of the configuration gave the trunk the counters of another one.
        if watch.index != index || counters.sent < watch.last.sent {
            *watch = Watch::new(index, counters);
        }
        watch.look(counters)
    }

    /// Returns the problem of a trunk's replies; `None` if the carrier acknowledges them.
    #[must_use]
    pub fn problem(&self, trunk: &str) -> Option<String> {
        let watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Window { calls, acks } = watches.get(trunk)?.bad?;
        Some(format!(
            "trunk {trunk}: its carrier acknowledged {acks} of the last {calls} replies to refused calls. If they do not \
             arrive, it takes the centre for dead: docs/carriers.md"
        ))
    }
}

/// The counters of one trunk.
#[derive(Debug)]
struct Watch {
    index: u32,
    /// Counters when the comparison began.
    start: ReplyStats,
    /// Counters of the last look.
    last: ReplyStats,
    bad: Option<Window>,
}

impl Watch {
    fn new(index: u32, counters: ReplyStats) -> Watch {
        Watch { index, start: counters, last: counters, bad: None }
    }

    fn look(&mut self, counters: ReplyStats) -> Option<Change> {
        // Only calls that are older than one look: their ACKs had time to come.
        let calls = (self.last.sent - self.start.sent)
            .saturating_sub(self.last.repeated - self.start.repeated);
        let acks = counters.acks.saturating_sub(self.start.acks).min(calls);
        let mut change = None;
        if calls >= CALLS {
            let window = Window { calls, acks };
            let was_bad = self.bad.take();
            if acks * 2 < calls {
                self.bad = Some(window);
                change = was_bad.is_none().then_some(Change::Bad(window));
            } else {
                change = was_bad.map(|_| Change::Good(window));
            }
            let acks = self.start.acks + acks;
            self.start = ReplyStats { acks, ..self.last };
        }
        self.last = counters;
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(sent: u64, acks: u64) -> ReplyStats {
        ReplyStats { sent, acks, ..ReplyStats::default() }
    }

    /// Looks at a trunk with these counters in turn, and returns the changes.
    fn changes(looks: &[(u64, u64)]) -> Vec<Option<Change>> {
        let path = ReplyPath::default();
        looks.iter().map(|(sent, acks)| path.look("a", 1, counters(*sent, *acks))).collect()
    }

    fn bad(calls: u64, acks: u64) -> Option<Change> {
        Some(Change::Bad(Window { calls, acks }))
    }

    #[test]
    fn fewer_acks_than_half_of_twenty_calls_are_a_problem() {
        assert_eq!(changes(&[(7, 0), (26, 0), (26, 0)]), [None; 3], "19 calls are too few");
        assert_eq!(changes(&[(7, 3), (27, 3), (40, 12)]), [None, None, bad(20, 9)]);
        assert_eq!(changes(&[(7, 3), (27, 3), (40, 13)]), [None; 3]);
    }

    #[test]
    fn acks_of_later_calls_do_not_count_for_earlier_ones() {
        // 20 calls with 20 ACKs, then 20 without: the surplus of the first window does not help.
        let looks = [(0, 0), (20, 0), (40, 25), (40, 25), (40, 25)];
        assert_eq!(changes(&looks), [None, None, None, bad(20, 5), None]);
    }

    #[test]
    fn call_that_comes_again_counts_once() {
        let path = ReplyPath::default();
        let look = |sent, repeated| {
            path.look("a", 1, ReplyStats { sent, repeated, ..ReplyStats::default() })
        };
        assert_eq!([look(0, 0), look(21, 18), look(21, 18)], [None; 3], "three calls");
    }

    #[test]
    fn problem_ends_with_twenty_acknowledged_calls() {
        let path = ReplyPath::default();
        let look = |sent, acks| path.look("a", 1, counters(sent, acks));
        assert_eq!([look(0, 0), look(20, 0), look(20, 0)], [None, None, bad(20, 0)]);
        assert!(
            path.problem("a").is_some_and(|problem| problem.contains("0 of the last 20 replies"))
        );
        assert_eq!([look(40, 0), look(60, 0)], [None; 2], "it lasts");
        assert_eq!(look(60, 20), Some(Change::Good(Window { calls: 20, acks: 20 })));
        assert_eq!(path.problem("a"), None);
    }

    #[test]
    fn counters_of_another_trunk_are_no_problem() {
        let path = ReplyPath::default();
        assert_eq!(path.look("a", 1, counters(0, 0)), None);
        // After a change of the configuration.
        assert_eq!(path.look("a", 2, counters(500, 3)), None);
        assert_eq!(path.look("a", 2, counters(500, 3)), None);
        assert_eq!(path.look("a", 1, counters(30, 0)), None);
        assert_eq!(path.look("a", 1, counters(30, 0)), None);
    }
}
