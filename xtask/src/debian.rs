//! Debians of their own, as folders below target: nothing of this machine changes.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{setup, shell};

/// The script of debootstrap for Debians that it does not know yet.
const SCRIPT: &str = "/usr/share/debootstrap/scripts/sid";

/// Makes a Debian with these packages in `root`, if it is not there yet.
pub fn root(suite: &str, packages: &[&str], root: &Path) -> Result<()> {
    if root.exists() {
        return Ok(());
    }
    setup::packages(&["debootstrap"])?;
    // Under another name until it is whole.
    let part = root.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir_all(&part)?;
    let mut debootstrap = Command::new("debootstrap");
    let packages = format!("--include={}", packages.join(","));
    debootstrap.args(["--variant=minbase", &packages, suite]).arg(&part);
    debootstrap.args([&mirror("Debian")?, SCRIPT]);
    shell::run(&mut debootstrap)?;
    fs::rename(&part, root)?;
    Ok(())
}

/// Returns where this machine takes a Debian archive from: `Debian` or `Debian-Security`.
pub fn mirror(label: &str) -> Result<String> {
    if let Some(uri) = known_mirror(label)? {
        return Ok(uri);
    }
    // Without lists apt does not know yet which of its sources are Debian.
    shell::run(&mut setup::apt_get(&["update"]))?;
    known_mirror(label)?.with_context(|| {
        format!(
            "no source of apt on this machine is labelled {label}: `apt-get indextargets` shows them; \
             add Debian's to /etc/apt/sources.list.d"
        )
    })
}

fn known_mirror(label: &str) -> Result<Option<String>> {
    let mut targets = Command::new("apt-get");
    targets.env("LC_ALL", "C").args(["indextargets", "--format", "$(LABEL) $(REPO_URI)"]);
    targets.args(["Created-By: Packages", &format!("Label: {label}"), "Origin: Debian"]);
    let list = shell::read(&mut targets)?;
    let uri = list.lines().find_map(|line| line.rsplit_once(' ')).map(|(_, uri)| uri.to_owned());
    Ok(uri)
}
