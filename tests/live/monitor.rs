//! `palang monitor`: what is judged, while it is judged.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use palang::datapath::EvidenceSwitch;
use palang_tests::lab::{Lab, message, run};
use serde_json::Value;

use crate::gate::{Gate, eventually};

const BLOCKED: &str = "+6281234567890";
const FREE: &str = "+6281234567891";
/// How long a line may take.
const SOON: Duration = Duration::from_secs(10);

struct Monitor {
    child: Child,
    lines: Receiver<String>,
}

impl Monitor {
    /// Looks, from the first line about what is lost on.
    fn start(gate: &Gate<'_>, arguments: &[&str]) -> (Monitor, String) {
        Monitor::start_saying(gate, arguments, Stdio::inherit())
    }

    fn start_saying(gate: &Gate<'_>, arguments: &[&str], stderr: Stdio) -> (Monitor, String) {
        let mut command = gate.daemon.command(&[&["monitor"], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let monitor = Monitor { child, lines };
        let first = monitor.line();
        (monitor, first)
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(SOON).expect("a line")
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn monitor_prints_a_line_for_each_attempt_of_the_chosen_types() {
    let lab = Lab::new("monitor");
    let gate = Gate::start(&lab, "[redial]\nattempts = 0");
    gate.does(&["block", "add", BLOCKED, "--for", "1h", "--reason", "prank"]);
    let (all, first) = Monitor::start(&gate, &["-o", "json"]);
    let lost: Value = serde_json::from_str(&first).unwrap();
    let none = serde_json::json!({ "refused": 0, "passed": 0, "thinned": 0, "missed": 0 });
    assert_eq!(lost["lost"], none);
    let (refused, first) = Monitor::start(&gate, &["-t", "refuse", "-v"]);
    assert!(first.starts_with("lost: 0 refused and 0 passed"), "{first}");
    let (unread, _) = Monitor::start(&gate, &["-t", "unread", "-o", "json", "--count", "1"]);

    assert!(gate.passes(FREE));
    assert!(!gate.passes(BLOCKED));
    let broken = message::invite(FREE, "1@unread").replace("From:", "Form:");
    lab.sender().send(5060, broken.as_bytes()).unwrap();

    let told: Vec<Value> = (0..3).map(|_| serde_json::from_str(&all.line()).unwrap()).collect();
    let what: Vec<_> = told
        .iter()
        .map(|call| (call["verdict"].as_str().unwrap(), call["reason"].as_str().unwrap()))
        .collect();
    let expected = [("pass", "not-blocked"), ("drop", "blocked-number"), ("pass", "from-missing")];
    // Refusals and passes come by two rings.
    for one in expected {
        assert!(what.contains(&one), "{one:?} in {what:?}");
    }
    let line = refused.line();
    assert!(line.contains("drop") && line.contains("6281234567890"), "{line}");
    let call: Value = serde_json::from_str(&unread.line()).unwrap();
    assert_eq!(call["reason"], "from-missing");
    // The caller writes the Call-ID: nothing of it moves the cursor (U+009B is a terminal's CSI).
    let odd = message::invite(BLOCKED, "odd\u{9b}2J@x");
    lab.sender().send(5060, odd.as_bytes()).unwrap();
    let line = refused.line();
    assert!(line.contains("odd\u{fffd}2J@x"), "{line:?}");
    let mut unread = unread;
    eventually("it ends after one", || unread.child.try_wait().unwrap().is_some());
    assert_eq!(unread.child.wait().unwrap().code(), Some(0));
    assert!(refused.lines.try_recv().is_err(), "only refused ones");
}

/// Returns a field of each frame of a capture, as tshark reads it.
fn tshark(file: &Path, field: &str) -> Vec<String> {
    let output =
        run::must(Command::new("tshark").arg("-r").arg(file).args(["-T", "fields", "-e", field]));
    output.lines().map(str::to_owned).collect()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn refused_invites_are_captured_while_a_monitor_runs() {
    let lab = Lab::new("monitor-write");
    let gate = Gate::start(&lab, "");
    gate.does(&["block", "add", BLOCKED, "--for", "1h", "--reason", "prank"]);
    let file = gate.daemon.folder().join("refused.pcapng");
    let path = file.to_str().unwrap();

    let (mut monitor, first) = Monitor::start(&gate, &["--write", path, "--count", "4"]);
    assert!(first.ends_with("0 INVITEs not kept"), "{first}");
    assert_eq!(gate.last("evidence watch").unwrap()["author"], "root");
    let mut refused = Vec::new();
    for _ in 0..3 {
        assert!(gate.passes(FREE));
        let call = gate.call(BLOCKED);
        assert_eq!(call.arrived_at, None);
        refused.push(call.call_id);
    }
    eventually("it ends after what was asked for", || monitor.child.try_wait().unwrap().is_some());
    assert_eq!(monitor.child.wait().unwrap().code(), Some(0));
    let written = tshark(&file, "sip.Call-ID");
    assert!(!written.is_empty() && refused.starts_with(&written), "{written:?} of {refused:?}");
    assert!(written.len() >= 2, "four attempts, two of them refused: {written:?}");
    for user in tshark(&file, "sip.from.user") {
        assert_eq!(user, BLOCKED);
    }
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(gate.fails(2, &["monitor", "--write", path]).contains("already"));

    // The gate judges them as it did.
    let policy = gate.daemon.folder().join("policy.toml");
    let text = format!("mode = \"enforce\"\n[[block]]\nnumber = \"{BLOCKED}\"\npermanent = true\n");
    fs::write(&policy, text).unwrap();
    let arguments = ["replay", path, "--policy", policy.to_str().unwrap(), "-o", "json"];
    let replayed = gate.daemon.cli(&arguments);
    assert_eq!(replayed.code, 0, "{replayed:?}");
    let lines = replayed.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let refused = lines.filter(|line| line["reason"] == "blocked-number").count();
    assert_eq!(refused, written.len(), "{replayed:?}");

    // Nobody looks any more, and nothing is kept.
    let folder = gate.map_folder();
    let switch = EvidenceSwitch::open(&folder).unwrap();
    eventually("the kernel keeps none", || {
        let kept = switch.stats().unwrap().kept;
        assert!(!gate.passes(BLOCKED));
        switch.stats().unwrap().kept == kept
    });
    let shown = gate.rows(&["calls", "--caller", BLOCKED]);
    let id = shown.last().unwrap()["id"].to_string();
    assert_eq!(gate.does(&["calls", "show", &id])["evidence"], Value::Null, "none is stored");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn capture_file_stops_at_its_limit_and_the_monitor_goes_on() {
    let lab = Lab::new("monitor-bound");
    let gate = Gate::start(&lab, "");
    gate.does(&["block", "add", BLOCKED, "--for", "1h", "--reason", "prank"]);
    let file = gate.daemon.folder().join("refused.pcapng");
    let arguments = ["-t", "refuse", "--write", file.to_str().unwrap(), "--max-count", "2"];
    let said = gate.daemon.folder().join("said");
    let (monitor, _) =
        Monitor::start_saying(&gate, &arguments, fs::File::create(&said).unwrap().into());
    for _ in 0..5 {
        assert!(!gate.passes(BLOCKED));
    }
    let shown = (0..20).map(|_| monitor.line()).filter(|line| line.contains("drop")).take(5);
    assert_eq!(shown.count(), 5, "it goes on showing");
    eventually("it says so", || fs::read_to_string(&said).unwrap().contains("2 INVITEs; no more"));
    assert_eq!(tshark(&file, "sip.Method"), ["INVITE"; 2]);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn monitor_ends_with_the_daemon_and_says_so() {
    let lab = Lab::new("monitor-end");
    let mut gate = Gate::start(&lab, "");
    let (mut monitor, _) = Monitor::start(&gate, &[]);
    gate.daemon.kill();
    eventually("it ends", || monitor.child.try_wait().unwrap().is_some());
    assert_ne!(monitor.child.wait().unwrap().code(), Some(0));
    let nobody = gate.daemon.cli(&["monitor"]);
    assert_eq!(nobody.code, 3, "{nobody:?}");
}
