//! Counts the callers that are refused most, in the last minutes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use filter_common::abi::Verdict;
use filter_common::number::Number;

use crate::store::CallRow;

/// A minute, in nanoseconds.
pub(crate) const MINUTE: u64 = 60_000_000_000;

/// Minutes that callers are counted for.
const MINUTES: u64 = 5;

/// Callers that are counted in a minute, about 100 bytes each: a block of a prefix may have
/// callers without end.
pub(crate) const CALLERS: usize = 20_000;

/// Maximum number of callers in an answer.
pub(crate) const CALLERS_SHOWN: usize = 50;

/// Callers with the most refused calls, or calls that would be refused. They are in memory only,
/// and start with the daemon.
#[derive(Debug, Default)]
pub struct Busiest(pub(crate) Mutex<BTreeMap<u64, Minute>>);

#[derive(Debug, Default)]
pub(crate) struct Minute {
    pub(crate) callers: HashMap<Number, Count>,
    pub(crate) uncounted: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Count {
    pub(crate) attempts: u64,
    pub(crate) refused: u64,
    pub(crate) last: u64,
    pub(crate) reason: u8,
    pub(crate) trunk: Option<String>,
}

impl Busiest {
    /// Counts an attempt that came at this boot time.
    pub fn take(&self, row: &CallRow, time: u64) {
        let Some(number) = row.number.filter(|_| row.policy_verdict != Verdict::Pass as u8) else {
            return;
        };
        let mut minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = time / MINUTE;
        minutes.retain(|old, _| old + MINUTES > minute);
        let Minute { callers, uncounted } = minutes.entry(minute).or_default();
        if callers.len() >= CALLERS && !callers.contains_key(&number) {
            *uncounted += 1;
            return;
        }
        let count = callers.entry(number).or_insert_with(|| Count {
            attempts: 0,
            refused: 0,
            last: 0,
            reason: 0,
            trunk: None,
        });
        count.attempts += 1;
        count.refused += u64::from(row.verdict != Verdict::Pass as u8);
        if time >= count.last {
            count.last = time;
            count.reason = row.reason;
            count.trunk.clone_from(&row.trunk);
        }
    }

    /// Removes a number.
    pub fn forget(&self, number: Number) {
        let mut minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for minute in minutes.values_mut() {
            minute.callers.remove(&number);
        }
    }

    /// Returns the callers of the last minutes, most attempts first, and the number of uncounted
    /// attempts.
    pub(crate) fn now(&self, time: u64) -> (Vec<(Number, Count)>, u64) {
        let minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums: HashMap<Number, Count> = HashMap::new();
        let mut uncounted = 0;
        let recent = minutes.iter().filter(|(minute, _)| *minute + MINUTES > time / MINUTE);
        for (_, minute) in recent {
            uncounted += minute.uncounted;
            for (number, count) in &minute.callers {
                // The minutes come in their order, so the last is the newest.
                sums.entry(*number)
                    .and_modify(|sum| {
                        *sum = Count {
                            attempts: sum.attempts + count.attempts,
                            refused: sum.refused + count.refused,
                            ..count.clone()
                        };
                    })
                    .or_insert_with(|| count.clone());
            }
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by_key(|(number, count)| {
            (std::cmp::Reverse((count.attempts, count.last)), *number)
        });
        sums.truncate(CALLERS_SHOWN);
        (sums, uncounted)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use filter_common::reason::Reason;

    use crate::model::number_text;
    use crate::model::policy::{Policy, Subject};

    pub(crate) fn number(text: &str) -> Number {
        let plan = &Policy::default().trunks[0].profile.plan;
        let Subject::Number(number) = number_text::typed(text, plan).unwrap() else {
            panic!("{text} is no number")
        };
        number
    }

    pub(crate) fn row(
        number: Option<Number>,
        verdict: Verdict,
        policy_verdict: Verdict,
    ) -> CallRow {
        CallRow {
            time: jiff::Timestamp::UNIX_EPOCH,
            number,
            trunk: Some("telkom".into()),
            source: "192.0.2.1:5060".into(),
            call_id: None,
            call_hash: 0,
            identity: 0,
            verdict: verdict as u8,
            policy_verdict: policy_verdict as u8,
            reason: Reason::BlockedNumber as u8,
            rule: 1,
            repeats: 0,
            count: 1,
            unread: None,
            reply: None,
        }
    }

    #[test]
    fn busiest_callers_come_first_and_old_ones_are_dropped() {
        let (rare, often) = (number("+6281234567890"), number("+6281234567891"));
        let refused = |number| row(Some(number), Verdict::Drop, Verdict::Drop);
        let busiest = Busiest::default();
        busiest.take(&refused(rare), MINUTE);
        for time in [MINUTE, 3 * MINUTE, 3 * MINUTE + 7] {
            busiest.take(&refused(often), time);
        }
        // Would be refused, and is not; passes by itself; has no number.
        busiest.take(&row(Some(often), Verdict::Pass, Verdict::Drop), 3 * MINUTE + 5);
        busiest.take(&row(Some(rare), Verdict::Pass, Verdict::Pass), 3 * MINUTE);
        busiest.take(&row(None, Verdict::Drop, Verdict::Drop), 3 * MINUTE);
        let counts = |time| -> Vec<_> {
            let (found, uncounted) = busiest.now(time);
            assert_eq!(uncounted, 0);
            let count = |(number, count): (Number, Count)| (number, count.attempts, count.refused);
            found.into_iter().map(count).collect()
        };
        assert_eq!(counts(3 * MINUTE + 9), [(often, 4, 3), (rare, 1, 1)]);
        assert_eq!(busiest.now(3 * MINUTE).0[0].1.last, 3 * MINUTE + 7);
        assert_eq!(counts(6 * MINUTE), [(often, 3, 2)]);
        assert_eq!(counts(8 * MINUTE), []);
        busiest.forget(often);
        assert_eq!(counts(3 * MINUTE + 9), [(rare, 1, 1)]);
    }

    #[test]
    fn callers_without_room_are_counted_together() {
        let busiest = Busiest::default();
        let caller = |index: usize| number(&format!("+62812{index:08}"));
        for index in 0..CALLERS + 3 {
            busiest.take(&row(Some(caller(index)), Verdict::Drop, Verdict::Drop), 1);
        }
        busiest.take(&row(Some(caller(7)), Verdict::Drop, Verdict::Drop), 1);
        let (found, uncounted) = busiest.now(1);
        assert_eq!((found.len(), uncounted), (CALLERS_SHOWN, 3));
        assert_eq!((found[0].0, found[0].1.attempts), (caller(7), 2));
    }
}
