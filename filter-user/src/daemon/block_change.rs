//! Checks and writes blocks, for every command and task that sets or ends one.

use std::sync::{Arc, Mutex, PoisonError};

use filter_common::abi::{self, BLOCK_NO_REDIAL, BLOCK_OBSERVE, TOMBSTONE};
use filter_common::decide::is_live;
use jiff::Timestamp;

use crate::api::wire::{self, Change, Changed, Persisted, Problem, ProblemKind};
use crate::change_plan::allow::describe;
use crate::config::units::days;
use crate::daemon::convert::{block_of, unknown_block};
use crate::daemon::decision::{entry, subject_of};
use crate::daemon::order::{Key, Later};
use crate::daemon::reconcile;
use crate::daemon::role::{Principal, Role};
use crate::daemon::state::{Control, problem};
use crate::inspect::not_blocked;
use crate::model::policy::Subject;
use crate::model::redial::RedialPolicy;
use crate::model::refuse::Refuse;
use crate::store::{Decision, Entry, Error, Kind, Reader, Store};
use crate::sys::clock;

/// Prefixes that fit into a trie of `filter-ebpf/src/maps.rs`.
pub const PREFIXES_MAX: u64 = 4096;

/// Returns the redial setting of a block, and its flags.
///
/// # Errors
/// [`ProblemKind::Usage`] if the setting is out of range, or is combined with `no_redial`.
pub fn redial_of(
    redial: Option<RedialPolicy>,
    no_redial: bool,
    observe: bool,
) -> Result<(Option<RedialPolicy>, u8), Problem> {
    if let Some(redial) = redial {
        if no_redial {
            return problem(
                ProblemKind::Usage,
                "redial and no_redial exclude each other: give one of them",
            );
        }
        redial.check().or_else(|error| problem(ProblemKind::Usage, error.to_string()))?;
    }
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    Ok((redial, flag(observe, BLOCK_OBSERVE) | flag(no_redial, BLOCK_NO_REDIAL)))
}

/// Returns the flags of a block with this refusal; `None`: as the trunk refuses.
///
/// # Errors
/// [`ProblemKind::Usage`] with the reason why the text is not offered.
pub fn refuse_flags(refuse: Option<&str>) -> Result<u8, Problem> {
    match refuse.map(Refuse::parse) {
        None => Ok(0),
        Some(Ok(refuse)) => Ok(refuse.flags()),
        Some(Err(error)) => problem(ProblemKind::Usage, format!("refuse: {error}")),
    }
}

impl Control {
    /// Puts the block that `decide` makes of the one before. Returns its place in the order (0:
    /// unchanged), the block, the one before, and the change.
    pub(crate) async fn put_block(
        self: &Arc<Self>,
        who: &Principal,
        subject: Subject,
        if_absent: bool,
        decide: impl FnOnce(Option<&Decision>) -> Result<(Decision, Change), Problem> + Send + 'static,
    ) -> Result<(u64, Decision, Option<Decision>, Change), Problem> {
        let control = Arc::clone(self);
        let author = who.name.clone();
        let put = move |store: &mut Store, place: u64| {
            control.order.turn().check(Key::Block(subject), place)?;
            let before = store.reader().find(Kind::Block, subject)?;
            let (mut decision, change) = decide(before.as_ref())?;
            if change == Change::Unchanged || if_absent && before.is_some() {
                return Ok((0, decision, before, change));
            }
            if before.is_none() {
                control.make_room(store, subject, 1)?;
            }
            decision.rule = place;
            control.write_block(store, &author, &decision, before.as_ref(), None)?;
            Ok((place, decision, before, change))
        };
        self.order.queue(Key::Block(subject), put).await
    }

    /// Puts a block into store and map, in place of the one before. `besides` is another audit
    /// record about it. The rule of the block is its place in the order. Runs on the store's
    /// thread.
    ///
    /// # Errors
    /// [`ProblemKind::Store`] or [`ProblemKind::Full`] if the store or the map refuses it;
    /// [`ProblemKind::Superseded`] after a later change of the same block. The map is then as
    /// before. The store is as before, too, or gets the later change next.
    pub fn write_block(
        &self,
        store: &mut Store,
        author: &str,
        decision: &Decision,
        before: Option<&Decision>,
        besides: Option<Entry>,
    ) -> Result<(), Problem> {
        let key = Key::Block(decision.subject);
        self.order.turn().check(key, decision.rule)?;
        let action = if before.is_some() { "block move" } else { "block add" };
        store.put_telling(decision, besides, |decision, before| {
            entry(action, author, decision, before)
        })?;
        let written = {
            let turn = self.order.turn();
            turn.check(key, decision.rule)?;
            self.maps.set_block(decision.subject, self.block_entry(decision))
        };
        let Err(error) = written else { return Ok(()) };
        // The store must not claim more than the kernel does.
        let undo = entry("block undo", author, decision, None);
        match before {
            Some(before) => {
                store.put([before], |_, _| undo.clone())?;
            }
            None => {
                store.remove(Kind::Block, decision.subject, undo)?;
            }
        }
        Err(error.into())
    }

    /// Checks that N more blocks fit, before the store has them.
    ///
    /// # Errors
    /// [`ProblemKind::Full`] if they do not fit.
    pub fn room(&self, store: &Reader, subject: Subject, more: u64) -> Result<(), Problem> {
        let capacity = match subject {
            Subject::Number(_) => u64::from(self.config().blocks),
            Subject::Prefix(_) => PREFIXES_MAX,
        };
        let there = store.count_of(Kind::Block, matches!(subject, Subject::Prefix(_)))?;
        if there + more <= capacity {
            return Ok(());
        }
        let what = if matches!(subject, Subject::Prefix(_)) { "prefixes" } else { "numbers" };
        problem(
            ProblemKind::Full,
            format!(
                "full: {there} of {capacity} blocked {what}, and {more} more; nothing was stored. \
                 Remove some, or raise [limits] blocks and restart the daemon"
            ),
        )
    }

    /// Refuses to block a protected or allowed number, and names the author of the allow.
    pub(crate) async fn refuse_protected(&self, subject: Subject) -> Result<(), Problem> {
        let Err(problem) = self.refuse_protected_now(subject) else {
            return Ok(());
        };
        let Some(rule) = self.live_allow(subject)?.map(|allow| allow.rule) else {
            return Err(problem);
        };
        match self.store_handle.read(move |reader| reader.by_rule(rule)).await {
            Ok(Some(decision)) => Err(Problem {
                message: format!("{} ({})", problem.message, describe(&decision)),
                ..problem
            }),
            Ok(None) | Err(_) => Err(problem),
        }
    }

    /// Checks that a block is not longer and not wider than the user's role may set. `expires` is `None` for a
    /// permanent one.
    ///
    /// # Errors
    /// [`ProblemKind::Refused`] with the limit.
    pub fn within_role(
        &self,
        who: &Principal,
        subject: Subject,
        now: Timestamp,
        expires: Option<Timestamp>,
    ) -> Result<(), Problem> {
        if who.role >= Role::Admin {
            return Ok(());
        }
        let limits = self.config().operate;
        let longest = || days(limits.longest_block);
        let why = match (expires, subject) {
            (None, _) => {
                format!("a permanent block needs the role admin: give an end within {}", longest())
            }
            (Some(end), _) if end.duration_since(now) > limits.longest_block => format!(
                "a block of more than {} needs the role admin ([limits] longest_block): give an earlier end",
                longest()
            ),
            (_, Subject::Prefix(prefix)) if prefix.len() < limits.shortest_prefix.into() => {
                format!(
                    "a prefix of fewer than {} digits needs the role admin ([limits] shortest_prefix_operate): give a \
                 longer one",
                    limits.shortest_prefix
                )
            }
            (Some(_), _) => return Ok(()),
        };
        problem(ProblemKind::Refused, why)
    }

    /// Refuses to block a protected or allowed number.
    ///
    /// # Errors
    /// [`ProblemKind::Refused`] with the rule that protects the number.
    pub fn refuse_protected_now(&self, subject: Subject) -> Result<(), Problem> {
        let never = |why: String| problem(ProblemKind::Refused, format!("{subject} {why}"));
        let config = self.config();
        if let Some(found) = self.maps.protected(&subject.key())? {
            let known = config.policy.protected.iter().find(|known| known.entry == found);
            let rule = match known {
                None => subject_of(found.number, subject).to_string(),
                Some(known) if known.is_placeholder => format!(
                    "{known}, which carriers send for everybody who withholds the number; \
                     `protect_placeholders = false` would permit the block"
                ),
                Some(known) => known.to_string(),
            };
            return never(format!("is never blocked: the configuration protects {rule}"));
        }
        if let Some(why) = config.policy.too_short(subject) {
            return never(format!("is never blocked: {why}"));
        }
        match self.live_allow(subject)? {
            None => Ok(()),
            Some(found) => {
                let rule = subject_of(found.number, subject);
                problem(
                    ProblemKind::Refused,
                    format!(
                        "{subject} is not blocked: there is an allow for {rule}; remove that first"
                    ),
                )
            }
        }
    }

    /// Returns the live allow that covers a number or prefix.
    fn live_allow(&self, subject: Subject) -> Result<Option<abi::Allow>, Problem> {
        let now = clock::boot();
        let live = |allow: &abi::Allow| is_live(allow.expires, now);
        let exact = self.live_allow_of(subject)?;
        Ok(exact.or(self.maps.allowed_prefix(&subject.key())?.filter(live)))
    }

    /// Ends the block against a subject.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] if the subject has no block.
    pub async fn unblock(
        self: &Arc<Self>,
        who: &Principal,
        subject: Subject,
        dry_run: bool,
    ) -> Result<Changed<wire::Block>, Problem> {
        // The store is asked first only if the map has no block: unblocking does not wait for a
        // disk.
        let is_in_map =
            |block: Option<abi::Block>| block.filter(|block| block.expires != TOMBSTONE);
        let stored = match is_in_map(self.maps.block(subject)?) {
            Some(_) if !dry_run => None,
            Some(_) | None => Some(self.find_soon(Kind::Block, subject).await),
        };
        let is_stored = !matches!(stored, Some(Ok(None)));
        let mut changed = Changed {
            change: Change::Removed,
            now: unknown_block(subject, None),
            before: None,
            persisted: Persisted::Yes,
            dry_run,
            order: 0,
            in_force: None,
            notes: Vec::new(),
        };
        let removed = Arc::new(Mutex::new(None));
        let kept = {
            let mut turn = self.order.hurry();
            let in_map = is_in_map(self.maps.block(subject)?);
            if in_map.is_none() && !is_stored && !turn.is_waiting(Key::Block(subject)) {
                return problem(ProblemKind::NotFound, not_blocked(&self.maps, subject));
            }
            changed.now = unknown_block(subject, in_map);
            if dry_run {
                None
            } else {
                changed.order = turn.places(1);
                self.lift(subject, changed.order)?;
                let later = Later::new(changed.order, "block remove", &who.name);
                let write = self.removal(who, subject, changed.order, Arc::clone(&removed));
                Some(turn.keep(Key::Block(subject), later, write))
            }
        };
        let stored = match (kept, stored) {
            (None, stored) => stored.and_then(Result::ok).flatten(),
            (Some(kept), Some(stored)) => {
                changed.persisted = kept.await;
                stored.ok().flatten()
            }
            (Some(kept), None) => {
                let (persisted, stored) = tokio::join!(kept, self.find_soon(Kind::Block, subject));
                changed.persisted = persisted;
                stored.ok().flatten()
            }
        };
        let removed = removed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(decision) = removed.or(stored) {
            changed.now = block_of(&decision);
        }
        changed.in_force = self.in_force(subject)?;
        Ok(changed)
    }

    /// Lifts a block in the map. The entry remains until the store knows the change, so that a
    /// restart does not restore the block. A block that is not in the map yet is lifted, too.
    fn lift(&self, subject: Subject, place: u64) -> Result<(), Problem> {
        let there = self.maps.block(subject)?;
        let block = there.unwrap_or(abi::Block { number: subject.raw(), ..abi::Block::default() });
        match self.maps.set_block(subject, abi::Block { expires: TOMBSTONE, rule: place, ..block })
        {
            // The map has no entry that could refuse a call.
            Err(error) if there.is_none() && error.is_full() => Ok(()),
            done => Ok(done?),
        }
    }

    /// Checks the room as [`Control::room`], after ended blocks were removed. Runs on the store's
    /// thread.
    ///
    /// # Errors
    /// [`ProblemKind::Full`] if the blocks do not fit; [`ProblemKind::Store`] if the store takes no
    /// writes.
    pub fn make_room(&self, store: &mut Store, subject: Subject, more: u64) -> Result<(), Problem> {
        loop {
            match self.room(store.reader(), subject, more) {
                Err(full) if full.kind == ProblemKind::Full => {
                    if reconcile::sweep_some(self, store)? == 0 {
                        return Err(full);
                    }
                }
                done => return done,
            }
        }
    }

    /// Returns the job that removes a lifted block from store and map. The stored block goes into
    /// `removed`.
    pub(crate) fn removal(
        self: &Arc<Self>,
        who: &Principal,
        subject: Subject,
        place: u64,
        removed: Arc<Mutex<Option<Decision>>>,
    ) -> impl FnMut(&mut Store) -> Result<(), Error> + Send + use<> {
        let control = Arc::clone(self);
        let author = who.name.clone();
        move |store| {
            let entry = Entry::new(clock::now(), &author, "block remove");
            let found = store.remove(Kind::Block, subject, entry)?;
            *removed.lock().unwrap_or_else(PoisonError::into_inner) = found;
            // After a failure a lifted entry remains, which refuses nothing.
            let _ = control.forget_lifted(subject, place);
            Ok(())
        }
    }
}
