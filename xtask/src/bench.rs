//! `cargo xtask bench`: the suite is a program of its own, for it holds all of `palang`.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{setup, shell};

const BPFFS: &str = "/sys/fs/bpf";

/// Builds the suite and `palang` for release and runs the suite.
pub fn bench(arguments: &[String]) -> Result<()> {
    setup::setup()?;
    mount_bpf()?;
    // The program that the suite measures: cargo builds none of another package for `run`.
    shell::run(shell::cargo().args(["build", "--release", "--package", "palang"]))?;
    let mut cargo = shell::cargo();
    cargo.env("PALANG_BIN", shell::target_dir()?.join("release/palang"));
    cargo.args(["run", "--release", "--package", "palang-bench", "--"]).args(arguments);
    shell::run(&mut cargo)
}

/// The kernel's BPF file system, where nobody has mounted it yet: in a container, for one.
fn mount_bpf() -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts").context("/proc/mounts")?;
    if mounts.lines().any(|mount| mount.split(' ').nth(1) == Some(BPFFS)) {
        return Ok(());
    }
    shell::run(Command::new("mount").args(["-t", "bpf", "bpf", BPFFS]))
}
