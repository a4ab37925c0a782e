//! Simulates a centre: its gates, and the consequences of reports, with Palang's own code.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use filter_common::abi::{Block, Verdict};
use filter_common::decide::{Call, Decision};
use filter_common::number::Number;
use filter_common::reason::Reason;
use jiff::Timestamp;
use palang::change_plan::report::{BlockView, Covering, StrikeReport, plan_report};
use palang::model::host_gate::HostGate;
use palang::model::ladder::{Ladder, ReportKind, Strike};
use palang::model::policy::{Policy, Subject, Trunk};
use palang::model::redial::RedialPolicy;

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;
/// Start of the year, in seconds since 1970.
const START: i64 = 1_800_000_000;
/// End of a permanent block.
const NEVER: u64 = u64::MAX;

/// The rules of a simulated year.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// The redial setting.
    pub redial: RedialPolicy,
    /// The ladder.
    pub ladder: Ladder,
    /// Whether blocks are permanent. Palang's ladder cannot do this; other centres do.
    pub for_ever: bool,
    /// Whether a prank report on a granted call doubles N; otherwise it only ends the grant.
    pub doubles: bool,
    /// Attempts of one number are separate when they are this many seconds apart.
    pub separate: u32,
}

/// A call that a call-taker answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// Number that the call showed.
    pub number: Number,
    /// Time in nanoseconds.
    pub time: u64,
    /// Reason why it passed.
    pub reason: Reason,
    /// Whether its trunk is trusted for the number.
    pub trusted: bool,
}

/// The consequences of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// Whether it was a strike.
    pub strike: bool,
    /// Begin and end of the additional time that the number is blocked, in nanoseconds.
    pub blocked: Option<(u64, u64)>,
}

/// A block as stored.
#[derive(Clone, Copy)]
struct Held {
    expires: u64,
    redial: RedialPolicy,
    epoch: u32,
}

/// The gates and the reports of a centre.
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
    /// Creates a centre with N edges and no blocks.
    ///
    /// # Errors
    /// Returns an error if the default policy has no trunk.
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

    /// Returns the decision of an edge on a call at a time in nanoseconds.
    pub fn call(&mut self, edge: usize, number: Number, call_id: u64, now: u64) -> Decision {
        let (second, separate, without_daemon) = (Number::NONE, self.rules.separate, 0);
        let call =
            Call { number, second, call_id, identity: 0, enforced: 1, separate, without_daemon };
        self.edges[edge].decide(&call, now)
    }

    /// Drops state that the kernel would also have dropped.
    pub fn forget(&mut self, now: u64) {
        self.edges.iter_mut().for_each(|gate| gate.drop_expired(now));
    }

    /// Applies a call-taker's report of a call.
    pub fn report(&mut self, call: &Answered, kind: ReportKind, now: u64) -> Reported {
        let Rules { ladder, redial, for_ever, doubles, .. } = &self.rules;
        let trunk = &self.trunks[usize::from(call.trusted)];
        if !trunk.vouches() || ladder.weight(kind) == 0 {
            return Reported::default();
        }
        let strikes = self.strikes.entry(call.number).or_default();
        strikes.push(Strike { time: timestamp(call.time), kind });
        let step = ladder.judge(strikes, timestamp(now));
        let live = self.blocks.get(&call.number).filter(|held| now < held.expires).copied();

        let ended = self.grant_ends.get(&call.number).is_some_and(|end| *end >= call.time);
        let report = StrikeReport {
            now,
            kind,
            ladder_end: step
                .block
                .map(|seconds| if *for_ever { 0 } else { now + seconds * SECOND }),
            was_granted: call.reason == Reason::RedialGrant,
            was_ended: ended,
            factor: if *doubles { 2 } else { 1 },
        };
        let own = live.map(|held| BlockView {
            expires: kernel_end(held.expires),
            flags: 0,
            epoch: held.epoch,
            redial: Some(held.redial),
        });
        let covering = own.map(|block| Covering { block, is_own: true });
        let planned = plan_report(&report, own.as_ref(), covering.as_ref());
        if planned.ends_grant.is_some() {
            self.grant_ends.insert(call.number, now);
        }
        let put = planned.block.map(|(_, block)| Held {
            expires: if block.expires == 0 { NEVER } else { block.expires },
            redial: block.redial.unwrap_or(*redial),
            epoch: block.epoch,
        });
        let from = live.map_or(now, |held| held.expires);
        let blocked = put.filter(|put| put.expires > from).map(|put| (from, put.expires));
        if let Some(held) = put {
            self.put(call.number, held);
        }
        Reported { strike: true, blocked }
    }

    fn put(&mut self, number: Number, held: Held) {
        self.rule += 1;
        let mut block = Block {
            number,
            expires: kernel_end(held.expires),
            rule: self.rule,
            action: Verdict::Drop as u8,
            epoch: held.epoch,
            ..Block::default()
        };
        held.redial.put(&mut block);
        // Edges share decisions, but not the state of their kernels.
        self.edges.iter_mut().for_each(|gate| gate.put_block(Subject::Number(block.number), block));
        self.blocks.insert(number, held);
    }
}

/// Converts the end of a block to the kernel's value; 0: no end.
fn kernel_end(expires: u64) -> u64 {
    if expires == NEVER { 0 } else { expires }
}

fn timestamp(time: u64) -> Timestamp {
    Timestamp::from_second(START + (time / SECOND).cast_signed()).unwrap_or(Timestamp::MAX)
}
