//! Tests the finding about a trunk that asserts callers it does not read.

use palang_tests::lab::{Lab, message};

use crate::gate::{Gate, eventually};
use crate::metrics::{scrape, value};

/// Returns the finding about callers that are asserted and not read.
fn finding(gate: &Gate<'_>) -> Option<String> {
    gate.findings().into_iter().find(|finding| finding.contains("P-Asserted-Identity"))
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn asserted_caller_that_the_trunk_does_not_read_turns_the_status_amber() {
    let lab = Lab::new("asserted");
    let gate = Gate::start(&lab, "[metrics]\nlisten = \"127.0.0.1:9113\"");
    let sender = lab.sender();
    let call = |from: &str, call_id: &str, asserted: &str| {
        let header = format!("P-Asserted-Identity: <tel:{asserted}>\r\nTo: ");
        let invite = message::invite(from, call_id).replace("To: ", &header);
        sender.send(5060, invite.as_bytes()).unwrap();
    };
    let calls = || gate.rows(&["calls"]).len();
    for index in 0..6 {
        call("+6281200000001", &format!("{index}@same"), "+6281200000001");
    }
    eventually("these calls have records", || calls() == 6);
    assert_eq!(finding(&gate), None);
    for index in 0..3 {
        call("anonymous", &format!("{index}@hidden"), "+6281200000002");
        call("+6281200000001", &format!("{index}@other"), "+6281200000002");
    }
    eventually("all calls have records", || calls() == 12);
    let found = finding(&gate).expect("a finding");
    assert!(found.starts_with("amber: trunk default reads From"), "{found}");
    assert!(found.contains("another caller (6 calls in the last hour)"), "{found}");
    assert_eq!(gate.does(&["status"])["asserted_others"]["default"], 6);
    let series = "palang_asserted_others_total{trunk=\"default\"}";
    assert_eq!(value(&scrape(&lab), series), 6);
    // The record of a caller who was read has no text of another header field.
    for call in gate.rows(&["calls"]) {
        assert_eq!(call["unread"].is_null(), call["reason"] != "not-a-number", "{call}");
    }
}
