//! Call-back grace, in the kernel: whom the centre called is let through.

use filter_common::abi::{Event, Verdict};
use filter_common::number::{Digits, Number};
use palang::model::policy::{Policy, Subject};
use palang_tests::common::gates::{Gates, reason};
use palang_tests::common::packet::{Layers, crlf};

use crate::{NOW, SECOND};

const CALLED: &str = "6281234567890";

fn number(digits: &str) -> Number {
    Number::e164(Digits::parse(digits).unwrap())
}

/// Returns a policy that blocks the number, and lets numbers that the centre calls pass for an hour.
fn policy() -> Policy {
    let mut policy = Policy::default();
    policy.block(Subject::Number(number(CALLED)), 0, 0);
    policy.settings.callback_grace = 3600;
    policy
}

/// Returns a call from the blocked number to the centre.
fn call(call_id: usize) -> Vec<u8> {
    Layers::IPV4.frame(&crlf(&format!(
        "INVITE sip:112@psap.example SIP/2.0\nFrom: <sip:+{CALLED}@x>\nTo: <sip:112@x>\n\
         Call-ID: {call_id}\n\n"
    )))
}

/// Returns the INVITE of a call that the centre makes to this URI.
fn callback(uri: &str) -> String {
    format!(
        "INVITE {uri} SIP/2.0\nVia: SIP/2.0/UDP psap.example;branch=z9hG4bK1\n\
         From: \"Call centre\" <sip:112@psap.example>;tag=1\nTo: <{uri}>\nCall-ID: 1\n\
         CSeq: 1 INVITE\nContent-Length: 0\n\n"
    )
}

fn frame(message: &str) -> Vec<u8> {
    Layers::IPV4.frame(&crlf(message))
}

#[track_caller]
fn assert_reason(event: &Event, expected: &str) {
    assert_eq!(reason(event).name(), expected);
    assert_eq!(event.verdict == Verdict::Drop as u8, expected == "blocked-number");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_called_number_passes_until_the_grace_ends() {
    let mut gates = Gates::new(&policy());
    assert_reason(&gates.judge(&call(1), NOW), "blocked-number");
    let called = frame(&callback("sip:081234567890@10.0.0.1"));
    assert_eq!(gates.send(&called, NOW + SECOND), number(CALLED));
    // Also the call that was refused a moment ago.
    assert_reason(&gates.judge(&call(1), NOW + 2 * SECOND), "callback-grace");
    let event = gates.judge(&call(2), NOW + 3600 * SECOND);
    assert_reason(&event, "callback-grace");
    assert_eq!((event.rule, event.policy_verdict), (1, Verdict::Pass as u8));
    assert_reason(&gates.judge(&call(3), NOW + 3601 * SECOND), "blocked-number");
    // Called again, it passes again.
    gates.send(&called, NOW + 4000 * SECOND);
    assert_reason(&gates.judge(&call(4), NOW + 4001 * SECOND), "callback-grace");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_grace_call_is_no_redial_attempt() {
    let mut policy = policy();
    let block = &mut policy.blocks[0].1;
    (block.redial_attempts, block.redial_window, block.redial_grant) = (2, 7200, 1800);
    let mut gates = Gates::new(&policy);
    gates.send(&frame(&callback("sip:+6281234567890@x")), NOW);
    for attempt in 1..5 {
        let event = gates.judge(&call(attempt), NOW + attempt as u64 * 60 * SECOND);
        assert_reason(&event, "callback-grace");
    }
    assert_reason(&gates.judge(&call(9), NOW + 3600 * SECOND), "blocked-number");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn whom_an_invite_calls() {
    let mut gates = Gates::new(&policy());
    let long = format!("X-Long: {}\n\n", "x".repeat(1800));
    let whole = callback("sip:+6281234567890@x");
    let behind_to = whole.replace("Content-Length: 0\n\n", &long);
    let cases = [
        (whole.clone(), true),
        (callback("SIP:+62-812-3456-7890;user=phone@x;transport=udp"), true),
        (callback("sips:081234567890@x"), true),
        (callback("tel:+6281234567890"), true),
        (behind_to.clone(), true),
        // The headers after `To` are not there.
        (whole.split("Call-ID").next().unwrap().to_owned(), true),
        (whole.split("To:").next().unwrap().to_owned(), false),
        (whole.replace("To: <sip:+6281234567890@x>", "To: <sip:+6281234567890@x>;tag=2"), false),
        (whole.replace("INVITE", "OPTIONS"), false),
        (whole.replace("INVITE sip:+6281234567890@x SIP/2.0", "SIP/2.0 200 OK"), false),
        (callback("sip:psap.example"), false),
        (callback("sip:budi@x"), false),
        (callback("http://6281234567890@x"), false),
        (callback("sip:"), false),
        ("INVITE ".to_owned(), false),
        ("INVITE sip:".to_owned(), false),
        (String::new(), false),
        ("\0\u{1}\u{2}garbage".repeat(9), false),
    ];
    for (message, has_number) in cases {
        for layers in Layers::ALL {
            let expected = if has_number { number(CALLED) } else { Number::NONE };
            let found = gates.send(&layers.frame(&crlf(&message)), NOW);
            assert_eq!(found, expected, "{message:?}");
        }
    }
    // Any number of bytes of it.
    let called = frame(&whole);
    // The kernel makes no socket buffer of less than the headers.
    for len in 54..called.len() {
        gates.send(&called[..len], NOW);
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn only_while_it_is_on_and_of_what_is_sip() {
    let mut policy = policy();
    policy.settings.callback_grace = 0;
    let mut gates = Gates::new(&policy);
    let called = frame(&callback("sip:+6281234567890@x"));
    assert_eq!(gates.send(&called, NOW), Number::NONE);
    assert_reason(&gates.judge(&call(1), NOW), "blocked-number");
    policy.settings.callback_grace = 60;
    policy.ports = vec![5062];
    let mut gates = Gates::new(&policy);
    assert_eq!(gates.send(&called, NOW), Number::NONE);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn the_plan_is_that_of_the_trunk_that_is_called() {
    let mut policy = policy();
    let mut trunk = policy.trunks[0].clone();
    trunk.name = "singapore".to_owned();
    trunk.profile.plan.country = Digits::parse("65").unwrap();
    let mut destination = [0; 16];
    destination[10..].copy_from_slice(&[0xFF, 0xFF, 10, 0, 0, 2]);
    trunk.sources = vec![(destination, 128)];
    policy.trunks.push(trunk);
    let mut gates = Gates::new(&policy);
    let called = frame(&callback("sip:081234567@x"));
    assert_eq!(gates.send(&called, NOW), number("6581234567"));
}
