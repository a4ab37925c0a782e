//! `cargo xtask carriers`: carriers and exchanges that are newer than this Debian in front of the gate.
//!
//! ```text
//! target/carriers/root   Debian forky (debootstrap) with Kamailio 6.1 and Asterisk 22, made once
//! ```

use anyhow::Result;

use crate::{debian, setup, shell};

/// The Debian that has them, and the packages.
const SUITE: &str = "forky";
const PACKAGES: [&str; 2] = ["asterisk", "kamailio"];

/// Makes what the test needs, and runs it.
pub fn carriers() -> Result<()> {
    shell::need_root("carriers", "it makes a Debian of its own, and networks")?;
    setup::setup()?;
    let root = shell::target_dir()?.join("carriers/root");
    debian::root(SUITE, &PACKAGES, &root)?;
    let mut cargo = shell::cargo();
    cargo.args(["test", "--package", "palang-tests", "--test", "carriers", "--"]);
    cargo.args(["--nocapture", "--test-threads=1"]);
    cargo.env("PALANG_CARRIERS_ROOT", root);
    shell::run(&mut cargo)
}
