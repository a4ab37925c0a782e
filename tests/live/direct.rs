//! The way out without us: with the daemon dead or hanging, root opens the gate on the kernel's
//! maps, and the daemon learns of it.

use std::fs;
use std::process::Stdio;

use filter_common::abi::{Allow, RULE_DIRECT};
use palang_tests::lab::Lab;
use serde_json::{Value, json};

use crate::gate::{Gate, eventually, subject};

const BLOCKED: &str = "+6281200000001";
const PREFIXED: &str = "+6281300000001";
const CALLERS: [&str; 2] = [BLOCKED, PREFIXED];

/// Starts a gate that refuses [`CALLERS`].
fn refusing(lab: &Lab) -> Gate<'_> {
    let gate = Gate::start(lab, "");
    for number in [BLOCKED, "+62813*"] {
        gate.does(&["block", "add", number, "--for", "24h", "--reason", "prank"]);
    }
    assert!(gate.passing(&CALLERS).is_empty());
    gate
}

fn override_on<'c>() -> [&'c str; 6] {
    ["override", "on", "--for", "1h", "--reason", "flood"]
}

/// Returns the records of adopted changes.
fn adopted(gate: &Gate) -> Vec<[Value; 4]> {
    let records = gate.audit().into_iter();
    records
        .filter(|record| record["action"].as_str().unwrap().ends_with(" adopt"))
        .map(|record| ["action", "author", "number", "reason"].map(|name| record[name].clone()))
        .collect()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn override_set_without_the_daemon_is_adopted_at_its_start() {
    let lab = Lab::new("dead-override");
    let mut gate = refusing(&lab);
    gate.daemon.kill();
    assert!(gate.passing(&CALLERS).is_empty());
    let on = gate.does_by_hand(&override_on());
    assert_eq!((&on["author"], &on["persisted"]), (&json!("siti"), &json!("yes")));
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    let until = gate.maps().pass_maps().override_until().unwrap();
    let status = gate.does_by_hand(&["override", "status"]);
    assert!(status["until"].is_string(), "{status}");
    let status = gate.does_by_hand(&["status"]);
    assert_eq!((&status["daemon"], &status["colour"]), (&json!(false), &json!("red")));
    assert!(status["override"]["until"].is_string(), "{status}");

    let expected = [["override adopt", "siti", "", "flood"].map(|text| match text {
        "" => Value::Null,
        text => json!(text),
    })];
    for start in ["the next", "one more"] {
        gate.daemon.start_again();
        assert_eq!(gate.passing(&CALLERS), CALLERS, "{start}");
        assert_eq!(gate.maps().pass_maps().override_until().unwrap(), until, "{start}");
        let told = gate.does(&["override", "status"]);
        assert_eq!((&told["reason"], &told["author"]), (&json!("flood"), &json!("siti")));
        assert_eq!(adopted(&gate), expected, "{start}");
        gate.daemon.kill();
    }

    gate.does_by_hand(&["override", "off"]);
    assert!(gate.passing(&CALLERS).is_empty());
    for start in ["the next", "one more"] {
        gate.daemon.start_again();
        assert!(gate.passing(&CALLERS).is_empty(), "{start}");
        assert_eq!(gate.does(&["override", "status"])["until"], Value::Null);
        assert_eq!(adopted(&gate).len(), 2, "{start}");
        assert_eq!(gate.last("override adopt").unwrap()["author"], "siti");
        gate.daemon.kill();
    }

    // One that has ended before the daemon comes back.
    gate.does_by_hand(&["override", "on", "--for", "1s", "--reason", "flood"]);
    eventually("the override ends", || gate.passing(&CALLERS).is_empty());
    gate.daemon.start_again();
    assert!(gate.passing(&CALLERS).is_empty());
    gate.head();
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn allows_added_without_the_daemon_are_adopted_at_its_start() {
    let lab = Lab::new("dead-allow");
    let mut gate = refusing(&lab);
    // One that the daemon itself made, and that is changed without it.
    gate.does(&["allow", "add", PREFIXED, "--for", "1h", "--comment", "first"]);
    gate.daemon.kill();
    let add = ["allow", "add", "0812-0000-0001", "--for", "2h", "--comment", "in need"];
    let added = gate.does_by_hand(&add);
    assert_eq!((&added["change"], &added["persisted"]), (&json!("added"), &json!("yes")));
    assert_eq!(added["in_force"]["verdict"], "pass");
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    assert_eq!(gate.kernel_allow(BLOCKED).unwrap().rule, RULE_DIRECT);
    let ends = gate.kernel_allow(BLOCKED).unwrap().expires;
    let moved = gate.does_by_hand(&["allow", "add", PREFIXED, "--comment", "second"]);
    assert_eq!(moved["change"], "updated");
    gate.does_by_hand(&["allow", "add", "+62814*", "--comment", "quake"]);
    gate.does_by_hand(&["allow", "add", "110", "--comment", "police"]);
    gate.fails(3, &["block", "add", "+62815*", "--for", "1h", "--reason", "prank"]);

    for start in ["the next", "one more"] {
        gate.daemon.start_again();
        assert_eq!(gate.passing(&CALLERS), CALLERS, "{start}");
        let allows = gate.rows(&["allow", "list"]);
        let told: Vec<_> = allows
            .iter()
            .map(|allow| ["number", "comment", "author", "origin"].map(|name| allow[name].as_str()))
            .map(|texts| texts.map(Option::unwrap).join(" "))
            .collect();
        let mut told = told;
        told.sort();
        let expected = [
            "110 police siti direct",
            "6281200000001 in need siti direct",
            "6281300000001 second siti direct",
            "62814* quake siti direct",
        ];
        assert_eq!(told, expected, "{start}");
        let allow = gate.kernel_allow(BLOCKED).unwrap();
        assert_eq!(allow.expires, ends, "{start}");
        assert_eq!(json!(allow.rule), rule_of(&allows, "6281200000001"), "{start}");
        let of_moved = gate.kernel_allow(PREFIXED).unwrap();
        assert_eq!(of_moved.expires, 0, "{start}");
        let mut numbers: Vec<_> =
            adopted(&gate).iter().map(|record| record[2].as_str().unwrap().to_owned()).collect();
        numbers.sort();
        assert_eq!(numbers, ["110", "6281200000001", "6281300000001", "62814*"], "{start}");
        gate.daemon.kill();
    }
    gate.daemon.start_again();
    for number in [BLOCKED, PREFIXED, "+62814*"] {
        gate.does(&["allow", "remove", number]);
    }
    gate.kill_and_start();
    assert!(gate.passing(&CALLERS).is_empty());
    assert!(gate.kernel_allow("110").is_some());

    // One that the daemon has not noticed can be taken away all the same.
    let by_hand = Allow { number: subject(BLOCKED).raw(), expires: 0, rule: RULE_DIRECT };
    gate.maps().pass_maps().set_allow(subject(BLOCKED), by_hand).unwrap();
    assert_eq!(gate.passing(&CALLERS), [BLOCKED]);
    assert_eq!(gate.does(&["allow", "remove", BLOCKED])["change"], "removed");
    assert!(gate.passing(&CALLERS).is_empty());
    gate.head();
}

fn rule_of(rows: &[Value], number: &str) -> Value {
    rows.iter().find(|row| row["number"] == number).unwrap()["rule"].clone()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn filter_detached_without_the_daemon_stays_detached() {
    let lab = Lab::new("dead-detach");
    let mut gate = refusing(&lab);
    gate.daemon.kill();
    gate.does_by_hand(&["detach", "gate0"]);
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    for _ in 0..2 {
        gate.daemon.start_again();
        assert_eq!(gate.passing(&CALLERS), CALLERS);
        let findings = gate.findings();
        let told = |finding: &String| finding.starts_with("red: gate0: the filter was detached");
        assert!(findings.iter().any(told), "{findings:?}");
        gate.daemon.kill();
    }
    gate.daemon.start_again();
    let adopted = gate.audit().into_iter().filter(|record| record["action"] == "detach adopt");
    let adopted: Vec<_> = adopted.collect();
    assert_eq!(adopted.len(), 1, "{adopted:?}");
    assert_eq!(adopted[0]["author"], "siti");
    assert_eq!(adopted[0]["interface"], "gate0");
    gate.does(&["attach", "gate0"]);
    assert!(gate.passing(&CALLERS).is_empty());
    gate.kill_and_start();
    assert!(gate.passing(&CALLERS).is_empty());
}

// The maps end with the machine; what root did is written down beside the store.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn changes_without_the_daemon_outlive_a_reboot() {
    let lab = Lab::new("dead-reboot");
    let mut gate = refusing(&lab);
    gate.daemon.kill();
    gate.does_by_hand(&override_on());
    gate.does_by_hand(&["allow", "add", BLOCKED, "--comment", "in need"]);
    fs::remove_dir_all(gate.daemon.pins()).unwrap();
    gate.daemon.start_again();
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    assert_eq!(gate.does(&["override", "status"])["author"], "siti");
    gate.does(&["override", "off"]);
    assert_eq!(gate.passing(&CALLERS), [BLOCKED]);
    // And once more: what was adopted is not adopted again.
    gate.daemon.kill();
    fs::remove_dir_all(gate.daemon.pins()).unwrap();
    gate.daemon.start_again();
    assert_eq!(gate.passing(&CALLERS), [BLOCKED]);
    assert_eq!(adopted(&gate).len(), 2);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn changes_beside_a_hanging_daemon_are_not_undone() {
    let lab = Lab::new("hung");
    let mut gate = refusing(&lab);
    gate.does(&["allow", "add", "+62814*"]);

    gate.daemon.signal("STOP");
    gate.does_by_hand(&override_on());
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    let status = gate.does_by_hand(&["status"]);
    assert_eq!((&status["daemon"], &status["colour"]), (&json!(false), &json!("red")));
    gate.does_by_hand(&["override", "off"]);
    gate.does_by_hand(&["allow", "add", BLOCKED, "--comment", "in need"]);
    assert_eq!(gate.passing(&CALLERS), [BLOCKED]);
    goes_on(&gate);
    assert_eq!(gate.passing(&CALLERS), [BLOCKED]);
    assert_eq!(gate.does(&["override", "status"])["until"], Value::Null);
    let expected = [
        [json!("allow adopt"), json!("siti"), json!("6281200000001"), json!("in need")],
        // An override that was on for a while is known afterwards.
        [json!("override adopt"), json!("siti"), Value::Null, json!("flood")],
        [json!("override adopt"), json!("siti"), Value::Null, json!("")],
    ];
    assert_eq!(adopted(&gate), expected);

    gate.daemon.signal("STOP");
    gate.does_by_hand(&override_on());
    let until = gate.maps().pass_maps().override_until().unwrap();
    goes_on(&gate);
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    for start in ["without one", "a new"] {
        assert_eq!(gate.maps().pass_maps().override_until().unwrap(), until, "{start}");
        let told = gate.does(&["override", "status"]);
        assert_eq!((&told["reason"], &told["author"]), (&json!("flood"), &json!("siti")));
        assert_eq!(told["persisted"], "yes", "{start}");
        gate.kill_and_start();
    }
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    gate.does(&["override", "off"]);
    assert_eq!(gate.passing(&CALLERS), [BLOCKED]);

    gate.daemon.signal("STOP");
    gate.does_by_hand(&["detach"]);
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    goes_on(&gate);
    eventually("the daemon notices", || {
        let findings = gate.findings();
        findings.iter().any(|finding| finding.starts_with("red: gate0: the filter was detached"))
    });
    gate.kill_and_start();
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    assert_eq!(gate.last("detach adopt").unwrap()["author"], "siti");
    gate.does(&["attach", "gate0"]);
    assert_eq!(gate.passing(&CALLERS), [BLOCKED]);

    // The person who asked and gave up did it by hand: the daemon did not do it once more.
    let actions: Vec<_> = gate.audit().iter().map(|record| record["action"].clone()).collect();
    for action in ["override on", "detach"] {
        assert!(!actions.contains(&json!(action)), "{:#?}", gate.audit());
    }
    assert_eq!(actions.iter().filter(|action| **action == "override off").count(), 1);
    gate.head();
}

// Each removal of an allow looks for notes first, as a task of the daemon does every second.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn offline_notes_are_adopted_once_with_many_clients() {
    const ROUNDS: usize = 5;
    let lab = Lab::new("hung-clients");
    let gate = refusing(&lab);
    for _ in 0..ROUNDS {
        gate.daemon.signal("STOP");
        gate.does_by_hand(&override_on());
        gate.does_by_hand(&["override", "off"]);
        let client = |_| {
            let mut remove = gate.daemon.command(&["allow", "remove", "+6281999999999"]);
            remove.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let clients: Vec<_> = (0..6).map(client).collect();
        goes_on(&gate);
        for mut client in clients {
            client.wait().unwrap();
        }
    }
    assert_eq!(adopted(&gate).len(), 2 * ROUNDS);
}

/// Lets the daemon go on: it does the requests of meanwhile, and adopts the changes.
fn goes_on(gate: &Gate) {
    let notes = gate.daemon.state().join("direct.jsonl");
    assert!(notes.exists());
    gate.daemon.signal("CONT");
    eventually("the daemon answers", || gate.daemon.answers());
    eventually("the daemon learns", || !notes.exists());
}
