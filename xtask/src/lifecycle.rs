//! `cargo xtask lifecycle`: the .deb on a Debian of its own, with systemd as its first process and
//! real calls: installed, set up, upgraded and removed under traffic, purged, installed again.
//!
//! ```text
//! target/lifecycle/root       Debian 12 (debootstrap), made once and never changed
//! target/lifecycle/packages   the package, and the same as a newer version
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{package, setup, shell};

/// The Debian that packages are made for.
const SUITE: &str = "bookworm";
/// What a small server has and debootstrap leaves out.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,udev,procps,iproute2";

/// Makes what the test needs, and runs it. `deb`: a package that was made before.
pub fn lifecycle(deb: Option<&Path>) -> Result<()> {
    shell::need_root("lifecycle", "it starts a Debian of its own")?;
    setup::setup()?;
    setup::packages(&["debootstrap", "systemd-container", "dpkg"])?;
    let deb = match deb {
        Some(deb) => deb.to_owned(),
        None => package::deb()?,
    };
    let folder = shell::target_dir()?.join("lifecycle");
    let root = root(&folder)?;
    let packages = packages(&folder, &deb)?;
    let mut cargo = shell::cargo();
    cargo.args(["test", "--package", "palang-tests", "--test", "lifecycle", "--", "--nocapture"]);
    cargo.env("PALANG_LIFECYCLE_ROOT", root).env("PALANG_LIFECYCLE_PACKAGES", packages);
    shell::run(&mut cargo)
}

fn root(folder: &Path) -> Result<PathBuf> {
    let root = folder.join("root");
    if root.exists() {
        return Ok(root);
    }
    // Under another name until it is whole.
    let part = folder.join("root.part");
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir_all(&part)?;
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE]).arg(&part);
    shell::run(&mut debootstrap)?;
    fs::rename(&part, &root)?;
    Ok(root)
}

/// `palang-1.deb`, and `palang-2.deb`: the same, only newer.
fn packages(folder: &Path, deb: &Path) -> Result<PathBuf> {
    let packages = folder.join("packages");
    let tree = packages.join("tree");
    if packages.exists() {
        fs::remove_dir_all(&packages)?;
    }
    fs::create_dir_all(&packages)?;
    fs::copy(deb, packages.join("palang-1.deb")).with_context(|| deb.display().to_string())?;
    shell::run(Command::new("dpkg-deb").arg("--raw-extract").arg(deb).arg(&tree))?;
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
