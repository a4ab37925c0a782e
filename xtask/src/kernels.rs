//! `cargo xtask kernels`: the same tests of the kernel program on three kernels.

mod image;
mod initramfs;
mod machine;
mod outcome;
mod program;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::{setup, shell};
use machine::Machine;
use outcome::Outcome;

/// What downloading, packing and booting call.
const PACKAGES: [&str; 4] = ["qemu-system-x86", "busybox-static", "cpio", "binutils"];

/// How many of the tests to run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tests {
    /// All of them.
    All,
    /// Those of loading: does the verifier take the program, with how many instructions.
    Loading,
}

impl Tests {
    /// Arguments of the test program.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Tests::All => &["--test-threads=2", "--nocapture"],
            Tests::Loading => &["--test-threads=2", "--nocapture", "loading::"],
        }
    }
}

/// Runs the tests on Debian's two kernels, side by side, and on the running one.
pub fn kernels(tests: Tests) -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "`cargo xtask kernels` boots Debian's amd64 kernels and works on x86-64 only"
    );
    shell::need_root("kernels", "the tests load the kernel program")?;
    setup::setup()?;
    setup::packages(&PACKAGES)?;

    let folder = shell::target_dir()?.join("kernels");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let kernels = image::fetch_all(&folder)?;
    let program = program::build(&folder)?;
    let initramfs = initramfs::pack(&folder, &program, tests.arguments())?;

    let machines = kernels
        .iter()
        .map(|kernel| Machine::boot(kernel, &initramfs, &folder))
        .collect::<Result<Vec<_>>>()?;
    let mut outcomes = machines.into_iter().map(Machine::wait).collect::<Result<Vec<_>>>()?;
    // Last and alone: what it measures is not disturbed by the machines.
    outcomes.push(Machine::here(&program, &folder, tests.arguments())?.wait()?);
    report(&outcomes)
}

/// Prints the table; fails if a kernel failed or ran nothing.
fn report(outcomes: &[Outcome]) -> Result<()> {
    println!("\n{:<32} {:<28} log", "kernel", "tests");
    for outcome in outcomes {
        let log = outcome.log.strip_prefix(shell::root()).unwrap_or(&outcome.log);
        println!("{:<32} {:<28} {}", outcome.kernel, outcome.result(), Path::display(log));
        for line in &outcome.verified {
            println!("    {line}");
        }
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.is_good()).count();
    ensure!(failed == 0, "{failed} of {} kernels failed; read their logs", outcomes.len());
    Ok(())
}
