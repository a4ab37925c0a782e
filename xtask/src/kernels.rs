//! `cargo xtask kernels`: the same tests of the kernel program on many kernels.

mod apt;
mod arch;
mod factor;
mod image;
mod initramfs;
mod machine;
mod outcome;
mod program;
mod runs;
mod table;

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{setup, shell};
use arch::Arch;
use factor::{Factor, factors};
use image::{Images, Kernel};
use machine::Machine;
use outcome::{Load, Outcome};
use program::Programs;
use runs::Tests;

/// CPUs of an emulated machine: tests of races take two.
const CPUS: usize = 2;

/// Which tests run on which kernels.
#[derive(Args, Default)]
pub struct Options {
    /// Only load the programs and report the verified instructions; without it, all tests run twice on
    /// the kernels of Debian's releases and on the newest.
    #[arg(long)]
    pub loading: bool,
    /// Only on the oldest kernel, on 6.1, the newest, and this machine's.
    #[arg(long)]
    pub short: bool,
    /// On Debian's kernels for arm64, emulated.
    #[arg(long)]
    pub arm64: bool,
    /// On this kernel and this machine's only: a path, the version of an installed kernel, or one that
    /// Debian has; more than once for several.
    #[arg(long, value_name = "PATH|VERSION", conflicts_with = "short")]
    pub image: Vec<String>,
    /// Write the table in docs/kernels.md.
    #[arg(long, conflicts_with_all = ["short", "image"])]
    pub write_table: bool,
}

impl Options {
    /// Returns the options with which `cargo xtask test` runs this.
    pub fn for_ci() -> Self {
        Self { loading: true, short: true, ..Self::default() }
    }

    fn arch(&self) -> Arch {
        if self.arm64 { Arch::Arm64 } else { Arch::Amd64 }
    }

    fn tests(&self) -> Tests {
        if self.loading { Tests::Loading } else { Tests::All }
    }
}

/// Runs the tests on each kernel, and on the running one.
pub fn kernels(options: &Options) -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "`cargo xtask kernels` builds for this machine or from it for arm64, and works on x86-64 only"
    );
    shell::need_root("kernels", "the tests load the kernel program")?;
    let (arch, tests) = (options.arch(), options.tests());
    setup::setup()?;
    setup::packages(arch.packages())?;

    let folder = shell::target_dir()?.join("kernels");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let images = Images { folder: folder.clone(), arch, tests };
    let kernels = if options.image.is_empty() {
        images.matrix(options.short)?
    } else {
        options.image.iter().map(|name| images.named(name)).collect::<Result<_>>()?
    };
    let programs = program::programs(&folder, arch)?;
    let mut outcomes = boot_all(&kernels, arch, &programs, &folder)?;
    let emulated = outcomes.len();
    if !options.arm64 {
        // Last and alone: what it measures is not disturbed by the machines.
        outcomes.push(Machine::here(&programs.tests, &folder, tests)?.wait()?);
    }
    let factors = factors(&outcomes);
    report(&outcomes, &factors);
    if options.write_table {
        table::write(arch, &outcomes[..emulated], &factors)?;
    }
    judge(&outcomes, &factors)
}

/// Boots each kernel, as many at once as this machine has CPUs for.
fn boot_all(
    kernels: &[Kernel],
    arch: Arch,
    programs: &Programs,
    folder: &Path,
) -> Result<Vec<Outcome>> {
    let all = initramfs::pack(folder, arch, programs, Tests::All)?;
    let loading = initramfs::pack(folder, arch, programs, Tests::Loading)?;
    let initramfs = |kernel: &Kernel| match kernel.tests {
        Tests::All => &all,
        Tests::Loading => &loading,
    };
    let at_once = (available_parallelism().map_or(1, usize::from) / CPUS).max(1);
    let mut outcomes = Vec::new();
    for kernels in kernels.chunks(at_once) {
        let boot = |kernel| Machine::boot(kernel, arch, initramfs(kernel), folder);
        let machines = kernels.iter().map(boot).collect::<Result<Vec<_>>>()?;
        for machine in machines {
            outcomes.push(machine.wait()?);
        }
    }
    Ok(outcomes)
}

/// Prints what came out, kernel by kernel.
fn report(outcomes: &[Outcome], factors: &[Factor]) {
    println!("\n{}", table::table(outcomes, factors));
    for outcome in outcomes {
        for (program, load) in &outcome.programs {
            if let Load::Refused(why) = load {
                println!("{} refuses {program}: {why}", outcome.kernel);
            }
        }
        if let Some(failure) = outcome.failure() {
            let log = outcome.log.strip_prefix(shell::root()).unwrap_or(&outcome.log);
            println!("{} FAILED: {failure}; read {}", outcome.kernel, log.display());
        }
    }
}

/// Fails if a kernel failed, or its verifier walks much more than the others'.
fn judge(outcomes: &[Outcome], factors: &[Factor]) -> Result<()> {
    let failed = outcomes.iter().filter(|outcome| outcome.failure().is_some()).count();
    ensure!(failed == 0, "{failed} of {} kernels failed; read their logs", outcomes.len());
    let too_high: Vec<_> = factors.iter().filter(|factor| factor.is_too_high()).collect();
    let lines = too_high.iter().map(|factor| {
        let Factor { program, median, most, kernel } = factor;
        format!(
            "\n  {program} needs {most} verified instructions on {kernel}, the median is {median}"
        )
    });
    ensure!(
        too_high.is_empty(),
        "the verifier of one kernel walks over 1.5 times the median:{}\n\
         A newer kernel of that line may refuse the program: find out what it walks twice \
         (verifier log, level 2)",
        lines.collect::<String>()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Outcome, factors, judge};

    /// Returns a kernel that takes the full program after this number of instructions and passes
    /// the tests.
    fn kernel(release: &str, verified: u32) -> Outcome {
        let log = format!(
            "verified instructions of palang: {verified} of 480000\n\
             verified instructions of palang_slim: 99 of 480000\n\
             test result: ok. 12 passed; 0 failed\nPALANG-EXIT=0\n"
        );
        Outcome::new(release, "a suite", "a log".into(), &log, true)
    }

    fn judged(kernels: &[Outcome]) -> String {
        judge(kernels, &factors(kernels)).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn kernels_that_agree_are_good() {
        assert_eq!(judged(&[kernel("6.1", 400), kernel("6.12", 410), kernel("7.1", 420)]), "");
    }

    #[test]
    fn a_planted_explosion_fails_the_run_although_all_tests_pass() {
        let error = judged(&[kernel("6.1", 400), kernel("6.12", 410), kernel("7.1", 900)]);
        assert!(error.contains("palang needs 900 verified instructions on 7.1"), "{error}");
    }

    #[test]
    fn one_failing_kernel_fails_the_run() {
        let dead = Outcome::new("7.3", "a suite", "a log".into(), "Kernel panic", true);
        assert!(judged(&[kernel("6.1", 400), dead]).starts_with("1 of 2 kernels failed"));
    }
}
