//! One number: all data about it is exported, and then erased.

use std::fs;

use palang_tests::lab::Lab;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::gate::{Gate, SEPARATE, eventually, subject};

const CALLER: &str = "+6281234567890";
const DIGITS: &str = "6281234567890";
const OTHER: &str = "+6281234567891";
const ERASE: [&str; 5] = ["erase", "--number", CALLER, "--reason", "asked for, letter 12"];

/// Lengths of the lists of what is held about a number.
fn held(gate: &Gate<'_>) -> (Value, [usize; 4]) {
    let held = gate.does(&["export", "--number", CALLER]);
    let lengths = ["calls", "reports", "reviews", "audit"]
        .map(|list| held[list].as_array().unwrap_or_else(|| panic!("{list}: {held}")).len());
    (held, lengths)
}

/// Returns whether a file of the store has these bytes.
fn stand_in_a_file(gate: &Gate<'_>, bytes: &[u8]) -> bool {
    let files = fs::read_dir(gate.daemon.state()).unwrap().map(|file| file.unwrap().path());
    let mut stores = files.filter(|file| file.to_string_lossy().contains("palang.db"));
    stores.any(|file| fs::read(file).unwrap().windows(bytes.len()).any(|window| window == bytes))
}

/// Computes the head of an exported audit from the file alone.
fn head_of_export(gate: &Gate<'_>) -> String {
    let file = gate.daemon.folder().join("audit.ndjson");
    let _ = fs::remove_file(&file);
    gate.does(&["audit", "export", file.to_str().unwrap()]);
    let (mut hash, mut rows) = ([0; 32], 0);
    for line in fs::read_to_string(&file).unwrap().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let record = row["record"].as_str().unwrap();
        hash = Sha256::new().chain_update(hash).chain_update(record).finalize().into();
        rows += 1;
    }
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{rows}:{digits}")
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn erased_number_is_found_nowhere_and_the_audit_verifies() {
    let lab = Lab::new("erase");
    let mut gate = Gate::start(&lab, "[redial]\nattempts = 3");
    let packed = subject(CALLER).raw().0.to_be_bytes();
    gate.fails(4, &ERASE);

    assert!(gate.passes(CALLER));
    assert!(gate.passes(OTHER));
    gate.does(&["block", "add", CALLER, "--for", "1h", "--reason", "prank, case 118"]);
    assert!(!gate.passes(CALLER));
    gate.does(&["report", "add", CALLER, "--kind", "prank"]);
    eventually("its two calls are on record", || held(&gate).1[0] == 2);
    let (all, lengths) = held(&gate);
    assert_eq!(lengths, [2, 1, 1, 2], "{all:#}");
    assert_eq!((&all["number"], &all["block"]["number"]), (&json!(DIGITS), &json!(DIGITS)));
    assert_eq!((&all["allow"], &all["kernel"]["redial"]["attempts"]), (&Value::Null, &json!(1)));
    assert_eq!(all["check"]["verdict"], "drop");
    let people = gate.daemon.cli(&["export", "--number", CALLER]).stdout;
    for section in ["1 block\n", "no allows\n", "2 calls\n", "1 report\n", "2 audit rows\n"] {
        assert!(people.contains(section), "{people}");
    }
    let raw = gate.daemon.cli(&["export", "--number", CALLER, "-o", "raw"]).stdout;
    assert_eq!(raw.lines().filter(|line| line.starts_with("call\t")).count(), 2, "{raw}");
    assert!(stand_in_a_file(&gate, DIGITS.as_bytes()) && stand_in_a_file(&gate, &packed));

    // A decision in force is not erased with the rest.
    let head = gate.head();
    assert_eq!(head_of_export(&gate), head);
    assert!(gate.fails(5, &ERASE).contains(&format!("palang block remove {DIGITS}")));
    gate.does(&["block", "remove", CALLER]);
    gate.does(&["allow", "add", CALLER, "--for", "1h"]);
    assert!(gate.fails(5, &ERASE).contains(&format!("palang allow remove {DIGITS}")));
    gate.does(&["allow", "remove", CALLER]);
    let with_number = ["erase", "--number", CALLER, "--reason", "0812-3456-7890 wrote to us"];
    assert!(gate.fails(2, &with_number).contains("the reason has the number in it"));
    let before = gate.head();
    let planned = gate.does(&[&ERASE[..], &["--dry-run"]].concat());
    assert_eq!((&planned["calls"], &planned["dry_run"]), (&json!(2), &json!(true)));
    assert_eq!((gate.head(), held(&gate).1), (before, [2, 1, 1, 5]));

    let erased = gate.does(&ERASE);
    assert_eq!([&erased["calls"], &erased["reports"], &erased["reviews"]], [2, 1, 1]);
    assert_eq!([&erased["audit_rows"], &erased["audit_rows_kept"]], [5, 0]);
    assert!(erased["notes"].to_string().contains("kernel's maps"), "{erased}");
    assert!(!stand_in_a_file(&gate, DIGITS.as_bytes()));
    assert!(!stand_in_a_file(&gate, &packed));

    for restarted in [false, true] {
        assert_eq!(gate.rows(&["calls", "--caller", CALLER]), [Value::Null; 0]);
        assert_eq!(gate.rows(&["calls", "--caller", OTHER]).len(), 1);
        assert_eq!(gate.rows(&["report", "list", CALLER]), [Value::Null; 0]);
        assert_eq!(gate.rows(&["review", "list", "--all"]), [Value::Null; 0]);
        let (left, lengths) = held(&gate);
        assert_eq!(lengths, [0, 0, 0, 6], "{left:#}");
        assert!(!left["audit"].to_string().contains(DIGITS), "{left:#}");
        let pseudonym = erased["pseudonym"].as_str().unwrap();
        let named = gate.rows(&["audit", "list", "--number", pseudonym]);
        assert_eq!(named, *left["audit"].as_array().unwrap());
        let people = gate.daemon.cli(&["audit", "list"]).stdout;
        assert!(people.contains(pseudonym) && !people.contains(DIGITS), "{people}");
        let erase = gate.last("erase").unwrap();
        assert_eq!((&erase["number"], &erase["author"]), (&json!(pseudonym), &json!("root")));
        assert_eq!(
            (&erase["calls"], &erase["reason"]),
            (&json!(2), &json!("asked for, letter 12"))
        );
        assert_eq!(head_of_export(&gate), gate.head());
        let verdict = gate.does(&["audit", "verify", "--head", &head]);
        assert_eq!(verdict["first_bad"], Value::Null);
        if !restarted {
            gate.kill_and_start();
        }
    }
    assert!(!gate.daemon.stderr().contains(DIGITS));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn number_with_a_live_redial_grant_is_not_erased() {
    let lab = Lab::new("erase-grant");
    let gate = Gate::start(&lab, "[redial]\nattempts = 2\ngrant = \"1m\"");
    gate.does(&["block", "add", CALLER, "--for", "1h", "--reason", "prank"]);
    assert!(!gate.passes(CALLER));
    gate.age(CALLER, SEPARATE);
    assert!(gate.passes(CALLER), "the second attempt opens a grant");
    eventually("the grant is on the list", || held(&gate).1[2] == 1);
    assert!(held(&gate).0["kernel"]["grant_until"].is_string());
    gate.does(&["block", "remove", CALLER]);
    let said = gate.fails(5, &ERASE);
    assert!(said.contains("a redial grant lets 6281234567890 through until"), "{said}");
    assert_eq!(held(&gate).1[2], 1);
}
