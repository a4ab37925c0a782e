//! `cargo xtask test`: what CI runs.

use std::process::Command;

use anyhow::{Result, anyhow, ensure};

use crate::{ebpf, kernels, setup, shell, tidy};

/// The seed of proptest's random cases.
const SEED: &str = "PROPTEST_RNG_SEED";

/// Checks and tests everything; the cheap checks come first.
pub fn test() -> Result<()> {
    shell::need_root("test", "the tests load the kernel program")?;
    setup::setup()?;
    setup::mount_bpf()?;
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))?;
    eprintln!("\n$ cargo xtask tidy");
    tidy::check(&[])?;
    host(&["clippy"], &["--all-targets", "--", "-D", "warnings"])?;
    lint_kernel_program()?;
    let mut tests = host_cargo(&["test"], &[]);
    // Each run draws the same cases: a change is not held up by a failure that it did not cause. `cargo test` alone
    // draws other ones.
    if std::env::var_os(SEED).is_none() {
        tests.env(SEED, "112");
    }
    let printed = shell::run_and_read(&mut tests)?;
    let skipped = ignored(&printed);
    ensure!(
        skipped == 0,
        "{skipped} tests were ignored: as root, with the BPF toolchain, none is. If this folder was \
         built by another user before, run `cargo clean --package palang --package palang-tests`"
    );
    // Prints how fast the filter is, and fails only when one of the programs does not load or
    // decides something else than what is timed.
    shell::run(shell::cargo().args([
        "run",
        "--package",
        "palang-bench",
        "--",
        "kernel",
        "--quick",
    ]))?;
    if cfg!(target_arch = "x86_64") {
        // The short form; `cargo xtask kernels` runs all kernel tests there.
        kernels::kernels(&kernels::Options::for_ci())?;
    }
    Ok(())
}

/// Runs cargo for everything but the kernel program, which does not compile for the host.
fn host(subcommand: &[&str], arguments: &[&str]) -> Result<()> {
    shell::run(&mut host_cargo(subcommand, arguments))
}

fn host_cargo(subcommand: &[&str], arguments: &[&str]) -> Command {
    let mut cargo = shell::cargo();
    cargo.args(subcommand).args(["--workspace", "--exclude", "filter-ebpf"]).args(arguments);
    cargo
}

/// Returns the number of tests that `cargo test` did not run, from what it printed.
fn ignored(printed: &str) -> usize {
    let results = printed.lines().filter(|line| line.starts_with("test result: "));
    let counts = results.flat_map(|line| line.split("; ")).filter_map(|count| {
        count.strip_suffix(" ignored").and_then(|count| count.trim().parse::<usize>().ok())
    });
    counts.sum()
}

/// Runs clippy on the kernel program, for its own target and by its own compiler.
fn lint_kernel_program() -> Result<()> {
    let toolchain = ebpf::find()?;
    let target_dir = shell::target_dir()?.join("ebpf");
    let mut clippy: Command = toolchain
        .clippy(shell::root(), &target_dir)
        .ok_or_else(|| anyhow!("no clippy for the kernel program; run `cargo xtask setup`"))?;
    clippy.args(["--", "-D", "warnings"]);
    let text = format!(
        "cargo clippy --package filter-ebpf --target {} -- -D warnings  # {}",
        ebpf::TARGET,
        toolchain.name()
    );
    shell::run_as(&text, &mut clippy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_tests_of_all_programs_are_summed_up() {
        let printed = "test a ... ignored, needs root and the kernel program\n\
            test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
            test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 4 filtered out\n\
            test result: ok. 0 passed; 0 failed; 10 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(ignored(printed), 13);
    }
}
