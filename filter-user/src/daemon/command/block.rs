//! Adds, removes and shows blocks.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use filter_common::number::Digits;
use jiff::SignedDuration;

use crate::api::wire::{self, Changed, Persisted, Problem, ProblemKind};
use crate::change_plan::allow::{merge, name};
use crate::change_plan::checks::{check_text, end, usage};
use crate::change_plan::shared_number::{self, Sighting};
use crate::daemon::block_change::{redial_of, refuse_flags};
use crate::daemon::convert::block_of;
use crate::daemon::role::Principal;
use crate::daemon::state::{Control, problem};
use crate::inspect::not_blocked;
use crate::model::number_text;
use crate::model::policy::Subject;
use crate::store::{CallFilter, CallRow, Decision, Kind};
use crate::sys::clock;

/// Time before a block of a prefix whose callers are counted.
const IMPACT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Longest time for counting them: the block is in force, and its answer waits.
const COUNTED: Duration = Duration::from_secs(2);

impl Control {
    /// Adds a block, or updates the existing one.
    ///
    /// # Errors
    /// [`ProblemKind::Usage`] if the number or a text is not valid. [`ProblemKind::Refused`] if the
    /// number is protected or allowed. [`ProblemKind::Full`] or [`ProblemKind::Store`] if the map
    /// is full or the store takes no writes. Nothing has changed then.
    pub async fn add_block(
        self: &Arc<Self>,
        who: &Principal,
        add: wire::AddBlock,
    ) -> Result<Changed<wire::Block>, Problem> {
        let subject = self.subject(&add.number)?;
        let plan = self.config().policy.trunks[0].profile.plan;
        number_text::check_length(&add.number, subject, &plan).or_else(usage)?;
        let now = clock::now();
        let expires = end(now, add.seconds, add.expires, add.permanent)?;
        self.within_role(who, subject, now, expires)?;
        if add.reason.trim().is_empty() {
            return problem(ProblemKind::Usage, "a block needs a reason");
        }
        check_text("reason", &add.reason)?;
        let (redial, mut flags) = redial_of(add.redial, add.no_redial, add.observe)?;
        flags |= refuse_flags(add.refuse.as_deref())?;
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
            notes: self.other_callers_note(subject).await,
        })
    }

    /// Returns a note about the callers of a prefix, or about a number that many callers seem to share. If the records
    /// cannot be read, it says so.
    async fn other_callers_note(&self, subject: Subject) -> Vec<String> {
        let number = match subject {
            Subject::Number(number) => number,
            Subject::Prefix(prefix) => return vec![self.callers_note(prefix).await],
        };
        let sightings = self.store_handle.read(move |reader| {
            let filter = CallFilter {
                since: clock::now().checked_sub(shared_number::AGE).ok(),
                number: Some(number),
                limit: Some(shared_number::RECORDS),
                ..CallFilter::default()
            };
            let mut sightings = Vec::new();
            reader.calls(&filter, |(_, CallRow { time, trunk, call_id, .. })| {
                sightings.push(Sighting { time, trunk, call_id });
                ControlFlow::Continue(())
            })?;
            Ok(sightings)
        });
        match sightings.await {
            Ok(sightings) => shared_number::warning(number, &sightings).into_iter().collect(),
            Err(problem) => vec![format!(
                "the calls of this number could not be read, so it is not known whether many callers \
                 share it: {}",
                problem.message
            )],
        }
    }

    async fn callers_note(&self, prefix: Digits) -> String {
        let since = clock::now().checked_sub(IMPACT).unwrap_or_default();
        let counted = self.store_handle.read(move |reader| reader.callers_of(prefix, since));
        let why = match tokio::time::timeout(COUNTED, counted).await {
            Ok(Ok((callers, calls))) => {
                return format!(
                    "callers of {prefix}* in the last 7 days: {callers}, and their calls: {calls}"
                );
            }
            Ok(Err(problem)) => problem.message,
            Err(_) => "there are too many to count".to_owned(),
        };
        format!(
            "the calls of this prefix could not be read, so it is not known how many callers it has: {why}"
        )
    }

    /// Ends a block.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] if the number is not blocked.
    pub async fn remove_block(
        self: &Arc<Self>,
        who: &Principal,
        text: &str,
        dry_run: bool,
    ) -> Result<Changed<wire::Block>, Problem> {
        self.unblock(who, self.subject(text)?, dry_run).await
    }

    /// Returns the block of a number or prefix.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] if the number is not blocked.
    pub async fn show_block(&self, text: &str) -> Result<wire::Block, Problem> {
        let subject = self.subject(text)?;
        match self.find(Kind::Block, subject).await? {
            Some(decision) => Ok(block_of(&decision)),
            None => problem(ProblemKind::NotFound, not_blocked(&self.maps, subject)),
        }
    }
}
