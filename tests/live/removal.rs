//! The packages' work before they remove the program: nothing of it is left in the kernel, and
//! the audit can be read by others.

use std::fs;

use palang::datapath::tcx_programs;
use palang_tests::lab::bpf::detach_link;
use palang_tests::lab::{Lab, run};

use crate::gate::{Gate, eventually};

const BLOCKED: &str = "+6281200000001";

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn detach_with_unpin_leaves_nothing_in_the_kernel_and_keeps_the_audit() {
    let lab = Lab::new("removal");
    let mut gate = Gate::start(&lab, "[callback]\ngrace = \"60m\"");
    gate.does(&["block", "add", BLOCKED, "--for", "24h", "--reason", "prank"]);
    assert!(!gate.passes(BLOCKED));
    let rows = gate.rows(&["audit", "list"]);
    let file = gate.daemon.folder().join("kept.ndjson");
    let store = gate.daemon.state().join("palang.db");
    let (file, store) = (file.to_str().unwrap(), store.to_str().unwrap());

    let unpin = |gate: &Gate<'_>, code: i32| {
        let mut command = gate.daemon.command(&["detach", "--unpin"]);
        let output = run::run(command.env("PALANG_CONFIG", gate.daemon.config_file()));
        assert_eq!(output.code, code, "{output:?}");
        output
    };
    // A daemon would make them again.
    assert!(unpin(&gate, 1).stderr.contains("stop it first"));
    assert!(!gate.passes(BLOCKED), "nothing was taken off");

    gate.daemon.stop();
    assert!(!gate.passes(BLOCKED), "the filter does not need the daemon");
    assert!(unpin(&gate, 0).stdout.contains("detached from gate0"));
    assert!(gate.passes(BLOCKED));
    assert!(!gate.daemon.pins().exists());
    let programs = lab.in_gate(|| tcx_programs("gate0"));
    assert_eq!(programs, 0);
    assert!(unpin(&gate, 0).stdout.contains("on no interface"));

    run::must(&mut gate.daemon.command(&["audit", "export", "--store", store, file]));
    let kept = fs::read_to_string(file).unwrap();
    let kept: Vec<serde_json::Value> =
        kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(kept[..rows.len()], rows);

    // Installed again: the store is as it was, and so is what it blocks.
    gate.daemon.start_again();
    gate.does(&["attach", "gate0"]);
    assert!(!gate.passes(BLOCKED));
}

// `bpftool link detach` leaves the pin where it is, so the pin alone shows nothing.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn link_that_was_detached_by_its_id_is_attached_again() {
    let lab = Lab::new("link-detach");
    let gate = Gate::start(&lab, "");
    gate.does(&["block", "add", BLOCKED, "--for", "1h", "--no-redial", "--reason", "prank"]);
    eventually("the second look", || gate.pins().has_second_look());
    detach_link(&gate.pins().second_look());
    assert!(!gate.pins().has_second_look());
    eventually("the second look is attached again", || gate.pins().has_second_look());
    assert_eq!(gate.findings(), [""; 0]);
    assert!(!gate.passes(BLOCKED));
    detach_link(&gate.pins().link("gate0"));
    assert!(gate.passes(BLOCKED), "the filter is off");
    eventually("the filter is attached again", || !gate.passes(BLOCKED));
    assert_eq!(gate.findings(), [""; 0]);
}
