//! Notices that the files of an open store were deleted or replaced: later changes would be lost with
//! the process.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::store::error::Error;
use crate::store::path::beside;

/// The files of an open store, as they were when it was opened.
#[derive(Debug)]
pub(crate) struct Place([Named; 2]);

#[derive(Debug)]
struct Named {
    path: PathBuf,
    /// Device and inode; `None`: it was not there.
    file: Option<(u64, u64)>,
}

impl Named {
    fn now(path: PathBuf) -> Named {
        let file = path.metadata().ok().map(|found: Metadata| (found.dev(), found.ino()));
        Named { path, file }
    }
}

impl Place {
    /// Notes the store at this path and the log beside it, which are open.
    pub(crate) fn of(path: &Path) -> Place {
        Place([path.to_owned(), beside(path, "-wal")].map(Named::now))
    }

    /// Checks that each file is still the one that was opened.
    ///
    /// # Errors
    /// [`Error::Gone`] with the first file that is not.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for known in &self.0 {
            if Named::now(known.path.clone()).file != known.file {
                return Err(Error::Gone { path: known.path.clone() });
            }
        }
        Ok(())
    }

    /// Checks whether only the log is no longer the one that was opened: its changes can still be written
    /// into the store.
    pub(crate) fn is_only_log_gone(&self) -> bool {
        let [store, log] = &self.0;
        let is_there = |known: &Named| Named::now(known.path.clone()).file == known.file;
        is_there(store) && !is_there(log)
    }
}
