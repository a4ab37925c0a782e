//! Folders of the daemons' pins.

use std::fs;
use std::path::{Path, PathBuf};

use super::process::{is_left_over, unique};

/// Where pins can be.
const BPFFS: &str = "/sys/fs/bpf";
const PINS: &str = "palang-test-";

/// Returns the path of a folder that no other daemon has.
pub(super) fn folder() -> PathBuf {
    Path::new(BPFFS).join(format!("{PINS}{}", unique()))
}

/// Removes a folder of pins, and prints what fails.
pub(super) fn remove(folder: &Path) {
    match fs::remove_dir_all(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => eprintln!("lab: cannot remove {}: {error}", folder.display()),
    }
}

/// Removes the pins of test processes that were killed.
pub(super) fn sweep() {
    let Ok(entries) = fs::read_dir(BPFFS) else { return };
    for entry in entries.flatten() {
        if is_left_over(&entry.file_name().to_string_lossy(), PINS) {
            remove(&entry.path());
        }
    }
}
