//! The redial grant, in the kernel: who calls again and again is let through.

use filter_common::abi::{BLOCK_NO_REDIAL, BLOCK_OBSERVE, Block, Event, Verdict};
use filter_common::number::{Digits, Number};
use palang::model::policy::{Policy, Subject};
use palang_tests::common::gates::{Gates, reason};
use palang_tests::common::packet::{Layers, crlf};

use crate::{NOW, SECOND};

const CALLER: &str = "6281234567890";

/// Returns a call from the blocked number, or from another.
fn call(number: &str, call_id: usize) -> Vec<u8> {
    Layers::IPV4.frame(&crlf(&format!(
        "INVITE sip:112@psap.example SIP/2.0\nFrom: <sip:+{number}@x>\nTo: <sip:112@x>\n\
         Call-ID: {call_id}\n\n"
    )))
}

/// Returns a policy with a block: three attempts in ten minutes open a grant of half an hour.
fn block(subject: Subject) -> Policy {
    let mut policy = Policy::default();
    policy.block(subject, 0, 0);
    let block = &mut policy.blocks[0].1;
    *block =
        Block { redial_attempts: 3, redial_window: 600, redial_grant: 1800, epoch: 1, ..*block };
    policy
}

fn number() -> Subject {
    Subject::Number(Number::e164(Digits::parse(CALLER).unwrap()))
}

struct Caller {
    gates: Gates,
    calls: usize,
}

impl Caller {
    fn new(policy: &Policy) -> Caller {
        Caller { gates: Gates::new(policy), calls: 0 }
    }

    /// Judges a new attempt, this many seconds after the start, and returns its event.
    fn calls(&mut self, seconds: u64) -> Event {
        self.calls += 1;
        self.gates.judge(&call(CALLER, self.calls), NOW + seconds * SECOND)
    }

    /// Judges the last attempt once more, and returns its event.
    fn repeats(&mut self, seconds: u64) -> Event {
        self.gates.judge(&call(CALLER, self.calls), NOW + seconds * SECOND)
    }
}

#[track_caller]
fn assert_reason(event: &Event, expected: &str) {
    assert_eq!(reason(event).name(), expected);
    let refused = matches!(expected, "blocked-number" | "blocked-prefix");
    assert_eq!(event.verdict == Verdict::Drop as u8, refused);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn the_third_separate_attempt_opens_a_grant_that_ends_on_time() {
    let mut caller = Caller::new(&block(number()));
    assert_reason(&caller.calls(0), "blocked-number");
    assert_reason(&caller.calls(60), "blocked-number");
    assert_reason(&caller.calls(120), "redial-grant");
    assert_eq!(caller.calls(130).rule, 1, "the block that it is an exception from is told");
    assert_reason(&caller.calls(120 + 1799), "redial-grant");
    // Over, and it begins again.
    assert_reason(&caller.calls(120 + 1800), "blocked-number");
    assert_reason(&caller.calls(120 + 1860), "blocked-number");
    assert_reason(&caller.calls(120 + 1920), "redial-grant");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn what_is_no_separate_attempt_does_not_count() {
    let mut caller = Caller::new(&block(number()));
    assert_reason(&caller.calls(0), "blocked-number");
    for _ in 0..7 {
        // Retransmissions, authentication retries.
        assert_reason(&caller.repeats(1), "blocked-number");
    }
    // The carrier tries other ways: other calls within five seconds.
    assert_reason(&caller.calls(2), "blocked-number");
    assert_reason(&caller.calls(4), "blocked-number");
    assert_reason(&caller.calls(10), "blocked-number");
    assert_reason(&caller.repeats(30), "blocked-number");
    assert_reason(&caller.calls(15), "redial-grant");
    // The grant does not change the verdict of an attempt that was judged before.
    caller.calls -= 1;
    assert_reason(&caller.repeats(16), "blocked-number");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn the_window_ends() {
    let mut caller = Caller::new(&block(number()));
    assert_reason(&caller.calls(0), "blocked-number");
    assert_reason(&caller.calls(300), "blocked-number");
    assert_reason(&caller.calls(600), "blocked-number");
    assert_reason(&caller.calls(900), "blocked-number");
    assert_reason(&caller.calls(1199), "redial-grant");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn another_epoch_begins_anew_and_ends_the_grant() {
    let mut caller = Caller::new(&block(number()));
    for seconds in [0, 60, 120] {
        caller.calls(seconds);
    }
    assert_reason(&caller.calls(180), "redial-grant");
    let mut policy = block(number());
    policy.blocks[0].1.epoch = 2;
    policy.blocks[0].1.redial_attempts = 6;
    caller.gates.change(&policy);
    for attempt in 0..5 {
        assert_reason(&caller.calls(240 + 60 * attempt), "blocked-number");
    }
    assert_reason(&caller.calls(600), "redial-grant");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn the_block_may_give_none() {
    let mut policy = block(number());
    policy.blocks[0].1.flags = BLOCK_NO_REDIAL;
    let mut caller = Caller::new(&policy);
    for attempt in 0..8 {
        assert_reason(&caller.calls(60 * attempt), "blocked-number");
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn each_number_of_a_blocked_prefix_redials_for_itself() {
    let mut caller = Caller::new(&block(Subject::Prefix(Digits::parse("62812").unwrap())));
    for seconds in [0, 60] {
        assert_reason(&caller.calls(seconds), "blocked-prefix");
        let other = caller.gates.judge(&call("6281234567899", 100 + seconds as usize), NOW);
        assert_reason(&other, "blocked-prefix");
    }
    assert_reason(&caller.calls(120), "redial-grant");
    let other = caller.gates.judge(&call("6281234567898", 200), NOW + 121 * SECOND);
    assert_reason(&other, "blocked-prefix");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn observing_counts_too() {
    let mut policy = block(number());
    policy.blocks[0].1.flags = BLOCK_OBSERVE;
    let mut caller = Caller::new(&policy);
    assert_reason(&caller.calls(0), "observe");
    assert_reason(&caller.calls(60), "observe");
    let event = caller.calls(120);
    assert_reason(&event, "redial-grant");
    assert_eq!(event.policy_verdict, Verdict::Pass as u8);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn second_leg_of_a_carrier_is_no_separate_attempt_where_the_trunk_says_so() {
    let mut policy = block(number());
    policy.trunks[0].profile.separate = 35;
    policy.blocks[0].1.redial_attempts = 2;
    let mut caller = Caller::new(&policy);
    assert_reason(&caller.calls(0), "blocked-number");
    // The carrier's machine, which waited for 32 s in vain, and once more.
    assert_reason(&caller.calls(32), "blocked-number");
    assert_reason(&caller.calls(34), "blocked-number");
    assert_reason(&caller.calls(35), "redial-grant");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn grant_can_be_reached_within_a_short_window_of_a_block() {
    let mut policy = block(number());
    policy.trunks[0].profile.separate = 600;
    let block = &mut policy.blocks[0].1;
    *block = Block { redial_attempts: 3, redial_window: 60, ..*block };
    let mut caller = Caller::new(&policy);
    assert_reason(&caller.calls(0), "blocked-number");
    // Half of a third of the window.
    assert_reason(&caller.calls(9), "blocked-number");
    assert_reason(&caller.calls(10), "blocked-number");
    assert_reason(&caller.calls(20), "redial-grant");
}
