//! Captured frames, judged by one policy or by two.

use std::collections::HashMap;

use filter_common::abi::{ATTEMPT_NS, Event};
use filter_common::number::Number;
use filter_common::reason::Reason;

use super::Outcome;
use super::tally::Tally;
use crate::host::HostGate;
use crate::policy::Policy;

/// Gates over one or more captures, each with its own memory of attempts and grants.
pub struct Frames {
    policy: HostGate,
    baseline: Option<HostGate>,
    /// When a call was seen first: an INVITE that is sent again is no other call.
    seen: HashMap<Key, u64>,
    /// When what is over was forgotten last.
    forgot: u64,
    /// Frames so far.
    pub count: u64,
    /// What came of their calls.
    pub tally: Tally,
}

/// The Call-ID and the number, as each policy reads them.
type Key = [(u64, Number); 2];

impl Frames {
    /// Gates that have seen no frame.
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

    /// Judges an Ethernet frame of this time, in nanoseconds since 1970.
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
        // The plans may differ; a call that only one of them reads is told by that number.
        let number = [event.number, before_read.number].into_iter().find(|n| *n != Number::NONE);
        self.tally.count(time, number, Outcome::of(&event), before.as_ref().map(Outcome::of));
    }

    fn was_seen(&mut self, key: Key, time: u64) -> bool {
        if key.iter().all(|(call_id, _)| *call_id == 0) {
            return false;
        }
        // As the gate itself has it, also where the time goes back.
        let first = self.seen.get(&key);
        let again = first.is_some_and(|first| time.wrapping_sub(*first) < ATTEMPT_NS);
        if !again {
            self.seen.insert(key, time);
        }
        again
    }

    /// Else a long capture would be held in memory, call by call.
    fn forget(&mut self, time: u64) {
        if time.saturating_sub(self.forgot) < ATTEMPT_NS {
            return;
        }
        self.forgot = time;
        self.seen.retain(|_, first| time.saturating_sub(*first) < ATTEMPT_NS);
        self.policy.forget(time);
        if let Some(gate) = &mut self.baseline {
            gate.forget(time);
        }
    }
}

fn of(event: &Event) -> (u64, Number) {
    (event.call_id, event.number)
}

/// Whether this policy sees an INVITE that begins a call.
fn is_call(event: &Event) -> bool {
    event.reason >= Reason::BadRequestLine as u8
}
