//! Store and maps, compared and made one: at the start, and again and again.
//!
//! Entry by entry, and never by emptying a map. What lets through is adopted from the maps; what
//! blocks comes from the store. Reading runs beside everything else; each difference is then
//! settled on the store's thread, where no change can be half done.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use filter_common::abi::{self, MODE_ENFORCE, MODE_OBSERVE, RULE_DIRECT, TOMBSTONE};
use jiff::Timestamp;
use serde_json::json;

use crate::api::wire;
use crate::api::wire::{Persisted, Problem, ProblemKind};
use crate::daemon::decision::{allow_entry, entry};
use crate::daemon::order::Key;
use crate::daemon::state::Control;
use crate::daemon::switches::{
    MODE, OVERRIDE, StoredMode, StoredOverride, keep_mode, keep_override,
};
use crate::datapath::{Error, Maps, walk_blocks};
use crate::inspect;
use crate::model::policy::Subject;
use crate::store::offline_journal::{Note, Notes};
use crate::store::{Decision, Entry, Kind, Reader, Store};
use crate::sys::clock;

/// Expiries that differ by less are the same: converting between clocks is not exact.
const TOLERANCE: u64 = 2_000_000_000;
/// After so many entries of the running comparison others get the CPU.
const SLICE: u64 = 1000;
const PAUSE: Duration = Duration::from_millis(2);
/// So many decisions that have ended are taken out at once: a command never waits for a million.
const SWEPT: u32 = 200;
/// What it means when notes are not as this program writes them.
const ODD_NOTES: &str = "some notes of what was done without the daemon are odd and were left out";
const UNREAD_NOTES: &str = "the notes of what was done without the daemon cannot be read";
/// Author of what nobody asked the daemon for.
const DAEMON: &str = "daemon";

/// What a comparison found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Blocks in the store.
    pub blocks: u64,
    /// Entries that were written, changed or removed in a map.
    pub repaired: u64,
    /// What the store learnt from the maps.
    pub adopted: u64,
}

/// What the maps hold at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InMaps {
    /// Blocks, those that have ended or were lifted included.
    pub blocks: u64,
    /// The highest rule number of a block that was not lifted; 0: none. Only these are stored before
    /// they are in a map.
    pub newest_block: u64,
    /// The highest rule number of a block or an allow; 0: none.
    pub newest: u64,
}

/// Counts what the maps hold.
///
/// # Errors
/// A failing system call.
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

/// Makes maps and store one for the first time. `alone`: nobody else writes yet, so that what
/// differs can be written at once. Without a store that can be read the maps stay as they are.
///
/// # Errors
/// A store that cannot be read or written; a failing system call.
pub async fn at_start(control: &Arc<Control>, fresh: bool, alone: bool) -> Result<Found, Problem> {
    mode_as(control, alone, true).await?;
    let mut found = adopt_offline_as(control, alone).await?;
    let blocks = compare_blocks(control, alone).await?;
    found.blocks = blocks.blocks;
    found.adopted += blocks.adopted;
    found.repaired += blocks.repaired;
    if fresh {
        found.repaired = 0;
    }
    Ok(found)
}

/// Settles something where no change can be half done: on the store's thread, or, as long as
/// nobody else writes, anywhere. A disk that takes no writes does not keep us from the start.
async fn settle<T: Send + 'static>(
    control: &Control,
    alone: bool,
    settle: impl FnOnce(&Reader) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    if alone {
        return control.store_handle.read(move |reader| Ok(settle(reader))).await?;
    }
    control.store_handle.write_through(move |store| settle(store)).await
}

/// Compares everything but the blocks once more while calls flow: that takes no time.
///
/// # Errors
/// A store that cannot be read or written; a failing system call.
pub async fn compare_settings(control: &Arc<Control>) -> Result<Found, Problem> {
    // Without the store: the daemon knows what it put into force.
    let settings = control.reconcile_settings()?;
    let stored = control.store_handle.read(|reader| reader.state::<StoredMode>(MODE)).await?;
    let (mode, _) = control.mode_in_force(&control.order.turn())?;
    let mut found = adopt_offline(control).await?;
    let differs = stored.unwrap_or_default().enforce != (mode == MODE_ENFORCE);
    if differs && !control.held.is_held() {
        let mode = mode_as(control, false, false).await?;
        found.repaired += mode.repaired;
        found.adopted += mode.adopted;
    }
    found.repaired += settings;
    control.drift.fetch_add(found.repaired, Ordering::Relaxed);
    Ok(found)
}

/// Compares everything once more while calls flow.
///
/// # Errors
/// A store that cannot be read or written; a failing system call.
pub async fn compare(control: &Arc<Control>) -> Result<Found, Problem> {
    let others = compare_settings(control).await;
    if control.held.is_held() {
        return others;
    }
    let blocks = compare_blocks(control, false).await?;
    let mut found = others?;
    control.drift.fetch_add(blocks.repaired, Ordering::Relaxed);
    found.blocks = blocks.blocks;
    found.repaired += blocks.repaired;
    found.adopted += blocks.adopted;
    Ok(found)
}

/// Learns what was done on the maps without the daemon, when somebody has left a note since.
///
/// # Errors
/// As [`adopt_offline`].
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

/// Learns what was done on the maps without the daemon, and by the notes, who did it.
///
/// # Errors
/// A store that cannot be read or written; a failing system call.
pub async fn adopt_offline(control: &Arc<Control>) -> Result<Found, Problem> {
    adopt_offline_as(control, false).await
}

async fn adopt_offline_as(control: &Arc<Control>, alone: bool) -> Result<Found, Problem> {
    if control.held.is_held() {
        // Nothing is adopted before it is decided what is right.
        return Ok(Found::default());
    }
    if control.store_handle.unsaved() > 0 {
        // The store will hear of it from whoever did it.
        return Ok(Found::default());
    }
    let paths = control.config().paths.clone();
    let file = Note::file(&paths);
    let read = tokio::task::spawn_blocking(move || Notes::read(&paths))
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let problem = read.as_ref().err().map(|error| format!("{}: {error}", file.display()));
    control.chores.note(UNREAD_NOTES, problem);
    // What they are about is adopted from the maps all the same.
    let notes = read.unwrap_or_default();
    for (line, why) in &notes.odd {
        tracing::warn!("{}:{line}: this note is not adopted: {why}", file.display());
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
        // The next time: whoever changed it tells the store.
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

/// The audit's record of what left nothing to adopt: a filter taken off, an override that was
/// switched off again.
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

/// Makes the mode the same in store and map.
async fn mode_as(control: &Arc<Control>, alone: bool, at_start: bool) -> Result<Found, Problem> {
    let worker = Arc::clone(control);
    let settled = settle(control, alone, move |reader| reconcile_mode(&worker, reader, at_start));
    let (found, kept) = settled.await?;
    if let Some(kept) = kept {
        kept.await;
    }
    Ok(found)
}

/// The mode of the store; where enforcing ends sooner by the map, by the map. Observe that is in
/// force and that the store lacks is adopted. Runs in [`settle`].
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

/// What became of the override in the map.
enum Adopted {
    /// The store has it.
    Nothing,
    /// The store gets it, and a note says who set it.
    Note(Kept),
    /// The store gets it.
    Map(Kept),
    /// It is being changed.
    NotNow,
}

/// Whether the disk has it.
type Kept = Pin<Box<dyn Future<Output = Persisted> + Send>>;

/// Whether the store has the override with this deadline in the map, and its end; 0: the map is
/// new, and there is none to put into it.
fn is_known(stored: &StoredOverride, deadline: u64) -> bool {
    let is_over = inspect::live(deadline).is_none();
    match deadline {
        0 => stored.until.is_none_or(|until| until <= clock::now()),
        _ => stored.is(deadline) && (is_over || stored.ends_with(deadline)),
    }
}

/// The override of the map, unless the map never had one. Runs in [`settle`]: there the store is
/// no older than the map, unless the order knows better.
fn reconcile_override(
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
        // The maps are new. What was noted since the daemon's death is younger than the store.
        let Some(restored) = restore_override(control, stored, note)? else {
            return Ok(Adopted::Nothing);
        };
        let entry = note.map(|_| noted(restored.entry("override adopt"), note));
        (restored, entry)
    } else if is_known(&stored, deadline) {
        return Ok(Adopted::Nothing);
    } else if stored.is(deadline) {
        // The same, and somebody has set the clock.
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

/// Puts the override into new maps, for no longer than it was meant. What the store is to have;
/// `None`: there is no override.
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

/// A record of what somebody did earlier.
fn noted(entry: Entry, note: Option<&Note>) -> Entry {
    match note {
        Some(note) => entry.with("done", json!(note.time)),
        None => entry,
    }
}

/// Adopts allows that only the maps have, and writes those that only the store has.
async fn reconcile_allows(control: &Arc<Control>, notes: &[Note]) -> Result<Found, Problem> {
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
            let rule = halves.trie.or(halves.hash).map(|allow| allow.rule);
            halves.differ(**subject) || known.get(subject).copied() != rule
        })
        .map(|(subject, _)| *subject)
        .collect();
    doubtful.extend(known.keys().filter(|subject| !in_maps.contains_key(subject)));
    // Written down while no daemon was there, and the maps are gone with the last boot.
    doubtful.extend(notes.iter().filter_map(|note| control.subject(note.number.as_ref()?).ok()));
    let mut found = Found::default();
    for subject in doubtful {
        let note = notes
            .iter()
            .rev()
            .find(|note| {
                note.number.as_ref().is_some_and(|text| control.subject(text) == Ok(subject))
            })
            .cloned();
        let worker = Arc::clone(control);
        let one = control
            .store_handle
            .write_through(move |store| reconcile_allow(&worker, store, subject, note.as_ref()))
            .await?;
        found.adopted += one.adopted;
        found.repaired += one.repaired;
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
    let stored = store.find(Kind::Allow, subject)?;
    let halves = control.maps.pass_maps().allow_halves(subject)?;
    let in_map = halves.trie.or(halves.hash);
    let was_removed = match in_map {
        Some(allow) if stored.is_none() && allow.rule != RULE_DIRECT => {
            store.was_removed(allow.rule)?
        }
        Some(_) | None => false,
    };
    // The store takes no time under the lock. What somebody changed meanwhile is left alone.
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
            let over = allow.expires != 0 && allow.expires <= clock::boot();
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

/// Makes a decision of an allow that was found.
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

/// Compares all blocks.
async fn compare_blocks(control: &Arc<Control>, alone: bool) -> Result<Found, Problem> {
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
                seen.insert((is_prefix(decision.subject), decision.subject.raw().0));
                if !alone && found.blocks.is_multiple_of(SLICE) {
                    std::thread::sleep(PAUSE);
                }
                match difference(&worker, &decision) {
                    Ok(Difference::None) => {}
                    Ok(Difference::Write(block)) if alone => {
                        let _turn = worker.order.turn();
                        match worker.maps.set_block(decision.subject, block) {
                            Ok(()) => found.repaired += 1,
                            // There may be room when what is not stored is out.
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
                    if !seen.contains(&(is_prefix(subject), subject.raw().0)) {
                        doubtful.push(subject);
                    }
                    Ok(())
                })
            });
            Ok(walked.map(|()| (found, doubtful)))
        })
        .await?
        .map_err(|error: Error| Problem::from(error))?;
    // What is not stored comes last, and goes out first.
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
        found.repaired += one.repaired;
        found.adopted += one.adopted;
    }
    Ok(found)
}

fn is_prefix(subject: Subject) -> bool {
    matches!(subject, Subject::Prefix(_))
}

/// How the map differs from a stored block.
enum Difference {
    None,
    /// The map's entry has to be this.
    Write(abi::Block),
    /// The same but for `[redial]`, which was configured anew: no error that was repaired.
    Configured(abi::Block),
    /// The block was ended in the map at this place of the order, and the store does not know it.
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
        // The same decision was converted before, maybe by a better clock: never longer.
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

/// Makes one block the same in store and map. Runs on the store's thread, and leaves alone what was
/// let through and has not come to the store.
fn reconcile_block(
    control: &Control,
    store: &mut Store,
    subject: Subject,
) -> Result<Found, Problem> {
    let repaired = Found { repaired: 1, ..Found::default() };
    let stored = store.find(Kind::Block, subject)?;
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

/// Takes out some of what has ended, earliest first; whether there may be more. A block that ended
/// by the wall clock ends in the map, too; an allow lasts as long as the map says.
///
/// # Errors
/// A store that takes no writes; a failing system call.
pub async fn sweep(control: &Arc<Control>) -> Result<bool, Problem> {
    // Asked first: a change, even of nothing, is a wait for the disk.
    if !control.store_handle.read(|reader| reader.has_expired(clock::now())).await? {
        return Ok(false);
    }
    let worker = Arc::clone(control);
    control.store_handle.write_through(move |store| Ok(sweep_some(&worker, store)? > 0)).await
}

/// Takes out at most [`SWEPT`] of what has ended; how many. Runs on the store's thread.
///
/// # Errors
/// As [`sweep`].
pub fn sweep_some(control: &Control, store: &mut Store) -> Result<u64, Problem> {
    let mut swept = 0;
    for decision in store.remove_expired(clock::now(), SWEPT)? {
        swept += 1;
        let subject = decision.subject;
        // What was let through meanwhile has another rule.
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
                    // Somebody has set the clock forward.
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
