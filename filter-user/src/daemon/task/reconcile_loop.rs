//! Reconciles store and maps at the start, and compares them regularly.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::api::wire::Problem;
use crate::daemon::adoption;
use crate::daemon::reconcile;
use crate::daemon::reconcile::InMaps;
use crate::daemon::state::Control;
use crate::sys::clock;

/// Within this time a comparison heals what somebody changed without the daemon.
const HEALS: Duration = Duration::from_secs(60);

/// Time between two comparisons of everything but the blocks.
const COMPARE: Duration = Duration::from_secs(15);

/// Least time between two comparisons of the blocks, of which there may be a million.
const COMPARE_BLOCKS: Duration = Duration::from_secs(15);

/// How soon a first comparison that failed is tried again.
pub(crate) const AGAIN: Duration = Duration::from_secs(5);

/// A start that fails is tried again for at most this share of the time.
const AGAIN_SHARE: u32 = 30;

/// How long the start waits for the disk.
const DISK: Duration = Duration::from_secs(5);

pub(crate) const NOTES: &str = "changes of offline commands are not adopted";

/// Reconciles store and maps for the first time. Returns `false` if the store cannot be read: the
/// maps remain as they are, and the caller tries again.
pub(crate) async fn initial_reconcile(
    control: &Arc<Control>,
    in_maps: InMaps,
    fresh: bool,
    alone: bool,
) -> bool {
    if alone {
        // A full disk answers at once; a disk that hangs would hold up everything.
        let commit = control.store_handle.write_through(|store| Ok(store.seen(clock::now())?));
        if tokio::time::timeout(DISK, commit).await.is_err() {
            tracing::error!(
                "the disk does not answer: the maps remain unchanged; look at the disk"
            );
            return false;
        }
    }
    let reconciled = async {
        if adoption::look(control, in_maps).await? {
            return Ok(None);
        }
        let found = reconcile::at_start(control, fresh, alone).await?;
        adoption::note_followed(control).await?;
        Ok::<_, Problem>(Some(found))
    };
    match reconciled.await {
        Ok(None) => {
            control.note_comparison(None);
            true
        }
        Ok(Some(found)) => {
            control.drift.fetch_add(found.repaired, Ordering::Relaxed);
            tracing::info!(
                blocks = found.blocks,
                repaired = found.repaired,
                adopted = found.adopted,
                "store and kernel maps are in sync"
            );
            control.note_comparison(None);
            true
        }
        Err(problem) => {
            control.note_comparison(Some(problem.message));
            false
        }
    }
}

/// Compares store and maps regularly, and on request.
pub(crate) async fn keep_in_sync(
    control: Arc<Control>,
    in_maps: InMaps,
    fresh: bool,
    mut started: bool,
    asked: Arc<Notify>,
) {
    let mut pause = AGAIN;
    while !started {
        tokio::time::sleep(pause).await;
        let begun = Instant::now();
        started = initial_reconcile(&control, in_maps, fresh, false).await;
        pause = AGAIN.max(begun.elapsed() * AGAIN_SHARE);
    }
    let mut due = Instant::now() + HEALS - COMPARE;
    let mut of_blocks = None;
    loop {
        let is_asked = tokio::time::timeout(COMPARE, asked.notified()).await.is_ok();
        let begun = Instant::now();
        let is_due = is_asked || begun >= due;
        let compared = match is_due {
            true => reconcile::compare(&control).await,
            false => reconcile::compare_settings(&control).await,
        };
        if let Ok(found) = &compared
            && found.repaired + found.adopted > 0
        {
            tracing::warn!(
                repaired = found.repaired,
                adopted = found.adopted,
                "store and kernel maps differed"
            );
        }
        let problem = compared.err().map(|problem| problem.message);
        if is_due {
            of_blocks.clone_from(&problem);
            let took = begun.elapsed();
            // Changes during a comparison may only be found by the next one.
            due = Instant::now() + HEALS.saturating_sub(COMPARE + 2 * took).max(COMPARE_BLOCKS);
            if is_asked {
                tracing::info!(?took, "store and maps were compared");
            }
        }
        control.note_comparison(problem.or_else(|| of_blocks.clone()));
    }
}
