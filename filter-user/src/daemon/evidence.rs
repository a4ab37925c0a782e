//! Switches the capture of INVITEs of refused attempts, and passes them to their readers.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use filter_common::abi::{self, EvidenceStats};
use tokio::sync::broadcast;

use crate::datapath::{Error, EvidenceSwitch};

/// Frames that each CPU keeps in a second: far more than pranksters dial, and a fraction of the
/// ring's size between two looks.
const PER_SECOND: u32 = 100;
/// Frames that wait for a slow live reader, up to 2 KiB each.
pub(crate) const LIVE: usize = 1024;

/// The switch, and the readers of frames.
pub struct Evidence {
    switch: EvidenceSwitch,
    pub(crate) wanted: Mutex<Wanted>,
    pub(crate) live: broadcast::Sender<Arc<abi::Evidence>>,
    /// Frames that should have been stored and were not.
    pub(crate) lost: AtomicU64,
}

/// The readers of frames.
#[derive(Default)]
pub(crate) struct Wanted {
    /// Whether the configuration wants frames.
    pub(crate) configured: bool,
    /// Number of live readers.
    watches: usize,
}

impl Evidence {
    /// Opens the switch in a folder of maps.
    ///
    /// # Errors
    /// Returns an error if a map is missing.
    pub fn open(folder: &Path) -> Result<Evidence, Error> {
        Ok(Evidence {
            switch: EvidenceSwitch::open(folder)?,
            wanted: Mutex::default(),
            live: broadcast::Sender::new(LIVE),
            lost: AtomicU64::new(0),
        })
    }

    /// Sets whether frames are kept in the store.
    pub fn configure(&self, on: bool) {
        let mut wanted = self.wanted();
        wanted.configured = on;
        self.write(&wanted);
    }

    /// Keeps frames for a live reader, until the result is dropped.
    pub fn watch(self: &Arc<Evidence>) -> Watch {
        let frames = self.live.subscribe();
        let mut wanted = self.wanted();
        wanted.watches += 1;
        self.write(&wanted);
        drop(wanted);
        Watch { evidence: Arc::clone(self), frames }
    }

    /// Ends the capture for live readers: a daemon that ends has no readers.
    pub fn stop(&self) {
        let mut wanted = self.wanted();
        wanted.watches = 0;
        self.write(&wanted);
    }

    /// Passes a frame to the live readers.
    pub fn publish(&self, frame: &abi::Evidence) {
        // There may be no reader.
        if self.live.receiver_count() > 0 {
            let _ = self.live.send(Arc::new(*frame));
        }
    }

    /// Counts frames that are not stored.
    pub fn lose(&self, frames: usize) {
        self.lost.fetch_add(frames as u64, Ordering::Relaxed);
    }

    /// Returns the counts of frames; the lost ones include those that the disk did not take.
    ///
    /// # Errors
    /// Returns an error if a system call fails.
    pub fn stats(&self) -> Result<EvidenceStats, Error> {
        let stats = self.switch.stats()?;
        let unstored = self.lost.load(Ordering::Relaxed);
        Ok(EvidenceStats {
            kept: stats.kept.saturating_sub(unstored),
            lost: stats.lost + unstored,
            ..stats
        })
    }

    pub(crate) fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self, wanted: &Wanted) {
        let per_second = if wanted.is_on() { PER_SECOND } else { 0 };
        if let Err(error) = self.switch.set(per_second) {
            tracing::error!(%error, "cannot switch the capture of INVITEs");
        }
    }
}

impl Wanted {
    fn is_on(&self) -> bool {
        self.configured || self.watches > 0
    }
}

/// Frames for a live reader.
pub struct Watch {
    pub(crate) evidence: Arc<Evidence>,
    /// The frames.
    pub frames: broadcast::Receiver<Arc<abi::Evidence>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut wanted = self.evidence.wanted();
        wanted.watches = wanted.watches.saturating_sub(1);
        self.evidence.write(&wanted);
    }
}
