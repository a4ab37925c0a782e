//! Reads the two rings in which the kernel reports attempts.

use std::path::Path;

use aya::maps::{MapData, RingBuf};
use filter_common::abi::EventEntry;

use crate::datapath::error::Error;
use crate::datapath::maps::layout::{open, typed};
use crate::datapath::raw;

/// The rings of events of a live filter.
pub struct Events {
    pub(crate) refused: RingBuf<MapData>,
    pub(crate) passed: RingBuf<MapData>,
}

impl Events {
    /// Opens the rings pinned in a folder. They still hold the events that no process has read.
    ///
    /// # Errors
    /// [`Error::Pin`] if a ring is missing, [`Error::Layout`] if it has another layout.
    pub fn open(folder: &Path) -> Result<Events, Error> {
        let mut take = |name| open(folder, name);
        Ok(Events {
            refused: typed(&mut take, "EVENTS_REFUSED")?,
            passed: typed(&mut take, "EVENTS_PASSED")?,
        })
    }

    /// Removes at most `limit` events from each ring and returns them, refused attempts first.
    ///
    /// # Errors
    /// [`Error::Event`] for an event of another layout.
    pub fn drain(&mut self, limit: usize) -> Result<Vec<EventEntry>, Error> {
        let mut events = raw::drain(&mut self.refused, limit)?;
        events.append(&mut raw::drain(&mut self.passed, limit)?);
        Ok(events)
    }

    /// Removes all events from both rings unread. Returns the numbers of refused and passed attempts.
    pub fn discard(&mut self) -> (u64, u64) {
        (raw::discard(&mut self.refused), raw::discard(&mut self.passed))
    }
}
