//! Makes the override the same in the store and in the map.

use filter_common::abi::TOMBSTONE;

use crate::api::wire;
use crate::api::wire::Problem;
use crate::daemon::order::Key;
use crate::daemon::reconcile::found::{Kept, noted};
use crate::daemon::state::Control;
use crate::daemon::switches::{OVERRIDE, StoredOverride, keep_override};
use crate::inspect;
use crate::store::Reader;
use crate::store::offline_journal::Note;
use crate::sys::clock;

/// The result for the override in the map.
pub(crate) enum Adopted {
    /// The store has it.
    Nothing,
    /// The store gets it, and a note names its author.
    Note(Kept),
    /// The store gets it.
    Map(Kept),
    /// It is being changed.
    NotNow,
}

/// Returns whether the store has the override with this deadline and its end. A deadline of 0 means
/// a new map without a stored override to restore.
pub(crate) fn is_known(stored: &StoredOverride, deadline: u64) -> bool {
    let is_over = inspect::live(deadline).is_none();
    match deadline {
        0 => stored.until.is_none_or(|until| until <= clock::now()),
        _ => stored.is(deadline) && (is_over || stored.ends_with(deadline)),
    }
}

/// Adopts the override of the map, unless the map never had one. Runs in [`settle`]: there the
/// store is as new as the map, unless the order knows of a later change.
pub(crate) fn reconcile_override(
    control: &Control,
    store: &Reader,
    notes: &[Note],
) -> Result<Adopted, Problem> {
    let stored = store.state::<StoredOverride>(OVERRIDE)?.unwrap_or_default();
    let note = notes.iter().rev().find(|note| note.is_override());
    let mut turn = control.order.turn();
    if turn.is_unsaved(Key::Override) {
        return Ok(Adopted::NotNow);
    }
    let deadline = control.maps.pass_maps().override_until()?;
    let until = inspect::live(deadline).map(clock::wall);
    let since = Some(clock::now());
    let (stored, entry) = if deadline == 0 {
        // The maps are new. A note is younger than the store's override.
        let Some(restored) = restore_override(control, stored, note)? else {
            return Ok(Adopted::Nothing);
        };
        let entry = note.map(|_| noted(restored.entry("override adopt"), note));
        (restored, entry)
    } else if is_known(&stored, deadline) {
        return Ok(Adopted::Nothing);
    } else if stored.is(deadline) {
        // The override is the same; the clock was set.
        (StoredOverride { until, since, ..stored }, None)
    } else {
        let adopted = StoredOverride {
            until,
            since,
            deadline: Some(deadline),
            reason: note
                .map_or_else(|| "set on the kernel's maps".into(), |note| note.reason.clone()),
            author: note.map_or_else(|| "root".into(), |note| note.author.clone()),
        };
        let entry = noted(adopted.entry("override adopt"), note);
        (adopted, Some(entry))
    };
    let place = turn.places(1);
    let is_noted = note.is_some() && entry.is_some();
    let kept: Kept = Box::pin(keep_override(turn, place, "override adopt", stored, entry));
    Ok(if is_noted { Adopted::Note(kept) } else { Adopted::Map(kept) })
}

/// Puts the override into new maps, for at most its intended time. Returns the override for the
/// store; `None`: there is no override.
fn restore_override(
    control: &Control,
    stored: StoredOverride,
    note: Option<&Note>,
) -> Result<Option<StoredOverride>, Problem> {
    let now = clock::now();
    let wanted = note.map_or(stored, |note| StoredOverride {
        until: note.until,
        since: Some(note.time),
        deadline: None,
        reason: note.reason.clone(),
        author: note.author.clone(),
    });
    let until = wanted.until.filter(|until| *until > now);
    if until.is_none() && note.is_none() {
        return Ok(None);
    }
    let mut deadline = TOMBSTONE;
    if until.is_some() {
        deadline = clock::kernel_expiry(wanted.since.unwrap_or(now), until, now);
        deadline = deadline.min(clock::deadline(wire::OVERRIDE_MAX.unsigned_abs()));
        control.maps.pass_maps().set_override(deadline)?;
    }
    Ok(Some(StoredOverride { until, deadline: Some(deadline), ..wanted }))
}
