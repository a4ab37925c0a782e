//! Ends of periods: a period of mode enforce and an override that run out leave a trace.

use palang_tests::lab::Lab;
use serde_json::Value;

use crate::gate::{Gate, eventually};
use crate::metrics::{scrape, value};

const CONFIG: &str = "[metrics]\nlisten = \"127.0.0.1:9113\"\n";

/// Returns the actions in the audit that the daemon has written by itself.
fn ends(gate: &Gate) -> Vec<String> {
    let rows = gate.rows(&["audit", "list"]);
    let record = |row: &Value| {
        let record: Value = serde_json::from_str(row["record"].as_str()?).ok()?;
        record["action"].as_str().map(str::to_owned)
    };
    rows.iter().filter_map(record).filter(|action| action.ends_with(" ended")).collect()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn end_of_enforce_is_a_finding_and_a_row_of_the_audit() {
    let lab = Lab::new("ends");
    let mut gate = Gate::start(&lab, CONFIG);
    gate.does(&["mode", "enforce", "--for", "2s"]);
    assert_eq!(gate.findings(), [""; 0]);
    eventually("the end is noticed", || ends(&gate) == ["enforce ended"]);
    let status = gate.does(&["status"]);
    assert_eq!(status["colour"], "amber");
    assert!(status["mode"]["ended"].is_string(), "{}", status["mode"]);
    let findings = gate.findings();
    assert!(findings.concat().contains("mode enforce ended at"), "{findings:?}");
    assert_eq!(value(&scrape(&lab), "palang_enforce_ended"), 1);

    // Another daemon does not note it again.
    gate.daemon.kill();
    gate.daemon.start_again();
    gate.does(&["override", "on", "--for", "1s", "--reason", "fire"]);
    eventually("the end of the override", || ends(&gate) == ["enforce ended", "override ended"]);
    gate.does(&["mode", "observe"]);
    assert_eq!(gate.does(&["status"])["mode"]["ended"], Value::Null);
    assert_eq!(ends(&gate).len(), 2, "somebody set the mode, so nothing ended by itself");
}
