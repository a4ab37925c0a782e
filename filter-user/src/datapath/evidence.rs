//! Frames of refused attempts: switches their storage on and off, and reads them.
//!
//! They are not part of [`Maps`](crate::datapath::Maps). The maps of an older program of the same
//! layout lack the maps of frames, and can still be read.

use std::path::Path;
use std::sync::Mutex;

use aya::maps::{Array, Map, MapData, PerCpuArray, RingBuf};
use filter_common::abi::{Evidence, EvidenceStats};

use crate::datapath::error::Error;
use crate::datapath::maps::access::lock;
use crate::datapath::maps::layout::{open, typed};
use crate::datapath::raw;
use crate::datapath::raw::Raw;

/// The number of frames to keep, and counts of those that were kept or lost.
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
    /// [`Error::Pin`] if a map is missing, [`Error::Layout`] if it has another layout.
    pub fn open(folder: &Path) -> Result<EvidenceSwitch, Error> {
        EvidenceSwitch::new(|name| open(folder, name))
    }

    /// Sets the number of frames that each CPU keeps in a second; 0 keeps no frame.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn set(&self, per_second: u32) -> Result<(), Error> {
        lock(&self.per_second)
            .set(0, per_second, 0)
            .map_err(|error| Error::map("EVIDENCE_PER_SECOND", error))
    }

    /// Returns the counts of kept, lost and limited frames, over all CPUs.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
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

    /// Opens the ring pinned in a folder. It still holds the frames that no process has read.
    ///
    /// # Errors
    /// [`Error::Pin`] if the ring is missing, [`Error::Layout`] if it has another layout.
    pub fn open(folder: &Path) -> Result<EvidenceRing, Error> {
        EvidenceRing::new(|name| open(folder, name))
    }

    /// Removes all frames from the ring and returns them.
    ///
    /// # Errors
    /// [`Error::Event`] for a frame of another layout.
    pub fn drain(&mut self) -> Result<Vec<Evidence>, Error> {
        raw::drain(&mut self.0, usize::MAX)
    }
}
