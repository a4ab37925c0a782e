//! Paths of the store and of the files that SQLite keeps beside it.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use crate::store::error::Error;

/// SQLite takes a relative `file:…` for a URI.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|error| Error::io(path, &error))
}

/// The file that SQLite keeps beside the store under this ending.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// The `-wal` file of a store, when it holds changes.
pub(super) fn pending_changes(path: &Path) -> Option<PathBuf> {
    let wal = beside(path, "-wal");
    wal.metadata().is_ok_and(|wal| wal.len() > 0).then_some(wal)
}

pub(super) fn on_read_only_disk(path: &Path) -> bool {
    statvfs(path).is_ok_and(|disk| disk.flags().contains(FsFlags::ST_RDONLY))
}

/// <https://www.sqlite.org/uri.html>
pub(super) fn immutable_uri(path: &Path) -> String {
    let escaped =
        path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    format!("file:{escaped}?immutable=1")
}
