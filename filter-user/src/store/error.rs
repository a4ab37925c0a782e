//! The errors of the store.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

use crate::store::{connection, schema};

/// An error of the store. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not a complete store.
    #[error("{path} is not a complete store ({what}). Nothing was written to it. Restore a backup: \
         `palang store restore BACKUP --replace` keeps this file beside the new one", path = path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The damage.
        what: String,
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
    #[error("{path}: {what}", path = path.display())]
    Failed {
        /// The store.
        path: PathBuf,
        /// The message of the system.
        what: String,
    },
}

impl Error {
    pub(crate) fn sqlite(path: &Path, error: &rusqlite::Error) -> Error {
        let path = path.to_owned();
        let code = error.sqlite_error_code();
        let is = |wanted: ErrorCode| code == Some(wanted);
        // Says it without the path, which every variant has.
        let what = error.to_string();
        if is(ErrorCode::DatabaseCorrupt) || is(ErrorCode::NotADatabase) || is_bad_value(error) {
            Error::Corrupt { path, what }
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
            let what = match connection::take_unopened() {
                Some((file, why)) if Path::new(&file) == path => {
                    format!("cannot be opened: {why}; be root, and look at the rights")
                }
                // It was tried again for reading when it could not be made.
                Some((file, why)) if why.kind() == io::ErrorKind::NotFound => {
                    format!("needs {file}, which cannot be made: no right to write in its folder")
                }
                Some((file, why)) => format!("needs {file}, which cannot be opened: {why}"),
                // Opening it here to find out would drop the locks that this process has on the
                // file (POSIX).
                None => match path.metadata() {
                    Err(error) => format!("cannot be opened: {error}"),
                    Ok(_) => format!("cannot be opened: {what}"),
                },
            };
            Error::Failed { path, what }
        } else {
            Error::Failed { path, what }
        }
    }

    pub(crate) fn io(path: &Path, error: &io::Error) -> Error {
        let path = path.to_owned();
        let kind = error.kind();
        if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Error::Full { path }
        } else if kind == io::ErrorKind::ReadOnlyFilesystem {
            Error::ReadOnly { path }
        } else if kind == io::ErrorKind::AlreadyExists {
            Error::Exists { path }
        } else {
            Error::Failed { path, what: error.to_string() }
        }
    }
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
