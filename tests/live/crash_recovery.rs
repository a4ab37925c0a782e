//! The filter outlives the daemon: verdicts, counters, expiries and records go on without it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::ops::ControlFlow;
use std::time::Duration;

use palang::api::client;
use palang::api::client::Client;
use palang::api::wire::{ImportNews, ImportRow, Status};
use palang::datapath::{Pins, walk_blocks};
use palang::model::number_text;
use palang::model::policy::{Policy, Subject};
use palang::sys::clock;
use palang_tests::lab::{Daemon, INTERFACE, Lab, Traffic, now, run};

use crate::api::{Api, SOON, eventually};

const BLOCKED: &str = "+6281200000001";
/// Blocked for some seconds.
const BRIEFLY: &str = "+6281200000002";
const INNOCENT: [&str; 2] = ["+6281200000003", "0812-0000-0004"];
const CALLERS: [&str; 4] = [BLOCKED, BRIEFLY, INNOCENT[0], INNOCENT[1]];

/// Room for this number of blocks.
const ROOM: u32 = 50_000;

/// Returns a configuration with which every refusal has a record of its own.
fn config() -> String {
    format!("limits.blocks = {ROOM}\nrecords.per_number = 0\nrecords.per_trunk = 0")
}

/// Returns the status as root sees it when no daemon answers.
fn status_without_daemon(daemon: &Daemon) -> Status {
    let mut command = daemon.command(&["status", "-o", "json"]);
    let said = run::run(command.env("PALANG_CONFIG", daemon.config_file()));
    let status: Status = serde_json::from_str(&said.stdout)
        .unwrap_or_else(|error| panic!("{error}: {} {}", said.stdout, said.stderr));
    assert!(!status.daemon);
    status
}

fn count(status: &Status, reason: &str) -> u64 {
    status.packets.get(reason).copied().unwrap_or_default()
}

/// Sends some INVITEs of every caller.
fn some(traffic: &Traffic) {
    traffic.wait_for(20 * CALLERS.len());
}

/// Returns when the kernel ends a block, on the clock of the lab.
fn end_in_map(daemon: &Daemon, number: &str) -> u64 {
    let plan = Policy::default().trunks[0].profile.plan;
    let wanted = number_text::typed(number, &plan).expect("a number");
    let mut end = None;
    walk_blocks(&Pins::new(daemon.pins()).maps(ROOM), u64::MAX, |subject, block| {
        if subject == wanted {
            end = Some(block.expires);
        }
        Ok(())
    })
    .expect("the blocks in the map");
    // Both clocks differ by the time that the machine was suspended.
    end.expect("the block in the map") - clock::boot() + now()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn killed_daemon_changes_no_verdict_and_the_next_one_takes_over() {
    let lab = Lab::new("killed");
    let mut daemon = Daemon::start(&lab, &config());
    let api = Api::of(&daemon);
    api.enforce();
    let receiver = lab.receiver(5060);
    let traffic = lab.traffic(&receiver, &CALLERS, 800, 1_000_000);
    let adding = now();
    api.block(BLOCKED, 3600);
    api.block(BRIEFLY, 3);
    let added = now();
    let end = end_in_map(&daemon, BRIEFLY);
    let spread = added - adding + 1_000_000;
    assert!(end > adding + 3_000_000_000 - spread && end < added + 3_000_000_000 + spread);
    some(&traffic);
    let old_program = api.interface(INTERFACE).program;

    daemon.kill();
    let dead = now();
    let first = status_without_daemon(&daemon);
    some(&traffic);
    let second = status_without_daemon(&daemon);
    for reason in ["blocked-number", "not-blocked"] {
        assert!(count(&second, reason) > count(&first, reason), "{reason}: {:?}", second.packets);
    }
    assert_eq!(second.mode.mode, "enforce");
    assert_eq!(second.interfaces[0].xdp.as_deref(), Some("native"));
    receiver
        .wait_for(SOON, |one| one.from_user() == BRIEFLY && one.at > dead)
        .expect("the short block ends");
    some(&traffic);
    let alive = now();
    daemon.start_again();
    some(&traffic);
    assert_ne!(api.interface(INTERFACE).program, old_program);
    let record = traffic.stop();

    for caller in INNOCENT {
        assert_eq!(record.refused(caller, ..).len(), 0, "{caller}");
    }
    assert_eq!(record.delivered(BLOCKED, added..).len(), 0);
    assert!(!record.refused(BLOCKED, dead..alive).is_empty());
    assert!(!record.refused(BRIEFLY, dead..end).is_empty(), "it ended before the daemon");
    assert_eq!(record.delivered(BRIEFLY, added..end).len(), 0);
    assert!(!record.delivered(BRIEFLY, end..alive).is_empty());
    assert_eq!(record.refused(BRIEFLY, end..).len(), 0);

    let status = api.status();
    assert_eq!((status.drift, status.reattached), (0, 0));
    assert_eq!((status.refused_lost, status.passed_lost), (0, 0));
    let refused: usize = CALLERS.iter().map(|caller| record.refused(caller, ..).len()).sum();
    assert_eq!(count(&status, "blocked-number"), refused as u64);
    // Of the time without a daemon, refused and passed.
    for caller in CALLERS {
        let wanted = record.sent(caller, dead..alive);
        eventually("a record of every call", || {
            let calls = api.calls(caller).into_iter().filter_map(|call| call.call_id);
            let calls: HashSet<_> = calls.collect();
            wanted.iter().all(|invite| calls.contains(&invite.call_id)).then_some(())
        });
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn stopped_daemon_leaves_the_filter_in_force() {
    let lab = Lab::new("stopped");
    let mut daemon = Daemon::start(&lab, &config());
    let api = Api::of(&daemon);
    api.enforce();
    api.block(BLOCKED, 3600);
    let receiver = lab.receiver(5060);
    let traffic = lab.traffic(&receiver, &CALLERS, 2_000, 1_000_000);
    some(&traffic);
    assert_eq!(daemon.stop(), 0);
    let stopped = now();
    some(&traffic);
    let status = status_without_daemon(&daemon);
    assert_eq!(status.interfaces[0].xdp.as_deref(), Some("native"));
    let record = traffic.stop();
    assert!(!record.refused(BLOCKED, stopped..).is_empty());
    assert_eq!(record.delivered(BLOCKED, ..).len(), 0);
    for caller in INNOCENT {
        assert_eq!(record.refused(caller, ..).len(), 0, "{caller}");
    }

    // Nor was a record lost with it.
    daemon.start_again();
    let refused = record.refused(BLOCKED, ..stopped);
    // The next daemon stores what the rings still hold after it is ready.
    eventually("a record of every refused call", || {
        let calls: HashSet<_> =
            api.calls(BLOCKED).into_iter().filter_map(|call| call.call_id).collect();
        refused.iter().all(|invite| calls.contains(&invite.call_id)).then_some(())
    });
}

/// Where an import is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// Rows are being stored: the store's log grows.
    InStore,
    /// All is stored, and half of it is in the map.
    InMap,
}

/// Rows of an import.
const ROWS: u32 = 20_000;

fn rows(round: u32) -> Vec<u8> {
    let expires = Some(clock::now() + Duration::from_secs(3600));
    let row = |line: u32| {
        let row = ImportRow {
            line: line.into(),
            number: format!("+628{round}{line:08}"),
            expires,
            reason: "a test".into(),
            author: String::new(),
            origin: String::new(),
            observe: false,
            redial: None,
            no_redial: false,
            refuse: None,
        };
        serde_json::to_string(&row).expect("JSON") + "\n"
    };
    (1..=ROWS).map(row).collect::<String>().into_bytes()
}

/// Returns number and rule of the entries in the kernel's map.
fn in_map(daemon: &Daemon) -> HashMap<Subject, u64> {
    let mut found = HashMap::new();
    walk_blocks(&Pins::new(daemon.pins()).maps(ROOM), u64::MAX, |subject, block| {
        found.insert(subject, block.rule);
        Ok(())
    })
    .expect("the blocks in the map");
    found
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn an_import_that_is_cut_off_is_stored_whole_or_not_at_all() {
    let lab = Lab::new("import");
    let mut daemon = Daemon::start(&lab, &config());
    let api = Api::of(&daemon);
    let plan = Policy::default().trunks[0].profile.plan;
    let mut stored = 0;
    for (round, cut) in (1..).zip([Cut::InStore, Cut::InMap]) {
        let socket = daemon.runtime().join("palang.sock");
        let (news, heard) = std::sync::mpsc::channel();
        let importer = std::thread::spawn(move || {
            let path = client::path(&["blocks", "import"], &[]);
            let rows = std::io::Cursor::new(rows(round));
            Client::new(&socket).post_lines(
                &path,
                rows,
                |_| {},
                |line: ImportNews| {
                    let _ = news.send(line);
                    ControlFlow::Continue(())
                },
            )
        });
        match cut {
            Cut::InStore => {
                let log = daemon.state().join("palang.db-wal");
                let length = || fs::metadata(&log).map_or(0, |log| log.len());
                let before = length();
                while length() < before + (1 << 20) {
                    assert!(!importer.is_finished(), "the import ended before it was cut off");
                    std::thread::yield_now();
                }
            }
            Cut::InMap => {
                let first = heard.recv_timeout(Duration::from_secs(60)).expect("progress");
                assert!(matches!(first, ImportNews::Progress { .. }), "{first:?}");
                stored += ROWS;
            }
        }
        daemon.kill();
        let told = importer.join().expect("the importer");
        assert!(told.is_err(), "{cut:?}: the import ended before it was cut off");
        let left = in_map(&daemon).len() as u32;
        daemon.start_again();

        let blocks = api.blocks();
        assert_eq!(blocks.len() as u32, stored, "{cut:?}");
        let blocks = blocks.iter().map(|block| {
            let number = number_text::typed(&format!("+{}", block.number), &plan);
            (number.expect("a number"), block.rule)
        });
        assert!(in_map(&daemon) == blocks.collect(), "{cut:?}: map and store differ");
        println!("{cut:?}: {left} of {stored} blocks were in the map");
    }
    assert!(daemon.cli(&["audit", "verify"]).code == 0);
}
