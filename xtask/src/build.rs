//! `cargo xtask build`

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::{setup, shell};

/// Builds the binary that is shipped.
pub fn build() -> Result<()> {
    setup::setup()?;
    shell::run(shell::cargo().args(["build", "--release", "--package", "palang"]))?;
    check(&shell::target_dir()?.join("release/palang"))?;
    eprintln!("\nbuilt {}", shell::target_dir()?.join("release/palang").display());
    Ok(())
}

/// Checks that a binary has the kernel program in it.
///
/// # Errors
/// Fails if it was built without the BPF toolchain, or does not run.
pub fn check(binary: &Path) -> Result<()> {
    let version = shell::read(Command::new(binary).arg("--version"))?;
    let has_program = version.lines().any(|line| line.starts_with("kernel program: rustc "));
    ensure!(
        has_program,
        "{} was built without the kernel program: run `cargo xtask setup`, then `cargo clean \
         --package palang`, then this command again",
        binary.display()
    );
    Ok(())
}
