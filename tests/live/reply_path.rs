//! Replies that the daemon sends: where the driver cannot, and what happens without a daemon.

use std::time::{Duration, Instant};

use palang::datapath::{DaemonPaths, Pins};
use palang_tests::lab::carrier::BLOCKED;
use palang_tests::lab::{Daemon, GATE, Lab, Receiver, TRUNK, run};

use crate::carriers::{Sipp, counter, does, wait};

/// The capabilities of the unit.
pub const UNIT: &str = "-all,+bpf,+net_admin,+perfmon,+chown,+net_raw";

/// Starts a gate that enforces with the capabilities of the unit. Nothing is on the other end of the veth pair.
fn gate<'a>(lab: &'a Lab, capabilities: &str, keys: &str) -> Daemon<'a> {
    let trunk =
        format!("[[trunk]]\nname = \"carrier\"\nsources = [\"{TRUNK}\", \"10.77.0.1\"]\n{keys}\n");
    let mut daemon = Daemon::prepare(lab, &trunk);
    start(&mut daemon, capabilities);
    does(&daemon, &["mode", "enforce"]);
    does(&daemon, &["block", "add", BLOCKED, "--for", "1h", "--reason", "a test"]);
    daemon
}

pub fn start(daemon: &mut Daemon<'_>, capabilities: &str) {
    let sets = [format!("--inh-caps={capabilities}"), format!("--bounding-set={capabilities}")];
    daemon.spawn_by(&["setpriv", &sets[0], &sets[1]], &[]);
    daemon.wait_for_answer();
}

pub fn short() -> Sipp<'static> {
    Sipp {
        subject: "an exchange of some make and length, written out in full",
        body: "",
        from: "",
        to: "",
    }
}

/// Sends an INVITE of the blocked caller.
pub fn send(lab: &Lab, call: &str) {
    let invite = format!(
        "INVITE sip:112@{GATE} SIP/2.0\r\nVia: SIP/2.0/UDP {TRUNK}:5060;branch=z9hG4bK{call}\r\n\
         From: <sip:{BLOCKED}@{TRUNK}>;tag=1\r\nTo: <sip:112@{GATE}>\r\nCall-ID: {call}\r\n\
         CSeq: 1 INVITE\r\nUser-Agent: an exchange of some make and length\r\nContent-Length: 0\r\n\r\n"
    );
    lab.sender().send(5060, invite.as_bytes()).expect("sent");
}

/// Sends an INVITE of the blocked caller, and returns whether it reaches the server.
fn reaches(lab: &Lab, receiver: &Receiver, call: &str) -> bool {
    let arrived = || receiver.arrivals().iter().filter(|arrival| arrival.call_id() == call).count();
    let before = arrived();
    send(lab, call);
    // The loopback of a lab needs milliseconds.
    let deadline = Instant::now() + Duration::from_secs(1);
    while arrived() == before && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    arrived() > before
}

fn packets(daemon: &Daemon<'_>, reason: &str) -> u64 {
    does(daemon, &["status"])["packets"][reason].as_u64().unwrap_or(0)
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn veth_without_a_program_on_the_other_end_is_answered_by_the_daemon() {
    let lab = Lab::new("veth");
    let receiver = lab.receiver(5060);
    let daemon = gate(&lab, UNIT, "");
    let status = does(&daemon, &["status"]);
    assert_eq!(status["colour"], "green", "{status}");
    assert_eq!(status["replies"][0]["path"], "daemon");
    let why = status["interfaces"][0]["replies_by_daemon"].as_str().expect("a reason");
    assert!(why.contains("veth"), "{why}");
    let (from, to) = (TRUNK.to_string(), GATE.to_string());
    Sipp { from: &from, to: &to, ..short() }.run(&lab, &daemon, 600, 10);
    wait("10 ACKs", || counter(&daemon, "acks") == 10);
    assert_eq!((counter(&daemon, "sent"), counter(&daemon, "by_daemon")), (10, 10));
    assert_eq!(counter(&daemon, "repeated"), 0, "each call is one INVITE");
    assert!(receiver.arrivals().is_empty(), "{:?}", receiver.arrivals());
    let calls = daemon.cli(&["calls", "-o", "json"]).stdout;
    assert!(calls.lines().all(|line| line.contains("\"reply\":600")), "{calls}");
}

// Both with headers that end in a later fragment, and with headers that the first fragment holds.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn refused_call_in_fragments_is_answered_once_and_its_ack_does_not_arrive() {
    let lab = Lab::new("fragments");
    let receiver = lab.receiver(5060);
    let daemon = gate(&lab, UNIT, "");
    let (from, to) = (TRUNK.to_string(), GATE.to_string());
    let long = "x".repeat(2_500);
    Sipp { subject: &long, from: &from, to: &to, ..short() }.run(&lab, &daemon, 600, 5);
    Sipp { body: &long, from: &from, to: &to, ..short() }.run(&lab, &daemon, 600, 5);
    wait("10 ACKs", || counter(&daemon, "acks") == 10);
    assert_eq!((counter(&daemon, "sent"), counter(&daemon, "by_daemon")), (10, 10));
    assert_eq!(counter(&daemon, "repeated"), 0, "each call is one INVITE");
    assert_eq!(packets(&daemon, "second-look"), 10);
    assert!(receiver.arrivals().is_empty(), "{:?}", receiver.arrivals());
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn without_a_daemon_a_call_passes_or_is_dropped_as_the_trunk_says() {
    for (keys, passes) in [("", true), ("without_daemon = \"drop\"", false)] {
        let lab = Lab::new("dead");
        let receiver = lab.receiver(5060);
        let mut daemon = gate(&lab, UNIT, &format!("reply_path = \"daemon\"\n{keys}"));
        assert!(!reaches(&lab, &receiver, "before"));
        wait("a reply", || counter(&daemon, "by_daemon") == 1);
        daemon.kill();
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(reaches(&lab, &receiver, "meanwhile"), passes);
        let mut command = daemon.command(&["status"]);
        let said = run::run(command.env("PALANG_CONFIG", daemon.config_file())).stdout;
        let fate = if passes { "pass (without_daemon" } else { "end in silence (without_daemon" };
        assert!(said.contains(&format!("calls that the daemon has to answer {fate}")), "{said}");
        // An attempt that was refused has got its reply, so it stays refused.
        assert!(!reaches(&lab, &receiver, "before"), "it comes again");
        start(&mut daemon, UNIT);
        let status = does(&daemon, &["status"]);
        assert_eq!(status["packets"]["without-daemon"].as_u64(), passes.then_some(1), "{status}");
        assert_eq!(status["colour"], "amber", "{status}");
        let findings = status["findings"].to_string();
        assert!(
            findings.contains(
                "1 call of a blocked caller passed or ended in silence, because no daemon ran"
            ),
            "{findings}"
        );
        wait("a row of the audit", || {
            daemon.cli(&["audit", "list", "-o", "json"]).stdout.contains("calls not answered")
        });
        // An attempt that passed may ring, so it goes on to pass.
        assert_eq!(reaches(&lab, &receiver, "meanwhile"), passes);
        let mut calls = 0;
        wait("the heartbeat", || {
            calls += 1;
            !reaches(&lab, &receiver, &format!("later-{calls}"))
        });
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn daemon_that_ends_in_order_hands_over_no_call_from_then_on() {
    let lab = Lab::new("stopped");
    let receiver = lab.receiver(5060);
    let mut daemon = gate(&lab, UNIT, "reply_path = \"daemon\"");
    assert!(!reaches(&lab, &receiver, "before"));
    assert_eq!(daemon.stop(), 0);
    assert!(reaches(&lab, &receiver, "after"));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn daemon_without_the_capability_says_so_and_lets_its_calls_pass() {
    let lab = Lab::new("no-raw");
    let receiver = lab.receiver(5060);
    let without = UNIT.replace(",+net_raw", "");
    let daemon = gate(&lab, &without, "");
    let findings = does(&daemon, &["status"])["findings"].to_string();
    assert!(findings.contains("no raw socket") && findings.contains("CAP_NET_RAW"), "{findings}");
    assert!(reaches(&lab, &receiver, "a"));
    // A reload needs no restart where the driver sends the replies.
    let trunk = format!(
        "[[trunk]]\nname = \"carrier\"\nsources = [\"{TRUNK}\"]\nreply_path = \"driver\"\n"
    );
    daemon.configure(&trunk);
    daemon.signal("HUP");
    wait("no finding", || {
        does(&daemon, &["status"])["findings"].as_array().is_some_and(Vec::is_empty)
    });
    assert!(!reaches(&lab, &receiver, "b"));
    assert_eq!(packets(&daemon, "without-daemon"), 1);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn reload_that_needs_the_daemon_says_that_it_has_to_be_restarted() {
    let lab = Lab::new("reload");
    let mut daemon = gate(&lab, UNIT, "reply_path = \"driver\"");
    let trunk = format!("[[trunk]]\nname = \"carrier\"\nsources = [\"{TRUNK}\"]\n");
    daemon.configure(&trunk);
    daemon.signal("HUP");
    let findings = |daemon: &Daemon<'_>| does(daemon, &["status"])["findings"].to_string();
    wait("a finding", || findings(&daemon).contains("restart"));
    assert_eq!(daemon.stop(), 0);
    start(&mut daemon, UNIT);
    assert_eq!(findings(&daemon), "[]");
}

/// Returns the part of the status about the trunk's replies.
fn replies(daemon: &Daemon<'_>) -> serde_json::Value {
    does(daemon, &["status"])["replies"][0].clone()
}

// The driver of a card may send, but its replies do not arrive.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn driver_without_acks_gives_its_trunk_to_the_daemon_until_a_reload() {
    let lab = Lab::new("moved");
    let receiver = lab.receiver(5060);
    let daemon = gate(&lab, UNIT, "");
    let folder = Pins::new(daemon.pins()).map_folders().pop().expect("the maps");
    let mut paths = DaemonPaths::open(&folder).expect("the map");
    // As for a card. The daemon writes the map again every second.
    let mut call = |name: &str| {
        paths.set(&[]).expect("written");
        send(&lab, name);
    };
    (0..30).for_each(|number| call(&format!("driver-{number}")));
    wait("a move", || replies(&daemon)["moved"] == true);
    let status = does(&daemon, &["status"]);
    assert_eq!(status["colour"], "amber", "{status}");
    let findings = status["findings"].to_string();
    assert!(findings.contains("replies of the driver, so the daemon sends them"), "{findings}");
    assert_eq!(status["replies"][0]["path"], "daemon");
    let audit = daemon.cli(&["audit", "list", "-o", "json"]).stdout;
    assert!(audit.contains("replies moved to the daemon"), "{audit}");
    // The trunk needs no interface in the map any more.
    let before = counter(&daemon, "by_daemon");
    (0..5).for_each(|number| call(&format!("moved-{number}")));
    wait("replies of the daemon", || counter(&daemon, "by_daemon") == before + 5);
    assert!(receiver.arrivals().is_empty(), "{:?}", receiver.arrivals());
    daemon.signal("HUP");
    wait("the path of the file", || {
        let now = replies(&daemon);
        now["moved"] == false && now["problem"].is_null()
    });
}
