//! Opens the store for questions, and hands rows out.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Row};

use crate::store::error::Error;
use crate::store::path::{absolute, immutable_uri, on_read_only_disk, pending_changes};
use crate::store::{connection, schema};

/// Longest wait for the lock of another program (`sqlite3` on the live file, a backup).
pub(super) const BUSY: Duration = Duration::from_secs(5);
/// Instructions of SQLite (a few for each row) after which a question looks whether it may go on.
const LOOK_EVERY: i32 = 1000;

/// The store, open for questions.
#[derive(Debug)]
pub struct Reader {
    pub(super) conn: Connection,
    pub(super) path: PathBuf,
}

/// Returns the conditions of a list, newest first, and their values. It takes the wanted ones with a value.
/// With `after`, only rows that follow this one are wanted.
pub(super) fn conditions(
    wanted: &[(&str, Option<i64>)],
    after: Option<(Timestamp, u64)>,
) -> (String, Vec<i64>) {
    let (mut sql, mut values) = (String::from(" WHERE true"), Vec::new());
    for (condition, value) in wanted {
        let Some(value) = value else { continue };
        sql.push_str(" AND ");
        sql.push_str(condition);
        values.push(*value);
    }
    if let Some((time, id)) = after {
        sql.push_str(" AND (time, id) < (?, ?)");
        values.extend([time.as_millisecond(), id.cast_signed()]);
    }
    (sql, values)
}

impl Reader {
    /// Opens the store at `path` for questions.
    ///
    /// # Errors
    /// Returns an error if it does not exist, is not a complete store, or has another version.
    pub fn open(path: &Path) -> Result<Reader, Error> {
        let reader = Reader::open_any(path)?;
        let version = schema::version(&reader.conn).map_err(|error| reader.error(error))?;
        if version == schema::VERSION {
            return Ok(reader);
        }
        let why = format!("its tables are of version {version}: start the daemon once");
        Err(Error::Failed { path: reader.path, source: why.into() })
    }

    /// Opens a store whose tables may be older than this version.
    pub(super) fn open_any(path: &Path) -> Result<Reader, Error> {
        let path = &absolute(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let conn = match connect(path, path, flags) {
            // WAL wants a file for locks beside the store. Without one SQLite would read what
            // a writer is changing, so only where nobody can write at all.
            Err(Error::ReadOnly { .. } | Error::Unopened { .. } | Error::Failed { .. })
                if on_read_only_disk(path) =>
            {
                if let Some(wal) = pending_changes(path) {
                    let why = format!(
                        "the file system is read-only, and {} holds changes that are not in the \
                         file yet: copy both to a disk that can be written",
                        wal.display()
                    );
                    return Err(Error::Failed { path: path.clone(), source: why.into() });
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
    /// Returns an error if SQLite refuses the handler, which it never should.
    pub fn end_when(&mut self, end: Arc<AtomicBool>) -> Result<(), Error> {
        let look = move || end.load(Ordering::Relaxed);
        let set = self.conn.progress_handler(LOOK_EVERY, Some(look));
        set.map_err(|error| self.error(error))
    }

    /// Reads every page: seconds for a million rows, so not at each start.
    ///
    /// # Errors
    /// `Corrupt` with the first damage.
    pub fn check(&self) -> Result<(), Error> {
        let answer: String =
            self.get(|conn| conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)))?;
        if answer == "ok" {
            return Ok(());
        }
        Err(Error::Corrupt { path: self.path.clone(), source: answer.into() })
    }

    pub(super) fn error(&self, error: rusqlite::Error) -> Error {
        Error::sqlite(&self.path, error)
    }

    pub(super) fn get<T>(
        &self,
        ask: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        ask(&self.conn).map_err(|error| self.error(error))
    }

    /// Hands rows to `f` one by one, until it breaks.
    pub(super) fn each<T>(
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
pub(super) fn connect(path: &Path, name: &Path, flags: OpenFlags) -> Result<Connection, Error> {
    let open = || {
        let conn = connection::open(name, flags)?;
        conn.busy_timeout(BUSY)?;
        // Otherwise closing a broken file would write its -wal into it.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let kind = schema::identify(&conn)?;
        Ok((conn, kind))
    };
    let (conn, kind) = open().map_err(|error| Error::sqlite(path, error))?;
    match kind {
        schema::Identity::Known => Ok(conn),
        schema::Identity::Newer(version) => Err(Error::Newer { path: path.to_owned(), version }),
        schema::Identity::Foreign => Err(Error::Corrupt {
            path: path.to_owned(),
            source: "it is empty, or the database of another program".into(),
        }),
    }
}
