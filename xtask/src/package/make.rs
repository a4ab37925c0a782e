//! Makes the binary, the tree and both packages of a source tree.

use std::fs;

use anyhow::Result;

use super::source::{Made, Source, files};
use super::tree;
use crate::shell;

/// Builds the binary, puts the tree together, and makes both packages of it.
pub fn make(source: &Source) -> Result<Made> {
    let binary = source.build()?;
    tree::make(source, &binary)?;
    let folder = source.folder();
    for old in files(&folder)? {
        if old.extension().is_some_and(|kind| kind == "deb" || kind == "rpm") {
            fs::remove_file(&old)?;
        }
    }
    let mut deb = source.cargo()?;
    // Quiet: it takes what lies below target/ for something that it should build.
    deb.args(["deb", "--quiet", "--package", "palang", "--no-build", "--no-strip", "--no-dbgsym"])
        .arg("--output")
        .arg(&folder);
    shell::run(&mut deb)?;
    let mut rpm = source.cargo()?;
    // Its requirements are read from the binary, not from this machine.
    rpm.args(["generate-rpm", "--package", "filter-user", "--auto-req", "builtin", "--output"])
        .arg(&folder);
    shell::run(&mut rpm)?;
    source.made()
}
