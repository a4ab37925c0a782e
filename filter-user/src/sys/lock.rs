//! Locks a path, so that only one daemon writes to store and maps.

use std::fs;
use std::io;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::exit::{Exit, Failure};

/// Locks a path for this process. `path` is a file, which is made if it is missing, or a folder: a BPF
/// file system has no files.
///
/// # Errors
/// [`Exit::Failed`] if another process holds the lock or the file cannot be opened,
/// [`Exit::Refused`] without permission.
pub fn lock(path: &Path) -> Result<Flock<fs::File>, Failure> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    if !path.is_dir() {
        options.write(true).create(true).truncate(false);
    }
    let file = options.open(path).map_err(|error| failed(path, &error))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        Failure::new(
            Exit::Failed,
            format!("a palang daemon holds {}: stop it first", path.display()),
        )
    })
}

pub(crate) fn failed(path: &Path, error: &io::Error) -> Failure {
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    let exit = if denied { Exit::Refused } else { Exit::Failed };
    Failure::new(exit, format!("{}: {error}", path.display()))
}
