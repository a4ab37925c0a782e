//! Makes the blocks the same in the store and in the maps.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use filter_common::abi::{self, TOMBSTONE};
use serde_json::json;

use crate::api::wire::{Problem, ProblemKind};
use crate::daemon::order::Key;
use crate::daemon::reconcile::found::{DAEMON, Found, TOLERANCE};
use crate::daemon::state::Control;
use crate::datapath::{Error, walk_blocks};
use crate::model::policy::Subject;
use crate::store::{Decision, Entry, Kind, Store};
use crate::sys::clock;

/// Number of entries after which a running comparison pauses for others.
const SLICE: u64 = 1000;
const PAUSE: Duration = Duration::from_millis(2);

/// Compares all blocks.
pub(crate) async fn compare_blocks(control: &Arc<Control>, alone: bool) -> Result<Found, Problem> {
    let worker = Arc::clone(control);
    let (mut found, doubtful) = control
        .store_handle
        .read(move |reader| {
            let mut found = Found::default();
            let mut doubtful = Vec::new();
            let mut seen = HashSet::new();
            let mut failed = None;
            reader.for_each(Kind::Block, |decision| {
                found.blocks += 1;
                seen.insert(decision.subject);
                if !alone && found.blocks.is_multiple_of(SLICE) {
                    std::thread::sleep(PAUSE);
                }
                match difference(&worker, &decision) {
                    Ok(Difference::None) => {}
                    Ok(Difference::Write(block)) if alone => {
                        let _turn = worker.order.turn();
                        match worker.maps.set_block(decision.subject, block) {
                            Ok(()) => found.repaired += 1,
                            // There may be room after unstored blocks are removed.
                            Err(error) if error.is_full() => doubtful.push(decision.subject),
                            Err(error) => failed = Some(error),
                        }
                    }
                    Ok(Difference::Configured(block)) if alone => {
                        let _turn = worker.order.turn();
                        failed = worker.maps.set_block(decision.subject, block).err();
                    }
                    Ok(
                        Difference::Write(_) | Difference::Configured(_) | Difference::Lifted(_),
                    ) => {
                        doubtful.push(decision.subject);
                    }
                    Err(error) => failed = Some(error),
                }
                if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            let limit = 3 * u64::from(worker.config().blocks);
            let mut steps = 0;
            let walked = failed.map_or(Ok(()), Err).and_then(|()| {
                walk_blocks(&worker.folder, limit, |subject, _| {
                    steps += 1;
                    if !alone && u64::is_multiple_of(steps, SLICE) {
                        std::thread::sleep(PAUSE);
                    }
                    if !seen.contains(&subject) {
                        doubtful.push(subject);
                    }
                    Ok(())
                })
            });
            Ok(walked.map(|()| (found, doubtful)))
        })
        .await?
        .map_err(|error: Error| Problem::from(error))?;
    // Unstored blocks come last in the list, and are removed first.
    for subject in doubtful.into_iter().rev() {
        let worker = Arc::clone(control);
        let done = control
            .store_handle
            .write_through(move |store| reconcile_block(&worker, store, subject))
            .await;
        let one = done.map_err(|problem| match problem.kind {
            ProblemKind::Full => {
                let (blocks, room) = (found.blocks, control.config().blocks);
                let message = format!(
                    "{blocks} blocks are stored, and not all fit: raise [limits] blocks = {room}, \
                     and restart the daemon"
                );
                Problem { message, ..problem }
            }
            ProblemKind::Usage
            | ProblemKind::Refused
            | ProblemKind::NotFound
            | ProblemKind::Superseded
            | ProblemKind::Failed
            | ProblemKind::Store
            | ProblemKind::Busy
            | ProblemKind::Overloaded => problem,
        })?;
        found += one;
    }
    Ok(found)
}

/// The difference between the map and a stored block.
enum Difference {
    None,
    /// The map needs this entry.
    Write(abi::Block),
    /// Only `[redial]` differs, because it was configured again: not an error that was repaired.
    Configured(abi::Block),
    /// The map ended the block at this place of the order, and the store does not know it.
    Lifted(u64),
}

fn difference(control: &Control, decision: &Decision) -> Result<Difference, Error> {
    let mut wanted = control.block_entry(decision);
    let Some(found) = control.maps.block(decision.subject)? else {
        return Ok(Difference::Write(wanted));
    };
    if found.expires == TOMBSTONE && found.rule >= decision.rule {
        return Ok(Difference::Lifted(found.rule));
    }
    if found.rule == decision.rule {
        // An earlier conversion of this decision may have used a better clock: the sooner end
        // counts.
        wanted.expires = match (found.expires, wanted.expires) {
            (0, expires) | (expires, 0) => expires,
            (found, wanted) => found.min(wanted),
        };
        let near = found.expires.abs_diff(wanted.expires) < TOLERANCE;
        let same = abi::Block { expires: wanted.expires, ..found } == wanted;
        if near && same {
            return Ok(Difference::None);
        }
        let other = abi::Block {
            redial_attempts: wanted.redial_attempts,
            redial_window: wanted.redial_window,
            redial_grant: wanted.redial_grant,
            expires: wanted.expires,
            ..found
        };
        if near && other == wanted {
            return Ok(Difference::Configured(wanted));
        }
    }
    Ok(Difference::Write(wanted))
}

/// Makes one block the same in store and map. Runs on the store's thread. A block that was lifted
/// and is still stored is left alone.
fn reconcile_block(
    control: &Control,
    store: &mut Store,
    subject: Subject,
) -> Result<Found, Problem> {
    let repaired = Found { repaired: 1, ..Found::default() };
    let stored = store.reader().find(Kind::Block, subject)?;
    let turn = control.order.turn();
    if turn.is_unsaved(Key::Block(subject)) {
        return Ok(Found::default());
    }
    let Some(decision) = stored else {
        let Some(found) = control.maps.block(subject)? else {
            return Ok(Found::default());
        };
        control.maps.remove_block(subject)?;
        tracing::warn!(rule = found.rule, "removed a block that only the kernel's map had");
        return Ok(if found.expires == TOMBSTONE { Found::default() } else { repaired });
    };
    match difference(control, &decision)? {
        Difference::None => Ok(Found::default()),
        Difference::Write(block) => {
            control.maps.set_block(subject, block)?;
            Ok(repaired)
        }
        Difference::Configured(block) => {
            control.maps.set_block(subject, block)?;
            Ok(Found::default())
        }
        Difference::Lifted(place) => {
            drop(turn);
            let entry = Entry::new(clock::now(), DAEMON, "block remove")
                .with("adopted", json!("it was ended in the kernel's map"));
            store.remove(Kind::Block, subject, entry)?;
            control.forget_lifted(subject, place)?;
            Ok(Found { adopted: 1, ..Found::default() })
        }
    }
}

impl Control {
    /// Removes an entry from the map that was lifted at this place of the order or before.
    ///
    /// # Errors
    /// Returns an error if a system call fails.
    pub fn forget_lifted(&self, subject: Subject, place: u64) -> Result<(), Error> {
        let _turn = self.order.turn();
        let lifted = |block: &abi::Block| block.expires == TOMBSTONE && block.rule <= place;
        if self.maps.block(subject)?.as_ref().is_some_and(lifted) {
            self.maps.remove_block(subject)?;
        }
        Ok(())
    }
}
