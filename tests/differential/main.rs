//! Changed messages beside three SIP stacks in C: libosip2, sofia-sip and Kamailio. Where a stack accepts a message
//! that the gate refuses, it must read the refused number in `From`, and no tag in `To`.
//!
//! The gate here is the one on the host: other tests compare it with the kernel program. The number of messages
//! is 20,000, or `PALANG_DIFFERENTIAL`; `cargo xtask differential` sets that.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod kamailio;
mod stack;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use filter_common::abi::Verdict;
use filter_common::number::Number;
use palang::model::host_gate::HostGate;
use palang::model::plan::explain;
use palang::model::policy::{Policy, Subject};
use palang_tests::common::mutations::{apply, change};
use palang_tests::common::packet::Layers;
use palang_tests::common::{invites, seeds};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use kamailio::Kamailio;
use stack::{Library, Read, Stack};

const MESSAGES: u32 = 20_000;
/// The gate's clock. Each message comes on it alone, so none is a redial.
const NOW: u64 = 1_000_000_000_000;

/// Returns why a stack would not refuse the caller; `Ok` if it reads the same caller, in a new call.
fn same(read: &Read, number: Number, policy: &Policy) -> Result<(), String> {
    if !read.tag.is_empty() {
        return Err(format!("the To-tag {:?}", read.tag));
    }
    let scheme = read.scheme.to_ascii_lowercase();
    let is_uri = ["sip", "sips", "tel"].contains(&scheme.as_str());
    if !is_uri || read.user.contains(['<', '>', '"', ' ', '\r', '\n']) {
        // A stack that takes the display name for a part of the URI reads nobody.
        return Ok(());
    }
    let uri = match scheme.as_str() {
        "tel" => format!("<tel:{}>", read.user),
        _ => format!("<sip:{}@x>", read.user),
    };
    match explain::read(&uri, &policy.trunks[0].profile.plan) {
        Ok(other) if other == number => Ok(()),
        other => {
            Err(format!("{uri}, which is {}", other.map_or("unread".into(), |n| n.to_string())))
        }
    }
}

/// Returns whether libosip2 may read a message otherwise than RFC 3261. It undoes the escapes of `;`, `:` and
/// `@` before the user part can be split. After `=` and white space a quotation mark begins no value for it.
fn is_misread_by_osip2(message: &[u8]) -> bool {
    let lower = message.to_ascii_lowercase();
    let is_escape = |bytes: &[u8]| [b"%3b", b"%3a", b"%40"].iter().any(|each| bytes == *each);
    let is_late_quote = |value: &[u8]| {
        value.first().is_some_and(u8::is_ascii_whitespace)
            && value.trim_ascii_start().starts_with(b"\"")
    };
    lower.windows(3).any(is_escape) || lower.split(|byte| *byte == b'=').any(is_late_quote)
}

/// Blocks every caller of the messages. Returns the messages that have one.
fn blocked(policy: &mut Policy) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = invites::all().iter().map(invites::Invite::message).collect();
    messages.extend(seeds::all());
    let mut gate = HostGate::new(policy);
    let mut found = BTreeMap::new();
    messages.retain(|message| {
        if message.len() > 3_000 {
            return false;
        }
        let number = gate.judge(&Layers::IPV4.frame(message), NOW).number;
        found.insert(number.0, number);
        number != Number::NONE
    });
    for number in found.into_values().filter(|number| *number != Number::NONE) {
        policy.block(Subject::Number(number), 0, 0);
    }
    messages
}

#[test]
fn refused_message_has_the_same_caller_for_each_stack_that_accepts_it() {
    let folder = tempfile::tempdir().unwrap();
    let sofia = ["-I/usr/include/sofia-sip-1.12", "-lsofia-sip-ua"];
    let stacks: RefCell<[(&str, Box<dyn Stack>); 3]> = RefCell::new([
        ("osip2", Box::new(Library::start("osip2", &["-losipparser2"], folder.path()))),
        ("sofia", Box::new(Library::start("sofia", &sofia, folder.path()))),
        ("Kamailio", Box::new(Kamailio::start(folder.path()))),
    ]);
    let mut policy = Policy::default();
    let originals = blocked(&mut policy);
    assert!(originals.len() > 100, "{}", originals.len());
    let long = std::env::var("PALANG_DIFFERENTIAL").ok();
    let messages = long.as_ref().map_or(MESSAGES, |text| text.parse().unwrap());
    let config = Config { cases: messages, failure_persistence: None, ..Config::default() };
    let gate = RefCell::new(HostGate::new(&policy));
    let time = Cell::new(NOW);
    let (refused, accepted) = (Cell::new(0_u32), Cell::new([0_u32; 3]));
    let strategy = (any::<Index>(), prop::collection::vec(change(), 0..6));
    // Each short run has the same messages, each long run others.
    let mut runner = match long {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let result = runner.run(&strategy, |(original, changes)| {
        let mut message = original.get(&originals).clone();
        for change in &changes {
            apply(&mut message, change);
        }
        // Far apart: no attempt is the redial of another.
        time.set(time.get() + 10_000_000_000_000);
        let event = gate.borrow_mut().judge(&Layers::IPV4.frame(&message), time.get());
        if event.verdict == Verdict::Pass as u8 {
            return Ok(());
        }
        refused.set(refused.get() + 1);
        for ((name, stack), count) in stacks.borrow_mut().iter_mut().zip(0..) {
            if *name == "osip2" && is_misread_by_osip2(&message) {
                continue;
            }
            let Some(read) = stack.read(&message) else { continue };
            let mut counts = accepted.get();
            counts[count] += 1;
            accepted.set(counts);
            if let Err(reason) = same(&read, event.number, &policy) {
                let text = message.escape_ascii();
                let number = event.number;
                return Err(TestCaseError::fail(format!(
                    "{name} reads {reason}, not {number}: {text}"
                )));
            }
        }
        Ok(())
    });
    let (refused, accepted) = (refused.get(), accepted.get());
    println!(
        "{messages} messages, {refused} refused; accepted by osip2, sofia-sip and Kamailio: {accepted:?}"
    );
    result.unwrap_or_else(|error| panic!("{error}"));
    assert!(refused > messages / 20, "{refused}");
    assert!(accepted.iter().all(|count| *count > refused / 4), "{accepted:?}");
}
