//! INVITEs of refused attempts: whether the kernel keeps them, and for whom.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use filter_common::abi::{self, EvidenceStats};
use tokio::sync::broadcast;

use crate::datapath::{Error, EvidenceSwitch};

/// Frames that each CPU keeps in a second: far more than pranksters dial, and a fraction of what
/// the ring takes until it is looked at.
const PER_SECOND: u32 = 100;
/// Frames that wait for somebody who looks at them live and is slow, up to 2 KiB each.
pub(crate) const LIVE: usize = 1024;

/// The switch, and those who want frames.
pub struct Evidence {
    switch: EvidenceSwitch,
    pub(crate) wanted: Mutex<Wanted>,
    pub(crate) live: broadcast::Sender<Arc<abi::Evidence>>,
    /// Frames that were to be stored and are not.
    pub(crate) lost: AtomicU64,
}

/// Who wants frames.
#[derive(Default)]
pub(crate) struct Wanted {
    /// The configuration does.
    pub(crate) configured: bool,
    /// So many who look live do.
    watches: usize,
}

impl Evidence {
    /// Opens the switch in a folder of maps.
    ///
    /// # Errors
    /// A map that is missing.
    pub fn open(folder: &Path) -> Result<Evidence, Error> {
        Ok(Evidence {
            switch: EvidenceSwitch::open(folder)?,
            wanted: Mutex::default(),
            live: broadcast::Sender::new(LIVE),
            lost: AtomicU64::new(0),
        })
    }

    /// Frames are kept in the store from now on, or not.
    pub fn configure(&self, on: bool) {
        let mut wanted = self.wanted();
        wanted.configured = on;
        self.write(&wanted);
    }

    /// Keeps frames for somebody who looks live, until what it returns is dropped.
    pub fn watch(self: &Arc<Evidence>) -> Watch {
        let frames = self.live.subscribe();
        let mut wanted = self.wanted();
        wanted.watches += 1;
        self.write(&wanted);
        drop(wanted);
        Watch { evidence: Arc::clone(self), frames }
    }

    /// Ends what only those who look live wanted: nobody does without a daemon.
    pub fn stop(&self) {
        let mut wanted = self.wanted();
        wanted.watches = 0;
        self.write(&wanted);
    }

    /// Gives a frame to those who look live.
    pub fn tell(&self, frame: &abi::Evidence) {
        // Nobody may look.
        if self.live.receiver_count() > 0 {
            let _ = self.live.send(Arc::new(*frame));
        }
    }

    /// Counts frames that are not stored.
    pub fn lose(&self, frames: usize) {
        self.lost.fetch_add(frames as u64, Ordering::Relaxed);
    }

    /// What became of the frames; lost are also those that the disk did not take.
    ///
    /// # Errors
    /// A failing system call.
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
            tracing::error!("keeping INVITEs cannot be switched: {error}");
        }
    }
}

impl Wanted {
    fn is_on(&self) -> bool {
        self.configured || self.watches > 0
    }
}

/// Frames for somebody who looks live.
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
