//! `cargo xtask demo`: from a fresh clone to judged calls.

use anyhow::Result;

use crate::{setup, shell};

/// The recorded calls that the demo judges.
const CAPTURE: &str = "tests/pcaps/sipnab__sip_call.pcap";
/// The example policy, which refuses some of them.
const POLICY: &str = "docs/demo-policy.toml";

/// Builds `palang` and lets it judge [`CAPTURE`].
pub fn demo() -> Result<()> {
    shell::need_root("demo", "it loads the kernel program")?;
    setup::setup()?;
    // Not for release: compiles in half the time, and the kernel program is the same.
    shell::run(shell::cargo().args(["build", "--package", "palang"]))?;

    let program = shell::target_dir()?.join("debug/palang");
    let program = program.strip_prefix(shell::root()).unwrap_or(&program).display().to_string();
    let mut replay = std::process::Command::new(shell::root().join(&program));
    replay.current_dir(shell::root()).args(["replay", CAPTURE, "--policy", POLICY]);
    shell::run_as(&format!("{program} replay {CAPTURE} --policy {POLICY}"), &mut replay)?;

    eprintln!(
        "\nTry it on your own calls:\n    {program} replay YOUR.pcap --country-code 62 --block '62812*'"
    );
    Ok(())
}
