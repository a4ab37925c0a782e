//! The progress bar of a capture.

use std::io::{self, IsTerminal as _};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

/// Smallest file size in bytes that gets a progress bar.
const LARGE: u64 = 4 << 20;

/// Creates a progress bar, visible only for a large file on a terminal.
pub(crate) fn progress(path: &Path) -> ProgressBar {
    let size = path.metadata().map_or(0, |metadata| metadata.len());
    if size < LARGE || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(size);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    bar
}
