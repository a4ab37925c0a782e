//! A reply 302 with a contact: only after a call has shown that the carrier follows it.

use std::process::{Child, Stdio};

use palang_tests::lab::carrier::BLOCKED;
use palang_tests::lab::{Daemon, GATE, Lab, TRUNK, run};

use crate::carriers::{Sipp, counter, does, wait};
use crate::reply_path::{UNIT, send, short, start};

const CONTACT: &str = "sip:announcement@192.0.2.9";

fn trunk(refuse: &str, contact: &str) -> String {
    format!(
        "[[trunk]]\nname = \"carrier\"\nsources = [\"{TRUNK}\"]\nrefuse = \"{refuse}\"\nredirect = \"{contact}\"\n"
    )
}

/// Starts a gate that enforces, whose trunk refuses so.
fn gate<'a>(lab: &'a Lab, refuse: &str) -> Daemon<'a> {
    let mut daemon = Daemon::prepare(lab, &trunk(refuse, CONTACT));
    start(&mut daemon, UNIT);
    does(&daemon, &["mode", "enforce"]);
    daemon
}

fn is_blocked(daemon: &Daemon<'_>) -> bool {
    daemon.cli(&["block", "list", "-o", "raw"]).stdout.contains(BLOCKED.trim_start_matches('+'))
}

/// Begins the test of the trunk, and waits until its number is blocked.
fn begin(daemon: &Daemon<'_>) -> Child {
    let arguments =
        ["selftest", "redirect", "carrier", "--caller", BLOCKED, "--heard", "yes", "-o", "json"];
    let mut command = daemon.command(&arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("palang");
    let mut is_over = || child.try_wait().expect("its state").is_some();
    wait("the block of the test", || is_blocked(daemon) || is_over());
    if is_over() {
        panic!("{:?}", end(child));
    }
    child
}

fn end(child: Child) -> (i32, String) {
    let output = child.wait_with_output().expect("palang");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().expect("a code"), String::from_utf8(text).expect("a text"))
}

fn reload(daemon: &Daemon<'_>, refuse: &str, contact: &str) -> run::Output {
    daemon.configure(&trunk(refuse, contact));
    let file = daemon.config_file().display().to_string();
    let checked = daemon.cli(&["config", "check", &file]);
    daemon.signal("HUP");
    checked
}

fn findings(daemon: &Daemon<'_>) -> String {
    does(daemon, &["status"])["findings"].to_string()
}

fn call(lab: &Lab, daemon: &Daemon<'_>, code: u16, calls: u32) {
    let (from, to) = (TRUNK.to_string(), GATE.to_string());
    Sipp { from: &from, to: &to, ..short() }.run(lab, daemon, code, calls);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn trunk_redirects_only_after_a_passed_test() {
    let lab = Lab::new("redirect");
    let receiver = lab.receiver(5060);
    let mut daemon = gate(&lab, "600");
    let checked = reload(&daemon, "302", CONTACT);
    assert_eq!(checked.code, 2, "{checked:?}");
    assert!(checked.stderr.contains("it was not tested"), "{checked:?}");
    wait("a finding", || findings(&daemon).contains("palang selftest redirect carrier"));
    assert_eq!(does(&daemon, &["status"])["replies"][0]["refuse"], "600");
    assert_eq!(reload(&daemon, "600", CONTACT).code, 0);
    wait("no finding", || findings(&daemon) == "[]");

    let test = begin(&daemon);
    call(&lab, &daemon, 302, 1);
    let (code, text) = end(test);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("\"passed\":true"), "{text}");
    assert!(!is_blocked(&daemon), "the number is free again");
    let audit = daemon.cli(&["audit", "list", "-o", "json"]).stdout;
    assert!(audit.contains("redirect passed") && audit.contains(CONTACT), "{audit}");

    let checked = reload(&daemon, "302", CONTACT);
    assert_eq!(checked.code, 0, "{checked:?}");
    assert!(checked.stdout.contains(&format!("carrier 302 to {CONTACT}")), "{checked:?}");
    wait("a redirection", || does(&daemon, &["status"])["replies"][0]["refuse"] == "302");
    does(&daemon, &["block", "add", BLOCKED, "--for", "1h", "--reason", "a test"]);
    call(&lab, &daemon, 302, 5);
    wait("6 ACKs", || counter(&daemon, "acks") == 6);
    let calls = daemon.cli(&["calls", "-o", "json"]).stdout;
    assert!(calls.lines().all(|line| line.contains("\"reply\":302")), "{calls}");
    assert!(receiver.arrivals().is_empty(), "{:?}", receiver.arrivals());

    // Another contact is another test, also for a daemon that starts: it answers with the usual code.
    let checked = reload(&daemon, "302", "sip:other@192.0.2.9");
    assert_eq!(checked.code, 2, "{checked:?}");
    assert!(checked.stderr.contains("another contact was tested"), "{checked:?}");
    assert_eq!(daemon.stop(), 0);
    start(&mut daemon, UNIT);
    let status = does(&daemon, &["status"]);
    assert_eq!(
        (&status["colour"], &status["replies"][0]["refuse"]),
        (&"amber".into(), &"600".into())
    );
    assert!(findings(&daemon).contains("another contact was tested"), "{status}");
    call(&lab, &daemon, 600, 1);
    assert_eq!(reload(&daemon, "302", CONTACT).code, 0);
    wait("a redirection", || does(&daemon, &["status"])["replies"][0]["refuse"] == "302");
    assert_eq!(findings(&daemon), "[]");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn carrier_that_sends_the_call_another_way_fails_the_test() {
    let lab = Lab::new("reroute");
    let daemon = gate(&lab, "600");
    let test = begin(&daemon);
    send(&lab, "first-leg");
    send(&lab, "second-leg");
    let (code, text) = end(test);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("\"passed\":false") && text.contains("second-leg"), "{text}");
    assert!(!is_blocked(&daemon));
    let checked = reload(&daemon, "302", CONTACT);
    assert!(checked.code == 2 && checked.stderr.contains("failed"), "{checked:?}");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn test_that_is_interrupted_frees_the_number_and_stores_nothing() {
    let lab = Lab::new("interrupted");
    let daemon = gate(&lab, "600");
    let test = begin(&daemon);
    let again =
        daemon.cli(&["selftest", "redirect", "carrier", "--caller", BLOCKED, "--heard", "yes"]);
    assert!(again.code != 0 && again.stderr.contains("blocked already"), "{again:?}");
    run::must(std::process::Command::new("kill").args(["-s", "INT", &test.id().to_string()]));
    let (code, text) = end(test);
    assert_eq!(code, 1, "{text}");
    assert!(!is_blocked(&daemon));
    let audit = daemon.cli(&["audit", "list", "-o", "json"]).stdout;
    assert!(!audit.contains("redirect "), "{audit}");
    // Nothing would be answered with 302.
    does(&daemon, &["mode", "observe"]);
    let refused =
        daemon.cli(&["selftest", "redirect", "carrier", "--caller", BLOCKED, "--heard", "yes"]);
    assert!(refused.code != 0 && refused.stderr.contains("the mode is observe"), "{refused:?}");
    let unknown = daemon
        .cli(&["block", "add", BLOCKED, "--for", "1h", "--reason", "a test", "--refuse", "302"]);
    assert!(
        unknown.stderr.contains("302 is not offered: a carrier has to follow it"),
        "{unknown:?}"
    );
}
