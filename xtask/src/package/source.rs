//! The source tree of the packages, and a cargo that builds it reproducibly.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{build, ebpf, shell};

/// Where everything of this command goes.
pub const FOLDER: &str = "target/package";

/// A source tree that is packaged, and when it was committed.
pub struct Source {
    pub root: PathBuf,
    /// Seconds since 1970, the time that every file of the packages has.
    pub time: String,
}

/// The packages that were made.
pub struct Made {
    pub deb: PathBuf,
    pub rpm: PathBuf,
    pub binary: PathBuf,
}

impl Source {
    pub fn folder(&self) -> PathBuf {
        self.root.join(FOLDER)
    }

    /// Returns the packages in the folder.
    pub fn made(&self) -> Result<Made> {
        let folder = self.folder();
        let made = |kind: &str| {
            let found = files(&folder)?;
            let found =
                found.into_iter().find(|file| file.extension().is_some_and(|it| it == kind));
            found.with_context(|| format!("no .{kind} in {}", folder.display()))
        };
        Ok(Made { deb: made("deb")?, rpm: made("rpm")?, binary: folder.join("release/palang") })
    }

    pub fn build(&self) -> Result<PathBuf> {
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

    /// Returns a cargo that leaves no trace of this machine in its output.
    pub fn cargo(&self) -> Result<Command> {
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

/// Returns the folder of the compiler that builds the binary.
fn sysroot() -> Result<PathBuf> {
    let rustc = Path::new(shell::cargo().get_program()).with_file_name("rustc");
    let sysroot = shell::read(Command::new(rustc).args(["--print", "sysroot"]))?;
    Ok(sysroot.trim().into())
}

/// Returns the entries of a folder, sorted.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}
