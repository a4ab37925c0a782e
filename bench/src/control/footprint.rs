//! Measures the daemon's memory, maps and disk.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context as _, Result};
use palang_tests::lab::Daemon;

/// Sizes in bytes.
pub struct Footprint {
    /// Largest memory of the daemon since its start (`VmHWM`).
    pub peak: u64,
    /// Memory of the open maps, as reported by the kernel.
    pub maps: u64,
    /// Size of the store with its write-ahead log.
    pub store: u64,
}

impl Footprint {
    /// Measures a running daemon.
    pub fn of(daemon: &Daemon<'_>) -> Result<Footprint> {
        let process = format!("/proc/{}", daemon.pid());
        let status = fs::read_to_string(format!("{process}/status"))?;
        let peak = number(&status, "VmHWM:").context("no VmHWM")? << 10;
        let mut maps = HashMap::new();
        for descriptor in fs::read_dir(format!("{process}/fdinfo"))? {
            // The descriptor may be closed by now.
            let Ok(info) = fs::read_to_string(descriptor?.path()) else { continue };
            if let (Some(id), Some(bytes)) = (number(&info, "map_id:"), number(&info, "memlock:")) {
                maps.insert(id, bytes);
            }
        }
        let mut store = 0;
        for file in fs::read_dir(daemon.state())? {
            store += file?.metadata()?.len();
        }
        Ok(Footprint { peak, maps: maps.values().sum(), store })
    }
}

/// Returns the number after a name at the beginning of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_follows_its_name() {
        let text = "VmPeak:\t  9 kB\nVmHWM:\t  1234 kB\nmemlock:\t0\n";
        assert_eq!(number(text, "VmHWM:"), Some(1234));
        assert_eq!(number(text, "memlock:"), Some(0));
        assert_eq!(number(text, "map_id:"), None);
    }
}
