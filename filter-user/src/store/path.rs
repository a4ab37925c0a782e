//! Paths of the store and of the files that SQLite keeps beside it.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use crate::store::error::Error;

/// Returns the absolute path: SQLite reads a relative `file:…` as a URI.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|error| Error::io(path, error))
}

/// Returns the file that SQLite keeps beside the store with this ending.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Returns the `-wal` file of a store if it has changes.
pub(super) fn pending_changes(path: &Path) -> Option<PathBuf> {
    let wal = beside(path, "-wal");
    wal.metadata().is_ok_and(|wal| wal.len() > 0).then_some(wal)
}

pub(super) fn on_read_only_disk(path: &Path) -> bool {
    statvfs(path).is_ok_and(|disk| disk.flags().contains(FsFlags::ST_RDONLY))
}

/// Returns the URI of a store that nobody changes (<https://www.sqlite.org/uri.html>).
pub(super) fn immutable_uri(path: &Path) -> String {
    let escaped =
        path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    format!("file:{escaped}?immutable=1")
}
