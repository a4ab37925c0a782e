//! Limits the connections of a listener, and chooses which connection is closed for a new one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

/// File descriptors that the limits below are made for; whoever has fewer gets less of each.
pub(crate) const FILES: u64 = 1024;

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of all users.
    pub all: usize,
    /// Of one user.
    pub each: usize,
}

/// Of the socket of the API.
pub const API: Limits = Limits { all: 512, each: 128 };
/// Of `check_listen`; nobody can tell its users apart.
pub const CHECK: Limits = Limits { all: 192, each: 192 };
/// Of the listener for metrics.
pub const METRICS: Limits = Limits { all: 16, each: 16 };

impl Limits {
    /// What is left of them where a process may open so many files.
    pub(crate) fn within(self, files: u64) -> Limits {
        let part = |most: usize| {
            let part = most as u64 * files.min(FILES) / FILES;
            usize::try_from(part).unwrap_or(most).max(1)
        };
        Limits { all: part(self.all), each: part(self.each) }
    }
}

/// The open connections of a listener.
#[derive(Clone, Debug)]
pub struct Connections {
    limits: Limits,
    open: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    /// The number of the next connection.
    next: u64,
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    /// Whose it is; `None`: nobody can tell.
    uid: Option<u32>,
    /// Requests of it that have a slot.
    busy: usize,
    /// Since when none has.
    since: Instant,
    /// Dropped, it closes the connection.
    _close: oneshot::Sender<()>,
}

impl Connections {
    /// None yet.
    #[must_use]
    pub fn new(limits: Limits) -> Connections {
        Connections { limits, open: Arc::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a connection, and closes another where there is one too many: the one that
    /// has waited longest without a slot, of this user, or of the user with the most. What is
    /// handed out beside it ends when it is to be closed itself. `None`: all others are busy.
    #[must_use]
    pub fn open(&self, uid: Option<u32>) -> Option<(Connection, oneshot::Receiver<()>)> {
        let mut table = self.table();
        let own = table.open.values().filter(|open| open.uid == uid).count();
        if own >= self.limits.each {
            table.close_one_of(uid)?;
        } else if table.open.len() >= self.limits.all {
            let most = table.whose_are_most()?;
            table.close_one_of(most)?;
        }
        let (close, closed) = oneshot::channel();
        let number = table.next;
        table.next += 1;
        table.open.insert(number, Open { uid, busy: 0, since: Instant::now(), _close: close });
        Some((Connection { handle: Handle { number, of: self.clone() } }, closed))
    }

    /// Returns whether no connection is open.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.table().open.is_empty()
    }

    /// Closes the connection that has waited longest, of the user with the most.
    pub(crate) fn close_one(&self) {
        let mut table = self.table();
        if let Some(most) = table.whose_are_most() {
            let _ = table.close_one_of(most);
        }
    }
}

impl Table {
    fn whose_are_most(&self) -> Option<Option<u32>> {
        let mut counts = HashMap::new();
        for open in self.open.values() {
            *counts.entry(open.uid).or_insert(0_usize) += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(uid, _)| uid)
    }

    fn close_one_of(&mut self, uid: Option<u32>) -> Option<()> {
        let waiting = self.open.iter().filter(|(_, open)| open.uid == uid && open.busy == 0);
        let longest = waiting.min_by_key(|(number, open)| (open.since, **number));
        let number = *longest?.0;
        self.open.remove(&number).map(drop)
    }
}

/// A connection; dropped, it is not counted any more.
#[derive(Debug)]
pub struct Connection {
    /// What others may have of it.
    pub handle: Handle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Handle { number, of } = &self.handle;
        of.table().open.remove(number);
    }
}

/// What names a connection.
#[derive(Clone, Debug)]
pub struct Handle {
    number: u64,
    of: Connections,
}

impl Handle {
    /// Keeps the connection from being closed for another one, as long as this lives.
    #[must_use]
    pub fn busy(&self) -> Busy {
        if let Some(open) = self.of.table().open.get_mut(&self.number) {
            open.busy += 1;
        }
        Busy(self.clone())
    }
}

/// See [`Handle::busy`].
#[derive(Debug)]
pub struct Busy(Handle);

impl Drop for Busy {
    fn drop(&mut self) {
        let Handle { number, of } = &self.0;
        // The connection may have ended before what it set in motion.
        if let Some(open) = of.table().open.get_mut(number) {
            open.busy -= 1;
            open.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens a connection of a user; a receiver that tells when it is closed.
    fn open(connections: &Connections, uid: u32) -> (Connection, oneshot::Receiver<()>) {
        connections.open(Some(uid)).expect("room")
    }

    fn is_closed(closed: &mut oneshot::Receiver<()>) -> bool {
        closed.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn one_too_many_of_a_user_closes_the_one_that_waits_longest() {
        let connections = Connections::new(Limits { all: 10, each: 3 });
        let mut other = open(&connections, 1);
        let mut first = open(&connections, 2);
        let mut second = open(&connections, 2);
        let mut third = open(&connections, 2);
        let busy = second.0.handle.busy();
        // The first has been asked something since; the third has said nothing.
        drop(first.0.handle.busy());
        let mut fourth = open(&connections, 2);
        assert!(is_closed(&mut third.1));
        for open in [&mut other, &mut first, &mut second, &mut fourth] {
            assert!(!is_closed(&mut open.1));
        }
        let others = [first.0.handle.busy(), fourth.0.handle.busy()];
        assert!(connections.open(Some(2)).is_none(), "all are busy");
        drop(busy);
        let _fifth = open(&connections, 2);
        assert!(is_closed(&mut second.1));
        drop(others);
        // What ended gives its place back, and what is closed is not counted twice.
        drop((first, second, third));
        let mut sixth = open(&connections, 2);
        assert!(!is_closed(&mut fourth.1) && !is_closed(&mut sixth.1));
    }

    #[test]
    fn one_too_many_of_all_closes_one_of_the_user_with_the_most() {
        let connections = Connections::new(Limits { all: 5, each: 4 });
        let mut few: Vec<_> = (0..2).map(|_| open(&connections, 1)).collect();
        let mut many: Vec<_> = (0..3).map(|_| open(&connections, 2)).collect();
        let _new = open(&connections, 3);
        assert!(few.iter_mut().all(|open| !is_closed(&mut open.1)));
        let closed: Vec<_> = many.iter_mut().map(|open| is_closed(&mut open.1)).collect();
        assert_eq!(closed, [true, false, false]);
    }

    #[test]
    fn with_few_files_there_are_few_connections() {
        assert_eq!(API.within(1_000_000), API);
        assert_eq!(API.within(1024), API);
        assert_eq!(API.within(256), Limits { all: 128, each: 32 });
        assert_eq!(METRICS.within(1), Limits { all: 1, each: 1 });
        let all = API.all + CHECK.all + METRICS.all;
        // The rest is for the store, the maps and what is open from the start.
        assert!(all as u64 <= FILES * 3 / 4, "{all}");
    }
}
