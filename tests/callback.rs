//! Call-back grace on a live interface: the centre calls a blocked number, and it gets through.

#![expect(clippy::expect_used, reason = "a test panics where it fails")]

use std::io::Write as _;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use filter_common::abi::Grace;
use nix::sys::sendfile::sendfile;
use palang::datapath::{Egress, Maps, Pins, tcx_programs};
use palang::model::number_text;
use palang::model::policy::{Policy, Subject};
use palang::sys::clock;
use palang_tests::lab::{Daemon, GATE, INTERFACE, Lab, Receiver, TRUNK, bpf, run};

const BLOCKED: &str = "+6281234567890";
const OTHER: &str = "+6281234567891";
const LONG: &str = "[callback]\ngrace = \"60m\"\n";

/// Sends an INVITE of the centre to the trunk, from the SIP port as a SIP server sends it.
fn call_back(lab: &Lab, port: u16, number: &str, padding: usize) {
    let message = invite(port, number, padding);
    let socket = lab.in_gate(|| UdpSocket::bind((GATE, port))).expect("a port of the gate");
    socket.send_to(message.as_bytes(), (TRUNK, 5060)).expect("sent");
}

fn invite(port: u16, number: &str, padding: usize) -> String {
    format!(
        "INVITE sip:{number}@{TRUNK} SIP/2.0\r\nVia: SIP/2.0/UDP {GATE}:{port};branch=z9hG4bK1\r\n\
         From: <sip:112@{GATE}>;tag=1\r\nX: {}\r\nTo: <sip:{number}@{TRUNK}>\r\nCall-ID: out\r\n\
         CSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n",
        "x".repeat(padding)
    )
}

/// Returns whether a new call of this number arrives.
fn arrives(lab: &Lab, receiver: &Receiver, number: &str) -> bool {
    let record = lab.traffic(receiver, &[number], 100, 1).finish();
    assert_eq!(record.sent(number, ..).len(), 1);
    record.delivered(number, ..).len() == 1
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn enforcing<'a>(lab: &'a Lab, config: &str) -> Daemon<'a> {
    let daemon = Daemon::start(lab, config);
    for arguments in
        [&["block", "add", BLOCKED, "--for", "2h", "--reason", "test"][..], &["mode", "enforce"]]
    {
        let done = daemon.cli(arguments);
        assert_eq!(done.code, 0, "{arguments:?}: {}", done.stderr);
    }
    daemon
}

/// Returns how many of our programs meet packets that leave.
fn egress_programs(lab: &Lab) -> usize {
    match Egress::of_this_kernel() {
        Egress::Tcx => lab.in_gate(|| tcx_programs(INTERFACE)),
        Egress::Clsact => {
            let mut tc = lab.command_in_gate("tc");
            let filters = run::run(tc.args(["filter", "show", "dev", INTERFACE, "egress"])).stdout;
            filters.lines().filter(|line| line.contains("palang_egress")).count()
        }
    }
}

fn maps_folder(daemon: &Daemon) -> PathBuf {
    let folders = Pins::new(daemon.pins()).map_folders();
    let [folder] = &folders[..] else { panic!("maps in {folders:?}") };
    folder.clone()
}

/// Returns the grace of [`BLOCKED`].
fn grace(daemon: &Daemon) -> Grace {
    let plan = &Policy::default().trunks[0].profile.plan;
    let Ok(Subject::Number(number)) = number_text::typed(BLOCKED, plan) else {
        panic!("no number")
    };
    let maps = Maps::open(&maps_folder(daemon)).expect("the maps");
    maps.grace(number).expect("the map").expect("a grace")
}

/// Lets the grace of [`BLOCKED`] end at this time, in boot time.
fn end_grace_at(daemon: &Daemon, until: u64) {
    let number = grace(daemon).number;
    let value = [number.0, until].map(u64::to_ne_bytes).concat();
    bpf::set_element(&maps_folder(daemon).join("GRACE"), &number.0.to_ne_bytes(), Some(&value));
    assert_eq!(grace(daemon), Grace { number, until }, "GRACE has another layout");
}

fn wait_for_egress(lab: &Lab, count: usize) {
    until(&format!("{count} programs for packets that leave"), || egress_programs(lab) == count);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn number_that_the_centre_calls_passes() {
    let lab = Lab::new("callback");
    let receiver = lab.receiver(5060);
    let mut daemon = enforcing(&lab, LONG);
    wait_for_egress(&lab, 1);
    assert!(!arrives(&lab, &receiver, BLOCKED));
    call_back(&lab, 5062, OTHER, 0);
    assert!(!arrives(&lab, &receiver, BLOCKED), "another number was called");

    // Nobody of ours runs.
    daemon.kill();
    call_back(&lab, 5062, BLOCKED, 0);
    assert!(arrives(&lab, &receiver, BLOCKED));

    // A restart keeps the grace, and makes no second program.
    daemon.start_again();
    assert!(arrives(&lab, &receiver, BLOCKED));
    let attached = || daemon.stderr().matches("attached the program for outgoing packets").count();
    until("the new daemon has attached it", || attached() == 2);
    // The daemon shows no end of its looks at the interfaces, one each second: only time proves that
    // they add nothing.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((attached(), egress_programs(&lab)), (2, 1));
    let check = daemon.cli(&["check", BLOCKED, "-o", "json"]);
    assert!(check.stdout.contains("callback-grace"), "{} {}", check.stdout, check.stderr);

    let done = daemon.cli(&["detach", INTERFACE]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(egress_programs(&lab), 0);
    assert!(!daemon.pins().join("links-egress").join(INTERFACE).exists());
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn grace_ends_at_its_time_and_when_it_is_switched_off() {
    let lab = Lab::new("callback");
    let receiver = lab.receiver(5060);
    let daemon = enforcing(&lab, LONG);
    wait_for_egress(&lab, 1);
    const MINUTE: u64 = 60 * 1_000_000_000;
    let called = clock::boot();
    call_back(&lab, 5062, BLOCKED, 1200);
    assert!(arrives(&lab, &receiver, BLOCKED));
    let until = grace(&daemon).until;
    assert!((called..=clock::boot()).contains(&(until - 60 * MINUTE)), "{called} {until}");
    end_grace_at(&daemon, clock::boot() + MINUTE);
    assert!(arrives(&lab, &receiver, BLOCKED), "a minute is left");
    end_grace_at(&daemon, clock::boot());
    assert!(!arrives(&lab, &receiver, BLOCKED));

    daemon.configure("");
    daemon.signal("HUP");
    wait_for_egress(&lab, 0);
    call_back(&lab, 5062, BLOCKED, 0);
    assert!(!arrives(&lab, &receiver, BLOCKED));
}

// A packet that a program sends out of a file's pages is not copied. After the headers it has no
// byte of its own, so the filter has to ask for the rest.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn call_back_sent_from_the_pages_of_a_file_opens_the_grace() {
    let lab = Lab::new("callback");
    let receiver = lab.receiver(5060);
    let daemon = enforcing(&lab, LONG);
    wait_for_egress(&lab, 1);
    let mut ethtool = lab.command_in_gate("ethtool");
    let features = run::must(ethtool.args(["-k", INTERFACE]));
    assert!(features.contains("scatter-gather: on"), "else the kernel copies: {features}");
    for (number, padding) in [(BLOCKED, 0), (OTHER, 1000)] {
        let block = daemon.cli(&["block", "add", number, "--for", "2h", "--reason", "test"]);
        assert_eq!(block.code, 0, "{}", block.stderr);
        assert!(!arrives(&lab, &receiver, number));
        let message = invite(5062, number, padding);
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(message.as_bytes()).expect("written");
        let socket = lab.in_gate(|| UdpSocket::bind((GATE, 5062))).expect("a port of the gate");
        lab.in_gate(|| socket.connect((TRUNK, 5060))).expect("connected");
        let sent = sendfile(&socket, &file, Some(&mut 0), message.len()).expect("sendfile");
        assert_eq!(sent, message.len());
        assert!(arrives(&lab, &receiver, number), "{padding}");
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn detach_without_the_daemon_removes_the_egress_program() {
    let lab = Lab::new("callback");
    let mut daemon = enforcing(&lab, LONG);
    wait_for_egress(&lab, 1);
    daemon.kill();
    let mut detach: Command = daemon.command(&["detach", INTERFACE]);
    run::must(detach.env("PALANG_CONFIG", daemon.config_file()));
    assert_eq!(egress_programs(&lab), 0);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn interface_created_again_gets_the_egress_program_again() {
    let lab = Lab::new("callback");
    let receiver = lab.receiver(5060);
    let _daemon = enforcing(&lab, LONG);
    wait_for_egress(&lab, 1);
    lab.delete_and_recreate_veth();
    wait_for_egress(&lab, 1);
    assert!(!arrives(&lab, &receiver, BLOCKED));
    call_back(&lab, 5062, BLOCKED, 0);
    assert!(arrives(&lab, &receiver, BLOCKED));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn call_back_reported_by_command_allows_the_number() {
    let lab = Lab::new("callback");
    let receiver = lab.receiver(5060);
    let daemon = enforcing(&lab, LONG);
    assert!(!arrives(&lab, &receiver, BLOCKED));
    let done = daemon.cli(&["callback", BLOCKED, "-o", "json"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout.contains("\"origin\":\"callback\""), "{}", done.stdout);
    assert!(arrives(&lab, &receiver, BLOCKED));

    // An allow without end stays one.
    assert_eq!(daemon.cli(&["allow", "add", OTHER]).code, 0);
    let done = daemon.cli(&["callback", OTHER, "-o", "json"]);
    assert!(done.stdout.contains("\"unchanged\""), "{} {}", done.stdout, done.stderr);

    let audit = daemon.cli(&["audit", "list", "-o", "json"]).stdout;
    assert!(audit.contains("callback"), "{audit}");

    assert_eq!(daemon.cli(&["callback", "62812*"]).code, 2);
    daemon.configure("");
    daemon.signal("HUP");
    until("the grace is off", || daemon.cli(&["callback", OTHER]).code == 5);
}
