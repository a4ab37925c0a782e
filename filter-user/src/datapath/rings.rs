//! TODO-DOC

use crate::datapath::error::Error;
use crate::datapath::maps::layout::{open, typed};
use crate::datapath::raw;
use aya::maps::{MapData, RingBuf};
use filter_common::abi::EventEntry;
use std::path::Path;

/// The rings of events of a live filter.
pub struct Events {
    pub(crate) refused: RingBuf<MapData>,
    pub(crate) passed: RingBuf<MapData>,
}

impl Events {
    /// Opens the rings pinned in a folder. Events that nobody has read yet are still in them.
    ///
    /// # Errors
    /// A ring that is missing.
    pub fn open(folder: &Path) -> Result<Events, Error> {
        let mut take = |name| open(folder, name);
        Ok(Events {
            refused: typed(&mut take, "EVENTS_REFUSED")?,
            passed: typed(&mut take, "EVENTS_PASSED")?,
        })
    }

    /// Takes at most `limit` events out of each ring, refused attempts first.
    ///
    /// # Errors
    /// An event of another layout.
    pub fn drain(&mut self, limit: usize) -> Result<Vec<EventEntry>, Error> {
        let mut events = raw::drain(&mut self.refused, limit)?;
        events.append(&mut raw::drain(&mut self.passed, limit)?);
        Ok(events)
    }
    /// Takes all events out of both rings unread; how many refused and passed attempts they were.
    pub fn discard(&mut self) -> (u64, u64) {
        (raw::discard(&mut self.refused), raw::discard(&mut self.passed))
    }
}
