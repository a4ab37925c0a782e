//! Decides which refusals get a record of their own. In a flood not every one does, because the
//! disk would fill up: further refusals of a number count in its last record. Without a record, the
//! trunk counts them.

use std::collections::HashMap;

use filter_common::abi::Event;
use filter_common::number::Number;

use crate::config::RecordLimits;

const SECOND: u64 = 1_000_000_000;
/// Seconds after which no record counts further refusals.
const COUNTS: u64 = 60;
/// Callers that are known at once, about 100 bytes each. Without a limit for a trunk there may be
/// more: these have a record for each refusal.
const CALLERS: usize = 100_000;

/// Where a refusal is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It gets a record of its own.
    Own,
    /// It counts in the record with this number.
    In(u64),
    /// Its trunk counts it.
    Thinned,
}

/// The callers that were refused in this minute.
#[derive(Debug, Default)]
pub struct Flood {
    /// The second of the newest event, in boot time.
    second: u64,
    /// New records in this second, by the index of their trunk.
    new: HashMap<u16, u32>,
    callers: HashMap<Caller, Last>,
}

/// A record counts only what differs in nothing but its time and its Call-ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Caller {
    number: Number,
    trunk: u16,
    identity: u8,
    verdict: u8,
    policy_verdict: u8,
    reason: u8,
    rule: u64,
}

/// The last record of a caller.
#[derive(Clone, Copy, Debug)]
struct Last {
    record: u64,
    second: u64,
    /// Records in that second.
    in_second: u32,
    /// It had too many in a second: no more until the minute is over.
    floods: bool,
}

impl Flood {
    /// Goes on to the second of an event. Returns whether a new minute begins with it, in which no
    /// record from before counts any more. Events of several CPUs come nearly in their order.
    pub fn go_on(&mut self, event: &Event) -> bool {
        let second = event.time / SECOND;
        if (self.second.saturating_sub(1)..=self.second).contains(&second) {
            return false;
        }
        let is_new_minute = second / COUNTS != self.second / COUNTS;
        self.second = second;
        self.new.clear();
        if is_new_minute {
            self.callers.clear();
        }
        is_new_minute
    }

    /// Returns where a refusal of this second is recorded. `has_room`: another record can be made.
    pub fn place(&mut self, limits: RecordLimits, event: &Event, has_room: bool) -> Place {
        let RecordLimits { per_number, per_trunk } = limits;
        let new = self.new.get(&event.trunk).copied().unwrap_or(0);
        let has_room = has_room && (per_trunk == 0 || new < per_trunk);
        let Some(last) = self.callers.get_mut(&Caller::of(event)) else {
            return if has_room { Place::Own } else { Place::Thinned };
        };
        if last.second != self.second {
            (last.second, last.in_second) = (self.second, 0);
        }
        last.floods |= per_number != 0 && last.in_second >= per_number;
        if last.floods || !has_room { Place::In(last.record) } else { Place::Own }
    }

    /// Notes the new record of a refusal.
    pub fn put(&mut self, event: &Event, record: u64) {
        *self.new.entry(event.trunk).or_default() += 1;
        let caller = Caller::of(event);
        if self.callers.len() >= CALLERS && !self.callers.contains_key(&caller) {
            return;
        }
        let new = Last { record, second: self.second, in_second: 0, floods: false };
        let last = self.callers.entry(caller).or_insert(new);
        last.record = record;
        last.in_second += 1;
    }

    /// Forgets the record of a caller, which is gone.
    pub fn forget(&mut self, event: &Event) {
        self.callers.remove(&Caller::of(event));
    }
}

impl Caller {
    fn of(event: &Event) -> Caller {
        let Event { number, trunk, identity, verdict, policy_verdict, reason, rule, .. } = *event;
        Caller { number, trunk, identity, verdict, policy_verdict, reason, rule }
    }
}

#[cfg(test)]
mod tests {
    use filter_common::abi::Verdict;
    use proptest::prelude::*;

    use super::*;

    const LIMITS: RecordLimits = RecordLimits { per_number: 3, per_trunk: 10 };

    fn refusal(number: u64, trunk: u16, milliseconds: u64) -> Event {
        let time = 1_000_000 * SECOND + milliseconds * 1_000_000;
        let verdict = Verdict::Drop as u8;
        Event {
            time,
            number: Number(number),
            trunk,
            verdict,
            policy_verdict: verdict,
            ..Event::default()
        }
    }

    /// Places these refusals one after the other. Records are numbered from 0.
    fn places(limits: RecordLimits, events: &[Event]) -> Vec<Place> {
        let (mut flood, mut records) = (Flood::default(), 0);
        let mut place = |event: &Event| {
            flood.go_on(event);
            let place = flood.place(limits, event, true);
            if place == Place::Own {
                flood.put(event, records);
                records += 1;
            }
            place
        };
        events.iter().map(&mut place).collect()
    }

    #[test]
    fn refusals_of_a_rare_caller_each_have_a_record() {
        let events: Vec<_> = (0..600).map(|index| refusal(7, 1, 400 * index)).collect();
        assert!(places(LIMITS, &events).iter().all(|place| *place == Place::Own));
    }

    #[test]
    fn flood_of_one_number_counts_in_one_record_a_minute() {
        // 100 a second for 90 seconds, from a whole minute on.
        let begin = 1_000_000 % COUNTS;
        let from = (COUNTS - begin) * 1000;
        let events: Vec<_> = (0..9000).map(|index| refusal(7, 1, from + 10 * index)).collect();
        let places = places(LIMITS, &events);
        let own = |places: &[Place]| places.iter().filter(|place| **place == Place::Own).count();
        assert_eq!(places[..4], [Place::Own, Place::Own, Place::Own, Place::In(2)]);
        assert_eq!((own(&places[..6000]), own(&places[6000..])), (3, 3));
        assert_eq!((places[5999], places[8999]), (Place::In(2), Place::In(5)));
    }

    #[test]
    fn flood_of_many_numbers_has_a_limited_number_of_records_a_second() {
        let all_different: Vec<_> = (0..2000).map(|index| refusal(index, 1, index)).collect();
        let flood = places(LIMITS, &all_different);
        assert_eq!(flood.iter().filter(|place| **place == Place::Own).count(), 20);
        assert_eq!(flood.iter().filter(|place| **place == Place::Thinned).count(), 1980);
        // A caller with a record is counted in it, and another trunk has records of its own.
        let mut events = all_different[..100].to_vec();
        events.extend([refusal(3, 1, 100), refusal(3, 2, 100), refusal(3, 1, 1500)]);
        assert_eq!(places(LIMITS, &events)[100..], [Place::In(3), Place::Own, Place::Own]);
    }

    #[test]
    fn record_does_not_count_a_refusal_that_differs() {
        let first = refusal(7, 1, 0);
        let same = [first; 4];
        let others = [
            Event { rule: 9, ..first },
            Event { reason: 3, ..first },
            Event { identity: 2, ..first },
            Event { trunk: 2, ..first },
        ];
        let places = places(LIMITS, &[&same[..], &others].concat());
        assert_eq!(places[3..], [Place::In(2), Place::Own, Place::Own, Place::Own, Place::Own]);
    }

    #[test]
    fn refusals_without_limits_each_have_a_record_and_bounded_memory() {
        let limits = RecordLimits { per_number: 0, per_trunk: 0 };
        let mut events: Vec<_> = (0..CALLERS as u64 + 5).map(|n| refusal(n, 1, 0)).collect();
        events.extend([refusal(1, 1, 0); 50]);
        assert!(places(limits, &events).iter().all(|place| *place == Place::Own));
        let mut flood = Flood::default();
        for (record, event) in (0..).zip(&events) {
            flood.go_on(event);
            flood.put(event, record);
        }
        assert_eq!(flood.callers.len(), CALLERS);
    }

    #[test]
    fn event_with_an_odd_time_does_not_stop_the_clock() {
        let odd = Event { time: u64::MAX, ..refusal(8, 1, 0) };
        let mut events = vec![refusal(7, 1, 0); 20];
        events.push(odd);
        events.push(refusal(9, 1, 2000));
        assert_eq!(places(LIMITS, &events)[19..], [Place::In(2), Place::Own, Place::Own]);
    }

    #[test]
    fn known_caller_without_room_is_counted() {
        let mut flood = Flood::default();
        let (known, new) = (refusal(7, 1, 0), refusal(8, 1, 0));
        flood.go_on(&known);
        flood.put(&known, 4);
        assert_eq!(flood.place(LIMITS, &known, false), Place::In(4));
        assert_eq!(flood.place(LIMITS, &new, false), Place::Thinned);
        flood.forget(&known);
        assert_eq!(flood.place(LIMITS, &known, true), Place::Own);
    }

    proptest! {
        /// Checks that records stay within their limits, and that a record that counts exists.
        #[test]
        fn records_have_their_bounds(
            calls in prop::collection::vec((0u64..20, 0u16..3, 0u64..400), 0..400),
        ) {
            let mut time = 0;
            let events: Vec<_> = calls
                .into_iter()
                .map(|(number, trunk, gap)| { time += gap; refusal(number, trunk, time) })
                .collect();
            let (mut records, mut per_second) = (0, HashMap::<_, u32>::new());
            for (event, place) in events.iter().zip(places(LIMITS, &events)) {
                match place {
                    Place::Own => {
                        records += 1;
                        *per_second.entry((event.trunk, event.time / SECOND)).or_default() += 1;
                    }
                    Place::In(record) => prop_assert!(record < records),
                    Place::Thinned => {}
                }
            }
            prop_assert!(per_second.values().all(|count| *count <= LIMITS.per_trunk));
        }
    }
}
