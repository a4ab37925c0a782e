//! The build script of a package that embeds an object of the kernel's virtual machine.
//!
//! Without the BPF toolchain it embeds an empty file: everything compiles, and the host tests run.
//! Loading refuses such a build, and neither `cargo xtask build` nor `package` accepts it.

use std::env;
use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

#[path = "../xtask/src/ebpf.rs"]
#[allow(dead_code, reason = "xtask and other build scripts use the rest")]
pub mod ebpf;

/// Compiles an object; its path is in the environment variable `variable` of the package.
pub fn object(name: &str, variable: &str) -> ExitCode {
    match embed(name, variable) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Sets `cfg(kernel)` where tests can run the kernel program: as root, with the toolchain.
///
/// Tests that need it are ignored without it, and `cargo test` counts them. `cargo xtask test`
/// fails if it counts one.
pub fn kernel_tests() {
    println!("cargo:rustc-check-cfg=cfg(kernel)");
    for user in ["USER", "LOGNAME", "HOME"] {
        println!("cargo:rerun-if-env-changed={user}");
    }
    let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if is_root && ebpf::find().is_ok() {
        println!("cargo:rustc-cfg=kernel");
    }
}

fn embed(name: &str, variable: &str) -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed={}", ebpf::LOG_VARIABLE);
    println!("cargo:rustc-check-cfg=cfg(palang_log)");
    if ebpf::has_log() {
        println!("cargo:rustc-cfg=palang_log");
    }
    for source in [
        "Cargo.lock",
        "Cargo.toml",
        "filter-common/Cargo.toml",
        "filter-common/src",
        "filter-ebpf/Cargo.toml",
        "filter-ebpf/embed.rs",
        "filter-ebpf/src",
        "xtask/src/ebpf.rs",
    ] {
        println!("cargo:rerun-if-changed=../{source}");
    }
    if name != ebpf::FILTER {
        println!("cargo:rerun-if-changed=../filter-ebpf/bench");
        println!("cargo:rerun-if-changed=../filter-ebpf/flood");
    }
    let toolchain = match ebpf::find() {
        Ok(toolchain) => toolchain,
        Err(missing) => return embed_nothing(variable, &missing),
    };
    for program in toolchain.programs() {
        println!("cargo:rerun-if-changed={}", program.display());
    }

    let root = folder("CARGO_MANIFEST_DIR")?.join("..");
    let target_dir = folder("OUT_DIR")?.join("ebpf");
    // Quiet: what is left on stderr are warnings and errors.
    compile(toolchain.build(name, &root, &target_dir).arg("--quiet"))?;

    println!("cargo:rustc-env={variable}={}", ebpf::object_in(&target_dir, name).display());
    println!("cargo:rustc-env=PALANG_TOOLCHAIN={}", toolchain.name());
    Ok(())
}

/// Embeds an empty file in the place of the object.
fn embed_nothing(variable: &str, missing: &ebpf::Missing) -> Result<(), Box<dyn Error>> {
    let empty = folder("OUT_DIR")?.join("no-object");
    fs::write(&empty, "").map_err(|error| format!("{}: {error}", empty.display()))?;
    for line in missing.to_string().lines() {
        println!("cargo:warning={line}");
    }
    println!(
        "cargo:warning=built without the kernel program: run `cargo xtask setup`, then build again"
    );
    // Built again when something of the toolchain comes.
    for place in ebpf::places().into_iter().filter(|place| place.exists()) {
        println!("cargo:rerun-if-changed={}", place.display());
    }
    println!("cargo:rustc-env={variable}={}", empty.display());
    println!("cargo:rustc-env=PALANG_TOOLCHAIN=none");
    Ok(())
}

/// Runs the inner cargo and hands its warnings to the outer one.
fn compile(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{messages}\nthe kernel program (filter-ebpf) does not compile").into());
    }
    for line in messages.lines() {
        println!("cargo:warning={line}");
    }
    Ok(())
}

fn folder(variable: &str) -> Result<PathBuf, Box<dyn Error>> {
    let folder = env::var_os(variable).map(PathBuf::from);
    folder.ok_or_else(|| format!("cargo did not set {variable}").into())
}
