//! Counters and events: every packet is counted, every attempt is told once or counted as lost.

use filter_common::number::{Digits, Number};
use filter_common::reason::Reason;
use palang::policy::{Policy, Subject};
use palang_tests::gates::Gates;
use palang_tests::packet::{Layers, crlf};

use crate::{NOW, SECOND};

fn invite(number: &str, call_id: usize) -> Vec<u8> {
    Layers::IPV4.frame(&crlf(&format!(
        "INVITE sip:112@psap.example SIP/2.0\nFrom: <sip:{number}@x>\nTo: <sip:112@x>\n\
         Call-ID: {call_id}\n\n"
    )))
}

fn policy() -> Policy {
    let mut policy = Policy::default();
    let digits = Digits::parse("6281234567890").unwrap();
    policy.block(Subject::Number(Number::e164(digits)), 0, 0);
    policy
}

#[test]
fn each_packet_is_counted_under_its_reason_and_no_other() {
    let mut gates = Gates::new(&policy());
    for (count, frame) in [
        (3, invite("+6281234567890", 1)),
        (5, invite("+6281234567891", 2)),
        (7, invite("alice", 3)),
        (2, vec![0; 60]),
    ] {
        for _ in 0..count {
            gates.judge(&frame, NOW);
        }
    }
    for reason in Reason::ALL {
        let expected = match reason.name() {
            "blocked-number" => 3,
            "not-blocked" => 5,
            "not-a-number" => 7,
            "not-ip" => 2,
            _ => 0,
        };
        assert_eq!(gates.kernel().count(0, *reason).unwrap(), expected, "{}", reason.name());
    }
}

#[test]
fn a_retransmission_makes_no_event() {
    let mut gates = Gates::new(&policy());
    for _ in 0..3 {
        gates.judge(&invite("+6281234567890", 1), NOW);
        gates.judge(&invite("+6281234567891", 1), NOW);
    }
    let (refused, passed) = gates.kernel().drain_events().unwrap();
    assert_eq!((refused.len(), passed.len()), (1, 1));
    assert_eq!(refused[0].event.number.to_string(), "6281234567890");
    assert_eq!(passed[0].event.number.to_string(), "6281234567891");
}

#[test]
fn the_call_id_stands_in_the_event_as_it_was_sent() {
    let mut gates = Gates::new(&policy());
    let long = "x".repeat(127) + "YZ@long";
    for call_id in ["a84b4c76e66710@pc33.example", "1", &long] {
        let frame = Layers::IPV4.frame(&crlf(&format!(
            "INVITE sip:112@psap.example SIP/2.0\nFrom: <sip:+6281234567890@x>\nTo: <sip:112@x>\n\
             Call-ID:  {call_id}\nContent-Length: 0\n\n"
        )));
        gates.judge(&frame, NOW);
        let (refused, _) = gates.kernel().drain_events().unwrap();
        let expected = &call_id.as_bytes()[..call_id.len().min(128)];
        assert_eq!(refused[0].call_id(), expected);
    }
}

#[test]
fn passes_above_the_rate_are_thinned_and_counted() {
    let mut policy = policy();
    policy.settings.pass_events_per_second = 10;
    let mut gates = Gates::new(&policy);
    pin_to_one_cpu();
    for call in 0..138 {
        gates.judge(&invite("+6281234567891", call), NOW);
    }
    // A refusal is never thinned.
    gates.judge(&invite("+6281234567890", 0), NOW);
    let (refused, passed) = gates.kernel().drain_events().unwrap();
    let stats = gates.kernel().event_stats().unwrap();
    assert_eq!(refused.len(), 1);
    assert_eq!(passed.len(), 10 + 2, "ten, then one in 64");
    assert_eq!(passed.len() as u64 + stats.passed_thinned, 138);
    // A new second.
    gates.judge(&invite("+6281234567891", 1000), NOW + SECOND);
    assert_eq!(gates.kernel().drain_events().unwrap().1.len(), 1);
}

#[test]
fn refusals_that_find_no_room_are_counted_as_lost() {
    let mut gates = Gates::new(&policy());
    let sent = 20_000;
    for call in 0..sent {
        gates.kernel().judge(&invite("+6281234567890", call), NOW).unwrap();
    }
    let (refused, _) = gates.kernel().drain_events().unwrap();
    let lost = gates.kernel().event_stats().unwrap().refused_lost;
    assert!(lost > 0, "the ring holds {} events", refused.len());
    assert_eq!(refused.len() as u64 + lost, sent as u64);
}

/// Thinning is per CPU.
fn pin_to_one_cpu() {
    let mut set = nix::sched::CpuSet::new();
    set.set(0).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).unwrap();
}
