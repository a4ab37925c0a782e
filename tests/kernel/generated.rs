//! Generated and mutated messages. Host and kernel agree on all of them. Every spelling of a number is
//! read as that number. No message is refused that a second reader finds doubtful.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use filter_common::abi::{ATTEMPT_ALL, ATTEMPT_NS, Event, Verdict};
use filter_common::answer::code::Code;
use filter_common::number::{Digits, Number};
use filter_common::plan::{IDENTITY_FROM, IDENTITY_PAI, Prefix};
use palang::model::policy::{Policy, Subject};
use palang_tests::common::gates::{Gates, reason};
use palang_tests::common::mutations::{apply, change};
use palang_tests::common::packet::{Layers, crlf};
use palang_tests::common::{invites, reference, seeds};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::string::string_regex;
use proptest::test_runner::{Config, TestRunner};

use crate::NOW;

/// Returns a time for each case, far enough from the others that no attempt is remembered. The kernel's
/// LRU map remembers for another time than the host.
fn now() -> u64 {
    static CASE: AtomicU64 = AtomicU64::new(0);
    NOW + CASE.fetch_add(1, Ordering::Relaxed) * ATTEMPT_NS
}

/// Runs a property on generated cases and returns how many they were. `PALANG_CASES=20` in the environment
/// makes twenty times as many; `PALANG_CASES_PART=8` an eighth, for an emulated processor.
fn run<S: Strategy>(
    cases: u32,
    strategy: S,
    test: impl Fn(S::Value) -> Result<(), TestCaseError>,
) -> u32 {
    let factor = |name| std::env::var(name).map_or(1, |factor| factor.parse().expect("a number"));
    let cases = cases * factor("PALANG_CASES") / factor("PALANG_CASES_PART");
    assert!(cases > 0, "no case would show nothing");
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    if let Err(error) = TestRunner::new(config).run(&strategy, test) {
        panic!("{error}");
    }
    cases
}

fn layers() -> impl Strategy<Value = Layers> {
    select(&Layers::ALL[..])
}

/// Returns a way to write `62` + national digits in a URI, under a plan with prefix 001.
fn spelling(national: &str, form: usize) -> String {
    let separated: String = national.chars().flat_map(|digit| [digit, '-']).collect();
    match form {
        0 => format!("<sip:+62{national}@x>"),
        1 => format!("<sip:62{national}@x;user=phone>"),
        2 => format!("<sip:0{national}@x>;tag=a"),
        3 => format!("<sip:00162{national}@x>"),
        4 => format!("<sips:%2b62{national}@x>"),
        5 => format!("<sip:+62-{separated}@x>"),
        6 => format!("<sip:+62.({national}@x>"),
        7 => format!("<tel:+62{national};cpc=ordinary>"),
        8 => format!("<tel:0{national}>"),
        9 => format!("<tel:{national};phone-context=+62>"),
        10 => format!("<sip:0{national};phone-context=+62@x;user=phone>"),
        11 => format!("sip:+62{national}@x"),
        12 => format!("tel:+62{national};tag=a"),
        13 => format!("<sip:+62{national};verstat=TN-Validation-Passed@x>"),
        14 => format!("<sip:+62{national}:secret@x>"),
        15 => format!("<SIP:%30{national}@x>"),
        _ => format!("<sip:+62{national}@[2001:db8::1]:5080;transport=udp?a=b>"),
    }
}

/// Returns a header name and what is before the address.
fn dressing(style: usize) -> (&'static str, &'static str) {
    match style {
        0 => ("From: ", ""),
        1 => ("f:", ""),
        2 => ("FROM \t:\t", "Budi Santoso "),
        3 => ("from:\n ", "\"\" "),
        4 => ("From: ", r#""a \" <sip:+6281111111@x> \\" "#),
        5 => ("From: ", "\"0811111111\"\n\t"),
        _ => ("F : ", "\"<tel:+6281111111>;tag=x\""),
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn every_spelling_of_a_number_is_that_number() {
    let mut policy = Policy::default();
    policy.trunks[0].profile.plan.international[0] = Prefix::parse("001").unwrap();
    let gates = RefCell::new(Gates::new(&policy));
    // Made once: a plain string would be read as an expression again for each case.
    let digits = string_regex("[1-9][0-9]{6,10}").unwrap();
    let strategy = (digits, 0..17usize, 0..7usize, layers());
    run(6_000, strategy, |(national, form, style, layers)| {
        let (name, display) = dressing(style);
        // A bare URI has no display name.
        let display = if matches!(form, 11 | 12) { "" } else { display };
        let message = format!(
            "INVITE sip:112@psap.example SIP/2.0\nTo: <sip:112@x>\n{name}{display}{}\ni: 1\n\n",
            spelling(&national, form)
        );
        let event = gates.borrow_mut().judge(&layers.frame(&crlf(&message)), now());
        // Digits that begin with the country code may be the whole number already.
        let ambiguous = form == 9 && national.starts_with("62");
        let expected = if ambiguous { String::new() } else { format!("62{national}") };
        prop_assert_eq!(
            event.number.to_string(),
            expected,
            "{} in {}",
            reason(&event).name(),
            message
        );
        Ok(())
    });
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn mutated_messages_are_refused_only_when_a_second_reader_agrees() {
    refused_only_when(24_000, IDENTITY_FROM, |message, event, _| {
        reference::is_call_from(message, event.number)
    });
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn mutated_messages_with_an_asserted_identity_are_refused_only_when_a_second_reader_agrees() {
    refused_only_when(12_000, IDENTITY_PAI, |message, _, blocked| {
        reference::is_asserted_call(message, blocked)
    });
}

/// Mutates messages on a trunk with this identity whose callers are all blocked. `doubt` confirms each
/// refusal.
fn refused_only_when(
    cases: u32,
    identity: u8,
    doubt: impl Fn(&[u8], &Event, &[Number]) -> Result<(), String>,
) {
    let mut policy = Policy::default();
    policy.trunks[0].profile.identity = identity;
    policy.trunks[0].profile.attempt_identity = ATTEMPT_ALL;
    // The replies of both gates are compared too.
    policy.trunks[0].profile.refuse = Code::BusyHere as u8;
    policy.trunks[0].profile.replies_per_second = u32::MAX;
    let mut originals: Vec<Vec<u8>> =
        invites::all().iter().map(invites::Invite::message).filter(|m| m.len() < 1400).collect();
    originals.extend(seeds::all().into_iter().filter(|message| message.len() < 3000));
    let mut probe = Gates::new(&policy);
    let mut blocked = Vec::new();
    // Messages that name no caller are rarely refused once they are changed.
    originals.retain(|message| {
        let number = probe.judge(&Layers::IPV4.frame(message), NOW).number;
        if number != Number::NONE && !blocked.contains(&number) {
            policy.block(Subject::Number(number), 0, 0);
            blocked.push(number);
        }
        identity == IDENTITY_FROM || number != Number::NONE
    });
    let gates = RefCell::new(Gates::new(&policy));
    let refused = std::cell::Cell::new(0_u32);
    let strategy = (any::<Index>(), prop::collection::vec(change(), 0..6), layers());
    let cases = run(cases, strategy, |(original, changes, layers)| {
        let mut message = original.get(&originals).clone();
        for change in &changes {
            apply(&mut message, change);
        }
        let event = gates.borrow_mut().judge(&layers.frame(&message), now());
        if event.verdict != Verdict::Pass as u8 {
            refused.set(refused.get() + 1);
            if let Err(doubt) = doubt(&message, &event, &blocked) {
                return Err(TestCaseError::fail(format!("{doubt}: {}", message.escape_ascii())));
            }
        }
        Ok(())
    });
    let refused = refused.get();
    assert!(refused > cases / 24, "only {refused} of {cases} were refused at all");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn frames_of_noise_pass() {
    let mut policy = Policy::default();
    policy.block(Subject::Prefix(Digits::parse("6").unwrap()), 0, 0);
    let gates = RefCell::new(Gates::new(&policy));
    // After real headers up to a random depth.
    let whole =
        Layers::ALL.map(|layers| layers.frame(b"INVITE sip:112@x SIP/2.0\r\nFrom: <sip:+6"));
    let strategy =
        (select(whole.to_vec()), any::<Index>(), prop::collection::vec(any::<u8>(), 14..200));
    run(4_000, strategy, |(mut frame, at, noise)| {
        frame.truncate(at.index(frame.len()));
        frame.extend(noise);
        let event = gates.borrow_mut().judge(&frame, now());
        prop_assert_eq!(event.verdict, Verdict::Pass as u8);
        Ok(())
    });
}
