//! Checks whether the numbering plans fit the calls of the last hour: a block misses callers who are not read,
//! or are read wrongly.

use filter_common::reason::Reason;
use jiff::{SignedDuration, Timestamp};

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::{MachineRedial, Status};
use crate::bringup::doctor::check::Check;
use crate::config::Paths;
use crate::model::plan::asserted;
use crate::model::policy::Policy;
use crate::model::reasons::most_frequent;
use crate::replay::plan_check::TrunkCheck;
use crate::replay::plan_check::records::{Error, newest};

/// The time of the calls.
const SINCE: SignedDuration = SignedDuration::from_hours(1);
/// Fewer such calls are no finding: one scanner sends as many.
const CALLS_MIN: u64 = 5;
/// Fewer unread callers in a hundred are no finding.
const UNREAD_PERCENT: u64 = 10;
/// Fewer numbers in a hundred that are not possible ones of the own country are no finding: visitors roam.
const OTHER_PERCENT: u64 = 20;

/// Checks the plans of a policy on the daemon's records. Returns nothing if the daemon does not answer, because
/// another check shows that.
pub(crate) fn checks(paths: &Paths, policy: &Policy) -> Vec<Check> {
    let since = Timestamp::now().checked_sub(SINCE).unwrap_or(Timestamp::MIN);
    let client = Client::new(&paths.socket());
    let status: Result<Status, _> = client.get(&client::path(&["status"], &[]), client::SHORT);
    if matches!(status, Err(client::Error::Silent(_))) {
        return Vec::new();
    }
    let asserted = status.map(|status| [asserted(&status), redials(&status)].concat());
    let asserted = asserted.unwrap_or_default();
    let mut checks = plans(&client, policy, since);
    checks.extend(asserted);
    checks
}

/// Returns a finding about each trunk that reads `From` although it asserts other callers.
fn asserted(status: &Status) -> Vec<Check> {
    let finding = |(trunk, calls): (&String, &u64)| {
        let finding = asserted::finding(trunk, *calls);
        let finding = format!("{finding}; a block misses a caller who hides the number");
        Check::warn("plans", finding, asserted::MEND)
    };
    status.asserted_others.iter().map(finding).collect()
}

/// Returns a finding about each trunk whose carrier calls again by machine.
fn redials(status: &Status) -> Vec<Check> {
    let found = status.machine_redials.iter();
    let check = |found: &MachineRedial| {
        let mend = format!("set separate = \"{}s\" in [[trunk]] {}", found.separate, found.trunk);
        Check::warn("redials", found.finding.clone(), mend)
    };
    found.map(check).collect()
}

fn plans(client: &Client, policy: &Policy, since: Timestamp) -> Vec<Check> {
    match newest(client, policy, since) {
        Ok(check) => findings(&check.finish(), policy),
        Err(error @ Error::Masked) => {
            vec![Check::warn("plans", error.to_string(), "sudo palang doctor")]
        }
        Err(Error::Daemon(error)) => {
            let finding = format!(
                "the calls of the last hour cannot be checked: {}",
                crate::exit::Failure::from(error).message
            );
            vec![Check::warn("plans", finding, "palang status")]
        }
    }
}

/// Returns the findings about each trunk, or one check that all is well.
fn findings(trunks: &[TrunkCheck], policy: &Policy) -> Vec<Check> {
    let mut checks: Vec<Check> = trunks.iter().filter_map(unread).collect();
    checks.extend(trunks.iter().filter_map(|trunk| others(trunk, policy)));
    let calls: u64 = trunks.iter().map(|trunk| trunk.calls).sum();
    if checks.is_empty() {
        let finding = match calls {
            0 => "no call on a trunk in the last hour".to_owned(),
            1 => "the plans fit the call of the last hour".to_owned(),
            _ => format!("the plans fit the {calls} calls of the last hour"),
        };
        checks.push(Check::ok("plans", finding));
    }
    checks
}

/// Returns whether a part is large enough to be a finding.
fn is_many(part: u64, all: u64, percent: u64) -> bool {
    part >= CALLS_MIN && part * 100 >= all * percent
}

/// Returns a finding about callers who were not read; `None` if they are few. A withheld number is no fault of
/// the plan.
fn unread(trunk: &TrunkCheck) -> Option<Check> {
    let is_withheld = |name: &str| {
        Reason::ALL.iter().any(|reason| reason.name() == name && reason.is_without_number())
    };
    let calls = trunk.unread.iter().map(|(name, calls)| (*name, *calls));
    let reasons: Vec<_> = calls.filter(|(name, _)| !is_withheld(name)).collect();
    let unread: u64 = reasons.iter().map(|(_, calls)| calls).sum();
    if !is_many(unread, trunk.calls, UNREAD_PERCENT) {
        return None;
    }
    let TrunkCheck { trunk: name, calls, .. } = trunk;
    let finding = format!(
        "trunk {name}: {unread} of {calls} callers of the last hour were not read ({}); a block misses them",
        most_frequent(reasons)
    );
    let mend = format!("palang plan check --since 1h --trunk {name}");
    Some(Check::warn("plans", finding, mend))
}

/// Returns a finding about numbers that are not possible ones of the trunk's country; `None` if they are few.
fn others(trunk: &TrunkCheck, policy: &Policy) -> Option<Check> {
    let TrunkCheck { trunk: name, read, local, own, settings, .. } = trunk;
    // A trunk that is not configured any more has no country.
    let configured = policy.trunks.iter().find(|found| found.name == *name)?;
    let numbers = read - local;
    let others = numbers - own;
    if !is_many(others, numbers, OTHER_PERCENT) {
        return None;
    }
    let code = configured.profile.plan.country;
    let finding = format!(
        "trunk {name}: {others} of {numbers} numbers of the last hour are not possible ones of its country \
         (+{code})"
    );
    let mend = match settings.first() {
        Some(best) => format!(
            "if the trunk sends numbers without +, set {} for {name}; palang plan check --since 1h --trunk {name}",
            best.setting
        ),
        None => format!("set the country of {name}; palang plan check --since 1h --trunk {name}"),
    };
    Some(Check::warn("plans", finding, mend))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bringup::doctor::check::State;
    use crate::replay::plan_check::Alternative;

    fn trunk(calls: u64, read: u64, own: u64) -> TrunkCheck {
        TrunkCheck {
            trunk: "default".to_owned(),
            calls,
            read,
            own,
            possible: read,
            ..TrunkCheck::default()
        }
    }

    fn of(trunk: TrunkCheck) -> Vec<Check> {
        findings(&[trunk], &Policy::default())
    }

    #[test]
    fn plans_that_fit_are_no_finding() {
        for (found, says) in [
            (trunk(40, 40, 38), "fit the 40 calls"),
            (trunk(1, 1, 1), "fit the call"),
            // Too few to be sure.
            (TrunkCheck { unread: [("ambiguous-number", 4)].into(), ..trunk(4, 0, 0) }, "4 calls"),
            (trunk(4, 4, 0), "4 calls"),
            // Withheld numbers.
            (TrunkCheck { unread: [("not-a-number", 20)].into(), ..trunk(40, 20, 20) }, "40 calls"),
        ] {
            let checks = of(found);
            assert_eq!((checks.len(), checks[0].state), (1, State::Ok), "{checks:?}");
            assert!(checks[0].finding.contains(says), "{checks:?}");
        }
        assert!(findings(&[], &Policy::default())[0].finding.contains("no call"));
    }

    #[test]
    fn asserted_callers_that_are_not_read_are_a_warning() {
        assert_eq!(asserted(&Status::sample()), []);
        let status =
            Status { asserted_others: [("carrier".to_owned(), 7)].into(), ..Status::sample() };
        let checks = asserted(&status);
        assert_eq!((checks.len(), checks[0].state), (1, State::Warn), "{checks:?}");
        assert!(checks[0].finding.starts_with("trunk carrier reads From"), "{checks:?}");
        assert!(checks[0].mend.as_ref().unwrap().contains("pai-else-from"), "{checks:?}");
    }

    #[test]
    fn carrier_that_calls_again_by_machine_is_a_warning() {
        assert_eq!(redials(&Status::sample()), []);
        let (trunk, finding) = ("telkom".to_owned(), "trunk telkom seems to retry".to_owned());
        let machine = MachineRedial { trunk, gap_ms: 32_000, separate: 35, finding };
        let checks = redials(&Status { machine_redials: vec![machine], ..Status::sample() });
        assert_eq!((checks.len(), checks[0].state), (1, State::Warn), "{checks:?}");
        assert_eq!(checks[0].finding, "trunk telkom seems to retry");
        let mend = checks[0].mend.as_deref();
        assert_eq!(mend, Some("set separate = \"35s\" in [[trunk]] telkom"));
    }

    #[test]
    fn many_callers_who_are_not_read_are_a_warning() {
        let unread = [("ambiguous-number", 6), ("bad-header", 3), ("not-a-number", 9)].into();
        let checks = of(TrunkCheck { unread, ..trunk(40, 22, 22) });
        assert_eq!((checks.len(), checks[0].state), (1, State::Warn), "{checks:?}");
        let finding = &checks[0].finding;
        assert!(finding.contains("trunk default: 9 of 40 callers"), "{finding}");
        assert!(finding.contains("ambiguous-number 6, bad-header 3)"), "{finding}");
    }

    #[test]
    fn many_numbers_of_other_countries_are_a_warning_with_the_setting() {
        let setting =
            Alternative { setting: "formats = [\"national\"]".into(), ..Alternative::default() };
        let checks = of(TrunkCheck { settings: vec![setting], ..trunk(40, 40, 10) });
        assert_eq!((checks.len(), checks[0].state), (1, State::Warn), "{checks:?}");
        assert!(checks[0].finding.contains("30 of 40 numbers"), "{checks:?}");
        assert!(checks[0].finding.contains("(+62)"), "{checks:?}");
        assert!(checks[0].mend.as_ref().unwrap().contains("set formats ="), "{checks:?}");
        let unknown = TrunkCheck { trunk: "gone".into(), ..trunk(40, 40, 0) };
        assert_eq!(of(unknown)[0].state, State::Ok);
    }
}
