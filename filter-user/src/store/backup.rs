//! Copies of the store: made while it lives, put back onto the same machine or a new one.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{Error, Reader, absolute, beside, pending_changes};

/// The owner writes; its group, to which the roles belong, reads.
const MODE: u32 = 0o640;

impl Reader {
    /// Copies the live store, as of one moment, to a file that does not exist yet (mode 0640).
    /// It is on disk and whole when this returns; after an error it is not there.
    ///
    /// # Errors
    /// There is no copy: the file exists, or a disk says no.
    pub fn backup(&self, path: &Path) -> Result<(), Error> {
        let path = &absolute(path)?;
        if path.exists() {
            return Err(Error::Exists { path: path.clone() });
        }
        whole(path, |part| self.copy(part))
    }

    /// Writes a copy into an empty file.
    fn copy(&self, path: &Path) -> Result<(), Error> {
        // Not the backup API: it begins again whenever somebody writes to the store.
        let Some(name) = path.to_str() else {
            let what = "the copy's path is not UTF-8".to_owned();
            return Err(Error::Failed { path: path.to_owned(), what });
        };
        let copied = self.conn.execute("VACUUM INTO ?1", [name]);
        copied.map(drop).map_err(|error| Error::sqlite(path, &error))
    }
}

/// Makes a store at `to` from the copy at `from`, which is checked first and not changed; no
/// daemon may use `to`. Returns the new name of the file that was at `to`, which needs
/// `replace`: it is renamed, never deleted.
///
/// # Errors
/// `to` is as it was: the copy is no whole store or a newer one, `to` exists or is in use.
pub fn restore(from: &Path, to: &Path, replace: bool) -> Result<Option<PathBuf>, Error> {
    let to = &absolute(to)?;
    let copy = Reader::open_any(from)?;
    copy.check()?;
    let there = to.exists() || pending_changes(to).is_some();
    if there && !replace {
        return Err(Error::Exists { path: to.clone() });
    }
    if in_use(to) {
        let what = "a program uses it: stop the daemon (`systemctl stop palang`) first";
        return Err(Error::Failed { path: to.clone(), what: what.to_owned() });
    }
    // The daemon is not always the user who restores.
    let folder = to.parent().unwrap_or(Path::new("/"));
    let owner = fs::metadata(if to.exists() { to } else { folder });
    let owner = owner.map_err(|error| Error::io(to, &error))?;

    let mut moved = None;
    whole(to, |part| {
        copy.copy(part)?;
        chown(part, Some(owner.uid()), Some(owner.gid())).map_err(|e| Error::io(to, &e))?;
        if there {
            moved = Some(move_away(to)?);
        }
        Ok(())
    })?;
    Ok(moved)
}

/// Whether another connection has the store open.
fn in_use(path: &Path) -> bool {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let ask = || {
        let conn = Connection::open_with_flags(path, flags)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        conn.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
    };
    // A file that SQLite cannot read at all is not what a daemon works with.
    ask().is_err_and(|error| matches!(Error::sqlite(path, &error), Error::Busy { .. }))
}

/// Renames a store and what SQLite keeps beside it, so that it can still be opened.
fn move_away(path: &Path) -> Result<PathBuf, Error> {
    let now = Timestamp::now().strftime("%Y%m%dT%H%M%S%.3fZ");
    let away = beside(path, &format!(".before-restore-{now}"));
    if away.exists() {
        return Err(Error::Exists { path: away });
    }
    // The store before its -wal: without it the store would lack its last changes, and the
    // -wal alone makes `Store::open` refuse to begin a new one.
    for ending in ["", "-wal", "-shm", "-journal"] {
        let old = beside(path, ending);
        if old.exists() {
            fs::rename(&old, beside(&away, ending)).map_err(|error| Error::io(&old, &error))?;
        }
    }
    Ok(away)
}

/// Makes a file that is whole or not there: written beside its place, on disk, then named.
pub(super) fn whole(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<(), Error> {
    let say = |error| Error::io(path, &error);
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default();
    let part = tempfile::Builder::new().prefix(name).suffix(".part").tempfile_in(folder);
    let part = part.map_err(say)?;
    part.as_file().set_permissions(Permissions::from_mode(MODE)).map_err(say)?;
    fill(part.path())?;
    part.as_file().sync_all().map_err(say)?;
    part.persist_noclobber(path).map_err(|error| say(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(say)
}

#[cfg(test)]
mod tests {
    use super::super::tests::*;
    use super::super::{Kind, Store};
    use super::*;

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
        // The copy is of one moment, whatever is written meanwhile.
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
        assert!(matches!(store.backup(&copy), Err(Error::Exists { .. })));
        assert!(matches!(store.backup(&home.path), Err(Error::Exists { .. })));

        let new = Home::new();
        assert_eq!(restore(&copy, &new.path, false).unwrap(), None);
        assert_eq!(names(&new), ["palang.db"]);
        let mut restored = new.store();
        assert_eq!(digest(&restored), kept);
        assert_eq!(restored.verify_audit(Some(kept.2)).unwrap().first_bad, None);
        put(&mut restored, &[block(9999, number("9999"))]);
    }

    #[test]
    fn a_store_that_is_replaced_is_kept_whole() {
        let home = Home::new();
        let copy = home.folder.path().join("copy");
        let mut store = home.store();
        put(&mut store, &[block(1, number("1"))]);
        store.backup(&copy).unwrap();
        let backed_up = digest(&store);
        put(&mut store, &[block(2, number("2"))]);
        let latest = digest(&store);

        assert!(matches!(restore(&copy, &home.path, false), Err(Error::Exists { .. })));
        let error = restore(&copy, &home.path, true).unwrap_err();
        assert!(error.to_string().contains("stop the daemon"), "{error}");
        assert_eq!(digest(&store), latest);

        // As after a kill -9: the last changes are only in the -wal file.
        let config = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        store.conn.set_db_config(config, true).unwrap();
        drop(store);
        assert!(names(&home).contains(&"palang.db-wal".to_owned()));
        let away = restore(&copy, &home.path, true).unwrap().unwrap();
        assert!(!names(&home).contains(&"palang.db-wal".to_owned()));
        assert_eq!(digest(&home.store()), backed_up);
        assert_eq!(digest(&Store::open(&away).unwrap()), latest);
    }

    #[test]
    fn a_corrupt_store_can_be_replaced_and_a_bad_copy_replaces_nothing() {
        let home = Home::new();
        let copy = home.folder.path().join("copy");
        let mut store = home.store();
        put(&mut store, &[block(1, number("1"))]);
        let kept = digest(&store);
        store.backup(&copy).unwrap();
        drop(store);
        fs::write(&home.path, "garbage").unwrap();

        let bad = home.folder.path().join("bad");
        let newer = home.folder.path().join("newer");
        fs::write(&bad, &fs::read(&copy).unwrap()[..8192]).unwrap();
        fs::copy(&copy, &newer).unwrap();
        Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let before = names(&home);
        assert!(matches!(restore(&bad, &home.path, true), Err(Error::Corrupt { .. })));
        assert!(matches!(restore(&newer, &home.path, true), Err(Error::Newer { .. })));
        assert!(restore(&home.folder.path().join("none"), &home.path, true).is_err());
        assert_eq!(names(&home), before);
        assert_eq!(fs::read(&home.path).unwrap(), b"garbage");

        let away = restore(&copy, &home.path, true).unwrap().unwrap();
        assert_eq!(fs::read(away).unwrap(), b"garbage");
        assert_eq!(digest(&home.store()), kept);
    }
}
