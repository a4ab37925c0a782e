//! A clock that somebody sets, or that is years late after a start. No block is ever longer in
//! force than it was meant, and no way out ends sooner.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use filter_common::abi::TOMBSTONE;
use palang::sys::clock;
use palang_tests::lab::{Daemon, Lab};
use serde_json::{Value, json};

use crate::gate::{Gate, eventually};
use crate::preload::Clock;

const HOUR: i64 = 3600;
const YEAR: i64 = 365 * 24 * HOUR;
/// Converting between clocks is not exact.
const SECOND: u64 = 1_000_000_000;

const FOR_AN_HOUR: &str = "+6281200000001";
const FOR_A_DAY: &str = "+6281200000002";
const PREFIXED: &str = "+6281300000001";
const FOR_GOOD: &str = "+6281200000003";
const CALLERS: [&str; 4] = [FOR_AN_HOUR, FOR_A_DAY, FOR_GOOD, PREFIXED];
const SUBJECTS: [&str; 4] = [FOR_AN_HOUR, FOR_A_DAY, FOR_GOOD, "+62813*"];

/// Starts a gate that refuses [`CALLERS`], and its clock.
fn with_a_clock(lab: &Lab) -> (Gate<'_>, Clock) {
    let mut daemon = Daemon::prepare(lab, "");
    let clock = Clock::of(&mut daemon);
    daemon.start_again();
    let gate = Gate::of(lab, daemon);
    gate.does(&["mode", "enforce", "--for", "12h"]);
    for (number, time) in [(FOR_AN_HOUR, "1h"), (FOR_A_DAY, "24h"), ("+62813*", "24h")] {
        gate.does(&["block", "add", number, "--for", time, "--reason", "prank"]);
    }
    gate.does(&["block", "add", FOR_GOOD, "--permanent", "--reason", "prank"]);
    assert!(gate.passing(&CALLERS).is_empty());
    (gate, clock)
}

/// Returns when blocks end in the kernel.
fn ends(gate: &Gate) -> BTreeMap<&'static str, Option<u64>> {
    let end = |number| (number, gate.kernel_block(number).map(|block| block.expires));
    SUBJECTS.into_iter().map(end).collect()
}

/// Returns the requested duration, in nanoseconds.
fn meant(number: &str) -> u64 {
    let hours = if number == FOR_AN_HOUR { 1 } else { 24 };
    hours * HOUR as u64 * SECOND
}

fn seconds_of_steps(gate: &Gate) -> Vec<i64> {
    let records = gate.audit().into_iter();
    let steps = records.filter(|record| record["action"] == "clock step");
    steps.map(|record| record["seconds"].as_i64().unwrap()).collect()
}

/// Waits for the step to be noticed, and for what the daemon then does.
fn wait_for_step(gate: &Gate, seconds: i64) {
    eventually("the step is noticed", || {
        let steps = seconds_of_steps(gate);
        steps.last().is_some_and(|step| (step - seconds).abs() <= 1)
    });
    // The daemon logs a newer head of the audit after it has compared store and maps for the step.
    eventually("the comparison after the step", || {
        gate.daemon.stderr().contains(&format!("head={}", gate.head()))
    });
}

/// Looks whether something changes, for longer than the second between two runs of the daemon's
/// tasks: only time proves that nothing happens.
fn assert_stays<T: PartialEq + std::fmt::Debug>(look: impl Fn() -> T) {
    let before = look();
    for _ in 0..15 {
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(look(), before);
    }
}

fn is_clock_told(gate: &Gate) -> bool {
    let findings = gate.findings();
    findings
        .iter()
        .any(|told| told.starts_with("red: the clock is earlier than the store's newest"))
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn start_with_a_clock_years_behind_lengthens_no_block() {
    let lab = Lab::new("clock-start");
    let (mut gate, clock) = with_a_clock(&lab);
    gate.does(&["allow", "add", FOR_A_DAY, "--for", "1h", "--comment", "in need"]);
    gate.does(&["allow", "add", "110"]);
    assert!(!is_clock_told(&gate));
    let before = ends(&gate);

    // The maps are kept: their times are not of this clock.
    gate.daemon.kill();
    clock.set(-10 * YEAR);
    gate.daemon.start_again();
    assert_eq!(ends(&gate), before);
    assert!(is_clock_told(&gate), "{:?}", gate.findings());
    assert_eq!(gate.passing(&CALLERS), [FOR_A_DAY]);

    // The maps are new, as after a start of the machine.
    gate.daemon.kill();
    fs::remove_dir_all(gate.daemon.pins()).unwrap();
    gate.daemon.start_again();
    assert!(is_clock_told(&gate), "{:?}", gate.findings());
    assert_eq!(gate.passing(&CALLERS), [FOR_A_DAY]);
    for (number, end) in ends(&gate) {
        let end = end.unwrap();
        if number == FOR_GOOD {
            assert_eq!(end, 0);
        } else {
            assert!(end > clock::boot() && end <= clock::boot() + meant(number), "{number}");
        }
    }
    let enforce_until = gate.maps().settings().unwrap().enforce_until;
    assert!(enforce_until <= clock::boot() + 12 * HOUR as u64 * SECOND);
    // An override or allow does not last for years either.
    let end = gate.kernel_allow(FOR_A_DAY).unwrap().expires;
    assert!(end <= clock::boot() + HOUR as u64 * SECOND, "{end}");
    assert_eq!(gate.kernel_allow("110").unwrap().expires, 0);

    // A block that is made now ends, and so it does when the clock is right again.
    let add = ["block", "add", "+6281400000001", "--for", "1h", "--reason", "prank"];
    gate.does(&add);
    let end = gate.kernel_block("+6281400000001").unwrap().expires;
    assert!(end <= clock::boot() + HOUR as u64 * SECOND);
    let before = ends(&gate);
    clock.set(0);
    wait_for_step(&gate, 10 * YEAR);
    eventually("it ends", || gate.passes("+6281400000001"));
    assert!(!is_clock_told(&gate), "{:?}", gate.findings());
    for (number, end) in ends(&gate) {
        assert!(end.unwrap() <= before[number].unwrap(), "{number}");
    }
    assert_eq!(gate.passing(&CALLERS), [FOR_A_DAY]);
    gate.head();
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn override_keeps_its_end_when_the_clock_is_set() {
    let lab = Lab::new("clock-override");
    let (mut gate, clock) = with_a_clock(&lab);
    gate.does(&["override", "on", "--for", "1h", "--reason", "flood"]);
    let until = gate.maps().pass_maps().override_until().unwrap();
    let is_known = |gate: &Gate| {
        let told = gate.does(&["override", "status"]);
        assert_eq!((&told["reason"], &told["author"]), (&json!("flood"), &json!("root")), "{told}");
        assert_eq!(told["persisted"], "yes", "{told}");
    };
    for (now, step) in [(2 * HOUR, 2 * HOUR), (-YEAR, -YEAR - 2 * HOUR), (0, YEAR)] {
        clock.set(now);
        wait_for_step(&gate, step);
        assert_stays(|| gate.maps().pass_maps().override_until().unwrap());
        assert_eq!(gate.maps().pass_maps().override_until().unwrap(), until);
        is_known(&gate);
        gate.kill_and_start();
        assert_eq!(gate.maps().pass_maps().override_until().unwrap(), until);
        is_known(&gate);
    }
    gate.daemon.kill();
    fs::remove_dir_all(gate.daemon.pins()).unwrap();
    clock.set(-10 * YEAR);
    gate.daemon.start_again();
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    let until = gate.maps().pass_maps().override_until().unwrap();
    assert!(until <= clock::boot() + HOUR as u64 * SECOND, "{until}");
    gate.does(&["override", "off"]);
    clock.set(0);
    wait_for_step(&gate, 10 * YEAR);
    assert_stays(|| gate.maps().pass_maps().override_until().unwrap() == TOMBSTONE);
    // Its hour was over by the clock that was wrong.
    assert_eq!(gate.passing(&CALLERS), [FOR_AN_HOUR]);
    assert_eq!(gate.does(&["override", "status"])["until"], Value::Null);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn clock_step_forward_ends_blocks_and_one_back_changes_nothing() {
    let lab = Lab::new("clock-step");
    let (mut gate, clock) = with_a_clock(&lab);
    gate.does(&["allow", "add", PREFIXED, "--for", "1h", "--comment", "in need"]);
    let before = ends(&gate);
    let allow = gate.kernel_allow(PREFIXED).unwrap();

    clock.set(-2 * HOUR);
    wait_for_step(&gate, -2 * HOUR);
    assert!(is_clock_told(&gate), "{:?}", gate.findings());
    assert_stays(|| ends(&gate));
    assert_eq!(ends(&gate), before);
    gate.kill_and_start();
    assert_eq!(ends(&gate), before);
    clock.set(0);
    wait_for_step(&gate, 2 * HOUR);
    assert_stays(|| ends(&gate));
    assert_eq!(ends(&gate), before);
    assert_eq!(gate.passing(&CALLERS), [PREFIXED]);

    clock.set(2 * HOUR);
    wait_for_step(&gate, 2 * HOUR);
    eventually("the block ends", || gate.passes(FOR_AN_HOUR));
    eventually("it is gone", || gate.kernel_block(FOR_AN_HOUR).is_none());
    gate.fails(4, &["block", "show", FOR_AN_HOUR]);
    let after = ends(&gate);
    for number in [FOR_A_DAY, "+62813*"] {
        let (before, after) = (before[number].unwrap(), after[number].unwrap());
        let wanted = before - 2 * HOUR as u64 * SECOND;
        assert!(after.abs_diff(wanted) < 2 * SECOND, "{number}: {before}, {after}");
    }
    assert_eq!(after[FOR_GOOD], Some(0));
    // It was given an hour, and has it.
    assert_stays(|| gate.kernel_allow(PREFIXED).map(|allow| allow.expires));
    assert_eq!(gate.kernel_allow(PREFIXED).unwrap().expires, allow.expires);
    assert_eq!(gate.passing(&CALLERS), [FOR_AN_HOUR, PREFIXED]);
    let allows = gate.rows(&["allow", "list"]);
    let [kept] = &allows[..] else { panic!("{allows:?}") };
    assert_eq!((&kept["comment"], &kept["author"]), (&json!("in need"), &json!("root")));

    // And back: what has ended stays so, and nothing is longer than before.
    clock.set(0);
    wait_for_step(&gate, -2 * HOUR);
    assert_stays(|| ends(&gate));
    assert_eq!(ends(&gate), after);
    gate.kill_and_start();
    assert_eq!(ends(&gate), after);
    assert_eq!(gate.passing(&CALLERS), [FOR_AN_HOUR, PREFIXED]);
    let steps = seconds_of_steps(&gate);
    let expected = [-2 * HOUR, 2 * HOUR, 2 * HOUR, -2 * HOUR];
    assert_eq!(steps.len(), expected.len(), "{steps:?}");
    for (step, expected) in steps.iter().zip(expected) {
        assert!((step - expected).abs() <= 1, "{steps:?}");
    }
    gate.head();
}
