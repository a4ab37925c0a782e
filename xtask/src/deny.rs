//! `cargo xtask deny`: what deny.toml says of licences, advisories and duplicates.

use anyhow::Result;

use crate::{setup, shell};

/// Checks all dependencies. The advisories are fetched from their repository.
pub fn deny() -> Result<()> {
    setup::tool("cargo-deny", "0.20.2")?;
    shell::run(shell::cargo().args([
        "deny",
        "--workspace",
        "check",
        "licenses",
        "bans",
        "sources",
    ]))?;
    shell::run(shell::cargo().args(["deny", "--workspace", "check", "advisories"]))
}
