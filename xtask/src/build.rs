//! `cargo xtask build`

use anyhow::Result;

use crate::{setup, shell};

/// Builds the binary that is shipped.
pub fn build() -> Result<()> {
    setup::setup()?;
    shell::run(shell::cargo().args(["build", "--release", "--package", "palang"]))?;
    eprintln!("\nbuilt {}", shell::target_dir()?.join("release/palang").display());
    Ok(())
}
