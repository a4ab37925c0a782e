//! Finds the call that a report is about, and decides whether the report is a strike.

use std::ops::ControlFlow;

use filter_common::abi::Verdict;
use filter_common::number::Number;
use jiff::{SignedDuration, Timestamp};

use crate::config::Config;
use crate::model::ladder::ReportKind;
use crate::store::{AuditFilter, CallFilter, CallRow, Error, Reader, ReportedCall};

/// Largest age of a call for a strike.
const CALL_AGE: SignedDuration = SignedDuration::from_hours(24);
/// Number of records of one call that are read: a call is sent again, or comes on two trunks.
const RECORDS: u32 = 100;
/// Action of the audit for a redial grant that a report ended.
pub(super) const GRANT_END: &str = "grant end";

/// A report as requested.
#[derive(Clone)]
pub(super) struct ReportRequest {
    pub(super) number: Number,
    pub(super) kind: ReportKind,
    pub(super) call_id: Option<String>,
    pub(super) call_hash: Option<u64>,
    pub(super) author: String,
    pub(super) note: String,
    pub(super) now: Timestamp,
}

/// Finds the call of a report, and the reason if it makes no strike.
pub(super) fn matched(
    config: &Config,
    reader: &Reader,
    asked: &ReportRequest,
) -> Result<(Option<ReportedCall>, Option<String>), Error> {
    let Some(call_hash) = asked.call_hash else {
        return Ok((None, Some("no Call-ID was given".to_owned())));
    };
    let filter = CallFilter {
        number: Some(asked.number),
        call_hash: Some(call_hash),
        limit: Some(RECORDS),
        ..CallFilter::default()
    };
    let mut found: Option<(ReportedCall, Option<String>)> = None;
    reader.calls(&filter, |(id, row)| {
        let why_not = why_no_strike(config, &row, asked.now);
        let is_strike = why_not.is_none();
        if is_strike || found.is_none() {
            let CallRow { time, trunk, reason, rule, .. } = row;
            found = Some((ReportedCall { id, time, trunk, reason, rule }, why_not));
        }
        if is_strike { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some((call, None)) = found {
        return Ok((Some(call), None));
    }
    // A call can be reported again, with another kind, for as long as it counts.
    if let Some(call) = reader.strike_of_call(asked.number, call_hash)? {
        return Ok((Some(call), None));
    }
    let (call, why_not) = found.unzip();
    let no_call = || "no call with this number and Call-ID is on record".to_owned();
    Ok((call, Some(why_not.flatten().unwrap_or_else(no_call))))
}

/// Returns why a report of this call is no strike.
fn why_no_strike(config: &Config, call: &CallRow, now: Timestamp) -> Option<String> {
    if Verdict::from_number(call.verdict) != Some(Verdict::Pass) {
        return Some("the call was refused, so no call-taker heard it".to_owned());
    }
    if now.duration_since(call.time).abs() > CALL_AGE {
        return Some(format!("the call is of {}: only the last 24 hours count", call.time));
    }
    let Some(name) = &call.trunk else {
        return Some("the call came from outside every trunk".to_owned());
    };
    // The first is the profile `default`, which is no trunk.
    let Some(trunk) = config.policy.trunks.iter().skip(1).find(|trunk| trunk.name == *name) else {
        return Some(format!("{name} is no [[trunk]] of palang.toml: its numbers may be forged"));
    };
    let why = || format!("trunk {name} does not vouch for the number, which was in From");
    (!trunk.vouches_for(call.identity)).then(why)
}

/// Returns whether a report has ended the grant of a number after that call came.
pub(super) fn grant_ended_since(
    reader: &Reader,
    number: Number,
    since: Timestamp,
) -> Result<bool, Error> {
    let filter = AuditFilter { since: Some(since), number: Some(number.to_string()) };
    let mut ended = false;
    reader.audit_rows(0, &filter, |row| {
        let record = serde_json::from_str::<serde_json::Value>(&row.record).unwrap_or_default();
        ended = record["action"] == GRANT_END;
        if ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use filter_common::abi::{EVENT_FROM, EVENT_PAI};
    use filter_common::number::Digits;
    use filter_common::plan::{IDENTITY_FROM, IDENTITY_PAI};
    use filter_common::reason::Reason;
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::store::{Entry, Report, Store};

    /// Creates a configuration with the trunks `from`, `pai` and `vouches`.
    fn config() -> Config {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("palang.toml");
        let trunk = |name: &str, address: &str, field: &str| {
            format!("[[trunk]]\nname = \"{name}\"\nsources = [\"{address}\"]\n{field}\n")
        };
        let text = [
            "interfaces = []\n[default]\nidentity = \"pai\"\n".to_owned(),
            trunk("from", "192.0.2.1", "identity = \"from\""),
            trunk("pai", "192.0.2.2", ""),
            trunk("vouches", "192.0.2.3", "identity = \"from\"\ntrusts_from = true"),
        ];
        std::fs::write(&file, text.concat()).unwrap();
        Config::read(&file).unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn row(
        at: i64,
        number: u64,
        call: u64,
        trunk: Option<&str>,
        identity: u8,
        verdict: u8,
    ) -> CallRow {
        CallRow {
            time: now() + SignedDuration::from_secs(at),
            number: Some(Number(number)),
            trunk: trunk.map(str::to_owned),
            source: "192.0.2.1:5060".to_owned(),
            call_id: None,
            call_hash: call,
            identity,
            verdict,
            policy_verdict: verdict,
            reason: Reason::NotBlocked as u8,
            rule: 0,
            repeats: 0,
            count: 1,
            unread: None,
            reply: None,
        }
    }

    fn asked(number: u64, call_hash: Option<u64>) -> ReportRequest {
        ReportRequest {
            number: Number(number),
            kind: ReportKind::Prank,
            call_id: None,
            call_hash,
            author: "siti".to_owned(),
            note: String::new(),
            now: now(),
        }
    }

    /// Generates verdicts; most calls pass.
    fn verdict() -> impl Strategy<Value = u8> {
        prop_oneof![3 => Just(Verdict::Pass as u8), 1 => Just(Verdict::Drop as u8)]
    }

    fn trunk() -> impl Strategy<Value = Option<&'static str>> {
        let names = ["from", "pai", "vouches", "default", "gone"];
        prop::option::of(prop::sample::select(names.to_vec()))
    }

    /// Checks which reports are strikes: one call must have the number and Call-ID of the report. It
    /// is at most 24 h old, passed, and came on a trunk that vouches for its header.
    #[test]
    fn report_of_a_matched_and_trusted_call_is_a_strike() {
        let config = config();
        let folder = tempfile::TempDir::new().unwrap();
        let store = RefCell::new(Store::open(&folder.path().join("palang.db")).unwrap());
        let call =
            (-120_000_i64..120_000, 1u64..3, 1u64..3, trunk(), EVENT_FROM..=EVENT_PAI, verdict());
        let calls = prop::collection::vec(call, 0..8);
        let case = (calls, 1u64..3, prop::option::weighted(0.9, 1u64..3));
        let mut runner = TestRunner::new(ProptestConfig::with_cases(256));
        let done = runner.run(&case, |(calls, number, call_id)| {
            let mut store = store.borrow_mut();
            store.prune_calls(Timestamp::MAX, Duration::MAX).unwrap();
            let rows: Vec<_> = calls
                .iter()
                .map(|(at, number, call_id, trunk, identity, verdict)| {
                    row(*at, *number, *call_id, *trunk, *identity, *verdict)
                })
                .collect();
            let ids = store.put_calls(&rows).unwrap();
            let strikes: Vec<_> = ids
                .into_iter()
                .zip(&calls)
                .filter(|(_, (at, of, with, trunk, identity, verdict))| {
                    let vouched = match trunk {
                        Some("vouches") => true,
                        Some("pai") => *identity == EVENT_PAI,
                        _ => false,
                    };
                    let is_it = *of == number && Some(*with) == call_id;
                    is_it && at.abs() <= 86_400 && *verdict == Verdict::Pass as u8 && vouched
                })
                .map(|(id, _)| id)
                .collect();
            let (found, why_not) =
                matched(&config, store.reader(), &asked(number, call_id)).unwrap();
            prop_assert_eq!(why_not.is_none(), !strikes.is_empty(), "{:?}", why_not);
            if why_not.is_none() {
                prop_assert!(strikes.contains(&found.unwrap().id));
            }
            Ok(())
        });
        done.unwrap();
    }

    #[test]
    fn strike_can_be_reported_again_for_as_long_as_it_counts() {
        let config = config();
        assert_eq!(config.policy.trunks[2].profile.identity, IDENTITY_PAI);
        assert_eq!(config.policy.trunks[3].profile.identity, IDENTITY_FROM);
        let folder = tempfile::TempDir::new().unwrap();
        let mut store = Store::open(&folder.path().join("palang.db")).unwrap();
        let pass = Verdict::Pass as u8;
        store.put_calls(&[row(-90_000, 7, 1, Some("vouches"), EVENT_FROM, pass)]).unwrap();
        let ask = |store: &Store| matched(&config, store.reader(), &asked(7, Some(1))).unwrap();
        let (call, why_not) = ask(&store);
        assert!(why_not.unwrap().contains("only the last 24 hours count"));
        let report = Report {
            time: now(),
            number: Number(7),
            kind: ReportKind::Prank,
            call_id: None,
            call_hash: Some(1),
            call: call.clone(),
            why_not: None,
            author: "siti".to_owned(),
            note: String::new(),
        };
        store.add_report(&report, None, Entry::new(now(), "siti", "report")).unwrap();
        assert_eq!(ask(&store), (call.clone(), None));
        // Even without the record of the call.
        store.prune_calls(now(), Duration::MAX).unwrap();
        assert_eq!(ask(&store), (call, None));
    }

    #[test]
    fn grant_that_ended_does_not_end_again() {
        let folder = tempfile::TempDir::new().unwrap();
        let mut store = Store::open(&folder.path().join("palang.db")).unwrap();
        let number = |digits: &str| Number::e164(Digits::parse(digits).unwrap());
        let about = |action: &str, digits: &str| Entry {
            number: Some(number(digits).to_string()),
            ..Entry::new(now(), "siti", action)
        };
        store.audit(about("report", "62811")).unwrap();
        store.audit(about(GRANT_END, "62812")).unwrap();
        let ended = |digits: &str, at: i64| {
            let since = now() + SignedDuration::from_secs(at);
            grant_ended_since(store.reader(), number(digits), since).unwrap()
        };
        assert!(ended("62812", -1) && ended("62812", 0));
        assert!(!ended("62812", 1), "before that call came");
        assert!(!ended("62811", -1));
    }
}
