//! `cargo xtask lifecycle`: the packages on a Debian of its own, with systemd as its first process
//! and real calls. They are installed, set up, upgraded and removed under traffic, purged, and
//! installed again.
//!
//! ```text
//! target/lifecycle/root       Debian 12 (debootstrap), made once and never changed
//! target/lifecycle/packages   the .deb, the same as a newer version, and the .rpm
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::package::Made;
use crate::{debian, package, setup, shell};

/// The Debian that packages are made for.
const SUITE: &str = "bookworm";
/// Packages that a small server has and debootstrap leaves out.
const PACKAGES: [&str; 7] =
    ["systemd", "systemd-sysv", "dbus", "udev", "procps", "iproute2", "rpm"];

/// Makes what the test needs, and runs it. `made`: with the packages that were made before.
pub fn lifecycle(made: bool) -> Result<()> {
    shell::need_root("lifecycle", "it starts a Debian of its own")?;
    setup::setup()?;
    setup::packages(&["systemd-container", "dpkg"])?;
    let made = package::unchecked(made)?;
    let folder = shell::target_dir()?.join("lifecycle");
    let root = folder.join("root");
    debian::root(SUITE, &PACKAGES, &root)?;
    let packages = packages(&folder, &made)?;
    let mut cargo = shell::cargo();
    cargo.args(["test", "--package", "palang-tests", "--test", "lifecycle", "--", "--nocapture"]);
    cargo.env("PALANG_LIFECYCLE_ROOT", root).env("PALANG_LIFECYCLE_PACKAGES", packages);
    shell::run(&mut cargo)
}

/// Makes `palang-1.deb`, `palang-2.deb` (the same, only newer) and `palang.rpm`.
fn packages(folder: &Path, made: &Made) -> Result<PathBuf> {
    let packages = folder.join("packages");
    let tree = packages.join("tree");
    if packages.exists() {
        fs::remove_dir_all(&packages)?;
    }
    fs::create_dir_all(&packages)?;
    fs::copy(&made.deb, packages.join("palang-1.deb"))?;
    fs::copy(&made.rpm, packages.join("palang.rpm"))?;
    shell::run(Command::new("dpkg-deb").arg("--raw-extract").arg(&made.deb).arg(&tree))?;
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let newer: String = text
        .lines()
        .map(|line| match line.strip_prefix("Version: ") {
            Some(version) => format!("Version: {version}+newer\n"),
            None => format!("{line}\n"),
        })
        .collect();
    ensure!(newer.contains("+newer"), "{} names no version", control.display());
    fs::write(&control, newer)?;
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "--build"]).arg(&tree).arg(packages.join("palang-2.deb"));
    shell::run(&mut build)?;
    fs::remove_dir_all(&tree)?;
    Ok(packages)
}
