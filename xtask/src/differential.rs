//! `cargo xtask differential`: a long run of the test beside other SIP stacks.

use anyhow::Result;

use crate::{setup, shell};

/// Runs the test with this number of messages.
pub fn differential(messages: u32) -> Result<()> {
    setup::setup()?;
    let mut cargo = shell::cargo();
    cargo.env("PALANG_DIFFERENTIAL", messages.to_string());
    cargo.args([
        "test",
        "--package",
        "palang-tests",
        "--test",
        "differential",
        "--",
        "--nocapture",
    ]);
    shell::run(&mut cargo)
}
