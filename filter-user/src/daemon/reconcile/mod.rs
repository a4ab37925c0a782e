//! Compares store and maps and makes them equal, at the start and regularly.
//!
//! It works entry by entry, and never empties a map. Entries that let calls through are adopted
//! from the maps; blocks come from the store. Reading runs beside all other work; each difference
//! is then reconciled on the store's thread, where no change can be half done.

pub(crate) mod adopt_offline;
pub(crate) mod allows;
pub(crate) mod blocks;
pub(crate) mod found;
pub(crate) mod mode;
pub(crate) mod override_switch;
pub(crate) mod sweep;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use filter_common::abi::MODE_ENFORCE;

use crate::api::wire::Problem;
use crate::daemon::state::Control;
use crate::daemon::switches::{MODE, StoredMode};

pub(crate) use adopt_offline::{adopt_noted, adopt_offline};
pub use found::{Found, InMaps, in_maps};
pub(crate) use sweep::{sweep, sweep_some};

use adopt_offline::adopt_offline_as;
use blocks::compare_blocks;
use mode::mode_as;

/// Reconciles maps and store for the first time. `alone` means that nobody else writes yet, so that
/// differences can be written at once. Without a readable store the maps remain as they are.
///
/// # Errors
/// [`Problem`] of the kind `Store` if the store cannot be read or written, `Failed` if a system
/// call fails.
pub async fn at_start(control: &Arc<Control>, fresh: bool, alone: bool) -> Result<Found, Problem> {
    mode_as(control, alone, true).await?;
    let mut found = adopt_offline_as(control, alone).await?;
    let blocks = compare_blocks(control, alone).await?;
    found += blocks;
    if fresh {
        found.repaired = 0;
    }
    Ok(found)
}

/// Compares everything but the blocks while calls flow: that takes no time.
///
/// # Errors
/// [`Problem`] of the kind `Store` if the store cannot be read or written, `Failed` if a system
/// call fails.
pub async fn compare_settings(control: &Arc<Control>) -> Result<Found, Problem> {
    // Without the store: the daemon knows the settings that it put into force.
    let settings = control.reconcile_settings()?;
    let stored = control.store_handle.read(|reader| reader.state::<StoredMode>(MODE)).await?;
    let (mode, _) = control.mode_in_force(&control.order.turn())?;
    let mut found = adopt_offline(control).await?;
    let differs = stored.unwrap_or_default().enforce != (mode == MODE_ENFORCE);
    if differs && !control.held.is_held() {
        let mode = mode_as(control, false, false).await?;
        found += mode;
    }
    found.repaired += settings;
    control.drift.fetch_add(found.repaired, Ordering::Relaxed);
    Ok(found)
}

/// Compares everything while calls flow.
///
/// # Errors
/// [`Problem`] of the kind `Store` if the store cannot be read or written, `Failed` if a system
/// call fails.
pub async fn compare(control: &Arc<Control>) -> Result<Found, Problem> {
    let others = compare_settings(control).await;
    if control.held.is_held() {
        return others;
    }
    let blocks = compare_blocks(control, false).await?;
    let mut found = others?;
    control.drift.fetch_add(blocks.repaired, Ordering::Relaxed);
    found += blocks;
    Ok(found)
}
