//! Replies to refused calls, with real peers as the carrier: `sipp` and Kamailio.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use filter_common::abi::Keys;
use palang::datapath::{Pins, ReplyKeys};
use palang_tests::lab::carrier::{
    BLOCKED, Call, Dead, Files, Kamailio, Outcome, Server, calls_beside_pranks, gate,
};
use palang_tests::lab::{Callers, Daemon, GATE, Lab, TRUNK, run};
use serde_json::Value;

const FREE: &str = "+6281200000002";

pub fn does(daemon: &Daemon<'_>, arguments: &[&str]) -> Value {
    let output = daemon.cli(&[arguments, &["-o", "json"]].concat());
    assert_eq!(output.code, 0, "{arguments:?}: {}", output.stderr);
    serde_json::from_str(&output.stdout).unwrap_or(Value::Null)
}

/// Returns a counter of the replies to the trunk.
pub fn counter(daemon: &Daemon<'_>, name: &str) -> u64 {
    does(daemon, &["status"])["replies"][0][name].as_u64().expect("a counter")
}

/// Waits until a condition is true, at most a minute.
pub fn wait(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_true() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Makes `calls` calls of a blocked caller with sipp, that must each end with this code after one INVITE.
fn sipp(lab: &Lab, daemon: &Daemon<'_>, code: u16, calls: u32) {
    let subject = "an exchange of some make, with a header of some length";
    Sipp { subject, body: "", from: &TRUNK.to_string(), to: &GATE.to_string() }
        .run(lab, daemon, code, calls);
}

/// The calls of sipp.
pub struct Sipp<'a> {
    pub subject: &'a str,
    pub body: &'a str,
    pub from: &'a str,
    pub to: &'a str,
}

impl Sipp<'_> {
    /// Makes `calls` calls of a blocked caller, that must each end with this code.
    pub fn run(&self, lab: &Lab, daemon: &Daemon<'_>, code: u16, calls: u32) {
        let Sipp { subject, body, from, to } = self;
        let scenario = daemon.folder().join(format!("refused-{code}.xml"));
        let text = format!(
            r#"<?xml version="1.0" encoding="ISO-8859-1" ?>
<scenario name="refused">
  <send retrans="500"><![CDATA[
    INVITE sip:112@[remote_ip]:[remote_port] SIP/2.0
    Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport
    Max-Forwards: 70
    From: "Budi" <sip:{BLOCKED}@[local_ip]:[local_port]>;tag=[call_number]
    To: <sip:112@[remote_ip]:[remote_port]>
    Call-ID: [call_id]
    CSeq: 1 INVITE
    Contact: <sip:[local_ip]:[local_port]>
    Subject: {subject}
    Content-Type: text/plain
    Content-Length: [len]

    {body}
  ]]></send>
  <recv response="{code}" rtd="true"></recv>
  <send><![CDATA[
    ACK sip:112@[remote_ip]:[remote_port] SIP/2.0
    [last_Via:]
    [last_From:]
    [last_To:]
    [last_Call-ID:]
    CSeq: 1 ACK
    Max-Forwards: 70
    Content-Length: 0

  ]]></send>
</scenario>
"#
        );
        fs::write(&scenario, text).expect("the scenario");
        let mut command = lab.command_in_trunk("sipp");
        command.current_dir(daemon.folder()).args(["-sf"]).arg(&scenario);
        command.args(["-m", &calls.to_string(), "-r", "50", "-i", from, "-p", "5070"]);
        command.args(["-timeout", "60", "-nostdin", &format!("{to}:5060")]);
        let output = run::run(&mut command);
        assert_eq!(output.code, 0, "{output:?}");
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn sipp_ends_with_the_code_after_one_invite_and_its_ack_ends_in_the_driver() {
    for code in [600, 486, 603, 403, 480] {
        let lab = Lab::new("sipp");
        let receiver = lab.receiver(5060);
        let mut daemon = gate(&lab, &format!("refuse = \"{code}\"\nreply_path = \"driver\""), &[]);
        assert_eq!(does(&daemon, &["status"])["replies"][0]["path"], "driver");
        sipp(&lab, &daemon, code, 10);
        wait("10 ACKs", || counter(&daemon, "acks") == 10);
        assert_eq!(counter(&daemon, "sent"), 10);
        assert_eq!(counter(&daemon, "by_daemon"), 0);
        assert_eq!(counter(&daemon, "repeated"), 0, "each call is one INVITE");
        let calls = daemon.cli(&["calls", "-o", "json"]).stdout;
        let mut calls =
            calls.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        assert!(calls.all(|call| call["reply"] == code), "{code}");
        // The program in the driver needs no daemon.
        daemon.kill();
        sipp(&lab, &daemon, code, 5);
        daemon.start_again();
        wait("15 ACKs", || counter(&daemon, "acks") == 15);
        assert!(receiver.arrivals().is_empty(), "{:?}", receiver.arrivals());
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn keys_change_under_traffic_and_no_ack_reaches_the_server() {
    let lab = Lab::new("keys");
    let receiver = lab.receiver(5060);
    let daemon = gate(&lab, "refuse = \"486\"\nreply_path = \"driver\"", &[]);
    let folder = Pins::new(daemon.pins()).map_folders().pop().expect("the maps");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut keys = ReplyKeys::open(&folder).expect("the keys");
            let mut turns = 0_u64;
            while !done.load(Ordering::Relaxed) {
                turns += 1;
                keys.rotate([turns, !turns], u64::MAX).expect("another key");
                // An ACK comes within a few ms, and a key is valid until the change after the next.
                std::thread::sleep(Duration::from_millis(100));
            }
            assert!(turns > 20, "{turns}");
        });
        sipp(&lab, &daemon, 486, 200);
        done.store(true, Ordering::Relaxed);
    });
    wait("200 ACKs", || counter(&daemon, "acks") == 200);
    assert!(receiver.arrivals().is_empty(), "{:?}", receiver.arrivals());
    assert_ne!(ReplyKeys::open(&folder).expect("the keys").get().expect("them"), Keys::default());
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn replies_without_acks_are_amber_and_go_on() {
    let lab = Lab::new("acks");
    let daemon = gate(&lab, "reply_path = \"driver\"", &[]);
    assert_eq!(does(&daemon, &["status"])["replies"][0]["refuse"], "600");
    let sender = lab.sender();
    let invite = |call: usize| {
        let invite = format!(
            "INVITE sip:112@{GATE} SIP/2.0\r\nVia: SIP/2.0/UDP {TRUNK}:5060;branch=z9hG4bK{call}\r\n\
             From: <sip:{BLOCKED}@{TRUNK}>;tag=1\r\nTo: <sip:112@{GATE}>\r\nCall-ID: call-{call}\r\n\
             CSeq: 1 INVITE\r\nUser-Agent: an exchange of some make and length\r\nContent-Length: 0\r\n\r\n"
        );
        sender.send(5060, invite.as_bytes()).expect("sent");
    };
    (0..30).for_each(invite);
    let problem =
        || does(&daemon, &["status"])["replies"][0]["problem"].as_str().map(str::to_owned);
    wait("a problem", || problem().is_some());
    let status = does(&daemon, &["status"]);
    assert_eq!(status["colour"], "amber");
    let findings = status["findings"].to_string();
    assert!(findings.contains("carrier acknowledged 0 of the last 30 replies"), "{findings}");
    (30..40).for_each(invite);
    // The replies go on, also for a caller who sends no ACK.
    wait("40 replies", || counter(&daemon, "sent") == 40);
    let audit = daemon.cli(&["audit", "list", "-o", "json"]).stdout;
    assert!(audit.contains("replies not acknowledged"), "{audit}");
    sipp(&lab, &daemon, 600, 30);
    wait("no problem", || problem().is_none());
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn flood_gets_replies_up_to_the_limit_and_strangers_get_none() {
    let lab = Lab::new("limit");
    let daemon = gate(&lab, "replies_per_second = 100", &[]);
    let begun = Instant::now();
    let flood = lab.flood(Callers::One(BLOCKED));
    std::thread::sleep(Duration::from_secs(3));
    let sent = flood.stop();
    let seconds = begun.elapsed().as_secs() + 2;
    let (replies, limited) = (counter(&daemon, "sent"), counter(&daemon, "limited"));
    assert!(replies <= 100 * seconds, "{replies} in {seconds} s");
    assert!(replies >= 200 && limited > sent / 2, "{replies} and {limited} of {sent}");

    let lab = Lab::new("stranger");
    let receiver = lab.receiver(5060);
    let trunk = "[[trunk]]\nname = \"carrier\"\nsources = [\"192.0.2.1\"]\n";
    let daemon = Daemon::start(&lab, trunk);
    does(&daemon, &["mode", "enforce"]);
    does(&daemon, &["block", "add", BLOCKED, "--for", "1h", "--reason", "a test"]);
    let record = lab.traffic(&receiver, &[BLOCKED], 100, 10).finish();
    assert!(record.invites.iter().all(|invite| invite.arrived_at.is_some()), "a stranger passes");
    assert_eq!(counter(&daemon, "sent"), 0);
}

// A reply in the name of another machine would move that machine in the tables of a switch.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn frame_for_another_machine_is_not_answered() {
    let lab = Lab::new("other");
    let daemon = gate(&lab, "", &[]);
    sipp(&lab, &daemon, 600, 1);
    assert_eq!(counter(&daemon, "sent"), 1);
    let mut neighbour = lab.command_in_trunk("ip");
    let gate = GATE.to_string();
    run::must(neighbour.args([
        "neigh",
        "replace",
        &gate,
        "lladdr",
        "02:00:00:00:00:99",
        "dev",
        "trunk0",
    ]));
    let before = does(&daemon, &["status"])["packets"]["blocked-number"].as_u64();
    let invite = format!(
        "INVITE sip:112@{GATE} SIP/2.0\r\nVia: SIP/2.0/UDP {TRUNK}:5060;branch=z9hG4bKo\r\n\
         From: <sip:{BLOCKED}@{TRUNK}>;tag=1\r\nTo: <sip:112@{GATE}>\r\nCall-ID: other\r\n\
         CSeq: 1 INVITE\r\nUser-Agent: an exchange of some make and length\r\nContent-Length: 0\r\n\r\n"
    );
    lab.sender().send(5060, invite.as_bytes()).expect("sent");

    wait("a refusal", || does(&daemon, &["status"])["packets"]["blocked-number"].as_u64() > before);
    assert_eq!(counter(&daemon, "sent"), 1);
    assert_eq!(counter(&daemon, "impossible"), 1);
}

/// Runs Kamailio as the carrier, with 40 honest calls and four pranks.
fn carrier(refuse: &str) -> Outcome {
    let lab = Lab::new("carrier");
    let _server = Server::start(&lab);
    let daemon = gate(&lab, &format!("refuse = \"{refuse}\""), &[]);
    let _kamailio = Kamailio::start(&lab, Files::here(), Dead::Dispatcher);
    let soon = Duration::from_secs(1);
    wait("an answer through the carrier", || Call::make(&lab, FREE, soon).status == 200);
    let outcome = calls_beside_pranks(&lab, FREE, BLOCKED);
    let grants = does(&daemon, &["status"])["packets"]["redial-grant"].as_u64().unwrap_or(0);
    println!(
        "refuse = {refuse}: {outcome:?}; {} replies, {} ACKs, {} again; {grants} granted",
        counter(&daemon, "sent"),
        counter(&daemon, "acks"),
        counter(&daemon, "repeated"),
    );
    if refuse != "drop" {
        assert_eq!(
            counter(&daemon, "acks"),
            counter(&daemon, "sent"),
            "each reply is acknowledged"
        );
    }
    outcome
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn carrier_that_gets_600_serves_every_honest_call() {
    let outcome = carrier("600");
    assert_eq!(outcome.answered, 40);
    assert!(outcome.pranks.iter().all(|prank| prank.status == 600), "{outcome:?}");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn carrier_that_gets_486_serves_every_honest_call() {
    let outcome = carrier("486");
    assert_eq!(outcome.answered, 40);
    assert!(outcome.pranks.iter().all(|prank| prank.status == 486), "{outcome:?}");
}

// The reason for the replies. Without it the two tests above would show nothing.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn carrier_that_gets_silence_loses_honest_calls() {
    let outcome = carrier("drop");
    assert!(outcome.answered < 40, "silence does no harm here, so this carrier shows nothing");
}
