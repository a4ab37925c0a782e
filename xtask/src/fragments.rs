//! `cargo xtask fragments`: a long run of the test of calls in fragments.

use anyhow::Result;

use crate::{setup, shell};

/// Runs the test with this number of calls, half of them blocked.
pub fn fragments(calls: u32) -> Result<()> {
    setup::setup()?;
    let mut cargo = shell::cargo();
    cargo.env("PALANG_FRAGMENTED_CALLS", calls.to_string());
    let test = "second_look::fragments_out_of_order_with_ids_used_again_lose_no_innocent";
    cargo.args(["test", "--package", "palang-tests", "--test", "live", "--", "--exact", test]);
    shell::run(&mut cargo)
}
