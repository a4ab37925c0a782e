//! The test program, as one file that needs no libraries.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::shell;

/// The package and the test target that all kernels run.
const PACKAGE: &str = "palang-tests";
const TEST: &str = "kernel_verdicts";

/// Named, although it is the host: without it the flags would hit procedural macros too,
/// and those cannot be static.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the test program. For release, because the emulated processor is slow.
pub fn build(folder: &Path) -> Result<PathBuf> {
    let mut cargo = shell::cargo();
    cargo
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Cstrip=debuginfo")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .args(["test", "--no-run", "--release", "--package", PACKAGE, "--test", TEST])
        .args(["--target", TARGET, "--message-format=json-render-diagnostics", "--target-dir"])
        .arg(folder.join("build"));
    eprintln!("\n$ {}", shell::show(&cargo));
    let messages = shell::read(&mut cargo)?;
    let program = messages.lines().find_map(executable);
    program.with_context(|| format!("cargo did not tell where the test program {TEST} lies"))
}

/// The path in cargo's message about our test program.
fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let ours = message["reason"] == "compiler-artifact" && message["target"]["name"] == TEST;
    ours.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
}
