//! The promise with every process of ours dead: redial grant, call-back grace, protected numbers and
//! allows hold in the kernel, over real traffic.

use std::net::UdpSocket;

use filter_common::abi::{Block, Verdict};
use palang_tests::lab::{GATE, INTERFACE, Lab, Sender, TRUNK, run};
use serde_json::{Value, json};

use crate::gate::{Gate, SEPARATE, eventually, subject};

const REDIALS: &str = "+6281200000001";
const RETRANSMITS: &str = "+6281200000002";
const CALLED: &str = "+6281200000003";
const ALLOWED: &str = "+6281200000004";
const PROTECTED: &str = "+62431555123";
const NEVER: &str = "+6281200000005";

/// Sends an INVITE of a caller, also one that was sent before.
fn send(sender: &Sender, caller: &str, call_id: &str) {
    let invite = format!(
        "INVITE sip:112@{GATE} SIP/2.0\r\nVia: SIP/2.0/UDP {TRUNK};branch=z9hG4bK{call_id}\r\n\
         From: <sip:{caller}@{TRUNK}>;tag=1\r\nTo: <sip:112@{GATE}>\r\n\
         Call-ID: {call_id}\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
    );
    sender.send(5060, invite.as_bytes()).unwrap();
}

/// Sends a call of the centre to a number.
fn call_back(lab: &Lab, number: &str) {
    let invite = format!(
        "INVITE sip:{number}@{TRUNK} SIP/2.0\r\nVia: SIP/2.0/UDP {GATE}:5060;branch=z9hG4bK1\r\n\
         From: <sip:112@{GATE}>;tag=1\r\nTo: <sip:{number}@{TRUNK}>\r\nCall-ID: out\r\n\
         CSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
    );
    // Not from the SIP port, where somebody listens already: the trunk's makes it SIP, too.
    let socket = lab.in_gate(|| UdpSocket::bind((GATE, 0))).unwrap();
    socket.send_to(invite.as_bytes(), (TRUNK, 5060)).unwrap();
}

fn reasons(gate: &Gate<'_>, caller: &str) -> Vec<Value> {
    let calls = gate.rows(&["calls", "--caller", caller]);
    calls.into_iter().map(|mut call| call["reason"].take()).collect()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn grant_grace_allow_and_protection_hold_with_the_daemon_killed() {
    let lab = Lab::new("promise");
    let config = "protected = [{ number = \"+62431*\", name = \"RSUP Manado\" }]\n\
                  [callback]\ngrace = \"60m\"\n";
    let mut gate = Gate::start(&lab, config);
    let add = |number: &'static str, more: &[&'static str]| {
        let block = ["block", "add", number, "--for", "1h", "--reason", "prank"];
        gate.does(&[&block[..], more].concat());
    };
    add(REDIALS, &["--redial", "2/10m/30m"]);
    add(RETRANSMITS, &["--redial", "2/10m/30m"]);
    for number in [CALLED, ALLOWED, NEVER] {
        add(number, &["--no-redial"]);
    }
    // A block that nothing of ours would have written.
    let block = Block {
        number: subject(PROTECTED).raw(),
        rule: 1 << 40,
        action: Verdict::Drop as u8,
        ..Block::default()
    };
    gate.maps().set_block(subject(PROTECTED), block).unwrap();
    let egress = gate.daemon.pins().join("links-egress").join(INTERFACE);
    let is_there = |lab: &Lab| {
        let filters = run::run(
            lab.command_in_gate("tc").args(["filter", "show", "dev", INTERFACE, "egress"]),
        );
        egress.exists() || filters.stdout.contains("palang_egress")
    };
    eventually("the program for packets that leave", || is_there(&lab));
    let rules: Vec<_> = [REDIALS, RETRANSMITS, CALLED, ALLOWED, NEVER]
        .map(|number| gate.kernel_block(number))
        .into();

    gate.daemon.kill();
    assert!(is_there(&lab));
    for blocked in [REDIALS, CALLED, ALLOWED, NEVER] {
        assert!(!gate.passes(blocked), "{blocked}");
    }
    assert!(gate.passes(PROTECTED), "never refused, whatever stands in the map");

    // One INVITE, sent again and again for longer than separate attempts are apart.
    let sender = lab.sender();
    send(&sender, RETRANSMITS, "one");
    let counted = || gate.maps().redial(subject(RETRANSMITS).raw()).unwrap().is_some();
    eventually("the INVITE is counted", counted);
    for number in [RETRANSMITS, REDIALS] {
        gate.age(number, SEPARATE);
    }
    for _ in 0..10 {
        send(&sender, RETRANSMITS, "one");
    }
    // The second separate attempt of the other.
    let second = gate.call(REDIALS);
    assert!(second.arrived_at.is_some(), "the second attempt passes");
    assert!(gate.passes(REDIALS), "and so do those after it");
    let grant = gate.maps().grant(subject(REDIALS).raw()).unwrap().expect("a grant");
    assert_eq!(gate.maps().grant(subject(RETRANSMITS).raw()).unwrap(), None);
    let redial = gate.maps().redial(subject(RETRANSMITS).raw()).unwrap().expect("a count");
    assert_eq!(redial.count, 1, "one INVITE is one attempt, however often it is sent");

    call_back(&lab, CALLED);
    assert!(gate.passes(CALLED), "whom the centre called");
    gate.does_by_hand(&["allow", "add", ALLOWED, "--for", "1h", "--comment", "in need"]);
    assert!(gate.passes(ALLOWED));
    assert!(gate.passes(PROTECTED));
    assert!(!gate.passes(NEVER), "who has no way out is refused");
    // By now the number's INVITE was sent more than 5 s ago: another call is another attempt.
    assert!(gate.passes(RETRANSMITS), "the second attempt, with another Call-ID");

    gate.daemon.start_again();
    let numbers = |gate: &Gate<'_>| -> Vec<Value> {
        let reviews = gate.rows(&["review", "list"]);
        let mut numbers: Vec<_> = reviews.iter().map(|review| review["number"].clone()).collect();
        numbers.sort_by_key(ToString::to_string);
        numbers
    };
    let expected = [REDIALS, RETRANSMITS].map(|number| json!(number[1..]));
    eventually("both grants are on the review list", || numbers(&gate) == expected);
    let reviews = gate.rows(&["review", "list"]);
    let review = reviews.iter().find(|review| review["number"] == REDIALS[1..]).unwrap();
    assert_eq!(review["call_id"], second.call_id, "of the call that opened it");

    // Nothing changed: blocks, grants and what passes are those of before.
    let now: Vec<_> = [REDIALS, RETRANSMITS, CALLED, ALLOWED, NEVER]
        .map(|number| gate.kernel_block(number))
        .into();
    assert_eq!(now, rules);
    assert_eq!(gate.maps().grant(subject(REDIALS).raw()).unwrap(), Some(grant));
    let callers = [REDIALS, RETRANSMITS, CALLED, ALLOWED, PROTECTED, NEVER];
    assert_eq!(gate.passing(&callers), callers[..5]);
    assert_eq!(numbers(&gate), expected, "one grant is one entry");
    for (caller, reason) in [
        (REDIALS, "redial-grant"),
        (CALLED, "callback-grace"),
        (ALLOWED, "allowed-number"),
        (PROTECTED, "protected"),
        (NEVER, "blocked-number"),
    ] {
        eventually(reason, || reasons(&gate, caller).contains(&json!(reason)));
    }
    assert_eq!(gate.does(&["status"])["reviews"], 2);
}
