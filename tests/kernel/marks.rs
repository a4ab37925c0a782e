//! Emergency marks, in the kernel: a call that its trunk is trusted to mark is never refused.

use filter_common::abi::{Event, Verdict};
use filter_common::number::{Digits, Number};
use filter_common::sip::emergency;
use palang::model::policy::{Policy, Subject};
use palang_tests::common::gates::{Gates, reason};
use palang_tests::common::packet::{Layers, SOURCE4, crlf};

use crate::{NOW, SECOND};

const CALLER: &str = "6281234567890";
const BOTH: &str = "Priority: psap-callback\nResource-Priority: ets.3, esnet.0\n";

fn mark(value: &str) -> u64 {
    emergency::mark(value).unwrap()
}

fn call(headers: &str, call_id: usize) -> Vec<u8> {
    Layers::IPV4.frame(&crlf(&format!(
        "INVITE sip:112@psap.example SIP/2.0\n{headers}From: <sip:+{CALLER}@x>\n\
         To: <sip:112@x>\nCall-ID: {call_id}\n\n"
    )))
}

/// Returns a policy that blocks the caller, with these marks on the trunk of the tests' source.
fn policy(marks: &[u64]) -> Policy {
    let mut policy = Policy::default();
    policy.block(Subject::Number(Number::e164(Digits::parse(CALLER).unwrap())), 0, 0);
    let block = &mut policy.blocks[0].1;
    (block.redial_attempts, block.redial_window, block.redial_grant) = (2, 600, 1800);
    let mut trunk = policy.trunks[0].clone();
    trunk.name = "marked".to_owned();
    trunk.profile.marks[..marks.len()].copy_from_slice(marks);
    let mut source = [0; 16];
    source[10..12].fill(0xFF);
    source[12..].copy_from_slice(&SOURCE4);
    trunk.sources = vec![(source, 128)];
    policy.settings.trunks_configured = 1;
    policy.trunks.push(trunk);
    policy
}

#[track_caller]
fn assert_reason(event: &Event, expected: &str) {
    assert_eq!(reason(event).name(), expected);
    assert_eq!(event.verdict == Verdict::Drop as u8, expected == "blocked-number");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn no_mark_is_trusted_unasked() {
    let mut gates = Gates::new(&policy(&[]));
    assert_reason(&gates.judge(&call(BOTH, 1), NOW), "blocked-number");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn only_the_marks_of_the_trunk_count() {
    let callback = mark("psap-callback");
    let esnet = mark("esnet.0");
    let ets = mark("ets.3");
    let other = mark("dsn.flash");
    for (marks, headers, expected) in [
        (&[callback][..], BOTH, "emergency-mark"),
        (&[esnet], BOTH, "emergency-mark"),
        (&[other, other, other, ets], BOTH, "emergency-mark"),
        (&[other], BOTH, "blocked-number"),
        (&[callback, esnet], "Priority: emergency\n", "blocked-number"),
        (&[callback, esnet], "Priority: esnet.01\n", "blocked-number"),
        (&[callback, esnet], "X: y\nPriority:psap-CALLBACK\n", "emergency-mark"),
        (&[callback, esnet], "", "blocked-number"),
    ] {
        let mut gates = Gates::new(&policy(marks));
        assert_reason(&gates.judge(&call(headers, 1), NOW), expected);
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_marked_call_is_no_redial_attempt() {
    let mut gates = Gates::new(&policy(&[mark("psap-callback")]));
    for attempt in 0..3 {
        let now = NOW + attempt as u64 * 10 * SECOND;
        assert_reason(&gates.judge(&call(BOTH, attempt), now), "emergency-mark");
        assert_reason(&gates.judge(&call(BOTH, attempt), now), "attempt-passed");
    }
    assert_reason(&gates.judge(&call("", 10), NOW + 40 * SECOND), "blocked-number");
    // A retry of the call, now with a mark.
    assert_reason(&gates.judge(&call(BOTH, 10), NOW + 41 * SECOND), "emergency-mark");
    assert_reason(&gates.judge(&call("", 11), NOW + 50 * SECOND), "redial-grant");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn mark_at_any_place_and_of_any_length_is_read() {
    let mut gates = Gates::new(&policy(&[mark("esnet.0")]));
    for filler in 0..70 {
        let value = format!("Resource-Priority: {}esnet.0\n", "a,".repeat(filler));
        // Host and kernel agree at every place where the read limit cuts.
        gates.judge(&call(&value, filler), NOW);
    }
    let mut frame = call("Resource-Priority: esnet.0\n", 99);
    for len in (60..frame.len()).rev() {
        frame.truncate(len);
        gates.judge(&frame, NOW);
    }
}
