//! Adopts what root did on the maps without the daemon, with the notes that root's commands left.

use std::sync::Arc;

use serde_json::json;

use crate::api::wire::Problem;
use crate::daemon::reconcile::allows::reconcile_allows;
use crate::daemon::reconcile::found::{Found, noted, settle};
use crate::daemon::reconcile::override_switch::{Adopted, is_known, reconcile_override};
use crate::daemon::state::Control;
use crate::daemon::switches::{OVERRIDE, StoredOverride};
use crate::store::offline_journal::{Note, Notes};
use crate::store::{Entry, Store};
use crate::sys::clock;

/// Problems of notes, for the status: the notes have another form, or cannot be read.
const ODD_NOTES: &str = "some notes of offline commands are not valid and were left out";
const UNREAD_NOTES: &str = "the notes of offline commands cannot be read";

/// Adopts changes of offline commands, if a command has left a note.
///
/// # Errors
/// Those of [`adopt_offline`].
pub async fn adopt_noted(control: &Arc<Control>) -> Result<(), Problem> {
    let paths = control.config().paths.clone();
    let look = move || (Note::file(&paths).exists(), Notes::put_aside(&paths));
    let (is_there, aside) = tokio::task::spawn_blocking(look).await.unwrap_or_default();
    let aside = aside.map(|file| format!("look at {}, and delete it", file.display()));
    control.chores.note(ODD_NOTES, aside);
    if is_there {
        adopt_offline(control).await?;
    }
    Ok(())
}

/// Adopts changes of offline commands from the maps; the notes name their authors.
///
/// # Errors
/// [`Problem`] of the kind `Store` if the store cannot be read or written, `Failed` if a system
/// call fails.
pub async fn adopt_offline(control: &Arc<Control>) -> Result<Found, Problem> {
    adopt_offline_as(control, false).await
}

pub(crate) async fn adopt_offline_as(
    control: &Arc<Control>,
    alone: bool,
) -> Result<Found, Problem> {
    if control.held.is_held() {
        // Nothing is adopted before a person has decided.
        return Ok(Found::default());
    }
    let _adopting = control.adopting.lock().await;
    if control.store_handle.unsaved() > 0 {
        // The pending change reaches the store by its own way.
        return Ok(Found::default());
    }
    let paths = control.config().paths.clone();
    let file = Note::file(&paths);
    let read = tokio::task::spawn_blocking(move || Notes::read(&paths))
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let problem = read.as_ref().err().map(|error| format!("{}: {error}", file.display()));
    control.chores.note(UNREAD_NOTES, problem);
    // Their changes are adopted from the maps even without notes.
    let notes = read.unwrap_or_default();
    for (line, why) in &notes.odd {
        tracing::warn!(file = %file.display(), line, %why, "this note is not adopted");
    }
    let stored =
        control.store_handle.read(|reader| reader.state::<StoredOverride>(OVERRIDE)).await?;
    let is_known =
        is_known(&stored.unwrap_or_default(), control.maps.pass_maps().override_until()?);
    let settled = if is_known && !notes.list.iter().any(Note::is_override) {
        Adopted::Nothing
    } else {
        let (worker, list) = (Arc::clone(control), notes.list.clone());
        settle(control, alone, move |reader| reconcile_override(&worker, reader, &list)).await?
    };
    let (adopted, kept) = match settled {
        Adopted::Note(kept) => (true, Some(kept)),
        Adopted::Map(kept) => (false, Some(kept)),
        Adopted::Nothing => (false, None),
        // Tried again later: the running change reaches the store by its own way.
        Adopted::NotNow => return Ok(Found::default()),
    };
    if let Some(kept) = kept {
        let persisted = kept.await;
        tracing::warn!(?persisted, "adopted the override that the kernel's map has");
    }
    let found = reconcile_allows(control, &notes.list).await?;
    let last = notes.list.iter().rposition(Note::is_override).filter(|_| adopted);
    let others = notes.list.iter().enumerate().filter(|(index, _)| Some(*index) != last);
    let entries: Vec<_> = others.filter_map(|(_, note)| over(note)).collect();
    if !entries.is_empty() {
        let write =
            |store: &mut Store| Ok(entries.into_iter().try_for_each(|entry| store.audit(entry))?);
        control.store_handle.write_through(write).await?;
    }
    if control.store_handle.unsaved() == 0 {
        let _ = tokio::task::spawn_blocking(move || notes.remove()).await;
    }
    Ok(found)
}

/// Creates the audit record of a note that leaves nothing to adopt: a detached filter, or an
/// override that is off again.
fn over(note: &Note) -> Option<Entry> {
    let entry = |action| noted(Entry::new(clock::now(), &note.author, action), Some(note));
    match &note.interface {
        Some(interface) => Some(entry("detach adopt").with("interface", interface.as_str())),
        None if note.is_override() => {
            let entry = entry("override adopt").with("until", json!(note.until));
            Some(entry.with("reason", note.reason.as_str()))
        }
        None => None,
    }
}
