//! Limits the connections of a listener, and chooses which connection is closed for a new one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

/// Number of file descriptors that the limits below assume. With fewer, each limit shrinks in
/// proportion.
pub(crate) const FILES: u64 = 1024;

/// Limits for open connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of all users.
    pub all: usize,
    /// Of one user.
    pub each: usize,
}

/// Of the socket of the API.
pub const API: Limits = Limits { all: 512, each: 128 };
/// Of `check_listen`; its users cannot be distinguished.
pub const CHECK: Limits = Limits { all: 192, each: 192 };
/// Of the listener for metrics.
pub const METRICS: Limits = Limits { all: 16, each: 16 };

impl Limits {
    /// Scales the limits to the number of files that the process may open.
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
    /// User at the other end; `None`: not known.
    uid: Option<u32>,
    /// Number of its requests that have a slot.
    busy: usize,
    /// Time since which none has a slot.
    since: Instant,
    /// Closes the connection when it is dropped.
    _close: oneshot::Sender<()>,
}

impl Connections {
    /// Creates a table without connections.
    #[must_use]
    pub fn new(limits: Limits) -> Connections {
        Connections { limits, open: Arc::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a connection. If there are too many, it closes one without a slot. It chooses the one
    /// that waits longest, of this user or of the user with the most. The receiver ends when this
    /// connection is to be closed. Returns `None` if all others are busy.
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

/// A registered connection. It is removed from the table when it is dropped.
#[derive(Debug)]
pub struct Connection {
    /// Its handle, for the requests on it.
    pub handle: Handle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Handle { number, of } = &self.handle;
        of.table().open.remove(number);
    }
}

/// Identifies a connection.
#[derive(Clone, Debug)]
pub struct Handle {
    number: u64,
    of: Connections,
}

impl Handle {
    /// Keeps the connection open while the result lives.
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
        // The connection may have ended before the work that it started.
        if let Some(open) = of.table().open.get_mut(number) {
            open.busy -= 1;
            open.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens a connection of a user, with a receiver that ends when the connection is closed.
    fn open(connections: &Connections, uid: u32) -> (Connection, oneshot::Receiver<()>) {
        connections.open(Some(uid)).expect("room")
    }

    fn is_closed(closed: &mut oneshot::Receiver<()>) -> bool {
        closed.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn connection_above_the_user_s_limit_closes_the_longest_waiting_one() {
        let connections = Connections::new(Limits { all: 10, each: 3 });
        let mut other = open(&connections, 1);
        let mut first = open(&connections, 2);
        let mut second = open(&connections, 2);
        let mut third = open(&connections, 2);
        let busy = second.0.handle.busy();
        // The first was used since; the third was never used.
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
        // An ended connection gives its place back, and a closed one is not counted twice.
        drop((first, second, third));
        let mut sixth = open(&connections, 2);
        assert!(!is_closed(&mut fourth.1) && !is_closed(&mut sixth.1));
    }

    #[test]
    fn connection_above_the_total_limit_closes_one_of_the_user_with_the_most() {
        let connections = Connections::new(Limits { all: 5, each: 4 });
        let mut few: Vec<_> = (0..2).map(|_| open(&connections, 1)).collect();
        let mut many: Vec<_> = (0..3).map(|_| open(&connections, 2)).collect();
        let _new = open(&connections, 3);
        assert!(few.iter_mut().all(|open| !is_closed(&mut open.1)));
        let closed: Vec<_> = many.iter_mut().map(|open| is_closed(&mut open.1)).collect();
        assert_eq!(closed, [true, false, false]);
    }

    #[test]
    fn limits_with_few_files_are_lower() {
        assert_eq!(API.within(1_000_000), API);
        assert_eq!(API.within(1024), API);
        assert_eq!(API.within(256), Limits { all: 128, each: 32 });
        assert_eq!(METRICS.within(1), Limits { all: 1, each: 1 });
        let all = API.all + CHECK.all + METRICS.all;
        // The rest is for the store, the maps and what is open from the start.
        assert!(all as u64 <= FILES * 3 / 4, "{all}");
    }
}
