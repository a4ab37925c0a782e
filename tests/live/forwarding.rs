//! A gate that forwards calls to a SIP server on another machine. Calls in fragments meet no socket here; netfilter asks
//! the program for forwarded packets.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use palang::datapath::Pins;
use palang_tests::lab::centre::{CENTRE, CENTRE6};
use palang_tests::lab::run::{self, Output};
use palang_tests::lab::{Daemon, INTERFACE, Lab, Receiver, eventually, now};
use serde_json::Value;

const BLOCKED: &str = "+6281200000001";
const INNOCENT: &str = "+6281200000002";

/// A telephone that calls the centre.
struct Telephone<'a> {
    lab: &'a Lab,
    receiver: &'a Receiver,
}

impl Telephone<'_> {
    /// Sends an INVITE with headers of about this length, then a mark. Returns whether the INVITE arrived.
    fn passes(&self, caller: &str, headers: usize, to: IpAddr) -> bool {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let socket = self.lab.in_trunk(|| UdpSocket::bind((any, 0))).expect("a socket");
        let (call_id, mark) = (format!("call-{}", now()), format!("mark-{}", now()));
        let invite = format!(
            "INVITE sip:112@psap.example SIP/2.0\r\nX-Long: {}\r\nFrom: <sip:{caller}@x>;tag=1\r\n\
             To: <sip:112@psap.example>\r\nCall-ID: {call_id}\r\nCSeq: 1 INVITE\r\n\r\nv=0\r\n",
            "x".repeat(headers)
        );
        let options = format!("OPTIONS sip:112@x SIP/2.0\r\nCall-ID: {mark}\r\n\r\n");
        for text in [invite, options] {
            socket.send_to(text.as_bytes(), (to, 5060)).expect("sent");
        }
        let longest = Duration::from_secs(5);
        let marked = self.receiver.wait_for(longest, |arrival| arrival.call_id() == mark);
        assert!(marked.is_some(), "the way from trunk to centre is cut");
        self.receiver.arrivals().iter().any(|arrival| arrival.call_id() == call_id)
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

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn forwarded_calls_in_fragments_are_judged() {
    let lab = Lab::new("forwarding");
    let centre = lab.centre();
    let receiver = centre.receiver(5060);
    let mut daemon = Daemon::start(&lab, "");
    let pins = Pins::new(daemon.pins());
    does(&daemon, &["mode", "enforce"]);
    does(&daemon, &["block", "add", BLOCKED, "--for", "1h", "--no-redial", "--reason", "a test"]);
    eventually("the program is attached", || pins.has_forwarded());
    let telephone = Telephone { lab: &lab, receiver: &receiver };
    let mut refused = 0;
    let everywhere = [IpAddr::from(CENTRE), CENTRE6.into()];
    for to in everywhere {
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
    let blocked = |telephone: &Telephone<'_>| {
        everywhere.map(|to| telephone.passes(BLOCKED, 2_400, to)) == [false; 2]
    };

    daemon.kill();
    assert!(blocked(&telephone), "the daemon is dead");
    let first = pins.forwarded_programs().expect("the programs");
    fs::remove_file(&pins.forwarded()[1]).expect("a pin");
    let output = selftest(&daemon);
    assert!(output.stdout.contains("the program for them is not attached"), "{output:?}");
    daemon.start_again();
    eventually("another program is attached", || {
        pins.forwarded_programs().is_ok_and(|programs| programs.len() == 2 && programs != first)
    });
    assert!(blocked(&telephone), "another daemon");

    does(&daemon, &["override", "on", "--for", "1h", "--reason", "fire"]);
    assert!(telephone.passes(BLOCKED, 2_400, CENTRE.into()), "override");
    does(&daemon, &["override", "off"]);
    does(&daemon, &["detach", INTERFACE]);
    assert!(telephone.passes(BLOCKED, 2_400, CENTRE.into()), "detached");
    assert!(!pins.has_forwarded());
    does(&daemon, &["attach", INTERFACE]);
    eventually("the program is attached again", || pins.has_forwarded());
    assert!(blocked(&telephone), "attached again");
    lab.forward(false);
    eventually("nothing is forwarded, so nothing is put together", || !pins.has_forwarded());
}
