//! Counts which of the attempts that the kernel judged have a record.
//!
//! Lost attempts are not counted where they are lost. There are too many such places, and each new
//! one would need a counter of its own. An attempt is lost if it was taken from the kernel's rings
//! and neither has a record, nor waits for one, nor was thinned.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use filter_common::abi::EventStats;

use crate::api::wire;
use crate::datapath::{self, EVENT_BYTES, Positions};
use crate::model::per_ring::PerRing;
use crate::store::Account;

/// Time after the last thinned refusal until a flood is over.
const FLOOD: Duration = Duration::from_secs(60);

/// The account as it is now, for everybody who asks.
pub struct Accounts {
    positions: Positions,
    /// Events that were taken from the rings before this daemon started.
    taken_before: PerRing,
    now: Mutex<Now>,
}

/// The account at a moment of the recorder's.
#[derive(Clone, Debug, Default)]
pub struct Now {
    /// The account as it is stored.
    pub account: Account,
    /// Attempts that wait to be stored.
    pub waiting: PerRing,
    /// Refusals that are only counted and not stored yet, by trunk.
    pub thinned: BTreeMap<String, u64>,
    /// When a refusal was last thinned.
    pub thinned_at: Option<Instant>,
    /// Events that were ever taken from the rings.
    pub taken: PerRing,
}

impl Accounts {
    /// Opens the positions of the rings in a folder of maps of this layout.
    ///
    /// # Errors
    /// A ring that is missing.
    pub fn open(folder: &Path) -> Result<Accounts, datapath::Error> {
        let positions = Positions::open(folder)?;
        let taken_before = positions.taken(EVENT_BYTES);
        let accounts = Accounts { positions, taken_before, now: Mutex::default() };
        let (account, taken) = (accounts.go_on(None, &[]), taken_before);
        accounts.set(Now { account, taken, ..Now::default() });
        Ok(accounts)
    }

    /// Returns the account to go on with: the store's, with the attempts of the rings before these.
    /// Where the store has no account of them, counting begins with this daemon: the machine was
    /// started again, or the store is another one.
    #[must_use]
    pub fn go_on(&self, stored: Option<Account>, left: &[Left]) -> Account {
        go_on(stored, self.positions.rings(), self.taken_before, left)
    }

    /// Returns the events that were ever taken from the rings.
    #[must_use]
    pub fn taken(&self) -> PerRing {
        self.positions.taken(EVENT_BYTES)
    }

    /// Replaces the account by a newer one.
    pub fn set(&self, now: Now) {
        *self.lock() = now;
    }

    /// Returns which attempts have a record; `kernel` are those that the kernel put into no ring.
    #[must_use]
    pub fn attempts(&self, kernel: EventStats) -> wire::Attempts {
        let now = self.lock().clone();
        // Read after `now` was made, so never less than it.
        now.attempts(kernel, self.positions.made(EVENT_BYTES))
    }

    /// Returns whether a refusal was thinned in the last minute.
    #[must_use]
    pub fn is_flood(&self) -> bool {
        self.lock().thinned_at.is_some_and(|at| at.elapsed() < FLOOD)
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
    fn attempts(self, kernel: EventStats, made: PerRing) -> wire::Attempts {
        let Account { before, recorded, thinned, .. } = self.account;
        let mut by_trunk = thinned;
        for (trunk, count) in self.thinned {
            *by_trunk.entry(trunk).or_default() += count;
        }
        let thinned = by_trunk.values().sum();
        let mut taken = before;
        taken += self.taken;
        let mut kept = recorded;
        kept += self.waiting;
        kept.add(true, thinned);
        let lost = taken.without(kept);
        let of = |before: u64, made: u64, recorded: u64, thinned: u64, lost: u64, unsent: u64| {
            let judged = before + made + unsent;
            let waiting = judged.saturating_sub(recorded + thinned + lost);
            wire::Records { judged, recorded, waiting, thinned, lost }
        };
        let EventStats { refused_lost, passed_lost, passed_thinned, .. } = kernel;
        wire::Attempts {
            refused: of(
                before.refused,
                made.refused,
                recorded.refused,
                thinned,
                lost.refused + refused_lost,
                refused_lost,
            ),
            passed: of(
                before.passed,
                made.passed,
                recorded.passed,
                passed_thinned,
                lost.passed + passed_lost,
                passed_lost + passed_thinned,
            ),
            thinned: by_trunk,
        }
    }
}

/// Rings of maps that judge no more, after an upgrade: nothing comes into them any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Names them.
    pub rings: String,
    /// Bytes that were ever taken from them.
    pub taken_bytes: PerRing,
    /// Events that were taken from them just now.
    pub drained: PerRing,
    /// Attempts that the kernel put into no ring: that was full, or the kernel thinned them.
    pub unsent: PerRing,
}

fn go_on(stored: Option<Account>, rings: &str, taken_before: PerRing, left: &[Left]) -> Account {
    let is_known = |account: &Account| {
        account.rings == rings || left.iter().any(|left| left.rings == account.rings)
    };
    let begun = || Account { recorded: taken_before, ..Account::default() };
    let mut account = stored.filter(is_known).unwrap_or_else(begun);
    for left in left {
        if left.rings == account.rings {
            let bytes = account.event_bytes.max(1);
            account.before.add(true, left.taken_bytes.refused / bytes);
            account.before.add(false, left.taken_bytes.passed / bytes);
            account.before += left.unsent;
        } else {
            account.before += left.drained;
        }
    }
    Account { rings: rings.to_owned(), event_bytes: EVENT_BYTES, ..account }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(refused: u64, passed: u64) -> PerRing {
        PerRing { refused, passed }
    }

    fn account(rings: &str, recorded: PerRing) -> Account {
        Account { rings: rings.into(), event_bytes: 100, recorded, ..Account::default() }
    }

    #[test]
    fn attempt_without_a_place_is_lost() {
        let account = Account {
            before: both(10, 20),
            thinned: [("telkom".into(), 5)].into(),
            ..account("a", both(60, 100))
        };
        let now = Now {
            account,
            waiting: both(7, 3),
            thinned: [("telkom".into(), 1), ("xl".into(), 2)].into(),
            taken: both(90, 90),
            thinned_at: None,
        };
        let kernel = EventStats {
            refused_lost: 4,
            passed_lost: 2,
            passed_thinned: 30,
            ..EventStats::default()
        };
        let found = now.attempts(kernel, both(93, 91));
        let thinned = [("telkom".to_owned(), 6), ("xl".to_owned(), 2)].into();
        assert_eq!(found.thinned, thinned);
        // Taken: 10 + 90; of these 60 are recorded, 8 thinned, 7 wait.
        let refused =
            wire::Records { judged: 107, recorded: 60, waiting: 10, thinned: 8, lost: 25 + 4 };
        let passed =
            wire::Records { judged: 143, recorded: 100, waiting: 4, thinned: 30, lost: 7 + 2 };
        assert_eq!((found.refused, found.passed), (refused, passed));
    }

    #[test]
    fn attempt_that_a_killed_daemon_took_is_lost() {
        let stored = account("a", both(60, 100));
        let account = go_on(Some(stored), "a", both(75, 100), &[]);
        assert_eq!((account.recorded, account.before), (both(60, 100), both(0, 0)));
        let now = Now { account, taken: both(75, 100), ..Now::default() };
        assert_eq!(now.attempts(EventStats::default(), both(75, 100)).refused.lost, 15);
    }

    #[test]
    fn counts_start_again_with_other_rings() {
        for stored in [None, Some(account("before the restart", both(60, 100)))] {
            let account = go_on(stored, "a", both(75, 100), &[]);
            assert_eq!((account.recorded, account.before), (both(75, 100), both(0, 0)));
            assert_eq!((account.rings.as_str(), account.event_bytes), ("a", EVENT_BYTES));
        }
    }

    #[test]
    fn upgrade_takes_over_the_counts_of_old_rings() {
        let old = Left {
            rings: "old".into(),
            taken_bytes: both(7500, 10_000),
            drained: both(3, 4),
            unsent: both(2, 1),
        };
        let forgotten = Left { rings: "older".into(), drained: both(1, 1), ..old.clone() };
        let left = [old, forgotten];
        let account = go_on(Some(account("old", both(60, 100))), "new", both(0, 0), &left);
        assert_eq!(account.recorded, both(60, 100));
        assert_eq!(account.before, both(75 + 2 + 1, 100 + 1 + 1));
        let again = go_on(Some(account.clone()), "new", both(0, 0), &[]);
        assert_eq!(again, account);
        // A store that knows nothing of the old rings: the events left in them have records to come.
        let account = go_on(None, "new", both(0, 0), &left);
        assert_eq!((account.recorded, account.before), (both(0, 0), both(4, 5)));
    }
}
