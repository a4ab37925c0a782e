//! Debian's kernels: downloaded, not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{setup, shell};

/// These packages depend on the newest kernel of their line. The cloud kernels have the
/// serial console, BPF's compiler and BTF built in and are a tenth of the size.
const NEWEST: [&str; 2] = ["linux-image-cloud-amd64", "linux-image-6.12-cloud-amd64"];

/// A kernel that qemu can boot.
pub struct Kernel {
    /// "6.1.0-56-cloud-amd64"
    pub version: String,
    pub vmlinuz: PathBuf,
}

/// Puts the newest kernel of each line into `folder`.
pub fn fetch_all(folder: &Path) -> Result<Vec<Kernel>> {
    if NEWEST.iter().any(|newest| package(newest).is_err()) {
        shell::run(&mut setup::apt_get(&["update"]))?;
    }
    NEWEST.iter().map(|newest| fetch(folder, &package(newest)?)).collect()
}

/// The package of the kernel itself.
fn package(newest: &str) -> Result<String> {
    let mut depends = Command::new("apt-cache");
    depends.env("LC_ALL", "C").args(["depends", newest]);
    let list = shell::read(&mut depends)?;
    let package = list.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    let package = package.with_context(|| format!("apt knows no kernel for {newest}"))?;
    Ok(format!("linux-image-{package}"))
}

fn fetch(folder: &Path, package: &str) -> Result<Kernel> {
    let version = package.trim_start_matches("linux-image-").to_owned();
    let unpacked = folder.join(package);
    let vmlinuz = unpacked.join("boot").join(format!("vmlinuz-{version}"));
    if !vmlinuz.exists() {
        fs::create_dir_all(&unpacked)
            .with_context(|| format!("cannot make {}", unpacked.display()))?;
        // Our folder need not be readable for apt's own user.
        let mut download = setup::apt_get(&["-o", "APT::Sandbox::User=root", "download", package]);
        shell::run(download.current_dir(&unpacked))?;
        let archive = fs::read_dir(&unpacked)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| {
                format!("apt-get download left no package in {}", unpacked.display())
            })?;
        shell::run(Command::new("dpkg-deb").arg("--extract").args([&archive, &unpacked]))?;
        fs::remove_file(&archive)?;
    }
    Ok(Kernel { version, vmlinuz })
}
