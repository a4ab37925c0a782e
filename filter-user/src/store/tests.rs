//! Tests of the whole store, and helpers for the tests of its parts.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use filter_common::number::{Digits, Number};
use jiff::Timestamp;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use crate::model::policy::Subject;
use crate::store::path::beside;
use crate::store::*;

/// A folder with a store in it.
pub struct Home {
    pub folder: TempDir,
    pub path: PathBuf,
}

impl Home {
    pub fn new() -> Home {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("palang.db");
        Home { folder, path }
    }

    pub fn store(&self) -> Store {
        Store::open(&self.path).unwrap()
    }

    /// Changes the store through another connection.
    pub fn tamper(&self, sql: &str) {
        Connection::open(&self.path).unwrap().execute_batch(sql).unwrap();
    }

    /// Overwrites a page with decisions on it.
    pub fn break_a_page(&self) {
        let mut bytes = fs::read(&self.path).unwrap();
        let page = bytes.chunks(4096).position(|page| page.windows(8).any(|w| w == b"case 118"));
        bytes[page.unwrap() * 4096..][..4096].fill(0x5A);
        fs::write(&self.path, bytes).unwrap();
    }
}

pub fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

pub fn number(digits: &str) -> Subject {
    Subject::Number(Number::e164(Digits::parse(digits).unwrap()))
}

pub fn prefix(digits: &str) -> Subject {
    Subject::Prefix(Digits::parse(digits).unwrap())
}

pub fn block(rule: u64, subject: Subject) -> Decision {
    Decision {
        id: Uuid::from_u128(rule.into()),
        rule,
        kind: Kind::Block,
        subject,
        created: time(0),
        expires: Some(time(3600)),
        reason: "prank, case 118".to_owned(),
        author: "budi".to_owned(),
        origin: "operator".to_owned(),
        node: "edge1".to_owned(),
        flags: 0,
        redial: None,
        epoch: 0,
        incident: None,
    }
}

pub fn entry() -> Entry {
    Entry::new(time(0), "budi", "block add")
}

pub fn put(store: &mut Store, decisions: &[Decision]) {
    store.put(decisions, |_, _| entry()).unwrap();
}

pub fn all(reader: &Reader, kind: Kind) -> Vec<Decision> {
    let mut all = Vec::new();
    let push = |decision| {
        all.push(decision);
        ControlFlow::Continue(())
    };
    reader.for_each(kind, push).unwrap();
    all
}

/// Returns everything that a restart or a backup has to keep.
pub fn digest(reader: &Reader) -> (Vec<Decision>, Vec<Decision>, Head, Option<Timestamp>) {
    let head = reader.audit_head().unwrap();
    (all(reader, Kind::Block), all(reader, Kind::Allow), head, reader.newest().unwrap())
}

#[test]
fn a_new_store_is_private_and_survives_a_restart() {
    let home = Home::new();
    let mut store = home.store();
    put(&mut store, &[block(1, number("6281234567890"))]);
    for file in ["palang.db", "palang.db-wal"] {
        let mode = fs::metadata(home.folder.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "{file}");
    }
    let kept = digest(store.reader());
    drop(store);
    assert_eq!(digest(home.store().reader()), kept);
    assert_eq!(fs::read_dir(home.folder.path()).unwrap().count(), 1, "nothing is left beside it");
    assert_eq!(digest(&Reader::open(&home.path).unwrap()), kept);
}

#[test]
fn state_is_kept_with_its_audit_row() {
    let home = Home::new();
    let mut store = home.store();
    assert_eq!(store.reader().state::<serde_json::Value>("mode").unwrap(), None);
    let mode = json!({"mode": "enforce", "until": null});
    store.set_state("mode", &json!({"mode": "observe"}), None).unwrap();
    store.set_state("mode", &mode, Some(entry())).unwrap();
    assert_eq!(store.reader().state("mode").unwrap(), Some(mode));
    assert_eq!(store.reader().audit_head().unwrap().seq, 1);
    assert!(matches!(store.reader().state::<u64>("mode"), Err(Error::Corrupt { .. })));
}

#[test]
fn the_newest_time_only_moves_forward() {
    let home = Home::new();
    let mut store = home.store();
    assert_eq!(store.reader().newest().unwrap(), None);
    let at = |seconds| Entry::new(time(seconds), "budi", "attach");
    store.audit(at(50)).unwrap();
    store.audit(at(-9_000_000_000)).unwrap();
    assert_eq!(store.reader().newest().unwrap(), Some(time(50)));
    store.remove_expired(time(60), 10).unwrap();
    assert_eq!(store.reader().newest().unwrap(), Some(time(60)));
    store.seen(time(70)).unwrap();
    store.seen(time(65)).unwrap();
    assert_eq!(store.reader().newest().unwrap(), Some(time(70)));
}

#[test]
fn a_reader_never_waits_for_the_writer() {
    let home = Home::new();
    let mut store = home.store();
    let reader = Reader::open(&home.path).unwrap();
    reader.conn.busy_timeout(Duration::ZERO).unwrap();
    put(&mut store, &[block(1, number("1"))]);
    let mut during = 0;
    let two = [block(2, number("2")), block(3, number("3"))];
    let see = |_: &Decision, _: Option<&Decision>| {
        during += reader.count(Kind::Block).unwrap();
        entry()
    };
    store.put(&two, see).unwrap();
    assert_eq!(during, 2, "one block, asked for twice");
    assert_eq!(reader.count(Kind::Block).unwrap(), 3);
}

#[test]
fn a_reader_writes_nothing() {
    let home = Home::new();
    assert!(matches!(Reader::open(&home.path), Err(Error::Unopened { .. })));
    assert!(!home.path.exists());
    drop(home.store());
    let reader = Reader::open(&home.path).unwrap();
    reader.conn.execute("DELETE FROM state", []).unwrap_err();
}

#[test]
fn somebody_elses_lock_is_named() {
    let home = Home::new();
    let mut store = home.store();
    store.reader.conn.busy_timeout(Duration::ZERO).unwrap();
    let other = Connection::open(&home.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.audit(entry()).unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    other.execute_batch("COMMIT").unwrap();
    store.audit(entry()).unwrap();
}

/// Opens what is no store, in both ways; gives the message, after a look that the file is
/// as it was.
fn refused(home: &Home) -> String {
    let before = fs::read(&home.path).unwrap();
    let error = Store::open(&home.path).unwrap_err();
    let read = Reader::open(&home.path).unwrap_err();
    assert_eq!(fs::read(&home.path).unwrap(), before, "the file was touched");
    assert_eq!(error.message(), read.message());
    let message = error.message();
    assert!(message.contains(home.path.to_str().unwrap()), "{message}");
    message
}

#[test]
fn what_is_no_whole_store_is_refused_and_left_alone() {
    for what in ["garbage", "empty", "foreign", "cut", "header"] {
        let home = Home::new();
        if what == "foreign" {
            home.tamper("CREATE TABLE recipes (x); PRAGMA user_version = 1");
        } else {
            put(&mut home.store(), &[block(1, number("1"))]);
        }
        let mut bytes = fs::read(&home.path).unwrap();
        match what {
            "garbage" => bytes = b"not a database, but long enough for a header".repeat(100),
            "empty" => bytes.clear(),
            "cut" => bytes.truncate(bytes.len() / 2),
            "header" => bytes[..4096].fill(0),
            _ => {}
        }
        fs::write(&home.path, bytes).unwrap();
        let message = refused(&home);
        assert!(message.contains("Nothing was written"), "{what}: {message}");
        assert!(message.contains("palang store restore"), "{what}: {message}");
    }
}

#[test]
fn a_broken_page_is_found_by_whoever_reads_it() {
    let home = Home::new();
    let many: Vec<_> = (1..=2000).map(|i| block(i, number(&i.to_string()))).collect();
    put(&mut home.store(), &many);
    home.break_a_page();
    let reader = Reader::open(&home.path).unwrap();
    let error = reader.for_each(Kind::Block, |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(matches!(reader.check(), Err(Error::Corrupt { .. })));
}

#[test]
fn a_broken_store_with_a_wal_is_left_alone() {
    let home = Home::new();
    let mut store = home.store();
    store.reader.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    put(&mut store, &[block(1, number("1"))]);
    store.reader.conn.pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    assert!(refused(&home).contains("newer Palang"));
    assert!(fs::metadata(beside(&home.path, "-wal")).unwrap().len() > 0);
}

#[test]
fn tables_of_a_newer_version_are_refused() {
    let home = Home::new();
    drop(home.store());
    home.tamper("PRAGMA user_version = 99");
    let message = refused(&home);
    assert!(message.contains("version 99"), "{message}");
}

#[test]
fn a_wal_without_its_store_is_not_replayed_into_a_new_one() {
    let home = Home::new();
    fs::write(beside(&home.path, "-wal"), "changes").unwrap();
    let error = Store::open(&home.path).unwrap_err();
    assert!(error.message().contains("palang.db-wal"), "{error}");
    assert!(!home.path.exists());
}

#[test]
fn a_place_that_cannot_be_is_named() {
    let folder = TempDir::new().unwrap();
    for path in [folder.path().join("none/palang.db"), folder.path().to_owned()] {
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, Error::Failed { .. } | Error::Unopened { .. }), "{error}");
        assert!(error.to_string().starts_with(path.to_str().unwrap()), "{error}");
    }
}

/// A small disk of its own, gone with this value.
pub struct Disk(TempDir);

impl Disk {
    pub fn new() -> Disk {
        let folder = TempDir::new().unwrap();
        mount(None::<&str>, folder.path(), Some("tmpfs"), MsFlags::empty(), Some("size=1m"))
            .expect("this test mounts a tmpfs: run it as root");
        Disk(folder)
    }

    pub fn home(&self) -> Home {
        // Only the path is used on this disk.
        Home { folder: TempDir::new().unwrap(), path: self.0.path().join("palang.db") }
    }

    fn make_read_only(&self) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, self.0.path(), None::<&str>, flags, None::<&str>).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_full_disk_stores_nothing_by_halves() {
    let disk = Disk::new();
    let home = disk.home();
    let mut store = home.store();
    put(&mut store, &[block(1, number("1"))]);
    let before = digest(store.reader());
    let many = (2..100_000).map(|i| block(i, number(&i.to_string())));
    let error = store.put(many, |_, _| entry()).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert_eq!(digest(store.reader()), before);
    // A small change still fits.
    assert!(store.remove(Kind::Block, number("1"), entry()).unwrap().is_some());
    let after = digest(store.reader());
    drop(store);
    let store = home.store();
    assert_eq!(digest(store.reader()), after);
    assert_eq!(store.reader().verify_audit(Some(after.2)).unwrap().first_bad, None);
    store.reader().check().unwrap();
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_new_store_on_a_full_disk_leaves_nothing() {
    let disk = Disk::new();
    fs::write(disk.0.path().join("big"), vec![0; 1 << 21]).unwrap_err();
    let error = Store::open(&disk.home().path).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert_eq!(fs::read_dir(disk.0.path()).unwrap().count(), 1);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_read_only_disk_can_be_read() {
    let disk = Disk::new();
    let home = disk.home();
    let mut store = home.store();
    put(&mut store, &[block(1, number("1"))]);
    let kept = digest(store.reader());
    drop(store);
    disk.make_read_only();
    let error = Store::open(&home.path).unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
    assert_eq!(digest(&Reader::open(&home.path).unwrap()), kept);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_read_only_disk_with_changes_beside_the_store_is_not_half_read() {
    let disk = Disk::new();
    let home = disk.home();
    let mut store = home.store();
    put(&mut store, &[block(1, number("1"))]);
    store.reader.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    drop(store);
    fs::remove_file(beside(&home.path, "-shm")).unwrap();
    disk.make_read_only();
    let error = Reader::open(&home.path).unwrap_err();
    assert!(error.message().contains("palang.db-wal"), "{error}");
}

#[test]
fn what_is_written_into_a_deleted_file_is_not_stored() {
    let home = Home::new();
    let mut store = home.store();
    put(&mut store, &[block(1, number("1"))]);
    let aside = home.folder.path().join("aside");
    fs::rename(&home.path, &aside).unwrap();
    let error = store.put([&block(2, number("2"))], |_, _| entry()).unwrap_err();
    assert!(matches!(&error, Error::Gone { path } if *path == home.path), "{error}");
    assert!(store.clear_log().is_ok(), "nothing is answered by it");
    // Another file is another store.
    fs::copy(&aside, &home.path).unwrap();
    assert!(matches!(store.audit(entry()), Err(Error::Gone { .. })));
    fs::rename(&aside, &home.path).unwrap();
    put(&mut store, &[block(3, number("3"))]);
    let kept = digest(store.reader());
    drop(store);
    assert_eq!(digest(home.store().reader()), kept);
}

#[test]
fn a_deleted_log_takes_nothing_with_it_that_was_answered() {
    let home = Home::new();
    let mut store = home.store();
    put(&mut store, &[block(1, number("1"))]);
    let kept = digest(store.reader());
    let wal = beside(&home.path, "-wal");
    fs::remove_file(&wal).unwrap();
    let error = store.audit(entry()).unwrap_err();
    assert!(matches!(&error, Error::Gone { path } if *path == wal), "{error}");
    // As after a kill -9: nothing is written when it is closed.
    store.stop_writing("the test ends here");
    drop(store);
    for beside in ["-wal", "-shm"].map(|ending| beside(&home.path, ending)) {
        let _ = fs::remove_file(beside);
    }
    assert_eq!(digest(home.store().reader()), kept);
}
