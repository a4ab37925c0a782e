//! More attempts than the rings take: each of them has a record, or is counted as one that has none.

use std::thread;
use std::time::Duration;

use filter_common::reason::Reason;
use palang::datapath::EvidenceSwitch;
use palang::store::Reader;
use palang_tests::lab::{Lab, message};

use crate::gate::{Gate, eventually};
use crate::metrics::{scrape, value};

const BLOCKED: &str = "+6281234567890";
const FREE: &str = "+6281234567891";
/// Every refusal has a record of its own; the tests of `records` are about the limits.
const RECORDS: &str = "[records]\nper_number = 0\nper_trunk = 0\n";
/// More than either ring holds (5,000 events).
const MANY: usize = 7000;

/// How many attempts of each kind there were, by counters and records.
struct Told {
    refused: usize,
    passed: usize,
    refused_records: usize,
    passed_records: usize,
    refused_lost: usize,
    passed_lost: usize,
}

fn told(gate: &Gate<'_>) -> Told {
    let maps = gate.maps();
    let count = |name: &str| {
        let reason = Reason::ALL.iter().find(|reason| reason.name() == name).unwrap();
        maps.count(0, *reason).unwrap() as usize
    };
    let status = gate.does(&["status"]);
    let lost =
        |key: &str| status[key].as_u64().unwrap_or_else(|| panic!("{key}: {status}")) as usize;
    let records = |verdict| gate.rows(&["calls", "--verdict", verdict]).len();
    Told {
        refused: count("blocked-number"),
        passed: count("not-blocked"),
        refused_records: records("drop"),
        passed_records: records("pass"),
        refused_lost: lost("refused_lost"),
        passed_lost: lost("passed_lost"),
    }
}

/// Sends this number of both, evenly and slowly enough for the queue of the veth pair.
fn send(lab: &Lab, count: usize) {
    let sender = lab.sender();
    for index in 0..count {
        for caller in [BLOCKED, FREE] {
            let invite = message::invite(caller, &format!("{index}@{caller}"));
            sender.send(5060, invite.as_bytes()).unwrap();
        }
        if index % 32 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn attempt_in_a_flood_has_a_record_or_is_counted_as_lost() {
    let lab = Lab::new("flood");
    let gate = Gate::start(&lab, &format!("{RECORDS}[evidence]\nmax_calls = 100"));
    gate.does(&["block", "add", BLOCKED, "--for", "1h", "--reason", "prank"]);

    // Nobody takes them out meanwhile.
    gate.daemon.signal("STOP");
    send(&lab, MANY);
    let maps = gate.maps();
    let judged = || {
        let all = Reason::ALL.iter();
        all.map(|reason| maps.count(0, *reason).unwrap()).sum::<u64>()
    };
    let mut before = 0;
    eventually("all of them were judged", || std::mem::replace(&mut before, judged()) == judged());
    gate.daemon.signal("CONT");

    eventually("what is in the rings is on record", || {
        let told = told(&gate);
        told.refused == told.refused_records + told.refused_lost
            && told.passed == told.passed_records + told.passed_lost
    });
    let told = told(&gate);
    assert_eq!(told.refused, MANY, "every INVITE was judged");
    assert_eq!(told.passed, MANY);
    assert!(told.refused_lost > 0 && told.refused_records > 0, "the ring was full");
    assert!(told.passed_lost > 0 && told.passed_records > 0);

    // Frames that were lost cost no event, and those that were not are kept: as many as there is
    // room for.
    let folder = gate.map_folder();
    let stats = EvidenceSwitch::open(&folder).unwrap().stats().unwrap();
    assert_eq!((stats.kept + stats.lost + stats.limited) as usize, MANY);
    assert!(stats.kept >= 100 && stats.limited > 0, "{stats:?}");
    let store = gate.daemon.state().join("palang.db");
    let stored = || Reader::open(&store).unwrap().evidence_size().unwrap().frames;
    eventually("INVITEs are kept, as many as there is room for", || stored() == 100);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn recorded_attempts_of_each_kind_are_as_many_as_were_sent() {
    let lab = Lab::new("each-kind");
    let metrics = "[metrics]\nlisten = \"127.0.0.1:9113\"\n[evidence]";
    let gate = Gate::start(&lab, &format!("{RECORDS}{metrics}"));
    gate.does(&["block", "add", BLOCKED, "--for", "1h", "--reason", "prank"]);
    gate.does(&["block", "add", "+62431*", "--for", "1h", "--reason", "prank"]);
    gate.does(&["allow", "add", "+6243112345", "--for", "1h"]);
    let sender = lab.sender();
    let invite = |caller: &str, call: usize| message::invite(caller, &format!("{call}@{caller}"));
    type Message<'a> = &'a dyn Fn(usize) -> String;
    let kinds: [(&str, &str, usize, Message<'_>); 6] = [
        ("blocked-number", "drop", 11, &|call| invite(BLOCKED, call)),
        ("blocked-prefix", "drop", 7, &|call| invite("+6243155555", call)),
        ("allowed-number", "pass", 5, &|call| invite("+6243112345", call)),
        ("not-blocked", "pass", 13, &|call| invite(FREE, call)),
        ("from-missing", "pass", 3, &|call| invite(FREE, call + 1000).replace("From:", "Form:")),
        ("not-a-number", "pass", 2, &|call| invite("alice", call)),
    ];
    // A retransmission is no further attempt. An unreadable message has no key to know it again by.
    let times =
        |reason: &str| if ["from-missing", "not-a-number"].contains(&reason) { 1 } else { 2 };
    for (reason, _, count, message) in &kinds {
        for call in 0..*count {
            for _ in 0..times(reason) {
                sender.send(5060, message(call).as_bytes()).unwrap();
            }
        }
    }
    let all: usize = kinds.iter().map(|(_, _, count, _)| count).sum();
    eventually("as many records as attempts", || gate.rows(&["calls"]).len() == all);
    let metrics = scrape(&lab);
    for (reason, verdict, count, _) in kinds {
        let rows = gate.rows(&["calls", "--reason", reason]);
        assert_eq!(rows.len(), count, "{reason}");
        assert!(rows.iter().all(|row| row["verdict"] == verdict), "{reason}: {rows:?}");
        let series = format!("palang_packets_total{{trunk=\"default\",reason=\"{reason}\"}}");
        assert_eq!(value(&metrics, &series), (count * times(reason)) as u64, "{series}");
    }
    let kept = || {
        let series = "palang_evidence_total{outcome=\"kept\"}";
        value(&scrape(&lab), series)
    };
    assert_eq!(kept(), 11 + 7, "an INVITE of each refused attempt, and of no other");
    eventually("all of them are stored", || {
        let metrics = scrape(&lab);
        value(&metrics, "palang_evidence_stored") == 11 + 7
    });
}
