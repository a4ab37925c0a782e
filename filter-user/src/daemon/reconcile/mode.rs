//! Makes the mode the same in the store and in the map.

use std::sync::Arc;

use filter_common::abi::{MODE_ENFORCE, MODE_OBSERVE, TOMBSTONE};

use crate::api::wire::Problem;
use crate::daemon::order::Key;
use crate::daemon::reconcile::found::{Found, Kept, settle};
use crate::daemon::state::Control;
use crate::daemon::switches::{MODE, StoredMode, keep_mode};
use crate::store::{Entry, Reader};
use crate::sys::clock;

/// Makes the mode the same in store and map.
pub(crate) async fn mode_as(
    control: &Arc<Control>,
    alone: bool,
    at_start: bool,
) -> Result<Found, Problem> {
    let worker = Arc::clone(control);
    let settled = settle(control, alone, move |reader| reconcile_mode(&worker, reader, at_start));
    let (found, kept) = settled.await?;
    if let Some(kept) = kept {
        kept.await;
    }
    Ok(found)
}

/// Puts the stored mode into the map. If the map ends enforcing sooner, the sooner end counts.
/// Observe that is in force and missing in the store is adopted. Runs in [`settle`].
fn reconcile_mode(
    control: &Control,
    store: &Reader,
    at_start: bool,
) -> Result<(Found, Option<Kept>), Problem> {
    let stored = store.state::<StoredMode>(MODE)?.unwrap_or_default();
    let mut turn = control.order.turn();
    if turn.is_unsaved(Key::Mode) {
        return Ok((Found::default(), None));
    }
    let (mode, until) = control.mode_in_force(&turn)?;
    if mode == MODE_OBSERVE && until == TOMBSTONE && stored.enforce {
        let now = clock::now();
        let adopted = StoredMode { enforce: false, since: Some(now), until: None };
        let entry = Entry::new(now, "root", "mode adopt").with("mode", "observe");
        let place = turn.places(1);
        let kept: Kept = Box::pin(keep_mode(turn, place, "mode adopt", "root", adopted, entry));
        return Ok((Found { adopted: 1, ..Found::default() }, Some(kept)));
    }
    if !at_start && stored.enforce == (mode == MODE_ENFORCE) {
        return Ok((Found::default(), None));
    }
    control.write_mode(&turn, &stored)?;
    if mode == MODE_ENFORCE && until != 0 {
        control.end_enforce(&turn, until)?;
    }
    Ok((Found { repaired: 1, ..Found::default() }, None))
}
