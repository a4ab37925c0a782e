//! What the whole-system tests share: fixtures, packets, and the two gates side by side.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test panics where it fails")]

pub mod gates;
pub mod invites;
pub mod lab;
pub mod mutations;
pub mod packet;
pub mod planted;
pub mod reference;
pub mod seeds;
pub mod verifier;

use std::path::PathBuf;

/// The folder of the fixtures. In the machines of `cargo xtask kernels` it stands where
/// `PALANG_TESTS_DIR` says.
#[must_use]
pub fn folder() -> PathBuf {
    std::env::var_os("PALANG_TESTS_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}
