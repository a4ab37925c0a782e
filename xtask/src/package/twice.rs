//! Two builds of one commit, in two folders: the same bytes?

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{FOLDER, Made, Source, checks, files};
use crate::{ebpf, shell};

/// Builds both, one after the other, and compares binary, kernel program and packages.
pub fn compare(time: &str) -> Result<()> {
    let home = shell::root().join(FOLDER).join("twice");
    if home.exists() {
        fs::remove_dir_all(&home)?;
    }
    // Names of other lengths, since a path that is left somewhere may be padded.
    let made = ["one", "another-folder"].map(|name| build(&home.join(name), time));
    let [one, other] = made;
    let (one, other) = (one?, other?);
    let mut differ = Vec::new();
    for (name, [one, other]) in [
        ("kernel program", [object(&one)?, object(&other)?]),
        ("binary", [one.binary, other.binary]),
        (".deb", [one.deb, other.deb]),
        (".rpm", [one.rpm, other.rpm]),
    ] {
        if fs::read(&one)? == fs::read(&other)? {
            eprintln!("{name}: the same bytes");
        } else {
            differ.push(format!("{name}: {} and {} differ", one.display(), other.display()));
        }
    }
    ensure!(differ.is_empty(), "the build is not reproducible:\n{}", differ.join("\n"));
    fs::remove_dir_all(&home)?;
    Ok(())
}

/// A build of the last commit in a folder of its own.
fn build(root: &Path, time: &str) -> Result<Made> {
    fs::create_dir_all(root)?;
    let archive = root.join("source.tar");
    let mut git = Command::new("git");
    git.current_dir(shell::root()).args(["archive", "--output"]).arg(&archive).arg("HEAD");
    shell::run(&mut git)?;
    shell::run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(root))?;
    fs::remove_file(&archive)?;
    let source = Source { root: root.to_owned(), time: time.to_owned() };
    let made = source.make()?;
    checks::check(&source, &made)?;
    Ok(made)
}

/// The object of the kernel program that is in the binary.
fn object(made: &Made) -> Result<PathBuf> {
    let release = made.binary.parent().unwrap_or(Path::new("."));
    files(&release.join("build"))?
        .into_iter()
        .map(|folder| ebpf::object_in(&folder.join("out/ebpf")))
        .find(|object| object.exists())
        .with_context(|| format!("no kernel program in {}", release.display()))
}
