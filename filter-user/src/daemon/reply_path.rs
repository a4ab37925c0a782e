//! Which trunks get replies to refused calls, and whether the carrier acknowledges them. A reply path that is
//! broken must not look like silence that nobody notices.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use filter_common::abi::ReplyStats;

use crate::model::policy::Policy;

/// Replies after which ACKs are compared with them.
const REPLIES: u64 = 20;
/// How long a trunk gets no replies after too few ACKs.
const SILENCE: Duration = Duration::from_secs(600);

/// The change that a look at the counters of a trunk leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The trunk gets no replies for a while: the carrier acknowledged too few.
    Off {
        /// Replies that were sent.
        sent: u64,
        /// ACKs that came for them.
        acks: u64,
    },
    /// The trunk gets replies again.
    On,
}

/// The reply paths of all trunks, by the trunk's name.
#[derive(Debug, Default)]
pub struct ReplyPath(Mutex<BTreeMap<String, Watch>>);

impl ReplyPath {
    /// Takes the present counters of a trunk. Returns the change that they lead to; the caller then writes the
    /// settings. Call it every few seconds: an ACK needs that time at most.
    pub fn look(&self, trunk: &str, counters: ReplyStats, now: Instant) -> Option<Change> {
        let mut watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watches.entry(trunk.to_owned()).or_insert_with(|| Watch::new(counters)).look(counters, now)
    }

    /// Takes the replies from trunks whose carrier does not acknowledge them.
    pub fn apply(&self, policy: &mut Policy) {
        let watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for trunk in &mut policy.trunks {
            if watches.get(&trunk.name).is_some_and(|watch| watch.off.is_some()) {
                trunk.profile.refuse = 0;
            }
        }
    }

    /// Returns why a trunk gets no replies for now; `None` if it gets them.
    #[must_use]
    pub fn problem(&self, trunk: &str) -> Option<String> {
        let watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (sent, acks, _) = watches.get(trunk)?.off?;
        Some(format!(
            "trunk {trunk}: its carrier acknowledged {acks} of {sent} replies. Refused calls end in silence, and \
             replies are tried again every {} minutes: docs/carriers.md",
            SILENCE.as_secs() / 60
        ))
    }
}

/// The counters of one trunk.
#[derive(Debug)]
struct Watch {
    /// Counters when the comparison began.
    start: ReplyStats,
    /// Counters of the last look.
    last: ReplyStats,
    /// Replies and ACKs that led to silence, and its end.
    off: Option<(u64, u64, Instant)>,
}

impl Watch {
    fn new(counters: ReplyStats) -> Watch {
        Watch { start: counters, last: counters, off: None }
    }

    fn look(&mut self, counters: ReplyStats, now: Instant) -> Option<Change> {
        if let Some((_, _, until)) = self.off {
            if now < until {
                return None;
            }
            *self = Watch::new(counters);
            return Some(Change::On);
        }
        // Only replies that are older than one look: their ACKs had time to come. Maps that were replaced count
        // from 0.
        let sent = self.last.sent.saturating_sub(self.start.sent);
        let acks = counters.acks.saturating_sub(self.start.acks).min(sent);
        if sent >= REPLIES {
            if acks * 2 < sent {
                self.off = Some((sent, acks, now + SILENCE));
                return Some(Change::Off { sent, acks });
            }
            self.start.sent = self.last.sent;
            self.start.acks += acks;
        }
        if counters.sent < self.last.sent {
            *self = Watch::new(counters);
        }
        self.last = counters;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn counters(sent: u64, acks: u64) -> ReplyStats {
        ReplyStats { sent, acks, ..ReplyStats::default() }
    }

    /// Looks at a trunk once a second with these counters, and returns the changes.
    fn changes(looks: &[(u64, u64)]) -> Vec<Option<Change>> {
        let (path, start) = (ReplyPath::default(), Instant::now());
        let looks = (0..).zip(looks);
        looks
            .map(|(second, (sent, acks))| {
                path.look("a", counters(*sent, *acks), start + SECOND * second)
            })
            .collect()
    }

    #[test]
    fn fewer_acks_than_half_of_twenty_replies_end_the_replies() {
        assert_eq!(changes(&[(7, 0), (26, 0), (26, 0)]), [None; 3], "19 replies are too few");
        let off = Some(Change::Off { sent: 20, acks: 9 });
        assert_eq!(changes(&[(7, 3), (27, 3), (40, 12)]), [None, None, off]);
        assert_eq!(changes(&[(7, 3), (27, 3), (40, 13)]), [None; 3]);
    }

    #[test]
    fn acks_of_later_replies_do_not_count_for_earlier_ones() {
        // 20 replies with 20 ACKs, then 20 without: the surplus of the first window does not help.
        let looks = [(0, 0), (20, 0), (40, 25), (40, 25), (40, 25)];
        let off = Some(Change::Off { sent: 20, acks: 5 });
        assert_eq!(changes(&looks), [None, None, None, off, None]);
    }

    #[test]
    fn replies_are_tried_again_after_ten_minutes() {
        let (path, start) = (ReplyPath::default(), Instant::now());
        let mut policy = Policy::default();
        policy.trunks[0].profile.refuse = 1;
        let look =
            |seconds: u32, sent| path.look("default", counters(sent, 0), start + SECOND * seconds);
        assert_eq!([look(0, 0), look(1, 20)], [None; 2]);
        assert_eq!(look(2, 20), Some(Change::Off { sent: 20, acks: 0 }));
        let mut silent = policy.clone();
        path.apply(&mut silent);
        assert_eq!(silent.trunks[0].profile.refuse, 0);
        assert!(path.problem("default").is_some_and(|problem| problem.contains("0 of 20 replies")));
        let look =
            |seconds: u32, sent| path.look("default", counters(sent, 0), start + SECOND * seconds);
        assert_eq!(look(601, 20), None);
        assert_eq!(look(602, 20), Some(Change::On));
        path.apply(&mut policy);
        assert_eq!(policy.trunks[0].profile.refuse, 1);
        assert_eq!(path.problem("default"), None);
    }
}
