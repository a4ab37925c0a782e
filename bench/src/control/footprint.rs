//! What a daemon takes: memory, maps, disk.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context as _, Result};
use palang_tests::lab::Daemon;

/// In bytes.
pub struct Footprint {
    /// Most of the daemon's memory since its start (`VmHWM`).
    pub peak: u64,
    /// Memory of the maps that it has open, as the kernel tells it.
    pub maps: u64,
    /// The store, with its write-ahead log.
    pub store: u64,
}

impl Footprint {
    /// That of a daemon which runs.
    pub fn of(daemon: &Daemon<'_>) -> Result<Footprint> {
        let process = format!("/proc/{}", daemon.pid());
        let status = fs::read_to_string(format!("{process}/status"))?;
        let peak = number(&status, "VmHWM:").context("no VmHWM")? << 10;
        let mut maps = HashMap::new();
        for descriptor in fs::read_dir(format!("{process}/fdinfo"))? {
            // It may be closed by now.
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

/// The number behind a name at the begin of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_behind_its_name() {
        let text = "VmPeak:\t  9 kB\nVmHWM:\t  1234 kB\nmemlock:\t0\n";
        assert_eq!(number(text, "VmHWM:"), Some(1234));
        assert_eq!(number(text, "memlock:"), Some(0));
        assert_eq!(number(text, "map_id:"), None);
    }
}
