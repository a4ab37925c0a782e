//! `cargo xtask simulate`: the simulator is a program of its own, for it holds all of `palang`.

use anyhow::Result;

use crate::{setup, shell};

/// Builds the simulator for release and runs it.
pub fn simulate(arguments: &[String]) -> Result<()> {
    setup::setup()?;
    let mut cargo = shell::cargo();
    cargo.args(["run", "--release", "--package", "palang-simulate", "--"]).args(arguments);
    shell::run(&mut cargo)
}
