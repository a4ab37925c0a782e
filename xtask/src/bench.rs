//! `cargo xtask bench`: the suite is a program of its own, for it holds all of `palang`.

use anyhow::Result;

use crate::{setup, shell};

/// Builds the suite and `palang` for release and runs the suite.
pub fn bench(arguments: &[String]) -> Result<()> {
    setup::setup()?;
    setup::mount_bpf()?;
    // The program that the suite measures: cargo builds none of another package for `run`.
    shell::run(shell::cargo().args(["build", "--release", "--package", "palang"]))?;
    let mut cargo = shell::cargo();
    cargo.env("PALANG_BIN", shell::target_dir()?.join("release/palang"));
    cargo.args(["run", "--release", "--package", "palang-bench", "--"]).args(arguments);
    shell::run(&mut cargo)
}
