//! Numbers that are never blocked, and allows of a live incident: daemon, CLI and kernel.

use std::fs;

use filter_common::abi::{Block, Verdict};
use palang_tests::lab::{Lab, message};
use serde_json::{Value, json};

use crate::gate::{Gate, eventually, subject};

const BLOCKED: &str = "0812-0000-0001";
const OTHER: &str = "+6281300000001";

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn block_of_a_protected_or_short_number_is_refused_and_ignored_in_the_map() {
    let lab = Lab::new("never-blocked");
    let mut gate = Gate::start(
        &lab,
        "protected = [\"112\", { number = \"+62431*\", name = \"RSUP Manado\" }]",
    );
    let head = gate.head();
    let short = [
        ("+62431555123", "protects 62431* (RSUP Manado)"),
        ("+266696687", "protects 266696687 (placeholder ANONYMOUS), which carriers send"),
        ("1669", "fewer than 5 digits are protected ([limits] shortest_number)"),
        ("+6281*", "a prefix must have at least 5 digits ([limits] shortest_prefix)"),
    ];
    let file = gate.daemon.folder().join("blocks.csv");
    let import = ["block", "import", file.to_str().unwrap()];
    for (number, rule) in short {
        let said = gate.fails(5, &["block", "add", number, "--for", "1h", "--reason", "prank"]);
        assert!(said.contains(rule), "{number}: {said}");
        let row = format!("number,expires,reason\n{number},2099-01-01T00:00:00Z,prank\n");
        fs::write(&file, row).unwrap();
        let said = gate.fails(5, &import);
        assert!(said.contains("line 2: ") && said.contains(rule), "{number}: {said}");
    }
    assert_eq!(gate.head(), head, "nothing was stored");

    // In the map all the same.
    for number in ["+62431555123", "1669", "+6281*", "14045"] {
        let subject = subject(number);
        let block = Block {
            number: subject.raw(),
            rule: 1 << 40,
            action: Verdict::Drop as u8,
            ..Block::default()
        };
        gate.maps().set_block(subject, block).unwrap();
    }
    gate.daemon.kill();
    for (number, passes) in
        [("0431 555 123", true), ("1669", true), ("+6281300000001", true), ("14045", false)]
    {
        assert_eq!(gate.passes(number), passes, "{number}");
    }
    gate.daemon.start_again();

    // A limit that is lifted later lets nothing slip, one that comes later holds at once.
    gate.daemon.configure("[limits]\nshortest_number = 0\nshortest_prefix = 0");
    gate.daemon.signal("HUP");
    crate::gate::eventually("the limits are gone", || {
        gate.daemon.cli(&["block", "add", "+6281*", "--for", "1h", "--reason", "x"]).code == 0
    });
    gate.does(&["block", "add", "1669", "--for", "1h", "--reason", "x"]);
    assert!(!gate.passes(OTHER) && !gate.passes("1669"));
    gate.daemon.configure("");
    gate.daemon.signal("HUP");
    crate::gate::eventually("the limits are back", || gate.passes(OTHER) && gate.passes("1669"));
    let explained = gate.does(&["explain", OTHER]);
    let steps = explained["steps"].as_array().unwrap();
    let of = |name: &str| steps.iter().find(|step| step["step"] == name).unwrap()["kernel"].clone();
    let prefix = of("blocked-prefix");
    assert!(prefix.as_str().unwrap().contains("never in force"), "{explained}");
    let check = gate.does(&["check", "1669"]);
    assert_eq!(check["rule"], "protected fewer than 5 digits");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn allows_of_an_incident_end_together() {
    let lab = Lab::new("incident");
    let mut gate = Gate::start(&lab, "");
    for number in [BLOCKED, OTHER] {
        gate.does(&["block", "add", number, "--for", "1h", "--reason", "prank"]);
    }
    let incident = ["--for", "1h", "--incident", "2026-118"];
    let added = gate.does(&[&["allow", "add", BLOCKED], &incident[..]].concat());
    assert_eq!(
        (&added["change"], &added["now"]["incident"]),
        (&json!("added"), &json!("2026-118"))
    );
    gate.does(&[&["allow", "add", "+62813*"], &incident[..]].concat());
    gate.does(&["allow", "add", "+6281400000001", "--comment", "fire brigade"]);
    assert_eq!(gate.last("allow add").unwrap()["incident"], Value::Null);
    // A longer allow is not cut short.
    let stays = gate.does(&[&["allow", "add", "+6281400000001"], &incident[..]].concat());
    assert_eq!((&stays["change"], &stays["now"]["expires"]), (&json!("unchanged"), &Value::Null));
    assert!(stays["notes"][0].as_str().unwrap().contains("lasts longer"), "{stays}");
    // By hand, without the daemon.
    gate.daemon.kill();
    let stays = gate.does_by_hand(&[&["allow", "add", "+6281400000001"], &incident[..]].concat());
    assert_eq!(stays["change"], "unchanged");
    gate.does_by_hand(&[&["allow", "add", "+6281500000001"], &incident[..]].concat());
    assert!(gate.passes(BLOCKED) && gate.passes(OTHER));
    gate.daemon.start_again();

    let of = gate.rows(&["allow", "list", "--incident", "2026-118"]);
    let numbers: Vec<_> = of.iter().map(|allow| allow["number"].as_str().unwrap()).collect();
    assert_eq!(numbers, ["6281200000001", "6281500000001", "62813*"]);
    assert_eq!(gate.rows(&["allow", "list", "--incident", "2026-11"]), [Value::Null; 0]);
    let explained = gate.does(&["explain", BLOCKED]).to_string();
    assert!(explained.contains("for incident 2026-118"), "{explained}");

    let end = ["allow", "remove", "--incident", "2026-118"];
    let told = gate.does(&[&end[..], &["--dry-run"]].concat());
    assert_eq!(told["removed"].as_array().unwrap().len(), 3);
    assert!(gate.passes(BLOCKED));
    assert_eq!(gate.does(&end)["removed"].as_array().unwrap().len(), 3);
    assert_eq!(gate.last("allow remove").unwrap()["incident"], "2026-118");
    assert!(!gate.passes(BLOCKED) && !gate.passes(OTHER));
    let left = gate.rows(&["allow", "list"]);
    assert_eq!((left.len(), &left[0]["number"]), (1, &json!("6281400000001")));
    gate.fails(4, &end);
    gate.fails(2, &["allow", "add", BLOCKED, "--incident", " "]);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn block_of_a_number_that_many_machines_send_gets_a_note() {
    let lab = Lab::new("shared-number");
    let gate = Gate::start(&lab, "");
    let sender = lab.sender();
    let call = |number: &str, call_id: &str| {
        sender.send(5060, message::invite(number, call_id).as_bytes()).unwrap();
    };
    for machine in 0..5 {
        call("+6281200000001", &format!("{machine}@ue{machine}.example"));
        call(OTHER, &format!("other-{machine}@ue.example"));
    }
    let calls = |number| gate.rows(&["calls", "--caller", number]).len();
    eventually("the calls have records", || calls(BLOCKED) == 5 && calls(OTHER) == 5);
    let notes = |number, dry_run: &[&str]| {
        let block = ["block", "add", number, "--for", "1h", "--reason", "prank"];
        gate.does(&[&block, dry_run].concat())["notes"].clone()
    };
    for dry_run in [&["--dry-run"][..], &[]] {
        let noted = notes(BLOCKED, dry_run);
        assert!(noted[0].as_str().unwrap().contains("from 5 machines"), "{noted}");
        assert_eq!(notes(OTHER, dry_run), json!([]));
    }
    assert_eq!(gate.passing(&["+6281200000001", OTHER]), [""; 0], "the blocks are in force");
    let callers = "callers of 62812* in the last 7 days: 1, and their calls: 5";
    assert_eq!(notes("+62812*", &["--dry-run"]), json!([callers]));
}
