//! Makes the allows the same in the store and in the maps.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use filter_common::abi::{self, RULE_DIRECT};
use filter_common::decide::is_live;
use jiff::Timestamp;

use crate::api::wire::Problem;
use crate::change_plan::allow::allow_entry;
use crate::daemon::decision::entry;
use crate::daemon::order::Key;
use crate::daemon::reconcile::found::{Found, noted};
use crate::daemon::state::Control;
use crate::model::policy::Subject;
use crate::store::offline_journal::Note;
use crate::store::{Decision, Kind, Store};
use crate::sys::clock;

/// Adopts allows that only the maps have, and writes those that only the store has.
pub(crate) async fn reconcile_allows(
    control: &Arc<Control>,
    notes: &[Note],
) -> Result<Found, Problem> {
    let known = control
        .store_handle
        .read(|reader| {
            let mut known = HashMap::new();
            reader.for_each(Kind::Allow, |decision| {
                known.insert(decision.subject, decision.rule);
                ControlFlow::Continue(())
            })?;
            Ok(known)
        })
        .await?;
    let in_maps = control.maps.pass_maps().all_allows()?;
    let mut doubtful: HashSet<Subject> = in_maps
        .iter()
        .filter(|(subject, halves)| {
            let rule = halves.allow().map(|allow| allow.rule);
            halves.differ(**subject) || known.get(subject).copied() != rule
        })
        .map(|(subject, _)| *subject)
        .collect();
    doubtful.extend(known.keys().filter(|subject| !in_maps.contains_key(subject)));
    // Allows of notes: the maps may have lost them when the machine restarted.
    let of_notes: HashMap<Subject, &Note> = notes
        .iter()
        .filter_map(|note| Some((control.subject(note.number.as_ref()?).ok()?, note)))
        .collect();
    doubtful.extend(of_notes.keys());
    let mut found = Found::default();
    for subject in doubtful {
        let note = of_notes.get(&subject).copied().cloned();
        let worker = Arc::clone(control);
        let one = control
            .store_handle
            .write_through(move |store| reconcile_allow(&worker, store, subject, note.as_ref()))
            .await?;
        found += one;
    }
    Ok(found)
}

/// Makes one allow the same in the store and in both of its maps. Runs on the store's thread.
fn reconcile_allow(
    control: &Control,
    store: &mut Store,
    subject: Subject,
    note: Option<&Note>,
) -> Result<Found, Problem> {
    let now = clock::now();
    let (adopted, repaired) =
        (Found { adopted: 1, ..Found::default() }, Found { repaired: 1, ..Found::default() });
    let stored = store.reader().find(Kind::Allow, subject)?;
    let halves = control.maps.pass_maps().allow_halves(subject)?;
    let in_map = halves.allow();
    let was_removed = match in_map {
        Some(allow) if stored.is_none() && allow.rule != RULE_DIRECT => {
            store.reader().was_removed(allow.rule)?
        }
        Some(_) | None => false,
    };
    // The lock is not held while the store works. An allow that was changed meanwhile is left
    // alone.
    let is_as_found = || {
        let turn = control.order.turn();
        let is_same = !turn.is_unsaved(Key::Allow(subject))
            && control.maps.pass_maps().allow_halves(subject)? == halves;
        Ok::<_, Problem>(is_same.then_some(turn))
    };
    let Some(turn) = is_as_found()? else { return Ok(Found::default()) };
    let (expires, note) = match (in_map, stored) {
        (None, None) => match note.filter(|note| note.until.is_none_or(|until| until > now)) {
            Some(note) => (note.until, Some(note)),
            None => return Ok(Found::default()),
        },
        (None, Some(stored)) => {
            if stored.expires.is_some_and(|expires| expires <= now) {
                return Ok(Found::default());
            }
            control.maps.pass_maps().set_allow(subject, allow_entry(&stored))?;
            return Ok(repaired);
        }
        (Some(allow), Some(stored)) if allow.rule == stored.rule => {
            if !halves.differ(subject) {
                return Ok(Found::default());
            }
            control.maps.pass_maps().set_allow(subject, allow)?;
            return Ok(repaired);
        }
        (Some(allow), Some(stored)) if allow.rule < stored.rule => {
            control.maps.pass_maps().set_allow(subject, allow_entry(&stored))?;
            return Ok(repaired);
        }
        (Some(allow), _) => {
            let over = !is_live(allow.expires, clock::boot());
            if over || was_removed {
                control.maps.pass_maps().remove_allow(subject)?;
                return Ok(Found::default());
            }
            ((allow.expires != 0).then(|| clock::wall(allow.expires)), note)
        }
    };
    drop(turn);
    let decision = adopt(control, store, subject, expires, note)?;
    if let Some(_turn) = is_as_found()? {
        let entry = match in_map {
            Some(allow) => abi::Allow { rule: decision.rule, ..allow },
            None => allow_entry(&decision),
        };
        control.maps.pass_maps().set_allow(subject, entry)?;
    }
    Ok(adopted)
}

/// Stores a decision for an allow that was found.
fn adopt(
    control: &Control,
    store: &mut Store,
    subject: Subject,
    expires: Option<Timestamp>,
    note: Option<&Note>,
) -> Result<Decision, Problem> {
    let decision = Decision {
        id: uuid::Uuid::now_v7(),
        rule: control.order.turn().places(1),
        kind: Kind::Allow,
        subject,
        created: clock::now(),
        expires,
        reason: note
            .map_or_else(|| "found in the kernel's maps".into(), |note| note.reason.clone()),
        author: note.map_or_else(|| "root".into(), |note| note.author.clone()),
        origin: "direct".into(),
        node: control.node().to_owned(),
        flags: 0,
        redial: None,
        epoch: 0,
        incident: note.and_then(|note| note.incident.clone()),
    };
    store.put([&decision], |decision, before| {
        noted(entry("allow adopt", &decision.author, decision, before), note)
    })?;
    Ok(decision)
}
