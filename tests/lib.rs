//! Shared by the whole-system tests: fixtures, packets, and the two gates side by side.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test panics where it fails")]

pub mod common;
pub mod lab;

use std::path::PathBuf;

/// Returns the folder `tests/fixtures`.
#[must_use]
pub fn fixtures() -> PathBuf {
    folder().join("fixtures")
}

/// Returns the folder `tests`. In the machines of `cargo xtask kernels`, `PALANG_TESTS_DIR` names it.
#[must_use]
pub fn folder() -> PathBuf {
    std::env::var_os("PALANG_TESTS_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}
