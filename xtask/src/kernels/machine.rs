//! One run of the tests: in an emulated machine, or right here.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use super::arch::Arch;
use super::image::Kernel;
use super::outcome::Outcome;
use super::runs::Tests;
use crate::shell;

/// A run under way.
pub struct Machine {
    kernel: String,
    origin: String,
    log: PathBuf,
    process: Child,
    /// Whether the process is qemu, whose exit code says nothing about the tests.
    emulated: bool,
}

impl Machine {
    /// Boots `kernel`.
    pub fn boot(kernel: &Kernel, arch: Arch, initramfs: &Path, folder: &Path) -> Result<Self> {
        let (emulator, machine) = arch.qemu();
        let mut command = bounded(emulator.as_ref(), kernel.tests);
        command
            .args(machine)
            .args(["-smp", "2", "-m", "2G"])
            .args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(initramfs)
            // A panic reboots at once, and qemu leaves instead of rebooting.
            .args(["-append", &format!("console={} panic=-1 loglevel=4", arch.console())]);
        Self::start(&mut command, &kernel.version, &kernel.origin, folder, true)
    }

    /// Runs the test program on the running kernel.
    pub fn here(program: &Path, folder: &Path, tests: Tests) -> Result<Self> {
        let version = fs::read_to_string("/proc/sys/kernel/osrelease")
            .context("cannot find out which kernel this is")?;
        let mut command = bounded("sh".as_ref(), tests);
        command
            .args(["-c", &tests.script(program)])
            .current_dir(shell::root().join("tests"))
            .env("PALANG_TESTS_DIR", shell::root().join("tests"))
            .env("RUST_BACKTRACE", "1");
        Self::start(&mut command, version.trim(), "this machine", folder, false)
    }

    fn start(
        command: &mut Command,
        kernel: &str,
        origin: &str,
        folder: &Path,
        emulated: bool,
    ) -> Result<Self> {
        let log = folder.join(format!("{kernel}.log"));
        let output =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        eprintln!("running the tests on {kernel}, log: {}", log.display());
        let process = command
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output)
            .spawn()
            .context("cannot run timeout (package coreutils)")?;
        Ok(Self { kernel: kernel.into(), origin: origin.into(), log, process, emulated })
    }

    /// Waits for the end and reads the log.
    pub fn wait(mut self) -> Result<Outcome> {
        let status = self.process.wait().context("cannot wait for the tests")?;
        // 124 is what `timeout` says when the time was up.
        let in_time = status.code() != Some(124);
        let log =
            fs::read(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        let log = String::from_utf8_lossy(&log);
        let mut outcome = Outcome::new(&self.kernel, &self.origin, self.log, &log, in_time);
        if !self.emulated {
            outcome.exit = status.code();
        }
        Ok(outcome)
    }
}

/// Returns a command that is ended when its time is up, or by Ctrl-C (in the foreground). `timeout`
/// from coreutils watches over it, so that no qemu is left for ever even when xtask is killed.
fn bounded(program: &OsStr, tests: Tests) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--kill-after=5s", tests.time()]).arg(program);
    command
}
