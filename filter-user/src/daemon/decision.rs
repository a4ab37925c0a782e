//! TODO-DOC

use crate::api::wire::{Change, Problem, ProblemKind};
use crate::daemon::state::{Control, problem};
use crate::model::free_text;
use crate::model::policy::Subject;
use crate::model::redial::Redial;
use crate::store::{Decision, Entry, Kind};
use crate::sys::clock;
use filter_common::abi::{self, BLOCK_NO_REDIAL, BLOCK_OBSERVE, RULE_DIRECT, Verdict};
use filter_common::number::Number;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

/// Whether root put an allow into the maps without the daemon, which does not know it yet.
pub(crate) fn is_by_hand(allow: &abi::Allow) -> bool {
    allow.rule == RULE_DIRECT
}

/// When a decision ends.
pub(crate) fn end(
    now: Timestamp,
    seconds: Option<u64>,
    expires: Option<Timestamp>,
    endless: bool,
) -> Result<Option<Timestamp>, Problem> {
    let end = match (seconds, expires, endless) {
        (None, None, true) => return Ok(None),
        (Some(seconds), None, false) => i64::try_from(seconds)
            .ok()
            .and_then(|seconds| now.checked_add(SignedDuration::from_secs(seconds)).ok()),
        (None, Some(expires), false) => Some(expires),
        (None, None, false) => {
            return problem(ProblemKind::Usage, "every block ends: say how long, or permanent");
        }
        _ => return problem(ProblemKind::Usage, "say one of: how long, until when, permanent"),
    };
    match end {
        Some(end) if end > now => Ok(Some(end)),
        Some(end) => problem(ProblemKind::Usage, format!("{end} is over already")),
        None => problem(ProblemKind::Usage, "that is longer than there is time"),
    }
}

/// A decision in place of the one before: who first made it, and when, stays.
pub(crate) fn merge(mut decision: Decision, before: Option<&Decision>) -> (Decision, Change) {
    let Some(before) = before else {
        return (decision, Change::Added);
    };
    decision.id = before.id;
    // Whoever was let through stays so.
    decision.epoch = before.epoch;
    let same = decision.expires == before.expires
        && decision.reason == before.reason
        && decision.flags == before.flags
        && decision.incident == before.incident
        && decision.redial == before.redial;
    if same {
        return (before.clone(), Change::Unchanged);
    }
    (decision, Change::Updated)
}

/// The audit's record of a decision.
#[must_use]
pub fn entry(action: &str, author: &str, decision: &Decision, before: Option<&Decision>) -> Entry {
    let mut entry = Entry::new(clock::now(), author, action)
        .with("id", decision.id.to_string())
        .with("expires", json!(decision.expires))
        .with("reason", decision.reason.as_str())
        .with("origin", decision.origin.as_str());
    if decision.flags != 0 {
        entry = entry.with("observe", decision.flags & BLOCK_OBSERVE != 0);
    }
    if let Some(incident) = &decision.incident {
        entry = entry.with("incident", incident.as_str());
    }
    if decision.flags & BLOCK_NO_REDIAL != 0 {
        entry = entry.with("redial", "off");
    } else if let Some(redial) = decision.redial {
        entry = entry.with("redial", redial.to_string());
    }
    match before {
        Some(before) => entry.with("before", json!(before.expires)),
        None => entry,
    }
}

/// The kernel's entry for a stored block; `configured` is for one without settings of its own.
#[must_use]
pub fn block_entry(decision: &Decision, configured: Redial) -> abi::Block {
    let redial = decision.redial.unwrap_or(configured);
    abi::Block {
        number: decision.subject.raw(),
        expires: clock::kernel_expiry(decision.created, decision.expires, clock::now()),
        rule: decision.rule,
        action: Verdict::Drop as u8,
        flags: decision.flags,
        epoch: decision.epoch,
        redial_attempts: redial.attempts,
        redial_window: redial.window,
        redial_grant: redial.grant,
        ..abi::Block::default()
    }
}

/// The kernel's entry for a stored allow.
#[must_use]
pub fn allow_entry(decision: &Decision) -> abi::Allow {
    abi::Allow {
        number: decision.subject.raw(),
        expires: clock::kernel_expiry(decision.created, decision.expires, clock::now()),
        rule: decision.rule,
    }
}

pub(crate) fn name(decision: &Decision) -> String {
    let kind = match decision.kind {
        Kind::Block => "block",
        Kind::Allow => "allow",
    };
    format!("{kind} {}", decision.subject)
}

/// A decision in words: what, until when, who, why.
pub(crate) fn told(decision: &Decision) -> String {
    let end = decision.expires.map_or("no end".to_owned(), |end| format!("until {end}"));
    let author = &decision.author;
    let incident = match &decision.incident {
        Some(incident) => format!(" for incident {incident}"),
        None => String::new(),
    };
    format!("{}{incident} {end}, by {author}: {}", name(decision), decision.reason)
}

/// Checks a reason, comment or note.
///
/// # Errors
/// It is too long.
pub fn bounded(field: &str, text: &str) -> Result<(), Problem> {
    free_text::text(field, text).or_else(|message| problem(ProblemKind::Usage, message))
}

/// What an entry that covers a subject is about.
pub(crate) fn subject_of(entry: Number, asked: Subject) -> Subject {
    if entry == asked.raw() { asked } else { Subject::of_prefix_entry(entry) }
}

impl Control {
    /// The kernel's entry for a stored block.
    #[must_use]
    pub fn block_entry(&self, decision: &Decision) -> abi::Block {
        block_entry(decision, self.config().redial)
    }
}
