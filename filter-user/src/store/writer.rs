//! Opens the store for changes: each is one transaction with its audit row.

use std::path::Path;

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::store::chain::Head;
use crate::store::error::Error;
use crate::store::part::Part;
use crate::store::path::{absolute, on_read_only_disk, pending_changes};
use crate::store::place::Place;
use crate::store::pseudonym::Pseudonyms;
use crate::store::reader::{Reader, connect};
use crate::store::schema::Millis;
use crate::store::{chain, schema, vacuum};

/// Page cache of the writer in KiB: an import of a million rows touches its indexes everywhere.
const WRITER_CACHE_KIB: i64 = 65_536;
/// A commit writes the log into the file only if the log has this many pages (64 MiB).
/// [`bring_in_log`](crate::store::bring_in_log) does it before that, without a waiting writer.
const LOG_PAGES: i64 = 16_384;

/// Key of the newest time seen: milliseconds since 1970, UTC.
pub(super) const NEWEST: &str = "newest";

/// The store, open for changes.
#[derive(Debug)]
pub struct Store {
    pub(super) reader: Reader,
    /// Pseudonyms of numbers in the audit.
    names: Pseudonyms,
    /// Damage of the file; once it is set, nothing is written any more.
    corrupt: Option<String>,
    /// Its files as they were when it was opened.
    place: Place,
}

impl Store {
    /// Returns the reader of this connection: it sees each change of the store at once.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Opens the store at `path`, creates it (mode 0640) if it does not exist, and migrates its tables
    /// to this version.
    ///
    /// # Errors
    /// Returns an error if it cannot be opened. A file that is not a complete store is never written to.
    pub fn open(path: &Path) -> Result<Store, Error> {
        let path = &absolute(path)?;
        if !path.try_exists().map_err(|error| Error::io(path, error))? {
            create(path)?;
        }
        if on_read_only_disk(path) {
            return Err(Error::ReadOnly { path: path.clone() });
        }
        let mut conn = connect(path, path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let mut prepare = || {
            // SQLite opens a file like this if the user may only read it.
            if conn.is_readonly("main")? {
                return Ok(None);
            }
            // Deleted rows are overwritten, so that an erased number is not left in the file.
            conn.pragma_update(None, "secure_delete", "ON")?;
            schema::migrate(&mut conn)?;
            // Without room for this, the file just does not shrink.
            let _ = vacuum::rewrite(&conn);
            // WAL lets readers read on; FULL keeps an acknowledged commit through a power cut.
            conn.pragma_update(None, "journal_mode", "WAL")?;
            conn.pragma_update(None, "synchronous", "FULL")?;
            conn.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
            conn.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
            conn.pragma_update(None, "journal_size_limit", vacuum::LOG)?;
            conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
            Pseudonyms::of(&conn).map(Some)
        };
        match prepare() {
            Ok(Some(names)) => {
                let reader = Reader { conn, path: path.clone() };
                Ok(Store { reader, names, corrupt: None, place: Place::of(path) })
            }
            Ok(None) => Err(Error::ReadOnly { path: path.clone() }),
            Err(error) => Err(Error::sqlite(path, error)),
        }
    }

    /// Runs one change as one transaction, that moves the newest time seen as well.
    pub(super) fn write<T>(
        &mut self,
        change: impl FnOnce(&mut Write<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        let Reader { conn, path } = &mut self.reader;
        if let Some(what) = &self.corrupt {
            return Err(Error::Corrupt { path: path.clone(), source: what.clone().into() });
        }
        if let Err(gone) = self.place.check() {
            if self.place.is_only_log_gone() {
                // The answered changes are then at least in the file.
                let _ = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
            }
            return Err(gone);
        }
        let names = &self.names;
        let transact = || {
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let head = chain::head(&tx)?;
            let mut write = Write { tx, head, names, seen: None };
            let outcome = change(&mut write)?;
            if let Some(seen) = write.seen {
                move_newest(&write.tx, seen)?;
            }
            write.tx.commit()?;
            Ok(outcome)
        };
        let error = match transact() {
            // The file may be gone by now, and the change with it.
            Ok(outcome) => return self.place.check().map(|()| outcome),
            Err(error) => Error::sqlite(path, error),
        };
        if let Some(damage) = error.damage() {
            self.stop_writing(&damage);
        }
        Err(error)
    }

    /// Checks that its files are still those that were opened.
    ///
    /// # Errors
    /// [`Error::Gone`] if they are not.
    pub fn check_place(&self) -> Result<(), Error> {
        self.place.check()
    }

    /// Leaves the file unchanged from now on, for its repair: not even the log beside it is written into
    /// it.
    pub fn stop_writing(&mut self, what: &str) {
        self.corrupt = Some(what.to_owned());
        // Fails for a connection that is broken itself, which writes nothing either.
        let _ = self.reader().conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    }
}

/// A change that is under way.
pub(super) struct Write<'c> {
    pub(super) tx: Transaction<'c>,
    /// The last audit row, that the next one is chained to.
    pub(super) head: Head,
    pub(super) names: &'c Pseudonyms,
    /// The newest time that this change knows.
    pub(super) seen: Option<Timestamp>,
}

impl Write<'_> {
    pub(super) fn saw(&mut self, time: Timestamp) {
        self.seen = self.seen.max(Some(time));
    }
}

/// Creates a new store: complete with all its tables, or not at all.
fn create(path: &Path) -> Result<(), Error> {
    if let Some(wal) = pending_changes(path) {
        // SQLite would replay it into the new file at this place.
        let why = format!(
            "it is gone, but {} is there: bring the file back or restore a backup; for a new \
             store move the -wal file away",
            wal.display()
        );
        return Err(Error::Failed { path: path.to_owned(), source: why.into() });
    }
    let part = Part::begin(path.to_owned())?;
    part.migrate()?;
    part.sync()?;
    part.name()
}

/// Moves the newest time seen forward.
fn move_newest(conn: &Connection, time: Timestamp) -> rusqlite::Result<()> {
    let sql = "INSERT INTO state (key, value) VALUES (?1, CAST(?2 AS TEXT))
        ON CONFLICT (key) DO UPDATE SET value = excluded.value
        WHERE CAST(state.value AS INTEGER) < CAST(excluded.value AS INTEGER)";
    conn.prepare_cached(sql)?.execute((NEWEST, Millis(time)))?;
    Ok(())
}
