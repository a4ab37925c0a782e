//! The store: one SQLite file that holds what people decided, what was done, and who called.
//!
//! | table | what | file |
//! |---|---|---|
//! | `decisions` | blocks and allows in force | [`decisions`] |
//! | `audit` | every change, as a hash chain with pseudonyms of numbers | [`audit`], [`pseudonym`] |
//! | `calls` | every attempt that the gate saw | [`calls`], [`records`] |
//! | `evidence` | INVITEs of refused attempts, where they are kept | [`evidence`] |
//! | `reviews` | redial grants and reports, for somebody to look at | [`reviews`] |
//! | `reports` | what call-takers said of calls | [`reports`] |
//! | `state` | mode, override, newest time seen, key of the pseudonyms, account of records | `state` |
//!
//! All that it holds about one number is read and erased together: [`person`].
//!
//! [`Store`] writes and has one owner. Each of its methods is one transaction: a change and
//! its audit row are on disk together when it returns, or neither is. [`Reader`] only reads,
//! there may be many, and none waits for the writer (WAL). A store reads as a reader does.
//!
//! Times are kept to the millisecond, cut downwards.

pub mod audit;
pub mod backup;
pub mod calls;
pub(crate) mod connection;
pub mod decisions;
pub(crate) mod error;
pub mod evidence;
pub(crate) mod offline_journal;
pub mod person;
pub(crate) mod place;
pub mod pseudonym;
pub mod records;
pub mod reports;
pub mod retention;
pub mod reviews;
#[cfg(test)]
pub(crate) mod sandbox;
pub(crate) mod schema;
pub(crate) mod state;
#[cfg(test)]
pub(crate) mod tests;

use std::ops::{ControlFlow, Deref};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::statvfs::{FsFlags, statvfs};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Row, Transaction, TransactionBehavior};

use place::Place;

pub use audit::{AuditCheck, AuditFilter, AuditRow, Entry, Head, hex};
pub use backup::{check_restore, restore};
pub use calls::{CallFilter, CallRow};
pub use decisions::{Decision, Kind};
pub use error::Error;
pub use evidence::{EvidenceRow, Room, Unplaced};
pub use person::{Counts, NumberRecords};
pub use pseudonym::Pseudonyms;
pub use records::{Account, Records, Stored};
pub use reports::{Added, Report, ReportFilter, ReportedCall};
pub use retention::{Size, Step, bring_in_log, is_log_long};
pub use reviews::{Closed, Review};
pub use state::{HELD, RESTORED};

/// How long a lock of somebody else (`sqlite3` on the live file, a backup) is waited for.
const BUSY: Duration = Duration::from_secs(5);
/// Page cache of the writer in KiB: an import of a million rows touches its indexes everywhere.
const WRITER_CACHE_KIB: i64 = 65_536;
/// The log is brought into the file by whoever commits only when it has this many pages (64 MiB):
/// [`bring_in_log`] does it before, and nobody waits for that.
const LOG_PAGES: i64 = 16_384;

/// Instructions of SQLite (a few for each row) after which a question looks whether it may go on.
const LOOK_EVERY: i32 = 1000;

/// The store, open for changes.
#[derive(Debug)]
pub struct Store {
    reader: Reader,
    /// Who numbers are in the audit.
    names: Pseudonyms,
    /// What is wrong with the file, once something is: then nothing is written any more.
    corrupt: Option<String>,
    /// Where its files were when it was opened.
    place: Place,
}

/// The store, open for questions.
#[derive(Debug)]
pub struct Reader {
    conn: Connection,
    path: PathBuf,
}

impl Deref for Store {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.reader
    }
}

impl Store {
    /// Opens the store at `path`, makes it (mode 0640) where there is none, and brings its
    /// tables to what this version knows.
    ///
    /// # Errors
    /// It cannot be opened. A file that is no whole store is never written to.
    pub fn open(path: &Path) -> Result<Store, Error> {
        let path = &absolute(path)?;
        if !path.try_exists().map_err(|error| Error::io(path, &error))? {
            create(path)?;
        }
        if on_read_only_disk(path) {
            return Err(Error::ReadOnly { path: path.clone() });
        }
        let mut conn = connect(path, path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let mut prepare = || {
            // What SQLite makes of a file that this user may only read.
            if conn.is_readonly("main")? {
                return Ok(None);
            }
            // What is deleted is overwritten: an erased number is not to be found in the file.
            conn.pragma_update(None, "secure_delete", "ON")?;
            schema::migrate(&mut conn)?;
            // Where there is no room for that, the file only does not shrink.
            let _ = retention::rewrite(&conn);
            // WAL lets readers read on; FULL keeps an acknowledged commit through a power cut.
            conn.pragma_update(None, "journal_mode", "WAL")?;
            conn.pragma_update(None, "synchronous", "FULL")?;
            conn.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
            conn.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
            conn.pragma_update(None, "journal_size_limit", retention::LOG)?;
            conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
            Pseudonyms::of(&conn).map(Some)
        };
        match prepare() {
            Ok(Some(names)) => {
                let reader = Reader { conn, path: path.clone() };
                Ok(Store { reader, names, corrupt: None, place: Place::of(path) })
            }
            Ok(None) => Err(Error::ReadOnly { path: path.clone() }),
            Err(error) => Err(Error::sqlite(path, &error)),
        }
    }

    /// Runs one change as one transaction, that moves the newest time seen as well.
    fn write<T>(
        &mut self,
        change: impl FnOnce(&mut Write<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        let Reader { conn, path } = &mut self.reader;
        if let Some(what) = &self.corrupt {
            return Err(Error::Corrupt { path: path.clone(), what: what.clone() });
        }
        if let Err(gone) = self.place.check() {
            if self.place.is_only_log_gone() {
                // What was answered is then at least in the file.
                let _ = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
            }
            return Err(gone);
        }
        let names = &self.names;
        let transact = || {
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let head = audit::head(&tx)?;
            let mut write = Write { tx, head, names, seen: None };
            let outcome = change(&mut write)?;
            if let Some(seen) = write.seen {
                state::move_newest(&write.tx, seen)?;
            }
            write.tx.commit()?;
            Ok(outcome)
        };
        let error = match transact() {
            // It may have gone meanwhile, and the change with it.
            Ok(outcome) => return self.place.check().map(|()| outcome),
            Err(error) => Error::sqlite(path, &error),
        };
        if let Error::Corrupt { what, .. } = &error {
            self.stop_writing(what);
        }
        Err(error)
    }

    /// Whether its files are still those that were opened.
    ///
    /// # Errors
    /// [`Error::Gone`]: they are not.
    pub fn check_place(&self) -> Result<(), Error> {
        self.place.check()
    }

    /// Leaves the file as it is from now on, for whoever repairs it: not even what stands in the
    /// log beside it is written into it.
    pub fn stop_writing(&mut self, what: &str) {
        self.corrupt = Some(what.to_owned());
        // Fails for a connection that is broken itself, which writes nothing either.
        let _ = self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    }
}

/// A change that is under way.
struct Write<'c> {
    tx: Transaction<'c>,
    /// The last audit row, that the next one is chained to.
    head: Head,
    names: &'c Pseudonyms,
    /// The newest time that this change knows.
    seen: Option<Timestamp>,
}

impl Write<'_> {
    fn saw(&mut self, time: Timestamp) {
        self.seen = self.seen.max(Some(time));
    }
}

impl Reader {
    /// Opens the store at `path` for questions.
    ///
    /// # Errors
    /// It is not there, is no whole store, or is one of another version.
    pub fn open(path: &Path) -> Result<Reader, Error> {
        let reader = Reader::open_any(path)?;
        let version = schema::version(&reader.conn).map_err(|error| reader.error(&error))?;
        if version == schema::VERSION {
            return Ok(reader);
        }
        let what = format!("its tables are of version {version}: start the daemon once");
        Err(Error::Failed { path: reader.path, what })
    }

    /// Opens a store whose tables may be older than this version.
    fn open_any(path: &Path) -> Result<Reader, Error> {
        let path = &absolute(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let conn = match connect(path, path, flags) {
            // WAL wants a file for locks beside the store. Without one SQLite would read what
            // a writer is changing, so only where nobody can write at all.
            Err(Error::ReadOnly { .. } | Error::Failed { .. }) if on_read_only_disk(path) => {
                if let Some(wal) = pending_changes(path) {
                    let what = format!(
                        "the file system is read-only, and {} holds changes that are not in the \
                         file yet: copy both to a disk that can be written",
                        wal.display()
                    );
                    return Err(Error::Failed { path: path.clone(), what });
                }
                let flags = flags | OpenFlags::SQLITE_OPEN_URI;
                connect(path, Path::new(&immutable_uri(path)), flags)?
            }
            other => other?,
        };
        Ok(Reader { conn, path: path.clone() })
    }

    /// Ends each question that runs when `end` is set, or begins afterwards, with an error. A
    /// question that takes less than a millisecond may still be answered.
    ///
    /// # Errors
    /// SQLite does not take it, which it never should.
    pub fn end_when(&mut self, end: Arc<AtomicBool>) -> Result<(), Error> {
        let look = move || end.load(Ordering::Relaxed);
        let set = self.conn.progress_handler(LOOK_EVERY, Some(look));
        set.map_err(|error| self.error(&error))
    }

    /// Reads every page: seconds for a million rows, so not at each start.
    ///
    /// # Errors
    /// What is broken.
    pub fn check(&self) -> Result<(), Error> {
        let answer: String =
            self.get(|conn| conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)))?;
        if answer == "ok" {
            return Ok(());
        }
        Err(Error::Corrupt { path: self.path.clone(), what: answer })
    }

    fn error(&self, error: &rusqlite::Error) -> Error {
        Error::sqlite(&self.path, error)
    }

    fn get<T>(&self, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        ask(&self.conn).map_err(|error| self.error(&error))
    }

    /// Hands rows to `f` one by one, until it breaks.
    fn each<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
        mut f: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        self.get(|conn| {
            let mut statement = conn.prepare_cached(sql)?;
            let mut rows = statement.query(params)?;
            while let Some(row) = rows.next()? {
                if f(read(row)?).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }
}

/// Opens a file and makes sure that it is a store, without writing to it.
///
/// `name` is what SQLite opens, `path` what messages call it.
fn connect(path: &Path, name: &Path, flags: OpenFlags) -> Result<Connection, Error> {
    let open = || {
        let conn = connection::open(name, flags)?;
        conn.busy_timeout(BUSY)?;
        // Else closing a broken file would write its -wal into it.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let kind = schema::identify(&conn)?;
        Ok((conn, kind))
    };
    let (conn, kind) = open().map_err(|error| Error::sqlite(path, &error))?;
    match kind {
        schema::Identity::Known => Ok(conn),
        schema::Identity::Newer(version) => Err(Error::Newer { path: path.to_owned(), version }),
        schema::Identity::Foreign => Err(Error::Corrupt {
            path: path.to_owned(),
            what: "it is empty, or the database of another program".to_owned(),
        }),
    }
}

/// Makes a new store: whole with all its tables, or not at all.
fn create(path: &Path) -> Result<(), Error> {
    if let Some(wal) = pending_changes(path) {
        // SQLite would replay it into whatever stands at this place.
        let what = format!(
            "it is gone, but {} is there: bring the file back or restore a backup; for a new \
             store move the -wal file away",
            wal.display()
        );
        return Err(Error::Failed { path: path.to_owned(), what });
    }
    let part = backup::Part::begin(path.to_owned())?;
    part.migrate()?;
    part.sync()?;
    part.name()
}

/// SQLite takes a relative `file:…` for a URI.
fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|error| Error::io(path, &error))
}

/// The file that SQLite keeps beside the store under this ending.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// The `-wal` file of a store, when it holds changes.
fn pending_changes(path: &Path) -> Option<PathBuf> {
    let wal = beside(path, "-wal");
    wal.metadata().is_ok_and(|wal| wal.len() > 0).then_some(wal)
}

fn on_read_only_disk(path: &Path) -> bool {
    statvfs(path).is_ok_and(|disk| disk.flags().contains(FsFlags::ST_RDONLY))
}

/// <https://www.sqlite.org/uri.html>
fn immutable_uri(path: &Path) -> String {
    let escaped =
        path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    format!("file:{escaped}?immutable=1")
}
