//! Judges captured frames by one policy or by two.

use std::collections::HashMap;

use filter_common::abi::{ATTEMPT_NS, Event};
use filter_common::number::Number;
use filter_common::reason::Reason;

use crate::model::host_gate::HostGate;
use crate::model::policy::Policy;
use crate::what_if::Outcome;
use crate::what_if::tally::Tally;

/// Runs the gates over one or more captures; each has its own attempts and grants.
pub struct Frames {
    policy: HostGate,
    baseline: Option<HostGate>,
    /// Time at which each call was first seen: a retransmitted INVITE is not another call.
    seen: HashMap<Key, u64>,
    /// Time at which expired entries were last dropped.
    forgot: u64,
    /// Number of frames so far.
    pub count: u64,
    /// Counts of the calls so far.
    pub tally: Tally,
}

/// The Call-ID and the number, as each policy parses them.
type Key = [(u64, Number); 2];

impl Frames {
    /// Creates gates that have seen no frame.
    #[must_use]
    pub fn new(policy: &Policy, baseline: Option<&Policy>) -> Frames {
        Frames {
            policy: HostGate::new(policy),
            baseline: baseline.map(HostGate::new),
            seen: HashMap::new(),
            forgot: 0,
            count: 0,
            tally: Tally::new(baseline.is_some()),
        }
    }

    /// Judges an Ethernet frame captured at `time`, in nanoseconds since 1970.
    pub fn judge(&mut self, ethernet: &[u8], time: u64) {
        self.count += 1;
        self.forget(time);
        let event = self.policy.judge(ethernet, time);
        let before = self.baseline.as_mut().map(|gate| gate.judge(ethernet, time));
        if !is_call(&event) && !before.as_ref().is_some_and(is_call) {
            return;
        }
        let before_read = before.unwrap_or_default();
        if self.was_seen([of(&event), of(&before_read)], time) {
            return;
        }
        // The plans may differ: a call whose number only one of them can parse is counted under that number.
        let number = [event.number, before_read.number].into_iter().find(|n| *n != Number::NONE);
        self.tally.count(1, time, number, Outcome::of(&event), before.as_ref().map(Outcome::of));
    }

    fn was_seen(&mut self, key: Key, time: u64) -> bool {
        if key.iter().all(|(call_id, _)| *call_id == 0) {
            return false;
        }
        // This is the comparison of the gate, even if the time goes backwards.
        let first = self.seen.get(&key);
        let again = first.is_some_and(|first| time.wrapping_sub(*first) < ATTEMPT_NS);
        if !again {
            self.seen.insert(key, time);
        }
        again
    }

    /// Drops expired entries, so that a long capture does not fill the memory.
    fn forget(&mut self, time: u64) {
        if time.abs_diff(self.forgot) < ATTEMPT_NS {
            return;
        }
        self.forgot = time;
        self.seen.retain(|_, first| time.saturating_sub(*first) < ATTEMPT_NS);
        self.policy.drop_expired(time);
        if let Some(gate) = &mut self.baseline {
            gate.drop_expired(time);
        }
    }
}

fn of(event: &Event) -> (u64, Number) {
    (event.call_id, event.number)
}

/// Checks whether the policy sees an INVITE that begins a call.
fn is_call(event: &Event) -> bool {
    Reason::from_number(event.reason).is_some_and(Reason::is_attempt)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use filter_common::abi::{EVENT_REPEATED, Verdict};
    use filter_common::number::Digits;
    use proptest::prelude::*;

    use super::*;
    use crate::config::policy_file;
    use crate::config::policy_file::PolicyFile;
    use crate::model::policy::Subject;
    use crate::model::redial::RedialPolicy;
    use crate::what_if::records;
    use crate::what_if::records::Record;

    const SECOND: u64 = 1_000_000_000;
    const START: u64 = 1_700_000_000 * SECOND;
    const NUMBERS: [&str; 3] = ["6281100000001", "6281100000002", "6281200000003"];

    fn number(index: usize) -> Number {
        Number::e164(Digits::parse(NUMBERS[index]).unwrap())
    }

    fn invite(number: &str, call_id: u8) -> Vec<u8> {
        let message = format!(
            "INVITE sip:112@x SIP/2.0\r\nFrom: <sip:+{number}@x>\r\nTo: <sip:112@x>\r\n\
             Call-ID: {call_id}@pbx\r\n\r\n"
        );
        let mut frame = Vec::new();
        etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(5060, 5060)
            .write(&mut frame, message.as_bytes())
            .unwrap();
        frame
    }

    /// Calls in the order of time: nanoseconds since 1970, caller, Call-ID.
    fn calls() -> impl Strategy<Value = Vec<(u64, usize, u8)>> {
        let pause = prop::sample::select(vec![0, 1, 4, 5, 6, 30, 63, 64, 65, 700, 90_000]);
        prop::collection::vec((pause, 0..NUMBERS.len(), 0u8..6), 0..60).prop_map(|calls| {
            let mut time = START;
            calls
                .into_iter()
                .map(|(pause, caller, call_id)| {
                    time += pause * SECOND;
                    (time, caller, call_id)
                })
                .collect()
        })
    }

    prop_compose! {
        fn policy()(
            blocked in prop::collection::vec(any::<bool>(), NUMBERS.len()),
            prefix: bool,
            ends in prop::option::of(0u64..100_000),
            attempts in prop::sample::select(vec![0u8, 2, 3]),
            window in 60u32..2000,
        ) -> PolicyFile {
            let redial = RedialPolicy { attempts, window, grant: 60 };
            let mut policy = Policy::default();
            let expires = ends.map_or(0, |seconds| START + seconds * SECOND);
            for index in (0..NUMBERS.len()).filter(|index| blocked[*index]) {
                policy.block(Subject::Number(number(index)), expires, 0);
            }
            if prefix {
                policy.block(Subject::Prefix(Digits::parse("62811").unwrap()), 0, 0);
            }
            for (_, block) in &mut policy.blocks {
                redial.put(block);
            }
            PolicyFile { policy, redial, ladder: None }
        }
    }

    fn tried(calls: &[(u64, usize, u8)], policy: &Policy, baseline: Option<&Policy>) -> Tally {
        let mut frames = Frames::new(policy, baseline);
        for (time, caller, call_id) in calls {
            frames.judge(&invite(NUMBERS[*caller], *call_id), *time);
        }
        frames.tally
    }

    proptest! {
        #[test]
        fn policy_differs_from_itself_in_nothing(calls in calls(), file in policy()) {
            let tally = tried(&calls, &file.policy, Some(&file.policy));
            let (baseline, difference) = tally.baseline.clone().unwrap();
            prop_assert_eq!(&tally.policy, &baseline);
            prop_assert_eq!(difference, Default::default());
            prop_assert_eq!(tally.numbers(), vec![]);
        }

        /// Checks that each of two policies has the counts that it has alone, and that the difference
        /// is that of the counts.
        #[test]
        fn two_policies_do_not_touch_each_other(calls in calls(), a in policy(), b in policy()) {
            let both = tried(&calls, &a.policy, Some(&b.policy));
            let (baseline, difference) = both.baseline.clone().unwrap();
            prop_assert_eq!(&both.policy, &tried(&calls, &a.policy, None).policy);
            prop_assert_eq!(&baseline, &tried(&calls, &b.policy, None).policy);
            for counts in [&both.policy, &baseline] {
                let passed: u64 = counts.passed.values().sum();
                prop_assert_eq!(counts.refused + passed, both.calls);
            }
            prop_assert_eq!(
                both.policy.refused + difference.newly_passed,
                baseline.refused + difference.newly_refused
            );
            prop_assert_eq!(
                both.policy.granted + difference.no_longer_granted,
                baseline.granted + difference.newly_granted
            );
            let rows = both.numbers();
            let refused: u64 = rows.iter().map(|row| row.difference.unwrap().newly_refused).sum();
            prop_assert_eq!(refused, difference.newly_refused);
        }

        /// Checks that dropped entries do not matter: a gate that drops nothing gives the same counts.
        #[test]
        fn forgetting_changes_nothing(calls in calls(), file in policy()) {
            let tally = tried(&calls, &file.policy, None);
            let mut gate = HostGate::new(&file.policy);
            let events: Vec<_> = calls
                .iter()
                .map(|(time, caller, call_id)| gate.judge(&invite(NUMBERS[*caller], *call_id), *time))
                .filter(|event| event.flags & EVENT_REPEATED == 0)
                .collect();
            let refused = events.iter().filter(|event| event.verdict != Verdict::Pass as u8).count();
            prop_assert_eq!(tally.calls, events.len() as u64);
            prop_assert_eq!(tally.policy.refused, refused as u64);
        }

        /// Checks that judging the records of calls gives the same counts as judging the calls.
        #[test]
        fn records_are_judged_as_the_calls_were(calls in calls(), a in policy(), b in policy()) {
            let frames = tried(&calls, &a.policy, Some(&b.policy));
            let mut gate = HostGate::new(&b.policy);
            let mut records = Vec::new();
            for (id, (time, caller, call_id)) in calls.iter().enumerate() {
                let event = gate.judge(&invite(NUMBERS[*caller], *call_id), *time);
                // The daemon makes one record of an attempt.
                if event.flags & EVENT_REPEATED == 0 {
                    records.push(Record {
                        id: id as u64,
                        time: *time,
                        number: event.number,
                        call_id: event.call_id,
                        source: event.source,
                        outcome: Outcome::of(&event),
                        attempts: 1,
                    });
                }
            }
            for against in [None, Some(&b)] {
                let tally = records::judge(&a, against, &records, &[]);
                prop_assert_eq!(&tally, &frames);
            }
        }
    }

    #[test]
    fn long_capture_is_not_held_in_memory() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/demo-policy.toml");
        let policy = policy_file::read(&path, &|_| Ok(())).unwrap().policy;
        let mut frames = Frames::new(&policy, Some(&policy));
        for second in 0..2000 {
            frames.judge(&invite(NUMBERS[0], (second % 251) as u8), START + second * SECOND);
        }
        assert_eq!(frames.tally.calls, 2000);
        assert!(frames.seen.len() <= 128, "{}", frames.seen.len());
    }
}
