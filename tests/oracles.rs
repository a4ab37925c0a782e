//! Two other SIP stacks as oracles: where both agree on the user of a `From`, the gate
//! agrees with them.

use std::cell::Cell;

use ezk_sip_types::uri::{NameAddr, SipUriUserPart};
use filter_common::number::Number;
use palang::host::HostGate;
use palang::policy::Policy;
use palang_tests::packet::{Layers, crlf};
use palang_tests::{gates, invites};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use rvoip_sip_core::types::from::From as RvoipFrom;
use rvoip_sip_core::types::uri::Scheme;

/// The user part of a SIP `From` as both stacks read it; `None` where one of them does not
/// read the value, or reads something else.
fn user(value: &str) -> Option<String> {
    // Both want the address without the parameters of the header.
    let end = value.rfind('>').map(|at| at + 1).or(value.find(';')).unwrap_or(value.len());
    let value = value[..end].trim();
    let rvoip: RvoipFrom = value.parse().ok()?;
    if !matches!(rvoip.0.uri.scheme, Scheme::Sip | Scheme::Sips) {
        return None;
    }
    let rvoip = rvoip.0.uri.user.unwrap_or_default();
    let ezk: NameAddr = value.parse().ok()?;
    let ezk = match ezk.uri.user_part {
        SipUriUserPart::Empty => String::new(),
        SipUriUserPart::User(user) => user.to_string(),
        SipUriUserPart::UserPw(user) => user.user.to_string(),
    };
    (plain(&rvoip)? == plain(&ezk)?).then(|| plain(&rvoip)).flatten()
}

/// A user part without parameters, escapes and visual separators (RFC 3966 §5.1.1).
fn plain(user: &str) -> Option<String> {
    let user = user.split(';').next()?;
    let mut text = String::new();
    let mut chars = user.chars();
    while let Some(c) = chars.next() {
        if c == '%' {
            let hex: String = chars.by_ref().take(2).collect();
            text.push(char::from(u8::from_str_radix(&hex, 16).ok()?));
        } else {
            text.push(c);
        }
    }
    text.retain(|c| !"-.()".contains(c));
    Some(text)
}

/// The number that a user part is under the default plan, if it plainly is one.
fn number(user: &str) -> Option<String> {
    let digits = user.strip_prefix('+').unwrap_or(user);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let national = digits.strip_prefix('0').filter(|_| !user.starts_with('+'));
    match national {
        Some(national) if !national.is_empty() && !national.starts_with('0') => {
            Some(format!("62{national}")).filter(|number| number.len() <= 15)
        }
        Some(_) => None,
        None if digits.starts_with('0') || digits.len() > 15 => None,
        None if digits.starts_with("620") && (user.starts_with('+') || digits.len() > 6) => None,
        None if user.starts_with('+') && digits.len() < 7 && !digits.starts_with("62") => None,
        None if digits == "62" && user.starts_with('+') => None,
        None => Some(digits.to_owned()),
    }
}

/// What the gate reads in an INVITE with this `From`.
fn read(value: &str) -> (Option<String>, &'static str) {
    let message =
        format!("INVITE sip:112@x SIP/2.0\nFrom: {value}\nTo: <sip:112@x>\nCall-ID: 1\n\n");
    let event = HostGate::new(&Policy::default()).judge(&Layers::IPV4.frame(&crlf(&message)), 1);
    let number = (event.number != Number::NONE).then(|| event.number.to_string());
    (number, gates::reason(&event).name())
}

/// Whether the oracles agreed, after holding the gate to it.
fn compare(value: &str) -> Result<bool, String> {
    let Some(user) = user(value) else { return Ok(false) };
    // `phone-context` is the plan's business, not the grammar's. An escaped `;` is no
    // delimiter (RFC 3986 §2.4), but the stacks undo escapes before they hand the user out.
    let lower = value.to_ascii_lowercase();
    if lower.contains("phone-context") || lower.contains("%3b") {
        return Ok(false);
    }
    let (told, reason) = read(value);
    // What the gate does not read for sure, although both stacks are content with it.
    if told.is_none() && reason == "bad-header" {
        return Ok(false);
    }
    let expected = number(&user);
    if told == expected {
        Ok(true)
    } else {
        Err(format!("{value:?}: the oracles read {user:?}, the gate {told:?} ({reason})"))
    }
}

#[track_caller]
fn assert_agreement(values: &[String], at_least: usize) {
    let mut compared = 0;
    for value in values {
        compared += usize::from(compare(value).unwrap_or_else(|error| panic!("{error}")));
    }
    println!("{compared} of {} values compared", values.len());
    assert!(compared >= at_least, "only {compared} of {} values compared", values.len());
}

#[test]
fn froms_of_the_hand_written_invites() {
    let mut values = Vec::new();
    for invite in invites::all() {
        let message = String::from_utf8_lossy(&invite.message()).replace("\r\n ", " ");
        for line in message.split("\r\n").take_while(|line| !line.is_empty()) {
            if let Some((name, value)) = line.split_once(':')
                && matches!(name.trim().to_ascii_lowercase().as_str(), "from" | "f")
            {
                values.push(value.trim().to_owned());
            }
        }
    }
    assert_agreement(&values, 80);
}

#[test]
fn froms_that_are_easily_misread() {
    let values = [
        "<sip:+6281234567890@x>;tag=1",
        "sip:+6281234567890@x;tag=1",
        "\"<sip:999@evil>\" <sip:+6281234567890@x>;tag=1",
        "\"a \\\" <sip:1@x> \\\\\" <sip:081234567890@x>;tag=1",
        "Budi Santoso <sip:62812-3456.7890@x;user=phone>;tag=1",
        "<sip:%2B6281234567890@x>;tag=1",
        "<sip:+6281234567890:secret@[2001:db8::1]:5080>;tag=1",
        "<sips:+6281234567890@x;transport=tls>;tag=1",
        "<SIP:081234567890@x>;tag=1",
        "\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=1",
        "<sip:10.0.1.199>;tag=1",
        "<sip:+6281234567890;verstat=TN-Validation-Passed@x>;tag=1",
        "<sip:+6281234567890@x?Subject=a>;tag=1",
        "<sip:112@x>;tag=1",
        "<sip:alice%40b@x>;tag=1",
        "<sip:+62*81@x>;tag=1",
    ];
    assert_agreement(&values.map(str::to_owned), 10);
}

#[test]
fn generated_froms() {
    let compared = Cell::new(0);
    let strategy = (
        select(vec!["", "Budi ", "\"\" ", "\"a\\\"b\" ", "\"<sip:1@x>\" ", "\"x;tag=1\"", "a.b "]),
        select(vec!["sip", "sips", "SIP", "sIPs"]),
        "(\\+|%2B|%2b)?(0|62)?[0-9]{0,5}([-.()]|%2D|%30|%39)?[0-9]{0,9}[a-z*]?",
        select(vec!["", ":pw", ";a=b", ";cpc=x;y", ":"]),
        select(vec!["x", "10.0.0.1", "[2001:db8::1]", "host.example:5070"]),
        select(vec!["", ";transport=udp", ";user=phone;lr", "?a=b"]),
        select(vec!["", ";tag=1", " ;tag=1", ";a;tag=1"]),
    );
    let config = Config { cases: 6_000, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(
        &strategy,
        |(display, scheme, user, behind, host, parameters, tag)| {
            let value = format!("{display}<{scheme}:{user}{behind}@{host}{parameters}>{tag}");
            let agreed = compare(&value).map_err(TestCaseError::fail)?;
            compared.set(compared.get() + usize::from(agreed));
            Ok(())
        },
    );
    result.unwrap_or_else(|error| panic!("{error}"));
    println!("{} of 6000 values compared", compared.get());
    assert!(compared.get() > 1_500, "only {} were compared", compared.get());
}
