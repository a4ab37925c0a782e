//! Replies to refused calls, with real peers as the carrier: `sipp` and Kamailio.

use std::fs::{self, File};
use std::net::UdpSocket;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use filter_common::abi::Keys;
use palang::datapath::{Pins, ReplyKeys};
use palang_tests::lab::{Callers, Daemon, GATE, Lab, TRUNK, run};
use serde_json::Value;

use crate::foreign_xdp;

pub const BLOCKED: &str = "+6281200000001";
const FREE: &str = "+6281200000002";

/// Starts a gate that enforces, with one trunk and one block.
fn gate<'a>(lab: &'a Lab, keys: &str) -> Daemon<'a> {
    let trunk = format!("[[trunk]]\nname = \"carrier\"\nsources = [\"{TRUNK}\"]\n{keys}\n");
    let daemon = Daemon::start(lab, &trunk);
    foreign_xdp::wake_trunk(lab, daemon.pins());
    does(&daemon, &["mode", "enforce"]);
    does(&daemon, &["block", "add", BLOCKED, "--for", "1h", "--reason", "a test"]);
    daemon
}

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
        let mut daemon = gate(&lab, &format!("refuse = \"{code}\"\nreply_path = \"driver\""));
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
    let daemon = gate(&lab, "refuse = \"486\"\nreply_path = \"driver\"");
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
    let daemon = gate(&lab, "");
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
    let daemon = gate(&lab, "replies_per_second = 100");
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
    let daemon = gate(&lab, "");
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

/// The answers to honest callers and pranks of one run.
struct Outcome {
    answered: usize,
    prank: Vec<(u16, Duration)>,
}

/// Runs Kamailio as the carrier, with 40 honest calls and four pranks. It takes a peer that lets an INVITE time out
/// for dead, until an OPTIONS is answered.
fn carrier(refuse: &str) -> Outcome {
    let lab = Lab::new("carrier");
    let _server = Server::start(&lab);
    let daemon = gate(&lab, &format!("refuse = \"{refuse}\""));
    let _kamailio = Kamailio::start(&lab, &daemon);
    let call = |caller: &str| Call::make(&lab, caller, Duration::from_secs(40));
    let soon = Duration::from_secs(1);
    wait("an answer through the carrier", || Call::make(&lab, FREE, soon).status == 200);
    let (mut answered, mut prank) = (0, Vec::new());
    std::thread::scope(|scope| {
        let pranks = scope.spawn(|| {
            let mut got = Vec::new();
            for _ in 0..4 {
                let one = call(BLOCKED);
                got.push((one.status, one.took));
                std::thread::sleep(Duration::from_secs(4));
            }
            got
        });
        for _ in 0..40 {
            answered += usize::from(call(FREE).status == 200);
            std::thread::sleep(Duration::from_millis(500));
        }
        prank = pranks.join().expect("the pranks");
    });
    let grants = does(&daemon, &["status"])["packets"]["redial-grant"].as_u64().unwrap_or(0);
    println!(
        "refuse = {refuse}: {answered} of 40 honest calls answered; pranks {prank:?}; {} replies, {} ACKs, {} again; \
         {grants} granted",
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
    Outcome { answered, prank }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn carrier_that_gets_600_serves_every_honest_call() {
    let outcome = carrier("600");
    assert_eq!(outcome.answered, 40);
    assert!(outcome.prank.iter().all(|(status, _)| *status == 600), "{:?}", outcome.prank);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn carrier_that_gets_486_serves_every_honest_call() {
    let outcome = carrier("486");
    assert_eq!(outcome.answered, 40);
    assert!(outcome.prank.iter().all(|(status, _)| *status == 486), "{:?}", outcome.prank);
}

// The reason for the replies. Without it the two tests above would show nothing.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn carrier_that_gets_silence_loses_honest_calls() {
    let outcome = carrier("drop");
    assert!(outcome.answered < 40, "silence does no harm here, so this carrier shows nothing");
}

/// A call through the carrier, from beside it.
struct Call {
    status: u16,
    took: Duration,
}

impl Call {
    fn make(lab: &Lab, caller: &str, longest: Duration) -> Call {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let call = NEXT.fetch_add(1, Ordering::Relaxed);
        let socket = lab.in_trunk(|| UdpSocket::bind(("127.0.0.1", 0))).expect("a socket");
        let port = socket.local_addr().expect("its address").port();
        let request = |method: &str, to: &str| {
            format!(
                "{method} sip:112@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{call}\r\n\
                 Max-Forwards: 70\r\nFrom: <sip:{caller}@127.0.0.1>;tag=1\r\nTo: {to}\r\nCall-ID: {call}@carrier\r\n\
                 CSeq: 1 {method}\r\nContact: <sip:127.0.0.1:{port}>\r\nContent-Length: 0\r\n\r\n"
            )
        };
        socket.set_read_timeout(Some(longest)).expect("SO_RCVTIMEO");
        let begun = Instant::now();
        let send = |text: &str| socket.send_to(text.as_bytes(), "127.0.0.1:5060").expect("sent");
        send(&request("INVITE", "<sip:112@127.0.0.1>"));
        let mut room = [0; 4096];
        loop {
            let Ok(len) = socket.recv(&mut room) else {
                return Call { status: 0, took: begun.elapsed() };
            };
            let reply = String::from_utf8_lossy(&room[..len]);
            let status = reply[8..11].parse().expect("a status code");
            if status < 200 {
                continue;
            }
            let to = reply.lines().find_map(|line| line.strip_prefix("To: ")).expect("a To");
            send(&request("ACK", to));
            return Call { status, took: begun.elapsed() };
        }
    }
}

/// The SIP server of the centre: it answers each call and each OPTIONS with 200.
struct Server {
    stop: std::sync::Arc<AtomicBool>,
}

impl Server {
    fn start(lab: &Lab) -> Server {
        let socket = lab.in_gate(|| UdpSocket::bind((GATE, 5060))).expect("port 5060");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("SO_RCVTIMEO");
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let server = Server { stop: std::sync::Arc::clone(&stop) };
        std::thread::spawn(move || {
            let mut room = [0; 4096];
            while !stop.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut room) else { continue };
                let request = String::from_utf8_lossy(&room[..len]);
                if request.starts_with("ACK ") {
                    continue;
                }
                let wanted = ["Via:", "From:", "To:", "Call-ID:", "CSeq:", "Record-Route:"];
                let mut reply = "SIP/2.0 200 OK\r\n".to_owned();
                for line in request.lines() {
                    if wanted.iter().any(|name| line.starts_with(name)) {
                        let tag = if line.starts_with("To:") { ";tag=centre" } else { "" };
                        reply += &format!("{line}{tag}\r\n");
                    }
                }
                reply += &format!("Contact: <sip:{GATE}:5060>\r\nContent-Length: 0\r\n\r\n");
                let _ = socket.send_to(reply.as_bytes(), from);
            }
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Kamailio as the carrier in front of the gate.
struct Kamailio {
    child: Child,
}

impl Kamailio {
    fn start(lab: &Lab, daemon: &Daemon<'_>) -> Kamailio {
        let folder = daemon.folder();
        fs::write(folder.join("dispatcher.list"), format!("1 sip:{GATE}:5060\n"))
            .expect("the peers");
        let config = format!(
            r#"#!KAMAILIO
listen=udp:127.0.0.1:5060
listen=udp:{TRUNK}:5060
mhomed=1
disable_tcp=yes
children=4
log_stderror=yes
debug=0
loadmodule "pv.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "rr.so"
loadmodule "dispatcher.so"
# 30 s as delivered; the test would wait that long for each prank that is dropped.
modparam("tm", "fr_timer", 4000)
modparam("dispatcher", "list_file", "{}")
modparam("dispatcher", "flags", 2)
modparam("dispatcher", "ds_ping_interval", 10)
modparam("dispatcher", "ds_probing_mode", 0)
modparam("dispatcher", "ds_ping_from", "sip:carrier@{TRUNK}")
request_route {{
    if (is_method("ACK")) {{
        if (t_check_trans()) {{ t_relay(); }}
        exit;
    }}
    if (!is_method("INVITE")) {{ exit; }}
    if (!ds_select_dst("1", "4")) {{
        sl_send_reply("503", "No centre");
        exit;
    }}
    t_on_failure("FAILED");
    t_relay();
}}
failure_route[FAILED] {{
    if (t_branch_timeout() && !t_branch_replied()) {{
        ds_mark_dst("ip");
    }}
}}
"#,
            folder.join("dispatcher.list").display()
        );
        let file = folder.join("kamailio.cfg");
        fs::write(&file, config).expect("the configuration");
        let stderr = File::create(folder.join("kamailio-stderr")).expect("a stderr file");
        let mut command = lab.command_in_trunk("kamailio");
        command.args(["-DD", "-E", "-m", "16", "-M", "4", "-f"]).arg(&file);
        command.arg("-Y").arg(folder);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn();
        Kamailio { child: child.expect("kamailio started") }
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        // Its main process; the lab ends the others.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
