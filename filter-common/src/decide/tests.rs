//! The decision on look-ups that lie.

use super::*;
use crate::abi::{Allow, Grace};
use crate::abi::{SAME_ATTEMPT, SEPARATE};
use crate::number::Digits;

/// One block; other look-ups find elements that were re-used for something else.
struct Forgetful {
    memory: bool,
}

fn number() -> Number {
    Number::e164(Digits::parse("6281234567890").expect("digits"))
}

impl PolicyLookup for Forgetful {
    fn now(&mut self) -> u64 {
        1
    }
    fn override_until(&self) -> u64 {
        0
    }
    fn protected(&self, _: &PrefixKey) -> Option<Allow> {
        None
    }
    fn short_rule(&self, _: u32) -> u64 {
        0
    }
    fn shortest_prefix(&self) -> u8 {
        0
    }
    fn allowed_number(&self, _: Number) -> Option<Allow> {
        // An element that was re-used for another number meanwhile.
        Some(Allow { number: Number(0x1), expires: 0, rule: 7 })
    }
    fn allowed_prefix(&self, _: &PrefixKey) -> Option<Allow> {
        None
    }
    fn blocked_number(&self, number: Number) -> Option<Block> {
        Some(Block { number, rule: 3, action: Verdict::Drop as u8, ..Block::default() })
    }
    fn blocked_prefix(&self, _: &PrefixKey) -> Option<Block> {
        None
    }
    fn attempt(&mut self, number: Number, call_id: u64, now: u64) -> Option<Attempt> {
        // One that was re-used too: passed, but it was another call.
        let key = AttemptKey { number, call_id: call_id + 1 };
        let (verdict, reason) = (Verdict::Pass as u8, Reason::NotBlocked as u8);
        Some(Attempt {
            key,
            first: now,
            rule: 0,
            verdict,
            policy_verdict: verdict,
            reason,
            reserved: 0,
            repeats: 0,
        })
    }
    fn remember(&mut self, _: &Attempt) -> bool {
        self.memory
    }
    fn grace(&self, _: Number) -> Option<Grace> {
        // Somebody else's.
        Some(Grace { number: Number(0x1), until: u64::MAX })
    }
    fn grant(&self, _: Number) -> Option<Grant> {
        // Somebody else's.
        Some(Grant { number: Number(0x1), until: u64::MAX, rule: 3, epoch: 0, reserved: 0 })
    }
    fn open_grant(&mut self, _: &Grant) -> bool {
        self.memory
    }
    fn redial(&self, _: Number) -> Option<RedialCounter> {
        Some(RedialCounter { number: Number(0x1), start: 1, count: 9, ..RedialCounter::default() })
    }
    fn count_redial(&mut self, _: &RedialCounter) -> bool {
        self.memory
    }
}

fn decide_with(memory: bool) -> Decision {
    let call = Call {
        number: number(),
        second: Number::NONE,
        call_id: 1,
        identity: 0,
        enforced: 1,
        separate: SEPARATE,
        without_daemon: 0,
    };
    decide(&mut Forgetful { memory }, &call)
}

#[test]
fn a_refusal_that_cannot_be_remembered_passes() {
    assert_eq!(decide_with(true).reason, Reason::BlockedNumber);
    let decision = decide_with(false);
    assert_eq!((decision.verdict, decision.reason), (Verdict::Pass, Reason::StateFull));
    assert_eq!(decision.policy_verdict, Verdict::Drop);
}

#[test]
fn grant_can_be_reached_however_long_attempts_are_one() {
    for (separate, window, attempts, expected) in [
        (5, 600, 2, 5),
        (35, 600, 2, 35),
        // A window that is short for the trunk.
        (600, 600, 2, 150),
        (90, 60, 3, 10),
        (35, 600, 8, 35),
        (35, 600, 16, 18),
        (5, 60, 0, 5),
        (0, 600, 2, 0),
        // Another leg with the same identity.
        (SAME_ATTEMPT, 600, 2, 150),
        (SAME_ATTEMPT, 600, 8, 37),
        (SAME_ATTEMPT, 3600, 2, 180),
    ] {
        let found = separation(separate, window * SECOND, attempts);
        assert_eq!(found / SECOND, expected, "{separate} {window} {attempts}");
    }
}

/// Returns whether a caller who calls at an interval reaches the N-th attempt within a window, all in seconds.
fn is_reached(interval: u64, window: u64, attempts: u8, separate: u64) -> bool {
    let mut counted = vec![0];
    for time in (interval..window).step_by(interval as usize) {
        if time - counted[counted.len() - 1] >= separate {
            counted.push(time);
        }
    }
    counted.len() >= usize::from(attempts)
}

#[test]
fn caller_who_passes_with_5_s_passes_with_any_time_of_the_trunk() {
    for (window, attempts) in [(600, 2), (600, 3), (600, 8), (600, 16), (60, 3), (3600, 4)] {
        for separate in [5, 9, 35, 80, 150, SAME_ATTEMPT, 300, 540, 600] {
            let used = separation(separate, window * SECOND, attempts) / SECOND;
            for interval in 5..window {
                let passes = is_reached(interval, window, attempts, 5);
                let still = is_reached(interval, window, attempts, used);
                assert!(!passes || still, "{interval} {window} {attempts} {separate}");
            }
        }
    }
}

#[test]
fn leg_with_the_identity_of_the_counted_attempt_is_apart_for_minutes() {
    let mut call = Call {
        number: number(),
        second: Number::NONE,
        call_id: 1,
        identity: 0,
        enforced: 1,
        separate: SEPARATE,
        without_daemon: 0,
    };
    for (identity, counted, separate, expected) in [
        (0, 0, SEPARATE, SEPARATE),
        (0, 6, SEPARATE, SEPARATE),
        (6, 0, SEPARATE, SEPARATE),
        (6, 10, SEPARATE, SEPARATE),
        // Another kind.
        (6, 7, 35, 35),
        (6, 6, SEPARATE, SAME_ATTEMPT),
        (6, 6, 35, SAME_ATTEMPT),
        (6, 6, 600, 600),
    ] {
        (call.identity, call.separate) = (identity, separate);
        let counted = RedialCounter { identity: counted, ..RedialCounter::default() };
        assert_eq!(apart(&call, &counted), expected, "{identity} {counted:?} {separate}");
    }
}
