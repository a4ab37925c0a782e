//! A carrier whose machine calls again after silence: the gate finds it, and `separate` is the cure.

use std::time::{Duration, Instant};

use palang_tests::lab::{Lab, TRUNK, message};

use crate::gate::{Gate, eventually};
use crate::metrics::scrape;

/// When the machine calls again.
const AGAIN: Duration = Duration::from_secs(6);

fn config(keys: &str) -> String {
    format!(
        "[[trunk]]\nname = \"telkom\"\nsources = [\"{TRUNK}\"]\nrefuse = \"drop\"\n{keys}\n\
         [redial]\nattempts = 2\n[metrics]\nlisten = \"127.0.0.1:9113\"\n"
    )
}

fn caller(index: u32) -> String {
    format!("+62812000001{index:02}")
}

/// Calls from these numbers, and once more by the machine, each after the same time.
fn calls(lab: &Lab, numbers: std::ops::Range<u32>) {
    let sender = lab.sender();
    let begun = Instant::now();
    for leg in [0, 1] {
        for index in numbers.clone() {
            let place = 100 * (index - numbers.start);
            let at = AGAIN * leg + Duration::from_millis(place.into());
            std::thread::sleep(at.saturating_sub(begun.elapsed()));
            let invite = message::invite(&caller(index), &format!("{index}-{leg}@carrier"));
            sender.send(5060, invite.as_bytes()).unwrap();
        }
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn machine_of_a_carrier_is_a_finding_until_its_calls_are_one_attempt() {
    let lab = Lab::new("machine");
    let gate = Gate::start(&lab, &config(""));
    for index in 0..20 {
        let number = caller(index);
        gate.does(&["block", "add", &number, "--for", "1h", "--reason", "prank"]);
    }
    calls(&lab, 0..7);
    eventually("seven grants", || gate.rows(&["review", "list"]).len() == 7);
    assert_eq!(gate.findings(), Vec::<String>::new(), "seven numbers are too few");
    calls(&lab, 7..9);
    let finding = "amber: trunk telkom seems to retry by itself after 6";
    let is_found = || gate.findings().iter().any(|found| found.starts_with(finding));
    eventually("the finding", is_found);
    let status = gate.does(&["status"]);
    let found = &status["machine_redials"][0];
    assert_eq!((&found["trunk"], &found["separate"]), (&"telkom".into(), &9.into()), "{status}");
    let gap = found["gap_ms"].as_u64().unwrap();
    assert!((5_700..6_300).contains(&gap), "{status}");
    let metric = || {
        let series = "palang_machine_redial_seconds{trunk=\"telkom\"} ";
        let metrics = scrape(&lab);
        let value = metrics.lines().find_map(|line| line.strip_prefix(series));
        value.expect("the metric").parse::<f64>().unwrap()
    };
    assert!((metric() * 1000.0 - gap as f64).abs() < 0.5, "{}", metric());
    eventually("a row of the audit", || gate.last("machine redials").is_some());
    let row = gate.last("machine redials").unwrap();
    assert_eq!((&row["trunk"], &row["numbers"]), (&"telkom".into(), &9.into()), "{row}");
    let explained = gate.does(&["explain", &caller(19)]).to_string();
    assert!(explained.contains("attempts are separate after 5s\""), "{explained}");

    gate.daemon.configure(&config("separate = \"9s\""));
    gate.daemon.signal("HUP");
    eventually("no finding", || gate.findings().is_empty());
    eventually("the end in the audit", || gate.last("machine redials ended").is_some());
    assert!(metric() < 0.1, "{}", metric());
    let explained = gate.does(&["explain", &caller(19)]).to_string();
    assert!(explained.contains("after 5s, on trunk telkom after 9s"), "{explained}");
    // The machine's calls open no grant any more.
    calls(&lab, 10..19);
    assert_eq!(gate.rows(&["review", "list"]).len(), 9);
    assert!(gate.findings().is_empty(), "{:?}", gate.findings());
}
