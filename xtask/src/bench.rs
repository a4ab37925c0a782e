//! `cargo xtask bench`: the suite is a program of its own, for it holds all of `palang`.

use anyhow::Result;

use crate::{setup, shell};

/// Builds the suite for release and runs it.
pub fn bench(arguments: &[String]) -> Result<()> {
    setup::setup()?;
    let mut cargo = shell::cargo();
    cargo.args(["run", "--release", "--package", "palang-bench", "--"]).args(arguments);
    shell::run(&mut cargo)
}
