//! The daemon's call records and reports, judged by one policy or by two.
//!
//! A record has the number as it was read when the call came: how another numbering plan would
//! have read it, nobody knows any more. The trunk is found anew, by the source address.

use std::collections::HashMap;

use filter_common::abi::{BLOCK_NO_REDIAL, Block, MODE_ENFORCE, PrefixKey, Verdict};
use filter_common::gate::Gate as _;
use filter_common::number::Number;
use filter_common::policy::{Call, Lists as _};
use filter_common::reason::Reason;
use jiff::Timestamp;

use super::tally::Tally;
use super::{NO_NUMBER, Outcome};
use crate::host::HostGate;
use crate::ladder::{ReportKind, Strike};
use crate::policy::Subject;
use crate::policy_file::PolicyFile;

const SECOND: u64 = 1_000_000_000;
/// Rule of a block that the ladder sets here. Nobody asks for its name.
const LADDER_RULE: u64 = u64::MAX;
/// Attempts that a doubled redial setting asks for at most, as in the daemon.
const ATTEMPTS_MAX: u8 = 8;

/// A call as the daemon recorded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number in the records.
    pub id: u64,
    /// When it came, in nanoseconds since 1970.
    pub time: u64,
    /// The caller; [`Number::NONE`]: none was read.
    pub number: Number,
    /// Hash of the Call-ID.
    pub call_id: u64,
    /// Source address, IPv4 mapped.
    pub source: [u8; 16],
    /// What became of it.
    pub outcome: Outcome,
}

/// A report that makes a strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// When it was made.
    pub time: Timestamp,
    /// The caller.
    pub number: Number,
    /// What the call was.
    pub kind: ReportKind,
    /// The call's number in the records.
    pub call: u64,
    /// When the call came.
    pub call_time: Timestamp,
}

/// What the policy makes of records, and a baseline: another policy, or what was recorded. Records
/// and reports are in the order of time.
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
        tally.count(record.time, number, outcome, Some(baseline));
    }
    tally
}

/// Nanoseconds since 1970.
#[must_use]
pub fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond().max(0)).unwrap_or(u64::MAX)
}

/// A policy on its way through records and reports.
struct Side<'a> {
    file: &'a PolicyFile,
    gate: HostGate,
    /// What became of the calls that are reported later.
    reported: HashMap<u64, Option<Outcome>>,
    /// By the call that they are about.
    strikes: HashMap<Number, Vec<(u64, Strike)>>,
    /// When a report ended the redial grant of a number.
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
        // No policy file says otherwise, so what excused the call then excuses it again.
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

    /// Does what the daemon does with a report that is a strike (`daemon::reports`).
    fn report(&mut self, report: &Report) {
        let Some(ladder) = &self.file.ladder else { return };
        let outcome = self.reported.get(&report.call).copied().flatten();
        // Nobody hears a call that is refused, so nobody reports it.
        if outcome.is_some_and(|outcome| outcome.refused) || ladder.weight(report.kind) == 0 {
            return;
        }
        let strikes = self.strikes.entry(report.number).or_default();
        // A call is one strike, by what was said of it last.
        strikes.retain(|(call, _)| *call != report.call);
        strikes.push((report.call, Strike { time: report.call_time, kind: report.kind }));
        let strikes: Vec<_> = strikes.iter().map(|(_, strike)| *strike).collect();
        if let Some(seconds) = ladder.judge(&strikes, report.time).block {
            self.block(report.number, nanoseconds(report.time), seconds);
        }
        if report.kind.is_misuse() && outcome.is_some_and(Outcome::granted) {
            self.end_grant(report);
        }
    }

    fn block(&mut self, number: Number, now: u64, seconds: u64) {
        let expires = now.saturating_add(seconds.saturating_mul(SECOND));
        let before = self.gate.blocked_number(number);
        let stays =
            |block: &Block| block.expires == 0 || block.expires >= expires || block.flags != 0;
        if before.filter(|block| is_live(block, now)).is_some_and(|block| stays(&block)) {
            return;
        }
        // What was doubled stays so, and the epoch too.
        let mut block = before.unwrap_or_default();
        if before.is_none() {
            self.file.redial.put(&mut block);
        }
        block = Block { number, expires, rule: LADDER_RULE, flags: 0, ..block };
        block.action = Verdict::Drop as u8;
        self.gate.put_block(Subject::Number(number), block);
    }

    /// The redial grant that let the reported call through is over, and the next one is dearer.
    fn end_grant(&mut self, report: &Report) {
        let ended = self.grant_ends.get(&report.number);
        if ended.is_some_and(|ended| *ended >= report.call_time) {
            return;
        }
        let now = nanoseconds(report.time);
        let own = self.gate.blocked_number(report.number);
        let prefix = || self.gate.blocked_prefix(&PrefixKey::number(report.number));
        let live = |block: &Block| is_live(block, now);
        let Some(mut block) = own.filter(live).or_else(|| prefix().filter(live)) else { return };
        if block.flags & BLOCK_NO_REDIAL == 0 {
            block.redial_attempts = block.redial_attempts.saturating_mul(2).min(ATTEMPTS_MAX);
        }
        block.epoch = block.epoch.wrapping_add(1);
        let subject = if block.number == report.number {
            Subject::Number(report.number)
        } else {
            Subject::of_prefix_entry(block.number)
        };
        self.gate.put_block(subject, block);
        self.grant_ends.insert(report.number, report.time);
    }
}

fn is_live(block: &Block, now: u64) -> bool {
    block.expires == 0 || now < block.expires
}
