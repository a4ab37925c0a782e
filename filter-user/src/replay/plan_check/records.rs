//! Findings from the daemon's call records. A record has the number as it was read, or the header field of a
//! caller who could not be read.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use filter_common::number::{Digits, Number};
use filter_common::plan::{Context, Dialled};
use filter_common::reason::Reason;
use jiff::Timestamp;

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::Call;
use crate::model::plan::explain;
use crate::model::plan::preset::Preset;
use crate::model::plan::presets;
use crate::model::policy::{Policy, Trunk};
use crate::replay::plan_check::{
    Alternative, CHANGES, EXAMPLES, Possible, TEXT_MAX, TrunkCheck, Unread, has_own_code, largest,
};

/// Records that are enough for a share.
const NEWEST: u64 = 20_000;
/// Different numbers of a trunk that are tried as ones of other countries.
const NUMBERS_MAX: usize = 2_000;

/// Reasons why records cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user sees masked numbers.
    #[error(
        "the daemon masks the numbers, so they cannot be checked: this needs the role operate ([roles] in \
         palang.toml)"
    )]
    Masked,
    /// The daemon refuses, or cannot be reached.
    #[error(transparent)]
    Daemon(#[from] client::Error),
}

/// Asks the daemon for its records since a time, and checks the plans of a policy on them. `trunk`: only the
/// records of this trunk.
///
/// # Errors
/// [`Error`] if the numbers are masked, or the daemon does not answer.
pub fn recorded(
    client: &Client,
    policy: &Policy,
    since: Timestamp,
    trunk: Option<&str>,
) -> Result<RecordCheck, Error> {
    let since = since.to_string();
    let path = client::path(&["calls"], &[("since", Some(since.as_str())), ("trunk", trunk)]);
    collected(policy, |each| client.list(&path, each))
}

/// Checks the plans of a policy on the newest records since a time. It does not wait for a daemon that hangs.
///
/// # Errors
/// [`Error`] if the numbers are masked, or the daemon does not answer in time.
pub fn newest(client: &Client, policy: &Policy, since: Timestamp) -> Result<RecordCheck, Error> {
    let (since, limit) = (since.to_string(), NEWEST.to_string());
    let query = [("since", Some(since.as_str())), ("limit", Some(limit.as_str()))];
    let path = client::path(&["calls"], &query);
    collected(policy, |each| client.list_within(&path, client::SHORT, each))
}

fn collected(
    policy: &Policy,
    list: impl FnOnce(&mut dyn FnMut(Call) -> ControlFlow<()>) -> Result<(), client::Error>,
) -> Result<RecordCheck, Error> {
    let mut check = RecordCheck::new(policy);
    let mut added = Ok(());
    list(&mut |call| {
        added = check.add(&call);
        if added.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    added.map(|()| check)
}

/// Checks the plans of a policy on call records.
pub struct RecordCheck {
    trunks: Vec<Checked>,
    possible: Possible,
    /// Calls from a source outside all trunks.
    pub outside: u64,
    /// Records that were read.
    pub records: u64,
}

/// A trunk and its findings.
struct Checked {
    /// Its configuration; `None` if it is not configured any more.
    trunk: Option<Trunk>,
    check: TrunkCheck,
    variants: Vec<Variant>,
    /// How often each number came that is not local; only the first [`NUMBERS_MAX`] numbers.
    numbers: BTreeMap<Number, u64>,
}

/// A trunk with one change.
struct Variant {
    trunk: Trunk,
    /// The result if only impossible numbers are read again.
    impossible: Alternative,
    /// The result if all numbers of other countries are read again.
    foreign: Alternative,
    /// Possible numbers of the own country in `foreign`.
    own: u64,
}

impl Checked {
    fn new(trunk: &Trunk) -> Checked {
        let variants = CHANGES.iter().filter_map(|change| {
            let mut changed = trunk.clone();
            let setting = change(&mut changed)?;
            // A record does not show how the other header would be read.
            let has_same_identity = changed.profile.identity == trunk.profile.identity;
            let result = Alternative { setting, ..Alternative::default() };
            let (impossible, foreign) = (result.clone(), result);
            has_same_identity.then_some(Variant { trunk: changed, impossible, foreign, own: 0 })
        });
        let check = TrunkCheck { trunk: trunk.name.clone(), ..TrunkCheck::default() };
        Checked {
            trunk: Some(trunk.clone()),
            check,
            variants: variants.collect(),
            numbers: BTreeMap::new(),
        }
    }

    fn unknown(name: &str) -> Checked {
        let check = TrunkCheck { trunk: name.to_owned(), ..TrunkCheck::default() };
        Checked { trunk: None, check, variants: Vec::new(), numbers: BTreeMap::new() }
    }
}

impl RecordCheck {
    /// Creates a check of the plans of a policy.
    #[must_use]
    pub fn new(policy: &Policy) -> RecordCheck {
        RecordCheck {
            trunks: policy.trunks.iter().map(Checked::new).collect(),
            possible: Possible::default(),
            outside: 0,
            records: 0,
        }
    }

    /// Counts a record.
    ///
    /// # Errors
    /// [`Error::Masked`] if the caller's number is masked.
    pub fn add(&mut self, call: &Call) -> Result<(), Error> {
        self.records += 1;
        let Some(name) = call.trunk.as_ref().filter(|_| call.reason != Reason::UnknownTrunk.name())
        else {
            self.outside += 1;
            return Ok(());
        };
        let index = self.trunks.iter().position(|found| found.check.trunk == *name);
        let index = index.unwrap_or_else(|| {
            self.trunks.push(Checked::unknown(name));
            self.trunks.len() - 1
        });
        let Some(Checked { trunk, check, variants, numbers }) = self.trunks.get_mut(index) else {
            return Ok(());
        };
        check.calls += 1;
        let Some(text) = &call.caller else {
            let known = Reason::ALL.iter().map(|reason| reason.name());
            let reason = known.into_iter().find(|name| *name == call.reason).unwrap_or("unknown");
            *check.unread.entry(reason).or_default() += 1;
            if let Some(header) = &call.unread {
                self.read_again(index, header, reason);
            }
            return Ok(());
        };
        // A caller is never a prefix.
        if text.contains('*') {
            return Err(Error::Masked);
        }
        let number = number(text, trunk.as_ref());
        let is_possible = self.possible.has(number);
        check.read += 1;
        check.local += u64::from(number.is_local());
        check.possible += u64::from(is_possible);
        let is_own = trunk.as_ref().is_some_and(|trunk| has_own_code(number, &trunk.profile.plan));
        check.own += u64::from(is_possible && is_own);
        if !number.is_local() && (numbers.len() < NUMBERS_MAX || numbers.contains_key(&number)) {
            *numbers.entry(number).or_default() += 1;
        }
        for variant in variants {
            // The trunk may have sent these digits alone.
            let read = dialled(number).map(|text| variant.trunk.profile.plan.resolve(&text));
            let again = read.and_then(Result::ok).unwrap_or(number);
            let is_fixed = number.is_local();
            let mut count = |counts: &mut Alternative, is_kept: bool| {
                let other = if is_fixed || is_kept { number } else { again };
                let is_possible = self.possible.has(other);
                counts.read += 1;
                counts.possible += u64::from(is_possible);
                counts.changed += u64::from(other != number);
                u64::from(is_possible && has_own_code(other, &variant.trunk.profile.plan))
            };
            count(&mut variant.impossible, is_possible);
            variant.own += count(&mut variant.foreign, is_possible && is_own);
        }
        Ok(())
    }

    /// Keeps the header field of an unread caller as an example, and reads it by each other plan.
    fn read_again(&mut self, index: usize, header: &str, reason: &'static str) {
        let Some(Checked { check, variants, .. }) = self.trunks.get_mut(index) else { return };
        let text: String = header.chars().take(TEXT_MAX).collect();
        if check.examples.len() < EXAMPLES
            && check.examples.iter().all(|example| example.text != text)
        {
            check.examples.push(Unread { text, reason });
        }
        // The other reasons are not of the plan.
        if ![Reason::AmbiguousNumber, Reason::TooManyDigits].map(Reason::name).contains(&reason) {
            return;
        }
        for variant in variants {
            let Ok(number) = explain::read(header, &variant.trunk.profile.plan) else { continue };
            let is_possible = self.possible.has(number);
            for counts in [&mut variant.impossible, &mut variant.foreign] {
                counts.read += 1;
                counts.possible += u64::from(is_possible);
            }
            let is_own = has_own_code(number, &variant.trunk.profile.plan);
            variant.own += u64::from(is_possible && is_own);
        }
    }

    /// Returns the findings for each trunk with calls. Settings that read most come first.
    #[must_use]
    pub fn finish(self) -> Vec<TrunkCheck> {
        let mut possible = self.possible;
        let trunks = self.trunks.into_iter().map(|checked| {
            let Checked { trunk, mut check, variants, numbers } = checked;
            // Few callers come from abroad. If most numbers do, they were most likely read wrongly.
            let is_foreign = check.own * 2 < check.read - check.local;
            let settings = variants.into_iter().filter_map(|variant| {
                let (result, is_better) = if is_foreign {
                    (variant.foreign, variant.own > check.own)
                } else {
                    let is_better = variant.impossible.possible > check.possible;
                    (variant.impossible, is_better)
                };
                is_better.then_some(result)
            });
            check.settings = settings.collect();
            if let Some(trunk) = trunk.filter(|_| is_foreign) {
                check.settings.extend(other_country(&trunk, &numbers, &check, &mut possible));
            }
            check.sort_settings();
            check
        });
        trunks.filter(|check| check.calls > 0).collect()
    }
}

/// Returns the setting of another country, if more than half of the numbers are possible ones of it. The trunk may
/// have sent their digits alone.
fn other_country(
    trunk: &Trunk,
    numbers: &BTreeMap<Number, u64>,
    check: &TrunkCheck,
    possible: &mut Possible,
) -> Option<Alternative> {
    let all: u64 = numbers.values().sum();
    let is_largest = |preset: &&Preset| {
        largest(preset.code).is_some_and(|largest| largest.country == preset.country)
    };
    let mut tried = |preset: &'static Preset| {
        let plan = preset.plan();
        let (mut own, setting) = (0, format!("country = {:?}", preset.country));
        let mut result = Alternative { setting, read: check.read, ..Alternative::default() };
        for (number, count) in numbers {
            let read = dialled(*number).and_then(|text| plan.resolve(&text).ok());
            let read = read.unwrap_or(*number);
            let is_possible = possible.has(read);
            result.possible += if is_possible { *count } else { 0 };
            result.changed += if read == *number { 0 } else { *count };
            own += if is_possible && has_own_code(read, &plan) { *count } else { 0 };
        }
        (own, preset, result)
    };
    let tried = presets::all().iter().filter(is_largest).map(&mut tried);
    // Digits may be possible in two countries: as they are in one, and after a country code in the other.
    let (_, preset, result) = tried
        .filter(|(own, ..)| *own > all / 2)
        .max_by_key(|(own, _, result)| (*own, Reverse(result.changed)))?;
    (trunk.profile.plan.country.to_string() != preset.code).then_some(result)
}

/// Returns the number of a record: digits without `+`, which are a local number if they are few.
fn number(text: &str, trunk: Option<&Trunk>) -> Number {
    let Some(digits) = Digits::parse(text) else { return Number::NONE };
    let plan = trunk.map(|trunk| trunk.profile.plan);
    let is_short = plan.is_some_and(|plan| {
        digits.len() <= u32::from(plan.short_digits) && !digits.starts_with(plan.country)
    });
    let local = Number::local(digits).filter(|_| is_short || text.starts_with('0'));
    local.unwrap_or(Number::e164(digits))
}

/// Returns the digits of a number as a trunk may have sent them.
fn dialled(number: Number) -> Option<Dialled> {
    let text = number.to_string();
    let low = text.bytes().try_fold(0_u64, |low, byte| {
        byte.is_ascii_digit().then(|| low << 4 | u64::from(byte - b'0'))
    })?;
    Some(Dialled { high: 0, low, count: text.len() as u32, plus: false, context: Context::None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(trunk: Option<&str>, caller: Option<&str>, reason: &str) -> Call {
        Call {
            id: 1,
            time: "2026-11-24T11:20:00Z".parse().unwrap(),
            caller: caller.map(str::to_owned),
            trunk: trunk.map(str::to_owned),
            source: "10.0.0.1:5060".to_owned(),
            call_id: None,
            identity: Some("from".to_owned()),
            verdict: "pass".to_owned(),
            policy_verdict: "pass".to_owned(),
            reason: reason.to_owned(),
            rule: 0,
            repeats: 0,
            attempts: 1,
            unread: None,
            reply: None,
        }
    }

    /// Returns a check of a trunk that reads E.164 numbers without `+`, with the plan of a country.
    fn check(country: &str) -> RecordCheck {
        let mut policy = Policy::default();
        let mut trunk = policy.trunks[0].clone();
        trunk.name = "east".to_owned();
        trunk.profile.plan = presets::of(country).unwrap().plan();
        trunk.profile.plan.formats = filter_common::plan::FORMAT_E164;
        policy.trunks.push(trunk);
        RecordCheck::new(&policy)
    }

    #[test]
    fn records_are_counted_by_trunk_and_reason() {
        let mut check = check("ID");
        let east = Some("east");
        for (trunk, caller, reason) in [
            (east, Some("6281234567890"), "not-blocked"),
            (east, Some("6581234567"), "not-blocked"),
            (east, Some("112"), "protected"),
            (east, None, "ambiguous-number"),
            (east, None, "ambiguous-number"),
            (east, None, "not-a-number"),
            (None, None, "unknown-trunk"),
            (Some("gone"), Some("6281234567890"), "not-blocked"),
        ] {
            check.add(&call(trunk, caller, reason)).unwrap();
        }
        assert_eq!((check.records, check.outside), (8, 1));
        let [east, gone] = &check.finish()[..] else { panic!("two trunks") };
        assert_eq!((east.calls, east.read, east.local), (6, 3, 1));
        assert_eq!((east.possible, east.own), (2, 1));
        assert_eq!(east.unread, [("ambiguous-number", 2), ("not-a-number", 1)].into());
        assert!(east.settings.is_empty() && east.examples.is_empty());
        assert_eq!((gone.trunk.as_str(), gone.possible, gone.own), ("gone", 1, 0));
    }

    #[test]
    fn unread_header_fields_name_the_setting_that_reads_them() {
        let mut check = check("US");
        for (header, reason) in [
            ("\"J\" <sip:6505550000@x>;tag=1", "ambiguous-number"),
            ("<sip:2125550123@x>", "ambiguous-number"),
            ("<sip:2125550123@x>", "ambiguous-number"),
            ("Doe, J <sip:2125550124@x>", "bad-header"),
        ] {
            let unread = Some(header.to_owned());
            check.add(&Call { unread, ..call(Some("east"), None, reason) }).unwrap();
        }
        let east = check.finish().remove(0);
        assert_eq!((east.calls, east.read, east.examples.len()), (4, 0, 3), "{east:?}");
        let national = east.settings.iter().find(|found| found.setting.contains("bare-national"));
        let national = national.unwrap();
        assert_eq!((national.read, national.possible, national.changed), (3, 3, 0), "{east:?}");
    }

    fn east(callers: &[&str]) -> TrunkCheck {
        let mut check = check("US");
        for caller in callers {
            check.add(&call(Some("east"), Some(caller), "not-blocked")).unwrap();
        }
        check.finish().remove(0)
    }

    // A trunk of the USA that sends ten digits: `6505550000` was read as a number of Singapore.
    #[test]
    fn numbers_of_other_countries_name_the_setting_that_reads_them_as_own_ones() {
        let east = east(&["6505550000", "2125550123", "3055550123", "12125550123"]);
        assert_eq!((east.read, east.own), (4, 1), "{east:?}");
        let national = east.settings.iter().find(|found| found.setting.contains("bare-national"));
        let national = national.unwrap();
        assert_eq!((national.read, national.possible, national.changed), (4, 4, 3), "{east:?}");
    }

    #[test]
    fn another_country_is_proposed_if_most_numbers_are_possible_there() {
        let callers = ["6281234567890", "6281298765432", "62215550123", "12125550123"];
        let east = east(&callers);
        let country = east.settings.iter().find(|found| found.setting.starts_with("country"));
        let country = country.unwrap_or_else(|| panic!("{east:?}"));
        assert_eq!(country.setting, "country = \"ID\"");
        assert_eq!((country.read, country.possible, country.changed), (4, 4, 0), "{east:?}");
    }

    #[test]
    fn largest_country_of_a_code_is_proposed() {
        for (callers, setting) in [
            (["12125550123", "13055550123"], "country = \"US\""),
            (["79245551436", "79161234567"], "country = \"RU\""),
        ] {
            let mut check = check("ID");
            for caller in callers {
                check.add(&call(Some("east"), Some(caller), "not-blocked")).unwrap();
            }
            let east = &check.finish()[0];
            let mut found = east.settings.iter().map(|found| found.setting.as_str());
            assert!(found.any(|found| found == setting), "{setting}: {east:?}");
        }
    }

    #[test]
    fn few_numbers_of_other_countries_are_no_finding() {
        let east = east(&["12125550123", "12125550124", "13055550123", "6581234567"]);
        assert_eq!((east.possible, east.own), (4, 3), "{east:?}");
        assert!(east.settings.is_empty(), "{east:?}");
    }

    #[test]
    fn masked_number_is_refused() {
        let masked = call(Some("east"), Some("6281*******90"), "not-blocked");
        assert!(matches!(check("ID").add(&masked), Err(Error::Masked)));
    }
}
