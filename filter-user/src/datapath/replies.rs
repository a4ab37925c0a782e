//! The replies to refused calls, from user space: pins of the programs that answer, keys, and counters.

use std::fs;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData, PerCpuArray};
use filter_common::abi::{Keys, ReplyStats, TRUNKS_MAX};
use filter_common::handed_over::DaemonReplies;

use crate::datapath::attach::Filter;
use crate::datapath::error::Error;
use crate::datapath::maps::layout::{open, typed};
use crate::datapath::pins::{Pins, linked_program, names, remove_pin};
use crate::datapath::raw::Raw;
use crate::datapath::reply_queue::DaemonReplyCounters;

impl Pins {
    /// Returns the new pin of the programs that answer for the program with this ID. Removes the pins of
    /// programs that are on no interface.
    pub(crate) fn new_reply_programs(&self, program: u32) -> Result<PathBuf, Error> {
        let folder = self.folder().join("next");
        fs::create_dir_all(&folder).map_err(|error| Error::pin(&folder, error))?;
        // Only links are asked: listing all programs would need CAP_SYS_ADMIN.
        let attached =
            self.links().into_iter().map(|interface| linked_program(&self.link(&interface)));
        let attached: Vec<_> = attached.flatten().map(|id| id.to_string()).collect();
        for name in names(&folder).into_iter().filter(|name| !attached.contains(name)) {
            remove_pin(&folder.join(name))?;
        }
        let path = folder.join(program.to_string());
        // An ID is used again after 2^31 programs.
        remove_pin(&path)?;
        Ok(path)
    }
}

impl Filter {
    /// Returns why this kernel answers no refused call; `None` if it does.
    #[must_use]
    pub fn no_replies(&self) -> Option<&str> {
        self.gate.no_replies()
    }
}

/// The keys of the tags in replies, in the maps of a live filter.
pub struct ReplyKeys(Array<MapData, Raw<Keys>>);

impl ReplyKeys {
    /// Opens the keys in a folder of pinned maps.
    ///
    /// # Errors
    /// [`Error::Pin`] if the map is missing, [`Error::Layout`] if it has another layout.
    pub fn open(folder: &Path) -> Result<ReplyKeys, Error> {
        Array::try_from(open(folder, NAME)?).map(ReplyKeys).map_err(failed)
    }

    /// Returns the keys in force; all zero before the first ones.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn get(&self) -> Result<Keys, Error> {
        Ok(self.0.get(&0, 0).map_err(failed)?.0)
    }

    /// Writes the first keys.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn begin(&mut self, keys: [[u64; 2]; 2]) -> Result<(), Error> {
        self.0.set(0, Raw(Keys { keys, newest: 0, older_until: 0 }), 0).map_err(failed)
    }

    /// Takes the keys from the maps of another version or capacity, unless it has keys already. The ACKs for replies
    /// with these keys are still to come.
    ///
    /// # Errors
    /// [`Error::Layout`] if they have another layout, [`Error::Map`] if a system call fails.
    pub fn carry_over(&mut self, from: &Path) -> Result<(), Error> {
        if self.get()?.are_set() || !from.join(NAME).exists() {
            return Ok(());
        }
        let old = ReplyKeys::open(from)?.get()?;
        self.0.set(0, Raw(old), 0).map_err(failed)
    }

    /// Replaces the older key by a new one, which new tags are then made with. Tags of the other key are valid
    /// until `older_until`. The new key is there before any tag is made with it.
    ///
    /// # Errors
    /// [`Error::Map`] if a system call fails.
    pub fn rotate(&mut self, key: [u64; 2], older_until: u64) -> Result<(), Error> {
        let mut keys = self.get()?;
        let newest = 1 - (keys.newest & 1);
        keys.keys[newest as usize] = key;
        self.0.set(0, Raw(keys), 0).map_err(failed)?;
        let keys = Keys { newest, older_until, ..keys };
        self.0.set(0, Raw(keys), 0).map_err(failed)
    }
}

const NAME: &str = "REPLY_KEYS";

fn failed(error: aya::maps::MapError) -> Error {
    Error::map(NAME, error)
}

/// Counters of replies, in the maps of a live filter or of a replay.
pub struct ReplyCounters {
    kernel: PerCpuArray<MapData, Raw<ReplyStats>>,
    daemon: DaemonReplyCounters,
}

impl ReplyCounters {
    /// Opens the counters in a folder of pinned maps.
    ///
    /// # Errors
    /// [`Error::Pin`] if the map is missing, [`Error::Layout`] if it has another layout.
    pub fn open(folder: &Path) -> Result<ReplyCounters, Error> {
        ReplyCounters::new(|name| open(folder, name))
    }

    pub(crate) fn new(
        mut take: impl FnMut(&'static str) -> Result<Map, Error>,
    ) -> Result<ReplyCounters, Error> {
        let kernel = typed(&mut take, "REPLY_STATS")?;
        Ok(ReplyCounters { kernel, daemon: DaemonReplyCounters::new(take)? })
    }

    /// Returns the counts of the daemon for a trunk.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails or there is no such trunk.
    pub fn by_daemon(&self, trunk: u32) -> Result<DaemonReplies, Error> {
        self.daemon.get(trunk)
    }

    /// Returns the replies to refused calls of a trunk, over all CPUs, with those that the daemon sent.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails or there is no such trunk.
    pub fn of_both(&self, trunk: u32) -> Result<ReplyStats, Error> {
        let (kernel, daemon) = (self.get(trunk)?, self.by_daemon(trunk)?);
        Ok(ReplyStats {
            sent: kernel.sent + daemon.sent,
            repeated: kernel.repeated + daemon.repeated,
            damaged: kernel.damaged + daemon.damaged,
            impossible: kernel.impossible + daemon.impossible,
            ..kernel
        })
    }

    /// Returns what the kernel counted for a trunk, over all CPUs.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails or there is no such trunk.
    pub fn get(&self, trunk: u32) -> Result<ReplyStats, Error> {
        debug_assert!(trunk < TRUNKS_MAX);
        let values =
            self.kernel.get(&trunk, 0).map_err(|error| Error::map("REPLY_STATS", error))?;
        let mut sum = ReplyStats::default();
        for Raw(stats) in values.iter() {
            sum.sent += stats.sent;
            sum.repeated += stats.repeated;
            sum.acks += stats.acks;
            sum.limited += stats.limited;
            sum.damaged += stats.damaged;
            sum.impossible += stats.impossible;
            sum.without_daemon += stats.without_daemon;
            sum.lost += stats.lost;
        }
        Ok(sum)
    }
}
