//! The identity that all legs of an attempt share: read in the kernel as on the host, and what it is for.

use std::collections::BTreeMap;

use filter_common::abi::{
    ATTEMPT_ALL, ATTEMPT_EMERGENCY, ATTEMPT_ICID, ATTEMPT_SESSION, Block, Event,
};
use filter_common::number::{Digits, Number};
use filter_common::reason::Reason;
use filter_common::sip::attempt_identity::kind;
use palang::datapath::{Features, Program};
use palang::model::policy::{Policy, Subject};
use palang_tests::common::gates::{self, Gates, reason};
use palang_tests::common::packet::{Layers, crlf, fragments};

use crate::{NOW, SECOND, captures};

const CALLER: &str = "6281234567890";

/// Returns a policy that blocks the caller: two attempts in ten minutes open a grant of half an hour.
fn policy(identities: u8) -> Policy {
    let mut policy = Policy::default();
    policy.trunks[0].profile.attempt_identity = identities;
    policy.block(Subject::Number(Number::e164(Digits::parse(CALLER).unwrap())), 0, 0);
    let block = &mut policy.blocks[0].1;
    *block = Block { redial_attempts: 2, redial_window: 600, redial_grant: 1800, ..*block };
    policy
}

/// Returns a call of the blocked number with these header lines.
fn call(call_id: u64, lines: &str) -> Vec<u8> {
    crlf(&format!(
        "INVITE sip:112@psap.example SIP/2.0\nFrom: <sip:+{CALLER}@x>\nTo: <sip:112@x>\n\
         Call-ID: {call_id}\n{lines}\n\n"
    ))
}

fn icid(value: u64) -> String {
    format!("P-Charging-Vector: icid-value=\"PCSF:1-{value:08x}\";orig-ioi=x")
}

struct Caller {
    gates: Gates,
    calls: u64,
}

impl Caller {
    fn new(policy: &Policy) -> Caller {
        Caller { gates: Gates::new(policy), calls: 0 }
    }

    /// Judges a leg with another Call-ID, this many seconds after the start. Returns whether it passed by a grant.
    fn calls(&mut self, seconds: u64, lines: &str) -> bool {
        self.calls += 1;
        let frame = Layers::IPV4.frame(&call(self.calls, lines));
        let event = self.gates.judge(&frame, NOW + seconds * SECOND);
        let reason = reason(&event);
        assert!(matches!(reason, Reason::RedialGrant | Reason::BlockedNumber), "{}", reason.name());
        reason == Reason::RedialGrant
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn second_leg_with_the_identity_of_the_first_opens_no_grant() {
    for (identities, lines, again, opens) in [
        (ATTEMPT_ICID, icid(1), icid(1), false),
        (ATTEMPT_ICID, icid(1), icid(2), true),
        // A trunk that is not trusted for it, and messages without one.
        (0, icid(1), icid(1), true),
        (ATTEMPT_SESSION, icid(1), icid(1), true),
        (ATTEMPT_ALL, String::from("X: 1"), String::from("X: 1"), true),
        (ATTEMPT_ALL, icid(1), String::from("X: 1"), true),
        (ATTEMPT_ALL, icid(1) + "\n" + &icid(1), icid(1), true),
    ] {
        let mut caller = Caller::new(&policy(identities));
        assert!(!caller.calls(0, &lines));
        assert_eq!(caller.calls(32, &again), opens, "{identities} {lines} {again}");
        // The person calls again: a call of her own.
        assert!(caller.calls(40, &icid(9)), "{identities} {lines} {again}");
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn carrier_with_one_constant_value_takes_no_grant_from_its_callers() {
    for (interval, reached) in [(5, 150), (20, 160), (100, 200), (149, 298), (150, 150), (299, 299)]
    {
        let mut caller = Caller::new(&policy(ATTEMPT_ALL));
        let seconds = (0..600).step_by(interval).find(|seconds| caller.calls(*seconds, &icid(7)));
        assert_eq!(seconds, Some(reached), "every {interval} s");
    }
    // A longer window does not make it longer than minutes.
    let mut policy = policy(ATTEMPT_ALL);
    policy.blocks[0].1.redial_window = 3600;
    let mut caller = Caller::new(&policy);
    for (seconds, opens) in [(0, false), (90, false), (179, false), (180, true)] {
        assert_eq!(caller.calls(seconds, &icid(7)), opens, "{seconds}");
    }
}

/// The messages with an identity of a kind, and without one.
const FORMS: [(u8, &str); 12] = [
    (ATTEMPT_EMERGENCY, "Call-Info: <urn:emergency:uid:callid:a56e556d871:bcf.example.net>"),
    (ATTEMPT_ICID, "P-Charging-Vector: icid-value=1234bc9876e ; orig-ioi=a"),
    (ATTEMPT_ICID, "p-charging-vector:icid-value=\"1234bc9876e\""),
    (
        ATTEMPT_ICID,
        "Call-Info: <http://x>\nSession-ID: 1\nP-Charging-Vector: icid-value=1234bc9876e",
    ),
    (ATTEMPT_SESSION, "Session-ID: ab30317f1a784dc48ff824d0d3715d86;remote=0"),
    (ATTEMPT_SESSION, "Session-Expires: 1800\nsession-id:AB30317F1A784DC48FF824D0D3715D86"),
    (0, "Session-ID: 00000000000000000000000000000000"),
    (0, "P-Charging-Vector: icid-value=1234567"),
    (0, "P-Charging-Vector:\n icid-value=1234bc9876e"),
    (0, "Call-Info: <urn:emergency:uid:callid:a56e556d871:bcf.example.net"),
    (0, "Call-Information: <urn:emergency:uid:callid:a56e556d871:x>"),
    (0, "s: session-id"),
];

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn every_program_and_both_looks_read_the_identity() {
    let features = Features::probe().unwrap();
    let policy = policy(ATTEMPT_ALL);
    let mut call_id = 0;
    for program in Program::ALL.into_iter().filter(|program| !program.frags || features.frags) {
        let mut gates = Gates::of(&gates::only(program), &policy);
        let has_second_look = gates.add_second_look();
        for (expected, lines) in FORMS {
            for body in ["", "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\n"] {
                call_id += 1;
                let frame = Layers::IPV4.frame(&[&call(call_id, lines), body.as_bytes()].concat());
                let event = gates.judge(&frame, NOW);
                assert_eq!(kind(event.attempt_identity), expected, "{} {lines}", program.name());
                if !has_second_look {
                    continue;
                }
                // In fragments, the first of which has the UDP header alone.
                for part in fragments(&frame, 7, &[8]) {
                    gates.judge(&part, NOW + 70 * SECOND);
                }
                let again = gates.judge_again(&frame, NOW + 70 * SECOND).expect("left to it");
                assert_eq!(again.attempt_identity, event.attempt_identity, "{lines}");
            }
        }
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn identities_of_recorded_calls_are_found() {
    let mut gates = Gates::new(&policy(ATTEMPT_ALL));
    let mut found: BTreeMap<u8, usize> = BTreeMap::new();
    for (time, frame) in captures::all_frames() {
        let Event { attempt_identity, .. } = gates.judge(&frame, time);
        *found.entry(kind(attempt_identity)).or_default() += 1;
    }
    assert!(found.get(&ATTEMPT_ICID).is_some_and(|calls| *calls >= 3), "{found:?}");
}
