//! Plans an allow: the same checks, end and answer with and without the daemon.

use filter_common::abi::{self, TOMBSTONE};
use filter_common::decide::is_live;
use jiff::Timestamp;

use crate::api::wire::{self, Change, Changed, Check, Persisted, Problem};
use crate::change_plan::checks::{check_text, end, incident_id};
use crate::model::policy::Subject;
use crate::store::{Decision, Kind};
use crate::sys::clock;

/// The user who asks for an allow, and the way.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Name of the user.
    pub author: &'a str,
    /// The way: `operator`, `callback` or `direct`.
    pub origin: &'a str,
    /// Name of the edge; empty without a daemon.
    pub node: &'a str,
}

/// Returns the allow that a request asks for, with the rule 0.
///
/// # Errors
/// [`wire::ProblemKind::Usage`] if a text is too long, or the end is not in the future.
pub fn asked_allow(
    add: &wire::AddAllow,
    subject: Subject,
    asker: Asker<'_>,
    now: Timestamp,
) -> Result<Decision, Problem> {
    let incident = add.incident.as_deref().map(incident_id).transpose()?;
    check_text("comment", &add.comment)?;
    let endless = add.seconds.is_none() && add.expires.is_none();
    Ok(Decision {
        id: uuid::Uuid::now_v7(),
        rule: 0,
        kind: Kind::Allow,
        subject,
        created: now,
        expires: end(now, add.seconds, add.expires, endless)?,
        reason: add.comment.clone(),
        author: asker.author.to_owned(),
        origin: asker.origin.to_owned(),
        node: asker.node.to_owned(),
        flags: 0,
        redial: None,
        epoch: 0,
        incident,
    })
}

/// Returns the decision of an allow that only the kernel's map knows: no reason and no author.
#[must_use]
pub fn allow_of_map(subject: Subject, found: &abi::Allow, created: Timestamp) -> Decision {
    Decision {
        id: uuid::Uuid::nil(),
        rule: found.rule,
        kind: Kind::Allow,
        subject,
        created,
        expires: (found.expires != 0).then(|| clock::wall(found.expires)),
        reason: String::new(),
        author: String::new(),
        origin: "direct".to_owned(),
        node: String::new(),
        flags: 0,
        redial: None,
        epoch: 0,
        incident: None,
    }
}

/// The effect of a request for an allow on the existing allow.
#[derive(Clone, Debug)]
pub struct AllowPlan {
    /// The allow afterwards.
    pub decision: Decision,
    /// The allow before, as far as it is known.
    pub before: Option<Decision>,
    /// The kind of change.
    pub change: Change,
    /// Whether the existing allow remains, because it lasts longer for another purpose.
    pub stays: bool,
}

impl AllowPlan {
    /// Plans an allow. `there` is the live allow of the map, `before` the known decision about it.
    /// With `keep_longer` an allow that ends later remains.
    #[must_use]
    pub fn new(
        asked: Decision,
        there: Option<abi::Allow>,
        before: Option<Decision>,
        keep_longer: bool,
    ) -> AllowPlan {
        let until = clock::kernel_expiry(asked.created, asked.expires, asked.created);
        let longer =
            there.filter(|there| there.expires == 0 || until != 0 && there.expires >= until);
        let stays = before.as_ref().filter(|before| stays_for_incident(before, &asked)).cloned();
        if let Some(decision) = stays {
            return AllowPlan { decision, before, change: Change::Unchanged, stays: true };
        }
        let is_for_incident = asked.incident.is_some();
        let (mut decision, mut change) = merge(asked, before.as_ref());
        match longer {
            Some(_) if keep_longer => {
                decision = before.clone().unwrap_or(decision);
                change = Change::Unchanged;
            }
            // The purpose of that allow is not known now; it must not end with the incident.
            Some(there) if is_for_incident && before.is_none() => {
                decision.expires = (there.expires != 0).then(|| clock::wall(there.expires));
                decision.incident = None;
            }
            Some(_) | None => {}
        }
        AllowPlan { decision, before, change, stays: false }
    }

    /// Returns what the user should know besides the change. `block` is the block of the same
    /// subject in the map, `boot` the boot time in nanoseconds.
    #[must_use]
    pub fn notes(&self, block: Option<&abi::Block>, boot: u64) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(before) = self.before.as_ref().filter(|_| self.stays) {
            notes.push(format!("unchanged: {} lasts longer", describe(before)));
        }
        let live = |block: &&abi::Block| block.expires != TOMBSTONE && is_live(block.expires, boot);
        if block.filter(live).is_some() {
            let subject = self.decision.subject;
            notes.push(format!("the block against {subject} remains, without effect"));
        }
        notes
    }

    /// Returns the answer to the request. `order` is the place of the change; 0: it has none.
    #[must_use]
    pub fn answer(
        &self,
        dry_run: bool,
        persisted: Persisted,
        order: u64,
        in_force: Option<Check>,
        notes: Vec<String>,
    ) -> Changed<wire::Allow> {
        Changed {
            change: self.change,
            now: allow_of(&self.decision),
            before: self.before.as_ref().map(allow_of),
            persisted,
            dry_run,
            order,
            in_force,
            notes,
        }
    }
}

/// Returns whether an existing allow remains when an allow for an incident is asked for. The end of
/// an incident must not remove an allow that lasts longer for another purpose.
fn stays_for_incident(before: &Decision, asked: &Decision) -> bool {
    let longer = match (before.expires, asked.expires) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(before), Some(asked)) => before >= asked,
    };
    asked.incident.is_some() && before.incident != asked.incident && longer
}

/// Replaces a decision by another one about the same subject: the id and the epoch remain.
#[must_use]
pub fn merge(mut decision: Decision, before: Option<&Decision>) -> (Decision, Change) {
    let Some(before) = before else {
        return (decision, Change::Added);
    };
    decision.id = before.id;
    // A caller whom a grant lets through keeps the grant.
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

/// Returns the kernel's entry for an allow.
#[must_use]
pub fn allow_entry(decision: &Decision) -> abi::Allow {
    abi::Allow {
        number: decision.subject.raw(),
        expires: clock::kernel_expiry(decision.created, decision.expires, clock::now()),
        rule: decision.rule,
    }
}

/// Converts an allow to the API's type.
#[must_use]
pub fn allow_of(decision: &Decision) -> wire::Allow {
    wire::Allow {
        id: decision.id,
        rule: decision.rule,
        number: decision.subject.to_string(),
        created: decision.created,
        expires: decision.expires,
        comment: decision.reason.clone(),
        author: decision.author.clone(),
        origin: decision.origin.clone(),
        node: decision.node.clone(),
        incident: decision.incident.clone(),
    }
}

/// Returns the kind and subject of a decision, such as `block 6281234567890`.
#[must_use]
pub fn name(decision: &Decision) -> String {
    let kind = match decision.kind {
        Kind::Block => "block",
        Kind::Allow => "allow",
    };
    format!("{kind} {}", decision.subject)
}

/// Describes a decision: kind, subject, incident, end, author and reason.
#[must_use]
pub fn describe(decision: &Decision) -> String {
    let end = decision.expires.map_or("no end".to_owned(), |end| format!("until {end}"));
    let incident = match &decision.incident {
        Some(incident) => format!(" for incident {incident}"),
        None => String::new(),
    };
    let by = match decision.author.as_str() {
        "" => String::new(),
        author => format!(", by {author}: {}", decision.reason),
    };
    format!("{}{incident} {end}{by}", name(decision))
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::model::number_text;

    fn asked(seconds: Option<u64>, incident: Option<&str>) -> Decision {
        let plan = crate::model::policy::Policy::default().trunks[0].profile.plan;
        let subject = number_text::typed("+6281200000001", &plan).unwrap();
        let add = wire::AddAllow {
            number: "+6281200000001".to_owned(),
            seconds,
            expires: None,
            comment: "in need".to_owned(),
            incident: incident.map(str::to_owned),
            dry_run: false,
        };
        let asker = Asker { author: "siti", origin: "operator", node: "edge1" };
        asked_allow(&add, subject, asker, clock::now()).unwrap()
    }

    #[test]
    fn allow_for_an_incident_over_a_longer_unknown_allow_outlives_the_incident() {
        let asked = asked(Some(3600), Some("118"));
        let there = abi::Allow { number: asked.subject.raw(), expires: 0, rule: 7 };
        let plan = AllowPlan::new(asked.clone(), Some(there), None, false);
        assert_eq!((plan.decision.expires, plan.decision.incident), (None, None));
        let shorter = abi::Allow { expires: 1, ..there };
        let plan = AllowPlan::new(asked, Some(shorter), None, false);
        assert_eq!(plan.decision.incident.as_deref(), Some("118"));
    }

    #[test]
    fn allow_for_an_incident_leaves_a_longer_allow_as_it_is() {
        let before = Decision { rule: 7, incident: None, ..asked(None, None) };
        let there = allow_entry(&before);
        let plan = AllowPlan::new(asked(Some(60), Some("118")), Some(there), Some(before), false);
        assert_eq!((plan.change, plan.stays, plan.decision.rule), (Change::Unchanged, true, 7));
        assert!(plan.notes(None, 0)[0].contains("lasts longer"));
        // An allow that only the map knows remains, too.
        let subject = plan.decision.subject;
        let known = allow_of_map(subject, &there, clock::now());
        let plan = AllowPlan::new(asked(Some(60), Some("118")), Some(there), Some(known), false);
        assert!(plan.stays);
    }

    #[test]
    fn allow_with_another_end_updates_the_one_before() {
        let before = asked(Some(60), None);
        let there = allow_entry(&before);
        let plan = AllowPlan::new(asked(Some(90), None), Some(there), Some(before.clone()), false);
        assert_eq!((plan.change, plan.decision.id), (Change::Updated, before.id));
        assert_eq!(plan.before.unwrap().expires, before.expires);
    }

    #[test]
    fn allow_of_a_callback_keeps_a_later_end() {
        let before = asked(Some(3600), None);
        let there = allow_entry(&before);
        let plan = AllowPlan::new(asked(Some(60), None), Some(there), Some(before.clone()), true);
        assert_eq!((plan.change, plan.decision.expires), (Change::Unchanged, before.expires));
    }

    #[test]
    fn allow_with_an_end_in_the_past_is_refused() {
        let over = clock::now() - SignedDuration::from_secs(1);
        let problem = end(clock::now(), None, Some(over), false).unwrap_err();
        assert!(problem.message.contains("is over already"), "{}", problem.message);
    }
}
