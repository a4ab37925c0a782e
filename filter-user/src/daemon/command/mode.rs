//! Switches the override and the mode.

use std::sync::Arc;

use serde_json::json;

use crate::api::wire::{self, Persisted, Problem, ProblemKind};
use crate::change_plan::checks::end;
use crate::change_plan::override_switch::plan_override;
use crate::daemon::order::Key;
use crate::daemon::role::Principal;
use crate::daemon::state::{Control, problem};
use crate::daemon::switches::{
    MODE, OVERRIDE, StoredMode, StoredOverride, keep_mode, keep_override,
};
use crate::inspect;
use crate::store::{Entry, Store};
use crate::sys::clock;

impl Control {
    /// Reads the override from the kernel's map.
    ///
    /// # Errors
    /// [`ProblemKind::Failed`] if a system call fails.
    pub async fn get_override(&self) -> Result<wire::Override, Problem> {
        let deadline = self.maps.pass_maps().override_until()?;
        let mut found = inspect::override_in_force(deadline);
        if found.until.is_some() {
            let stored = self.store_handle.read_soon(|reader| reader.state(OVERRIDE)).await;
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

    /// Switches the override on or off: it is in force before it is on disk.
    ///
    /// # Errors
    /// [`ProblemKind::Usage`] if it is too long or has no reason; [`ProblemKind::Failed`] if a
    /// system call fails.
    pub async fn set_override(
        &self,
        who: &Principal,
        set: wire::SetOverride,
    ) -> Result<wire::Override, Problem> {
        let now = clock::now();
        let plan = plan_override(&set, now, clock::boot())?;
        let stored = StoredOverride {
            until: plan.until,
            since: Some(now),
            deadline: Some(plan.deadline),
            reason: plan.reason.clone(),
            author: who.name.clone(),
        };
        let (mut persisted, mut order) = (Persisted::Yes, 0);
        if !set.dry_run {
            let action = if plan.is_on() { "override on" } else { "override off" };
            let entry = stored.entry(action);
            let kept = {
                let mut turn = self.order.hurry();
                self.maps.pass_maps().set_override(plan.deadline)?;
                order = turn.places(1);
                keep_override(turn, order, action, stored.clone(), Some(entry))
            };
            persisted = kept.await;
        }
        Ok(plan.answer(stored.author, persisted, order))
    }

    /// Sets the mode. Observe is in force before it is on disk, enforce after.
    ///
    /// # Errors
    /// [`ProblemKind::Usage`] if the mode is unknown; [`ProblemKind::Store`] if the store takes no
    /// writes; [`ProblemKind::Failed`] if a system call fails.
    pub async fn set_mode(
        self: &Arc<Self>,
        who: &Principal,
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
            ended: None,
            persisted,
            dry_run: set.dry_run,
            order,
        })
    }
}
