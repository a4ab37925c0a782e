//! Blocks, allows, override and mode: what was asked for is what real packets meet, and what
//! every answer says, also after a kill.

use std::collections::BTreeMap;
use std::fs;

use filter_common::abi::AttemptKey;
use filter_common::bytes::Slice;
use filter_common::sip::message::call_id_hash;
use palang::datapath::{Pins, walk_blocks};
use palang::model::policy::Subject;
use palang_tests::lab::{Daemon, Lab, message};
use serde_json::{Value, json};

use crate::gate::{Gate, eventually, subject};
use crate::preload::Clock;

const BLOCKED: &str = "+6281200000001";
const FREE: &str = "+6281200000009";

/// Blocks a number or prefix for a day.
fn block(gate: &Gate, number: &str) -> Value {
    gate.does(&["block", "add", number, "--for", "24h", "--reason", "prank"])
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn allow_lets_a_blocked_number_pass_until_it_is_removed() {
    let lab = Lab::new("allow");
    let mut gate = Gate::start(&lab, "");
    let (exact, other) = ("+6281300000001", "+6281300000002");
    let (covered, covered_too) = ("+6281400000001", "+6281400000002");
    let callers = [BLOCKED, FREE, exact, other, covered, covered_too];
    assert_eq!(gate.passing(&callers), callers);

    block(&gate, BLOCKED);
    block(&gate, "+62813*");
    block(&gate, covered);
    assert_eq!(gate.passing(&callers), [FREE, covered_too]);

    let added = gate.does(&["allow", "add", BLOCKED, "--comment", "he is in need"]);
    assert_eq!(added["change"], "added");
    assert_eq!(added["in_force"]["verdict"], "pass");
    assert_eq!(added["in_force"]["rule"], "allow 6281200000001");
    let note = "the block against 6281200000001 remains, without effect";
    assert_eq!(added["notes"], json!([note]));
    gate.does(&["allow", "add", exact]);
    gate.does(&["allow", "add", "+62814*"]);
    let all_but_one = [BLOCKED, FREE, exact, covered, covered_too];
    assert_eq!(gate.passing(&callers), all_but_one);
    gate.kill_and_start();
    assert_eq!(gate.passing(&callers), all_but_one);

    for allow in [BLOCKED, exact, "+62814*"] {
        assert_eq!(gate.does(&["allow", "remove", allow])["change"], "removed");
    }
    assert_eq!(gate.passing(&callers), [FREE, covered_too]);
    gate.kill_and_start();
    assert_eq!(gate.passing(&callers), [FREE, covered_too]);
    assert_eq!(gate.rows(&["allow", "list"]), [Value::Null; 0]);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn an_allow_that_ends_leaves_the_block_in_force() {
    let lab = Lab::new("allow-ends");
    let mut gate = Gate::start(&lab, "");
    block(&gate, BLOCKED);
    block(&gate, "+62813*");
    let callers = [BLOCKED, "+6281300000001"];
    gate.does(&["allow", "add", BLOCKED, "--for", "6s"]);
    gate.does(&["allow", "add", "+62813*", "--for", "6s"]);
    assert_eq!(gate.passing(&callers), callers);
    let ends = gate.kernel_allow(BLOCKED).unwrap().expires;
    gate.daemon.kill();
    // The kernel ends it by itself.
    eventually("the allows end", || gate.passing(&callers).is_empty());
    assert!(palang::sys::clock::boot() >= ends);
    gate.daemon.start_again();
    assert!(gate.passing(&callers).is_empty());
    eventually("they are out of the store", || gate.rows(&["allow", "list"]).is_empty());
    eventually("and out of the map", || gate.maps().pass_maps().allows().unwrap().is_empty());
    assert!(gate.last("allow adopt").is_none(), "{:?}", gate.audit());

    // A restart in between changes nothing of the end.
    gate.does(&["allow", "add", BLOCKED, "--for", "1h"]);
    let before = gate.kernel_allow(BLOCKED).unwrap();
    gate.kill_and_start();
    assert_eq!(gate.kernel_allow(BLOCKED), Some(before));
    assert!(gate.passes(BLOCKED));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn protected_or_allowed_number_is_not_blocked() {
    let lab = Lab::new("protected");
    let gate = Gate::start(&lab, "protected = [\"110\", \"+62431*\"]");
    gate.does(&["allow", "add", "+6281200000001", "--comment", "fire brigade"]);
    gate.does(&["allow", "add", "+62815*"]);
    let head = gate.head();
    for (number, rule) in [
        ("110", "the configuration protects 110"),
        ("+62431555123", "the configuration protects 62431*"),
        ("+624315*", "the configuration protects 62431*"),
        ("0812-0000-0001", "an allow for 6281200000001"),
        ("+6281500000001", "an allow for 62815*"),
        ("+628155*", "an allow for 62815*"),
    ] {
        let add = ["block", "add", number, "--for", "1h", "--reason", "prank"];
        let said = gate.fails(5, &add);
        assert!(said.contains(rule), "{number}: {said}");
        let said = gate.fails(5, &[&add[..], &["--dry-run"]].concat());
        assert!(said.contains(rule), "{number}: {said}");
    }
    let said = gate.fails(5, &["block", "add", BLOCKED, "--for", "1h", "--reason", "prank"]);
    assert!(said.contains("by root: fire brigade"), "{said}");
    assert_eq!(gate.head(), head);
    assert_eq!(gate.rows(&["block", "list"]), [Value::Null; 0]);

    let file = gate.daemon.folder().join("blocks.csv");
    let import = ["block", "import", file.to_str().unwrap()];
    let good = "+6281600000001,2099-01-01T00:00:00Z,prank";
    fs::write(
        &file,
        format!(
            "number,expires,reason\n{good}\n110,2099-01-01T00:00:00Z,prank\n\
             0812-0000-0001,2099-01-01T00:00:00Z,prank\n+628150001,2099-01-01T00:00:00Z,prank\n\
             0812-CALL-ME,2099-01-01T00:00:00Z,prank\n+6281600000002,2001-01-01T00:00:00Z,prank\n"
        ),
    )
    .unwrap();
    let said = gate.fails(2, &import);
    for line in [
        "line 3: 110 is never blocked: the configuration protects 110",
        "line 4: 6281200000001 is not blocked: there is an allow for 6281200000001",
        "line 5: 628150001 is not blocked: there is an allow for 62815*",
        "line 6: \"0812-CALL-ME\" has letters",
        "line 7: it is over already",
    ] {
        assert!(said.contains(line), "{said}");
    }
    assert!(!said.contains("line 2"), "{said}");
    assert_eq!(gate.head(), head, "half an import");
    assert!(gate.passes("+6281600000001"));

    let output = gate.daemon.cli(&[&import[..], &["--skip-bad", "-o", "json"]].concat());
    assert_eq!(output.code, 6, "{output:?}");
    let imported: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(imported["added"], 1);
    assert_eq!(imported["bad"].as_array().unwrap().len(), 5);
    let callers = ["110", BLOCKED, "+6281500000001", "+6281600000001", "+6281600000002"];
    let passing = ["110", BLOCKED, "+6281500000001", "+6281600000002"];
    assert_eq!(gate.passing(&callers), passing);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn block_added_again_is_updated() {
    let lab = Lab::new("moved");
    let mut gate = Gate::start(&lab, "");
    let add = |time, reason| ["block", "add", BLOCKED, "--until", time, "--reason", reason];
    let first = gate.does(&add("2098-01-01T00:00:00Z", "prank"));
    assert_eq!((&first["change"], &first["before"]), (&json!("added"), &Value::Null));
    assert_eq!(first["in_force"]["verdict"], "drop");

    let moved = gate.does(&add("2099-01-01T00:00:00Z", "prank"));
    assert_eq!(moved["change"], "updated");
    assert_eq!(moved["before"]["expires"], "2098-01-01T00:00:00Z");
    assert_eq!(moved["now"]["expires"], "2099-01-01T00:00:00Z");
    assert_eq!(moved["now"]["id"], first["now"]["id"], "the same decision");
    assert_eq!(moved["now"]["rule"], gate.kernel_block(BLOCKED).unwrap().rule);
    let told = gate.daemon.cli(&add("2099-01-02T00:00:00Z", "again")).stdout;
    assert!(told.contains("updated: was until 2099-01-01"), "{told}");
    assert_eq!(gate.rows(&["block", "list"]).len(), 1);
    assert_eq!(gate.last("block move").unwrap()["before"], "2099-01-01T00:00:00Z");

    let head = gate.head();
    let same = gate.does(&add("2099-01-02T00:00:00Z", "again"));
    assert_eq!((&same["change"], gate.head()), (&json!("unchanged"), head.clone()));
    let said = gate.fails(5, &[&add("2097-01-01T00:00:00Z", "x")[..], &["--if-absent"]].concat());
    assert!(said.contains("block 6281200000001 is blocked already"), "{said}");
    assert_eq!(gate.head(), head);
    gate.kill_and_start();
    assert_eq!(gate.does(&["block", "show", BLOCKED])["expires"], "2099-01-02T00:00:00Z");
    assert!(!gate.passes(BLOCKED));

    assert_eq!(gate.does(&["block", "remove", BLOCKED])["change"], "removed");
    assert!(gate.passes(BLOCKED));
    assert_eq!(gate.kernel_block(BLOCKED), None);
    gate.kill_and_start();
    assert!(gate.passes(BLOCKED));

    let head = gate.head();
    block(&gate, "+62813*");
    for gone in [
        &["block", "remove", BLOCKED][..],
        &["block", "show", BLOCKED],
        &["block", "remove", "+6281300000001"],
        &["allow", "remove", BLOCKED],
        &["detach", "gate7"],
    ] {
        gate.fails(4, gone);
    }
    gate.does(&["block", "remove", "+62813*"]);
    assert_eq!(gate.audit().len() as u64, number(&head) + 2);
}

/// Returns the number of an audit row, of `17:ab…`.
fn number(head: &str) -> u64 {
    head.split_once(':').unwrap().0.parse().unwrap()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn override_in_force_lets_every_call_pass() {
    let lab = Lab::new("override");
    let mut gate = Gate::start(&lab, "");
    block(&gate, BLOCKED);
    assert!(!gate.passes(BLOCKED));
    let on = ["override", "on", "--for", "1h", "--reason", "flood"];
    let answer = gate.does(&on);
    assert_eq!((&answer["reason"], &answer["persisted"]), (&json!("flood"), &json!("yes")));
    assert!(gate.passes(BLOCKED));
    let until = gate.maps().pass_maps().override_until().unwrap();
    gate.kill_and_start();
    assert!(gate.passes(BLOCKED));
    assert_eq!(gate.maps().pass_maps().override_until().unwrap(), until);
    let status = gate.does(&["override", "status"]);
    assert_eq!((&status["reason"], &status["author"]), (&json!("flood"), &json!("root")));
    assert!(gate.findings().iter().any(|finding| finding.starts_with("amber: override")));
    let check = gate.does(&["check", BLOCKED]);
    assert_eq!((&check["policy_verdict"], &check["reason"]), (&json!("drop"), &json!("override")));

    gate.does(&["override", "off"]);
    assert!(!gate.passes(BLOCKED));
    gate.kill_and_start();
    assert!(!gate.passes(BLOCKED));
    assert_eq!(gate.does(&["override", "status"])["until"], Value::Null);

    gate.does(&["override", "on", "--for", "5s", "--reason", "flood"]);
    assert!(gate.passes(BLOCKED));
    gate.kill_and_start();
    eventually("the override ends", || !gate.passes(BLOCKED));
    gate.kill_and_start();
    assert!(!gate.passes(BLOCKED));
    assert_eq!(gate.does(&["override", "status"])["until"], Value::Null);

    gate.fails(2, &["override", "on", "--for", "8d", "--reason", "flood"]);
    gate.fails(2, &["override", "on", "--for", "1h", "--reason", " "]);
    let own = ["mode enforce", "block add", "override on", "override off", "override on"];
    let expected = [&own[..], &["override ended"]].concat();
    eventually("the end is in the audit, and nothing was adopted", || {
        let actions: Vec<_> = gate.audit().iter().map(|record| record["action"].clone()).collect();
        actions == expected
    });
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn mode_observe_judges_calls_and_refuses_none() {
    let lab = Lab::new("observe");
    let mut gate = Gate::of(&lab, palang_tests::lab::Daemon::start(&lab, ""));
    assert_eq!(gate.does(&["mode"])["mode"], "observe", "after installation");
    block(&gate, BLOCKED);
    let call = gate.call(BLOCKED);
    assert!(call.arrived_at.is_some());
    let mut record = Vec::new();
    eventually("the call is recorded", || {
        record = gate.rows(&["calls", "--call-id", &call.call_id]);
        !record.is_empty()
    });
    let [record] = &record[..] else { panic!("{record:?}") };
    assert_eq!((&record["verdict"], &record["policy_verdict"]), (&json!("pass"), &json!("drop")));
    assert_eq!(record["reason"], "observe");
    gate.kill_and_start();
    assert!(gate.passes(BLOCKED));

    gate.does(&["mode", "enforce"]);
    assert!(!gate.passes(BLOCKED));
    gate.kill_and_start();
    assert!(!gate.passes(BLOCKED));
    assert_eq!(gate.does(&["mode"]), {
        json!({"mode": "enforce", "until": null, "ended": null, "persisted": "yes", "dry_run": false})
    });
    gate.does(&["mode", "observe"]);
    assert!(gate.passes(BLOCKED));
    gate.kill_and_start();
    assert!(gate.passes(BLOCKED));

    gate.does(&["mode", "enforce", "--for", "4s"]);
    assert!(!gate.passes(BLOCKED));
    gate.daemon.kill();
    eventually("enforce ends", || gate.passes(BLOCKED));
    gate.daemon.start_again();
    assert!(gate.passes(BLOCKED));
    assert_eq!(gate.does(&["mode"])["mode"], "observe");
    gate.does(&["mode", "enforce", "--for", "2s"]);
    eventually("enforce ends", || gate.passes(BLOCKED));
    assert_eq!(gate.does(&["mode"])["mode"], "observe");

    // One block that only observes.
    gate.does(&["mode", "enforce"]);
    let add = ["block", "add", "+6281300000001", "--for", "1h", "--reason", "prank", "--observe"];
    gate.does(&add);
    assert!(gate.passes("+6281300000001"));
    assert_eq!(gate.does(&["check", "+6281300000001"])["policy_verdict"], "drop");
    gate.kill_and_start();
    assert!(gate.passes("+6281300000001") && !gate.passes(BLOCKED));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn check_and_explain_show_the_verdict_of_the_kernel() {
    let lab = Lab::new("explain");
    let mut gate = Gate::start(&lab, "protected = [\"110\"]");
    let until = ["--until", "2099-01-01T00:00:00Z"];
    gate.does(&[&["block", "add", BLOCKED, "--reason", "case 118"], &until[..]].concat());
    block(&gate, "+62813*");
    gate.does(&["allow", "add", "+6281300000001", "--comment", "he is in need"]);
    gate.kill_and_start();

    for command in ["show", "remove"] {
        let output = gate.daemon.cli(&["block", command, "0813-0000-0002"]);
        assert_eq!(output.code, 4, "{output:?}");
        assert!(output.stderr.contains("but that of 62813* covers it"), "{output:?}");
    }
    for (number, code, reason, rule) in [
        (BLOCKED, 10, "blocked-number", json!("block 6281200000001")),
        ("0813-0000-0002", 10, "blocked-prefix", json!("block 62813*")),
        ("0813-0000-0001", 0, "allowed-number", json!("allow 6281300000001")),
        ("110", 0, "protected", json!("protected 110")),
        (FREE, 0, "not-blocked", Value::Null),
    ] {
        let output = gate.daemon.cli(&["check", number, "-o", "json"]);
        assert_eq!(output.code, code, "{number}: {output:?}");
        let check: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!((&check["reason"], &check["rule"]), (&json!(reason), &rule), "{number}");
        let explained = gate.does(&["explain", number]);
        assert_eq!(explained["check"], check);
        let steps = explained["steps"].as_array().unwrap();
        let decides: Vec<_> = steps.iter().filter(|step| step["decides"] == true).collect();
        assert_eq!(decides.len(), usize::from(reason != "not-blocked"), "{explained}");
        assert_eq!(gate.passes(number), code == 0, "{number}");
    }
    let step = |number: &str, name: &str| {
        let explained = gate.does(&["explain", number]);
        let mut steps = explained["steps"].as_array().unwrap().iter();
        let step = steps.find(|step| step["step"] == name).unwrap();
        ["kernel", "store"].map(|side| step[side].as_str().unwrap_or_default().to_owned())
    };
    let [kernel, store] = step(BLOCKED, "blocked-number");
    let rule = gate.kernel_block(BLOCKED).unwrap().rule;
    assert!(
        kernel.starts_with(&format!("rule {rule}, ends 2098-12-31T23:59:"))
            || kernel.starts_with(&format!("rule {rule}, ends 2099-01-01T00:00:0")),
        "{kernel}"
    );
    assert!(
        store == "block 6281200000001 until 2099-01-01T00:00:00Z, by root: case 118",
        "{store}"
    );
    let [kernel, store] = step("+6281300000001", "blocked-prefix");
    assert!(kernel.starts_with("62813*, rule ") && store.contains("prank"), "{kernel}; {store}");
    let [kernel, store] = step("+6281300000001", "allowed-number");
    assert!(kernel.ends_with("no end") && store.ends_with("by root: he is in need"));

    // The answer shows what the kernel holds, also where the store differs.
    gate.maps().remove_block(subject(BLOCKED)).unwrap();
    assert_eq!(step(BLOCKED, "blocked-number"), ["", ""]);
    assert_eq!(gate.daemon.cli(&["check", BLOCKED]).code, 0);
    gate.fails(2, &["check", "0812-CALL-ME"]);
    gate.fails(2, &["explain", "+62813*"]);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_dry_run_changes_nothing() {
    let lab = Lab::new("dry-run");
    let gate = Gate::start(&lab, "");
    block(&gate, BLOCKED);
    gate.does(&["allow", "add", "+6281300000001"]);
    gate.does(&["override", "on", "--for", "1h", "--reason", "flood"]);
    let file = gate.daemon.folder().join("blocks.csv");
    fs::write(&file, "number,expires,reason\n+628160001,2099-01-01T00:00:00Z,prank\n").unwrap();
    let before = everything(&gate);
    for command in [
        &["block", "add", "+6281600000001", "--for", "1h", "--reason", "prank"][..],
        &["block", "add", BLOCKED, "--for", "1h", "--reason", "prank"],
        &["block", "remove", BLOCKED],
        &["allow", "add", "+6281400000001"],
        &["allow", "add", "+6281300000001", "--for", "1h"],
        &["allow", "remove", "+6281300000001"],
        &["override", "on", "--for", "2h", "--reason", "quake"],
        &["override", "off"],
        &["mode", "observe"],
        &["mode", "enforce", "--for", "1h"],
        &["block", "import", file.to_str().unwrap()],
    ] {
        let answer = gate.does(&[command, &["--dry-run"]].concat());
        assert_eq!(answer["dry_run"], true, "{command:?}");
        assert_eq!(everything(&gate), before, "{command:?}");
        let told = gate.daemon.cli(&[command, &["--dry-run"]].concat());
        assert!(told.stdout.starts_with("dry run, nothing was changed"), "{told:?}");
        assert_eq!(everything(&gate), before, "{command:?}");
    }
    for command in [["detach", "gate0"], ["attach", "gate0"]] {
        gate.does(&[&command[..], &["--dry-run"]].concat());
        assert_eq!(everything(&gate), before, "{command:?}");
    }
}

/// Returns everything that a command can change.
fn everything(gate: &Gate) -> BTreeMap<String, String> {
    let maps = gate.maps();
    let pins = Pins::new(gate.daemon.pins());
    let mut all = BTreeMap::new();
    let mut note = |what: &str, is: String| assert!(all.insert(what.to_owned(), is).is_none());
    note("audit", gate.head());
    note("override", maps.pass_maps().override_until().unwrap().to_string());
    note("settings", format!("{:?}", maps.settings().unwrap()));
    for (subject, allow) in maps.pass_maps().allows().unwrap() {
        note(&format!("allow {subject}"), format!("{allow:?}"));
    }
    walk_blocks(&pins.map_folders()[0], u64::MAX, |subject, block| {
        note(&format!("block {subject}"), format!("{block:?}"));
        Ok(())
    })
    .unwrap();
    note("links", format!("{:?}", pins.links()));
    note("interfaces", gate.does(&["status"])["interfaces"].to_string());
    for list in ["block", "allow"] {
        note(list, format!("{:?}", gate.rows(&[list, "list"])));
    }
    all
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn number_with_letters_is_refused_by_every_command() {
    let lab = Lab::new("letters");
    let gate = Gate::start(&lab, "");
    let head = gate.head();
    for number in ["3367a829916", "0812-CALL-ME", "+62812O0000001", "0812 3456 ext 5", "62812x*"] {
        for command in [
            &["block", "add", number, "--for", "1h", "--reason", "prank"][..],
            &["block", "remove", number],
            &["allow", "add", number],
            &["allow", "remove", number],
            &["check", number],
            &["explain", number],
        ] {
            let said = gate.fails(2, command);
            assert!(said.contains("has letters"), "{command:?}: {said}");
        }
    }
    assert_eq!(gate.head(), head);
    assert_eq!(gate.rows(&["allow", "list"]), [Value::Null; 0]);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn export_of_blocks_can_be_imported() {
    let lab = Lab::new("export");
    let gate = Gate::start(&lab, "[limits]\nshortest_number = 0");
    block(&gate, BLOCKED);
    let comma = "prank, \"case\" 118\nsecond line";
    gate.does(&["block", "add", "+62813*", "--permanent", "--reason", comma]);
    gate.does(&["block", "add", "110", "--for", "1h", "--reason", "ünïcode", "--observe"]);
    let rows = |gate: &Gate| {
        let mut rows = gate.rows(&["block", "list"]);
        for row in &mut rows {
            // A decision is made again; the rest is kept.
            let row = row.as_object_mut().unwrap();
            for made in ["id", "rule", "created"] {
                assert!(row.remove(made).is_some());
            }
        }
        rows
    };
    let before = rows(&gate);
    assert_eq!(before.len(), 3);
    let callers = [BLOCKED, "+6281300000001", "110", FREE];
    for name in ["blocks.csv", "blocks.json"] {
        let file = gate.daemon.folder().join(name);
        let file = file.to_str().unwrap();
        assert_eq!(gate.does(&["block", "export", file])["rows"], 3);
        let again = gate.does(&["block", "import", file]);
        assert_eq!(again["unchanged"], 3, "{again}");
        for number in [BLOCKED, "+62813*", "110"] {
            gate.does(&["block", "remove", number]);
        }
        assert_eq!(gate.passing(&callers), callers);
        let imported = gate.does(&["block", "import", file]);
        assert_eq!((&imported["added"], &imported["bad"]), (&json!(3), &json!([])));
        assert_eq!(rows(&gate), before);
        assert_eq!(gate.passing(&callers), ["110", FREE]);
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn call_of_each_verdict_is_recorded() {
    let lab = Lab::new("calls");
    let mut gate = Gate::start(&lab, "");
    block(&gate, BLOCKED);
    let rule = gate.kernel_block(BLOCKED).unwrap().rule;
    let refused = gate.call(BLOCKED);
    let passed = gate.call(FREE);
    let unread = gate.call("anonymous");
    // Until a record is on disk, the kernel's ring has it; a daemon that dies takes what it has
    // read and not written.
    let of = |gate: &Gate, call_id: &str| gate.rows(&["calls", "--call-id", call_id]);
    for call in [&refused, &passed, &unread] {
        eventually("the call is recorded", || of(&gate, &call.call_id).len() == 1);
    }
    gate.daemon.kill();
    let while_dead = gate.call(BLOCKED);
    gate.daemon.start_again();
    eventually("the call is recorded", || of(&gate, &while_dead.call_id).len() == 1);
    for (call, number, verdict, reason, rule) in [
        (&refused, json!("6281200000001"), "drop", "blocked-number", rule),
        (&while_dead, json!("6281200000001"), "drop", "blocked-number", rule),
        (&passed, json!("6281200000009"), "pass", "not-blocked", 0),
    ] {
        let row = &of(&gate, &call.call_id)[0];
        assert_eq!(row["caller"], number);
        assert_eq!((&row["verdict"], &row["policy_verdict"]), (&json!(verdict), &json!(verdict)));
        assert_eq!((&row["reason"], &row["rule"]), (&json!(reason), &json!(rule)));
        assert_eq!((&row["identity"], &row["trunk"]), (&json!("from"), &json!("default")));
        assert!(row["source"].as_str().unwrap().starts_with("10.112.0.1:"), "{row}");
        assert_eq!(row["call_id"], call.call_id);
    }
    let row = &of(&gate, &unread.call_id)[0];
    assert_eq!((&row["verdict"], &row["caller"]), (&json!("pass"), &Value::Null));
    assert_eq!(gate.rows(&["calls"]).len(), 4);
    assert_eq!(gate.rows(&["calls", "--caller", "0812-0000-0001"]).len(), 2);
    assert_eq!(gate.rows(&["calls", "--verdict", "pass"]).len(), 2);
    assert_eq!(gate.rows(&["calls", "--limit", "1"]).len(), 1);
}

// How often an attempt was sent is only known when it is over.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn repeats_of_a_call_are_counted() {
    /// Seconds after which the daemon takes an attempt for over, and one more.
    const OVER: i64 = 71;
    let lab = Lab::new("repeats");
    let mut daemon = Daemon::prepare(&lab, "");
    let clock = Clock::of(&mut daemon);
    daemon.start_again();
    let gate = Gate::of(&lab, daemon);
    gate.does(&["mode", "enforce"]);
    block(&gate, BLOCKED);
    let sender = lab.sender();
    let calls = [(BLOCKED, "again@palang", 4), (FREE, "passed@palang", 2)];
    for (caller, call_id, repeats) in calls {
        for _ in 0..=repeats {
            sender.send(5060, message::invite(caller, call_id).as_bytes()).unwrap();
        }
    }
    // The kernel counts at once.
    assert!(gate.passes(FREE));
    for (caller, call_id, repeats) in calls {
        let Subject::Number(number) = subject(caller) else { panic!("no number") };
        let hash = call_id_hash(&Slice::from(call_id.as_bytes()), 0, call_id.len());
        let attempt = gate.maps().attempt(AttemptKey { number, call_id: hash }).unwrap();
        assert_eq!(attempt.unwrap().repeats, repeats, "{call_id}");
    }
    let recorded = |call_id: &str| {
        let rows = gate.rows(&["calls", "--call-id", call_id]);
        let [row] = &rows[..] else { return None };
        row["repeats"].as_u64()
    };
    for (_, call_id, _) in calls {
        eventually("the call is recorded", || recorded(call_id) == Some(0));
    }
    let mut elapsed = 0;
    for (_, call_id, repeats) in calls {
        eventually("the repeats are recorded", || {
            // Another time of an attempt each time: the daemon may have noted it just now.
            elapsed += OVER;
            clock.set_elapsed(elapsed);
            recorded(call_id) == Some(u64::from(repeats))
        });
    }
}
