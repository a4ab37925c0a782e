//! A gate that forwards calls to a SIP server on another machine. Calls in fragments meet no socket here; netfilter asks
//! the program for forwarded packets.

use std::fs;
use std::net::{IpAddr, UdpSocket};

use etherparse::PacketBuilder;
use palang::datapath::Pins;
use palang_tests::common::packet::fragments;
use palang_tests::lab::centre::{CENTRE, CENTRE6, Wire};
use palang_tests::lab::run::{self, Output};
use palang_tests::lab::{Daemon, INTERFACE, Lab, Raw, TRUNK, eventually, now};
use serde_json::Value;

const BLOCKED: &str = "+6281200000001";
const INNOCENT: &str = "+6281200000002";
const EVERYWHERE: [IpAddr; 2] = [IpAddr::V4(CENTRE), IpAddr::V6(CENTRE6)];

/// A telephone that calls the centre.
struct Telephone<'a> {
    lab: &'a Lab,
    wire: Wire,
}

impl Telephone<'_> {
    /// Sends an INVITE with headers of about this length, then a mark. Returns whether the INVITE arrived.
    fn passes(&self, caller: &str, headers: usize, to: IpAddr) -> bool {
        let (call, mark) = (format!("call-{}", now()), format!("mark-{}", now()));
        let invite = format!(
            "INVITE sip:112@psap.example SIP/2.0\r\nX-Call: {call}\r\nX-Long: {}\r\n\
             From: <sip:{caller}@x>;tag=1\r\nTo: <sip:112@psap.example>\r\nCall-ID: {}\r\n\
             CSeq: 1 INVITE\r\n\r\nv=0\r\n",
            "x".repeat(headers),
            now()
        );
        self.send(invite.as_bytes(), 5060, to);
        self.send(mark.as_bytes(), 5060, to);
        self.wire.packets_before(&mark, &call) > 0
    }

    fn send(&self, bytes: &[u8], port: u16, to: IpAddr) {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let socket = self.lab.in_trunk(|| UdpSocket::bind((any, 0))).expect("a socket");
        socket.send_to(bytes, (to, port)).expect("sent");
    }

    fn blocked_everywhere(&self) -> bool {
        EVERYWHERE.map(|to| self.passes(BLOCKED, 2_400, to)) == [false; 2]
    }
}

fn does(daemon: &Daemon<'_>, arguments: &[&str]) -> Value {
    let output = daemon.cli(&[arguments, &["-o", "json"]].concat());
    assert_eq!(output.code, 0, "{arguments:?}: {}", output.stderr);
    serde_json::from_str(&output.stdout).unwrap_or(Value::Null)
}

fn selftest(daemon: &Daemon<'_>) -> Output {
    let mut command = daemon.command(&["selftest"]);
    run::run(command.env("PALANG_CONFIG", daemon.config_file()))
}

/// Starts a gate that enforces and has a block.
fn gate<'a>(lab: &'a Lab, config: &str) -> (Daemon<'a>, Pins) {
    let daemon = Daemon::start(lab, config);
    let pins = Pins::new(daemon.pins());
    does(&daemon, &["mode", "enforce"]);
    does(&daemon, &["block", "add", BLOCKED, "--for", "1h", "--no-redial", "--reason", "a test"]);
    eventually("the program is attached", || pins.has_forwarded());
    (daemon, pins)
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn forwarded_calls_in_fragments_are_judged() {
    let lab = Lab::new("forwarding");
    let centre = lab.centre();
    let (mut daemon, pins) = gate(&lab, "reassemble_forwarded = true\n");
    let telephone = Telephone { lab: &lab, wire: centre.wire() };
    let mut refused = 0;
    for to in EVERYWHERE {
        for headers in [100, 1_500, 2_400, 8_000, 15_000] {
            assert!(!telephone.passes(BLOCKED, headers, to), "blocked, {headers} bytes to {to}");
            assert!(telephone.passes(INNOCENT, headers, to), "innocent, {headers} bytes to {to}");
            refused += 1;
        }
    }
    assert_eq!(does(&daemon, &["status"])["packets"]["blocked-number"], refused);
    assert_eq!(does(&daemon, &["status"])["findings"], Value::Array(Vec::new()));
    let output = selftest(&daemon);
    assert_eq!(output.code, 0, "{output:?}");

    daemon.kill();
    assert!(telephone.blocked_everywhere(), "the daemon is dead");
    let first = pins.forwarded_programs().expect("the programs");
    // A crash left the new pin of an attempt, and the link of it.
    fs::rename(&pins.forwarded()[0], pins.folder().join("forwarded-ipv4-new")).expect("a pin");
    let output = selftest(&daemon);
    assert!(output.stdout.contains("the program for them is not attached"), "{output:?}");
    daemon.start_again();
    eventually("another program is attached", || {
        pins.forwarded_programs().is_ok_and(|programs| programs.len() == 2 && programs != first)
    });
    assert!(telephone.blocked_everywhere(), "another daemon");

    does(&daemon, &["override", "on", "--for", "1h", "--reason", "fire"]);
    assert!(telephone.passes(BLOCKED, 2_400, CENTRE.into()), "override");
    does(&daemon, &["override", "off"]);
    does(&daemon, &["detach", INTERFACE]);
    assert!(telephone.passes(BLOCKED, 2_400, CENTRE.into()), "detached");
    assert!(!pins.has_forwarded());
    does(&daemon, &["attach", INTERFACE]);
    eventually("the program is attached again", || pins.has_forwarded());
    assert!(telephone.blocked_everywhere(), "attached again");
}

/// Sends fragments of 100 datagrams of one source: first all first ones, then all others. Returns how many arrived.
fn interleaved(telephone: &Telephone<'_>) -> usize {
    let text = format!("text-{}", now());
    // Each fragment has the text: 1,480 bytes are a fragment.
    let body = text.repeat(2_000 / text.len());
    let raw = Raw::of(telephone.lab);
    let frames: Vec<_> = (0..100_u32)
        .map(|id| {
            let mut frame = Vec::new();
            PacketBuilder::ethernet2([2; 6], [4; 6])
                .ipv4(TRUNK.octets(), CENTRE.octets(), 64)
                .udp(4000, 4000)
                .write(&mut frame, body.as_bytes())
                .expect("a frame");
            fragments(&frame, id + 1, &[1_480])
        })
        .collect();
    for part in 0..2 {
        frames.iter().for_each(|fragments| raw.send(&fragments[part], CENTRE));
    }
    let mark = format!("mark-{}", now());
    telephone.send(mark.as_bytes(), 5060, CENTRE.into());
    telephone.wire.packets_before(&mark, &text)
}

// Netfilter gives up fragments of a source with more than 64 open datagrams, and everybody's when its memory is full. So
// it puts nothing together unless somebody asked for it.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn fragments_stay_as_they_are_unless_they_are_put_together_anyway() {
    let lab = Lab::new("untouched");
    let centre = lab.centre();
    let (daemon, _) = gate(&lab, "");
    let telephone = Telephone { lab: &lab, wire: centre.wire() };
    assert_eq!(interleaved(&telephone), 200);
    assert!(telephone.passes(BLOCKED, 2_400, CENTRE.into()), "nothing puts it together");
    assert!(!telephone.passes(BLOCKED, 100, CENTRE.into()), "in one frame");
    for _ in 0..6 {
        assert!(telephone.passes(BLOCKED, 2_400, CENTRE.into()));
    }
    let findings = does(&daemon, &["status"])["findings"].to_string();
    assert!(findings.contains("7 of 7 calls in fragments in the last hour met no"), "{findings}");
    let nft = |rule: &str| {
        let mut command = lab.command_in_gate("nft");
        run::must(command.args(rule.split(' ')));
    };
    nft("add table inet tracking");
    nft("add chain inet tracking forward { type filter hook forward priority 0 ; }");
    nft("add rule inet tracking forward ct state new accept");
    assert!(telephone.blocked_everywhere(), "connection tracking puts it together");
    for _ in 0..8 {
        assert!(telephone.passes(INNOCENT, 2_400, CENTRE.into()));
    }
    assert_eq!(does(&daemon, &["status"])["findings"], Value::Array(Vec::new()));
}
