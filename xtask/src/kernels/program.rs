//! The test program, as one file that needs no libraries, and the busybox beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::apt::{self, Apt};
use super::arch::Arch;
use crate::shell;

/// The package and the test target that all kernels run.
const PACKAGE: &str = "palang-tests";
const TEST: &str = "kernel";

/// The C compiler and linker for arm64 (package gcc-aarch64-linux-gnu).
const ARM64_GCC: &str = "aarch64-linux-gnu-gcc";

/// Debian's compiler (package rustc-web), and the package with the standard library of the same
/// version for other architectures.
const RUSTC: &str = "/usr/bin/rustc";
const CARGO: &str = "/usr/bin/cargo";
const RUSTC_PACKAGE: &str = "rustc-web";
const STD_PACKAGE: &str = "libstd-rust-web-dev";

/// The program that the emulated machines run.
pub struct Programs {
    pub tests: PathBuf,
    pub busybox: PathBuf,
}

/// Builds or fetches what the machines run.
pub fn programs(folder: &Path, arch: Arch) -> Result<Programs> {
    match arch {
        Arch::Amd64 => {
            let tests = build(shell::cargo(), "", folder, arch)?;
            Ok(Programs { tests, busybox: "/bin/busybox".into() })
        }
        Arch::Arm64 => arm64(folder),
    }
}

fn arm64(folder: &Path) -> Result<Programs> {
    let suites = apt::codename()?;
    let suites = [suites.clone(), format!("{suites}-updates"), format!("{suites}-security")];
    let suites = suites.each_ref().map(String::as_str);
    let apt = Apt::open(folder.join("apt/libraries-arm64"), &suites, Arch::Arm64)?;

    let unpacked = folder.join("arm64");
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked)?; // of another version of the compiler, perhaps
    }
    apt.unpack("busybox-static", None, &unpacked)?;
    let (cargo, flags) = arm64_cargo(&apt, &unpacked)?;
    let tests = build(cargo, &flags, folder, Arch::Arm64)?;
    Ok(Programs { tests, busybox: unpacked.join("bin/busybox") })
}

/// Returns a cargo with a standard library for arm64, and the flags that it needs: rustup's, if it
/// has one, or Debian's.
fn arm64_cargo(apt: &Apt, unpacked: &Path) -> Result<(Command, String)> {
    let mut flags = format!("-Clinker={ARM64_GCC}");
    let mut cargo = shell::cargo();
    if !has_std(Arch::Arm64.target())? {
        let mut query = Command::new("dpkg-query");
        query.args(["--show", "--showformat", "${Version}", RUSTC_PACKAGE]);
        apt.unpack(STD_PACKAGE, Some(&shell::read(&mut query)?), unpacked)?;
        // Only what is compiled for arm64 gets the flags, and so the other sysroot.
        flags += &format!(" --sysroot={}", unpacked.join("usr").display());
        cargo = Command::new(CARGO);
        cargo.current_dir(shell::root()).env("CARGO", CARGO).env("RUSTC", RUSTC);
    }
    // SQLite is C.
    cargo.env("CC_aarch64_unknown_linux_gnu", ARM64_GCC);
    Ok((cargo, flags))
}

/// Returns whether the compiler that builds everything has a standard library for a target.
fn has_std(target: &str) -> Result<bool> {
    let mut rustc = Command::new("rustc");
    rustc.current_dir(shell::root()).args(["--print", "target-libdir", "--target", target]);
    Ok(Path::new(shell::read(&mut rustc)?.trim()).is_dir())
}

/// Builds the test program. For release, because the emulated processor is slow.
fn build(mut cargo: Command, flags: &str, folder: &Path, arch: Arch) -> Result<PathBuf> {
    cargo
        .env("RUSTFLAGS", format!("-Ctarget-feature=+crt-static -Cstrip=debuginfo {flags}"))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .args(["test", "--no-run", "--release", "--package", PACKAGE, "--test", TEST])
        // Named, although it may be the host: without it the flags would hit procedural macros too,
        // and those cannot be static.
        .args(["--target", arch.target(), "--message-format=json-render-diagnostics"])
        .arg("--target-dir")
        .arg(folder.join("build"));
    eprintln!("\n$ {}", shell::show(&cargo));
    let messages = shell::read(&mut cargo)?;
    let program = messages.lines().find_map(executable);
    program.with_context(|| format!("cargo did not print the path of the test program {TEST}"))
}

/// Returns the path in cargo's message about our test program.
fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let ours = message["reason"] == "compiler-artifact" && message["target"]["name"] == TEST;
    ours.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
}
