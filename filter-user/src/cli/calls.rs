//! `palang calls`.

use std::ops::ControlFlow;

use clap::Args;
use jiff::Timestamp;

use super::print::{Output, Row, counted, known};
use super::time;
use crate::client::{self, Client};
use crate::exit::{Exit, Failure};
use crate::wire::Call;

/// List call attempts, newest first; passed ones too
///
/// palang calls --since 1h --caller 0812-3456-7890
///
/// Raw: time, caller, trunk, source, verdict, would, reason, rule, identity, repeats, Call-ID, id.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Since when: 1h, 7d, '2026-11-25 18:20' local time, or RFC 3339
    #[arg(long, value_name = "DURATION|TIME", value_parser = time::since)]
    since: Option<Timestamp>,
    /// Of this caller number
    #[arg(long, value_name = "NUMBER")]
    caller: Option<String>,
    /// With this Call-ID
    #[arg(long, value_name = "ID")]
    call_id: Option<String>,
    /// With this verdict
    #[arg(long, value_name = "pass|drop|reply")]
    verdict: Option<String>,
    /// With this reason, as the list shows it
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// From this trunk
    #[arg(long, value_name = "NAME")]
    trunk: Option<String>,
    /// So many at most; says so when there are more [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..u64::MAX))]
    limit: Option<u64>,
    #[command(flatten)]
    output: Output,
}

/// Lists.
///
/// # Errors
/// The daemon's no, or none to ask.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    let since = arguments.since.map(|since| since.to_string());
    // One more than wanted tells whether the limit cut any.
    let limit = arguments.limit.map(|limit| (limit + 1).to_string());
    let query = [
        ("since", since.as_deref()),
        ("caller", arguments.caller.as_deref()),
        ("call_id", arguments.call_id.as_deref()),
        ("verdict", arguments.verdict.as_deref()),
        ("reason", arguments.reason.as_deref()),
        ("trunk", arguments.trunk.as_deref()),
        ("limit", limit.as_deref()),
    ];
    let mut told = arguments.output.list();
    let (mut left, mut cut) = (arguments.limit, false);
    let end = client.list(&client::path(&["calls"], &query), |call: Call| {
        cut = left == Some(0);
        if cut {
            return ControlFlow::Break(());
        }
        left = left.map(|left| left - 1);
        told.row(&call)
    });
    told.finish(end)?;
    if let Some(limit) = arguments.limit.filter(|_| cut) {
        let calls = counted(limit, "call");
        eprintln!("palang: there are more than {calls}; without --limit all are told");
    }
    Ok(Exit::Done)
}

impl Row for Call {
    const NOUN: &'static str = "call";
    const COLUMNS: &'static [&'static str] =
        &["time", "caller", "trunk", "source", "verdict", "reason", "rule", "repeats", "Call-ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            time::local(self.time).to_string(),
            known(self.caller.as_ref()),
            known(self.trunk.as_ref()),
            self.source.clone(),
            self.verdict.clone(),
            reason(self),
            rule(self),
            self.repeats.to_string(),
            known(self.call_id.as_ref()),
        ]
    }

    fn raw(&self) -> Vec<String> {
        vec![
            self.time.to_string(),
            known(self.caller.as_ref()),
            known(self.trunk.as_ref()),
            self.source.clone(),
            self.verdict.clone(),
            self.would.clone(),
            self.reason.clone(),
            rule(self),
            known(self.identity.as_ref()),
            self.repeats.to_string(),
            known(self.call_id.as_ref()),
            self.id.to_string(),
        ]
    }
}

/// Why, and what it would have been without observe and override.
pub(super) fn reason(call: &Call) -> String {
    if call.would == call.verdict {
        return call.reason.clone();
    }
    format!("{}, would {}", call.reason, call.would)
}

fn rule(call: &Call) -> String {
    known((call.rule != 0).then_some(call.rule))
}
