//! `cargo xtask package`: what an edge server installs, as .deb and .rpm.
//!
//! ```text
//! target/package/release/palang   the binary, kernel program inside
//! target/package/tree/            what the packages bring; filter-user/Cargo.toml lists it
//! target/package/*.deb, *.rpm
//! ```
//! The same commit gives the same bytes in any folder; `--twice` proves it.

mod checks;
mod tools;
mod tree;
mod twice;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{build, ebpf, setup, shell};

/// Where everything of this command goes.
const FOLDER: &str = "target/package";

/// A source tree that is packaged, and when it was committed.
struct Source {
    root: PathBuf,
    /// Seconds since 1970, the time that every file of the packages has.
    time: String,
}

/// What was made.
pub struct Made {
    pub deb: PathBuf,
    pub rpm: PathBuf,
    binary: PathBuf,
}

/// Builds both packages and checks them.
pub fn package(twice: bool) -> Result<()> {
    setup::setup()?;
    tools::install()?;
    let root = shell::root().to_owned();
    let time = commit_time(&root)?;
    let source = Source { root, time };
    let made = source.make()?;
    checks::check(&source, &made)?;
    if twice {
        twice::compare(&source, &made)?;
    }
    eprintln!("\nbuilt {}\nbuilt {}", made.deb.display(), made.rpm.display());
    Ok(())
}

/// The packages, unchecked: those that were `made` before, or new ones.
pub fn unchecked(made: bool) -> Result<Made> {
    let root = shell::root().to_owned();
    let time = commit_time(&root)?;
    let source = Source { root, time };
    if made {
        return source.made().context("no packages there: `cargo xtask package` makes them");
    }
    tools::install()?;
    source.make()
}

fn commit_time(root: &Path) -> Result<String> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["log", "-1", "--format=%ct"]);
    let time = shell::read(&mut git)?.trim().to_owned();
    ensure!(!time.is_empty(), "no commit to take the time of the packages from");
    Ok(time)
}

impl Source {
    fn folder(&self) -> PathBuf {
        self.root.join(FOLDER)
    }

    /// Builds the binary, puts the tree together, and makes both packages of it.
    fn make(&self) -> Result<Made> {
        let binary = self.build()?;
        tree::make(self, &binary)?;
        let folder = self.folder();
        for old in files(&folder)? {
            if old.extension().is_some_and(|kind| kind == "deb" || kind == "rpm") {
                fs::remove_file(&old)?;
            }
        }
        let mut deb = self.cargo()?;
        // Quiet: it takes what lies below target/ for something that it should build.
        deb.args([
            "deb",
            "--quiet",
            "--package",
            "palang",
            "--no-build",
            "--no-strip",
            "--no-dbgsym",
        ])
        .arg("--output")
        .arg(&folder);
        shell::run(&mut deb)?;
        let mut rpm = self.cargo()?;
        // What it requires is read from the binary, whatever else this machine has.
        rpm.args(["generate-rpm", "--package", "filter-user", "--auto-req", "builtin", "--output"])
            .arg(&folder);
        shell::run(&mut rpm)?;
        self.made()
    }

    /// What stands in the folder.
    fn made(&self) -> Result<Made> {
        let folder = self.folder();
        let made = |kind: &str| {
            let found = files(&folder)?;
            let found =
                found.into_iter().find(|file| file.extension().is_some_and(|it| it == kind));
            found.with_context(|| format!("no .{kind} in {}", folder.display()))
        };
        Ok(Made { deb: made("deb")?, rpm: made("rpm")?, binary: folder.join("release/palang") })
    }

    fn build(&self) -> Result<PathBuf> {
        let mut cargo = self.cargo()?;
        cargo.args(["build", "--release", "--locked", "--package", "palang"]);
        cargo.args(["--package", "palang-pages"]);
        // SQLite would be compiled again after every commit; the time is in nothing that is built.
        cargo.env_remove("SOURCE_DATE_EPOCH");
        shell::run_as("cargo build --release --package palang --package palang-pages", &mut cargo)?;
        let binary = self.folder().join("release/palang");
        build::check(&binary)?;
        Ok(binary)
    }

    /// A cargo that leaves no trace of this machine in what it builds.
    fn cargo(&self) -> Result<Command> {
        let sysroot = sysroot()?;
        let flags = ebpf::remap(&self.root, &sysroot);
        // SQLite is C.
        let c_flags = ebpf::folders(&self.root, &sysroot)
            .map(|(from, to)| format!("-ffile-prefix-map={from}={to}"));
        let mut cargo = shell::cargo();
        cargo
            .current_dir(&self.root)
            .env("SOURCE_DATE_EPOCH", &self.time)
            .env("CARGO_TARGET_DIR", self.folder())
            .env("CARGO_INCREMENTAL", "0")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "none")
            .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env("CFLAGS", c_flags.collect::<Vec<_>>().join(" "));
        Ok(cargo)
    }
}

/// The folder of the compiler that builds the binary.
fn sysroot() -> Result<PathBuf> {
    let rustc = Path::new(shell::cargo().get_program()).with_file_name("rustc");
    let sysroot = shell::read(Command::new(rustc).args(["--print", "sysroot"]))?;
    Ok(sysroot.trim().into())
}

/// What a folder holds, sorted.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}
