//! A centre: its gates, and what reports of calls lead to, with Palang's own code. What the daemon
//! does around it with a store (`daemon/reports.rs`) is done here in memory.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use filter_common::abi::{Block, Verdict};
use filter_common::number::Number;
use filter_common::policy::{Call, Decision};
use filter_common::reason::Reason;
use jiff::Timestamp;
use palang::host::HostGate;
use palang::ladder::{Ladder, ReportKind, Strike};
use palang::policy::{Policy, Subject, Trunk};
use palang::redial::Redial;

/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;
/// When the year begins, in seconds since 1970.
const START: i64 = 1_800_000_000;
/// Attempts that a doubled redial setting asks for at most, as in the daemon.
pub const ATTEMPTS_MAX: u8 = 8;
/// The end of a block that has none.
const NEVER: u64 = u64::MAX;

/// What is tried in a year.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// When a blocked caller is let through.
    pub redial: Redial,
    /// What reports lead to.
    pub ladder: Ladder,
    /// Its blocks do not end. Palang's ladder cannot do this; others do.
    pub for_ever: bool,
    /// A prank report on a granted call doubles N; else it only ends the grant.
    pub doubles: bool,
}

/// A call that a call-taker has heard.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// The number that it showed.
    pub number: Number,
    /// When, in nanoseconds.
    pub time: u64,
    /// Why it passed.
    pub reason: Reason,
    /// Its trunk vouches for the number.
    pub trusted: bool,
}

/// What a report has led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// It was a strike.
    pub strike: bool,
    /// The number is blocked from when to when that it was not before, in nanoseconds.
    pub blocked: Option<(u64, u64)>,
}

/// A block as the store holds it.
#[derive(Clone, Copy)]
struct Held {
    expires: u64,
    redial: Redial,
    epoch: u32,
}

/// Gates and reports.
pub struct Centre {
    rules: Rules,
    edges: Vec<HostGate>,
    trunks: [Trunk; 2],
    strikes: HashMap<Number, Vec<Strike>>,
    blocks: HashMap<Number, Held>,
    grant_ends: HashMap<Number, u64>,
    rule: u64,
}

impl Centre {
    /// A centre with so many edges, and nobody blocked.
    ///
    /// # Errors
    /// The default policy has no trunk.
    pub fn new(rules: &Rules, edges: usize) -> Result<Centre> {
        let policy = Policy::default();
        let trunk = policy.trunks.first().context("the default policy has no trunk")?;
        let trunk = |trusts_from| Trunk { trusts_from, ..trunk.clone() };
        Ok(Centre {
            rules: rules.clone(),
            edges: vec![HostGate::new(&policy); edges],
            trunks: [trunk(false), trunk(true)],
            strikes: HashMap::new(),
            blocks: HashMap::new(),
            grant_ends: HashMap::new(),
            rule: 0,
        })
    }

    /// What an edge decides on a call at a time in nanoseconds.
    pub fn call(&mut self, edge: usize, number: Number, call_id: u64, now: u64) -> Decision {
        let call = Call { number, second: Number::NONE, call_id, enforced: 1, marked: 0 };
        self.edges[edge].decide(&call, now)
    }

    /// Forgets what the kernel has forgotten too.
    pub fn forget(&mut self, now: u64) {
        self.edges.iter_mut().for_each(|gate| gate.forget(now));
    }

    /// A call-taker reports a call.
    pub fn report(&mut self, call: &Answered, kind: ReportKind, now: u64) -> Reported {
        let Rules { ladder, redial, for_ever, doubles } = &self.rules;
        let trunk = &self.trunks[usize::from(call.trusted)];
        if !trunk.vouches() || ladder.weight(kind) == 0 {
            return Reported::default();
        }
        let strikes = self.strikes.entry(call.number).or_default();
        strikes.push(Strike { time: timestamp(call.time), kind });
        let step = ladder.judge(strikes, timestamp(now));
        let live = self.blocks.get(&call.number).filter(|held| now < held.expires).copied();

        let end = |seconds: u64| if *for_ever { NEVER } else { now + seconds * SECOND };
        let mut put =
            step.block.map(end).filter(|end| live.is_none_or(|held| held.expires < *end)).map(
                |expires| match live {
                    Some(held) => Held { expires, ..held },
                    None => Held { expires, redial: *redial, epoch: 0 },
                },
            );
        let ended = self.grant_ends.get(&call.number).is_some_and(|end| *end >= call.time);
        if let Some(held) = live
            && kind.is_misuse()
            && call.reason == Reason::RedialGrant
            && !ended
        {
            let factor = if *doubles { 2 } else { 1 };
            let attempts = held.redial.attempts.saturating_mul(factor).min(ATTEMPTS_MAX);
            put = Some(Held {
                expires: put.map_or(held.expires, |put| put.expires),
                redial: Redial { attempts, ..held.redial },
                epoch: held.epoch.wrapping_add(1),
            });
            self.grant_ends.insert(call.number, now);
        }
        let from = live.map_or(now, |held| held.expires);
        let blocked = put.filter(|put| put.expires > from).map(|put| (from, put.expires));
        if let Some(held) = put {
            self.put(call.number, held);
        }
        Reported { strike: true, blocked }
    }

    fn put(&mut self, number: Number, held: Held) {
        self.rule += 1;
        let block = Block {
            number,
            expires: if held.expires == NEVER { 0 } else { held.expires },
            rule: self.rule,
            action: Verdict::Drop as u8,
            epoch: held.epoch,
            redial_attempts: held.redial.attempts,
            redial_window: held.redial.window,
            redial_grant: held.redial.grant,
            ..Block::default()
        };
        // Edges share decisions, not what their kernels remember.
        self.edges.iter_mut().for_each(|gate| gate.put_block(Subject::Number(block.number), block));
        self.blocks.insert(number, held);
    }
}

fn timestamp(time: u64) -> Timestamp {
    Timestamp::from_second(START + (time / SECOND).cast_signed()).unwrap_or(Timestamp::MAX)
}
