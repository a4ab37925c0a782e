//! The INVITE of a refused attempt: kept where configured, shown to who may, and gone with its call.

use std::fs;
use std::process::Command;

use palang::api::wire::CallShown;
use palang_tests::lab::{Lab, message, run};
use serde_json::Value;

use crate::gate::{Gate, eventually};

const BLOCKED: &str = "+6281234567890";
const DIGITS: &str = "6281234567890";
const FREE: &str = "+6281234567891";
const CONFIG: &str = "[evidence]\nmax_calls = 3";
/// Each attempt has its own row.
const EACH: &str = "[records]\nper_number = 0";

fn block(gate: &Gate<'_>) {
    gate.does(&["block", "add", BLOCKED, "--for", "1h", "--reason", "prank"]);
}

/// Returns each recorded attempt whole, oldest first, once there are this many.
fn shown(gate: &Gate<'_>, calls: usize) -> Vec<CallShown> {
    eventually("all calls are on record", || gate.rows(&["calls"]).len() == calls);
    let show = |row: &Value| {
        let id = row["id"].to_string();
        serde_json::from_value(gate.does(&["calls", "show", &id])).unwrap()
    };
    gate.rows(&["calls"]).iter().rev().map(show).collect()
}

/// Numbers of the attempts whose INVITE is kept.
fn kept(shown: &[CallShown]) -> Vec<u64> {
    shown.iter().filter(|one| one.evidence.is_some()).map(|one| one.call.id).collect()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn invite_of_a_refused_call_is_kept_exactly_and_erased_with_the_call() {
    let lab = Lab::new("evidence");
    let mut gate = Gate::start(&lab, CONFIG);
    block(&gate);
    // A terminal obeys U+001B and U+009B; the header is the caller's to choose.
    let sent = message::invite(BLOCKED, "1@evidence").replace("Max-", "X: \x1b[2J\u{9b}2J\r\nMax-");
    lab.sender().send(5060, sent.as_bytes()).unwrap();
    assert!(gate.passes(FREE));
    eventually("it is kept", || kept(&shown(&gate, 2)).len() == 1);
    let all = shown(&gate, 2);
    let one = all.iter().find(|one| one.evidence.is_some()).unwrap();
    assert_eq!((one.call.caller.as_deref(), &*one.call.verdict), (Some(DIGITS), "drop"));
    assert_eq!(one.call.call_id.as_deref(), Some("1@evidence"));
    let evidence = one.evidence.as_ref().unwrap();
    assert_eq!(evidence.message, sent);
    assert_eq!(evidence.bytes().unwrap().len(), evidence.frame_len as usize);

    let id = one.call.id.to_string();
    let file = gate.daemon.folder().join("message");
    let mut command = gate.daemon.command(&["calls", "show", &id, "-o", "raw"]);
    let status = command.stdout(fs::File::create(&file).unwrap()).status().unwrap();
    assert!(status.success());
    assert_eq!(fs::read(&file).unwrap(), sent.as_bytes());
    let people = gate.daemon.cli(&["calls", "show", &id]).stdout;
    assert!(people.contains("  X: \u{fffd}[2J\u{fffd}2J\n"), "{people:?}");
    assert!(people.contains("blocked-number") && people.contains("  Call-ID: 1@evidence\n"));
    let passed = all.iter().find(|one| one.evidence.is_none()).unwrap().call.id.to_string();
    assert!(gate.fails(4, &["calls", "show", &passed, "-o", "raw"]).contains("[evidence]"));
    assert!(gate.fails(4, &["calls", "show", "4711"]).contains("no call 4711"));

    // All that is held about the number has it, and it is forgotten with the number.
    let held = gate.does(&["export", "--number", BLOCKED]);
    assert_eq!(held["evidence"][0]["message"], *sent);
    gate.kill_and_start();
    assert_eq!(gate.does(&["calls", "show", &id])["evidence"]["message"], *sent);
    gate.does(&["block", "remove", BLOCKED]);
    gate.does(&["erase", "--number", BLOCKED, "--reason", "asked for, letter 12"]);
    gate.fails(4, &["calls", "show", &id]);
    for file in fs::read_dir(gate.daemon.state()).unwrap() {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap_or_default();
        assert!(!bytes.windows(13).any(|some| some == DIGITS.as_bytes()), "{}", path.display());
    }
    assert!(!gate.daemon.stderr().contains(DIGITS), "no number in the log");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn evidence_keeps_the_newest_invites_only_and_none_when_off() {
    let lab = Lab::new("evidence-room");
    let mut gate = Gate::start(&lab, EACH);
    block(&gate);
    assert!(!gate.passes(BLOCKED));
    assert_eq!(kept(&shown(&gate, 1)), [0; 0], "off unless it is configured");

    gate.daemon.configure(&format!("{CONFIG}\n{EACH}"));
    gate.daemon.signal("HUP");
    eventually("it is read", || gate.last("reload").is_some());
    for _ in 0..5 {
        assert!(!gate.passes(BLOCKED));
    }
    eventually("the newest three are kept", || kept(&shown(&gate, 6)) == [4, 5, 6]);

    // While no daemon runs the kernel keeps them.
    assert_eq!(gate.daemon.stop(), 0);
    assert!(!gate.passes(BLOCKED));
    gate.daemon.start_again();
    eventually("what came meanwhile is kept", || kept(&shown(&gate, 7)) == [5, 6, 7]);

    gate.daemon.configure(EACH);
    gate.daemon.restart();
    assert!(!gate.passes(BLOCKED));
    assert_eq!(kept(&shown(&gate, 8)), [5, 6, 7], "those that were kept stay");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn calls_are_exported_as_csv() {
    let lab = Lab::new("calls-csv");
    let gate = Gate::start(&lab, "");
    block(&gate);
    let formula = message::invite(BLOCKED, "+cmd!A1@x");
    lab.sender().send(5060, formula.as_bytes()).unwrap();
    assert!(gate.passes(FREE));
    eventually("both are on record", || gate.rows(&["calls"]).len() == 2);
    let file = gate.daemon.folder().join("calls.csv");
    let path = file.to_str().unwrap();
    let told = gate.does(&["calls", "export", path]);
    assert_eq!(told["rows"], 2);
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("time,caller,trunk,"), "{text}");
    assert_eq!(lines.len(), 3, "{text}");
    assert!(text.contains(",'+cmd!A1@x,") && !text.contains(",+"), "{text}");
    // Somebody else's reader counts the same cells.
    let count = "import csv,sys;print([len(row) for row in csv.reader(open(sys.argv[1]))])";
    let counted = run::must(Command::new("python3").args(["-c", count, path]));
    assert_eq!(counted.trim(), "[15, 15, 15]");
    let refused = gate.daemon.cli(&["calls", "export", "--verdict", "drop"]);
    assert_eq!(refused.stdout.lines().count(), 2, "{refused:?}");
    let none = gate.daemon.cli(&["calls", "export", "--since", "2099-01-01T00:00:00Z"]);
    assert_eq!(none.stdout.lines().count(), 1, "{none:?}");
}
