//! `cargo xtask check-aarch64`: whether everything but the kernel program compiles for aarch64.
//!
//! The compiler is rustup's; if it lacks the standard library of that target, rustup adds it.
//! Without rustup the compiler is Debian's, with the library from Debian's package for arm64. Its
//! lists and the package are in the folder `aarch64` of the target folder.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{ebpf, setup, shell};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const HOST: &str = "x86_64-unknown-linux-gnu";

/// Debian's package with the standard library, of the same version as [`COMPILER`].
const LIBRARY: &str = "libstd-rust-web-dev";
const COMPILER: &str = "rustc-web";

/// Checks that the user side compiles for aarch64.
///
/// # Errors
/// Fails if it does not, or if no standard library for aarch64 can be had.
pub fn check() -> Result<()> {
    let mut cargo =
        if rustup_has_target()? || rustup_adds_target()? { shell::cargo() } else { debian()? };
    let folder = folder()?;
    cargo
        // The C code of SQLite is compiled and never linked: the host's compiler also does.
        .env("CC_aarch64_unknown_linux_gnu", c_compiler())
        .args(["check", "--locked", "--target", TARGET, "--target-dir"])
        .arg(folder.join("target"))
        .args(["--workspace", "--exclude", "filter-ebpf", "--exclude", "xtask"]);
    let text = format!("cargo check --target {TARGET} --workspace --exclude filter-ebpf");
    shell::run_as(&text, &mut cargo)
}

fn folder() -> Result<PathBuf> {
    Ok(shell::target_dir()?.join("aarch64"))
}

/// Returns whether the compiler of everything else has the library.
fn rustup_has_target() -> Result<bool> {
    let mut rustc = Command::new("rustc");
    let sysroot = shell::read(rustc.current_dir(shell::root()).args(["--print", "sysroot"]))?;
    Ok(Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).join("lib").exists())
}

/// Adds the library to rustup's compiler; returns `false` without rustup.
fn rustup_adds_target() -> Result<bool> {
    let mut rustup = Command::new("rustup");
    if !rustup.arg("--version").output().is_ok_and(|output| output.status.success()) {
        return Ok(false);
    }
    let mut rustup = Command::new("rustup");
    shell::run(rustup.current_dir(shell::root()).args(["target", "add", TARGET]))?;
    Ok(true)
}

/// Returns the C compiler for aarch64 if there is one, otherwise the host's.
fn c_compiler() -> &'static str {
    const CROSS: &str = "aarch64-linux-gnu-gcc";
    let found = Command::new(CROSS).arg("--version").output();
    if found.is_ok_and(|output| output.status.success()) { CROSS } else { "gcc" }
}

/// Returns Debian's cargo and rustc, with the library out of Debian's package.
fn debian() -> Result<Command> {
    let mut version = Command::new("dpkg-query");
    version.args(["--show", "--showformat", "${Version}", COMPILER]);
    let Ok(version) = shell::read(&mut version) else {
        bail!(
            "no standard library for aarch64: run `rustup target add {TARGET}`, then this command \
             again"
        );
    };
    let sysroot = sysroot(version.trim())?;
    let mut cargo = Command::new("/usr/bin/cargo");
    ebpf::clean_environment(&mut cargo);
    cargo.current_dir(shell::root()).env("RUSTC", "/usr/bin/rustc").env(
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
        format!("--sysroot={}", sysroot.display()),
    );
    Ok(cargo)
}

/// Returns a folder with the libraries of both architectures, made at the first time.
fn sysroot(version: &str) -> Result<PathBuf> {
    let folder = folder()?.join(version);
    let sysroot = folder.join("sysroot/usr");
    if sysroot.join("lib/rustlib").join(HOST).exists() {
        return Ok(sysroot);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(folder.join("lists/partial"))
        .with_context(|| folder.display().to_string())?;
    shell::run(apt(&folder).arg("update"))?;
    shell::run(apt(&folder).arg("download").arg(format!("{LIBRARY}:arm64={version}")))?;
    let packages = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let package = packages
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|kind| kind == "deb"))
        .with_context(|| format!("apt-get downloaded no package to {}", folder.display()))?;
    shell::run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(folder.join("sysroot")))?;
    // Last: it is the sign that all is there.
    let library = Path::new("/usr/lib/rustlib").join(HOST);
    symlink(library, sysroot.join("lib/rustlib").join(HOST)).context("target/aarch64")?;
    Ok(sysroot)
}

/// Returns an apt-get that knows both architectures, with lists of its own.
fn apt(folder: &Path) -> Command {
    let mut apt = setup::apt_get(&[]);
    apt.current_dir(folder)
        .args(["-o", "APT::Architectures::=amd64", "-o", "APT::Architectures::=arm64"])
        .args(["-o", "APT::Sandbox::User="])
        .arg("-o")
        .arg(format!("Dir::State::lists={}", folder.join("lists").display()))
        .arg("-o")
        .arg(format!("Dir::Cache={}", folder.display()));
    apt
}
