//! `bench control`.

use anyhow::{Result, bail};

/// What it takes.
#[derive(clap::Args)]
pub struct Arguments {
    /// A short form that prints and does not touch the page.
    #[arg(long)]
    pub quick: bool,
}

/// Measures, prints, and writes the page.
pub fn run(arguments: &Arguments) -> Result<()> {
    bail!("not written yet: {}", arguments.quick)
}
