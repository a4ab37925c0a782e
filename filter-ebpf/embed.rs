//! What the build script of a package does that embeds an object of the kernel's virtual machine.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

#[path = "../xtask/src/ebpf.rs"]
#[allow(dead_code, reason = "xtask and other build scripts use the rest")]
pub mod ebpf;

/// Compiles an object; its path stands in the environment variable `variable` of the package.
pub fn object(name: &str, variable: &str) -> ExitCode {
    match embed(name, variable) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn embed(name: &str, variable: &str) -> Result<(), String> {
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
    let toolchain = ebpf::find()
        .map_err(|missing| format!("{missing}run `cargo xtask setup` to install it"))?;
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

/// Runs the inner cargo and hands its warnings to the outer one.
fn compile(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{messages}\nthe kernel program (filter-ebpf) does not compile"));
    }
    for line in messages.lines() {
        println!("cargo:warning={line}");
    }
    Ok(())
}

fn folder(variable: &str) -> Result<PathBuf, String> {
    env::var_os(variable).map(PathBuf::from).ok_or_else(|| format!("cargo did not set {variable}"))
}
