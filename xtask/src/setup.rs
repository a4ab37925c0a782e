//! `cargo xtask setup`: installs what is missing, and nothing when nothing is.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{ebpf, shell};

/// Compile the kernel program: rustc and cargo with `core` for BPF, clippy for the same
/// rustc, and the LLVM that bpf-linker is linked with.
const COMPILE: [&str; 7] = [
    "rustc-web",
    "cargo-web",
    "libstd-rust-web-dev-bpf",
    "rust-web-clippy",
    "llvm-22-dev",
    "gcc",
    "libc6-dev",
];

/// Packages of the programs that the tests call.
const TEST: [&str; 16] = [
    "tshark",
    "xz-utils",
    "zstd",
    "iproute2",
    "ethtool",
    "nftables",
    "kamailio",
    "sip-tester",
    "libosip2-dev",
    "libsofia-sip-ua-dev",
    "kamailio-utils-modules",
    "prometheus",
    "tmux",
    "curl",
    "python3",
    "zsh",
];

/// Where programs and maps are pinned.
const BPFFS: &str = "/sys/fs/bpf";

/// Where Debian keeps the LLVM of [`COMPILE`].
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Makes this machine ready for `cargo xtask build` and `test`.
pub fn setup() -> Result<()> {
    install_missing(&TEST)
}

/// Makes this machine ready to build: the compiler of the kernel program, and nothing of the tests.
pub fn compiler() -> Result<()> {
    install_missing(&[])
}

/// Installs the compiler of the kernel program and these packages, as far as they are missing.
fn install_missing(packages: &[&str]) -> Result<()> {
    let compiler = ebpf::find();
    if !is_debian() {
        // The tests name what they miss themselves; only the compiler can be checked here.
        let toolchain = compiler.map_err(|missing| anyhow!("{missing}{}", other_systems()))?;
        eprintln!("setup: {}", toolchain.name());
        return Ok(());
    }
    // A compiler from elsewhere (rustup's nightly) is as good as Debian's.
    let can_lint = compiler.as_ref().is_ok_and(ebpf::Toolchain::has_clippy);
    let wanted = if can_lint { &[][..] } else { &COMPILE[..] };
    let missing = missing_packages(&[wanted, packages].concat())?;
    let linker = ebpf::find_linker().is_err().then(install_linker);

    if !missing.is_empty() || linker.is_some() {
        if !shell::is_root() {
            bail!("{}", as_root(&missing, linker.as_ref()));
        }
        install(&missing)?;
        if let Some(mut linker) = linker {
            shell::run(&mut linker)?;
        }
    }
    let toolchain = ebpf::find().map_err(|error| anyhow!("{error}{}", other_systems()))?;
    eprintln!("setup: complete ({})", toolchain.name());
    Ok(())
}

/// Mounts the kernel's BPF file system where nobody has yet: in a container, for one.
pub fn mount_bpf() -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts").context("/proc/mounts")?;
    if mounts.lines().any(|mount| mount.split(' ').nth(1) == Some(BPFFS)) {
        return Ok(());
    }
    shell::run(Command::new("mount").args(["-t", "bpf", "bpf", BPFFS]))
}

/// Installs the Debian packages among `wanted` that are missing.
pub fn packages(wanted: &[&str]) -> Result<()> {
    if !is_debian() {
        eprintln!("setup: not Debian; make sure to have: {}", wanted.join(" "));
        return Ok(());
    }
    let missing = missing_packages(wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    if !shell::is_root() {
        bail!("{}", as_root(&missing, None));
    }
    install(&missing)
}

fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    eprintln!("setup: missing packages: {}", packages.join(" "));
    let mut install = apt_get(&["install", "--yes", "--no-install-recommends"]);
    install.args(packages);
    // A list that is a few weeks old names files that the mirrors no longer have.
    if unknown(packages)?.is_empty() && shell::run(&mut install).is_ok() {
        return Ok(());
    }
    shell::run(&mut apt_get(&["update"]))?;
    let unknown = unknown(packages)?;
    if !unknown.is_empty() {
        bail!("apt has no {} that will do\n{}", unknown.join(" or "), other_systems());
    }
    shell::run(&mut install)
}

/// Returns the packages that apt does not know, or only too old.
fn unknown<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    let mut unknown = Vec::new();
    for &package in packages {
        let will_do = match candidate(package)? {
            // Debian 12 came with an older one; a list from then still names it.
            Some(version) if package == "rustc-web" => is_new_enough(&version)?,
            Some(_) => true,
            None => false,
        };
        if !will_do {
            unknown.push(package);
        }
    }
    Ok(unknown)
}

/// Returns an `apt-get` that asks nothing.
pub fn apt_get(arguments: &[&str]) -> Command {
    let mut apt_get = Command::new("apt-get");
    apt_get.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
    apt_get
}

/// Returns the packages that are not installed.
fn missing_packages<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(packages)
        .output() // fails when one is unknown, and lists the others all the same
        .context("cannot run dpkg-query")?;
    let list = String::from_utf8_lossy(&output.stdout).into_owned();
    let installed = |package: &str| list.lines().any(|line| line == format!("{package} installed"));
    Ok(packages.iter().copied().filter(|package| !installed(package)).collect())
}

/// Returns the version that apt would install, if apt knows one.
fn candidate(package: &str) -> Result<Option<String>> {
    let policy =
        shell::read(Command::new("apt-cache").env("LC_ALL", "C").args(["policy", package]))?;
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    Ok(version.filter(|version| *version != "(none)").map(str::to_owned))
}

/// Returns whether a package of rustc is the one that we know to work, or newer.
fn is_new_enough(version: &str) -> Result<bool> {
    let wanted = format!("{}.{}", ebpf::RUSTC.0, ebpf::RUSTC.1);
    let status = Command::new("dpkg")
        .args(["--compare-versions", version, "ge", &wanted])
        .status()
        .context("cannot run dpkg")?;
    Ok(status.success())
}

/// Returns the command that compiles bpf-linker with Debian's LLVM.
fn install_linker() -> Command {
    let mut install = shell::cargo();
    install
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .env(format!("LLVM_SYS_{}1_PREFIX", ebpf::LLVM), LLVM_PREFIX)
        // Not this repository's settings, and nothing of xtask's own build.
        .current_dir("/")
        .args(["install", "bpf-linker", "--version", ebpf::BPF_LINKER, "--locked", "--force"])
        .args(["--no-default-features", "--features", &format!("llvm-{}", ebpf::LLVM)]);
    install
}

/// Installs a cargo subcommand, if it is not there in this version.
pub fn tool(name: &str, version: &str) -> Result<()> {
    let listed = shell::read(shell::cargo().args(["install", "--list"]))?;
    if listed.lines().any(|line| line == format!("{name} v{version}:")) {
        return Ok(());
    }
    let mut install = shell::cargo();
    // Not this repository's settings.
    install.current_dir("/").args(["install", name, "--version", version, "--locked"]);
    shell::run(&mut install)
}

/// Returns the commands to type when we may not install.
fn as_root(packages: &[&str], linker: Option<&Command>) -> String {
    let mut text = String::from("something is missing, and this is not root. Run:\n");
    if !packages.is_empty() {
        text += "    sudo apt-get update\n";
        text +=
            &format!("    sudo apt-get install --no-install-recommends {}\n", packages.join(" "));
    }
    if let Some(linker) = linker {
        text += &format!("    {}\n", shell::show(linker));
    }
    text + "and then this command again."
}

/// Returns advice for systems whose packages we do not know.
fn other_systems() -> String {
    let (linker, llvm) = (ebpf::BPF_LINKER, ebpf::LLVM);
    format!(
        "Other systems than Debian 12 need rustup's nightly and LLVM {llvm} with its headers \
         (package llvm-{llvm}-dev, llvm{llvm}-devel or llvm{llvm}). Run:
    rustup toolchain install nightly --component rust-src --component clippy
    LLVM_PREFIX=$(llvm-config-{llvm} --prefix) LLVM_SYS_{llvm}1_PREFIX=$(llvm-config-{llvm} --prefix) \\
        cargo install bpf-linker --version {linker} --locked --no-default-features --features llvm-{llvm}
`rustc +nightly -vV` must say LLVM {llvm}; otherwise take a nightly of that time. \
         The tests also call: {tests}.",
        tests = TEST.join(", "),
    )
}

/// Returns whether apt and Debian's package names are available.
fn is_debian() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let on_path = |program: &str| {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path)
            .map(|folder| folder.join(program))
            .any(|file: PathBuf| file.exists())
    };
    release.lines().any(|line| line == "ID=debian") && on_path("apt-get")
}
