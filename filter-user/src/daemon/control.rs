//! What can be asked of the daemon, and in which order it happens.
//!
//! What lets through (override, allow, the end of a block, observe) is in the kernel's maps before
//! anything else and never waits for a disk. What blocks is on disk first, and waits for its turn on
//! the store's thread. [`super::order`] keeps an earlier change from undoing a later one.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use filter_common::abi::{
    self, BLOCK_NO_REDIAL, BLOCK_OBSERVE, LIFTED, MODE_ENFORCE, MODE_OBSERVE, RULE_DIRECT, Verdict,
};
use filter_common::number::Number;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::chores::Chores;
use super::held::Held;
use super::keeper::{Keeper, refused};
use super::order::{Key, Later, Order, Turn, superseded};
use super::reconcile;
use super::retention::Limit;
use super::reviews::review_of;
use super::top::Busiest;
use crate::clock;
use crate::config::Config;
use crate::datapath::{self, Maps};
use crate::free_text;
use crate::number_text;
use crate::policy::{Policy, Subject};
use crate::redial::Redial;
use crate::status;
use crate::store::{Closed, Decision, Entry, Error, Kind, Reader, Review, Store};
use crate::wire::{self, Change, Changed, Check, NextAttempt, Persisted, Problem, ProblemKind};

/// Keys of the store's state.
pub const OVERRIDE: &str = "override";
/// See [`OVERRIDE`].
pub const MODE: &str = "mode";
/// Prefixes that fit into a trie of `filter-ebpf/src/maps.rs`.
pub const PREFIXES_MAX: u64 = 4096;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Name of the user.
    pub name: String,
    /// What the user may do.
    pub role: Role,
}

/// What a user may do; each may what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Nothing.
    None,
    /// Look, with masked numbers.
    Read,
    /// Report calls.
    Report,
    /// Block, allow, override.
    Operate,
    /// Everything.
    Admin,
}

/// The state of the daemon that its tasks share.
pub struct Control {
    /// The live maps.
    pub maps: Maps,
    /// Where they are pinned.
    pub folder: PathBuf,
    /// The store.
    pub keeper: Keeper,
    /// The order of all changes; its lock guards what the maps hold of mode, override, blocks and
    /// allows, and the settings.
    pub order: Order,
    /// Differences between store and maps that were repaired.
    pub drift: AtomicU64,
    /// Re-attachments.
    pub reattached: AtomicU32,
    /// Who is refused most.
    pub busiest: Busiest,
    /// What goes wrong where nobody waits for an answer.
    pub chores: Chores,
    /// How much the store may take.
    pub limit: Limit,
    /// Whether the maps keep what they hold, whatever the store says.
    pub held: Held,
    comparison: Mutex<Option<String>>,
    config: RwLock<Arc<Config>>,
    /// Mode and end of enforcing that were put into force; `None`: those of the map.
    mode: Mutex<Option<(u8, u64)>>,
    node: String,
}

fn problem<T>(kind: ProblemKind, message: impl Into<String>) -> Result<T, Problem> {
    Err(Problem { kind, message: message.into() })
}

impl From<datapath::Error> for Problem {
    fn from(error: datapath::Error) -> Problem {
        let kind = if error.is_full() { ProblemKind::Full } else { ProblemKind::Failed };
        Problem { kind, message: error.to_string() }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        refused(&error)
    }
}

impl Control {
    /// The control of loaded maps; `last_rule` is the highest number that a rule ever had.
    #[must_use]
    pub fn new(
        maps: Maps,
        folder: PathBuf,
        keeper: Keeper,
        config: Config,
        node: String,
        last_rule: u64,
    ) -> Control {
        Control {
            maps,
            folder,
            order: Order::new(keeper.clone(), last_rule),
            keeper,
            drift: AtomicU64::new(0),
            reattached: AtomicU32::new(0),
            busiest: Busiest::default(),
            chores: Chores::default(),
            limit: Limit::default(),
            held: Held::default(),
            comparison: Mutex::default(),
            config: RwLock::new(Arc::new(config)),
            mode: Mutex::default(),
            node,
        }
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another configuration into force: ports, trunks, plans, protected numbers.
    ///
    /// # Errors
    /// A map that does not take it.
    pub fn set_config(&self, config: Config) -> Result<(), Problem> {
        let turn = self.order.turn();
        let (mode, until) = self.mode_in_force(&turn)?;
        self.maps.set_protected(&config.policy.protected)?;
        self.write_settings(&turn, &config.policy, mode, until)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        Ok(())
    }

    /// Why store and maps could not be made one when it was last tried.
    #[must_use]
    pub fn comparison(&self) -> Option<String> {
        self.comparison.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that, and tells when it changes.
    pub fn note_comparison(&self, problem: Option<String>) {
        let mut known = self.comparison.lock().unwrap_or_else(PoisonError::into_inner);
        match &problem {
            Some(text) if known.as_ref() != Some(text) => {
                tracing::error!("store and maps are not one: {text}");
            }
            None if known.is_some() => tracing::info!("store and maps are one again"),
            Some(_) | None => {}
        }
        *known = problem;
    }

    /// Name of this edge in decisions.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The number or prefix that a text names under the plan of the profile `default`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn subject(&self, text: &str) -> Result<Subject, Problem> {
        let plan = self.config().policy.trunks[0].profile.plan;
        number_text::typed(text, &plan)
            .map_err(|message| Problem { kind: ProblemKind::Usage, message })
    }

    // ---- blocks ---------------------------------------------------------------------------

    /// Adds a block, or moves the one that is there.
    ///
    /// # Errors
    /// A number that cannot be read, is protected or allowed; a full map; a store that takes no
    /// writes. Then nothing has changed.
    pub async fn add_block(
        self: &Arc<Self>,
        who: &Who,
        add: wire::AddBlock,
    ) -> Result<Changed<wire::Block>, Problem> {
        let subject = self.subject(&add.number)?;
        let now = clock::now();
        let expires = end(now, add.seconds, add.expires, add.permanent)?;
        if expires.is_none() && who.role < Role::Admin {
            return problem(ProblemKind::Refused, "a permanent block needs the role admin");
        }
        if add.reason.trim().is_empty() {
            return problem(ProblemKind::Usage, "a block needs a reason");
        }
        bounded("reason", &add.reason)?;
        let (redial, flags) = redial_of(add.redial, add.no_redial, add.observe)?;
        self.refuse_protected(subject).await?;
        let decision = Decision {
            id: uuid::Uuid::now_v7(),
            rule: 0,
            kind: Kind::Block,
            subject,
            created: now,
            expires,
            reason: add.reason,
            author: who.name.clone(),
            origin: "operator".into(),
            node: self.node.clone(),
            flags,
            redial,
            epoch: 0,
            incident: None,
        };
        let (place, decision, before, change) = if add.dry_run {
            let before = self.find(Kind::Block, subject).await?;
            let (decision, change) = merge(decision, before.as_ref());
            (0, decision, before, change)
        } else {
            let if_absent = add.if_absent;
            self.put_block(who, subject, if_absent, move |before| Ok(merge(decision, before)))
                .await?
        };
        if add.if_absent
            && let Some(before) = &before
        {
            return problem(ProblemKind::Refused, format!("{} is blocked already", name(before)));
        }
        Ok(Changed {
            change,
            now: block_of(&decision),
            before: before.as_ref().map(block_of),
            persisted: Persisted::Yes,
            dry_run: add.dry_run,
            order: place,
            in_force: self.in_force(subject)?,
            notes: Vec::new(),
        })
    }

    /// Puts the block that `decide` makes of the one before. Its place in the order (0: nothing was
    /// changed), the block, the one before, and what changed.
    async fn put_block(
        self: &Arc<Self>,
        who: &Who,
        subject: Subject,
        if_absent: bool,
        decide: impl FnOnce(Option<&Decision>) -> Result<(Decision, Change), Problem> + Send + 'static,
    ) -> Result<(u64, Decision, Option<Decision>, Change), Problem> {
        let control = Arc::clone(self);
        let author = who.name.clone();
        let put = move |store: &mut Store, place: u64| {
            control.order.turn().check(Key::Block(subject), place)?;
            let before = store.find(Kind::Block, subject)?;
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

    /// Puts a block into store and map, in place of the one before; with what else is to be told
    /// of it in the audit. Its rule is its place in the order. Runs on the store's thread.
    ///
    /// # Errors
    /// A store or a map that does not take it, or a later change of the same block. Then the map
    /// is as it was; the store is, too, or the later change comes to it next.
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
        // The store must not say more than the kernel does.
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

    /// Whether so many more blocks fit, before the store says that they are there.
    ///
    /// # Errors
    /// That they do not.
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

    /// As [`Control::room`], after what has ended made room. Runs on the store's thread.
    ///
    /// # Errors
    /// That they do not fit; a store or a map that does not take the change.
    pub fn make_room(&self, store: &mut Store, subject: Subject, more: u64) -> Result<(), Problem> {
        loop {
            match self.room(store, subject, more) {
                Err(full) if full.kind == ProblemKind::Full => {
                    if reconcile::sweep_some(self, store)? == 0 {
                        return Err(full);
                    }
                }
                done => return done,
            }
        }
    }

    /// Refuses what may not be blocked, and says who allowed it.
    async fn refuse_protected(&self, subject: Subject) -> Result<(), Problem> {
        let Err(problem) = self.refuse_protected_now(subject) else {
            return Ok(());
        };
        let Some(rule) = self.live_allow(subject)?.map(|allow| allow.rule) else {
            return Err(problem);
        };
        match self.keeper.read(move |reader| reader.by_rule(rule)).await {
            Ok(Some(decision)) => Err(Problem {
                message: format!("{} ({})", problem.message, told(&decision)),
                ..problem
            }),
            Ok(None) | Err(_) => Err(problem),
        }
    }

    /// Refuses what may not be blocked.
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn refuse_protected_now(&self, subject: Subject) -> Result<(), Problem> {
        let never = |why: String| problem(ProblemKind::Refused, format!("{subject} {why}"));
        let config = self.config();
        if let Some(found) = self.maps.protected(&subject.key())? {
            let known = config.policy.protected.iter().find(|known| known.entry == found);
            let rule = known.map_or_else(
                || subject_of(found.number, subject).to_string(),
                |known| known.to_string(),
            );
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

    /// The kernel's entry for a stored block.
    #[must_use]
    pub fn block_entry(&self, decision: &Decision) -> abi::Block {
        block_entry(decision, self.config().redial)
    }

    /// The allow that is in force for a number or prefix.
    fn live_allow(&self, subject: Subject) -> Result<Option<abi::Allow>, Problem> {
        let now = clock::boot();
        let live = |allow: &abi::Allow| allow.expires == 0 || now < allow.expires;
        let exact = self.maps.allow(subject)?.filter(live);
        Ok(exact.or(self.maps.allowed_prefix(&subject.key())?.filter(live)))
    }

    /// Ends a block.
    ///
    /// # Errors
    /// There is none.
    pub async fn remove_block(
        self: &Arc<Self>,
        who: &Who,
        text: &str,
        dry_run: bool,
    ) -> Result<Changed<wire::Block>, Problem> {
        self.unblock(who, self.subject(text)?, dry_run).await
    }

    /// Ends the block against a subject.
    ///
    /// # Errors
    /// There is none.
    pub async fn unblock(
        self: &Arc<Self>,
        who: &Who,
        subject: Subject,
        dry_run: bool,
    ) -> Result<Changed<wire::Block>, Problem> {
        // Asked first only where the map does not say it: a way out waits for no disk.
        let is_in_map = |block: Option<abi::Block>| block.filter(|block| block.expires != LIFTED);
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
                return problem(ProblemKind::NotFound, format!("{subject} is not blocked"));
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

    /// Ends a block in the map, where it stays until the store knows: a restart must not bring it
    /// back. One that is not in the map yet is lifted all the same, for the same reason.
    fn lift(&self, subject: Subject, place: u64) -> Result<(), Problem> {
        let there = self.maps.block(subject)?;
        let block = there.unwrap_or(abi::Block { number: subject.raw(), ..abi::Block::default() });
        match self.maps.set_block(subject, abi::Block { expires: LIFTED, rule: place, ..block }) {
            // Nothing is in the map that could refuse.
            Err(error) if there.is_none() && error.is_full() => Ok(()),
            done => Ok(done?),
        }
    }

    /// Takes a lifted block out of store and map; what the store had goes into `removed`.
    fn removal(
        self: &Arc<Self>,
        who: &Who,
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
            // A failure leaves a lifted entry, which refuses nothing.
            let _ = control.forget_lifted(subject, place);
            Ok(())
        }
    }

    /// Takes an entry out of the map that was lifted at this place of the order or before.
    ///
    /// # Errors
    /// A failing system call.
    pub fn forget_lifted(&self, subject: Subject, place: u64) -> Result<(), datapath::Error> {
        let _turn = self.order.turn();
        let lifted = |block: &abi::Block| block.expires == LIFTED && block.rule <= place;
        if self.maps.block(subject)?.as_ref().is_some_and(lifted) {
            self.maps.remove_block(subject)?;
        }
        Ok(())
    }

    /// One block.
    ///
    /// # Errors
    /// There is none.
    pub async fn show_block(&self, text: &str) -> Result<wire::Block, Problem> {
        let subject = self.subject(text)?;
        match self.find(Kind::Block, subject).await? {
            Some(decision) => Ok(block_of(&decision)),
            None => problem(ProblemKind::NotFound, format!("{subject} is not blocked")),
        }
    }

    // ---- allows ---------------------------------------------------------------------------

    /// Adds an allow, or moves the one that is there: in force before it is on disk.
    ///
    /// # Errors
    /// A number that cannot be read; a full map.
    pub async fn add_allow(
        self: &Arc<Self>,
        who: &Who,
        add: wire::AddAllow,
    ) -> Result<Changed<wire::Allow>, Problem> {
        self.put_allow(who, add, "operator", false).await
    }

    /// The centre calls a number by a way that the filter does not see: an allow for as long as
    /// the call-back grace. One that ends later stays as it is.
    ///
    /// # Errors
    /// The grace is off; a number that cannot be read; a full map.
    pub async fn callback(
        self: &Arc<Self>,
        who: &Who,
        call: wire::Callback,
    ) -> Result<Changed<wire::Allow>, Problem> {
        let grace = self.config().policy.settings.callback_grace;
        if grace == 0 {
            let message = "call-back grace is off: set grace in [callback] of palang.toml";
            return problem(ProblemKind::Refused, message);
        }
        if let Subject::Prefix(_) = self.subject(&call.number)? {
            return problem(ProblemKind::Usage, "a call goes to one number, not to a prefix");
        }
        let add = wire::AddAllow {
            number: call.number,
            seconds: Some(grace.into()),
            expires: None,
            comment: "called back".into(),
            incident: None,
            dry_run: call.dry_run,
        };
        self.put_allow(who, add, "callback", true).await
    }

    async fn put_allow(
        self: &Arc<Self>,
        who: &Who,
        add: wire::AddAllow,
        origin: &str,
        keep_longer: bool,
    ) -> Result<Changed<wire::Allow>, Problem> {
        let subject = self.subject(&add.number)?;
        let now = clock::now();
        let incident = add.incident.map(|incident| incident_id(&incident)).transpose()?;
        bounded("comment", &add.comment)?;
        let endless = add.seconds.is_none() && add.expires.is_none();
        let expires = end(now, add.seconds, add.expires, endless)?;
        let fresh = Decision {
            id: uuid::Uuid::now_v7(),
            rule: 0,
            kind: Kind::Allow,
            subject,
            created: now,
            expires,
            reason: add.comment,
            author: who.name.clone(),
            origin: origin.into(),
            node: self.node.clone(),
            flags: 0,
            redial: None,
            epoch: 0,
            incident,
        };
        let mut stored = self.find_soon(Kind::Allow, subject).await;
        let there = self.maps.allow(subject)?.map(|there| there.rule);
        if stored.as_ref().is_ok_and(|stored| stored.as_ref().map(|stored| stored.rule) != there) {
            // It changed in between.
            stored = self.find_soon(Kind::Allow, subject).await;
        }
        let (put, kept) = {
            let mut turn = self.order.hurry();
            let there = self.maps.allow(subject)?;
            let rule = there.map(|there| there.rule);
            let stored = stored.ok().flatten().filter(|stored| Some(stored.rule) == rule);
            let before = turn.unsaved_allow(subject).cloned().or(stored);
            let mut put = PutAllow::plan(fresh, there, before, keep_longer);
            // What takes the allow away and waits for the disk was accepted before this.
            if put.change == Change::Unchanged && turn.is_waiting(Key::Allow(subject)) {
                put.change = Change::Moved;
            }
            if add.dry_run || put.change == Change::Unchanged {
                (put, None)
            } else {
                put.decision.rule = turn.places(1);
                self.maps.set_allow(subject, allow_entry(&put.decision))?;
                let action = if put.before.is_some() { "allow move" } else { "allow add" };
                (put.clone(), Some(self.keep_allow(turn, action, &who.name, put.decision)))
            }
        };
        let order = if kept.is_some() { put.decision.rule } else { 0 };
        let persisted = match kept {
            Some(kept) => kept.await,
            None => Persisted::Yes,
        };
        let mut notes = Vec::new();
        if let Some(before) = put.before.as_ref().filter(|_| put.stays) {
            notes.push(format!("{} lasts longer, and stays as it was", told(before)));
        }
        if let Some(block) = self.maps.block(subject)?
            && block.expires != LIFTED
            && (block.expires == 0 || clock::boot() < block.expires)
        {
            notes.push(format!("the block against {subject} stays, without effect"));
        }
        Ok(Changed {
            change: put.change,
            now: allow_of(&put.decision),
            before: put.before.as_ref().map(allow_of),
            persisted,
            dry_run: add.dry_run,
            order,
            in_force: self.in_force(subject)?,
            notes,
        })
    }

    /// Hands an allow to the store's thread that the map has already; its rule is its place in the
    /// order.
    fn keep_allow(
        &self,
        turn: Turn<'_>,
        action: &'static str,
        author: &str,
        decision: Decision,
    ) -> impl Future<Output = Persisted> + use<> {
        let later = Later::new(decision.rule, action, author).with_allow(decision.clone());
        let author = author.to_owned();
        turn.keep(Key::Allow(decision.subject), later, move |store| {
            store.put(std::slice::from_ref(&decision), |decision, before| {
                entry(action, &author, decision, before)
            })?;
            Ok(())
        })
    }

    /// Ends an allow: on disk first, because it stops letting through.
    ///
    /// # Errors
    /// There is none; the store takes no writes.
    pub async fn remove_allow(
        self: &Arc<Self>,
        who: &Who,
        text: &str,
        dry_run: bool,
    ) -> Result<Changed<wire::Allow>, Problem> {
        let subject = self.subject(text)?;
        // What root did by hand comes first: its note must not bring back what is removed now.
        reconcile::learn_noted(self).await?;
        let mut found = self.take_allow(who, subject, dry_run).await?;
        if found.is_none() && self.maps.allow(subject)?.is_some() {
            // In force all the same: it was made without us.
            reconcile::learn(self).await?;
            found = self.take_allow(who, subject, dry_run).await?;
        }
        let Some((order, decision)) = found else {
            if self.held.is_held() && self.maps.allow(subject)?.is_some() {
                let message = format!(
                    "the allow for {subject} is only in the kernel's maps, which keep what they \
                     hold: `palang status` says how to decide"
                );
                return problem(ProblemKind::Refused, message);
            }
            return problem(ProblemKind::NotFound, format!("there is no allow for {subject}"));
        };
        Ok(Changed {
            change: Change::Removed,
            now: allow_of(&decision),
            before: None,
            persisted: Persisted::Yes,
            dry_run,
            order,
            in_force: self.in_force(subject)?,
            notes: Vec::new(),
        })
    }

    /// Takes an allow out of store and map, unless it is only asked about: its place in the order,
    /// and what the store had.
    async fn take_allow(
        self: &Arc<Self>,
        who: &Who,
        subject: Subject,
        dry_run: bool,
    ) -> Result<Option<(u64, Decision)>, Problem> {
        if dry_run {
            let find = move |store: &mut Store| Ok(store.find(Kind::Allow, subject)?);
            // On the thread: what is in force and waits for the disk counts.
            return Ok(self.keeper.write(find).await?.map(|decision| (0, decision)));
        }
        let (control, who) = (Arc::clone(self), who.clone());
        let by_hand = self.maps.allow(subject)?.filter(is_by_hand);
        let take = move |store: &mut Store, place: u64| {
            control.order.turn().check(Key::Allow(subject), place)?;
            let Some(decision) = store.find(Kind::Allow, subject)? else { return Ok(None) };
            control.remove_stored_allow(store, &who, &decision, place, by_hand)?;
            Ok(Some((place, decision)))
        };
        self.order.queue(Key::Allow(subject), take).await
    }

    /// Takes an allow out of the store, and then out of the map. `by_hand` is what root had put
    /// there when this was accepted. Runs on the store's thread.
    ///
    /// # Errors
    /// A store that takes no writes; a later change of the same allow.
    fn remove_stored_allow(
        &self,
        store: &mut Store,
        who: &Who,
        decision: &Decision,
        place: u64,
        by_hand: Option<abi::Allow>,
    ) -> Result<(), Problem> {
        let subject = decision.subject;
        let is_last = || {
            let turn = self.order.turn();
            turn.check(Key::Allow(subject), place)?;
            // Root's hand on the maps takes no lock.
            let found = self.maps.allow(subject)?.filter(is_by_hand);
            if found.is_some() && found != by_hand {
                return Err(superseded("allow add on the kernel's maps"));
            }
            Ok(turn)
        };
        drop(is_last()?);
        store.remove(Kind::Allow, subject, entry("allow remove", &who.name, decision, None))?;
        let _turn = is_last()?;
        self.maps.remove_allow(subject)?;
        Ok(())
    }

    /// Ends all allows of an incident: on disk first, because it stops letting through.
    ///
    /// # Errors
    /// There is none; the store takes no writes.
    pub async fn end_incident(
        self: &Arc<Self>,
        who: &Who,
        incident: &str,
        dry_run: bool,
    ) -> Result<wire::IncidentEnded, Problem> {
        let incident = incident_id(incident)?;
        let wanted = incident.clone();
        let (order, removed) = if dry_run {
            let found = self.keeper.read(move |reader| reader.of_incident(Kind::Allow, &wanted));
            (0, found.await?)
        } else {
            let (control, who) = (Arc::clone(self), who.clone());
            let by_hand = self.maps.allows()?.into_iter().filter(|(_, allow)| is_by_hand(allow));
            let by_hand: HashMap<_, _> = by_hand.collect();
            let remove = move |store: &mut Store, place: u64| {
                let mut removed = Vec::new();
                let mut later = None;
                for allow in store.of_incident(Kind::Allow, &wanted)? {
                    let by_hand = by_hand.get(&allow.subject).copied();
                    match control.remove_stored_allow(store, &who, &allow, place, by_hand) {
                        Ok(()) => removed.push(allow),
                        Err(problem) if problem.kind == ProblemKind::Superseded => {
                            later = Some(problem);
                        }
                        Err(problem) => return Err(problem),
                    }
                }
                match later {
                    Some(problem) if removed.is_empty() => Err(problem),
                    Some(_) | None => Ok((place, removed)),
                }
            };
            self.order.queue(Key::Incident, remove).await?
        };
        if removed.is_empty() {
            let message = format!("there is no allow for incident {incident}");
            return problem(ProblemKind::NotFound, message);
        }
        Ok(wire::IncidentEnded {
            incident,
            removed: removed.iter().map(allow_of).collect(),
            dry_run,
            order,
        })
    }

    // ---- reviews --------------------------------------------------------------------------

    /// Notes that somebody looked at an exception.
    ///
    /// # Errors
    /// There is none with this number, or it was closed before; no note; a store that takes no
    /// writes.
    pub async fn close_review(
        &self,
        who: &Who,
        id: u64,
        close: wire::CloseReview,
    ) -> Result<wire::ReviewClosed, Problem> {
        if close.note.trim().is_empty() {
            return problem(ProblemKind::Usage, "say in a note what came of it");
        }
        bounded("note", &close.note)?;
        let closed = Closed { time: clock::now(), by: who.name.clone(), note: close.note };
        let before = if close.dry_run {
            self.keeper.read(move |reader| reader.review(id)).await?
        } else {
            let entry = Entry::new(closed.time, &who.name, "review close")
                .with("note", closed.note.as_str());
            let closed = closed.clone();
            self.keeper.write(move |store| Ok(store.close_review(id, &closed, entry)?)).await?
        };
        let review = still_open(id, before)?;
        Ok(wire::ReviewClosed {
            in_force: self.check(review.number)?,
            review: review_of(Some(id), Review { closed: Some(closed), ..review }),
            dry_run: close.dry_run,
        })
    }

    /// Moves the end of the block that a review is about, and closes the review.
    ///
    /// # Errors
    /// There is no such review, or it was closed before; the number has no block, or one that ends
    /// later; what [`Control::add_block`] says.
    pub async fn extend_review(
        self: &Arc<Self>,
        who: &Who,
        id: u64,
        extend: wire::ExtendReview,
    ) -> Result<wire::ReviewSettled, Problem> {
        bounded("note", &extend.note)?;
        let found = self.keeper.read(move |reader| reader.review(id)).await?;
        let subject = Subject::Number(still_open(id, found)?.number);
        let now = clock::now();
        let expires = end(now, Some(extend.seconds), None, false)?;
        let author = who.name.clone();
        // Of the block as it is when its turn comes: it may have ended, or be another one by then.
        let longer = move |before: Option<&Decision>| {
            let Some(before) = before else {
                let message = format!("{subject} has no block of its own: see `palang block add`");
                return problem(ProblemKind::NotFound, message);
            };
            if before.expires.is_none() || before.expires >= expires {
                let message = format!("that extends nothing: there is {}", told(before));
                return problem(ProblemKind::Usage, message);
            }
            let (author, origin) = (author.clone(), "operator".into());
            let decision = Decision { created: now, expires, author, origin, ..before.clone() };
            Ok((decision, Change::Moved))
        };
        let before = self.find(Kind::Block, subject).await?;
        let (decision, change) = longer(before.as_ref())?;
        self.refuse_protected(subject).await?;
        let (order, decision, before, change) = if extend.dry_run {
            (0, decision, before, change)
        } else {
            self.put_block(who, subject, false, longer).await?
        };
        let note = match (extend.note.trim(), expires) {
            ("", Some(expires)) => format!("block extended until {expires}"),
            _ => extend.note,
        };
        let close = wire::CloseReview { note, dry_run: extend.dry_run };
        let closed = self.close_review(who, id, close).await;
        Ok(wire::ReviewSettled {
            review: settled("the block was extended", closed)?,
            block: Changed {
                change,
                now: block_of(&decision),
                before: before.as_ref().map(block_of),
                persisted: Persisted::Yes,
                dry_run: extend.dry_run,
                order,
                in_force: self.in_force(subject)?,
                notes: Vec::new(),
            },
        })
    }

    /// Ends the block that a review is about, and closes the review.
    ///
    /// # Errors
    /// There is no such review, or it was closed before; the number has no block; no note.
    pub async fn free_review(
        self: &Arc<Self>,
        who: &Who,
        id: u64,
        free: wire::CloseReview,
    ) -> Result<wire::ReviewSettled, Problem> {
        if free.note.trim().is_empty() {
            return problem(ProblemKind::Usage, "say in a note why");
        }
        bounded("note", &free.note)?;
        let found = self.keeper.read(move |reader| reader.review(id)).await?;
        let subject = Subject::Number(still_open(id, found)?.number);
        let block = match self.unblock(who, subject, free.dry_run).await {
            Err(Problem { kind: ProblemKind::NotFound, .. }) => {
                let message = format!(
                    "{subject} has no block of its own: `palang review close` ends the review, and \
                     `palang explain` tells whether a prefix blocks it"
                );
                return problem(ProblemKind::NotFound, message);
            }
            done => done?,
        };
        let closed = self.close_review(who, id, free).await;
        Ok(wire::ReviewSettled { review: settled("the block has ended", closed)?, block })
    }

    // ---- override and mode ----------------------------------------------------------------

    /// The override, by the kernel's map.
    ///
    /// # Errors
    /// A failing system call.
    pub async fn get_override(&self) -> Result<wire::Override, Problem> {
        let deadline = self.maps.override_until()?;
        let mut found = status::override_in_force(deadline);
        if found.until.is_some() {
            let stored = self.keeper.read_soon(|reader| reader.state(OVERRIDE)).await;
            let stored: Option<StoredOverride> = stored.ok().flatten();
            match stored.filter(|stored| stored.is(deadline)) {
                Some(stored) => {
                    found.reason = Some(stored.reason);
                    found.author = Some(stored.author);
                }
                None => found.persisted = Persisted::Pending,
            }
        }
        Ok(found)
    }

    /// Switches the override on or off: in force before it is on disk.
    ///
    /// # Errors
    /// Too long, no reason, a failing system call.
    pub async fn set_override(
        &self,
        who: &Who,
        set: wire::SetOverride,
    ) -> Result<wire::Override, Problem> {
        let life =
            i64::try_from(set.seconds).map_or(SignedDuration::MAX, SignedDuration::from_secs);
        if life > wire::OVERRIDE_MAX {
            return problem(ProblemKind::Usage, "an override lasts at most 7 days");
        }
        if set.seconds > 0 && set.reason.trim().is_empty() {
            return problem(ProblemKind::Usage, "an override needs a reason");
        }
        bounded("reason", &set.reason)?;
        let on = set.seconds > 0;
        let now = clock::now();
        let until = on.then(|| now + life);
        let deadline = if on { clock::boot() + set.seconds * 1_000_000_000 } else { LIFTED };
        let stored = StoredOverride {
            until,
            since: Some(now),
            deadline: Some(deadline),
            reason: set.reason,
            author: who.name.clone(),
        };
        let (mut persisted, mut order) = (Persisted::Yes, 0);
        if !set.dry_run {
            let action = if on { "override on" } else { "override off" };
            let entry = stored.entry(action);
            let kept = {
                let mut turn = self.order.hurry();
                self.maps.set_override(deadline)?;
                order = turn.places(1);
                keep_override(turn, order, action, stored.clone(), Some(entry))
            };
            persisted = kept.await;
        }
        Ok(wire::Override {
            until,
            reason: on.then_some(stored.reason),
            author: on.then_some(stored.author),
            persisted,
            dry_run: set.dry_run,
            order,
        })
    }

    /// The mode in force, by the kernel's map.
    ///
    /// # Errors
    /// A failing system call.
    pub fn get_mode(&self) -> Result<wire::Mode, Problem> {
        Ok(status::mode(&self.maps)?)
    }

    /// Sets the mode. Observe is in force before it is on disk, enforce after.
    ///
    /// # Errors
    /// An unknown mode; a store that takes no writes; a failing system call.
    pub async fn set_mode(
        self: &Arc<Self>,
        who: &Who,
        set: wire::SetMode,
    ) -> Result<wire::Mode, Problem> {
        let enforce = match (set.mode.as_str(), set.seconds) {
            ("enforce", Some(0)) => return problem(ProblemKind::Usage, "0 s is no time"),
            ("enforce", _) => true,
            ("observe", None) => false,
            ("observe", Some(_)) => {
                return problem(ProblemKind::Usage, "observe does not end by itself");
            }
            (other, _) => {
                return problem(ProblemKind::Usage, format!("{other:?}: observe or enforce"));
            }
        };
        let until = match set.seconds {
            Some(seconds) => end(clock::now(), Some(seconds), None, false)?,
            None => None,
        };
        let (mut persisted, mut order) = (Persisted::Yes, 0);
        if !set.dry_run {
            let stored = StoredMode { enforce, since: Some(clock::now()), until };
            let action = if enforce { "mode enforce" } else { "mode observe" };
            let entry = Entry::new(clock::now(), &who.name, action).with("until", json!(until));
            if enforce {
                let control = Arc::clone(self);
                let put = move |store: &mut Store, place: u64| {
                    control.order.turn().check(Key::Mode, place)?;
                    store.set_state(MODE, &stored, Some(entry))?;
                    let turn = control.order.turn();
                    turn.check(Key::Mode, place)?;
                    control.write_mode(&turn, &stored)?;
                    Ok(place)
                };
                order = self.order.queue(Key::Mode, put).await?;
            } else {
                let kept = {
                    let mut turn = self.order.hurry();
                    self.write_mode(&turn, &stored)?;
                    order = turn.places(1);
                    keep_mode(turn, order, action, &who.name, stored, entry)
                };
                persisted = kept.await;
            }
        }
        Ok(wire::Mode {
            mode: if enforce { "enforce" } else { "observe" }.into(),
            until,
            persisted,
            dry_run: set.dry_run,
            order,
        })
    }

    /// Puts a mode into force.
    ///
    /// # Errors
    /// A failing system call.
    pub fn write_mode(&self, turn: &Turn<'_>, stored: &StoredMode) -> Result<(), Problem> {
        let now = clock::now();
        let until = match stored.since {
            // Tells it from maps that nobody has set a mode in.
            Some(_) if !stored.enforce => LIFTED,
            since => clock::kernel_expiry(since.unwrap_or(now), stored.until, now),
        };
        let mode = if stored.enforce { MODE_ENFORCE } else { MODE_OBSERVE };
        self.write_settings(turn, &self.config().policy, mode, until)
    }

    /// Ends enforcing at this boot time at the latest.
    ///
    /// # Errors
    /// A failing system call.
    pub fn end_enforce(&self, turn: &Turn<'_>, until: u64) -> Result<(), Problem> {
        let (mode, before) = self.mode_in_force(turn)?;
        let until = if before == 0 { until } else { before.min(until) };
        self.write_settings(turn, &self.config().policy, mode, until)
    }

    /// The mode and the end of enforcing that the daemon put into force, or found at its start.
    ///
    /// # Errors
    /// A failing system call.
    pub fn mode_in_force(&self, _turn: &Turn<'_>) -> Result<(u8, u64), Problem> {
        let known = *self.mode.lock().unwrap_or_else(PoisonError::into_inner);
        match known {
            Some(known) => Ok(known),
            None => {
                let settings = self.maps.settings()?;
                Ok((settings.mode, settings.enforce_until))
            }
        }
    }

    /// Writes settings, ports, trunks and profiles into the maps. The lock is held from before
    /// they were read.
    fn write_settings(
        &self,
        _turn: &Turn<'_>,
        policy: &Policy,
        mode: u8,
        until: u64,
    ) -> Result<(), Problem> {
        self.maps.set_settings(&with_mode(policy, mode, until))?;
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner) = Some((mode, until));
        Ok(())
    }

    /// Writes what the maps lack of the settings in force: mode, ports, trunks, profiles and
    /// protected numbers. How many of settings and protected entries were wrong.
    ///
    /// # Errors
    /// A failing system call.
    pub fn settle_settings(&self) -> Result<u64, Problem> {
        let turn = self.order.turn();
        let config = self.config();
        let (mode, until) = self.mode_in_force(&turn)?;
        let wrong = self.maps.wrong_protected(&config.policy.protected)?;
        if wrong > 0 {
            tracing::warn!("{wrong} protected entries were changed without the daemon");
            self.maps.set_protected(&config.policy.protected)?;
        }
        if self.maps.has_settings(&with_mode(&config.policy, mode, until))? {
            return Ok(wrong);
        }
        tracing::warn!("mode, ports, trunks or profiles were changed without the daemon");
        self.write_settings(&turn, &config.policy, mode, until)?;
        Ok(wrong + 1)
    }

    // ---- questions ------------------------------------------------------------------------

    /// What a call from a number gets now.
    ///
    /// # Errors
    /// A failing system call.
    pub fn check(&self, number: Number) -> Result<Check, Problem> {
        Ok(status::check(&self.maps, number)?)
    }

    fn in_force(&self, subject: Subject) -> Result<Option<Check>, Problem> {
        match subject {
            Subject::Number(number) => self.check(number).map(Some),
            Subject::Prefix(_) => Ok(None),
        }
    }

    /// Which rule decides on a number, who set it, when it ends, and what the maps hold.
    ///
    /// # Errors
    /// A text that is no number; a failing system call.
    pub async fn explain(&self, text: &str) -> Result<wire::Explain, Problem> {
        let Subject::Number(number) = self.subject(text)? else {
            return problem(ProblemKind::Usage, "explain a number, not a prefix");
        };
        let check = self.check(number)?;
        let subject = Subject::Number(number);
        let key = subject.key();
        let mut steps = Vec::new();
        let mut step = |name: &str, decides: bool, kernel: Option<String>, rule: Option<u64>| {
            steps.push((name.to_owned(), decides, kernel, rule));
        };
        let until = status::live(self.maps.override_until()?);
        let ends = |expires: u64| match expires {
            0 => "no end".to_owned(),
            LIFTED => "lifted".to_owned(),
            time if time <= clock::boot() => format!("ended {}", clock::wall(time)),
            time => format!("ends {}", clock::wall(time)),
        };
        let reason = check.reason.as_str();
        step("override", reason == "override", until.map(ends), None);
        let found = self.maps.protected(&key)?;
        let config = self.config();
        let kernel = match found {
            Some(found) => {
                Some(config.policy.rule_name(found.rule).unwrap_or_else(|| "protected".into()))
            }
            None => config.policy.too_short(subject),
        };
        step("protected", reason == "protected", kernel, None);
        let found = self.maps.allow(subject)?;
        let kernel = found.map(|found| format!("rule {}, {}", found.rule, ends(found.expires)));
        step("allowed-number", reason == "allowed-number", kernel, found.map(|found| found.rule));
        let found = self.maps.allowed_prefix(&key)?;
        let kernel = found.map(|found| {
            let prefix = Subject::of_prefix_entry(found.number);
            format!("{prefix}, rule {}, {}", found.rule, ends(found.expires))
        });
        step("allowed-prefix", reason == "allowed-prefix", kernel, found.map(|found| found.rule));
        let blocked = matches!(reason, "blocked-number" | "blocked-prefix");
        let found = self.maps.block(subject)?;
        let by_number = found
            .is_some_and(|found| ends(found.expires).starts_with("ends") || found.expires == 0);
        let kernel = found.map(|found| format!("rule {}, {}", found.rule, ends(found.expires)));
        step("blocked-number", blocked && by_number, kernel, found.map(|found| found.rule));
        let found = self.maps.blocked_prefix(&key)?;
        let kernel = found.map(|found| {
            let prefix = Subject::of_prefix_entry(found.number);
            let short = config.policy.too_short(prefix);
            let idle = short.map_or_else(String::new, |why| format!(", never in force: {why}"));
            format!("{prefix}, rule {}, {}{idle}", found.rule, ends(found.expires))
        });
        step("blocked-prefix", blocked && !by_number, kernel, found.map(|found| found.rule));
        let granted = check.granted.as_ref();
        let granted = granted.map(|granted| format!("granted until {}", granted.until));
        let next = check.next_attempt.map(|NextAttempt { attempt, of }| {
            format!("the next attempt is {attempt}, attempt {of} passes")
        });
        step("redial-grant", reason == "redial-grant", granted.or(next), None);
        step("mode", reason == "observe", Some(self.get_mode()?.mode), None);

        let rules: Vec<_> = steps.iter().filter_map(|step| step.3).collect();
        let stored = self
            .keeper
            .read(move |reader| {
                rules.into_iter().map(|rule| Ok((rule, reader.by_rule(rule)?))).collect()
            })
            .await;
        let stored: Vec<(u64, Option<Decision>)> = stored.unwrap_or_default();
        let of = |rule: u64| {
            let found = stored.iter().find(|(number, _)| *number == rule);
            found.and_then(|(_, decision)| decision.as_ref()).map(told)
        };
        let steps = steps
            .into_iter()
            .map(|(step, decides, kernel, rule)| wire::Step {
                step,
                kernel,
                store: rule.and_then(of),
                decides,
            })
            .collect();
        Ok(wire::Explain { check, steps })
    }

    /// The stored decision about a subject, for what must not wait.
    async fn find_soon(&self, kind: Kind, subject: Subject) -> Result<Option<Decision>, Problem> {
        self.keeper.read_soon(move |reader| reader.find(kind, subject)).await
    }

    /// The stored decision about a subject.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn find(&self, kind: Kind, subject: Subject) -> Result<Option<Decision>, Problem> {
        self.keeper.read(move |reader| reader.find(kind, subject)).await
    }
}

/// A policy with this mode and end of enforcing.
fn with_mode(policy: &Policy, mode: u8, until: u64) -> Policy {
    let mut policy = policy.clone();
    policy.settings.mode = mode;
    policy.settings.enforce_until = until;
    policy
}

/// Hands an override to the store's thread that the map has already; without an entry it is no
/// news.
pub fn keep_override(
    turn: Turn<'_>,
    place: u64,
    action: &str,
    stored: StoredOverride,
    entry: Option<Entry>,
) -> impl Future<Output = Persisted> + use<> {
    let later = Later::new(place, action, &stored.author);
    turn.keep(Key::Override, later, move |store| store.set_state(OVERRIDE, &stored, entry.clone()))
}

/// Hands a mode to the store's thread that the map has already.
pub fn keep_mode(
    turn: Turn<'_>,
    place: u64,
    action: &str,
    author: &str,
    stored: StoredMode,
    entry: Entry,
) -> impl Future<Output = Persisted> + use<> {
    let later = Later::new(place, action, author);
    turn.keep(Key::Mode, later, move |store| store.set_state(MODE, &stored, Some(entry.clone())))
}

/// Whether root put an allow into the maps without the daemon, which does not know it yet.
fn is_by_hand(allow: &abi::Allow) -> bool {
    allow.rule == RULE_DIRECT
}

/// What an allow that was asked for makes of the one that is there.
#[derive(Clone)]
struct PutAllow {
    decision: Decision,
    before: Option<Decision>,
    change: Change,
    /// The one that is there was made for something other than this incident, and lasts longer.
    stays: bool,
}

impl PutAllow {
    /// `there` is what the map has, `before` what is known of it. With `keep_longer` an allow that
    /// ends later stays as it is.
    fn plan(
        fresh: Decision,
        there: Option<abi::Allow>,
        before: Option<Decision>,
        keep_longer: bool,
    ) -> PutAllow {
        let until = clock::kernel_expiry(fresh.created, fresh.expires, fresh.created);
        let longer =
            there.filter(|there| there.expires == 0 || until != 0 && there.expires >= until);
        let stays = before.as_ref().filter(|before| stays_for_incident(before, &fresh)).cloned();
        if let Some(decision) = stays {
            return PutAllow { decision, before, change: Change::Unchanged, stays: true };
        }
        let is_for_incident = fresh.incident.is_some();
        let (mut decision, mut change) = merge(fresh, before.as_ref());
        match longer {
            Some(_) if keep_longer => {
                decision = before.clone().unwrap_or(decision);
                change = Change::Unchanged;
            }
            // For what, nobody can say now; it must not end with the incident.
            Some(there) if is_for_incident && before.is_none() => {
                decision.expires = (there.expires != 0).then(|| clock::wall(there.expires));
            }
            Some(_) | None => {}
        }
        PutAllow { decision, before, change, stays: false }
    }
}

/// The settings of a block's own, and its flags.
///
/// # Errors
/// What is wrong with them.
pub fn redial_of(
    redial: Option<Redial>,
    no_redial: bool,
    observe: bool,
) -> Result<(Option<Redial>, u8), Problem> {
    if let Some(redial) = redial {
        if no_redial {
            return problem(ProblemKind::Usage, "say one of: redial, no_redial");
        }
        redial.check().or_else(|message| problem(ProblemKind::Usage, message))?;
    }
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    Ok((redial, flag(observe, BLOCK_OBSERVE) | flag(no_redial, BLOCK_NO_REDIAL)))
}

/// What the store keeps of the override.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoredOverride {
    /// Until when; null: off.
    pub until: Option<Timestamp>,
    /// Since when; null: not known.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// What the map has, which tells it from one that somebody else set there.
    #[serde(default)]
    pub deadline: Option<u64>,
    /// Why.
    pub reason: String,
    /// Who.
    pub author: String,
}

impl StoredOverride {
    /// The audit's record of it.
    #[must_use]
    pub fn entry(&self, action: &str) -> Entry {
        Entry::new(clock::now(), &self.author, action)
            .with("reason", self.reason.as_str())
            .with("until", json!(self.until))
    }

    /// Whether it is the one with this deadline in the map.
    #[must_use]
    pub fn is(&self, deadline: u64) -> bool {
        self.deadline == Some(deadline) || self.ends_with(deadline)
    }

    /// Whether it ends with this deadline by the wall clock, which somebody may have set since.
    #[must_use]
    pub fn ends_with(&self, deadline: u64) -> bool {
        let stored = self.until.filter(|until| *until > Timestamp::now());
        match (stored, status::live(deadline).map(clock::wall)) {
            (None, None) => true,
            // Converting between clocks is not exact.
            (Some(stored), Some(in_map)) => {
                in_map.duration_since(stored).abs() < SignedDuration::from_secs(2)
            }
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

/// What the store keeps of the mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoredMode {
    /// Enforce, or observe.
    pub enforce: bool,
    /// Since when.
    pub since: Option<Timestamp>,
    /// When enforce falls back to observe.
    pub until: Option<Timestamp>,
}

/// A review that nobody has closed.
fn still_open(id: u64, found: Option<Review>) -> Result<Review, Problem> {
    match found {
        None => problem(ProblemKind::NotFound, format!("there is no review {id}")),
        Some(Review { closed: Some(before), .. }) => problem(
            ProblemKind::Refused,
            format!("{} closed review {id} at {}: {}", before.by, before.time, before.note),
        ),
        Some(review) => Ok(review),
    }
}

/// The review that was closed after something was done about its block.
fn settled(
    done: &str,
    closed: Result<wire::ReviewClosed, Problem>,
) -> Result<wire::Review, Problem> {
    closed.map(|closed| closed.review).map_err(|problem| Problem {
        message: format!("{done}, but the review is still open: {}", problem.message),
        ..problem
    })
}

/// When a decision ends.
fn end(
    now: Timestamp,
    seconds: Option<u64>,
    expires: Option<Timestamp>,
    endless: bool,
) -> Result<Option<Timestamp>, Problem> {
    let end = match (seconds, expires, endless) {
        (None, None, true) => return Ok(None),
        (Some(seconds), None, false) => i64::try_from(seconds)
            .ok()
            .and_then(|seconds| now.checked_add(SignedDuration::from_secs(seconds)).ok()),
        (None, Some(expires), false) => Some(expires),
        (None, None, false) => {
            return problem(ProblemKind::Usage, "every block ends: say how long, or permanent");
        }
        _ => return problem(ProblemKind::Usage, "say one of: how long, until when, permanent"),
    };
    match end {
        Some(end) if end > now => Ok(Some(end)),
        Some(end) => problem(ProblemKind::Usage, format!("{end} is over already")),
        None => problem(ProblemKind::Usage, "that is longer than there is time"),
    }
}

/// A decision in place of the one before: who first made it, and when, stays.
fn merge(mut decision: Decision, before: Option<&Decision>) -> (Decision, Change) {
    let Some(before) = before else {
        return (decision, Change::Added);
    };
    decision.id = before.id;
    // Whoever was let through stays so.
    decision.epoch = before.epoch;
    let same = decision.expires == before.expires
        && decision.reason == before.reason
        && decision.flags == before.flags
        && decision.incident == before.incident
        && decision.redial == before.redial;
    if same {
        return (before.clone(), Change::Unchanged);
    }
    (decision, Change::Moved)
}

/// The audit's record of a decision.
#[must_use]
pub fn entry(action: &str, author: &str, decision: &Decision, before: Option<&Decision>) -> Entry {
    let mut entry = Entry::new(clock::now(), author, action)
        .with("id", decision.id.to_string())
        .with("expires", json!(decision.expires))
        .with("reason", decision.reason.as_str())
        .with("origin", decision.origin.as_str());
    if decision.flags != 0 {
        entry = entry.with("observe", decision.flags & BLOCK_OBSERVE != 0);
    }
    if let Some(incident) = &decision.incident {
        entry = entry.with("incident", incident.as_str());
    }
    if decision.flags & BLOCK_NO_REDIAL != 0 {
        entry = entry.with("redial", "off");
    } else if let Some(redial) = decision.redial {
        entry = entry.with("redial", redial.to_string());
    }
    match before {
        Some(before) => entry.with("before", json!(before.expires)),
        None => entry,
    }
}

/// The kernel's entry for a stored block; `configured` is for one without settings of its own.
#[must_use]
pub fn block_entry(decision: &Decision, configured: Redial) -> abi::Block {
    let redial = decision.redial.unwrap_or(configured);
    abi::Block {
        number: decision.subject.raw(),
        expires: clock::kernel_expiry(decision.created, decision.expires, clock::now()),
        rule: decision.rule,
        action: Verdict::Drop as u8,
        flags: decision.flags,
        epoch: decision.epoch,
        redial_attempts: redial.attempts,
        redial_window: redial.window,
        redial_grant: redial.grant,
        ..abi::Block::default()
    }
}

/// The kernel's entry for a stored allow.
#[must_use]
pub fn allow_entry(decision: &Decision) -> abi::Allow {
    abi::Allow {
        number: decision.subject.raw(),
        expires: clock::kernel_expiry(decision.created, decision.expires, clock::now()),
        rule: decision.rule,
    }
}

fn name(decision: &Decision) -> String {
    let kind = match decision.kind {
        Kind::Block => "block",
        Kind::Allow => "allow",
    };
    format!("{kind} {}", decision.subject)
}

/// A decision in words: what, until when, who, why.
fn told(decision: &Decision) -> String {
    let end = decision.expires.map_or("no end".to_owned(), |end| format!("until {end}"));
    let author = &decision.author;
    let incident = match &decision.incident {
        Some(incident) => format!(" for incident {incident}"),
        None => String::new(),
    };
    format!("{}{incident} {end}, by {author}: {}", name(decision), decision.reason)
}

/// The name of an incident as it is kept.
fn incident_id(text: &str) -> Result<String, Problem> {
    free_text::incident(text).or_else(|message| problem(ProblemKind::Usage, message))
}

/// Checks a reason, comment or note.
///
/// # Errors
/// It is too long.
pub fn bounded(field: &str, text: &str) -> Result<(), Problem> {
    free_text::text(field, text).or_else(|message| problem(ProblemKind::Usage, message))
}

/// Whether an allow that is there is to stay when one for an incident is asked for: an incident
/// comes and goes, and must not take away what lasts longer for another reason.
fn stays_for_incident(before: &Decision, asked: &Decision) -> bool {
    let longer = match (before.expires, asked.expires) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(before), Some(asked)) => before >= asked,
    };
    asked.incident.is_some() && before.incident != asked.incident && longer
}

/// What an entry that covers a subject is about.
fn subject_of(entry: Number, asked: Subject) -> Subject {
    if entry == asked.raw() { asked } else { Subject::of_prefix_entry(entry) }
}

/// A block as the API tells it.
#[must_use]
pub fn block_of(decision: &Decision) -> wire::Block {
    wire::Block {
        id: decision.id,
        rule: decision.rule,
        number: decision.subject.to_string(),
        created: decision.created,
        expires: decision.expires,
        reason: decision.reason.clone(),
        author: decision.author.clone(),
        origin: decision.origin.clone(),
        node: decision.node.clone(),
        observe: decision.flags & BLOCK_OBSERVE != 0,
        redial: decision.redial,
        no_redial: decision.flags & BLOCK_NO_REDIAL != 0,
    }
}

/// An allow as the API tells it.
#[must_use]
pub fn allow_of(decision: &Decision) -> wire::Allow {
    wire::Allow {
        id: decision.id,
        rule: decision.rule,
        number: decision.subject.to_string(),
        created: decision.created,
        expires: decision.expires,
        comment: decision.reason.clone(),
        author: decision.author.clone(),
        origin: decision.origin.clone(),
        node: decision.node.clone(),
        incident: decision.incident.clone(),
    }
}

/// A block that only the kernel knows.
fn unknown_block(subject: Subject, found: Option<abi::Block>) -> wire::Block {
    let found = found.unwrap_or_default();
    wire::Block {
        id: uuid::Uuid::nil(),
        rule: found.rule,
        number: subject.to_string(),
        created: Timestamp::UNIX_EPOCH,
        expires: (found.expires != 0).then(|| clock::wall(found.expires)),
        reason: "only in the kernel's map; the store does not know it".into(),
        author: String::new(),
        origin: String::new(),
        node: String::new(),
        observe: found.flags & BLOCK_OBSERVE != 0,
        redial: None,
        no_redial: found.flags & BLOCK_NO_REDIAL != 0,
    }
}
