//! Removes blocks and allows that have ended.

use std::sync::Arc;

use crate::api::wire::Problem;
use crate::daemon::decision::entry;
use crate::daemon::reconcile::found::{DAEMON, TOLERANCE};
use crate::daemon::state::Control;
use crate::store::{Decision, Kind, Store};
use crate::sys::clock;

/// Number of ended decisions that are removed at once: a command never waits for a million.
const SWEPT: u32 = 200;

/// Removes some ended decisions, earliest first. Returns whether there may be more. A block that
/// ended by the wall clock ends in the map, too; an allow lasts as long as the map says.
///
/// # Errors
/// [`Problem`] of the kind `Store` if the store takes no writes, `Failed` if a system call fails.
pub async fn sweep(control: &Arc<Control>) -> Result<bool, Problem> {
    // Reading first: even an empty change waits for the disk.
    if !control.store_handle.read(|reader| reader.has_expired(clock::now())).await? {
        return Ok(false);
    }
    let worker = Arc::clone(control);
    control.store_handle.write_through(move |store| Ok(sweep_some(&worker, store)? > 0)).await
}

/// Removes at most [`SWEPT`] ended decisions, and returns their number. Runs on the store's thread.
///
/// # Errors
/// Those of [`sweep`].
pub fn sweep_some(control: &Control, store: &mut Store) -> Result<u64, Problem> {
    let mut swept = 0;
    for decision in store.remove_expired(clock::now(), SWEPT)? {
        swept += 1;
        let subject = decision.subject;
        // An entry that was changed meanwhile has another rule.
        let turn = control.order.turn();
        match decision.kind {
            Kind::Block => {
                let found = control.maps.block(subject)?;
                if found.is_some_and(|found| found.rule == decision.rule) {
                    control.maps.remove_block(subject)?;
                }
            }
            Kind::Allow => {
                let found = control.maps.pass_maps().allow(subject)?;
                let Some(found) = found.filter(|found| found.rule == decision.rule) else {
                    continue;
                };
                if found.expires <= clock::boot() {
                    control.maps.pass_maps().remove_allow(subject)?;
                } else if found.expires > clock::boot() + TOLERANCE {
                    // The clock was set forward.
                    drop(turn);
                    let expires = Some(clock::wall(found.expires));
                    store.put([&Decision { expires, ..decision }], |decision, before| {
                        entry("allow adopt", DAEMON, decision, before)
                    })?;
                }
            }
        }
    }
    Ok(swept)
}
