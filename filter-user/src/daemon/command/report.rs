//! Reports of calls: which of them are strikes, and what the ladder makes of these.
//!
//! Caller ID can be forged, so a report is a strike only where the call was seen here, was let
//! through, and came on a trunk that vouches for its number. Every other one is on record and on
//! the review list, and blocks nobody.

use crate::daemon::convert::report_of;
use std::ops::ControlFlow;
use std::sync::Arc;

use filter_common::abi::{self, BLOCK_NO_REDIAL, Verdict};
use filter_common::bytes::Slice;
use filter_common::number::Number;
use filter_common::reason::Reason;
use filter_common::sip::message::call_id_hash;
use jiff::{SignedDuration, Timestamp};

use crate::api::wire;
use crate::api::wire::{Change, Problem, ProblemKind};
use crate::config::Config;
use crate::daemon::convert::block_of;
use crate::daemon::decision::bounded;
use crate::daemon::order::Key;
use crate::daemon::role::Principal;
use crate::daemon::state::Control;
use crate::datapath;
use crate::model::ladder::{ReportKind, Step, Strike};
use crate::model::policy::Subject;
use crate::model::redial::Redial;
use crate::store::{
    Added, AuditFilter, CallFilter, CallRow, Decision, Entry, Error, Kind, Reader, Report,
    ReportedCall, Review, Store,
};
use crate::sys::clock;

/// How old a call may be that a report makes a strike of.
const CALL_AGE: SignedDuration = SignedDuration::from_hours(24);
/// Records of one call that are looked at: it is sent again, or comes on two trunks.
const RECORDS: u32 = 100;
/// Longest Call-ID, in bytes.
const CALL_ID_MAX: usize = 4096;
/// Attempts that a doubled redial setting asks for at most.
const ATTEMPTS_MAX: u8 = 8;

/// The kind of a review that a report led to.
pub const REPORT: &str = "report";
/// Origin of a block that the ladder set.
pub const LADDER: &str = "ladder";
/// What the audit calls the end of a redial grant by a report.
const GRANT_END: &str = "grant end";

/// A report as it was asked for.
#[derive(Clone)]
pub(crate) struct JsonBody {
    pub(crate) number: Number,
    pub(crate) kind: ReportKind,
    pub(crate) call_id: Option<String>,
    pub(crate) call_hash: Option<u64>,
    pub(crate) author: String,
    pub(crate) note: String,
    pub(crate) now: Timestamp,
}

/// What a report leads to.
pub(crate) struct Plan {
    pub(crate) report: Report,
    /// What the strikes come to, this one included.
    pub(crate) step: Step,
    /// The same in words.
    pub(crate) told: String,
    /// The block that is to be put, and the one before.
    pub(crate) block: Option<(Decision, Option<Decision>)>,
    /// Of `block`: it is the ladder's, and not only the end of a grant.
    is_ladder: bool,
    /// A redial grant ends with `block`; the attempts that it takes from now on.
    ends_grant: Option<u8>,
    pub(crate) review: Option<Review>,
    pub(crate) problem: Option<Problem>,
    pub(crate) notes: Vec<String>,
}

impl Control {
    /// Takes a report, and does what the ladder says.
    ///
    /// # Errors
    /// A number that cannot be read; a store that takes no writes: then nothing was recorded.
    pub async fn add_report(
        self: &Arc<Self>,
        who: &Principal,
        add: wire::AddReport,
    ) -> Result<wire::Reported, Problem> {
        let usage = |message: &str| Problem { kind: ProblemKind::Usage, message: message.into() };
        let Subject::Number(number) = self.subject(&add.number)? else {
            return Err(usage("report the call of one number, not of a prefix"));
        };
        let call_id = add.call_id.filter(|call_id| !call_id.is_empty());
        if call_id.as_ref().is_some_and(|call_id| call_id.len() > CALL_ID_MAX) {
            return Err(usage("call_id: no Call-ID is as long as that"));
        }
        bounded("note", &add.note)?;
        let hash = |text: &String| {
            let bytes = text.as_bytes();
            call_id_hash(&Slice::from(bytes), 0, bytes.len())
        };
        let asked = JsonBody {
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
                let plan = control.plan(store, &asked)?;
                control.carry_out(store, plan, place)
            };
            let key = Key::Block(Subject::Number(number));
            let (plan, added) = self.order.queue(key, take).await?;
            (plan, Some(added))
        };
        let Plan { report, step, told, block, is_ladder, ends_grant, review, problem, notes } =
            plan;
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
            strikes: told,
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

    /// What a report leads to; changes nothing.
    pub(crate) fn plan(&self, reader: &Reader, asked: &JsonBody) -> Result<Plan, Problem> {
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
            told: ladder.told(&strikes, asked.now),
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
        // What was said of a call again is no second reason for a block.
        if is_strike && plan.step.strikes > before.strikes {
            look |= plan.step.review;
            if let Some(seconds) = plan.step.block {
                look |= self.plan_block(reader, &mut plan, seconds)?;
            }
        }
        if is_strike {
            self.plan_grant_end(reader, &mut plan)?;
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

    /// Plans the ladder's block; whether somebody has to look at it because there is to be none.
    fn plan_block(&self, reader: &Reader, plan: &mut Plan, seconds: u64) -> Result<bool, Problem> {
        let (number, now) = (plan.report.number, plan.report.time);
        let subject = Subject::Number(number);
        if let Err(problem) = self.refuse_protected_now(subject) {
            plan.problem = Some(problem);
            return Ok(true);
        }
        let expires = Some(now.checked_add(lasts(seconds)).unwrap_or(now));
        let before = reader.find(Kind::Block, subject)?;
        let live = before.as_ref().filter(|before| before.expires.is_none_or(|end| end > now));
        if let Some(before) = live {
            if before.expires.is_none() || before.expires >= expires {
                let end =
                    before.expires.map_or("for good".to_owned(), |end| format!("until {end}"));
                plan.notes.push(format!("{number} is blocked {end} already: that stays"));
                return Ok(false);
            }
            if before.flags != 0 {
                let what = "has a block that only observes, or that no redial opens: that stays";
                plan.notes.push(format!("{number} {what} as {} set it", before.author));
                return Ok(true);
            }
        } else if let Err(problem) = self.room(reader, subject, 1) {
            plan.problem = Some(problem);
            return Ok(true);
        }
        let decision = Decision {
            id: before.as_ref().map_or_else(uuid::Uuid::now_v7, |before| before.id),
            rule: 0,
            kind: Kind::Block,
            subject,
            created: now,
            expires,
            reason: plan.told.clone(),
            author: plan.report.author.clone(),
            origin: LADDER.to_owned(),
            node: self.node().to_owned(),
            flags: 0,
            // What was doubled stays so for as long as the number is blocked.
            redial: before.as_ref().and_then(|before| before.redial),
            // A grant that a report has ended under a prefix's block does not begin again.
            epoch: match &before {
                Some(before) => before.epoch,
                None => self.covering(number)?.map_or(0, |covering| covering.epoch),
            },
            incident: None,
        };
        plan.block = Some((decision, before));
        plan.is_ladder = true;
        Ok(false)
    }

    /// Plans the end of the redial grant that let the reported call through: with the ladder's
    /// block where there is one, else by the number's block, or one that is made for it. The kernel drops what
    /// it remembers of another epoch.
    fn plan_grant_end(&self, reader: &Reader, plan: &mut Plan) -> Result<(), Problem> {
        let Some(call) = &plan.report.call else { return Ok(()) };
        let number = plan.report.number;
        if !plan.report.kind.is_misuse()
            || call.reason != Reason::RedialGrant as u8
            || grant_ended_since(reader, number, call.time)?
        {
            return Ok(());
        }
        let Some(covering) = self.covering(number)? else { return Ok(()) };
        let opens = covering.redial_attempts != 0 && covering.flags & BLOCK_NO_REDIAL == 0;
        let attempts = covering.redial_attempts.saturating_mul(2).min(ATTEMPTS_MAX);
        let doubled = opens.then_some(Redial {
            attempts,
            window: covering.redial_window,
            grant: covering.redial_grant,
        });
        if plan.block.is_none() {
            let is_own = covering.number == number;
            let prefix = Subject::of_prefix_entry(covering.number);
            let subject = if is_own { Subject::Number(number) } else { prefix };
            let Some(before) = reader.find(Kind::Block, subject)? else {
                let what = "is only in the kernel's map: its redial grant stays";
                plan.notes.push(format!("the block against {subject} {what}"));
                return Ok(());
            };
            plan.block = if is_own {
                Some((before.clone(), Some(before)))
            } else {
                // Nobody else of this prefix loses a grant: a block of this number's own, until no
                // grant of it can run any more.
                if let Err(problem) = self.room(reader, Subject::Number(number), 1) {
                    plan.problem = Some(problem);
                    return Ok(());
                }
                let now = plan.report.time;
                let over = now.checked_add(lasts(covering.redial_grant.into())).unwrap_or(now);
                let own = Decision {
                    id: uuid::Uuid::now_v7(),
                    subject: Subject::Number(number),
                    created: now,
                    expires: Some(before.expires.map_or(over, |end| end.min(over))),
                    reason: format!(
                        "{} reported on a redial grant from {prefix}",
                        plan.report.kind
                    ),
                    author: plan.report.author.clone(),
                    origin: LADDER.to_owned(),
                    ..before
                };
                Some((own, None))
            };
        }
        if let Some((decision, _)) = &mut plan.block {
            decision.epoch = covering.epoch.wrapping_add(1);
            decision.redial = doubled.or(decision.redial);
            plan.ends_grant = Some(if opens { attempts } else { 0 });
        }
        Ok(())
    }

    /// The block that decides on a number, by the kernel's maps.
    fn covering(&self, number: Number) -> Result<Option<abi::Block>, datapath::Error> {
        let now = clock::boot();
        let live = |block: &abi::Block| block.expires == 0 || now < block.expires;
        let subject = Subject::Number(number);
        let own = self.maps.block(subject)?.filter(live);
        Ok(own.or(self.maps.blocked_prefix(&subject.key())?.filter(live)))
    }

    /// Puts a plan into force: the report first, then the block, unless somebody has let the number
    /// through since the report was accepted. Runs on the store's thread.
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
            entry = entry.with("strikes", plan.told.as_str());
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
                    tracing::error!("a reported number is not blocked: {}", problem.message);
                }
                plan.problem = Some(problem);
                plan.block = None;
            }
        }
        Ok((plan, added))
    }
}

/// Seconds of a ladder, of which there are at most a year's.
fn lasts(seconds: u64) -> SignedDuration {
    SignedDuration::from_secs(seconds.cast_signed())
}

/// The call that a report is about, and why it makes no strike.
fn matched(
    config: &Config,
    reader: &Reader,
    asked: &JsonBody,
) -> Result<(Option<ReportedCall>, Option<String>), Error> {
    let Some(call_hash) = asked.call_hash else {
        return Ok((None, Some("no Call-ID was given".to_owned())));
    };
    let filter = CallFilter {
        number: Some(asked.number),
        call_hash: Some(call_hash),
        limit: Some(RECORDS),
        ..CallFilter::default()
    };
    let mut found: Option<(ReportedCall, Option<String>)> = None;
    reader.calls(&filter, |(id, row)| {
        let why_not = why_no_strike(config, &row, asked.now);
        let is_strike = why_not.is_none();
        if is_strike || found.is_none() {
            let CallRow { time, trunk, reason, rule, .. } = row;
            found = Some((ReportedCall { id, time, trunk, reason, rule }, why_not));
        }
        if is_strike { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some((call, None)) = found {
        return Ok((Some(call), None));
    }
    // Who reports a call again may change what was said of it, for as long as it counts.
    if let Some(call) = reader.strike_of_call(asked.number, call_hash)? {
        return Ok((Some(call), None));
    }
    let (call, why_not) = found.unzip();
    let no_call = || "no call with this number and Call-ID is on record".to_owned();
    Ok((call, Some(why_not.flatten().unwrap_or_else(no_call))))
}

/// Why a report of this call would be no strike.
fn why_no_strike(config: &Config, call: &CallRow, now: Timestamp) -> Option<String> {
    if Verdict::from_number(call.verdict) != Some(Verdict::Pass) {
        return Some("the call was refused, so nobody has heard it".to_owned());
    }
    if now.duration_since(call.time).abs() > CALL_AGE {
        return Some(format!("the call is of {}: only the last 24 hours count", call.time));
    }
    let Some(name) = &call.trunk else {
        return Some("the call came from outside every trunk".to_owned());
    };
    // The first is the profile `default`, which is no trunk.
    let Some(trunk) = config.policy.trunks.iter().skip(1).find(|trunk| trunk.name == *name) else {
        return Some(format!("{name} is no [[trunk]] of palang.toml: its numbers may be forged"));
    };
    let why = || format!("trunk {name} does not vouch for the number, which stood in From");
    (!trunk.vouches_for(call.identity)).then(why)
}

/// Whether a report has ended the grant of a number already, after that call came.
fn grant_ended_since(reader: &Reader, number: Number, since: Timestamp) -> Result<bool, Error> {
    let filter = AuditFilter { since: Some(since), number: Some(number.to_string()) };
    let mut ended = false;
    reader.audit_rows(0, &filter, |row| {
        let record = serde_json::from_str::<serde_json::Value>(&row.record).unwrap_or_default();
        ended = record["action"] == GRANT_END;
        if ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(ended)
}

/// How long reports are kept: as calls, and as long as they count.
#[must_use]
pub fn kept(config: &Config) -> SignedDuration {
    config.calls_kept.max(lasts(config.ladder.fades))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use filter_common::abi::{EVENT_FROM, EVENT_PAI};
    use filter_common::number::Digits;
    use filter_common::plan::{IDENTITY_FROM, IDENTITY_PAI};
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;

    /// A configuration with the trunks `from`, `pai` and `vouches`.
    fn config() -> Config {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("palang.toml");
        let trunk = |name: &str, address: &str, field: &str| {
            format!("[[trunk]]\nname = \"{name}\"\nsources = [\"{address}\"]\n{field}\n")
        };
        let text = [
            "interfaces = []\n[default]\nidentity = \"pai\"\n".to_owned(),
            trunk("from", "192.0.2.1", "identity = \"from\""),
            trunk("pai", "192.0.2.2", ""),
            trunk("vouches", "192.0.2.3", "identity = \"from\"\ntrusts_from = true"),
        ];
        std::fs::write(&file, text.concat()).unwrap();
        Config::read(&file).unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn row(
        at: i64,
        number: u64,
        call: u64,
        trunk: Option<&str>,
        identity: u8,
        verdict: u8,
    ) -> CallRow {
        CallRow {
            time: now() + SignedDuration::from_secs(at),
            number: Some(Number(number)),
            trunk: trunk.map(str::to_owned),
            source: "192.0.2.1:5060".to_owned(),
            call_id: None,
            call_hash: call,
            identity,
            verdict,
            would: verdict,
            reason: Reason::NotBlocked as u8,
            rule: 0,
            repeats: 0,
            count: 1,
        }
    }

    fn asked(number: u64, call_hash: Option<u64>) -> JsonBody {
        JsonBody {
            number: Number(number),
            kind: ReportKind::Prank,
            call_id: None,
            call_hash,
            author: "siti".to_owned(),
            note: String::new(),
            now: now(),
        }
    }

    /// Most calls pass.
    fn verdict() -> impl Strategy<Value = u8> {
        prop_oneof![3 => Just(Verdict::Pass as u8), 1 => Just(Verdict::Drop as u8)]
    }

    fn trunk() -> impl Strategy<Value = Option<&'static str>> {
        let names = ["from", "pai", "vouches", "default", "gone"];
        prop::option::of(prop::sample::select(names.to_vec()))
    }

    /// Among any calls, a report is a strike just where one of them has its number and its Call-ID,
    /// is of the last 24 h, passed, and came on a trunk that vouches for the header that named it.
    #[test]
    fn only_a_matched_and_trusted_call_is_a_strike() {
        let config = config();
        let folder = tempfile::TempDir::new().unwrap();
        let store = RefCell::new(Store::open(&folder.path().join("palang.db")).unwrap());
        let call =
            (-120_000_i64..120_000, 1u64..3, 1u64..3, trunk(), EVENT_FROM..=EVENT_PAI, verdict());
        let calls = prop::collection::vec(call, 0..8);
        let case = (calls, 1u64..3, prop::option::weighted(0.9, 1u64..3));
        let mut runner = TestRunner::new(ProptestConfig::with_cases(256));
        let done = runner.run(&case, |(calls, number, call_id)| {
            let mut store = store.borrow_mut();
            store.prune_calls(Timestamp::MAX, Duration::MAX).unwrap();
            let rows: Vec<_> = calls
                .iter()
                .map(|(at, number, call_id, trunk, identity, verdict)| {
                    row(*at, *number, *call_id, *trunk, *identity, *verdict)
                })
                .collect();
            let ids = store.put_calls(&rows).unwrap();
            let strikes: Vec<_> = ids
                .into_iter()
                .zip(&calls)
                .filter(|(_, (at, of, with, trunk, identity, verdict))| {
                    let vouched = match trunk {
                        Some("vouches") => true,
                        Some("pai") => *identity == EVENT_PAI,
                        _ => false,
                    };
                    let is_it = *of == number && Some(*with) == call_id;
                    is_it && at.abs() <= 86_400 && *verdict == Verdict::Pass as u8 && vouched
                })
                .map(|(id, _)| id)
                .collect();
            let (found, why_not) = matched(&config, &store, &asked(number, call_id)).unwrap();
            prop_assert_eq!(why_not.is_none(), !strikes.is_empty(), "{:?}", why_not);
            if why_not.is_none() {
                prop_assert!(strikes.contains(&found.unwrap().id));
            }
            Ok(())
        });
        done.unwrap();
    }

    #[test]
    fn what_was_a_strike_can_be_said_again_for_as_long_as_it_counts() {
        let config = config();
        assert_eq!(config.policy.trunks[2].profile.identity, IDENTITY_PAI);
        assert_eq!(config.policy.trunks[3].profile.identity, IDENTITY_FROM);
        let folder = tempfile::TempDir::new().unwrap();
        let mut store = Store::open(&folder.path().join("palang.db")).unwrap();
        let pass = Verdict::Pass as u8;
        store.put_calls(&[row(-90_000, 7, 1, Some("vouches"), EVENT_FROM, pass)]).unwrap();
        let ask = |store: &Store| matched(&config, store, &asked(7, Some(1))).unwrap();
        let (call, why_not) = ask(&store);
        assert!(why_not.unwrap().contains("only the last 24 hours count"));
        let report = Report {
            time: now(),
            number: Number(7),
            kind: ReportKind::Prank,
            call_id: None,
            call_hash: Some(1),
            call: call.clone(),
            why_not: None,
            author: "siti".to_owned(),
            note: String::new(),
        };
        store.add_report(&report, None, Entry::new(now(), "siti", "report")).unwrap();
        assert_eq!(ask(&store), (call.clone(), None));
        // Without its record, too.
        store.prune_calls(now(), Duration::MAX).unwrap();
        assert_eq!(ask(&store), (call, None));
    }

    #[test]
    fn a_grant_ends_once() {
        let folder = tempfile::TempDir::new().unwrap();
        let mut store = Store::open(&folder.path().join("palang.db")).unwrap();
        let number = |digits: &str| Number::e164(Digits::parse(digits).unwrap());
        let about = |action: &str, digits: &str| Entry {
            number: Some(number(digits).to_string()),
            ..Entry::new(now(), "siti", action)
        };
        store.audit(about("report", "62811")).unwrap();
        store.audit(about(GRANT_END, "62812")).unwrap();
        let ended = |digits: &str, at: i64| {
            let since = now() + SignedDuration::from_secs(at);
            grant_ended_since(&store, number(digits), since).unwrap()
        };
        assert!(ended("62812", -1) && ended("62812", 0));
        assert!(!ended("62812", 1), "before that call came");
        assert!(!ended("62811", -1));
    }
}
