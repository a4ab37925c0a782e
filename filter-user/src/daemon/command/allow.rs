//! Adds and removes allows, and ends incidents.

use std::collections::HashMap;
use std::sync::Arc;

use filter_common::abi;

use crate::api::wire::{self, Change, Changed, Persisted, Problem, ProblemKind};
use crate::change_plan::allow::{AllowPlan, Asker, allow_entry, allow_of, asked_allow};
use crate::change_plan::checks::incident_id;
use crate::daemon::decision::{entry, is_offline};
use crate::daemon::order::{Key, Later, Turn, superseded};
use crate::daemon::reconcile;
use crate::daemon::role::Principal;
use crate::daemon::state::{Control, problem};
use crate::model::policy::Subject;
use crate::store::{Decision, Kind, Store};
use crate::sys::clock;

impl Control {
    /// Adds an allow, or updates the existing one: it is in force before it is on disk.
    ///
    /// # Errors
    /// [`ProblemKind::Usage`] if the number or a text is not valid; [`ProblemKind::Full`] if the
    /// map is full.
    pub async fn add_allow(
        self: &Arc<Self>,
        who: &Principal,
        add: wire::AddAllow,
    ) -> Result<Changed<wire::Allow>, Problem> {
        self.put_allow(who, add, "operator", false).await
    }

    /// Allows a number that the centre calls by a way unknown to the filter, for the call-back
    /// grace. An allow that ends later remains.
    ///
    /// # Errors
    /// [`ProblemKind::Refused`] if the grace is off; [`ProblemKind::Usage`] if the number is not
    /// valid; [`ProblemKind::Full`] if the map is full.
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
        let asker = Asker { author: &who.name, origin, node: &self.node };
        let asked = asked_allow(&add, subject, asker, clock::now())?;
        let stored = self.known_allow(subject).await?;
        let (plan, kept) = {
            let mut turn = self.order.hurry();
            let there = self.live_allow_of(subject)?;
            let rule = there.map(|there| there.rule);
            let stored = stored.filter(|stored| Some(stored.rule) == rule);
            let before = turn.unsaved_allow(subject).cloned().or(stored);
            let mut plan = AllowPlan::new(asked, there, before, keep_longer);
            // A removal that waits for the disk was accepted before this.
            if plan.change == Change::Unchanged && turn.is_waiting(Key::Allow(subject)) {
                plan.change = Change::Updated;
            }
            if add.dry_run || plan.change == Change::Unchanged {
                (plan, None)
            } else {
                plan.decision.rule = turn.places(1);
                self.maps.pass_maps().set_allow(subject, allow_entry(&plan.decision))?;
                let action = if plan.before.is_some() { "allow move" } else { "allow add" };
                (plan.clone(), Some(self.keep_allow(turn, action, &who.name, plan.decision)))
            }
        };
        let order = if kept.is_some() { plan.decision.rule } else { 0 };
        let persisted = match kept {
            Some(kept) => kept.await,
            None => Persisted::Yes,
        };
        let notes = plan.notes(self.maps.block(subject)?.as_ref(), clock::boot());
        Ok(plan.answer(add.dry_run, persisted, order, self.in_force(subject)?, notes))
    }

    /// Ends an allow: on disk first, because calls may be refused afterwards.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] if there is no allow; [`ProblemKind::Store`] if the store takes no
    /// writes.
    pub async fn remove_allow(
        self: &Arc<Self>,
        who: &Principal,
        text: &str,
        dry_run: bool,
    ) -> Result<Changed<wire::Allow>, Problem> {
        let subject = self.subject(text)?;
        // Offline changes come first: their note must not restore the allow that is removed now.
        reconcile::adopt_noted(self).await?;
        let mut found = self.take_allow(who, subject, dry_run).await?;
        if found.is_none() && self.maps.pass_maps().allow(subject)?.is_some() {
            // The allow is in force and not stored: it was added without the daemon.
            reconcile::adopt_offline(self).await?;
            found = self.take_allow(who, subject, dry_run).await?;
        }
        let Some((order, decision)) = found else {
            if self.held.is_held() && self.maps.pass_maps().allow(subject)?.is_some() {
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

    /// Ends all allows of an incident: on disk first, because calls may be refused afterwards.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] if the incident has no allow; [`ProblemKind::Store`] if the store
    /// takes no writes.
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
            let offline =
                self.maps.pass_maps().allows()?.into_iter().filter(|(_, allow)| is_offline(allow));
            let offline: HashMap<_, _> = offline.collect();
            let remove = move |store: &mut Store, place: u64| {
                let mut removed = Vec::new();
                let mut later = None;
                for allow in store.reader().of_incident(Kind::Allow, &wanted)? {
                    let offline = offline.get(&allow.subject).copied();
                    match control.remove_stored_allow(store, &who, &allow, place, offline) {
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

    /// Hands an allow that the map has to the store's thread; its rule is its place in the order.
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

    /// Removes an allow from store and map, except in a dry run. Returns its place in the order,
    /// and the stored decision.
    async fn take_allow(
        self: &Arc<Self>,
        who: &Principal,
        subject: Subject,
        dry_run: bool,
    ) -> Result<Option<(u64, Decision)>, Problem> {
        if dry_run {
            let find = move |store: &mut Store| Ok(store.reader().find(Kind::Allow, subject)?);
            // On the thread, because a change in force that waits for the disk counts.
            return Ok(self.store_handle.write_through(find).await?.map(|decision| (0, decision)));
        }
        let (control, who) = (Arc::clone(self), who.clone());
        let offline = self.maps.pass_maps().allow(subject)?.filter(is_offline);
        let take = move |store: &mut Store, place: u64| {
            control.order.turn().check(Key::Allow(subject), place)?;
            let Some(decision) = store.reader().find(Kind::Allow, subject)? else {
                return Ok(None);
            };
            control.remove_stored_allow(store, &who, &decision, place, offline)?;
            Ok(Some((place, decision)))
        };
        self.order.queue(Key::Allow(subject), take).await
    }

    /// Removes an allow from the store, and then from the map. `offline` is the allow that root had
    /// added when this was accepted. Runs on the store's thread.
    ///
    /// # Errors
    /// [`ProblemKind::Store`] if the store takes no writes; [`ProblemKind::Superseded`] after a
    /// later change of the same allow.
    fn remove_stored_allow(
        &self,
        store: &mut Store,
        who: &Principal,
        decision: &Decision,
        place: u64,
        offline: Option<abi::Allow>,
    ) -> Result<(), Problem> {
        let subject = decision.subject;
        let is_last = || {
            let turn = self.order.turn();
            turn.check(Key::Allow(subject), place)?;
            // Offline commands take no lock.
            let found = self.maps.pass_maps().allow(subject)?.filter(is_offline);
            if found.is_some() && found != offline {
                return Err(superseded("allow add on the kernel's maps"));
            }
            Ok(turn)
        };
        drop(is_last()?);
        store.remove(Kind::Allow, subject, entry("allow remove", &who.name, decision, None))?;
        let _turn = is_last()?;
        self.maps.pass_maps().remove_allow(subject)?;
        Ok(())
    }
}
