//! TODO-DOC

use crate::api::wire;
use crate::api::wire::{Change, Changed, Persisted, Problem, ProblemKind};
use crate::daemon::convert::allow_of;
use crate::daemon::decision::{allow_entry, bounded, end, entry, is_by_hand, merge, told};
use crate::daemon::order::{Key, Later, Turn, superseded};
use crate::daemon::reconcile;
use crate::daemon::role::Principal;
use crate::daemon::state::{Control, problem};
use crate::model::free_text;
use crate::model::policy::Subject;
use crate::store::{Decision, Entry, Error, Kind, Store};
use crate::sys::clock;
use filter_common::abi::{self, TOMBSTONE};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What an allow that was asked for makes of the one that is there.
#[derive(Clone)]
pub(crate) struct PutAllow {
    pub(crate) decision: Decision,
    pub(crate) before: Option<Decision>,
    pub(crate) change: Change,
    /// The one that is there was made for something other than this incident, and lasts longer.
    stays: bool,
}

impl PutAllow {
    /// `there` is what the map has, `before` what is known of it. With `keep_longer` an allow that
    /// ends later stays as it is.
    pub(crate) fn plan(
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

/// The name of an incident as it is kept.
fn incident_id(text: &str) -> Result<String, Problem> {
    free_text::incident(text).or_else(|message| problem(ProblemKind::Usage, message))
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

impl Control {
    /// Adds an allow, or moves the one that is there: in force before it is on disk.
    ///
    /// # Errors
    /// A number that cannot be read; a full map.
    pub async fn add_allow(
        self: &Arc<Self>,
        who: &Principal,
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
        who: &Principal,
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
        who: &Principal,
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
        let stored = self.known_allow(subject).await?;
        let (put, kept) = {
            let mut turn = self.order.hurry();
            let there = self.live_allow_of(subject)?;
            let rule = there.map(|there| there.rule);
            let stored = stored.filter(|stored| Some(stored.rule) == rule);
            let before = turn.unsaved_allow(subject).cloned().or(stored);
            let mut put = PutAllow::plan(fresh, there, before, keep_longer);
            // What takes the allow away and waits for the disk was accepted before this.
            if put.change == Change::Unchanged && turn.is_waiting(Key::Allow(subject)) {
                put.change = Change::Updated;
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
            && block.expires != TOMBSTONE
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

    /// Ends an allow: on disk first, because it stops letting through.
    ///
    /// # Errors
    /// There is none; the store takes no writes.
    pub async fn remove_allow(
        self: &Arc<Self>,
        who: &Principal,
        text: &str,
        dry_run: bool,
    ) -> Result<Changed<wire::Allow>, Problem> {
        let subject = self.subject(text)?;
        // What root did by hand comes first: its note must not bring back what is removed now.
        reconcile::adopt_noted(self).await?;
        let mut found = self.take_allow(who, subject, dry_run).await?;
        if found.is_none() && self.maps.allow(subject)?.is_some() {
            // In force all the same: it was made without us.
            reconcile::adopt_offline(self).await?;
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

    /// Ends all allows of an incident: on disk first, because it stops letting through.
    ///
    /// # Errors
    /// There is none; the store takes no writes.
    pub async fn end_incident(
        self: &Arc<Self>,
        who: &Principal,
        incident: &str,
        dry_run: bool,
    ) -> Result<wire::IncidentEnded, Problem> {
        let incident = incident_id(incident)?;
        let wanted = incident.clone();
        let (order, removed) = if dry_run {
            let found =
                self.store_handle.read(move |reader| reader.of_incident(Kind::Allow, &wanted));
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

    /// Takes an allow out of store and map, unless it is only asked about: its place in the order,
    /// and what the store had.
    async fn take_allow(
        self: &Arc<Self>,
        who: &Principal,
        subject: Subject,
        dry_run: bool,
    ) -> Result<Option<(u64, Decision)>, Problem> {
        if dry_run {
            let find = move |store: &mut Store| Ok(store.find(Kind::Allow, subject)?);
            // On the thread: what is in force and waits for the disk counts.
            return Ok(self.store_handle.write_through(find).await?.map(|decision| (0, decision)));
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
        who: &Principal,
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

    /// Takes a lifted block out of store and map; what the store had goes into `removed`.
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
            // A failure leaves a lifted entry, which refuses nothing.
            let _ = control.forget_lifted(subject, place);
            Ok(())
        }
    }
}
