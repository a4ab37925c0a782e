//! `cargo xtask demo`: from a fresh clone to judged calls, recorded ones and real ones.

mod live;

use anyhow::Result;

use crate::{setup, shell};

/// The recorded calls that the demo judges: a blocked extension, a scanner, an innocent one.
const CAPTURES: [&str; 3] = [
    "tests/fixtures/pcaps/wswiki__Asterisk_ZFONE_XLITE.pcap",
    "tests/fixtures/pcaps/ipfixprobe__sip.pcap",
    "tests/fixtures/pcaps/wswiki__SIP_DTMF2.cap",
];
/// The example policy, which refuses some of them.
const POLICY: &str = "docs/demo-policy.toml";

/// Builds `palang` and lets it judge [`CAPTURES`].
pub fn demo() -> Result<()> {
    shell::need_root("demo", "it loads the kernel program")?;
    setup::compiler()?;
    setup::packages(&["iproute2"])?;
    setup::mount_bpf()?;
    // Not for release: compiles in half the time, and the kernel program is the same.
    shell::run(shell::cargo().args(["build", "--package", "palang"]))?;

    let palang = shell::target_dir()?.join("debug/palang");
    let program = palang.strip_prefix(shell::root()).unwrap_or(&palang).display().to_string();
    let mut replay = std::process::Command::new(shell::root().join(&program));
    replay.current_dir(shell::root()).args(["replay", "--policy", POLICY]).args(CAPTURES);
    let captures = CAPTURES.join(" ");
    shell::run_as(&format!("{program} replay --policy {POLICY} {captures}"), &mut replay)?;

    eprintln!("\n\nNow on an interface: two network namespaces, and the daemon in one of them.");
    live::show(&palang)?;

    eprintln!("\nTry it on your own calls:\n    {program} replay YOUR.pcap --block 0812-3456-7890");
    Ok(())
}
