//! Two asserted identities, in the kernel: an exception of one of them lets the call through, in either order of
//! the two.

use filter_common::abi::{BLOCK_NO_REDIAL, BLOCK_OBSERVE, Block, EVENT_REPEATED, Event};
use filter_common::number::{Digits, Number};
use filter_common::plan::IDENTITY_PAI;
use filter_common::reason::Reason;
use palang::model::policy::{Policy, Subject};
use palang_tests::common::gates::{Gates, assert_reason};
use palang_tests::common::packet::{Layers, crlf};

use crate::{NOW, SECOND};

const LOW: &str = "622129876543";
const HIGH: &str = "6281234567890";
const ORDERS: [[&str; 2]; 2] = [[LOW, HIGH], [HIGH, LOW]];

fn call(numbers: &[&str], call_id: &str) -> Vec<u8> {
    let values: Vec<_> = numbers.iter().map(|number| format!("<tel:+{number}>")).collect();
    Layers::IPV4.frame(&crlf(&format!(
        "INVITE sip:112@psap.example SIP/2.0\nFrom: <sip:anonymous@anonymous.invalid>;tag=1\n\
         To: <sip:112@x>\nCall-ID: {call_id}\nP-Asserted-Identity: {}\n\n",
        values.join(", ")
    )))
}

fn number(text: &str) -> Number {
    Number::e164(Digits::parse(text).unwrap())
}

/// Returns a policy that blocks both: three attempts in ten minutes open a grant of half an hour.
fn both_blocked() -> Policy {
    let mut policy = Policy::default();
    policy.trunks[0].profile.identity = IDENTITY_PAI;
    for (epoch, text) in [(1, LOW), (2, HIGH)] {
        policy.block(Subject::Number(number(text)), 0, 0);
        let block = &mut policy.blocks.last_mut().unwrap().1;
        *block =
            Block { redial_attempts: 3, redial_window: 600, redial_grant: 1800, epoch, ..*block };
    }
    policy
}

/// Makes a block of [`both_blocked`] give no redial grant.
fn without_redial(mut policy: Policy, blocked: usize) -> Policy {
    policy.blocks[blocked].1.flags |= BLOCK_NO_REDIAL;
    policy
}

struct Caller {
    gates: Gates,
    calls: u64,
}

impl Caller {
    fn new(policy: &Policy) -> Caller {
        Caller { gates: Gates::new(policy), calls: 0 }
    }

    /// Judges a new call, a minute after the last one.
    fn calls(&mut self, numbers: &[&str]) -> Event {
        self.calls += 1;
        let frame = call(numbers, &self.calls.to_string());
        self.gates.judge(&frame, NOW + self.calls * 60 * SECOND)
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn two_identities_are_refused_only_if_both_are_blocked() {
    for order in ORDERS {
        assert_reason(&Caller::new(&both_blocked()).calls(&order), Reason::BlockedNumber);
        for blocked in [0, 1] {
            let mut policy = both_blocked();
            policy.blocks.remove(blocked);
            assert_reason(&Caller::new(&policy).calls(&order), Reason::NotBlocked);
            let mut policy = both_blocked();
            policy.allow(policy.blocks[blocked].0, 0);
            assert_reason(&Caller::new(&policy).calls(&order), Reason::AllowedNumber);
            let mut policy = both_blocked();
            policy.blocks[blocked].1.flags = BLOCK_OBSERVE;
            assert_reason(&Caller::new(&policy).calls(&order), Reason::Observe);
        }
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn two_identities_in_another_order_are_the_same_attempt() {
    let mut caller = Caller::new(&both_blocked());
    let first = caller.gates.judge(&call(&ORDERS[0], "a"), NOW);
    let again = caller.gates.judge(&call(&ORDERS[1], "a"), NOW + SECOND);
    assert_eq!((first.number, first.flags & EVENT_REPEATED), (number(LOW), 0));
    assert_eq!(again.number, number(LOW));
    assert_ne!(again.flags & EVENT_REPEATED, 0);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn attempts_of_two_identities_count_in_any_order() {
    let mut caller = Caller::new(&both_blocked());
    assert_reason(&caller.calls(&ORDERS[0]), Reason::BlockedNumber);
    assert_reason(&caller.calls(&ORDERS[1]), Reason::BlockedNumber);
    let event = caller.calls(&ORDERS[0]);
    assert_reason(&event, Reason::RedialGrant);
    assert_eq!((event.number, event.rule), (number(LOW), 1), "the grant is the lower number's");
    for numbers in [&[LOW][..], &ORDERS[1], &ORDERS[0]] {
        assert_reason(&caller.calls(numbers), Reason::RedialGrant);
    }
    assert_reason(&caller.calls(&[HIGH]), Reason::BlockedNumber);
    // Attempts of the lower one alone count too.
    for order in ORDERS {
        let mut caller = Caller::new(&both_blocked());
        assert_reason(&caller.calls(&[LOW]), Reason::BlockedNumber);
        assert_reason(&caller.calls(&[LOW]), Reason::BlockedNumber);
        assert_reason(&caller.calls(&order), Reason::RedialGrant);
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_grant_of_either_identity_lets_the_call_through() {
    for (granted, other) in [(LOW, 1), (HIGH, 0)] {
        for order in ORDERS {
            let mut caller = Caller::new(&without_redial(both_blocked(), other));
            for expected in [Reason::BlockedNumber, Reason::BlockedNumber, Reason::RedialGrant] {
                assert_reason(&caller.calls(&[granted]), expected);
            }
            let event = caller.calls(&order);
            assert_reason(&event, Reason::RedialGrant);
            assert_eq!(event.number, number(granted));
        }
    }
    let mut caller = Caller::new(&without_redial(without_redial(both_blocked(), 0), 1));
    for _ in 0..5 {
        assert_reason(&caller.calls(&ORDERS[0]), Reason::BlockedNumber);
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_call_back_to_either_identity_lets_the_call_through() {
    for called in [LOW, HIGH] {
        for order in ORDERS {
            let mut policy = both_blocked();
            policy.settings.callback_grace = 3600;
            let mut caller = Caller::new(&policy);
            assert_reason(&caller.calls(&order), Reason::BlockedNumber);
            let out = crlf(&format!(
                "INVITE sip:+{called};ext=7@x SIP/2.0\nFrom: <sip:112@x>;tag=1\nTo: <sip:1@x>\n\
                 Call-ID: out\n\n"
            ));
            assert_eq!(caller.gates.send(&Layers::IPV4.frame(&out), NOW), number(called));
            assert_reason(&caller.calls(&order), Reason::CallbackGrace);
        }
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_placeholder_of_withheld_numbers_is_protected() {
    let mut policy = Policy::default();
    policy.block(Subject::Number(number("266696687")), 0, 0);
    let frame = Layers::IPV4.frame(&crlf(
        "INVITE sip:112@x SIP/2.0\nFrom: <sip:+266696687@x>\nTo: <sip:112@x>\ni: 1\n\n",
    ));
    assert_reason(&Gates::new(&policy).judge(&frame, NOW), Reason::BlockedNumber);
    policy.protect_placeholders();
    let event = Gates::new(&policy).judge(&frame, NOW);
    assert_reason(&event, Reason::Protected);
    let rule = "protected 266696687 (placeholder ANONYMOUS)";
    assert_eq!(policy.rule_name(event.rule).as_deref(), Some(rule));
}
