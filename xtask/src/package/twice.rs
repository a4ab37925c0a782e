//! The same commit built once more, in another folder: the same bytes?

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::source::{FOLDER, Made, Source, files};
use super::{checks, make};
use crate::{ebpf, shell};

/// Builds the last commit in a new folder and compares kernel program, binary and packages with
/// those that were made of this folder.
pub fn compare(source: &Source, made: &Made) -> Result<()> {
    let mut status = Command::new("git");
    let changed = shell::read(status.current_dir(shell::root()).args(["status", "--porcelain"]))?;
    ensure!(changed.is_empty(), "commit first, the last commit is built again:\n{changed}");
    let other_root = shell::root().join(FOLDER).join("twice");
    if other_root.exists() {
        fs::remove_dir_all(&other_root)?;
    }
    let other = Source { root: other_root.clone(), time: source.time.clone() };
    export(&other.root)?;
    let again = make::make(&other)?;
    checks::check(&other, &again)?;
    let mut differ = Vec::new();
    for (name, one, other) in [
        ("kernel program", &object(made)?, &object(&again)?),
        ("binary", &made.binary, &again.binary),
        (".deb", &made.deb, &again.deb),
        (".rpm", &made.rpm, &again.rpm),
    ] {
        if fs::read(one)? == fs::read(other)? {
            eprintln!("{name}: the same bytes");
        } else {
            differ.push(format!("{name}: {} and {} differ", one.display(), other.display()));
        }
    }
    ensure!(differ.is_empty(), "the build is not reproducible:\n{}", differ.join("\n"));
    Ok(fs::remove_dir_all(&other_root)?)
}

/// Puts the source of the last commit into a folder.
fn export(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let archive = folder.join("source.tar");
    let mut git = Command::new("git");
    git.current_dir(shell::root()).args(["archive", "--output"]).arg(&archive).arg("HEAD");
    shell::run(&mut git)?;
    shell::run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(folder))?;
    Ok(fs::remove_file(&archive)?)
}

/// Returns the object of the kernel program in the binary: the newest, for a folder that was built
/// in before may have older ones.
fn object(made: &Made) -> Result<PathBuf> {
    let release = made.binary.parent().unwrap_or(Path::new("."));
    let objects = files(&release.join("build"))?.into_iter();
    let objects = objects.map(|folder| ebpf::object_in(&folder.join("out/ebpf"), ebpf::FILTER));
    let newest = objects.max_by_key(|object| object.metadata().and_then(|it| it.modified()).ok());
    newest.with_context(|| format!("no kernel program in {}", release.display()))
}
