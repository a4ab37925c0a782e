//! Converts decisions to kernel entries and audit records, and reads the decision in force.

use filter_common::abi::{self, BLOCK_NO_REDIAL, BLOCK_OBSERVE, RULE_DIRECT, Verdict};
use filter_common::number::Number;
use serde_json::json;

use crate::api::wire::{self, Check, Problem};
use crate::daemon::state::Control;
use crate::inspect;
use crate::model::policy::Subject;
use crate::model::redial::RedialPolicy;
use crate::store::{Decision, Entry};
use crate::sys::clock;

/// Returns whether root added an allow without the daemon, which has not adopted it yet.
pub(crate) fn is_offline(allow: &abi::Allow) -> bool {
    allow.rule == RULE_DIRECT
}

/// Creates the audit record of a decision.
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

/// Creates the kernel's entry of a stored block; `configured` applies if the block has no redial
/// setting of its own.
#[must_use]
pub fn block_entry(decision: &Decision, configured: RedialPolicy) -> abi::Block {
    let mut block = abi::Block {
        number: decision.subject.raw(),
        expires: clock::kernel_expiry(decision.created, decision.expires, clock::now()),
        rule: decision.rule,
        action: Verdict::Drop as u8,
        flags: decision.flags,
        epoch: decision.epoch,
        ..abi::Block::default()
    };
    decision.redial.unwrap_or(configured).put(&mut block);
    block
}

/// Returns the subject of an entry that covers `asked`.
pub(crate) fn subject_of(entry: Number, asked: Subject) -> Subject {
    if entry == asked.raw() { asked } else { Subject::of_prefix_entry(entry) }
}

impl Control {
    /// Creates the kernel's entry of a stored block.
    #[must_use]
    pub fn block_entry(&self, decision: &Decision) -> abi::Block {
        block_entry(decision, self.config().redial)
    }

    /// Checks what happens to a call from a number now.
    ///
    /// # Errors
    /// [`ProblemKind::Failed`] if a system call fails.
    pub fn check(&self, number: Number) -> Result<Check, Problem> {
        Ok(inspect::check(&self.maps, number)?)
    }

    pub(crate) fn in_force(&self, subject: Subject) -> Result<Option<Check>, Problem> {
        match subject {
            Subject::Number(number) => self.check(number).map(Some),
            Subject::Prefix(_) => Ok(None),
        }
    }

    /// Reads the mode in force from the kernel's map.
    ///
    /// # Errors
    /// [`ProblemKind::Failed`] if a system call fails.
    pub fn get_mode(&self) -> Result<wire::Mode, Problem> {
        Ok(inspect::mode(&self.maps)?)
    }
}
