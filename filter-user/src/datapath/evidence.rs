//! Frames of refused attempts: switching their keeping on and off, and taking them out.
//!
//! Not among [`Maps`](crate::datapath::Maps): those that an older program of the same layout made lack these,
//! and are read all the same.

use std::path::Path;
use std::sync::Mutex;

use aya::maps::{Array, Map, MapData, PerCpuArray, RingBuf};
use filter_common::abi::{Evidence, EvidenceStats};

use crate::datapath::error::Error;
use crate::datapath::maps::access::lock;
use crate::datapath::maps::layout::{open, typed};
use crate::datapath::raw;
use crate::datapath::raw::Raw;

/// How many frames are kept, and what became of those that should have been.
pub struct EvidenceSwitch {
    per_second: Mutex<Array<MapData, u32>>,
    stats: PerCpuArray<MapData, Raw<EvidenceStats>>,
}

impl EvidenceSwitch {
    pub(crate) fn new(
        mut take: impl FnMut(&'static str) -> Result<Map, Error>,
    ) -> Result<EvidenceSwitch, Error> {
        Ok(EvidenceSwitch {
            per_second: Mutex::new(typed(&mut take, "EVIDENCE_PER_SECOND")?),
            stats: typed(&mut take, "EVIDENCE_STATS")?,
        })
    }

    /// Opens the maps pinned in a folder.
    ///
    /// # Errors
    /// A map that is missing, or that another layout wrote.
    pub fn open(folder: &Path) -> Result<EvidenceSwitch, Error> {
        EvidenceSwitch::new(|name| open(folder, name))
    }

    /// Each CPU keeps so many frames in a second from now on; 0: none.
    ///
    /// # Errors
    /// A failing system call.
    pub fn set(&self, per_second: u32) -> Result<(), Error> {
        lock(&self.per_second)
            .set(0, per_second, 0)
            .map_err(|error| Error::map("EVIDENCE_PER_SECOND", error))
    }

    /// What became of the frames, over all CPUs.
    ///
    /// # Errors
    /// A failing system call.
    pub fn stats(&self) -> Result<EvidenceStats, Error> {
        let values = self.stats.get(&0, 0).map_err(|error| Error::map("EVIDENCE_STATS", error))?;
        Ok(values.iter().fold(EvidenceStats::default(), |sum, Raw(value)| EvidenceStats {
            kept: sum.kept + value.kept,
            lost: sum.lost + value.lost,
            limited: sum.limited + value.limited,
            ..EvidenceStats::default()
        }))
    }
}

/// The ring of frames.
pub struct EvidenceRing(RingBuf<MapData>);

impl EvidenceRing {
    pub(crate) fn new(
        mut take: impl FnMut(&'static str) -> Result<Map, Error>,
    ) -> Result<EvidenceRing, Error> {
        typed(&mut take, "EVIDENCE").map(EvidenceRing)
    }

    /// Opens the ring pinned in a folder. Frames that nobody has read yet are still in it.
    ///
    /// # Errors
    /// A ring that is missing.
    pub fn open(folder: &Path) -> Result<EvidenceRing, Error> {
        EvidenceRing::new(|name| open(folder, name))
    }

    /// Takes all frames out.
    ///
    /// # Errors
    /// A frame of another layout.
    pub fn drain(&mut self) -> Result<Vec<Evidence>, Error> {
        raw::drain(&mut self.0, usize::MAX)
    }
}
