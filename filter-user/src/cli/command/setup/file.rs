//! Writes and restores the configuration file of `palang setup`.

use std::io::{self, Write as _};
use std::path::Path;

use crate::bringup::setup;
use crate::bringup::setup::Change;
use crate::exit::{Exit, Failure};

/// Replaces the file atomically: a reader sees the old text or the new one.
pub(crate) fn write(change: &Change) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        let message = format!("cannot write {}: {error}", change.path.display());
        Failure::new(Exit::Failed, message)
    };
    // The file may have been edited while we waited for the answer.
    if setup::read(&change.path).map_err(|error| failed(&error))? != change.before {
        return Err(failed(&"it was edited during setup; run setup again"));
    }
    replace(&change.path, &change.config.text).map_err(|error| failed(&error))
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mode = match path.metadata() {
        Ok(old) => old.permissions(),
        Err(_) => std::fs::Permissions::from_mode(0o644),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(mode)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Restores the text that the file had before, or removes the file that setup made.
pub(crate) fn put_back(path: &Path, before: Option<String>) -> Result<(), Failure> {
    match before {
        Some(text) => replace(path, &text),
        None => std::fs::remove_file(path),
    }
    .map_err(|error| Failure::new(Exit::Failed, error))
}
