//! The programs that make and check packages.

use anyhow::Result;

use crate::setup;

/// Installs those that are missing. The newest that build with Rust 1.95.
pub fn install() -> Result<()> {
    // objdump reads symbols; rpm, lintian, mandoc and the shells check what was made.
    setup::packages(&["binutils", "gzip", "lintian", "mandoc", "rpm", "bash", "zsh", "fish"])?;
    setup::tool("cargo-deb", "3.8.0")?;
    setup::tool("cargo-generate-rpm", "0.21.1")?;
    // Of the makers of a bill of materials the one that gives the same bytes again.
    setup::tool("cargo-cyclonedx", "0.5.9")
}
