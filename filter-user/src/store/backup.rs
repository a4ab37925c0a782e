//! Copies of the store: made while it is in use, restored on this machine or a new one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use nix::unistd::geteuid;
use rusqlite::OpenFlags;
use rusqlite::config::DbConfig;

use crate::store::error::{Error, is_corrupt};
use crate::store::part::Part;
use crate::store::path::{absolute, beside, pending_changes};
use crate::store::reader::Reader;
use crate::store::{connection, state, vacuum};

impl Reader {
    /// Copies the live store, as of one moment, to a file that does not exist yet (mode 0640).
    /// It is on disk and whole when this returns; after an error it is not there.
    ///
    /// # Errors
    /// `Exists` if there is a file; another error if a disk refuses. There is no copy then.
    pub fn backup(&self, path: &Path) -> Result<(), Error> {
        let path = absolute(path)?;
        if path.exists() {
            return Err(Error::Exists { path });
        }
        let part = Part::begin(path)?;
        self.copy(&part)?;
        part.sync()?;
        part.name()
    }

    fn copy(&self, part: &Part) -> Result<(), Error> {
        let Some(name) = part.file.path().to_str() else {
            let source = "SQLite wants a path in UTF-8".into();
            return Err(Error::Failed { path: part.path.clone(), source });
        };
        // Not the backup API: it begins again after each write to the store.
        let copy = || {
            if !vacuum::is_incremental(&self.conn)? {
                vacuum::make_incremental(&self.conn)?;
            }
            self.conn.execute("VACUUM INTO ?1", [name]).map(drop)
        };
        copy().map_err(|error| {
            // Then the store cannot be read, not the copy.
            if is_corrupt(&error) { self.error(error) } else { Error::sqlite(&part.path, error) }
        })
    }
}

/// Makes a store at `to` from the copy at `from`, which is checked first and not changed; no
/// daemon may use `to`. Returns the new name of the file that was at `to`, which needs
/// `replace`: it is renamed, never deleted.
///
/// # Errors
/// `Corrupt` or `Newer` for the copy; `Exists` if there is a store at `to`; `Failed` if it is in use.
/// Otherwise the error of a disk that refuses. Nothing was restored then.
pub fn restore(from: &Path, to: &Path, replace: bool) -> Result<Option<PathBuf>, Error> {
    let to = absolute(to)?;
    let copy = check_restore(from, &to, replace)?;
    let there = is_there(&to);
    let part = Part::begin(to)?;
    copy.copy(&part)?;
    part.with(|conn| state::mark_restored(conn))?;
    if geteuid().is_root() {
        part.give_to_owner()?;
    }
    part.sync()?;
    let away = if there { Some(move_away(&part.path)?) } else { None };
    part.name()?;
    Ok(away)
}

/// Checks everything that [`restore`] checks, and returns the complete copy. Changes nothing.
///
/// # Errors
/// Returns the errors of [`restore`], except those of a disk that refuses.
pub fn check_restore(from: &Path, to: &Path, replace: bool) -> Result<Reader, Error> {
    let to = absolute(to)?;
    let copy = Reader::open_any(from)?;
    copy.check()?;
    if is_there(&to) && !replace {
        return Err(Error::Exists { path: to });
    }
    if in_use(&to) {
        let source = "a program uses it: stop the daemon (`systemctl stop palang`) first".into();
        return Err(Error::Failed { path: to, source });
    }
    Ok(copy)
}

fn is_there(path: &Path) -> bool {
    path.exists() || pending_changes(path).is_some()
}

/// Checks whether another connection has the store open.
fn in_use(path: &Path) -> bool {
    let ask = || {
        let conn = connection::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        conn.busy_timeout(Duration::ZERO)?;
        conn.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
    };
    // No daemon works with a file that SQLite cannot read at all.
    ask().is_err_and(|error| matches!(Error::sqlite(path, error), Error::Busy { .. }))
}

/// Renames a store and what SQLite keeps beside it, so that it can still be opened.
fn move_away(path: &Path) -> Result<PathBuf, Error> {
    let now = Timestamp::now().strftime("%Y%m%dT%H%M%S%.3fZ");
    let away = beside(path, &format!(".before-restore-{now}"));
    if away.exists() {
        return Err(Error::Exists { path: away });
    }
    // The store is renamed before its -wal, which has the last changes: a -wal alone makes
    // `Store::open` refuse to create a new store.
    for ending in ["", "-wal", "-shm", "-journal"] {
        let old = beside(path, ending);
        if old.exists() {
            fs::rename(&old, beside(&away, ending)).map_err(|error| Error::io(&old, error))?;
        }
    }
    Ok(away)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rusqlite::Connection;

    use super::*;
    use crate::store::tests::*;
    use crate::store::{Kind, Store};

    fn names(home: &Home) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(home.folder.path())
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_backup_of_a_live_store_becomes_a_store_elsewhere() {
        let home = Home::new();
        let copy = home.folder.path().join("copy");
        let mut store = home.store();
        let many: Vec<_> = (1..=3000).map(|i| block(i, number(&i.to_string()))).collect();
        put(&mut store, &many);
        let reader = Reader::open(&home.path).unwrap();
        // The copy is of one moment, despite writes during it.
        let (before, after, store) = std::thread::scope(|scope| {
            let (started, wait) = std::sync::mpsc::channel();
            let writer = scope.spawn(move || {
                for rule in 3001..3200 {
                    put(&mut store, &[block(rule, number(&rule.to_string()))]);
                    let _ = started.send(());
                }
                store
            });
            wait.recv().unwrap();
            let before = reader.count(Kind::Block).unwrap();
            reader.backup(&copy).unwrap();
            let after = reader.count(Kind::Block).unwrap();
            (before, after, writer.join().unwrap())
        });
        let kept = digest(&Reader::open(&copy).unwrap());
        let count = kept.0.len() as u64;
        assert!((before..=after).contains(&count), "{before} {count} {after}");
        assert_eq!(kept.2.seq, count, "as many audit rows as blocks");

        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(matches!(store.reader().backup(&copy), Err(Error::Exists { .. })));
        assert!(matches!(store.reader().backup(&home.path), Err(Error::Exists { .. })));

        let new = Home::new();
        assert_eq!(restore(&copy, &new.path, false).unwrap(), None);
        assert_eq!(names(&new), ["palang.db"]);
        let mut restored = new.store();
        assert_eq!(digest(restored.reader()), kept);
        assert_eq!(restored.reader().verify_audit(Some(kept.2)).unwrap().first_bad, None);
        put(&mut restored, &[block(9999, number("9999"))]);
    }

    #[test]
    fn a_store_that_is_replaced_is_kept_whole() {
        let home = Home::new();
        let copy = home.folder.path().join("copy");
        let mut store = home.store();
        put(&mut store, &[block(1, number("1"))]);
        store.reader().backup(&copy).unwrap();
        let backed_up = digest(store.reader());
        put(&mut store, &[block(2, number("2"))]);
        let latest = digest(store.reader());

        assert!(matches!(restore(&copy, &home.path, false), Err(Error::Exists { .. })));
        let error = restore(&copy, &home.path, true).unwrap_err();
        assert!(error.message().contains("stop the daemon"), "{error}");
        assert_eq!(digest(store.reader()), latest);

        // As after a kill -9: the last changes are only in the -wal file.
        let config = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        store.reader().conn.set_db_config(config, true).unwrap();
        drop(store);
        assert!(names(&home).contains(&"palang.db-wal".to_owned()));
        let away = restore(&copy, &home.path, true).unwrap().unwrap();
        assert!(!names(&home).contains(&"palang.db-wal".to_owned()));
        assert_eq!(digest(home.store().reader()), backed_up);
        assert_eq!(digest(Store::open(&away).unwrap().reader()), latest);
    }

    #[test]
    fn a_corrupt_store_can_be_replaced_and_a_bad_copy_replaces_nothing() {
        let home = Home::new();
        let copy = home.folder.path().join("copy");
        let mut store = home.store();
        put(&mut store, &[block(1, number("1"))]);
        let kept = digest(store.reader());
        store.reader().backup(&copy).unwrap();
        drop(store);
        fs::write(&home.path, "garbage").unwrap();

        let bad = home.folder.path().join("bad");
        let newer = home.folder.path().join("newer");
        fs::write(&bad, &fs::read(&copy).unwrap()[..8192]).unwrap();
        fs::copy(&copy, &newer).unwrap();
        Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let odd = Home::new();
        put(&mut odd.store(), &[block(1, number("1"))]);
        // Something that is found by a look, and would be copied without one.
        let swap_column = |from: &str, to: &str| {
            odd.tamper(&format!(
                "PRAGMA writable_schema = ON;
                 UPDATE sqlite_schema SET sql = replace(sql, '{from}', '{to}')"
            ));
        };
        swap_column("reason TEXT NOT NULL", "reason TEXT");
        odd.tamper("UPDATE decisions SET reason = NULL");
        swap_column("reason TEXT", "reason TEXT NOT NULL");
        let before = names(&home);
        let error = restore(&odd.path, &home.path, true).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert!(matches!(restore(&bad, &home.path, true), Err(Error::Corrupt { .. })));
        assert!(matches!(restore(&newer, &home.path, true), Err(Error::Newer { .. })));
        assert!(restore(&home.folder.path().join("none"), &home.path, true).is_err());
        assert_eq!(names(&home), before);
        assert_eq!(fs::read(&home.path).unwrap(), b"garbage");

        let away = restore(&copy, &home.path, true).unwrap().unwrap();
        assert_eq!(fs::read(away).unwrap(), b"garbage");
        assert_eq!(digest(home.store().reader()), kept);
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn what_finds_no_room_changes_nothing() {
        let disk = Disk::new();
        let small = disk.home();
        let mut store = small.store();
        put(&mut store, &[block(1, number("1"))]);
        let kept = digest(store.reader());
        drop(store);
        let home = Home::new();
        let many: Vec<_> = (1..=3000).map(|i| block(i, number(&i.to_string()))).collect();
        put(&mut home.store(), &many);

        let copy = beside(&small.path, ".copy");
        assert!(
            matches!(home.store().reader().backup(&copy), Err(Error::Full { path }) if path == copy)
        );
        let error = restore(&home.path, &small.path, true).unwrap_err();
        assert!(matches!(error, Error::Full { .. }), "{error}");
        let left = fs::read_dir(small.path.parent().unwrap()).unwrap();
        let left = left.map(|file| file.unwrap().file_name().into_string().unwrap());
        // The -wal file is an empty one.
        assert!(left.into_iter().all(|name| name == "palang.db" || name == "palang.db-wal"));
        assert_eq!(digest(small.store().reader()), kept);
    }

    #[test]
    fn a_store_that_cannot_be_copied_is_named() {
        let home = Home::new();
        let many: Vec<_> = (1..=2000).map(|i| block(i, number(&i.to_string()))).collect();
        put(&mut home.store(), &many);
        home.break_a_page();
        let copy = home.folder.path().join("copy");
        let error = Reader::open(&home.path).unwrap().backup(&copy).unwrap_err();
        assert!(matches!(&error, Error::Corrupt { path, .. } if *path == home.path), "{error}");
        assert!(!copy.exists());
    }
}
