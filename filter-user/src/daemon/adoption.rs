//! Handles a store that the kernel's maps were not written from: it was missing, replaced, or is
//! older than the maps. The maps then keep their entries, including the mode, until a person
//! decides which of both is right.
//!
//! A folder beside the pins names the store that the maps were written from. The rules reveal an
//! older copy of that store. Each block is stored before it is in a map, so no map has a block that
//! is newer than the whole store. `palang store restore` marks its store as chosen.

use std::ops::ControlFlow;
use std::sync::Arc;

use filter_common::abi::{self, MODE_ENFORCE, RULE_DIRECT, TOMBSTONE};
use filter_common::decide::is_live;
use serde_json::json;

use crate::api::wire::{AdoptFrom, AdoptStore, Adopted, Problem, ProblemKind};
use crate::change_plan::allow::allow_of_map;
use crate::daemon::decision::entry;
use crate::daemon::order::Key;
use crate::daemon::reconcile;
use crate::daemon::reconcile::InMaps;
use crate::daemon::role::Principal;
use crate::daemon::state::{Control, problem};
use crate::daemon::switches::{MODE, StoredMode};
use crate::datapath::{Pins, walk_blocks};
use crate::model::policy::Subject;
use crate::model::redial::RedialPolicy;
use crate::store::{Decision, Entry, HELD, Kind, RESTORED, Store};
use crate::sys::clock;

/// Number of blocks that are reconciled at once; other changes have their turn in between.
const SLICE: usize = 200;

/// Checks whether the maps were written from this store, before anything is reconciled. Returns
/// `true` if they were not, and keep their entries.
///
/// # Errors
/// [`ProblemKind::Store`] if the store cannot be read; [`ProblemKind::Failed`] if a system call
/// fails.
pub async fn look(control: &Arc<Control>, in_maps: InMaps) -> Result<bool, Problem> {
    let (known, identity, newest, stored, is_restored) = control
        .store_handle
        .read(|reader| {
            let held = reader.state::<Option<String>>(HELD)?.flatten();
            let is_restored = reader.state::<bool>(RESTORED)?.unwrap_or_default();
            let counts = (reader.max_rule()?, reader.count(Kind::Block)?);
            Ok((held, reader.identity()?, counts.0, counts.1, is_restored))
        })
        .await?;
    let settings = control.maps.settings()?;
    let is_enforcing = settings.mode == MODE_ENFORCE && settings.enforce_until != TOMBSTONE;
    let noted = Pins::new(&control.config().paths.pins).noted_stores();
    let found = if in_maps.blocks == 0 && !is_enforcing || is_restored {
        // Nothing is lost, or a person has decided.
        None
    } else if known.is_some() {
        known.clone()
    } else if !noted.is_empty() && !noted.contains(&identity) {
        Some(format!(
            "it is another one, or a new one; blocks in the maps: {}, in the store: {stored}",
            in_maps.blocks
        ))
    } else if in_maps.newest_block > newest {
        Some(format!(
            "it is older; newest rule in the maps: {}, in the store: {newest}; blocks in the maps: \
             {}, in the store: {stored}",
            in_maps.newest_block, in_maps.blocks
        ))
    } else {
        None
    };
    control.held.set(found.clone());
    if let Some(finding) = control.held.finding() {
        tracing::error!("{finding}");
    }
    if found == known {
        return Ok(found.is_some());
    }
    // New blocks make the store newer than the maps; the next start must still know it.
    let is_held = found.is_some();
    let action = if is_held { "store held" } else { "store follow" };
    let about = Entry::new(clock::now(), "daemon", action).with("why", json!(found));
    let noted = move |store: &mut Store| Ok(store.set_state(HELD, &found, Some(about))?);
    if let Err(problem) = control.store_handle.write_through(noted).await {
        tracing::error!(problem = %problem.message, "cannot store that the maps keep their entries");
    }
    Ok(is_held)
}

/// Notes that the maps follow this store from now on.
///
/// # Errors
/// [`ProblemKind::Store`] if the store cannot be read or written; [`ProblemKind::Failed`] if the
/// folder of pins cannot be written.
pub async fn note_followed(control: &Control) -> Result<(), Problem> {
    let (identity, is_restored) = control
        .store_handle
        .read(|reader| Ok((reader.identity()?, reader.state::<bool>(RESTORED)?)))
        .await?;
    Pins::new(&control.config().paths.pins).note_store(&identity)?;
    if is_restored == Some(true) {
        control
            .store_handle
            .write_through(|store| Ok(store.set_state(RESTORED, &false, None)?))
            .await?;
    }
    Ok(())
}

/// Decides for the maps or for the store.
///
/// # Errors
/// [`ProblemKind::Refused`] if there is nothing to decide, or another decision is under way;
/// [`ProblemKind::Store`] or [`ProblemKind::Failed`] if the store or a system call fails. The
/// finished part remains, and the decision can be repeated.
pub async fn adopt(
    control: &Arc<Control>,
    who: &Principal,
    AdoptStore { from, dry_run }: AdoptStore,
) -> Result<Adopted, Problem> {
    let Ok(_alone) = control.held.deciding.try_lock() else {
        return problem(ProblemKind::Refused, "another decision is under way; try again later");
    };
    if !control.held.is_held() {
        return problem(
            ProblemKind::Refused,
            "the maps follow the store: there is nothing to decide",
        );
    }
    let mut done = Adopted { from, blocks: 0, removed: 0, allows: 0, dry_run };
    if from == AdoptFrom::Maps {
        adopt_blocks(control, who, &mut done).await?;
        remove_others(control, who, &mut done).await?;
        let (worker, author) = (Arc::clone(control), who.name.clone());
        let rest = move |store: &mut Store| {
            if !dry_run {
                adopt_mode(&worker, store, &author)?;
            }
            adopt_allows(&worker, store, &author, dry_run)
        };
        done.allows = control.store_handle.write_through(rest).await?;
    }
    if dry_run {
        return Ok(done);
    }
    let about = Entry::new(clock::now(), &who.name, "store adopt")
        .with("from", json!(from))
        .with("blocks", done.blocks)
        .with("removed", done.removed)
        .with("allows", done.allows);
    let decided =
        move |store: &mut Store| Ok(store.set_state(HELD, &None::<String>, Some(about))?);
    control.store_handle.write_through(decided).await?;
    control.held.set(None);
    note_followed(control).await?;
    reconcile::at_start(control, false, false).await?;
    Ok(done)
}

/// Stores decisions for the blocks of the maps.
async fn adopt_blocks(
    control: &Arc<Control>,
    who: &Principal,
    done: &mut Adopted,
) -> Result<(), Problem> {
    let folder = control.folder.clone();
    let walk = move || {
        let mut subjects = Vec::new();
        walk_blocks(&folder, u64::MAX, |subject, _| {
            subjects.push(subject);
            Ok(())
        })
        .map(|()| subjects)
    };
    let subjects = tokio::task::spawn_blocking(walk).await??;
    for slice in subjects.chunks(SLICE) {
        let (worker, author, slice) = (Arc::clone(control), who.name.clone(), slice.to_vec());
        let dry_run = done.dry_run;
        let adopt = move |store: &mut Store| adopt_some(&worker, store, &author, &slice, dry_run);
        done.blocks += control.store_handle.write_through(adopt).await?;
    }
    Ok(())
}

/// Stores decisions for some blocks, and returns their number. Runs on the store's thread.
fn adopt_some(
    control: &Control,
    store: &mut Store,
    author: &str,
    subjects: &[Subject],
    dry_run: bool,
) -> Result<u64, Problem> {
    let (now, boot) = (clock::now(), clock::boot());
    let mut wanted = Vec::new();
    for subject in subjects {
        let Some(found) = control.maps.block(*subject)? else { continue };
        let is_over = !is_live(found.expires, boot);
        let stored = store.reader().find(Kind::Block, *subject)?;
        if is_over || stored.as_ref().is_some_and(|stored| stored.rule == found.rule) {
            // The next comparison removes the blocks that have ended.
            continue;
        }
        wanted.push((decision(control, author, *subject, found, stored, now), found));
    }
    if dry_run || wanted.is_empty() {
        return Ok(wanted.len() as u64);
    }
    // They get new rules: in this store the map's rule may belong to another decision.
    for (decision, _) in &mut wanted {
        decision.rule = control.order.turn().places(1);
    }
    store.put(wanted.iter().map(|(decision, _)| decision), |decision, before| {
        entry("block adopt", author, decision, before)
    })?;
    for (decision, found) in &wanted {
        let block = abi::Block { rule: decision.rule, ..*found };
        let turn = control.order.turn();
        // A block that was ended meanwhile remains ended.
        if !turn.is_unsaved(Key::Block(decision.subject)) {
            control.maps.set_block(decision.subject, block)?;
        }
    }
    Ok(wanted.len() as u64)
}

fn decision(
    control: &Control,
    author: &str,
    subject: Subject,
    found: abi::Block,
    stored: Option<Decision>,
    now: jiff::Timestamp,
) -> Decision {
    let redial = RedialPolicy::of(&found);
    let is_own = redial != control.config().redial && redial.attempts != 0;
    Decision {
        id: stored.map_or_else(uuid::Uuid::now_v7, |stored| stored.id),
        rule: 0,
        kind: Kind::Block,
        subject,
        created: now,
        expires: (found.expires != 0).then(|| clock::wall(found.expires)),
        reason: "found in the kernel's maps".into(),
        author: author.to_owned(),
        origin: "direct".into(),
        node: control.node().to_owned(),
        flags: found.flags,
        redial: (is_own && redial.check().is_ok()).then_some(redial),
        epoch: found.epoch,
        incident: None,
    }
}

/// Ends the stored blocks that the maps lack.
async fn remove_others(
    control: &Arc<Control>,
    who: &Principal,
    done: &mut Adopted,
) -> Result<(), Problem> {
    let worker = Arc::clone(control);
    let others = control
        .store_handle
        .read(move |reader| {
            let mut others = Vec::new();
            let mut failed = None;
            reader.for_each(Kind::Block, |decision| {
                match worker.maps.block(decision.subject) {
                    Ok(None) => others.push(decision.subject),
                    Ok(Some(_)) => {}
                    Err(error) => failed = Some(error),
                }
                if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            Ok(failed.map_or(Ok(others), Err))
        })
        .await??;
    if done.dry_run {
        done.removed = others.len() as u64;
        return Ok(());
    }
    for slice in others.chunks(SLICE) {
        let (worker, author, slice) = (Arc::clone(control), who.name.clone(), slice.to_vec());
        let remove = move |store: &mut Store| {
            let mut removed = 0;
            for subject in slice {
                // The block may have been added meanwhile.
                if worker.maps.block(subject)?.is_none() {
                    let entry = Entry::new(clock::now(), &author, "block remove")
                        .with("adopted", "the kernel's maps do not have it");
                    removed += u64::from(store.remove(Kind::Block, subject, entry)?.is_some());
                }
            }
            Ok(removed)
        };
        done.removed += control.store_handle.write_through(remove).await?;
    }
    Ok(())
}

/// Stores decisions for the allows that only the maps have, and returns their number. Runs on the
/// store's thread.
fn adopt_allows(
    control: &Control,
    store: &mut Store,
    author: &str,
    dry_run: bool,
) -> Result<u64, Problem> {
    let mut adopted = 0;
    for (subject, found) in control.maps.pass_maps().allows()? {
        let is_over = !is_live(found.expires, clock::boot());
        let stored = store.reader().find(Kind::Allow, subject)?;
        // Allows of offline commands have a note, by which they are adopted.
        if is_over
            || found.rule == RULE_DIRECT
            || stored.as_ref().is_some_and(|stored| stored.rule == found.rule)
        {
            continue;
        }
        adopted += 1;
        if dry_run {
            continue;
        }
        let decision = Decision {
            id: stored.map_or_else(uuid::Uuid::now_v7, |stored| stored.id),
            rule: control.order.turn().places(1),
            reason: "found in the kernel's maps".into(),
            author: author.to_owned(),
            node: control.node().to_owned(),
            ..allow_of_map(subject, &found, clock::now())
        };
        store
            .put([&decision], |decision, before| entry("allow adopt", author, decision, before))?;
        let turn = control.order.turn();
        // An allow that was changed meanwhile remains as it is.
        if !turn.is_unsaved(Key::Allow(subject)) {
            control
                .maps
                .pass_maps()
                .set_allow(subject, abi::Allow { rule: decision.rule, ..found })?;
        }
    }
    Ok(adopted)
}

/// Stores the mode that the maps have. Runs on the store's thread.
fn adopt_mode(control: &Control, store: &mut Store, author: &str) -> Result<(), Problem> {
    let settings = control.maps.settings()?;
    let until = Some(settings.enforce_until).filter(|until| *until != 0 && *until != TOMBSTONE);
    let mode = StoredMode {
        enforce: settings.mode == MODE_ENFORCE,
        since: Some(clock::now()),
        until: until.map(clock::wall),
    };
    let name = if mode.enforce { "enforce" } else { "observe" };
    let about = Entry::new(clock::now(), author, "mode adopt").with("mode", name);
    Ok(store.set_state(MODE, &mode, Some(about))?)
}
