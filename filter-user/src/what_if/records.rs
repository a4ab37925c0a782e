//! Judges the daemon's call records and reports by one policy or by two.
//!
//! A record has the number as it was parsed when the call came. How another numbering plan would
//! have parsed it can no longer be known. The trunk is looked up again, by source address.

use std::collections::HashMap;

use filter_common::abi::{BLOCK_NO_REDIAL, Block, MODE_ENFORCE, PrefixKey, Verdict};
use filter_common::decide::{Call, PolicyLookup as _};
use filter_common::judge::JudgeContext as _;
use filter_common::number::Number;
use filter_common::reason::Reason;
use jiff::Timestamp;

use crate::config::policy_file::PolicyFile;
use crate::model::host_gate::HostGate;
use crate::model::ladder::{ReportKind, Strike};
use crate::model::policy::Subject;
use crate::what_if::tally::Tally;
use crate::what_if::{NO_NUMBER, Outcome};

const SECOND: u64 = 1_000_000_000;
/// Rule number of a block that the ladder sets here. Its name is never shown.
const LADDER_RULE: u64 = u64::MAX;
/// Largest number of attempts of a doubled redial setting, as in the daemon.
const ATTEMPTS_MAX: u8 = 8;

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
            self.gate.forget(record.time);
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
        let enforced = settings.mode == MODE_ENFORCE && profile.mode == MODE_ENFORCE;
        // A policy file does not change exemptions, so a call that was exempt is exempt again.
        let excused = [Reason::EmergencyMark, Reason::CallbackGrace]
            .into_iter()
            .find(|reason| reason.name() == record.outcome.reason);
        let call = Call {
            number: record.number,
            second: Number::NONE,
            call_id: record.call_id,
            enforced: enforced.into(),
            marked: excused.is_some().into(),
        };
        let decision = self.gate.decide(&call, record.time);
        let reason = match excused {
            Some(excused) if decision.reason == Reason::EmergencyMark => excused,
            Some(_) | None => decision.reason,
        };
        Outcome { refused: decision.verdict != Verdict::Pass, reason: reason.name() }
    }

    /// Applies a report that is a strike, as the daemon does (`daemon::reports`).
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
        let covering = self.covering(report.number, nanoseconds(report.time));
        let mut put = seconds.and_then(|seconds| self.block(report, seconds, covering));
        // The redial grant that let the call through ends, and the next one needs more attempts.
        let ended = self.grant_ends.get(&report.number);
        let ends = report.kind.is_misuse()
            && outcome.is_some_and(Outcome::granted)
            && ended.is_none_or(|ended| *ended < report.call_time);
        if let Some(covering) = covering.filter(|_| ends) {
            let block = put.get_or_insert_with(|| own(covering, report));
            block.epoch = covering.epoch.wrapping_add(1);
            if covering.flags & BLOCK_NO_REDIAL == 0 {
                block.redial_attempts =
                    covering.redial_attempts.saturating_mul(2).min(ATTEMPTS_MAX);
                block.redial_window = covering.redial_window;
                block.redial_grant = covering.redial_grant;
            }
            self.grant_ends.insert(report.number, report.time);
        }
        if let Some(block) = put {
            self.gate.put_block(Subject::Number(block.number), block);
        }
    }

    /// Returns the block that decides on a number.
    fn covering(&self, number: Number, now: u64) -> Option<Block> {
        let live = |block: &Block| is_live(block, now);
        let own = self.gate.blocked_number(number).filter(live);
        own.or_else(|| self.gate.blocked_prefix(&PrefixKey::number(number)).filter(live))
    }

    /// Returns the ladder's block; `None` if the existing block is as long or was not set by the ladder.
    fn block(&self, report: &Report, seconds: u64, covering: Option<Block>) -> Option<Block> {
        let now = nanoseconds(report.time);
        let expires = now.saturating_add(seconds.saturating_mul(SECOND));
        let before = self.gate.blocked_number(report.number);
        let live = before.filter(|block| is_live(block, now));
        if live.is_some_and(|b| b.expires == 0 || b.expires >= expires || b.flags != 0) {
            return None;
        }
        // A doubled setting stays doubled, and a grant that ended does not start again.
        let mut block = before.unwrap_or_default();
        if before.is_none() {
            self.file.redial.put(&mut block);
            block.epoch = covering.map_or(0, |covering| covering.epoch);
        }
        let action = Verdict::Drop as u8;
        Some(Block { number: report.number, expires, rule: LADDER_RULE, action, flags: 0, ..block })
    }
}

/// Returns the number's own block. If a prefix covers the number, returns a new block that lasts
/// until no grant of the prefix can still run.
fn own(covering: Block, report: &Report) -> Block {
    if covering.number == report.number {
        return covering;
    }
    let over = nanoseconds(report.time) + u64::from(covering.redial_grant) * SECOND;
    let expires = if covering.expires == 0 { over } else { covering.expires.min(over) };
    Block { number: report.number, expires, ..covering }
}

fn is_live(block: &Block, now: u64) -> bool {
    block.expires == 0 || now < block.expires
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
