//! `palang monitor`: what is judged, while it is judged.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use palang_tests::lab::{Lab, message};
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
        let mut command = gate.daemon.command(&[&["monitor"], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
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

#[test]
fn each_attempt_is_a_line_and_types_choose() {
    let lab = Lab::new("monitor");
    let gate = Gate::start(&lab, "[redial]\nattempts = 0");
    gate.does(&["block", "add", BLOCKED, "--for", "1h", "--reason", "prank"]);
    let (all, first) = Monitor::start(&gate, &["-o", "json"]);
    let lost: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(lost["lost"], serde_json::json!({ "refused": 0, "passed": 0, "missed": 0 }));
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
    // Whoever calls writes the Call-ID: nothing of it moves the cursor (U+009B is a terminal's CSI).
    let odd = message::invite(BLOCKED, "odd\u{9b}2J@x");
    lab.sender().send(5060, odd.as_bytes()).unwrap();
    let line = refused.line();
    assert!(line.contains("odd\u{fffd}2J@x"), "{line:?}");
    let mut unread = unread;
    eventually("it ends after one", || unread.child.try_wait().unwrap().is_some());
    assert_eq!(unread.child.wait().unwrap().code(), Some(0));
    assert!(refused.lines.try_recv().is_err(), "only refused ones");
}

#[test]
fn it_ends_with_the_daemon_and_says_so() {
    let lab = Lab::new("monitor-end");
    let mut gate = Gate::start(&lab, "");
    let (mut monitor, _) = Monitor::start(&gate, &[]);
    gate.daemon.kill();
    eventually("it ends", || monitor.child.try_wait().unwrap().is_some());
    assert_ne!(monitor.child.wait().unwrap().code(), Some(0));
    let nobody = gate.daemon.cli(&["monitor"]);
    assert_eq!(nobody.code, 3, "{nobody:?}");
}
