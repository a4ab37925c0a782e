//! `cargo xtask package`: what an edge server installs, as .deb and .rpm.
//!
//! ```text
//! target/package/release/palang   the binary, kernel program inside
//! target/package/tree/            what the packages bring; filter-user/Cargo.toml lists it
//! target/package/*.deb, *.rpm
//! ```
//! One commit gives the same bytes in any folder; `--twice` proves it.

mod checks;
mod make;
mod source;
mod tools;
mod tree;
mod twice;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

pub use self::source::Made;
use self::source::Source;
use crate::{setup, shell};

/// Builds both packages and checks them.
pub fn package(twice: bool) -> Result<()> {
    setup::setup()?;
    tools::install()?;
    let root = shell::root().to_owned();
    let time = commit_time(&root)?;
    let source = Source { root, time };
    let made = make::make(&source)?;
    checks::check(&source, &made)?;
    if twice {
        twice::compare(&source, &made)?;
    }
    eprintln!("\nbuilt {}\nbuilt {}", made.deb.display(), made.rpm.display());
    Ok(())
}

/// Returns the packages, unchecked: those that were `made` before, or new ones.
pub fn unchecked(made: bool) -> Result<Made> {
    let root = shell::root().to_owned();
    let time = commit_time(&root)?;
    let source = Source { root, time };
    if made {
        return source.made().context("no packages there: `cargo xtask package` makes them");
    }
    tools::install()?;
    make::make(&source)
}

fn commit_time(root: &Path) -> Result<String> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["log", "-1", "--format=%ct"]);
    let time = shell::read(&mut git)?.trim().to_owned();
    ensure!(!time.is_empty(), "no commit to take the time of the packages from");
    Ok(time)
}
