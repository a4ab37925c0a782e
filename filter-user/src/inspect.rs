//! Reads API answers from the kernel's maps and interfaces: for the daemon, and for root without a
//! daemon.

use std::collections::BTreeMap;

use filter_common::abi::{BLOCK_NO_REDIAL, MODE_ENFORCE, RULE_SHORT_NUMBER, Settings, TOMBSTONE};
use filter_common::decide::{Call, decide, is_live};
use filter_common::number::Number;
use filter_common::reason::Reason;

use crate::api::wire::{
    self, Attempts, Check, Finding, Granted, Health, Interface, Mode, NextAttempt, Override,
    Persisted, Status,
};
use crate::datapath::{Error, LookUp, Maps};
use crate::model::policy::{Subject, short_number};
use crate::sys::clock;
use crate::sys::kernels;
use crate::sys::netlink::Link;

/// Returns a time in boot time if it is in the future.
#[must_use]
pub fn live(until: u64) -> Option<u64> {
    (until > clock::boot()).then_some(until)
}

/// Returns when an override ran out by itself, in boot time; `None`: it lasts, or somebody switched it off.
#[must_use]
pub fn override_ended(until: u64) -> Option<u64> {
    (until != 0 && until != TOMBSTONE && until <= clock::boot()).then_some(until)
}

/// Returns the override with this end in boot time.
#[must_use]
pub fn override_in_force(until: u64) -> Override {
    Override {
        until: live(until).map(clock::wall),
        reason: None,
        author: None,
        persisted: Persisted::Yes,
        dry_run: false,
        order: 0,
    }
}

/// Returns when a period of mode enforce ran out by itself, in boot time; `None`: none did, or the mode was set since.
#[must_use]
pub fn enforce_ended(settings: &Settings) -> Option<u64> {
    let until = settings.enforce_until;
    // After a reboot an end before it is the shortest expiry, which is that of a tombstone.
    let is_end = settings.mode == MODE_ENFORCE && until != 0;
    (is_end && until <= clock::boot()).then_some(until)
}

/// Returns the mode in the kernel's maps.
///
/// # Errors
/// [`Error::Map`] if a system call fails.
pub fn mode(maps: &Maps) -> Result<Mode, Error> {
    let settings = maps.settings()?;
    let until = settings.enforce_until;
    let enforces = settings.mode == MODE_ENFORCE && (until == 0 || clock::boot() < until);
    Ok(Mode {
        mode: if enforces { "enforce" } else { "observe" }.into(),
        until: (enforces && until != 0).then(|| clock::wall(until)),
        ended: enforce_ended(&settings).map(clock::wall),
        persisted: Persisted::Yes,
        dry_run: false,
        order: 0,
    })
}

/// Returns the decision about a call from a number now, by the kernel's maps. The name of the rule is
/// its kind and subject.
///
/// # Errors
/// [`Error::Map`] if a system call fails.
pub fn check(maps: &Maps, number: Number) -> Result<Check, Error> {
    let mode = mode(maps)?;
    let profile = maps.profile(0)?;
    let enforced = mode.mode == "enforce" && profile.mode == MODE_ENFORCE;
    let call = Call {
        number,
        second: Number::NONE,
        call_id: 0,
        // A question has none.
        identity: 0,
        enforced: enforced.into(),
        separate: profile.separate,
        without_daemon: 0,
    };
    let now = clock::boot();
    let mut lists = LookUp::new(maps, now);
    let decision = decide(&mut lists, &call);
    let block = lists.block().filter(|block| block.rule == decision.rule);
    let block =
        block.filter(|block| block.redial_attempts != 0 && block.flags & BLOCK_NO_REDIAL == 0);
    let grant = match block {
        Some(block) => maps.grant(number)?.filter(|grant| grant.epoch == block.epoch),
        None => None,
    };
    let granted = grant
        .filter(|grant| now < grant.until)
        .map(|grant| Granted { kind: "redial".into(), until: clock::wall(grant.until) });
    let next_attempt = match block.filter(|_| granted.is_none()) {
        Some(block) => {
            // A call that comes soon after the last attempt belongs to it.
            let last = maps.redial(number)?.map_or(0, |redial| redial.count);
            let attempt = lists.attempt_counted().unwrap_or(last);
            Some(NextAttempt { attempt, of: block.redial_attempts.into() })
        }
        None => None,
    };
    Ok(Check {
        number: number.to_string(),
        verdict: decision.verdict.name().into(),
        policy_verdict: decision.policy_verdict.name().into(),
        reason: decision.reason.name().into(),
        rule: rule_name(maps, number, decision.rule)?,
        mode: mode.mode,
        override_until: live(maps.pass_maps().override_until()?).map(clock::wall),
        granted,
        next_attempt,
    })
}

/// Describes a number or prefix that has no block of its own. The block of a prefix may refuse its calls all the same.
#[must_use]
pub fn not_blocked(maps: &Maps, subject: Subject) -> String {
    let found = maps.blocked_prefix(&subject.key()).ok().flatten();
    match found.filter(|block| is_live(block.expires, clock::boot())) {
        Some(block) => {
            let prefix = Subject::of_prefix_entry(block.number);
            format!(
                "{subject} has no block of its own, but that of {prefix} covers it: palang explain {subject}; palang allow \
                 add {subject}; palang block remove '{prefix}'"
            )
        }
        None => format!("{subject} is not blocked"),
    }
}

/// Returns the name of a rule, searched among the rules about a caller number.
fn rule_name(maps: &Maps, number: Number, rule: u64) -> Result<Option<String>, Error> {
    let subject = Subject::Number(number);
    let key = subject.key();
    if rule == RULE_SHORT_NUMBER {
        return Ok(Some(short_number(maps.settings()?.shortest_number)));
    }
    let is_it = |found: u64| found == rule && rule != 0;
    let prefix = Subject::of_prefix_entry;
    if let Some(found) = maps.protected(&key)?.filter(|found| is_it(found.rule)) {
        let rule = if found.number == number { subject } else { prefix(found.number) };
        return Ok(Some(format!("protected {rule}")));
    }
    if maps.pass_maps().allow(subject)?.is_some_and(|found| is_it(found.rule)) {
        return Ok(Some(format!("allow {subject}")));
    }
    if let Some(found) = maps.allowed_prefix(&key)?.filter(|found| is_it(found.rule)) {
        return Ok(Some(format!("allow {}", prefix(found.number))));
    }
    if maps.block(subject)?.is_some_and(|found| is_it(found.rule)) {
        return Ok(Some(format!("block {subject}")));
    }
    let found = maps.blocked_prefix(&key)?.filter(|found| is_it(found.rule));
    Ok(found.map(|found| format!("block {}", prefix(found.number))))
}

/// Returns an interface and the program on it, as the kernel reports them. `ours` is the ID of our
/// program, if it is known.
#[must_use]
pub fn interface(name: &str, links: &[Link], ours: Option<u32>) -> Interface {
    let link = links.iter().find(|link| link.name == name);
    let xdp = link.and_then(|link| link.xdp);
    let is_ours = ours.is_none() || xdp.map(|xdp| xdp.program) == ours;
    let problem = match (link, xdp) {
        (None, _) => Some(format!("there is no interface {name}")),
        (Some(_), None) => Some("the filter is not on it".to_owned()),
        (Some(_), Some(xdp)) if !is_ours => {
            Some(format!("another XDP program is on it, id {}", xdp.program))
        }
        (Some(link), Some(_)) if !link.up => Some("it is down".to_owned()),
        (Some(_), Some(_)) => None,
    };
    Interface {
        name: name.to_owned(),
        index: link.map(|link| link.index),
        xdp: xdp.filter(|_| is_ours).map(|xdp| xdp.mode.name().to_owned()),
        program: xdp.map(|xdp| xdp.program),
        problem,
        carrier: link.map(|link| link.carrier),
        replies_by_daemon: None,
    }
}

/// Returns the status by maps and interfaces alone. Only a daemon knows which `attempts` have a record.
/// `counts` are those of [`Maps::counts`].
///
/// # Errors
/// [`Error::Map`] if a system call fails.
pub fn of_maps(
    maps: &Maps,
    capacity: u32,
    interfaces: Vec<Interface>,
    attempts: Option<Attempts>,
    counts: &[Vec<u64>],
) -> Result<Status, Error> {
    let mut packets = BTreeMap::new();
    for (index, reason) in Reason::ALL.iter().enumerate() {
        let count = counts.iter().map(|of_trunk| of_trunk[index]).sum();
        if count > 0 {
            packets.insert(reason.name().to_owned(), count);
        }
    }
    let (refused_lost, passed_lost) = match &attempts {
        Some(Attempts { refused, passed, .. }) => (refused.lost, passed.lost + passed.thinned),
        None => {
            let stats = maps.event_stats()?;
            (stats.refused_lost, stats.passed_lost + stats.passed_thinned)
        }
    };
    let mut status = Status {
        colour: Health::Green,
        findings: Vec::new(),
        daemon: false,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        since: None,
        mode: mode(maps)?,
        r#override: override_in_force(maps.pass_maps().override_until()?),
        interfaces,
        blocks: None,
        blocks_capacity: capacity.into(),
        allows: None,
        packets,
        refused_lost,
        passed_lost,
        attempts,
        drift: 0,
        reattached: 0,
        audit_head: None,
        reviews: None,
        replies: Vec::new(),
        asserted_others: BTreeMap::new(),
        machine_redials: Vec::new(),
    };
    status.add_findings();
    Ok(status)
}

impl wire::Status {
    /// Adds a finding to the list, worst first, and raises the colour to it.
    pub fn find(&mut self, colour: Health, message: impl Into<String>) {
        self.findings.push(Finding { colour, message: message.into() });
        self.findings.sort_by_key(|finding| std::cmp::Reverse(finding.colour));
        self.colour = self.colour.max(colour);
    }

    /// Adds the finding that the program has the slim reader, with the reason and what to do.
    pub fn find_slow_reader(&mut self, why: &str) {
        self.find(Health::Amber, format!("{why}; {}", kernels::advice()));
    }

    /// Adds the finding that this kernel answers no refused call, with the reason.
    pub fn find_no_replies(&mut self, why: &str) {
        let message = format!(
            "refused calls end in silence, and carriers repeat them: {why}; set refuse = \"drop\" for each \
             trunk if that is wanted: docs/carriers.md"
        );
        self.find(Health::Amber, message);
    }

    /// Adds the finding that no program judges whole datagrams, with the reason.
    pub fn find_no_second_look(&mut self, why: &str) {
        let message = format!(
            "calls in fragments or with very long headers pass unread, as `headers-cut`: {why}; \
             `palang doctor` says what to do"
        );
        self.find(Health::Amber, message);
    }

    /// Adds the findings that the fields of the status show.
    fn add_findings(&mut self) {
        for interface in self.interfaces.clone() {
            if let Some(problem) = interface.problem {
                self.find(Health::Red, format!("{}: {problem}", interface.name));
            } else if interface.carrier == Some(false) {
                let message = format!(
                    "{}: no carrier, so no call comes in by it: look at the cable and at the port of the switch",
                    interface.name
                );
                self.find(Health::Amber, message);
            } else if interface.xdp.as_deref() == Some("generic") {
                let message = format!("{}: generic XDP, which is slow", interface.name);
                self.find(Health::Amber, message);
            }
        }
        if self.interfaces.is_empty() {
            self.find(Health::Red, "the filter is on no interface: palang attach IFACE");
        }
        if let Some(ended) = self.mode.ended {
            let message = format!(
                "mode enforce ended at {ended}, and nothing is refused since then: palang mode enforce; or, if that is \
                 meant, palang mode observe"
            );
            self.find(Health::Amber, message);
        }
        if let Some(until) = self.r#override.until {
            self.find(Health::Amber, format!("override: nothing is refused until {until}"));
        }
        if let Some(count) = self.packets.get(Reason::SipOverTcp.name()) {
            self.find(
                Health::Amber,
                format!(
                    "{count} packets of SIP over TCP: calls that the driver cannot judge; ask \
                     GET /v1/check from the SIP server (docs/kamailio.md)"
                ),
            );
        }
        if let Some(count) = self.packets.get(Reason::UnknownTrunk.name()) {
            self.find(Health::Amber, format!("{count} INVITEs from outside every trunk passed"));
        }
        if self.refused_lost > 0 {
            let message = format!("{} refused attempts have no record", self.refused_lost);
            self.find(Health::Amber, message);
        }
    }
}
