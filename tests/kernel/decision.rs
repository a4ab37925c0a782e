//! The decision, in the kernel: who beats whom, and for how long.

use filter_common::abi::{BLOCK_OBSERVE, Event, MODE_OBSERVE, Verdict};
use filter_common::number::{Digits, Number};
use filter_common::reason::Reason;
use palang::model::policy::{Policy, Subject, Trunk};
use palang_tests::common::gates::{Gates, reason};
use palang_tests::common::packet::{Layers, SOURCE4, crlf};

use crate::{NOW, SECOND};

/// Returns the frame of a call from this number.
fn call(number: &str, call_id: &str) -> Vec<u8> {
    let message = format!(
        "INVITE sip:112@psap.example SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1\n\
         From: <sip:{number}@carrier.example>;tag=1\nTo: <sip:112@psap.example>\n\
         Call-ID: {call_id}\nCSeq: 1 INVITE\nContent-Length: 0\n\n"
    );
    Layers::IPV4.frame(&crlf(&message))
}

fn digits(text: &str) -> Digits {
    Digits::parse(text).unwrap()
}

fn number(text: &str) -> Subject {
    Subject::Number(Number::e164(digits(text)))
}

fn prefix(text: &str) -> Subject {
    Subject::Prefix(digits(text))
}

fn assert_event(event: &Event, expected: Reason, verdict: Verdict, policy_verdict: Verdict) {
    let told = (reason(event).name(), event.verdict, event.policy_verdict);
    assert_eq!(told, (expected.name(), verdict as u8, policy_verdict as u8));
}

const CALLER: &str = "6281234567890";

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_block_against_a_number_is_of_that_number_only() {
    let mut policy = Policy::default();
    policy.block(number(CALLER), 0, 0);
    let mut gates = Gates::new(&policy);
    for (caller, refused) in [
        ("+6281234567890", true),
        ("081234567890", true),
        ("+62812345678901", false),
        ("+628123456789", false),
        ("+1281234567890", false),
    ] {
        let event = gates.judge(&call(caller, caller), NOW);
        assert_eq!(event.verdict == Verdict::Drop as u8, refused, "{caller}");
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_prefix_is_as_long_as_its_digits() {
    let mut policy = Policy::default();
    policy.block(prefix("628120"), 0, 0);
    let mut gates = Gates::new(&policy);
    for (caller, refused) in
        [("+62812", false), ("+628120", true), ("+6281201", true), ("+6281212345678", false)]
    {
        let event = gates.judge(&call(caller, caller), NOW);
        assert_eq!(event.verdict == Verdict::Drop as u8, refused, "{caller}");
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_prefix_of_numbers_is_none_of_short_codes() {
    let mut policy = Policy::default();
    policy.block(prefix("1"), 0, 0);
    let mut gates = Gates::new(&policy);
    assert_event(
        &gates.judge(&call("110", "a"), NOW),
        Reason::NotBlocked,
        Verdict::Pass,
        Verdict::Pass,
    );
    let event = gates.judge(&call("+12125550100", "b"), NOW);
    assert_event(&event, Reason::BlockedPrefix, Verdict::Drop, Verdict::Drop);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn what_lets_through_beats_a_block() {
    let blocked = || {
        let mut policy = Policy::default();
        policy.block(number(CALLER), 0, 0);
        policy.block(prefix("62812"), 0, 0);
        policy
    };
    let mut gates = Gates::new(&blocked());
    let frame = call(CALLER, "a");
    assert_event(&gates.judge(&frame, NOW), Reason::BlockedNumber, Verdict::Drop, Verdict::Drop);

    let mut policy = blocked();
    policy.allow(prefix("628"), 0);
    gates.replace(&policy);
    assert_event(&gates.judge(&frame, NOW), Reason::AllowedPrefix, Verdict::Pass, Verdict::Pass);

    policy.allow(number(CALLER), 0);
    gates.replace(&policy);
    assert_event(&gates.judge(&frame, NOW), Reason::AllowedNumber, Verdict::Pass, Verdict::Pass);

    policy.protect(prefix("62"));
    gates.replace(&policy);
    assert_event(&gates.judge(&frame, NOW), Reason::Protected, Verdict::Pass, Verdict::Pass);

    policy.override_until = NOW + SECOND;
    gates.replace(&policy);
    assert_event(&gates.judge(&frame, NOW), Reason::Override, Verdict::Pass, Verdict::Pass);
    let mut policy = blocked();
    policy.override_until = NOW + SECOND;
    gates.replace(&policy);
    assert_event(&gates.judge(&frame, NOW), Reason::Override, Verdict::Pass, Verdict::Drop);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn blocks_allows_and_the_override_end_in_the_kernel() {
    let mut policy = Policy::default();
    policy.block(number(CALLER), NOW + 100 * SECOND, 0);
    policy.allow(number(CALLER), NOW + 10 * SECOND);
    policy.override_until = NOW + SECOND;
    let mut gates = Gates::new(&policy);
    for (after, expected) in [
        (0, Reason::Override),
        (1, Reason::AllowedNumber),
        (9, Reason::AllowedNumber),
        (10, Reason::BlockedNumber),
        (99, Reason::BlockedNumber),
        (100, Reason::BlockExpired),
    ] {
        let frame = call(CALLER, &format!("after-{after}"));
        assert_eq!(reason(&gates.judge(&frame, NOW + after * SECOND)), expected, "{after} s");
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn the_longest_live_prefix_decides() {
    let mut policy = Policy::default();
    policy.block(prefix("62"), 0, 0);
    policy.block(prefix("62812345"), NOW, 0);
    policy.block(prefix("6281234"), NOW, 0);
    let mut gates = Gates::new(&policy);
    let event = gates.judge(&call(CALLER, "a"), NOW);
    assert_event(&event, Reason::BlockedPrefix, Verdict::Drop, Verdict::Drop);
    assert_eq!(policy.rules[event.rule as usize - 1], "block 62*");

    policy.allow(prefix("628123"), NOW);
    policy.allow(prefix("6281"), 0);
    gates.replace(&policy);
    let event = gates.judge(&call(CALLER, "a"), NOW);
    assert_event(&event, Reason::AllowedPrefix, Verdict::Pass, Verdict::Pass);
    assert_eq!(policy.rules[event.rule as usize - 1], "allow 6281*");
}

/// Tests a number and a prefix that the kernel has in one trie.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn an_allow_that_ended_hides_no_prefix_of_as_many_digits() {
    let mut policy = Policy::default();
    policy.block(number(CALLER), 0, 0);
    policy.allow(number(CALLER), NOW);
    policy.allow(prefix(CALLER), 0);
    let mut gates = Gates::new(&policy);
    let event = gates.judge(&call(CALLER, "a"), NOW);
    assert_event(&event, Reason::AllowedPrefix, Verdict::Pass, Verdict::Pass);
    let event = gates.judge(&call(CALLER, "b"), NOW - 1);
    assert_event(&event, Reason::AllowedNumber, Verdict::Pass, Verdict::Pass);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn observing_refuses_nothing_and_says_what_it_would() {
    let mut gates = Gates::new(&Policy::default());
    let mut globally = Policy::default();
    globally.settings.mode = MODE_OBSERVE;
    globally.block(number(CALLER), 0, 0);
    let mut by_trunk = Policy::default();
    by_trunk.trunks[0].profile.mode = MODE_OBSERVE;
    by_trunk.block(number(CALLER), 0, 0);
    let mut by_block = Policy::default();
    by_block.block(number(CALLER), 0, BLOCK_OBSERVE);
    let mut ended = Policy::default();
    ended.settings.enforce_until = NOW;
    ended.block(number(CALLER), 0, 0);
    for policy in [globally, by_trunk, by_block, ended] {
        gates.replace(&policy);
        // Twice: a retransmission is judged from memory.
        for _ in 0..2 {
            let event = gates.judge(&call(CALLER, "a"), NOW);
            assert_event(&event, Reason::Observe, Verdict::Pass, Verdict::Drop);
        }
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn an_attempt_keeps_its_first_verdict_for_64_seconds() {
    // Passed at first, because the allow was still in force.
    let mut policy = Policy::default();
    policy.block(number(CALLER), 0, 0);
    policy.allow(number(CALLER), NOW + SECOND);
    let mut gates = Gates::new(&policy);
    let frame = call(CALLER, "early");
    assert_eq!(reason(&gates.judge(&frame, NOW)), Reason::AllowedNumber);
    let event = gates.judge(&frame, NOW + 2 * SECOND);
    assert_event(&event, Reason::AttemptPassed, Verdict::Pass, Verdict::Pass);
    assert_eq!(reason(&gates.judge(&frame, NOW + 63 * SECOND)), Reason::AttemptPassed);
    assert_eq!(reason(&gates.judge(&frame, NOW + 64 * SECOND)), Reason::BlockedNumber);
    // Another call of that number has no first verdict.
    let other = gates.judge(&call(CALLER, "late"), NOW + 2 * SECOND);
    assert_eq!(reason(&other), Reason::BlockedNumber);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_refused_attempt_is_let_through_by_a_new_override() {
    let mut policy = Policy::default();
    policy.block(number(CALLER), 0, 0);
    let mut gates = Gates::new(&policy);
    let frame = call(CALLER, "a");
    assert_eq!(reason(&gates.judge(&frame, NOW)), Reason::BlockedNumber);
    gates.set_override(NOW + 10 * SECOND);
    let event = gates.judge(&frame, NOW + SECOND);
    assert_event(&event, Reason::Override, Verdict::Pass, Verdict::Drop);
    let event = gates.judge(&frame, NOW + 10 * SECOND);
    assert_event(&event, Reason::BlockedNumber, Verdict::Drop, Verdict::Drop);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_source_outside_every_trunk_is_never_refused() {
    let mut policy = Policy::default();
    policy.block(number(CALLER), 0, 0);
    policy.settings.trunks_configured = 1;
    let profile = policy.trunks[0].profile;
    let mut source = [0; 16];
    source[10..12].fill(0xFF);
    source[12..].copy_from_slice(&SOURCE4);
    let mut elsewhere = source;
    elsewhere[15] ^= 0x80;
    policy.trunks.push(Trunk {
        name: "other".into(),
        sources: vec![(elsewhere, 128), (source, 0)].into_iter().take(1).collect(),
        profile,
        trusts_from: false,
        esinet: false,
        passes_without_daemon: true,
        country: None,
        contexts: Vec::new(),
    });
    let mut gates = Gates::new(&policy);
    assert_eq!(reason(&gates.judge(&call(CALLER, "a"), NOW)), Reason::UnknownTrunk);

    // The longest prefix is the trunk: the wide one observes, the narrow one enforces.
    let mut observing = profile;
    observing.mode = MODE_OBSERVE;
    policy.trunks.push(Trunk {
        name: "wide".into(),
        sources: vec![(source, 104)],
        profile: observing,
        trusts_from: false,
        esinet: false,
        passes_without_daemon: true,
        country: None,
        contexts: Vec::new(),
    });
    policy.trunks.push(Trunk {
        name: "narrow".into(),
        sources: vec![(source, 120)],
        profile,
        trusts_from: false,
        esinet: false,
        passes_without_daemon: true,
        country: None,
        contexts: Vec::new(),
    });
    gates.replace(&policy);
    let event = gates.judge(&call(CALLER, "a"), NOW);
    assert_event(&event, Reason::BlockedNumber, Verdict::Drop, Verdict::Drop);
    assert_eq!(policy.trunks[usize::from(event.trunk)].name, "narrow");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn block_with_an_unknown_action_is_not_in_force() {
    let mut policy = Policy::default();
    policy.block(number(CALLER), 0, 0);
    policy.blocks[0].1.action = 2;
    let mut gates = Gates::new(&policy);
    let event = gates.judge(&call(CALLER, "a"), NOW);
    assert_event(&event, Reason::NotBlocked, Verdict::Pass, Verdict::Pass);
}
