//! The errors of the store.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

use crate::store::{connection, schema};

/// A cause of any type: an error of SQLite or of the system, or a text.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An error of the store. Nothing was changed. Its text lacks the causes: [`Error::message`] has them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not a complete store.
    #[error("{} is not a complete store", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The damage.
        source: Cause,
    },
    /// The file cannot be opened.
    #[error("{} cannot be opened", path.display())]
    Unopened {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: Cause,
    },
    /// A newer version of this program made the file.
    #[error("{path} was made by a newer Palang. Its tables have version {version}, this program has {own}. \
         Install that Palang, or restore a backup from before the upgrade", path = path.display(), own = schema::VERSION)]
    Newer {
        /// The file.
        path: PathBuf,
        /// Version of its tables.
        version: u32,
    },
    /// The disk is full.
    #[error("{}: the disk is full, nothing was stored: make room", path.display())]
    Full {
        /// The store, or the copy that was to be made.
        path: PathBuf,
    },
    /// The file or its file system takes no writes.
    #[error("{} cannot be written, nothing was stored: look for a read-only file system (`findmnt -T`) and at \
         the owner of the file", path.display())]
    ReadOnly {
        /// The store.
        path: PathBuf,
    },
    /// Another program holds a lock on the file.
    #[error("{} is locked by another program, nothing was stored: `fuser -v` names it", path.display())]
    Busy {
        /// The store.
        path: PathBuf,
    },
    /// A file of the store was deleted or replaced while the store is open.
    #[error("{} was deleted or replaced while the daemon runs, so nothing is stored. Put it back, or restart the \
         daemon (`systemctl restart palang`): it keeps the entries of the kernel's maps", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// There is a file where a new one was to be made.
    #[error("{} exists already and was not changed", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Anything else.
    #[error("{} cannot be used", path.display())]
    Failed {
        /// The store.
        path: PathBuf,
        /// The error of SQLite or of the system, or what is in the way.
        source: Cause,
    },
}

/// A file that SQLite needs beside the store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("it needs {file}, which cannot be opened")]
struct Needs {
    file: String,
    source: io::Error,
}

impl Error {
    /// Returns the message for people: what failed, the causes, and what to do.
    #[must_use]
    pub fn message(&self) -> String {
        let mut text = self.to_string();
        if let Some(cause) = self.source() {
            text = format!("{text}: {}", causes(cause));
        }
        text + self.advice()
    }

    /// Returns the damage of a file that is not a complete store, with its causes.
    #[must_use]
    pub fn damage(&self) -> Option<String> {
        let Error::Corrupt { source, .. } = self else { return None };
        Some(causes(source.as_ref()))
    }

    /// Returns what comes after the causes in the message.
    fn advice(&self) -> &'static str {
        match self {
            Error::Corrupt { .. } => {
                ". Nothing was written to it. Restore a backup: `palang store restore BACKUP --replace` \
                 keeps this file beside the new one"
            }
            Error::Unopened { source, .. } if is_denied(source.as_ref()) => {
                "; be root, and look at the rights"
            }
            Error::Unopened { .. }
            | Error::Newer { .. }
            | Error::Full { .. }
            | Error::ReadOnly { .. }
            | Error::Busy { .. }
            | Error::Gone { .. }
            | Error::Exists { .. }
            | Error::Failed { .. } => "",
        }
    }

    pub(crate) fn sqlite(path: &Path, error: rusqlite::Error) -> Error {
        let path = path.to_owned();
        let code = error.sqlite_error_code();
        let is = |wanted: ErrorCode| code == Some(wanted);
        if is_corrupt(&error) {
            Error::Corrupt { path, source: error.into() }
        } else if is(ErrorCode::DiskFull)
            // Room for the file of locks beside the store.
            || error.sqlite_error().is_some_and(|e| e.extended_code == SQLITE_IOERR_SHMSIZE)
        {
            Error::Full { path }
        } else if is(ErrorCode::ReadOnly) {
            Error::ReadOnly { path }
        } else if is(ErrorCode::DatabaseBusy) || is(ErrorCode::DatabaseLocked) {
            Error::Busy { path }
        } else if is(ErrorCode::CannotOpen) {
            Error::unopened(path, error)
        } else {
            Error::Failed { path, source: error.into() }
        }
    }

    /// Creates the error of a file that SQLite could not open, by the cause that it logged.
    fn unopened(path: PathBuf, error: rusqlite::Error) -> Error {
        match connection::take_unopened() {
            Some((file, why)) if Path::new(&file) == path => {
                Error::Unopened { path, source: why.into() }
            }
            // It was tried again for reading when it could not be made.
            Some((file, why)) if why.kind() == io::ErrorKind::NotFound => {
                let source = format!(
                    "it needs {file}, which cannot be made: no right to write in its folder"
                );
                Error::Failed { path, source: source.into() }
            }
            Some((file, why)) => Error::Failed { path, source: Needs { file, source: why }.into() },
            // Opening it here to find out would drop the locks that this process has on the
            // file (POSIX).
            None => {
                let source = path.metadata().map_or_else(Cause::from, |_| error.into());
                Error::Unopened { path, source }
            }
        }
    }

    pub(crate) fn io(path: &Path, error: io::Error) -> Error {
        let path = path.to_owned();
        let kind = error.kind();
        if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Error::Full { path }
        } else if kind == io::ErrorKind::ReadOnlyFilesystem {
            Error::ReadOnly { path }
        } else if kind == io::ErrorKind::AlreadyExists {
            Error::Exists { path }
        } else {
            Error::Failed { path, source: error.into() }
        }
    }
}

/// Formats a cause and its causes. The text of an error of SQLite has its own in it already.
fn causes(cause: &(dyn std::error::Error + 'static)) -> String {
    match cause.source().filter(|_| !cause.is::<rusqlite::Error>()) {
        Some(next) => format!("{cause}: {}", causes(next)),
        None => cause.to_string(),
    }
}

/// Checks whether the system refuses access.
fn is_denied(cause: &(dyn std::error::Error + 'static)) -> bool {
    let error = cause.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Checks whether the error shows that the file is not a complete store.
pub(super) fn is_corrupt(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || is_bad_value(error)
}

/// Checks whether the error is about a value that this program does not write.
fn is_bad_value(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
    )
}

#[cfg(test)]
mod tests {
    use std::ffi::c_int;

    use rusqlite::ffi;

    use super::*;

    #[test]
    fn message_has_each_cause_once_and_then_the_advice() {
        let path = Path::new("/palang.db");
        let sqlite = |code: c_int, text: &str| {
            rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(text.to_owned()))
        };
        let damaged =
            Error::sqlite(path, sqlite(ffi::SQLITE_CORRUPT, "database disk image is malformed"));
        assert_eq!(damaged.to_string(), "/palang.db is not a complete store");
        assert!(damaged.source().is_some_and(|cause| cause.is::<rusqlite::Error>()));
        assert_eq!(damaged.damage().as_deref(), Some("database disk image is malformed"));
        assert_eq!(
            damaged.message(),
            "/palang.db is not a complete store: database disk image is malformed. Nothing was written \
             to it. Restore a backup: `palang store restore BACKUP --replace` keeps this file beside the \
             new one"
        );

        let failed = Error::sqlite(path, sqlite(ffi::SQLITE_IOERR, "disk I/O error"));
        assert_eq!(failed.message(), "/palang.db cannot be used: disk I/O error");
        assert_eq!(failed.damage(), None);

        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let needs = Needs { file: "/palang.db-wal".into(), source: denied() };
        let failed = Error::Failed { path: path.to_owned(), source: needs.into() };
        assert_eq!(
            failed.message(),
            "/palang.db cannot be used: it needs /palang.db-wal, which cannot be opened: permission denied"
        );
        let unopened = Error::Unopened { path: path.to_owned(), source: denied().into() };
        assert_eq!(
            unopened.message(),
            "/palang.db cannot be opened: permission denied; be root, and look at the rights"
        );

        let full = Error::sqlite(path, sqlite(ffi::SQLITE_FULL, "database or disk is full"));
        assert_eq!(full.message(), full.to_string());
    }
}
