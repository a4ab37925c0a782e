//! `cargo xtask test`: what CI runs.

use std::process::Command;

use anyhow::{Result, anyhow};

use crate::{ebpf, kernels, setup, shell, tidy};

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
    host(&["test"], &[])?;
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
        kernels::kernels(kernels::Tests::Loading)?;
    }
    Ok(())
}

/// Everything but the kernel program, which does not compile for the host.
fn host(subcommand: &[&str], arguments: &[&str]) -> Result<()> {
    let mut cargo = shell::cargo();
    cargo.args(subcommand).args(["--workspace", "--exclude", "filter-ebpf"]).args(arguments);
    shell::run(&mut cargo)
}

/// clippy on the kernel program, for its own target and by its own compiler.
fn lint_kernel_program() -> Result<()> {
    let toolchain = ebpf::find().map_err(|error| anyhow!(error))?;
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
