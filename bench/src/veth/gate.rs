//! Palang itself: the real daemon, its store, and its filter on the gate's interface.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use palang_tests::lab::{Daemon, INTERFACE, Lab};

use super::{cpu, invites};

/// A gate in mode enforce that refuses all callers of the flood.
pub struct Gate<'a> {
    daemon: Daemon<'a>,
}

impl<'a> Gate<'a> {
    /// Starts it. `xdp_mode` is `native` or `generic`; `cpu` is the CPU of the daemon.
    pub fn start(lab: &'a Lab, xdp_mode: &str, cpu: usize) -> Result<Gate<'a>> {
        // Without a redial grant, because the callers of the flood would otherwise be let through.
        let config = format!("xdp_mode = \"{xdp_mode}\"\n[redial]\nattempts = 0\n");
        let gate = Gate { daemon: Daemon::start(lab, &config) };
        cpu::pin(gate.daemon.pid(), cpu)?;
        let mut list = String::from("number,expires,reason\n");
        for index in 0..invites::BLOCKED {
            writeln!(list, "+{},2099-01-01T00:00:00Z,benchmark", invites::blocked(index))?;
        }
        let file = gate.daemon.folder().join("blocked.csv");
        fs::write(&file, list)?;
        gate.palang(&["block", "import", &file.display().to_string()])?;
        gate.palang(&["mode", "enforce"])?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !gate.palang(&["status", "-o", "json"])?.contains(INTERFACE) {
            ensure!(Instant::now() < deadline, "palang is not on {INTERFACE}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(gate)
    }

    /// Returns the daemon's process ID.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    fn palang(&self, arguments: &[&str]) -> Result<String> {
        let output = self.daemon.cli(arguments);
        ensure!(output.code == 0, "palang {}: {}", arguments.join(" "), output.stderr.trim());
        Ok(output.stdout)
    }
}
