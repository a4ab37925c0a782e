//! Judges the daemon's call records and reports by one policy or by two.
//!
//! A record has the number as it was parsed when the call came. How another numbering plan would
//! have parsed it can no longer be known. The trunk is looked up again, by source address.

use std::collections::HashMap;

use filter_common::abi::{Block, MODE_ENFORCE, PrefixKey, Verdict};
use filter_common::decide::is_live;
use filter_common::decide::{Call, PolicyLookup as _};
use filter_common::judge::JudgeContext as _;
use filter_common::number::Number;
use filter_common::reason::Reason;
use jiff::Timestamp;

use crate::change_plan::report::{BlockView, Covering, Source, StrikeReport, plan_report};
use crate::config::policy_file::PolicyFile;
use crate::model::host_gate::HostGate;
use crate::model::ladder::{ReportKind, Strike};
use crate::model::policy::Subject;
use crate::what_if::tally::Tally;
use crate::what_if::{NO_NUMBER, Outcome};

const SECOND: u64 = 1_000_000_000;
/// Rule number of a block that the ladder sets here. Its name is never shown.
const LADDER_RULE: u64 = u64::MAX;

/// A call as recorded by the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// ID of the record.
    pub id: u64,
    /// Time of the call, in nanoseconds since 1970.
    pub time: u64,
    /// The caller; [`Number::NONE`] if none was parsed.
    pub number: Number,
    /// Hash of the Call-ID.
    pub call_id: u64,
    /// Source address; IPv4 is mapped into IPv6.
    pub source: [u8; 16],
    /// Outcome of the call.
    pub outcome: Outcome,
    /// Number of attempts that it covers. The others have the outcome of the first.
    pub attempts: u64,
}

/// A report that is a strike. Each call has at most one: the daemon uses its latest report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Time of the report.
    pub time: Timestamp,
    /// The caller.
    pub number: Number,
    /// Kind of call.
    pub kind: ReportKind,
    /// ID of the call's record.
    pub call: u64,
    /// Time of the call.
    pub call_time: Timestamp,
}

/// Judges records by the policy and by a baseline: another policy, or what was recorded. Records and
/// reports are ordered by time.
#[must_use]
pub fn judge(
    policy: &PolicyFile,
    against: Option<&PolicyFile>,
    records: &[Record],
    reports: &[Report],
) -> Tally {
    let mut tally = Tally::new(true);
    let mut policy = Side::new(policy, reports);
    let mut against = against.map(|against| Side::new(against, reports));
    let mut reports = reports.iter().peekable();
    for record in records {
        while let Some(report) = reports.next_if(|report| nanoseconds(report.time) < record.time) {
            policy.report(report);
            if let Some(side) = &mut against {
                side.report(report);
            }
        }
        let outcome = policy.judge(record);
        let baseline = match &mut against {
            Some(side) => side.judge(record),
            None if record.number == Number::NONE => Outcome::pass(NO_NUMBER),
            None => record.outcome,
        };
        let number = (record.number != Number::NONE).then_some(record.number);
        tally.count(record.attempts, record.time, number, outcome, Some(baseline));
    }
    tally
}

/// Converts a time to nanoseconds since 1970.
#[must_use]
pub fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond().max(0)).unwrap_or(u64::MAX)
}

/// Runs one policy over records and reports.
struct Side<'a> {
    file: &'a PolicyFile,
    gate: HostGate,
    /// Outcomes of the calls that are reported later.
    reported: HashMap<u64, Option<Outcome>>,
    strikes: HashMap<Number, Vec<Strike>>,
    /// Time at which a report ended the redial grant of a number.
    grant_ends: HashMap<Number, Timestamp>,
    forgot: u64,
}

impl<'a> Side<'a> {
    fn new(file: &'a PolicyFile, reports: &[Report]) -> Side<'a> {
        Side {
            file,
            gate: HostGate::new(&file.policy),
            reported: reports.iter().map(|report| (report.call, None)).collect(),
            strikes: HashMap::new(),
            grant_ends: HashMap::new(),
            forgot: 0,
        }
    }

    fn judge(&mut self, record: &Record) -> Outcome {
        if record.time.saturating_sub(self.forgot) > 3600 * SECOND {
            self.forgot = record.time;
            self.gate.drop_expired(record.time);
        }
        let outcome = self.decide(record);
        if let Some(reported) = self.reported.get_mut(&record.id) {
            *reported = Some(outcome);
        }
        outcome
    }

    fn decide(&mut self, record: &Record) -> Outcome {
        if record.number == Number::NONE {
            return Outcome::pass(NO_NUMBER);
        }
        let settings = self.file.policy.settings;
        let trunk = self.gate.trunk(&record.source);
        if trunk == 0 && settings.trunks_configured != 0 {
            return Outcome::pass(Reason::UnknownTrunk.name());
        }
        let Some(profile) = self.gate.profile(trunk) else {
            return Outcome::pass(Reason::NoPolicy.name());
        };
        let separate = profile.separate;
        let enforced = settings.mode == MODE_ENFORCE && profile.mode == MODE_ENFORCE;
        // A policy file does not change grace, so a call that passed by it passes by it again.
        if record.outcome.reason == Reason::CallbackGrace.name() {
            self.gate.put_grace(record.number, record.time + 1);
        }
        let call = Call {
            number: record.number,
            second: Number::NONE,
            call_id: record.call_id,
            // Records have none, so each leg counts.
            identity: 0,
            enforced: enforced.into(),
            separate,
            without_daemon: 0,
        };
        let decision = self.gate.decide(&call, record.time);
        Outcome { refused: decision.verdict != Verdict::Pass, reason: decision.reason.name() }
    }

    /// Applies a report that is a strike, as the daemon does (`change_plan::report`).
    fn report(&mut self, report: &Report) {
        let Some(ladder) = &self.file.ladder else { return };
        let outcome = self.reported.get(&report.call).copied().flatten();
        // A call-taker does not get a refused call, so nobody reports it.
        if outcome.is_some_and(|outcome| outcome.refused) || ladder.weight(report.kind) == 0 {
            return;
        }
        let strikes = self.strikes.entry(report.number).or_default();
        strikes.push(Strike { time: report.call_time, kind: report.kind });
        let seconds = ladder.judge(strikes, report.time).block;
        let now = nanoseconds(report.time);
        let own = self.gate.blocked_number(report.number);
        let found = self.covering(report.number, now);
        let covering = found.map(|found| Covering {
            block: BlockView::of(&found),
            is_own: found.number == report.number,
        });
        let ended = self.grant_ends.get(&report.number);
        let strike = StrikeReport {
            now,
            kind: report.kind,
            ladder_end: seconds.map(|seconds| now.saturating_add(seconds.saturating_mul(SECOND))),
            was_granted: outcome.is_some_and(Outcome::granted),
            was_ended: ended.is_some_and(|ended| *ended >= report.call_time),
            factor: 2,
        };
        let planned =
            plan_report(&strike, own.as_ref().map(BlockView::of).as_ref(), covering.as_ref());
        if planned.ends_grant.is_some() {
            self.grant_ends.insert(report.number, report.time);
        }
        let Some((source, wanted)) = planned.block else { return };
        let before = match source {
            Source::Ladder => {
                Block { rule: LADDER_RULE, action: Verdict::Drop as u8, ..own.unwrap_or_default() }
            }
            Source::OwnBlock | Source::PrefixBlock => found.unwrap_or_default(),
        };
        let mut block = Block {
            number: report.number,
            expires: wanted.expires,
            flags: wanted.flags,
            epoch: wanted.epoch,
            ..before
        };
        wanted.redial.unwrap_or(self.file.redial).put(&mut block);
        self.gate.put_block(Subject::Number(block.number), block);
    }

    /// Returns the block that decides on a number.
    fn covering(&self, number: Number, now: u64) -> Option<Block> {
        let live = |block: &Block| is_live(block.expires, now);
        let own = self.gate.blocked_number(number).filter(live);
        own.or_else(|| self.gate.blocked_prefix(&PrefixKey::number(number)).filter(live))
    }
}

#[cfg(test)]
mod tests {
    use filter_common::number::Digits;

    use super::*;
    use crate::model::ladder::Ladder;
    use crate::model::policy::Policy;
    use crate::model::redial::RedialPolicy;

    const START: i64 = 1_800_000_000;
    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;

    fn number() -> Number {
        Number::e164(Digits::parse("6281234567890").unwrap())
    }

    fn three() -> RedialPolicy {
        RedialPolicy { attempts: 3, ..RedialPolicy::default() }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(START + seconds).unwrap()
    }

    fn record(seconds: i64) -> Record {
        Record {
            id: seconds.cast_unsigned(),
            time: nanoseconds(at(seconds)),
            number: number(),
            call_id: seconds.cast_unsigned(),
            source: [0; 16],
            outcome: Outcome::pass(Reason::NotBlocked.name()),
            attempts: 1,
        }
    }

    /// Returns a report made `later` seconds after its call.
    fn report(call: i64, later: i64, kind: ReportKind) -> Report {
        let (call_time, time) = (at(call), at(call + later));
        Report { time, number: number(), kind, call: call.cast_unsigned(), call_time }
    }

    fn file(subjects: &[Subject], redial: RedialPolicy) -> PolicyFile {
        let mut policy = Policy::default();
        for subject in subjects {
            policy.block(*subject, 0, 0);
        }
        for (_, block) in &mut policy.blocks {
            redial.put(block);
        }
        PolicyFile { policy, redial, ladder: Some(Ladder::default()) }
    }

    /// Returns the reason of each call, in order.
    fn reasons(file: &PolicyFile, calls: &[i64], reports: &[Report]) -> Vec<&'static str> {
        let mut side = Side::new(file, reports);
        let mut reports = reports.iter().peekable();
        let mut judge = |call: &i64| {
            let record = record(*call);
            while let Some(report) =
                reports.next_if(|report| nanoseconds(report.time) < record.time)
            {
                side.report(report);
            }
            side.judge(&record).reason
        };
        calls.iter().map(&mut judge).collect()
    }

    #[test]
    fn strikes_add_up_as_they_are_reported() {
        let file = file(&[], three());
        let (prank, silent) = (report(0, 1, ReportKind::Prank), report(10, 2, ReportKind::Silent));
        let outcomes = |reports: &[Report]| reasons(&file, &[0, 10, HOUR, 2 * DAY], reports);
        let free = ["not-blocked"; 4];
        assert_eq!(outcomes(&[prank]), free);
        assert_eq!(outcomes(&[prank, silent]), free, "1.34 strikes");
        let second = report(10, 2, ReportKind::Abusive);
        let day = ["not-blocked", "not-blocked", "blocked-number", "block-expired"];
        assert_eq!(outcomes(&[prank, second]), day);
        assert_eq!(
            outcomes(&[prank, second, report(HOUR, 1, ReportKind::Prank)]),
            day,
            "it was refused"
        );
        // A late report counts from then on.
        assert_eq!(
            outcomes(&[prank, report(10, 2 * HOUR, ReportKind::Prank)])[2..],
            ["not-blocked", "block-expired"]
        );
    }

    #[test]
    fn report_of_an_unrecorded_call_counts() {
        let file = file(&[], three());
        let before = [report(-HOUR, 1, ReportKind::Prank), report(-HOUR / 2, 1, ReportKind::Prank)];
        assert_eq!(reasons(&file, &[0], &before), ["blocked-number"]);
    }

    /// Blocks a number permanently, itself or by a prefix. Its third attempt is let through and
    /// reported; from then on six attempts are needed.
    #[test]
    fn reported_grant_ends_and_the_next_needs_twice_the_attempts() {
        for subject in [Subject::Number(number()), Subject::Prefix(Digits::parse("62812").unwrap())]
        {
            let file = file(&[subject], three());
            let mut calls: Vec<i64> = (0..3).map(|index| 10 * index).collect();
            calls.extend((0..7).map(|index| 60 + 10 * index));
            let prank = [report(20, 30, ReportKind::Prank)];
            let expected = |calls: &[i64], refused: &[usize]| {
                let all = 0..calls.len();
                all.map(|index| if refused.contains(&index) { "blocked" } else { "redial-grant" })
                    .collect::<Vec<_>>()
            };
            let outcomes = |calls: &[i64], reports: &[Report]| {
                let outcomes = reasons(&file, calls, reports).into_iter();
                let short =
                    |reason: &'static str| reason.split("-number").next().unwrap_or_default();
                outcomes.map(|reason| short(reason).trim_end_matches("-prefix")).collect::<Vec<_>>()
            };
            assert_eq!(outcomes(&calls, &[]), expected(&calls, &[0, 1]), "{subject}");
            assert_eq!(
                outcomes(&calls, &prank),
                expected(&calls, &[0, 1, 3, 4, 5, 6, 7]),
                "{subject}"
            );
            // The grant stays if nothing is reported.
            let silent = [report(20, 30, ReportKind::Silent)];
            assert_eq!(outcomes(&calls, &silent), expected(&calls, &[0, 1]), "{subject}");
            // A second report of a call of the same grant does not double the setting again.
            calls.insert(3, 25);
            let again = [prank[0], report(25, 26, ReportKind::Abusive)];
            assert_eq!(
                outcomes(&calls, &again),
                expected(&calls, &[0, 1, 4, 5, 6, 7, 8]),
                "{subject}"
            );
        }
    }

    #[test]
    fn longer_block_stays() {
        let file = file(
            &[Subject::Number(number())],
            RedialPolicy { attempts: 0, ..RedialPolicy::default() },
        );
        let pranks = [report(-20, 1, ReportKind::Prank), report(-10, 1, ReportKind::Prank)];
        assert_eq!(reasons(&file, &[0, 48 * HOUR], &pranks), ["blocked-number"; 2]);
    }
}
