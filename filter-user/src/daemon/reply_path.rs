//! Watches whether carriers acknowledge the replies to refused calls. A person must notice replies that
//! do not arrive.
//!
//! The gate goes on answering: without replies the carrier would see the same silence. And a caller who sends no
//! ACK could otherwise take the replies from everybody. Replies of the driver without ACKs only change their sender: the
//! daemon sends the same ones.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use filter_common::abi::{Profile, REPLY_PATH_AUTO, ReplyStats};

use crate::model::policy::Trunk;

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
    /// Whether the driver sent most of the replies.
    pub by_driver: bool,
}

/// The counters of one trunk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// All replies, and their ACKs.
    pub all: ReplyStats,
    /// Replies that the daemon sent.
    pub by_daemon: u64,
}

/// The reply paths of all trunks, by the trunk's name.
#[derive(Debug, Default)]
pub struct ReplyPath(Mutex<BTreeMap<String, Watch>>);

impl ReplyPath {
    /// Takes the present counters of a trunk, which are at an index in the map, and returns a change. Call it every few
    /// seconds: an ACK needs that time at most. `path` is the trunk's setting in force.
    pub fn look(&self, trunk: &str, index: u32, path: u8, counters: Counters) -> Option<Change> {
        let mut watches = self.lock();
        let new = || Watch::new(index, path, counters);
        let watch = watches.entry(trunk.to_owned()).or_insert_with(new);
        // A change of the configuration gave the trunk another path, or the counters of another trunk.
        if watch.index != index || watch.path != path || counters.all.sent < watch.last.all.sent {
            *watch = new();
        }
        watch.look(counters)
    }

    /// Notes that the daemon sends the replies to a trunk from now on, because the driver's were not acknowledged.
    pub fn note_moved(&self, trunk: &str, path: u8) {
        if let Some(watch) = self.lock().get_mut(trunk) {
            let moved = watch.bad.take();
            *watch = Watch { moved, ..Watch::new(watch.index, path, watch.last) };
        }
    }

    /// Returns the window in which the carrier did not acknowledge the replies of the driver.
    #[must_use]
    pub fn lost_by_driver(&self, trunk: &str) -> Option<Window> {
        self.lock().get(trunk)?.bad.filter(|window| window.by_driver)
    }

    /// Forgets the trunks that are not in a new configuration, and the changes of their path: a reload ends these.
    pub fn keep_only(&self, trunks: &[Trunk]) {
        let is_known = |name: &String| trunks.iter().any(|trunk| trunk.name == *name);
        self.lock().retain(|name, watch| is_known(name) && watch.moved.is_none());
    }

    /// Returns whether the daemon sends the replies to a trunk because the driver's were not acknowledged.
    #[must_use]
    pub fn is_moved(&self, trunk: &str, profile: &Profile) -> bool {
        let is_moved = |watch: &Watch| watch.moved.is_some() && watch.path == profile.reply_path;
        profile.reply_path != REPLY_PATH_AUTO && self.lock().get(trunk).is_some_and(is_moved)
    }

    /// Returns the problem of a trunk's replies; `None` if the carrier acknowledges them.
    #[must_use]
    pub fn problem(&self, trunk: &str) -> Option<String> {
        let watches = self.lock();
        let watch = watches.get(trunk)?;
        if let Some(Window { calls, acks, .. }) = watch.bad {
            let sender = if watch.moved.is_some() { " The daemon sends them now." } else { "" };
            return Some(format!(
                "trunk {trunk}: its carrier acknowledged {acks} of the last {calls} replies to refused calls.{sender} If they do \
                 not arrive, it takes the centre for dead: docs/carriers.md"
            ));
        }
        let Window { calls, acks, .. } = watch.moved?;
        Some(format!(
            "trunk {trunk}: its carrier acknowledged {acks} of the last {calls} replies of the driver, so the daemon sends \
             them. A reload or a restart ends that. If ACKs come now, set reply_path = \"daemon\" in [[trunk]] {trunk}: \
             docs/carriers.md"
        ))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Watch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The counters of one trunk, over time.
#[derive(Debug)]
struct Watch {
    index: u32,
    path: u8,
    /// Counters when the comparison began.
    start: Counters,
    /// Counters of the last look.
    last: Counters,
    bad: Option<Window>,
    /// Replies of the driver after which the daemon sends them.
    moved: Option<Window>,
}

impl Watch {
    fn new(index: u32, path: u8, counters: Counters) -> Watch {
        Watch { index, path, start: counters, last: counters, bad: None, moved: None }
    }

    fn look(&mut self, counters: Counters) -> Option<Change> {
        // Only calls that are older than one look: their ACKs had time to come.
        let (start, last) = (self.start.all, self.last.all);
        let sent = last.sent - start.sent;
        let calls = sent.saturating_sub(last.repeated - start.repeated);
        let acks = counters.all.acks.saturating_sub(start.acks).min(calls);
        let by_daemon = self.last.by_daemon.saturating_sub(self.start.by_daemon);
        let mut change = None;
        if calls >= CALLS {
            let window = Window { calls, acks, by_driver: by_daemon * 2 <= sent };
            let was_bad = self.bad.take();
            if acks * 2 < calls {
                self.bad = Some(window);
                change = was_bad.is_none().then_some(Change::Bad(window));
            } else {
                change = was_bad.map(|_| Change::Good(window));
            }
            // An ACK that was there at the last look belongs to no later call: a carrier acknowledges repeats, too.
            let acks = (start.acks + acks).max(last.acks);
            self.start = Counters { all: ReplyStats { acks, ..last }, ..self.last };
        }
        self.last = counters;
        change
    }
}

#[cfg(test)]
mod tests {
    use filter_common::abi::REPLY_PATH_DAEMON;

    use super::*;

    const AUTO: u8 = REPLY_PATH_AUTO;

    fn counters(sent: u64, acks: u64) -> Counters {
        Counters { all: ReplyStats { sent, acks, ..ReplyStats::default() }, by_daemon: 0 }
    }

    /// Looks at a trunk with these counters in turn, and returns the changes.
    fn changes(looks: &[(u64, u64)]) -> Vec<Option<Change>> {
        let path = ReplyPath::default();
        looks.iter().map(|(sent, acks)| path.look("a", 1, AUTO, counters(*sent, *acks))).collect()
    }

    // A carrier acknowledges each copy of a reply. These ACKs are not those of later calls.
    #[test]
    fn acks_of_repeats_do_not_hide_missing_ones() {
        let path = ReplyPath::default();
        let look = |sent, repeated, acks| {
            let all = ReplyStats { sent, repeated, acks, ..ReplyStats::default() };
            path.look("a", 1, AUTO, Counters { all, by_daemon: 0 })
        };
        look(0, 0, 0);
        for round in 1..=50 {
            assert_eq!(look(40 * round, 20 * round, 40 * round), None);
        }
        assert_eq!(look(2020, 1000, 2000), None);
        let changes = [2040, 2060, 2080].map(|sent| look(sent, 1000, 2000));
        assert!(
            changes.iter().flatten().any(|change| matches!(change, Change::Bad(_))),
            "{changes:?}"
        );
    }

    #[test]
    fn reload_ends_a_move_and_forgets_removed_trunks() {
        let path = ReplyPath::default();
        for trunk in ["a", "b"] {
            path.look(trunk, 1, AUTO, counters(0, 0));
            path.look(trunk, 1, AUTO, counters(20, 0));
            assert_eq!(path.look(trunk, 1, AUTO, counters(20, 0)), bad(20, 0));
            assert!(path.lost_by_driver(trunk).is_some());
            path.note_moved(trunk, REPLY_PATH_DAEMON);
            assert!(path.problem(trunk).is_some() && path.lost_by_driver(trunk).is_none());
        }
        path.look("c", 3, AUTO, counters(0, 0));
        path.keep_only(&crate::model::policy::Policy::default().trunks);
        assert!(["a", "b", "c"].iter().all(|trunk| path.problem(trunk).is_none()));
        assert!(path.lock().is_empty());
    }

    fn bad(calls: u64, acks: u64) -> Option<Change> {
        Some(Change::Bad(Window { calls, acks, by_driver: true }))
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
            let all = ReplyStats { sent, repeated, ..ReplyStats::default() };
            path.look("a", 1, AUTO, Counters { all, by_daemon: 0 })
        };
        assert_eq!([look(0, 0), look(21, 18), look(21, 18)], [None; 3], "three calls");
    }

    #[test]
    fn problem_ends_with_twenty_acknowledged_calls() {
        let path = ReplyPath::default();
        let look = |sent, acks| path.look("a", 1, AUTO, counters(sent, acks));
        assert_eq!([look(0, 0), look(20, 0), look(20, 0)], [None, None, bad(20, 0)]);
        assert!(
            path.problem("a").is_some_and(|problem| problem.contains("0 of the last 20 replies"))
        );
        assert_eq!([look(40, 0), look(60, 0)], [None; 2], "it lasts");
        assert_eq!(
            look(60, 20),
            Some(Change::Good(Window { calls: 20, acks: 20, by_driver: true }))
        );
        assert_eq!(path.problem("a"), None);
    }

    #[test]
    fn counters_of_another_trunk_are_no_problem() {
        let path = ReplyPath::default();
        assert_eq!(path.look("a", 1, AUTO, counters(0, 0)), None);
        // After a change of the configuration.
        assert_eq!(path.look("a", 2, AUTO, counters(500, 3)), None);
        assert_eq!(path.look("a", 2, AUTO, counters(500, 3)), None);
        assert_eq!(path.look("a", 1, AUTO, counters(30, 0)), None);
        assert_eq!(path.look("a", 1, AUTO, counters(30, 0)), None);
    }

    #[test]
    fn replies_that_moved_to_the_daemon_stay_there_until_the_path_changes() {
        let path = ReplyPath::default();
        let daemon = Profile { reply_path: REPLY_PATH_DAEMON, ..Profile::default() };
        let look = |reply_path, sent, by_daemon, acks| {
            let counters = Counters { by_daemon, ..counters(sent, acks) };
            path.look("a", 1, reply_path, counters)
        };
        assert_eq!([look(AUTO, 0, 0, 0), look(AUTO, 20, 0, 3)], [None, None]);
        assert_eq!(look(AUTO, 20, 0, 3), bad(20, 3));
        assert!(!path.is_moved("a", &Profile::default()));
        path.note_moved("a", REPLY_PATH_DAEMON);
        let problem = path.problem("a").expect("a problem");
        assert!(
            problem.contains("3 of the last 20 replies of the driver, so the daemon"),
            "{problem}"
        );
        // Acknowledged now. It stays, because the configuration still names the driver.
        assert_eq!(
            [look(REPLY_PATH_DAEMON, 40, 20, 23), look(REPLY_PATH_DAEMON, 40, 20, 23)],
            [None; 2]
        );
        assert!(path.is_moved("a", &daemon) && path.problem("a").is_some());
        // Not acknowledged by this way either: a finding of the daemon's replies, and no further move.
        let change = [look(REPLY_PATH_DAEMON, 60, 40, 23), look(REPLY_PATH_DAEMON, 60, 40, 23)];
        assert_eq!(change[1], Some(Change::Bad(Window { calls: 20, acks: 0, by_driver: false })));
        let problem = path.problem("a").expect("a problem");
        assert!(problem.contains("The daemon sends them now"), "{problem}");
        // A reload gives the path of the file.
        assert_eq!(look(AUTO, 60, 40, 23), None);
        assert_eq!((path.is_moved("a", &Profile::default()), path.problem("a")), (false, None));
    }
}
