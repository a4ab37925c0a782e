//! Finds out whether many callers seem to share a number: a placeholder or a switchboard.
//!
//! A call record holds neither the display name nor the telephone. It holds the trunk and the Call-ID, whose
//! part after `@` often names the machine that made the call (RFC 3261 §20.8). One telephone comes by one
//! trunk and seldom changes its machine.

use std::collections::BTreeSet;
use std::time::Duration;

use filter_common::abi::CALL_ID_EVENT_MAX;
use filter_common::number::Number;
use jiff::Timestamp;

/// Newest records of a number that are looked at.
pub const RECORDS: u32 = 100;
/// Age of the oldest record that is looked at.
pub const AGE: Duration = Duration::from_hours(30 * 24);
/// Records within this time are compared: the address of a mobile telephone changes now and then.
const WINDOW: Duration = Duration::from_hours(1);
/// A carrier that gets no answer tries another trunk. All its timers are over then (64·T1, RFC 3261 §17.1.1.2).
const SECOND_TRY: Duration = Duration::from_secs(64);
/// Fewest trunks of a number that seems to be shared.
const TRUNKS: usize = 2;
/// Fewest machines of a number that seems to be shared.
const MACHINES: usize = 5;

/// A call of the number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Time of the attempt.
    pub time: Timestamp,
    /// Name of the trunk; `None`: outside every trunk.
    pub trunk: Option<String>,
    /// Call-ID, cut.
    pub call_id: Option<String>,
}

/// Returns a warning if many callers seem to share a number. `sightings` come newest first.
#[must_use]
pub fn warning(number: Number, sightings: &[Sighting]) -> Option<String> {
    let trunks: Vec<_> = (0..sightings.len()).map(|index| trunk(sightings, index)).collect();
    let how = sightings.iter().enumerate().find_map(|(start, newest)| {
        let is_within = |other: &&Sighting| is_before(other.time, newest.time, WINDOW);
        let end = start + sightings[start..].iter().take_while(is_within).count();
        let trunks: BTreeSet<&str> = trunks[start..end].iter().copied().flatten().collect();
        let machines: BTreeSet<&str> = sightings[start..end].iter().filter_map(machine).collect();
        if trunks.len() >= TRUNKS {
            return Some(format!("by the trunks {}", Vec::from_iter(trunks).join(", ")));
        }
        let count = machines.len();
        (count >= MACHINES).then(|| format!("from {count} machines, by the hosts in its Call-IDs,"))
    })?;
    Some(format!(
        "calls with this number came {how} within an hour. Many callers may share it (a placeholder, a \
         switchboard), and a block refuses all of them: palang calls --caller {number} shows its calls"
    ))
}

fn is_before(older: Timestamp, newer: Timestamp, by: Duration) -> bool {
    newer.duration_since(older).unsigned_abs() <= by
}

/// Returns the trunk of a call; `None` if the call may be the carrier's second try by another trunk.
fn trunk(sightings: &[Sighting], index: usize) -> Option<&str> {
    let call = &sightings[index];
    let is_retry = sightings[index + 1..]
        .iter()
        .take_while(|older| is_before(older.time, call.time, SECOND_TRY))
        .any(|older| older.trunk != call.trunk);
    call.trunk.as_deref().filter(|_| !is_retry)
}

/// Returns the host of a Call-ID that is not cut.
fn machine(call: &Sighting) -> Option<&str> {
    let call_id = call.call_id.as_deref().filter(|call_id| call_id.len() < CALL_ID_EVENT_MAX)?;
    call_id.rsplit_once('@').map(|(_, host)| host).filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warn(sightings: &[Sighting]) -> Option<String> {
        warning(Number(0x6281_2000_0000_0010), sightings)
    }

    /// Returns calls, newest first, from (second, trunk, Call-ID).
    fn calls(calls: &[(i64, &str, &str)]) -> Vec<Sighting> {
        let mut calls: Vec<_> = calls
            .iter()
            .map(|(second, trunk, call_id)| Sighting {
                time: Timestamp::from_second(1_800_000_000 + second).unwrap(),
                trunk: (!trunk.is_empty()).then(|| (*trunk).to_owned()),
                call_id: Some((*call_id).to_owned()),
            })
            .collect();
        calls.reverse();
        calls
    }

    #[test]
    fn one_telephone_gives_no_warning() {
        let mobile: Vec<_> = (0..200).map(|call| (call * 30, "telco", "a@10.0.0.1")).collect();
        assert_eq!(warn(&calls(&mobile)), None);
        // Another address each hour, and Call-IDs without a host.
        let hosts: Vec<String> = (0..50).map(|hour| format!("a@10.0.0.{hour}")).collect();
        let moving: Vec<_> =
            (0..50).map(|hour| (hour * 3600, "telco", hosts[hour as usize].as_str())).collect();
        assert_eq!(warn(&calls(&moving)), None);
        let bare: Vec<String> = (0..50).map(|call| format!("{call}")).collect();
        let bare: Vec<_> = (0..50).map(|at| (at, "telco", bare[at as usize].as_str())).collect();
        assert_eq!(warn(&calls(&bare)), None);
        assert_eq!(warn(&[]), None);
    }

    #[test]
    fn two_trunks_within_an_hour_give_a_warning() {
        let two = [(0, "telco", "a@sbc"), (3000, "vsat", "b@sbc")];
        let text = warn(&calls(&two)).unwrap();
        assert!(text.contains("by the trunks telco, vsat within an hour"), "{text}");
        // Not a day later, and not outside every trunk.
        assert_eq!(warn(&calls(&[(0, "telco", "a@sbc"), (80_000, "vsat", "b@sbc")])), None);
        assert_eq!(warn(&calls(&[(0, "telco", "a@sbc"), (3000, "", "b@sbc")])), None);
        // Long ago, with usual calls since.
        let mut later = two.to_vec();
        later.extend((0..300).map(|call| (90_000 + call * 60, "telco", "a@sbc")));
        assert!(warn(&calls(&later)).is_some());
    }

    #[test]
    fn second_try_of_a_carrier_gives_no_warning() {
        let retried = [(0, "telco", "a@sbc"), (32, "spare", "b@sbc"), (40, "spare", "c@sbc")];
        assert_eq!(warn(&calls(&retried)), None);
        let separate = [(0, "telco", "a@sbc"), (65, "spare", "b@sbc")];
        assert!(warn(&calls(&separate)).is_some());
    }

    #[test]
    fn five_machines_within_an_hour_give_a_warning() {
        let hosts: Vec<String> = (0..5).map(|host| format!("a@ue{host}.example")).collect();
        let call = |at: i64| (at * 700, "telco", hosts[at as usize].as_str());
        let five: Vec<_> = (0..5).map(call).collect();
        let text = warn(&calls(&five)).unwrap();
        assert!(text.contains("from 5 machines"), "{text}");
        assert_eq!(warn(&calls(&five[..4])), None);
        // A cut Call-ID may have lost its host.
        let cut: Vec<String> =
            (0..5).map(|host| format!("{host}@{}", "x".repeat(CALL_ID_EVENT_MAX - 2))).collect();
        let cut: Vec<_> = (0..5).map(|at| (at * 700, "telco", cut[at as usize].as_str())).collect();
        assert_eq!(warn(&calls(&cut)), None);
    }
}
