//! Callers who are never refused, in the kernel: protected numbers and patterns, short numbers, callers
//! without a number. The maps are written past every check, as by a mistake.

use std::cell::RefCell;

use filter_common::abi::{RULE_SHORT_NUMBER, Verdict};
use filter_common::number::{Digits, Number};
use filter_common::plan::IDENTITY_PAI;
use filter_common::reason::Reason;
use palang::model::policy::{Policy, Subject};
use palang_tests::common::gates::{Gates, assert_reason};
use palang_tests::common::packet::{Layers, crlf};
use proptest::prelude::*;

use crate::NOW;

fn call(from: &str, more: &str, call_id: &str) -> Vec<u8> {
    Layers::IPV4.frame(&crlf(&format!(
        "INVITE sip:112@psap.example SIP/2.0\n{from}To: <sip:112@psap.example>\n{more}\
         Call-ID: {call_id}\nContent-Length: 0\n\n"
    )))
}

fn from(number: &str) -> Vec<u8> {
    call(&format!("From: <sip:{number}@carrier.example>;tag=1\n"), "", number)
}

fn digits(text: &str) -> Digits {
    Digits::parse(text).unwrap()
}

fn number(text: &str) -> Subject {
    Subject::Number(Number::e164(digits(text)))
}

fn local(text: &str) -> Subject {
    Subject::Number(Number::local(digits(text)).unwrap())
}

fn prefix(text: &str) -> Subject {
    Subject::Prefix(digits(text))
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_protected_number_is_let_through_by_the_rule_that_names_it() {
    let mut policy = Policy::default();
    policy.protect_named(prefix("62431"), "RSUP Manado");
    policy.protect_named(number("62215550100"), "trunk pilot");
    policy.protect_named(prefix("881"), "calls without a SIM");
    for blocked in ["624315551", "62215550100", "62215550101", "88112345678"] {
        policy.block(number(blocked), 0, 0);
    }
    policy.block(prefix("624315"), 0, 0);
    let mut gates = Gates::new(&policy);
    for (caller, rule) in [
        ("+624315551", "protected 62431* (RSUP Manado)"),
        ("0431 5552".replace(' ', "").as_str(), "protected 62431* (RSUP Manado)"),
        ("+62215550100", "protected 62215550100 (trunk pilot)"),
        ("+88112345678", "protected 881* (calls without a SIM)"),
    ] {
        let event = gates.judge(&from(caller), NOW);
        assert_reason(&event, Reason::Protected);
        assert_eq!(policy.rule_name(event.rule).as_deref(), Some(rule), "{caller}");
    }
    assert_reason(&gates.judge(&from("+62215550101"), NOW), Reason::BlockedNumber);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_number_of_too_few_digits_is_never_refused() {
    let mut policy = Policy::default();
    for blocked in ["110", "1669", "14045", "250200"] {
        policy.block(local(blocked), 0, 0);
    }
    policy.block(number("629"), 0, 0);
    let mut gates = Gates::new(&policy);
    assert_reason(&gates.judge(&from("110"), NOW), Reason::BlockedNumber);
    assert_reason(&gates.judge(&from("+629"), NOW), Reason::BlockedNumber);

    policy.settings.shortest_number = 5;
    gates.replace(&policy);
    for caller in ["110", "1669", "+629"] {
        let event = gates.judge(&from(caller), NOW);
        assert_reason(&event, Reason::Protected);
        assert_eq!(event.rule, RULE_SHORT_NUMBER, "{caller}");
    }
    // The mark of a local number is no digit.
    for caller in ["14045", "250200"] {
        assert_reason(&gates.judge(&from(caller), NOW), Reason::BlockedNumber);
    }
    assert_eq!(
        policy.rule_name(RULE_SHORT_NUMBER).as_deref(),
        Some("protected fewer than 5 digits")
    );
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_block_against_a_prefix_of_too_few_digits_is_not_in_force() {
    let mut policy = Policy::default();
    policy.settings.shortest_prefix = 5;
    for blocked in ["6", "62", "6281", "62899"] {
        policy.block(prefix(blocked), 0, 0);
    }
    policy.block(prefix("62811000"), NOW, 0);
    let mut gates = Gates::new(&policy);
    assert_reason(&gates.judge(&from("+6281234567890"), NOW), Reason::NotBlocked);
    let event = gates.judge(&from("+6289934567890"), NOW);
    assert_reason(&event, Reason::BlockedPrefix);
    assert_eq!(policy.rule_name(event.rule).as_deref(), Some("block 62899*"));
    // After a longer one that has ended, too.
    assert_reason(&gates.judge(&from("+6281100012345"), NOW), Reason::NotBlocked);

    policy.settings.shortest_prefix = 4;
    gates.replace(&policy);
    assert_reason(&gates.judge(&from("+6281234567890"), NOW), Reason::BlockedPrefix);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_caller_without_a_number_passes_whatever_is_blocked() {
    let mut policy = Policy::default();
    for digit in 0..10u8 {
        policy.block(prefix(&digit.to_string()), 0, 0);
    }
    for short in ["0", "1", "112", "999999"] {
        policy.block(local(short), 0, 0);
    }
    let asserted = "P-Asserted-Identity: ";
    let cases = [
        ("\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=1", "", Reason::NotANumber),
        ("Anonymous <sip:c8oqz84zk7z@privacy.org>;tag=1", "", Reason::NotANumber),
        ("<sip:@carrier.example>;tag=1", "", Reason::NoUser),
        ("sip:carrier.example", "", Reason::NoUser),
        ("<sip:carrier.example>", "", Reason::NoUser),
        ("<tel:>", "", Reason::NoUser),
        ("<sip:unavailable@unknown.invalid>", "", Reason::NotANumber),
        ("<sip:restricted@carrier.example>", "", Reason::NotANumber),
        // A display name is no number, also where nothing else is there.
        ("\"+6281234567890\" <sip:anonymous@anonymous.invalid>", "", Reason::NotANumber),
        ("\"081234567890\" <sip:@carrier.example>", "", Reason::NoUser),
        ("\"081234567890\"", "", Reason::BadHeader),
        ("081234567890", "", Reason::NoNumberUri),
        ("", "", Reason::NoNumberUri),
        // Where the trunk's identity is trusted, only that counts; an empty one names nobody.
        ("<sip:+6281234567890@x>", "<sip:anonymous@anonymous.invalid>", Reason::NotANumber),
        ("<sip:+6281234567890@x>", "<sip:@carrier.example>", Reason::NoUser),
    ];
    let mut gates = Gates::new(&policy);
    for (index, (sender, pai, expected)) in cases.into_iter().enumerate() {
        policy.trunks[0].profile.identity = u8::from(!pai.is_empty()) * IDENTITY_PAI;
        gates.replace(&policy);
        let pai = if pai.is_empty() { String::new() } else { format!("{asserted}{pai}\n") };
        let frame = call(&format!("From: {sender}\n"), &pai, &index.to_string());
        let event = gates.judge(&frame, NOW);
        assert_eq!(event.number, Number::NONE, "{sender}");
        assert_reason(&event, expected);
    }
    assert_reason(&gates.judge(&call("", "", "none"), NOW), Reason::FromMissing);
}

fn subject() -> impl Strategy<Value = Subject> {
    prop_oneof![
        "[1-9][0-9]{0,14}".prop_map(|text| number(&text)),
        "62[0-9]{1,9}".prop_map(|text| number(&text)),
        "[0-9]{1,6}".prop_map(|text| local(&text)),
        "[1-9][0-9]{0,5}".prop_map(|text| prefix(&text)),
        "62[0-9]{0,9}".prop_map(|text| prefix(&text)),
    ]
}

fn starts_with(number: Number, subject: Subject) -> bool {
    match subject {
        Subject::Number(other) => number == other,
        Subject::Prefix(prefix) => {
            !number.is_local() && number.to_string().starts_with(&prefix.to_string())
        }
    }
}

/// Returns how a caller writes this number.
fn written(number: Number) -> String {
    if number.is_local() { number.to_string() } else { format!("+{number}") }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn nothing_that_is_put_in_brings_a_protected_or_short_subject_into_force() {
    let gates = RefCell::new(Gates::new(&Policy::default()));
    let policies = (
        prop::collection::vec(subject(), 0..4),
        prop::collection::vec(subject(), 1..8),
        0..8u8,
        0..8u8,
        prop::collection::vec(any::<prop::sample::Index>(), 4),
    );
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(200));
    let done = runner.run(&policies, |(protected, blocked, number, prefix, callers)| {
        let mut policy = Policy::default();
        policy.settings.shortest_number = number;
        policy.settings.shortest_prefix = prefix;
        let mut put_in = Vec::new();
        for subject in &protected {
            policy.protect(*subject);
        }
        for subject in blocked {
            if !put_in.contains(&subject) {
                policy.block(subject, 0, 0);
                put_in.push(subject);
            }
        }
        let mut gates = gates.borrow_mut();
        gates.replace(&policy);
        for caller in callers {
            // One that a block or a protection is about, or that begins with it.
            let all: Vec<_> = put_in.iter().chain(&protected).collect();
            let caller = match caller.get(&all) {
                Subject::Number(number) => *number,
                Subject::Prefix(prefix) => {
                    let text = format!("{prefix}1234567");
                    Number::e164(digits(&text[..text.len().min(15)]))
                }
            };
            let event = gates.judge(&from(&written(caller)), NOW);
            // The plan may read none, or another one: `0812` in a local number is dialled.
            let caller = event.number;
            if caller == Number::NONE {
                prop_assert_eq!(event.verdict, Verdict::Pass as u8);
                continue;
            }
            let is_protected = protected.iter().any(|subject| starts_with(caller, *subject));
            let is_short = caller.to_string().len() < usize::from(number);
            let in_force = put_in.iter().any(|subject| {
                let digits = subject.to_string().trim_end_matches('*').len();
                let long = matches!(subject, Subject::Number(_)) || digits >= prefix.into();
                starts_with(caller, *subject) && long
            });
            let expected = in_force && !is_protected && !is_short;
            prop_assert_eq!(event.verdict == Verdict::Drop as u8, expected, "{}", caller);
        }
        Ok(())
    });
    done.unwrap();
}
