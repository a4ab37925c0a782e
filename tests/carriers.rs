//! Kamailio 6.1 and Asterisk 22 in front of the gate, with each code that refuses a call and with silence. `cargo xtask
//! carriers` makes the root folder of the Debian that they are from, and runs this.
#![expect(clippy::expect_used, reason = "a test panics where it fails")]

use std::path::PathBuf;
use std::time::Duration;

use palang_tests::lab::carrier::{
    Asterisk, BLOCKED, Call, Dead, Dialled, Files, Kamailio, Outcome, Server, calls_beside_pranks,
    gate,
};
use palang_tests::lab::{Daemon, Lab, eventually};
use serde_json::Value;

const FREE: &str = "+6281200000002";

/// The codes that refuse a call.
const CODES: [u16; 5] = [600, 486, 603, 403, 480];

/// Returns the folder of the other Debian, which `cargo xtask carriers` has made.
fn root() -> PathBuf {
    std::env::var_os("PALANG_CARRIERS_ROOT").expect("a folder: cargo xtask carriers").into()
}

/// Starts a gate that refuses in this way, and grants nothing. The driver sends its replies.
fn refusing<'a>(lab: &'a Lab, refuse: &str) -> Daemon<'a> {
    let keys = format!("refuse = \"{refuse}\"\nreply_path = \"driver\"");
    gate(lab, &keys, &["--no-redial"])
}

/// Returns the replies that the gate sent, of these the repeated ones, and the ACKs for them.
fn replies(daemon: &Daemon<'_>) -> [u64; 3] {
    let status = daemon.cli(&["status", "-o", "json"]).stdout;
    let status: Value = serde_json::from_str(&status).expect("JSON");
    ["sent", "repeated", "acks"]
        .map(|name| status["replies"][0][name].as_u64().expect("a counter of replies"))
}

/// Waits until the carrier puts calls through.
fn wait_for_calls(lab: &Lab, log: impl Fn() -> String) {
    let soon = Duration::from_secs(1);
    eventually("an answer through the carrier", || {
        let is_answered = Call::make(lab, FREE, soon).status == 200;
        if !is_answered {
            eprintln!("{}", log());
        }
        is_answered
    });
}

/// Makes honest calls and pranks through Kamailio 6.1.
fn kamailio(refuse: &str, dead: Dead) -> (Outcome, [u64; 3]) {
    let lab = Lab::new("upstream");
    let _server = Server::start(&lab);
    let daemon = refusing(&lab, refuse);
    let kamailio = Kamailio::start(&lab, Files::of(&root()), dead);
    wait_for_calls(&lab, || kamailio.log());
    let outcome = calls_beside_pranks(&lab, FREE, BLOCKED);
    let replies = replies(&daemon);
    println!("Kamailio 6.1, {dead:?}, {refuse}: {outcome:?}; replies, again, ACKs: {replies:?}");
    (outcome, replies)
}

#[test]
fn kamailio_serves_every_honest_call_beside_each_code() {
    for dead in [Dead::Dispatcher, Dead::Blocklist] {
        for code in CODES {
            let (outcome, [sent, repeated, acks]) = kamailio(&code.to_string(), dead);
            assert_eq!(outcome.answered, 40, "{dead:?} {code}");
            assert!(outcome.pranks.iter().all(|prank| prank.status == code), "{outcome:?}");
            assert_eq!([sent, repeated, acks], [4, 0, 4], "{dead:?} {code}");
        }
    }
}

// Without it the test above would show nothing.
#[test]
fn kamailio_loses_honest_calls_beside_silence() {
    for dead in [Dead::Dispatcher, Dead::Blocklist] {
        let (outcome, _) = kamailio("drop", dead);
        assert!(outcome.answered < 40, "{dead:?}: silence does no harm here");
    }
}

/// Makes a prank and an honest call after it through Asterisk 22; returns how the prank ended for the prankster and in
/// the dialplan.
fn asterisk(refuse: &str) -> (Call, Dialled, [u64; 3]) {
    let lab = Lab::new("exchange");
    let _server = Server::start(&lab);
    let daemon = refusing(&lab, refuse);
    let asterisk = Asterisk::start(&lab, Files::of(&root()));
    wait_for_calls(&lab, || asterisk.log());
    let before = asterisk.dialled().len();
    let prank = Call::make(&lab, BLOCKED, Duration::from_secs(50));
    eventually("the end of the call in the dialplan", || asterisk.dialled().len() > before);
    let dialled = asterisk.dialled().swap_remove(before);
    eventually("an ACK for each reply", || {
        let [sent, _, acks] = replies(&daemon);
        sent == acks
    });
    let replies = replies(&daemon);
    println!("Asterisk 22, {refuse}: {prank:?}, {dialled:?}; replies, again, ACKs: {replies:?}");
    let honest = Call::make(&lab, FREE, Duration::from_secs(10));
    assert_eq!(honest.status, 200, "{refuse}: an honest call after it");
    (prank, dialled, replies)
}

#[test]
fn asterisk_ends_a_prank_after_one_invite() {
    for code in CODES {
        let (prank, dialled, replies) = asterisk(&code.to_string());
        assert_eq!(replies, [1, 0, 1], "{code}: {prank:?} {dialled:?}");
        assert!(prank.took < Duration::from_secs(3), "{code}: {prank:?}");
    }
}

#[test]
fn asterisk_waits_for_half_a_minute_beside_silence() {
    let (prank, dialled, _) = asterisk("drop");
    assert!(prank.took > Duration::from_secs(20), "{prank:?} {dialled:?}");
}
