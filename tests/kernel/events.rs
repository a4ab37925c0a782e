//! Counters and events: every packet is counted, every attempt is reported once or counted as lost.

use filter_common::abi::EvidenceStats;
use filter_common::number::{Digits, Number};
use filter_common::reason::Reason;
use palang::model::policy::{Policy, Subject};
use palang_tests::common::gates::Gates;
use palang_tests::common::packet::{Layers, crlf};

use crate::state::stay_on_cpu;
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

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
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

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
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

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn call_id_in_the_event_is_as_it_was_sent() {
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

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn passes_above_the_rate_are_thinned_and_counted() {
    let mut policy = policy();
    policy.settings.pass_events_per_second = 10;
    let mut gates = Gates::new(&policy);
    stay_on_cpu(0); // Thinning is per CPU.
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

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
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

/// Returns refused and passed calls, a retransmission, an unreadable one, and a packet that is no call.
fn mixture(calls: usize) -> Vec<Vec<u8>> {
    let each = |call| {
        let refused = invite("+6281234567890", call);
        [refused.clone(), invite("+6281234567891", call), refused, invite("alice", call)]
    };
    let mut frames: Vec<_> = (0..calls).flat_map(each).collect();
    frames.push(vec![0; 60]);
    frames
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn evidence_changes_no_verdict_and_no_event() {
    let calls = 2000;
    let judge = |per_second: u32| {
        let mut gates = Gates::new(&policy());
        gates.kernel().evidence().set(per_second).unwrap();
        let frames = mixture(calls);
        // Not drained in between: the ring of frames is full long before that of events.
        let judged: Vec<_> =
            frames.iter().map(|frame| gates.kernel().judge(frame, NOW).unwrap()).collect();
        (judged, gates.kernel().drain_events().unwrap(), gates.kernel().event_stats().unwrap())
    };
    let off = judge(0);
    assert_eq!(off.1.0.len(), calls, "the ring of events has room");
    for per_second in [1, u32::MAX] {
        let on = judge(per_second);
        assert!(on.0 == off.0, "verdicts differ");
        assert!(on.1 == off.1, "events differ");
        assert_eq!(on.2, off.2);
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn the_frame_of_a_refusal_is_kept_where_somebody_wants_it() {
    let mut gates = Gates::new(&policy());
    stay_on_cpu(0); // Thinning is per CPU.
    let frames = mixture(3);
    for frame in &frames {
        gates.judge(frame, NOW);
    }
    assert_eq!(gates.kernel().drain_evidence().unwrap().len(), 0, "off unless asked");
    assert_eq!(gates.kernel().evidence().stats().unwrap(), EvidenceStats::default());

    gates.kernel().drain_events().unwrap();
    gates.kernel().evidence().set(2).unwrap();
    // Longer than what is kept, and as long; the Call-ID is another one.
    let padded = |call: usize, len: usize| {
        let frame = |body: &str| {
            let message = "INVITE sip:112@psap.example SIP/2.0\nFrom: <sip:+6281234567890@x>\n\
                           To: <sip:112@x>\n";
            Layers::IPV4.frame(&crlf(&format!("{message}Call-ID: {call}\n\n{body}")))
        };
        let frame = frame(&"x".repeat(len - frame("").len()));
        assert_eq!(frame.len(), len);
        frame
    };
    let (mut second, mut all) = (0, Vec::new());
    for len in [400, 1400, 2047, 2048, 2049, 4000] {
        let (one, two) = (padded(100 + len, len), padded(10_000 + len, len));
        second += 1;
        let now = NOW + second * SECOND;
        for frame in [&one, &two, &padded(20_000 + len, len)] {
            gates.judge(frame, now);
        }
        let kept = gates.kernel().drain_evidence().unwrap();
        let (events, _) = gates.kernel().drain_events().unwrap();
        assert_eq!(events.len(), 3, "an event each");
        assert_eq!(kept.len(), 2, "two a second");
        for ((evidence, frame), event) in kept.iter().zip([one, two]).zip(events) {
            assert_eq!(evidence.frame_len as usize, len);
            assert_eq!(evidence.frame(), &frame[..len.min(2048)]);
            let event = &event.event;
            assert_eq!(
                (evidence.time, evidence.number, evidence.call_id),
                (event.time, event.number, event.call_id)
            );
        }
        all.extend(kept);
    }
    let stats = gates.kernel().evidence().stats().unwrap();
    assert_eq!((stats.kept, stats.lost, stats.limited), (all.len() as u64, 0, second));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn frames_that_find_no_room_are_counted_as_lost() {
    let mut gates = Gates::new(&policy());
    gates.kernel().evidence().set(u32::MAX).unwrap();
    let sent = 2000;
    for call in 0..sent {
        gates.kernel().judge(&invite("+6281234567890", call), NOW).unwrap();
    }
    let kept = gates.kernel().drain_evidence().unwrap().len() as u64;
    let stats = gates.kernel().evidence().stats().unwrap();
    assert!(stats.lost > 0, "the ring holds {kept} frames");
    assert_eq!((stats.kept, kept + stats.lost), (kept, sent as u64));
    assert_eq!(gates.kernel().event_stats().unwrap().refused_lost, 0);
}
