//! Every refused attempt has a record, or is counted as lost or thinned, also in a fault. All that were
//! sent were judged, and recorded, thinned or lost.
//!
//! The records of other tests have no limits in a flood; these are about what is shipped.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use filter_common::reason::{Fate, Reason};
use palang::api::client;
use palang::api::client::Client;
use palang::api::wire::Top;
use palang_tests::lab::{Callers, Daemon, Lab, message};
use rusqlite::Connection;
use serde_json::Value;

use crate::abi_upgrade;
use crate::disk::Disk;
use crate::gate::{Gate, eventually, eventually_within};
use crate::metrics::{scrape, value};
use crate::preload;

const BLOCKED: &str = "+6281234567890";
const FREE: &str = "+6281100000001";
/// All numbers of a flood of many.
const PREFIX: &str = "+62812*";
/// Refusals of one number in a test of a fault: far more than have a record of their own.
const MANY: u64 = 1000;
/// The longest that the account may take until it is right.
const LONGEST: Duration = Duration::from_secs(30);
const METRICS: &str = "[metrics]\nlisten = \"127.0.0.1:9113\"";

/// Refused attempts by the counts of the kernel and the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub judged: u64,
    /// Attempts that records count.
    pub recorded: u64,
    pub thinned: u64,
    pub lost: u64,
    /// Records.
    pub rows: u64,
}

impl Refused {
    pub fn of(gate: &Gate<'_>) -> Refused {
        let rows = gate.rows(&["calls", "--verdict", "drop"]);
        // A daemon without counts has a record for each.
        let recorded = rows.iter().map(|row| row["attempts"].as_u64().unwrap_or(1)).sum();
        let status = gate.does(&["status"]);
        let refuses = |reason: &&Reason| reason.fate() == Fate::Refuse && reason.is_attempt();
        let packets = |reason: &Reason| status["packets"][reason.name()].as_u64();
        let judged = Reason::ALL.iter().filter(refuses).filter_map(packets).sum();
        let thinned = status["attempts"]["refused"]["thinned"].as_u64().unwrap_or_default();
        let lost = status["refused_lost"].as_u64().unwrap();
        Refused { judged, recorded, thinned, lost, rows: rows.len() as u64 }
    }

    fn adds_up(&self) -> bool {
        self.judged == self.recorded + self.thinned + self.lost
    }
}

/// Waits until the account is right. `sent` is how many were sent, each of which is refused.
#[track_caller]
pub fn adds_up(gate: &Gate<'_>, sent: u64) -> Refused {
    let mut last = Refused::of(gate);
    let deadline = Instant::now() + LONGEST;
    while Instant::now() < deadline {
        if last.judged == sent && last.adds_up() {
            // The API says the same, and nothing waits any more.
            let status = gate.does(&["status"]);
            let known = &status["attempts"]["refused"];
            // A daemon from before there was an account.
            if known.is_null() {
                return last;
            }
            if known["waiting"] == 0 {
                let known = |name: &str| known[name].as_u64().unwrap();
                assert_eq!(known("recorded"), last.recorded, "{status}");
                assert_eq!(known("judged"), known("recorded") + known("thinned") + known("lost"));
                return last;
            }
        }
        // The interval of the looks: each asks for all records.
        thread::sleep(Duration::from_millis(100));
        last = Refused::of(gate);
    }
    panic!("of {sent} refusals that were sent: {last:?}");
}

/// Starts a gate that blocks one number, with its state on a disk of its own.
fn on_a_disk<'a>(lab: &'a Lab, config: &str, size: &str) -> (Gate<'a>, Disk) {
    let mut gate = Gate::of(lab, Daemon::prepare(lab, config));
    let disk = Disk::mount(gate.daemon.state(), size);
    gate.daemon.start_again();
    enforce(&gate);
    (gate, disk)
}

fn enforce(gate: &Gate<'_>) {
    gate.does(&["mode", "enforce"]);
    gate.does(&["block", "add", BLOCKED, "--for", "24h", "--reason", "prank"]);
}

/// Locks the store as another program may, until what it returns is dropped.
fn lock_store(gate: &Gate<'_>) -> Connection {
    let other = Connection::open(gate.daemon.state().join("palang.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    other
}

/// Waits until the store's thread has tried this number of writes, all of which fail meanwhile.
fn wait_for_writes(lab: &Lab, count: u64) {
    let tried = || value(&scrape(lab), "palang_store_commit_seconds_count");
    let before = tried();
    // A write to a locked store takes 5 s.
    eventually_within(
        Duration::from_secs(60 + 10 * count),
        "the store's thread tries to write",
        || tried() >= before + count,
    );
}

/// Sends refusals, each a call of its own, slowly enough for the queue of the veth pair. Some are
/// judged in each of several looks of the daemon.
fn refuse(lab: &Lab, name: &str, count: u64) {
    let sender = lab.sender();
    for index in 0..count {
        let invite = message::invite(BLOCKED, &format!("{index}@{name}"));
        sender.send(5060, invite.as_bytes()).unwrap();
        if index % 16 == 0 {
            // The pace.
            thread::sleep(Duration::from_millis(8));
        }
    }
}

// A disk takes nothing, and an allow waits for it.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn refusals_during_a_full_disk_are_all_recorded() {
    let lab = Lab::new("records-full");
    let (gate, disk) = on_a_disk(&lab, METRICS, "4m");
    disk.fill();
    assert!(gate.does(&["allow", "add", FREE])["persisted"]["no"].is_string());
    refuse(&lab, "full", MANY);
    wait_for_writes(&lab, 3);
    assert_eq!(gate.does(&["status"])["refused_lost"], 0, "they wait");
    disk.make_room();
    let refused = adds_up(&gate, MANY);
    assert_eq!(refused.lost, 0, "there was room to wait: {refused:?}");
    assert!(gate.passes(FREE) && !gate.passes(BLOCKED));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn refusals_without_an_open_store_are_recorded_or_counted_as_lost() {
    let lab = Lab::new("records-unopened");
    let mut gate = Gate::start(&lab, "");
    enforce(&gate);
    refuse(&lab, "before", 20);
    adds_up(&gate, 20);
    assert_eq!(gate.daemon.stop(), 0);
    let store = gate.daemon.state().join("palang.db");
    let away = gate.daemon.state().join("away.db");
    fs::rename(&store, &away).unwrap();
    fs::create_dir(&store).unwrap();
    gate.daemon.start_again();
    refuse(&lab, "unopened", MANY);
    // The records that this daemon has in memory are lost with it.
    gate.kill_and_start();
    refuse(&lab, "again", MANY);
    fs::remove_dir(&store).unwrap();
    fs::rename(&away, &store).unwrap();
    let refused = adds_up(&gate, 20 + 2 * MANY);
    assert!((MANY / 2..=MANY).contains(&refused.lost), "{refused:?}");
}

/// Returns the usual number, or that of an environment variable.
fn number(variable: &str, usual: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(usual, |text| text.parse().expect("a number"))
}

// `PALANG_LOCK_WRITES=12` for the long form.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn refusals_during_a_locked_store_are_all_recorded() {
    let lab = Lab::new("records-locked");
    let gate = Gate::start(&lab, METRICS);
    enforce(&gate);
    let lock = lock_store(&gate);
    // Longer than the store waits for a lock. A change waits for it in front of the records.
    assert_ne!(gate.does(&["allow", "add", FREE])["persisted"], "yes");
    refuse(&lab, "locked", MANY);
    wait_for_writes(&lab, number("PALANG_LOCK_WRITES", 3));
    refuse(&lab, "still", MANY);
    assert!(gate.passes(FREE) && !gate.passes(BLOCKED));
    drop(lock);
    let refused = adds_up(&gate, 2 * MANY + 1);
    assert_eq!(refused.lost, 0, "there was room to wait: {refused:?}");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn refusals_during_a_hanging_disk_are_all_recorded() {
    let lab = Lab::new("records-hang");
    let mut gate = Gate::of(&lab, Daemon::prepare(&lab, ""));
    let hangs = preload::hanging_disk(&mut gate.daemon);
    gate.daemon.start_again();
    enforce(&gate);
    File::create(&hangs).unwrap();
    gate.does(&["allow", "add", FREE]);
    refuse(&lab, "hang", MANY);
    assert_eq!(gate.does(&["status"])["refused_lost"], 0, "they wait");
    fs::remove_file(&hangs).unwrap();
    assert_eq!(adds_up(&gate, MANY).lost, 0, "there was room to wait");
}

// Records in memory go with the process, and the next one counts them.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn refusals_in_the_memory_of_a_killed_daemon_are_counted_as_lost() {
    let lab = Lab::new("records-kill");
    let mut gate = Gate::start(&lab, "");
    enforce(&gate);
    refuse(&lab, "before", 20);
    adds_up(&gate, 20);
    let lock = lock_store(&gate);
    refuse(&lab, "kill", MANY);
    gate.daemon.kill();
    drop(lock);
    gate.daemon.start_again();
    let refused = adds_up(&gate, MANY + 20);
    assert!(refused.lost > 0, "{refused:?}");
    // Another start does not forget them.
    gate.daemon.restart();
    assert_eq!(adds_up(&gate, MANY + 20).lost, refused.lost);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn refusals_beyond_the_queue_of_a_hanging_disk_are_counted_as_lost() {
    let lab = Lab::new("records-queue");
    let config = "[records]\nper_number = 0\nper_trunk = 0";
    let mut gate = Gate::of(&lab, Daemon::prepare(&lab, config));
    let hangs = preload::hanging_disk(&mut gate.daemon);
    gate.daemon.start_again();
    enforce(&gate);
    File::create(&hangs).unwrap();
    gate.does(&["allow", "add", FREE]);
    let flood = lab.flood(Callers::One(BLOCKED));
    let full = || {
        let lost = gate.does(&["status"])["refused_lost"].as_u64().unwrap();
        // The kernel's ring also loses events, and goes on meanwhile: it is read last.
        let kernel = gate.maps().event_stats().unwrap().refused_lost;
        lost > kernel + 2_000
    };
    // 100,000 attempts fit into the queue: that takes its time on a machine with other work.
    eventually_within(Duration::from_secs(180), "the queue is full", full);
    let sent = flood.stop();
    fs::remove_file(&hangs).unwrap();
    let refused = adds_up(&gate, sent);
    assert!(refused.recorded > 100_000 && refused.lost > 1000, "{refused:?}");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn refusal_that_the_store_rejects_is_the_only_one_lost() {
    let lab = Lab::new("records-odd");
    let gate = Gate::start(&lab, "");
    enforce(&gate);
    let other = Connection::open(gate.daemon.state().join("palang.db")).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER odd BEFORE INSERT ON calls WHEN NEW.call_id = '0@odd'
             BEGIN SELECT RAISE(ABORT, 'odd'); END",
        )
        .unwrap();
    refuse(&lab, "odd", 50);
    let refused = adds_up(&gate, 50);
    assert_eq!((refused.recorded, refused.lost), (49, 1));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn refusals_across_stops_and_kills_are_recorded_or_counted_as_lost() {
    let lab = Lab::new("records-stop");
    let mut gate = Gate::start(&lab, "");
    enforce(&gate);
    let mut sent = 0;
    for round in 0..6 {
        thread::scope(|scope| {
            let sending = scope.spawn(|| refuse(&lab, &format!("stop{round}"), MANY));
            // It ends amid the calls.
            let maps = gate.maps();
            let judged = || maps.count(0, Reason::BlockedNumber).unwrap();
            eventually("some are judged", || judged() > sent + 50);
            if round % 2 == 0 {
                assert_eq!(gate.daemon.stop(), 0);
            } else {
                gate.daemon.kill();
            }
            gate.daemon.start_again();
            sending.join().unwrap();
        });
        sent += MANY;
        let lost = adds_up(&gate, sent).lost;
        assert!(round != 0 || lost == 0, "{lost} were lost with a daemon that was told to stop");
    }
}

// The attempts that a killed daemon had in memory are lost also when the next one has other maps.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn refusals_before_new_maps_are_recorded_or_counted_as_lost() {
    let lab = Lab::new("records-layout");
    let mut gate = Gate::start(&lab, "");
    enforce(&gate);
    let known = |gate: &Gate<'_>| {
        let refused = gate.does(&["status"])["attempts"]["refused"].clone();
        ["judged", "waiting", "lost"].map(|name| refused[name].as_u64().unwrap())
    };
    for (name, upgrade) in [("capacity", false), ("layout", true)] {
        let [judged, _, lost] = known(&gate);
        let lock = lock_store(&gate);
        refuse(&lab, name, MANY);
        eventually("the daemon has them in memory", || known(&gate)[1] >= MANY);
        gate.daemon.kill();
        // These are in the ring, which a daemon of another layout cannot read.
        refuse(&lab, &format!("{name}-ring"), 100);
        drop(lock);
        if upgrade {
            gate.daemon.set_program(abi_upgrade::program());
        } else {
            gate.daemon.configure("limits.blocks = 30000");
        }
        gate.daemon.start_again();
        // The kernel begins to count again with new maps; the daemon goes on.
        let all = judged + MANY + 100;
        eventually("nothing waits", || known(&gate)[..2] == [all, 0]);
        let refused = Refused { judged: all, ..Refused::of(&gate) };
        assert!(refused.adds_up(), "{name}: {refused:?}");
        let unread = if upgrade { 100 } else { 0 };
        assert!(refused.lost >= lost + MANY / 2 + unread, "{lost} before: {refused:?}");
        assert!(!gate.passes(BLOCKED));
    }
}

/// Calls one after the other for a while; returns how many calls.
fn prank_calls(gate: &Gate<'_>, caller: &str, while_it: impl Fn() -> bool) -> u64 {
    let sender = gate.lab.sender();
    let mut calls = 0;
    while while_it() {
        let invite = message::invite(caller, &format!("{calls}@prank"));
        sender.send(5060, invite.as_bytes()).unwrap();
        calls += 1;
        // The pace.
        thread::sleep(Duration::from_millis(500));
    }
    calls
}

// A flood from one number, and another blocked caller beside it who calls every half a second.
// `PALANG_FLOOD_SECONDS=60` for the long form.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn flood_of_one_number_fills_no_disk_and_delays_no_block() {
    flood_of(Callers::One(BLOCKED), "one");
}

// A flood from 100,000,000 numbers, all of which a prefix blocks.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn flood_of_all_numbers_fills_no_disk_and_delays_no_block() {
    flood_of(Callers::Many(100_000_000), "all");
}

// A flood from 2,000 numbers.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn flood_of_many_numbers_fills_no_disk_and_delays_no_block() {
    flood_of(Callers::Many(2000), "many");
}

fn flood_of(callers: Callers, name: &str) {
    const PRANK: &str = "+6281355555555";
    let lab = Lab::new(&format!("records-{name}"));
    let (gate, _disk) = on_a_disk(&lab, METRICS, "1g");
    for number in [PREFIX, PRANK] {
        gate.does(&["block", "add", number, "--for", "24h", "--reason", "prank"]);
    }
    let time = Duration::from_secs(number("PALANG_FLOOD_SECONDS", 5));
    let begun = Instant::now();
    let flood = lab.flood(callers);
    let (mut slowest, mut blocks) = (Duration::ZERO, 0);
    let pranks = thread::scope(|scope| {
        let pranks = scope.spawn(|| prank_calls(&gate, PRANK, || begun.elapsed() < time));
        while begun.elapsed() < time {
            let asked = Instant::now();
            let number = format!("+628777{blocks:07}");
            gate.does(&["block", "add", &number, "--for", "1h", "--reason", "prank"]);
            slowest = slowest.max(asked.elapsed());
            assert!(gate.kernel_block(&number).is_some());
            blocks += 1;
        }
        pranks.join().unwrap()
    });
    let elapsed = begun.elapsed();
    let sent = flood.stop() + pranks;
    let refused = adds_up(&gate, sent);
    let bytes: u64 = fs::read_dir(gate.daemon.state())
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    println!(
        "{name}: {sent} in {elapsed:?}, {} a second; {refused:?}; {bytes} bytes; {blocks} blocks, \
         the slowest {slowest:?}; {pranks} prank calls",
        sent / elapsed.as_secs().max(1)
    );
    // 100 of a trunk a second, and one second more at each end.
    let seconds = elapsed.as_secs() + 2;
    assert!(refused.rows <= 100 * seconds, "{} records in {seconds} s", refused.rows);
    if callers == Callers::One(BLOCKED) {
        let rows = gate.rows(&["calls", "--caller", BLOCKED]).len() as u64;
        assert!(rows <= 5 * (seconds / 60 + 2), "{rows} records of one number");
        assert_eq!(refused.thinned, 0);
        // Another caller has a record for each call, except where the kernel's ring was full.
        let rows = gate.rows(&["calls", "--caller", PRANK]).len() as u64;
        assert!(rows <= pranks && rows + refused.lost >= pranks, "{rows} of {pranks}");
    } else {
        assert!(refused.thinned > 0);
        let metrics = scrape(&lab);
        let series = "palang_refusals_thinned_total{trunk=\"default\"}";
        assert_eq!(value(&metrics, series), refused.thinned);
        let findings = gate.findings();
        assert!(findings.iter().any(|told| told.starts_with("amber: a flood")), "{findings:?}");
    }
    let metrics = scrape(&lab);
    let of = |name: &str| value(&metrics, &format!("palang_{name}{{verdict=\"refused\"}}"));
    assert_eq!(of("attempts_total"), sent);
    assert_eq!(of("attempts_recorded_total") + of("events_lost_total") + refused.thinned, sent);
    assert_eq!(of("attempts_waiting"), 0);
    // The store of SQLite, its log of 64 MiB at most, and 300 bytes a record.
    assert!(bytes < (80 << 20) + 300 * refused.rows, "{bytes} bytes");
    assert!(blocks > 0 && slowest < Duration::from_secs(5), "{blocks} blocks, {slowest:?}");
    let all: Vec<Value> = gate.rows(&["block", "list"]);
    assert_eq!(all.len(), blocks + 3);
}

// People see how many attempts a record counts.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn record_of_many_attempts_shows_their_number() {
    let lab = Lab::new("records-shown");
    let gate = Gate::start(&lab, "");
    enforce(&gate);
    refuse(&lab, "shown", MANY);
    let refused = adds_up(&gate, MANY);
    assert_eq!((refused.recorded, refused.lost, refused.thinned), (MANY, 0, 0));
    assert!(refused.rows < 5 * 60, "{refused:?}");
    let rows = gate.rows(&["calls"]);
    let most = rows.iter().max_by_key(|row| row["attempts"].as_u64()).unwrap();
    let attempts = most["attempts"].as_u64().unwrap();
    assert!(attempts > 1);
    let shown = gate.daemon.cli(&["calls", "show", &most["id"].to_string()]).stdout;
    assert!(
        shown.contains(&format!("this attempt, and {} further refused", attempts - 1)),
        "{shown}"
    );
    let held = gate.does(&["export", "--number", BLOCKED]);
    let held = held["calls"].as_array().unwrap().iter();
    assert_eq!(held.map(|call| call["attempts"].as_u64().unwrap()).sum::<u64>(), MANY);
    let mut busiest = 0;
    let socket = gate.daemon.runtime().join("palang.sock");
    let looked = Client::new(&socket).list(&client::path(&["top"], &[]), |top: Top| {
        busiest = top.busiest[0].refused;
        ControlFlow::Break(())
    });
    looked.unwrap();
    assert_eq!(busiest, MANY);
    // Erased meanwhile, a number begins with a new record.
    gate.does(&["block", "remove", BLOCKED]);
    gate.does(&["erase", "--number", BLOCKED, "--reason", "asked for"]);
    gate.does(&["block", "add", BLOCKED, "--for", "1h", "--reason", "prank"]);
    refuse(&lab, "erased", 10);
    eventually("they are on record", || {
        let rows = gate.rows(&["calls", "--caller", BLOCKED]);
        rows.iter().map(|row| row["attempts"].as_u64().unwrap()).sum::<u64>() == 10
    });
}
