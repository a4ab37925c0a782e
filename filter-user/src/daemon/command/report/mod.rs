//! Takes reports of calls, and applies the ladder to the strikes.
//!
//! Caller ID can be forged. So a report is a strike only if the call was seen here and was let
//! through. Its trunk must vouch for its number. Every other report is recorded and put on the review
//! list, and blocks nobody.

mod reported_call;

use std::sync::Arc;

use filter_common::abi::{self, CALL_ID_REPORT_MAX};
use filter_common::bytes::Slice;
use filter_common::decide::is_live;
use filter_common::number::Number;
use filter_common::reason::Reason;
use filter_common::sip::message::call_id_hash;
use jiff::{SignedDuration, Timestamp};
use reported_call::{GRANT_END, ReportRequest, grant_ended_since, matched};

use crate::api::wire::{self, Change, Problem, ProblemKind};
use crate::change_plan::checks::check_text;
use crate::change_plan::report::{
    BlockView, Covering, Source, StrikeReport, Unchanged, plan_report,
};
use crate::daemon::convert::{block_of, report_of};
use crate::daemon::decision::subject_of;
use crate::daemon::order::Key;
use crate::daemon::role::Principal;
use crate::daemon::state::{Control, problem};
use crate::datapath;
use crate::model::ladder::{Step, Strike};
use crate::model::policy::Subject;
use crate::store::{Added, Decision, Entry, Kind, Reader, Report, Review, Store};
use crate::sys::clock;

/// Kind of a review that a report led to.
pub const REPORT: &str = "report";
/// Origin of a block that the ladder set.
pub const LADDER: &str = "ladder";
/// The effects of a report.
pub(crate) struct Plan {
    pub(crate) report: Report,
    /// The sum of the strikes, including this one.
    pub(crate) step: Step,
    /// Description of the strikes.
    pub(crate) strikes_text: String,
    /// The block to put, and the one before.
    pub(crate) block: Option<(Decision, Option<Decision>)>,
    /// Whether `block` comes from the ladder, not only from the end of a grant.
    is_ladder: bool,
    /// The attempts that open the next grant, if a redial grant ends with `block`.
    ends_grant: Option<u8>,
    pub(crate) review: Option<Review>,
    pub(crate) problem: Option<Problem>,
    pub(crate) notes: Vec<String>,
}

impl Control {
    /// Records a report, and does what the ladder demands.
    ///
    /// # Errors
    /// [`ProblemKind::Usage`] if the number or a text is not valid; [`ProblemKind::Store`] if the
    /// store takes no writes. Nothing is recorded then.
    pub async fn add_report(
        self: &Arc<Self>,
        who: &Principal,
        add: wire::AddReport,
    ) -> Result<wire::Reported, Problem> {
        let Subject::Number(number) = self.subject(&add.number)? else {
            return problem(ProblemKind::Usage, "report the call of one number, not of a prefix");
        };
        let call_id = add.call_id.filter(|call_id| !call_id.is_empty());
        if call_id.as_ref().is_some_and(|call_id| call_id.len() > CALL_ID_REPORT_MAX) {
            return problem(ProblemKind::Usage, "call_id: no Call-ID is that long");
        }
        check_text("note", &add.note)?;
        let hash = |text: &String| {
            let bytes = text.as_bytes();
            call_id_hash(&Slice::from(bytes), 0, bytes.len())
        };
        let asked = ReportRequest {
            number,
            kind: add.kind,
            call_hash: call_id.as_ref().map(hash),
            call_id,
            author: who.name.clone(),
            note: add.note,
            now: clock::now(),
        };
        let control = Arc::clone(self);
        let (plan, added) = if add.dry_run {
            let plan = move |reader: &Reader| Ok(control.plan(reader, &asked));
            (self.store_handle.read(plan).await??, None)
        } else {
            let take = move |store: &mut Store, place: u64| {
                let plan = control.plan(store.reader(), &asked)?;
                control.carry_out(store, plan, place)
            };
            let key = Key::Block(Subject::Number(number));
            let (plan, added) = self.order.queue(key, take).await?;
            (plan, Some(added))
        };
        let Plan {
            report,
            step,
            strikes_text,
            block,
            is_ladder,
            ends_grant,
            review,
            problem,
            notes,
        } = plan;
        let needs_review = review.is_some();
        let put = block.as_ref().map(|(decision, before)| {
            let change = if before.is_some() { Change::Updated } else { Change::Added };
            (block_of(decision), change)
        });
        let id = added.as_ref().map(|added| added.id);
        let ladder = &self.config().ladder;
        Ok(wire::Reported {
            report: report_of(id, report, ladder, clock::now()),
            strikes_hundredths: step.strikes,
            strikes: strikes_text,
            warning: step.warning,
            change: put.as_ref().filter(|_| is_ladder).map(|(_, change)| *change),
            block: put.as_ref().filter(|_| is_ladder).map(|(block, _)| block.clone()),
            grant_ended: put.filter(|_| ends_grant.is_some()).map(|(block, _)| block),
            needs_review,
            review: added.and_then(|added| added.review),
            problem,
            in_force: self.check(number)?,
            dry_run: add.dry_run,
            notes,
        })
    }

    /// Plans the effects of a report; changes nothing.
    fn plan(&self, reader: &Reader, asked: &ReportRequest) -> Result<Plan, Problem> {
        let config = self.config();
        let ladder = &config.ladder;
        let (call, mut why_not) = matched(&config, reader, asked)?;
        if why_not.is_none() && ladder.weight(asked.kind) == 0 {
            why_not = Some(format!("a {} call weighs nothing on the ladder", asked.kind));
        }
        let is_strike = why_not.is_none();
        let since = asked.now.checked_sub(lasts(ladder.fades)).unwrap_or(Timestamp::MIN);
        let reported = call.as_ref().map(|call| call.id);
        let known = reader.strikes(asked.number, since)?;
        let before: Vec<_> = known.iter().map(|(_, strike)| *strike).collect();
        let before = ladder.judge(&before, asked.now);
        let others = known.into_iter().filter(|(call, _)| Some(*call) != reported);
        let mut strikes: Vec<_> = others.map(|(_, strike)| strike).collect();
        if let Some(call) = call.as_ref().filter(|_| is_strike) {
            strikes.push(Strike { time: call.time, kind: asked.kind });
        }
        let mut plan = Plan {
            step: ladder.judge(&strikes, asked.now),
            strikes_text: ladder.describe(&strikes, asked.now),
            report: Report {
                time: asked.now,
                number: asked.number,
                kind: asked.kind,
                call_id: asked.call_id.clone(),
                call_hash: asked.call_hash,
                call,
                why_not,
                author: asked.author.clone(),
                note: asked.note.clone(),
            },
            block: None,
            is_ladder: false,
            ends_grant: None,
            review: None,
            problem: None,
            notes: Vec::new(),
        };
        let mut look = !is_strike && ladder.weight(asked.kind) > 0;
        let mut seconds = None;
        // A second report about the same call is no second reason for a block.
        if is_strike && plan.step.strikes > before.strikes {
            look |= plan.step.review;
            seconds = plan.step.block;
        }
        if is_strike {
            look |= self.plan_block(reader, &mut plan, seconds)?;
        }
        if look {
            let decision = plan.block.as_ref().map(|(decision, _)| decision);
            plan.review = Some(Review {
                time: asked.now,
                number: asked.number,
                kind: REPORT.to_owned(),
                rule: 0,
                call_id: asked.call_id.clone(),
                until: decision.and_then(|decision| decision.expires).unwrap_or(asked.now),
                closed: None,
            });
        }
        Ok(plan)
    }

    /// Plans what a strike does to the block and the grant of its number; `seconds` is the length of
    /// the ladder's block. Returns whether a person has to look at it, because that block is not set.
    fn plan_block(
        &self,
        reader: &Reader,
        plan: &mut Plan,
        seconds: Option<u64>,
    ) -> Result<bool, Problem> {
        let (number, now, kind) = (plan.report.number, plan.report.time, plan.report.kind);
        let subject = Subject::Number(number);
        let own = reader.find(Kind::Block, subject)?;
        let mut ladder_end = seconds.map(|seconds| now.checked_add(lasts(seconds)).unwrap_or(now));
        if ladder_end.is_some()
            && let Err(problem) = self.may_block(reader, subject, own.as_ref(), now)
        {
            plan.problem = Some(problem);
            ladder_end = None;
        }
        let mut look = plan.problem.is_some();
        let found = self.covering(number)?;
        let origin = found.map(|found| subject_of(found.number, subject));
        let stored = match origin {
            Some(prefix) if prefix != subject => reader.find(Kind::Block, prefix)?,
            Some(_) => own.clone(),
            None => None,
        };
        let covering = found.map(|found| Covering {
            block: BlockView {
                expires: stored.as_ref().map_or(0, |stored| nanoseconds(stored.expires)),
                ..BlockView::of(&found)
            },
            is_own: found.number == number,
        });
        let granted = plan.report.call.as_ref();
        let granted = granted.filter(|call| call.reason == Reason::RedialGrant as u8);
        let strike = StrikeReport {
            now: nanoseconds(Some(now)),
            kind,
            ladder_end: ladder_end.map(|end| nanoseconds(Some(end))),
            was_granted: granted.is_some(),
            was_ended: match granted {
                Some(call) => grant_ended_since(reader, number, call.time)?,
                None => false,
            },
            factor: 2,
        };
        let planned = plan_report(&strike, own.as_ref().map(view).as_ref(), covering.as_ref());
        if let (Some(why), Some(own)) = (planned.unchanged, &own) {
            look |= why == Unchanged::IsSpecial;
            plan.notes.push(why_unchanged(own, why));
        }
        let Some((source, wanted)) = planned.block else { return Ok(look) };
        let mut decision = match (source, stored) {
            (Source::Ladder, _) => Decision {
                id: own.as_ref().map_or_else(uuid::Uuid::now_v7, |own| own.id),
                rule: 0,
                kind: Kind::Block,
                subject,
                created: now,
                expires: ladder_end,
                reason: plan.strikes_text.clone(),
                author: plan.report.author.clone(),
                origin: LADDER.to_owned(),
                node: self.node().to_owned(),
                flags: wanted.flags,
                redial: own.as_ref().and_then(|own| own.redial),
                epoch: 0,
                incident: None,
            },
            (Source::OwnBlock | Source::PrefixBlock, None) => {
                let subject = origin.unwrap_or(subject);
                let what = "is only in the kernel's map: its redial grant remains";
                plan.notes.push(format!("the block against {subject} {what}"));
                return Ok(look);
            }
            (Source::OwnBlock, Some(stored)) => stored,
            (Source::PrefixBlock, Some(stored)) => {
                if let Err(problem) = self.room(reader, subject, 1) {
                    plan.problem = Some(problem);
                    return Ok(look);
                }
                let prefix = stored.subject;
                Decision {
                    id: uuid::Uuid::now_v7(),
                    subject,
                    created: now,
                    expires: Timestamp::from_nanosecond(wanted.expires.into()).ok(),
                    reason: format!("{kind} reported on a redial grant from {prefix}"),
                    author: plan.report.author.clone(),
                    origin: LADDER.to_owned(),
                    ..stored
                }
            }
        };
        decision.epoch = wanted.epoch;
        if planned.ends_grant != Some(0) {
            decision.redial = wanted.redial;
        }
        let before = own.filter(|_| source != Source::PrefixBlock);
        plan.block = Some((decision, before));
        plan.is_ladder = source == Source::Ladder;
        plan.ends_grant = planned.ends_grant;
        Ok(look)
    }

    /// Checks that a number may be blocked, and that there is room if it has no live block yet.
    fn may_block(
        &self,
        reader: &Reader,
        subject: Subject,
        own: Option<&Decision>,
        now: Timestamp,
    ) -> Result<(), Problem> {
        self.refuse_protected_now(subject)?;
        match own.filter(|own| own.expires.is_none_or(|end| end > now)) {
            Some(_) => Ok(()),
            None => self.room(reader, subject, 1),
        }
    }

    /// Returns the block of the kernel's maps that decides on a number.
    fn covering(&self, number: Number) -> Result<Option<abi::Block>, datapath::Error> {
        let now = clock::boot();
        let live = |block: &abi::Block| is_live(block.expires, now);
        let subject = Subject::Number(number);
        let own = self.maps.block(subject)?.filter(live);
        Ok(own.or(self.maps.blocked_prefix(&subject.key())?.filter(live)))
    }

    /// Carries out a plan: the report first, then the block, unless the number was let through
    /// since the report was accepted. Runs on the store's thread.
    fn carry_out(
        &self,
        store: &mut Store,
        mut plan: Plan,
        place: u64,
    ) -> Result<(Plan, Added), Problem> {
        let report = &plan.report;
        let key = Key::Block(Subject::Number(report.number));
        if plan.block.is_some()
            && let Err(problem) = self.order.turn().check(key, place)
        {
            plan.problem = Some(problem);
            plan.block = None;
            plan.ends_grant = None;
        }
        if let Some((decision, _)) = &mut plan.block {
            decision.rule = place;
            if let Some(review) = &mut plan.review {
                review.rule = decision.rule;
            }
        }
        let mut entry = Entry::new(report.time, &report.author, "report");
        if report.why_not.is_none() {
            entry = entry.with("strikes", plan.strikes_text.as_str());
        }
        let added = store.add_report(report, plan.review.as_ref(), entry)?;
        if let Some((decision, before)) = &plan.block {
            let grant_end = plan.ends_grant.map(|attempts| {
                let mut entry = Entry::new(clock::now(), &report.author, GRANT_END)
                    .with("report", added.id)
                    .with("block", decision.subject.to_string())
                    .with("block_rule", decision.rule)
                    .with("attempts", attempts);
                entry.number = Some(report.number.to_string());
                entry
            });
            let author = &report.author;
            let done = self.write_block(store, author, decision, before.as_ref(), grant_end);
            if let Err(problem) = done {
                if problem.kind != ProblemKind::Superseded {
                    tracing::error!(problem = %problem.message, "a reported number is not blocked");
                }
                plan.problem = Some(problem);
                plan.block = None;
            }
        }
        Ok((plan, added))
    }
}

/// Reads the parts of a stored block that a report changes.
fn view(decision: &Decision) -> BlockView {
    BlockView {
        expires: nanoseconds(decision.expires),
        flags: decision.flags,
        epoch: decision.epoch,
        redial: decision.redial,
    }
}

/// Converts an end to nanoseconds since 1970; 0: no end.
fn nanoseconds(end: Option<Timestamp>) -> u64 {
    end.map_or(0, |end| u64::try_from(end.as_nanosecond().max(1)).unwrap_or(u64::MAX))
}

/// Describes why the ladder leaves a block unchanged.
fn why_unchanged(own: &Decision, why: Unchanged) -> String {
    let number = own.subject;
    match why {
        Unchanged::LastsLonger => {
            let end = own.expires.map_or("for good".to_owned(), |end| format!("until {end}"));
            format!("unchanged: {number} is blocked {end} already")
        }
        Unchanged::IsSpecial => format!(
            "unchanged: {number} has a block of {} that only observes, or that no redial opens",
            own.author
        ),
    }
}

/// Converts seconds of a ladder, at most a year.
fn lasts(seconds: u64) -> SignedDuration {
    SignedDuration::from_secs(seconds.cast_signed())
}
