//! Converts decisions, reports, calls and audit rows of the store to the types of the API.

use filter_common::abi::BLOCK_NO_REDIAL;
use filter_common::abi::BLOCK_OBSERVE;
use filter_common::abi::{self, EVENT_FROM, EVENT_PAI, Verdict};
use filter_common::reason::Reason;
use jiff::Timestamp;

use crate::api::wire;
use crate::daemon::role::Principal;
use crate::model::ladder::{Ladder, Strike};
use crate::model::policy::Subject;
use crate::model::refuse::Refuse;
use crate::store::AuditRow;
use crate::store::CallRow;
use crate::store::EvidenceRow;
use crate::store::{self, Decision, Report, Review};
use crate::sys::clock;

/// Converts a block to the API's type.
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
        refuse: Refuse::of_flags(decision.flags).map(Refuse::name),
    }
}

/// Returns the API's type for a block that only the kernel has.
pub(crate) fn unknown_block(subject: Subject, found: Option<abi::Block>) -> wire::Block {
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
        refuse: Refuse::of_flags(found.flags).map(Refuse::name),
    }
}

/// Converts a review to the API's type.
#[must_use]
pub fn review_of(id: Option<u64>, review: Review) -> wire::Review {
    let (closed, closed_by, note) = match review.closed {
        Some(closed) => (Some(closed.time), Some(closed.by), Some(closed.note)),
        None => (None, None, None),
    };
    wire::Review {
        id,
        time: review.time,
        number: review.number.to_string(),
        kind: review.kind,
        rule: review.rule,
        call_id: review.call_id,
        until: review.until,
        closed,
        closed_by,
        note,
    }
}

/// Converts a report to the API's type.
#[must_use]
pub fn report_of(id: Option<u64>, report: Report, ladder: &Ladder, now: Timestamp) -> wire::Report {
    let Report { time, number, kind, call_id, call, why_not, author, note, .. } = report;
    let strike = call.as_ref().filter(|_| why_not.is_none());
    let strike = strike.map(|call| Strike { time: call.time, kind });
    let counts = strike.filter(|strike| ladder.counts(strike, now));
    let reason = call
        .as_ref()
        .map(|call| Reason::from_number(call.reason).map_or("unknown", Reason::name).to_owned());
    wire::Report {
        id,
        time,
        number: number.to_string(),
        kind,
        call_id,
        call: call.as_ref().map(|call| call.id),
        call_time: call.as_ref().map(|call| call.time),
        trunk: call.as_ref().and_then(|call| call.trunk.clone()),
        reason,
        rule: call.map_or(0, |call| call.rule),
        strike: strike.is_some(),
        counts_hundredths: counts.map_or(0, |strike| ladder.weight(strike.kind)),
        why_not,
        author,
        note,
    }
}

/// Converts the frame of a call to the API's type.
pub fn evidence_of(call: u64, row: &EvidenceRow) -> wire::Evidence {
    wire::Evidence::new(call, row.time, row.frame_len, &row.frame)
}

/// Converts a row of the audit to the API's type.
#[must_use]
pub fn audit_row_of(row: AuditRow) -> wire::AuditRow {
    let hash = store::hex(&row.hash);
    wire::AuditRow { seq: row.seq, record: row.record, hash, number: row.plain }
}

/// Converts a call to the API's type, with the number as this user may see it.
pub fn call(id: u64, row: CallRow, who: &Principal) -> wire::Call {
    let verdict = |number| Verdict::from_number(number).unwrap_or(Verdict::Pass).name().to_owned();
    wire::Call {
        id,
        time: row.time,
        caller: row.number.map(|number| who.mask(number.to_string())),
        trunk: row.trunk,
        source: row.source,
        // A PBX may make it of the caller's number or name.
        call_id: row.call_id.map(|call_id| who.mask_text(call_id)),
        identity: match row.identity {
            EVENT_FROM => Some("from".to_owned()),
            EVENT_PAI => Some("pai".to_owned()),
            _ => None,
        },
        verdict: verdict(row.verdict),
        policy_verdict: verdict(row.policy_verdict),
        reason: Reason::from_number(row.reason).map_or("unknown", Reason::name).to_owned(),
        rule: row.rule,
        repeats: row.repeats,
        attempts: row.count,
        unread: row.unread.map(|text| who.mask_text(text)),
        reply: row.reply,
    }
}
