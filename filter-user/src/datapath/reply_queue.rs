//! The refused calls that the daemon answers, from user space: the ring, the heartbeat, and the counters.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use aya::maps::{Array, HashMap, Map, MapData, RingBuf};
use filter_common::abi::TRUNKS_MAX;
use filter_common::handed_over::{DaemonReplies, HandedOver};

use crate::datapath::error::Error;
use crate::datapath::maps::layout::{open, typed};
use crate::datapath::raw::Raw;

const HEARTBEAT: &str = "DAEMON_UNTIL";
const COUNTERS: &str = "DAEMON_REPLIES";
const PATHS: &str = "DAEMON_PATHS";

/// The calls in the ring. They outlive the daemon, as the ring does.
pub struct ReplyQueue(RingBuf<MapData>);

impl ReplyQueue {
    pub(crate) fn new(
        mut take: impl FnMut(&'static str) -> Result<Map, Error>,
    ) -> Result<ReplyQueue, Error> {
        typed(&mut take, "HANDED_OVER").map(ReplyQueue)
    }

    /// Opens the ring pinned in a folder.
    ///
    /// # Errors
    /// [`Error::Pin`] if it is missing, [`Error::Layout`] if it has another layout.
    pub fn open(folder: &Path) -> Result<ReplyQueue, Error> {
        ReplyQueue::new(|name| open(folder, name))
    }

    /// Removes the next call from the ring, and returns its head and its frame.
    pub fn take(&mut self) -> Option<(HandedOver, Vec<u8>)> {
        // An entry without a head would be of another program.
        loop {
            let entry = self.0.next()?;
            if let (Some(head), Some(frame)) =
                (HandedOver::read(&entry), entry.get(HandedOver::LEN..))
            {
                return Some((head, frame.to_vec()));
            }
        }
    }
}

impl AsFd for ReplyQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The heartbeat of the daemon that sends replies.
pub struct Heartbeat(Array<MapData, u64>);

impl Heartbeat {
    pub(crate) fn new(
        mut take: impl FnMut(&'static str) -> Result<Map, Error>,
    ) -> Result<Heartbeat, Error> {
        typed(&mut take, HEARTBEAT).map(Heartbeat)
    }

    /// Opens the map pinned in a folder.
    ///
    /// # Errors
    /// [`Error::Pin`] if it is missing, [`Error::Layout`] if it has another layout.
    pub fn open(folder: &Path) -> Result<Heartbeat, Error> {
        Heartbeat::new(|name| open(folder, name))
    }

    /// Lets the kernel hand calls over until this time in ns of the boot clock; 0: none from now on.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn set(&mut self, until: u64) -> Result<(), Error> {
        self.0.set(0, until, 0).map_err(|error| Error::map(HEARTBEAT, error))
    }

    /// Returns until when the kernel hands calls over.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn get(&self) -> Result<u64, Error> {
        self.0.get(&0, 0).map_err(|error| Error::map(HEARTBEAT, error))
    }
}

/// The outcomes of the calls that were handed over. Only the daemon writes them.
pub struct DaemonReplyCounters(Array<MapData, Raw<DaemonReplies>>);

impl DaemonReplyCounters {
    pub(crate) fn new(
        mut take: impl FnMut(&'static str) -> Result<Map, Error>,
    ) -> Result<DaemonReplyCounters, Error> {
        typed(&mut take, COUNTERS).map(DaemonReplyCounters)
    }

    /// Opens the counters pinned in a folder.
    ///
    /// # Errors
    /// [`Error::Pin`] if the map is missing, [`Error::Layout`] if it has another layout.
    pub fn open(folder: &Path) -> Result<DaemonReplyCounters, Error> {
        DaemonReplyCounters::new(|name| open(folder, name))
    }

    /// Returns the counters of a trunk.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails or there is no such trunk.
    pub fn get(&self, trunk: u32) -> Result<DaemonReplies, Error> {
        let value = self.0.get(&trunk, 0).map_err(|error| Error::map(COUNTERS, error))?;
        Ok(value.0)
    }

    /// Replaces the counters of a trunk.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails or there is no such trunk.
    pub fn set(&mut self, trunk: u32, counters: DaemonReplies) -> Result<(), Error> {
        debug_assert!(trunk < TRUNKS_MAX);
        self.0.set(trunk, Raw(counters), 0).map_err(|error| Error::map(COUNTERS, error))
    }
}

/// The interfaces whose calls the daemon answers.
pub struct DaemonPaths(HashMap<MapData, u32, u32>);

impl DaemonPaths {
    pub(crate) fn new(
        mut take: impl FnMut(&'static str) -> Result<Map, Error>,
    ) -> Result<DaemonPaths, Error> {
        typed(&mut take, PATHS).map(DaemonPaths)
    }

    /// Opens the map pinned in a folder.
    ///
    /// # Errors
    /// [`Error::Pin`] if it is missing, [`Error::Layout`] if it has another layout.
    pub fn open(folder: &Path) -> Result<DaemonPaths, Error> {
        DaemonPaths::new(|name| open(folder, name))
    }

    /// Writes the indexes of these interfaces, and removes all others.
    ///
    /// # Errors
    /// [`Error::Map`] if a system call fails.
    pub fn set(&mut self, interfaces: &[u32]) -> Result<(), Error> {
        let failed = |error| Error::map(PATHS, error);
        let there: Vec<u32> = self.0.keys().collect::<Result<_, _>>().map_err(failed)?;
        for index in interfaces.iter().filter(|index| !there.contains(index)) {
            self.0.insert(index, 1, 0).map_err(failed)?;
        }
        for index in there.iter().filter(|index| !interfaces.contains(index)) {
            self.0.remove(index).map_err(failed)?;
        }
        Ok(())
    }
}
