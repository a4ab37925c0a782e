//! A carrier that sends a refused call again by itself, with another Call-ID and the identity of the first leg.

use std::time::Duration;

use palang_tests::lab::{Lab, TRUNK, message};

use crate::gate::{Gate, eventually};

/// After this time the machine of the carrier calls again.
const AGAIN: Duration = Duration::from_secs(32);

fn config(keys: &str) -> String {
    format!(
        "[[trunk]]\nname = \"telkom\"\nsources = [\"{TRUNK}\"]\nrefuse = \"drop\"\n{keys}\n\
         [redial]\nattempts = 2\n"
    )
}

/// Sends a leg with this `icid-value`, and returns whether it passes.
fn leg_passes(gate: &Gate<'_>, caller: &str, call_id: &str, icid: &str) -> bool {
    let header = format!("P-Charging-Vector: icid-value={icid};orig-ioi=x\r\nCSeq: ");
    let invite = message::invite(caller, call_id).replace("CSeq: ", &header);
    let after = format!("after-{call_id}");
    let sender = gate.lab.sender();
    sender.send(5060, invite.as_bytes()).unwrap();
    sender.send(5060, message::options(&after).as_bytes()).unwrap();
    let has_arrived =
        |wanted: &str| gate.receiver().arrivals().iter().any(|arrival| arrival.call_id() == wanted);
    eventually("the message after it", || has_arrived(&after));
    has_arrived(call_id)
}

/// Calls twice, the second time after the time of the machine. Returns whether the second leg passes.
fn second_passes(gate: &Gate<'_>, caller: &str, icids: [&str; 2]) -> bool {
    gate.does(&["block", "add", caller, "--for", "1h", "--reason", "prank"]);
    assert!(!leg_passes(gate, caller, &format!("1@{caller}"), icids[0]));
    gate.age(caller, AGAIN);
    leg_passes(gate, caller, &format!("2@{caller}"), icids[1])
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn second_leg_of_a_carrier_opens_no_grant_where_its_identity_is_trusted() {
    let lab = Lab::new("attempt");
    let gate = Gate::start(&lab, &config(""));
    let same = ["scscf1-0001", "scscf1-0001"];
    assert!(second_passes(&gate, "+6281200000101", same), "the trunk is not trusted for it");
    gate.daemon.configure(&config("attempt_identity = [\"icid\"]"));
    gate.daemon.signal("HUP");
    let explained = || gate.does(&["explain", "+6281200000102"]).to_string();
    gate.does(&["block", "add", "+6281200000102", "--for", "1h", "--reason", "prank"]);
    eventually("the new settings", || {
        explained().contains("on trunk telkom after 5s and with another icid")
    });
    assert!(!second_passes(&gate, "+6281200000102", same), "another leg of one attempt");
    // The person calls again, and another carrier makes another value for each leg.
    assert!(leg_passes(&gate, "+6281200000102", "3@person", "scscf1-0002"));
    assert!(second_passes(&gate, "+6281200000103", ["scscf1-0003", "scscf1-0004"]));
    let granted = || gate.rows(&["review", "list"]).len();
    eventually("a review for each grant", || granted() == 3);
}
