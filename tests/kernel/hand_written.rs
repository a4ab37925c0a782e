//! The hand-written INVITEs: what a person reads in them, the kernel reads too.

use filter_common::abi::{EVENT_FROM, EVENT_PAI, EVENT_TWO_IDENTITIES};
use filter_common::number::{Digits, Number};
use palang::model::policy::{Policy, Subject};
use palang_tests::common::gates::{Gates, reason};
use palang_tests::common::invites;
use palang_tests::common::packet::Layers;

use crate::NOW;

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn hand_written_invites_are_read_as_a_person_reads_them() {
    let mut gates = Gates::new(&Policy::default());
    let mut failures = Vec::new();
    for invite in invites::all() {
        gates.replace(&invite.policy());
        for layers in Layers::ALL {
            let event = gates.judge(&layers.frame(&invite.message()), NOW);
            let mut told = format!("{} {}", reason(&event).name(), event.number);
            let mut expected =
                format!("{} {}", invite.reason, invite.caller.as_deref().unwrap_or(""));
            if let Some(callers) = &invite.callers {
                expected.push_str(&callers[0]);
                assert_ne!(event.flags & EVENT_TWO_IDENTITIES, 0, "{}", invite.name);
            }
            if let Some(identity) = &invite.identity {
                expected.push_str(&format!(" {identity}"));
                told.push_str(match event.identity {
                    EVENT_FROM => " from",
                    EVENT_PAI => " pai",
                    _ => "",
                });
            }
            if told != expected {
                failures.push(format!(
                    "{} {layers:?}: {told}, expected {expected}: {}",
                    invite.name, invite.why
                ));
                break;
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn blocking_the_caller_refuses_and_blocking_a_neighbour_does_not() {
    let mut gates = Gates::new(&Policy::default());
    let is_judged =
        |invite: &&invites::Invite| invite.caller.is_some() && invite.reason == "not-blocked";
    for invite in invites::all().iter().filter(is_judged) {
        let frame = Layers::IPV4.frame(&invite.message());
        gates.replace(&invite.policy());
        let number = gates.judge(&frame, NOW).number;

        let mut policy = invite.policy();
        policy.block(Subject::Number(number), 0, 0);
        gates.replace(&policy);
        assert_eq!(reason(&gates.judge(&frame, NOW)).name(), "blocked-number", "{}", invite.name);

        let mut policy = invite.policy();
        for neighbour in neighbours(number) {
            policy.block(Subject::Number(neighbour), 0, 0);
        }
        gates.replace(&policy);
        assert_eq!(reason(&gates.judge(&frame, NOW)).name(), "not-blocked", "{}", invite.name);
    }
}

/// Returns numbers that share most digits with this one: longer, shorter, one digit off, local.
fn neighbours(number: Number) -> Vec<Number> {
    let text = number.to_string();
    let parse = |text: &str| Digits::parse(text).map(Number::e164);
    let mut neighbours = vec![
        parse(&format!("{text}0")),
        parse(&text[..text.len() - 1]),
        parse(&text[1..]),
        parse(&format!("{}{}", &text[..text.len() - 1], (number.digits().0 >> 4 & 1) ^ 1)),
        Digits::parse(&text).and_then(Number::local),
    ];
    neighbours.push(parse(&text));
    neighbours.into_iter().flatten().filter(|neighbour| *neighbour != number).collect()
}
