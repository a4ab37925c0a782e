//! Disks that are full, hang, take no writes or hold garbage. Allows and overrides work at once, a
//! block is refused with the reason, and the state in force stays so.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use filter_common::abi::TOMBSTONE;
use palang_tests::lab::{Daemon, Lab, run};
use serde_json::{Value, json};

use crate::gate::{Gate, eventually};
use crate::preload;

const FIRST: &str = "+6281200000001";
const SECOND: &str = "+6281200000002";
const THIRD: &str = "+6281200000003";
const PREFIXED: &str = "+6281300000001";
const CALLERS: [&str; 3] = [FIRST, SECOND, PREFIXED];

/// Adds a block that is not there.
const ADD: [&str; 7] = ["block", "add", THIRD, "--for", "1h", "--reason", "prank"];

/// A small disk for a daemon's state; dropped, it is gone.
pub struct Disk(PathBuf);

impl Disk {
    /// The source of the file system, for `mount` and for [`sweep`](Disk::sweep).
    const NAME: &str = "palang-test-disk-";

    /// Mounts one of a size such as `4m`.
    pub fn mount(folder: PathBuf, size: &str) -> Disk {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(Disk::sweep);
        fs::create_dir(&folder).unwrap();
        let name = format!("{}{}", Disk::NAME, std::process::id());
        let options = ["-t", "tmpfs", "-o", &format!("size={size}"), &name];
        run::must(Command::new("mount").args(options).arg(&folder));
        Disk(folder)
    }

    /// Takes away the disks of tests that were killed.
    fn sweep() {
        for line in fs::read_to_string("/proc/mounts").unwrap().lines() {
            let mut words = line.split(' ');
            let (Some(name), Some(folder)) = (words.next(), words.next()) else { continue };
            let pid = name.strip_prefix(Disk::NAME);
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                run::run(Command::new("umount").args(["--lazy", folder]));
            }
        }
    }

    /// Fills the disk: not a byte more fits.
    pub fn fill(&self) {
        let mut file = File::create(self.0.join("fill")).unwrap();
        loop {
            match file.write(&[0; 4096]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub fn make_room(&self) {
        fs::remove_file(self.0.join("fill")).unwrap();
    }

    fn remount(&self, how: &str) {
        run::must(Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run::run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

/// Starts a gate on a disk of its own, that refuses [`CALLERS`].
fn on_a_disk(lab: &Lab) -> (Gate<'_>, Disk) {
    let mut gate = Gate::of(lab, Daemon::prepare(lab, ""));
    let disk = Disk::mount(gate.daemon.state(), "4m");
    gate.daemon.start_again();
    blocks(&gate);
    (gate, disk)
}

fn blocks(gate: &Gate) {
    gate.does(&["mode", "enforce"]);
    for number in [FIRST, SECOND, "+62813*"] {
        gate.does(&["block", "add", number, "--for", "24h", "--reason", "prank"]);
    }
    assert!(gate.passing(&CALLERS).is_empty());
}

/// Runs each command that refuses calls, with a store that takes no writes: it prints `why`, and
/// nothing changes.
fn nothing_more_is_refused(gate: &Gate, why: &str) {
    let file = gate.daemon.folder().join("blocks.csv");
    fs::write(&file, "number,expires,reason\n0812-0000-0003,2099-01-01T00:00:00Z,prank\n").unwrap();
    let longer = ["block", "add", "+62813*", "--for", "48h", "--reason", "prank"];
    let before = gate.kernel_block("+62813*");
    for command in [
        &ADD[..],
        &longer,
        &["block", "import", file.to_str().unwrap()],
        &["mode", "enforce", "--for", "1h"],
    ] {
        let said = gate.fails(1, command);
        assert!(said.contains(why), "{command:?}: {said}");
        assert!(said.contains("palang.db"), "{command:?}: {said}");
    }
    assert_eq!(gate.kernel_block("+62813*"), before);
    assert_eq!(gate.kernel_block(THIRD), None);
    assert!(gate.passes(THIRD));
    let kind = problem_of_an_addition(gate)["kind"].clone();
    assert_eq!(kind, "store");
}

/// Returns what the API itself says.
fn problem_of_an_addition(gate: &Gate) -> Value {
    let socket = gate.daemon.runtime().join("palang.sock");
    let body = json!({"number": THIRD, "seconds": 3600, "reason": "prank"}).to_string();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "20", "--unix-socket"]).arg(socket);
    curl.args(["--header", "Content-Type: application/json", "--data", &body]);
    let answer = run::must(curl.arg("http://palang/v1/blocks"));
    serde_json::from_str(&answer).unwrap()
}

/// Asserts that a change is in force and not on disk, because of this.
fn assert_not_on_disk(answer: &Value, why: &str) {
    let told = answer["persisted"]["no"].as_str().unwrap_or_else(|| panic!("{answer}"));
    assert!(told.contains(why), "{told}");
}

fn actions(gate: &Gate) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    gate.audit().iter().map(|record| text(&record["action"])).collect()
}

/// Waits until everything that is in force is on disk.
fn wait_for_the_disk(gate: &Gate) {
    eventually("the store takes writes", || {
        let findings = gate.findings();
        !findings.iter().any(|told| told.contains("store") || told.contains("not on disk"))
    });
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn allow_and_override_on_a_full_disk_are_in_force() {
    let lab = Lab::new("disk-full");
    let (mut gate, disk) = on_a_disk(&lab);
    gate.does(&["override", "on", "--for", "1h", "--reason", "before"]);
    gate.does(&["override", "off"]);
    disk.fill();
    let (head, before) = (gate.head(), actions(&gate).len());
    nothing_more_is_refused(&gate, "the disk is full");
    gate.fails(4, &["block", "show", THIRD]);
    assert_eq!(gate.head(), head);

    let on = ["override", "on", "--for", "1h", "--reason", "flood"];
    assert_not_on_disk(&gate.does(&on), "the disk is full");
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    let told = gate.does(&["override", "status"]);
    assert_ne!(told["persisted"], "yes", "{told}");
    assert_ne!(told["reason"], "before", "{told}");
    assert_not_on_disk(&gate.does(&["override", "off"]), "the disk is full");
    assert!(gate.passing(&CALLERS).is_empty());
    assert_not_on_disk(&gate.does(&["allow", "add", FIRST]), "the disk is full");
    assert_eq!(gate.passing(&CALLERS), [FIRST]);
    let said = gate.fails(1, &["allow", "remove", FIRST]);
    assert!(said.contains("the disk is full"), "{said}");
    assert_not_on_disk(&gate.does(&["block", "remove", SECOND]), "the disk is full");
    assert_eq!(gate.passing(&CALLERS), [FIRST, SECOND]);
    assert_eq!(gate.kernel_block(SECOND).unwrap().expires, TOMBSTONE);
    gate.fails(4, &["block", "remove", THIRD]);
    assert_not_on_disk(&gate.does(&["mode", "observe"]), "the disk is full");
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    let told = gate.daemon.cli(&["override", "off"]);
    assert!(told.stderr.contains("NOT ON DISK"), "{told:?}");
    let findings = gate.findings();
    let is = |text: &str| findings.iter().any(|told| told.contains(text));
    assert!(is("red: the store takes no writes; the filter remains in force: "), "{findings:?}");
    assert!(is("amber: 6 changes are in force and not on disk"), "{findings:?}");
    assert_eq!(gate.head(), head);

    disk.make_room();
    wait_for_the_disk(&gate);
    let expected = ["override on", "override off", "allow add", "block remove", "mode observe"];
    assert_eq!(actions(&gate)[before..before + 5], expected);
    assert!(gate.audit()[before..].iter().all(|record| record["author"] == "root"));
    assert_eq!(gate.kernel_block(SECOND), None);
    gate.kill_and_start();
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    gate.does(&["mode", "enforce"]);
    assert_eq!(gate.passing(&CALLERS), [FIRST, SECOND]);
    gate.does(&ADD);
    assert!(!gate.passes(THIRD));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn change_not_written_to_a_full_disk_outlives_a_kill() {
    let lab = Lab::new("disk-full-kill");
    let (mut gate, disk) = on_a_disk(&lab);
    disk.fill();
    let before = actions(&gate).len();
    gate.does(&["override", "on", "--for", "1h", "--reason", "flood"]);
    gate.does(&["allow", "add", FIRST, "--comment", "in need"]);
    gate.does(&["block", "remove", SECOND]);
    for start in 0..2 {
        gate.kill_and_start();
        assert_eq!(gate.passing(&CALLERS), CALLERS, "{start}");
        nothing_more_is_refused(&gate, "the disk is full");
    }
    gate.does(&["override", "off"]);
    gate.kill_and_start();
    assert_eq!(gate.passing(&CALLERS), [FIRST, SECOND]);
    gate.does(&["mode", "observe"]);
    for start in 0..2 {
        gate.kill_and_start();
        assert_eq!(gate.passing(&CALLERS), CALLERS, "{start}");
    }
    assert_eq!(actions(&gate).len(), before);

    disk.make_room();
    wait_for_the_disk(&gate);
    eventually("all is adopted", || {
        let actions = actions(&gate);
        let expected = ["allow adopt", "block remove", "mode adopt"];
        expected.iter().all(|action| actions.iter().any(|found| found == action))
    });
    assert_eq!(gate.kernel_block(SECOND), None);
    gate.fails(4, &["block", "show", SECOND]);
    gate.kill_and_start();
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    gate.does(&["mode", "enforce"]);
    assert_eq!(gate.passing(&CALLERS), [FIRST, SECOND]);
    gate.head();
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn hanging_disk_delays_only_changes_that_block() {
    let lab = Lab::new("disk-hangs");
    let mut gate = Gate::of(&lab, Daemon::prepare(&lab, ""));
    let hangs = preload::hanging_disk(&mut gate.daemon);
    gate.daemon.start_again();
    blocks(&gate);
    let before = actions(&gate).len();

    File::create(&hangs).unwrap();
    let mut adding = gate.daemon.command(&ADD);
    let mut adding = adding.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let quickly = |arguments: &[&str]| {
        let begun = Instant::now();
        let answer = gate.does(arguments);
        assert!(begun.elapsed() < Duration::from_secs(10), "{arguments:?}: {:?}", begun.elapsed());
        answer
    };
    let pending = |arguments: &[&str]| assert_eq!(quickly(arguments)["persisted"], "pending");
    pending(&["override", "on", "--for", "1h", "--reason", "flood"]);
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    pending(&["override", "off"]);
    assert!(gate.passing(&CALLERS).is_empty());
    pending(&["allow", "add", FIRST]);
    pending(&["block", "remove", SECOND]);
    assert_eq!(gate.passing(&CALLERS), [FIRST, SECOND]);
    let status = quickly(&["status"]);
    assert_eq!(status["daemon"], true);
    let told = status["findings"].to_string();
    assert!(told.contains("4 changes are in force and not on disk"), "{told}");
    assert!(adding.try_wait().unwrap().is_none());
    assert_eq!(gate.kernel_block(THIRD), None);
    assert!(gate.passes(THIRD));

    fs::remove_file(&hangs).unwrap();
    let status = adding.wait().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(!gate.passes(THIRD));
    wait_for_the_disk(&gate);
    let mut done = actions(&gate)[before..].to_vec();
    done.sort();
    let expected = ["allow add", "block add", "block remove", "override off", "override on"];
    assert_eq!(done, expected);
    gate.kill_and_start();
    assert_eq!(gate.passing(&CALLERS), [FIRST, SECOND]);
    assert!(!gate.passes(THIRD));
}

// Changes that wait for the disk are lost with the daemon; the maps have them.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn change_not_written_to_a_hanging_disk_outlives_a_kill() {
    let lab = Lab::new("disk-hangs-kill");
    let mut gate = Gate::of(&lab, Daemon::prepare(&lab, ""));
    let hangs = preload::hanging_disk(&mut gate.daemon);
    gate.daemon.start_again();
    blocks(&gate);
    let before = actions(&gate).len();
    File::create(&hangs).unwrap();
    gate.does(&["override", "on", "--for", "1h", "--reason", "flood"]);
    gate.does(&["allow", "add", FIRST, "--comment", "in need"]);
    gate.does(&["block", "remove", SECOND]);
    gate.kill_and_start();
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    gate.does(&["override", "off"]);
    assert_eq!(gate.passing(&CALLERS), [FIRST, SECOND]);
    let findings = gate.findings();
    assert!(findings.iter().any(|told| told.contains("not on disk")), "{findings:?}");

    // Without the daemon, too.
    gate.daemon.kill();
    let mut by_hand = gate.daemon.command(&["allow", "add", PREFIXED, "-o", "json"]);
    by_hand.env("PALANG_CONFIG", gate.daemon.config_file());
    preload::hang(&mut by_hand, &gate.daemon);
    let begun = Instant::now();
    let output = run::run(&mut by_hand);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let answer: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(answer["persisted"], "pending", "{output:?}");
    assert_eq!(gate.passing(&CALLERS), CALLERS);

    fs::remove_file(&hangs).unwrap();
    gate.daemon.start_again();
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    let mut adopted = actions(&gate)[before..].to_vec();
    // The change that waited first may be in the log of the store, and count after a kill.
    adopted.retain(|action| !action.starts_with("override"));
    adopted.sort();
    assert_eq!(adopted, ["allow adopt", "allow adopt", "block remove"]);
    gate.kill_and_start();
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    assert_eq!(gate.rows(&["allow", "list"]).len(), 2);
    gate.head();
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn read_only_disk_leaves_the_last_maps_in_force() {
    let lab = Lab::new("disk-read-only");
    let (mut gate, disk) = on_a_disk(&lab);
    for end in ["kill", "stop"] {
        if end == "kill" {
            gate.daemon.kill();
        } else {
            assert_eq!(gate.daemon.stop(), 0);
        }
        disk.remount("ro");
        gate.daemon.start_again();
        assert!(gate.passing(&CALLERS).is_empty(), "{end}");
        let findings = gate.findings();
        assert!(findings.iter().any(|told| told.starts_with("red: the store")), "{findings:?}");
        assert!(findings.iter().any(|told| told.contains("read-only")), "{findings:?}");
        nothing_more_is_refused(&gate, "read-only");
        assert_not_on_disk(&gate.does(&["allow", "add", FIRST]), "read-only");
        assert_not_on_disk(&gate.does(&["block", "remove", SECOND]), "read-only");
        assert_eq!(gate.passing(&CALLERS), [FIRST, SECOND]);
        gate.kill_and_start();
        assert_eq!(gate.passing(&CALLERS), [FIRST, SECOND]);

        disk.remount("rw");
        wait_for_the_disk(&gate);
        eventually("it is adopted", || gate.rows(&["allow", "list"]).len() == 1);
        eventually("it is adopted", || gate.kernel_block(SECOND).is_none());
        gate.does(&["allow", "remove", FIRST]);
        gate.does(&["block", "add", SECOND, "--for", "1h", "--reason", "prank"]);
        assert!(gate.passing(&CALLERS).is_empty());
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn store_corrupt_at_the_start_changes_nothing_in_the_kernel() {
    let lab = Lab::new("corrupt");
    for (what, at, all_in_one) in
        [("the head", 0, true), ("the head", 0, false), ("the middle", 4096, true)]
    {
        let mut gate = Gate::start(&lab, "");
        blocks(&gate);
        let store = gate.daemon.state().join("palang.db");
        if all_in_one {
            // A copy has in the file what SQLite still had in the log beside it.
            let copy = gate.daemon.folder().join("copy.db");
            gate.does(&["store", "backup", copy.to_str().unwrap()]);
            gate.daemon.kill();
            fs::rename(copy, &store).unwrap();
            for ending in ["-wal", "-shm"] {
                fs::remove_file(store.with_extension(format!("db{ending}"))).unwrap();
            }
            gate.daemon.start_again();
        }
        gate.daemon.kill();
        let length = store.metadata().unwrap().len();
        let garbage = vec![0xa5; (length as usize - at).min(64 << 10)];
        File::options().write(true).open(&store).unwrap().write_at(&garbage, at as u64).unwrap();
        let corrupt = fs::read(&store).unwrap();
        gate.daemon.start_again();
        assert!(gate.passing(&CALLERS).is_empty(), "{what}");
        let findings = gate.findings();
        let name = store.to_str().unwrap();
        let tells = |told: &String| told.starts_with("red: ") && told.contains(name);
        let told = findings.iter().find(|told| tells(told));
        let told = told.unwrap_or_else(|| panic!("{what}: {findings:?}"));
        assert!(told.contains("palang store restore"), "{what}: {told}");
        nothing_more_is_refused(&gate, "is not a complete store");
        assert_not_on_disk(&gate.does(&["allow", "add", FIRST]), "is not a complete store");
        gate.does(&["override", "on", "--for", "1h", "--reason", "flood"]);
        assert_eq!(gate.passing(&CALLERS), CALLERS, "{what}");
        gate.does(&["override", "off"]);
        gate.kill_and_start();
        assert_eq!(gate.passing(&CALLERS), [FIRST], "{what}");
        assert_eq!(gate.daemon.stop(), 0);
        assert!(fs::read(&store).unwrap() == corrupt, "{what}: the file was changed");
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn store_corrupted_while_the_daemon_runs_changes_nothing_in_the_kernel() {
    let lab = Lab::new("breaks");
    let mut gate = Gate::start(&lab, "");
    blocks(&gate);
    let store = gate.daemon.state().join("palang.db");
    let garbage = vec![0xa5; store.metadata().unwrap().len() as usize];
    File::options().write(true).open(&store).unwrap().write_at(&garbage, 0).unwrap();
    eventually("status tells", || {
        let findings = gate.findings();
        let tells = |told: &String| {
            told.starts_with("red: ") && told.contains("palang.db") && told.contains("restore")
        };
        findings.iter().any(tells)
    });
    assert!(gate.passing(&CALLERS).is_empty());
    nothing_more_is_refused(&gate, "is not a complete store");
    assert_not_on_disk(&gate.does(&["allow", "add", FIRST]), "is not a complete store");
    assert_not_on_disk(&gate.does(&["block", "remove", SECOND]), "is not a complete store");
    assert_eq!(gate.passing(&CALLERS), [FIRST, SECOND]);
    assert_eq!(gate.daemon.stop(), 0);
    gate.daemon.start_again();
    assert_eq!(gate.passing(&CALLERS), [FIRST, SECOND]);
    gate.daemon.stop();
    assert!(fs::read(&store).unwrap() == garbage, "the file was changed");
}
