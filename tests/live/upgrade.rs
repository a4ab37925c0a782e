//! Another program in the pinned link, with other maps: no call notices.

use std::collections::HashSet;
use std::fs;

use palang::api::wire::Health;
use palang_tests::lab::{Daemon, INTERFACE, Lab, Record, Traffic, now, run};

use crate::abi_upgrade;
use crate::api::{Api, eventually};

/// Blocked by number, and by prefix.
const BLOCKED: [&str; 2] = ["+6281200000001", "0777-000-0002"];
const PREFIX: &str = "+62777*";
/// Blocked and allowed; blocked and allowed while no daemon runs.
const ALLOWED: &str = "+6281200000003";
const ALLOWED_BY_HAND: &str = "+6281200000004";
/// Neither.
const INNOCENT: &str = "+6281200000005";
/// Every refusal has a record of its own.
const RECORDS: &str = "records.per_number = 0\nrecords.per_trunk = 0\n";
const CALLERS: [&str; 5] = [BLOCKED[0], BLOCKED[1], ALLOWED, ALLOWED_BY_HAND, INNOCENT];

/// Starts a daemon that enforces blocks and an allow.
fn start<'a>(lab: &'a Lab, config_toml: &str) -> (Daemon<'a>, Api) {
    let daemon = Daemon::start(lab, config_toml);
    let api = Api::of(&daemon);
    api.enforce();
    for number in [BLOCKED[0], PREFIX, ALLOWED, ALLOWED_BY_HAND] {
        api.block(number, 3600);
    }
    api.allow(ALLOWED);
    (daemon, api)
}

/// Runs a command while no daemon answers.
fn by_hand(daemon: &Daemon, arguments: &[&str]) {
    run::must(daemon.command(arguments).env("PALANG_CONFIG", daemon.config_file()));
}

/// Sends some INVITEs of every caller.
fn some(traffic: &Traffic) {
    traffic.wait_for(40 * CALLERS.len());
}

fn program_id(api: &Api) -> u32 {
    let interface = api.interface(INTERFACE);
    assert_eq!((interface.xdp.as_deref(), interface.problem), (Some("native"), None));
    interface.program.expect("a program")
}

/// Returns the folders of pinned maps.
fn map_folders(daemon: &Daemon) -> Vec<String> {
    let entries = fs::read_dir(daemon.pins()).expect("the pins");
    let names = entries.map(|entry| entry.expect("a pin").file_name().into_string());
    let mut names: Vec<_> = names.map(|name| name.expect("a name")).collect();
    names.retain(|name| name.starts_with('v'));
    names.sort();
    names
}

fn nobody_innocent_is_lost(record: &Record) {
    for caller in [ALLOWED, INNOCENT] {
        assert!(!record.delivered(caller, ..).is_empty());
        assert_eq!(record.refused(caller, ..).len(), 0, "{caller}");
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn restart_replaces_the_program_and_keeps_the_maps() {
    let lab = Lab::new("restart");
    let (mut daemon, api) = start(&lab, "");
    let receiver = lab.receiver(5060);
    let traffic = lab.traffic(&receiver, &CALLERS, 4_000, 1_000_000);
    some(&traffic);
    let mut program = program_id(&api);
    for _ in 0..3 {
        daemon.restart();
        some(&traffic);
        let old = std::mem::replace(&mut program, program_id(&api));
        assert_ne!(old, program);
        let status = api.status();
        assert_eq!((status.drift, status.reattached), (0, 0));
        assert_eq!((status.blocks, status.allows), (Some(4), Some(1)));
    }
    let record = traffic.stop();
    nobody_innocent_is_lost(&record);
    for caller in BLOCKED {
        assert_eq!(record.delivered(caller, ..).len(), 0, "{caller}");
    }
}

/// Asserts that every refusal has a record or is counted as lost, also without a daemon.
fn every_refusal_has_a_record(api: &Api, record: &Record, lost: u64) {
    let blocked = || BLOCKED.into_iter().chain([ALLOWED_BY_HAND]);
    let without = || {
        let records = blocked().flat_map(|caller| api.calls(caller));
        let call_ids: HashSet<_> = records.filter_map(|call| call.call_id).collect();
        let refused = blocked().flat_map(|caller| record.refused(caller, ..));
        refused.filter(|invite| !call_ids.contains(&invite.call_id)).count() as u64
    };
    eventually("a record of every refusal", || (without() <= lost).then_some(()));
    assert_eq!(without(), lost, "refusals without a record");
}

/// Upgrades and goes back under traffic, and returns how many refusals have no record.
///
/// An allow that was set by hand before the one holds as well as those that the daemon knows. So
/// does an override that was set by hand before the other.
fn there_and_back(
    name: &str,
    there: impl FnOnce(&mut Daemon),
    back: impl FnOnce(&mut Daemon),
) -> u64 {
    let lab = Lab::new(name);
    let (mut daemon, api) = start(&lab, RECORDS);
    let old_folders = map_folders(&daemon);
    let old_program = program_id(&api);
    let receiver = lab.receiver(5060);
    let traffic = lab.traffic(&receiver, &CALLERS, 2_000, 1_000_000);
    some(&traffic);

    assert_eq!(daemon.stop(), 0);
    there(&mut daemon);
    let allowing = now();
    by_hand(&daemon, &["allow", "add", ALLOWED_BY_HAND]);
    let allowed = now();
    some(&traffic);
    daemon.start_again();
    some(&traffic);
    let new_program = program_id(&api);
    assert_ne!(new_program, old_program);
    assert_eq!(map_folders(&daemon).len(), 1);
    assert_ne!(map_folders(&daemon), old_folders);
    let status = api.status();
    assert_eq!((status.blocks, status.allows), (Some(4), Some(2)));
    assert_eq!((status.drift, status.reattached), (0, 0));
    let lost_there = status.refused_lost;

    assert_eq!(daemon.stop(), 0);
    back(&mut daemon);
    let overriding = now();
    by_hand(&daemon, &["override", "on", "--for", "1h", "--reason", "flood"]);
    let overridden = now();
    some(&traffic);
    daemon.start_again();
    some(&traffic);
    assert_ne!(program_id(&api), new_program);
    assert_eq!(map_folders(&daemon), old_folders);
    assert_eq!(api.get_override().reason.as_deref(), Some("flood"));
    let ending = now();
    api.set_override(0);
    let ended = now();
    some(&traffic);
    assert_eq!(api.status().drift, 0);
    let record = traffic.stop();

    nobody_innocent_is_lost(&record);
    for caller in BLOCKED {
        assert!(!record.refused(caller, ..overriding).is_empty());
        assert_eq!(record.delivered(caller, ..overriding).len(), 0, "{caller}");
        assert!(!record.delivered(caller, overridden..ending).is_empty());
        assert_eq!(record.refused(caller, overridden..ending).len(), 0, "{caller}");
        assert!(!record.refused(caller, ended..).is_empty());
        assert_eq!(record.delivered(caller, ended..).len(), 0, "{caller}");
    }
    assert!(!record.refused(ALLOWED_BY_HAND, ..allowing).is_empty());
    assert_eq!(record.delivered(ALLOWED_BY_HAND, ..allowing).len(), 0);
    assert_eq!(record.refused(ALLOWED_BY_HAND, allowed..).len(), 0);
    // The account goes on with other maps.
    let lost = api.status().refused_lost;
    assert!(lost >= lost_there);
    every_refusal_has_a_record(&api, &record, lost);
    let audit = api.audit();
    for action in ["allow adopt", "override adopt"] {
        assert!(audit.iter().any(|entry| entry["action"] == action), "{action}: {audit:?}");
    }
    lost
}

// A start with other maps was cut off; what was set by hand before still has to reach them.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn interrupted_upgrade_is_finished_by_the_next_start() {
    let lab = Lab::new("cut");
    let (mut daemon, api) = start(&lab, "");
    let old_folders = map_folders(&daemon);
    let receiver = lab.receiver(5060);
    let traffic = lab.traffic(&receiver, &CALLERS, 2_000, 1_000_000);
    assert_eq!(daemon.stop(), 0);
    let allowing = now();
    by_hand(&daemon, &["allow", "add", ALLOWED_BY_HAND]);
    let allowed = now();
    by_hand(&daemon, &["override", "on", "--for", "1h", "--reason", "flood"]);
    let overridden = now();
    // Only the maps know it, as after a full disk.
    fs::remove_file(daemon.state().join("direct.jsonl")).expect("the notes");

    daemon.configure("limits.blocks = 30000");
    daemon.spawn();
    eventually("the folder of the new maps", || (map_folders(&daemon).len() == 2).then_some(()));
    daemon.kill();
    assert_eq!(map_folders(&daemon).len(), 2, "the start was done before it was cut off");
    some(&traffic);
    daemon.start_again();
    some(&traffic);
    assert_ne!(map_folders(&daemon), old_folders);
    assert_eq!(map_folders(&daemon).len(), 1);
    let ending = now();
    api.set_override(0);
    let ended = now();
    some(&traffic);
    assert_eq!((api.status().blocks, api.status().allows), (Some(4), Some(2)));

    let record = traffic.stop();
    nobody_innocent_is_lost(&record);
    for caller in BLOCKED {
        assert_eq!(record.refused(caller, overridden..ending).len(), 0, "{caller}");
        assert_eq!(record.delivered(caller, ..allowing).len(), 0, "{caller}");
        assert_eq!(record.delivered(caller, ended..).len(), 0, "{caller}");
    }
    assert_eq!(record.refused(ALLOWED_BY_HAND, allowed..).len(), 0);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn upgrade_to_other_maps_without_a_store_keeps_the_policy() {
    let lab = Lab::new("storeless");
    let (mut daemon, api) = start(&lab, "");
    let receiver = lab.receiver(5060);
    let traffic = lab.traffic(&receiver, &CALLERS, 2_000, 1_000_000);
    assert_eq!(daemon.stop(), 0);
    fs::write(daemon.state().join("palang.db"), "no database at all").expect("the store");
    daemon.configure("limits.blocks = 30000");
    daemon.start_again();
    some(&traffic);
    program_id(&api);
    assert_eq!(api.status().colour, Health::Red);
    let record = traffic.stop();
    nobody_innocent_is_lost(&record);
    for caller in BLOCKED {
        assert_eq!(record.delivered(caller, ..).len(), 0, "{caller}");
    }
}

// The program cannot be replaced: somebody moved the pin of its link.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn program_that_cannot_be_replaced_keeps_its_maps() {
    let lab = Lab::new("stays");
    let (mut daemon, api) = start(&lab, "");
    let old_program = program_id(&api);
    let receiver = lab.receiver(5060);
    let traffic = lab.traffic(&receiver, &CALLERS, 2_000, 1_000_000);
    assert_eq!(daemon.stop(), 0);
    let links = daemon.pins().join("links");
    fs::rename(links.join(INTERFACE), daemon.pins().join("moved")).expect("moved");
    daemon.configure("limits.blocks = 30000");
    daemon.start_again();
    assert_eq!(api.interface(INTERFACE).program, Some(old_program));
    assert_eq!(api.status().colour, Health::Red);
    assert_eq!(map_folders(&daemon).len(), 2);
    some(&traffic);
    daemon.kill();
    let overriding = now();
    by_hand(&daemon, &["override", "on", "--for", "1h", "--reason", "flood"]);
    let overridden = now();
    some(&traffic);

    let record = traffic.stop();
    nobody_innocent_is_lost(&record);
    for caller in BLOCKED {
        assert_eq!(record.delivered(caller, ..overriding).len(), 0, "{caller}");
        assert_eq!(record.refused(caller, overridden..).len(), 0, "{caller}");
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn capacity_below_the_number_of_blocks_is_refused() {
    let lab = Lab::new("room");
    let (mut daemon, api) = start(&lab, "");
    let (old_folders, old_program) = (map_folders(&daemon), program_id(&api));
    let receiver = lab.receiver(5060);
    let traffic = lab.traffic(&receiver, &CALLERS, 2_000, 1_000_000);
    assert_eq!(daemon.stop(), 0);
    daemon.configure("limits.blocks = 2");
    daemon.spawn();
    assert_eq!(daemon.wait_for_end(), 1);
    let said = daemon.stderr();
    assert!(said.contains("full: 3 of 2 blocked numbers"), "{said}");
    assert_eq!(map_folders(&daemon), old_folders);
    some(&traffic);
    daemon.configure("");
    daemon.start_again();
    some(&traffic);
    assert_ne!(program_id(&api), old_program);
    let record = traffic.stop();
    nobody_innocent_is_lost(&record);
    for caller in BLOCKED {
        assert_eq!(record.delivered(caller, ..).len(), 0, "{caller}");
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn capacity_raised_and_lowered_loses_no_event() {
    let lost = there_and_back(
        "capacity",
        |daemon| daemon.configure(&format!("{RECORDS}limits.blocks = 30000")),
        |daemon| daemon.configure(RECORDS),
    );
    assert_eq!(lost, 0);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn upgrade_to_another_layout_and_back_counts_lost_events() {
    let other = abi_upgrade::program();
    let this = palang_tests::lab::daemon::program();
    let lost = there_and_back(
        "layout",
        |daemon| daemon.set_program(other),
        |daemon| daemon.set_program(&this),
    );
    assert!(lost > 0, "events of another layout were read");
}
