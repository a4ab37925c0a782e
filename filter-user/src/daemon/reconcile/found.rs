//! Holds what the parts of a comparison share: the counts, and where a difference is settled.

use std::path::Path;
use std::pin::Pin;

use filter_common::abi::{RULE_DIRECT, TOMBSTONE};
use serde_json::json;

use crate::api::wire::{Persisted, Problem};
use crate::daemon::state::Control;
use crate::datapath::{Error, Maps, walk_blocks};
use crate::store::offline_journal::Note;
use crate::store::{Entry, Reader};

/// Expiries with a smaller difference are equal: the conversion between clocks is not exact.
pub(crate) const TOLERANCE: u64 = 2_000_000_000;
/// Author of changes that no user asked for.
pub(crate) const DAEMON: &str = "daemon";

/// The answer whether a change is on disk.
pub(crate) type Kept = Pin<Box<dyn Future<Output = Persisted> + Send>>;

/// The result of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Blocks in the store.
    pub blocks: u64,
    /// Entries that were written, changed or removed in a map.
    pub repaired: u64,
    /// Changes that the store got from the maps.
    pub adopted: u64,
}

impl std::ops::AddAssign for Found {
    fn add_assign(&mut self, other: Found) {
        self.blocks += other.blocks;
        self.repaired += other.repaired;
        self.adopted += other.adopted;
    }
}

/// The entries of the maps at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InMaps {
    /// Number of blocks, including ended and lifted ones.
    pub blocks: u64,
    /// The highest rule number of a block that was not lifted; 0: none. Only these are stored before
    /// they are in a map.
    pub newest_block: u64,
    /// The highest rule number of a block or an allow; 0: none.
    pub newest: u64,
}

/// Counts the entries of the maps.
///
/// # Errors
/// Returns an error if a system call fails.
pub fn in_maps(folder: &Path, maps: &Maps) -> Result<InMaps, Error> {
    let mut found = InMaps::default();
    walk_blocks(folder, u64::MAX, |_, block| {
        found.blocks += 1;
        found.newest = found.newest.max(block.rule);
        if block.expires != TOMBSTONE {
            found.newest_block = found.newest_block.max(block.rule);
        }
        Ok(())
    })?;
    let allows = maps.pass_maps().allows()?.into_iter().map(|(_, allow)| allow.rule);
    let allows = allows.filter(|rule| *rule != RULE_DIRECT);
    found.newest = allows.fold(found.newest, u64::max);
    Ok(found)
}

/// Reconciles one difference where no change can be half done: on the store's thread or, while
/// nobody else writes, on any thread. A disk that takes no writes does not prevent the start.
pub(crate) async fn settle<T: Send + 'static>(
    control: &Control,
    alone: bool,
    settle: impl FnOnce(&Reader) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    if alone {
        return control.store_handle.read(move |reader| Ok(settle(reader))).await?;
    }
    control.store_handle.write_through(move |store| settle(store.reader())).await
}

/// Adds the time of the noted action to an audit record.
pub(crate) fn noted(entry: Entry, note: Option<&Note>) -> Entry {
    match note {
        Some(note) => entry.with("done", json!(note.time)),
        None => entry,
    }
}
