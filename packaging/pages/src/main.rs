//! Writes the man pages: the pages of the commands from `--help`, palang.toml(5) from the commented
//! example. It is a separate program, so that none of it is in the shipped binary.

mod commands;
mod settings;

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// Writes `man1/` and `man5/` in a folder: `palang-pages FOLDER docs/palang.toml 2026-11-24`.
fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let folder = arguments.next().map(PathBuf::from).context("the folder is missing")?;
    let example =
        arguments.next().map(PathBuf::from).context("the path of palang.toml is missing")?;
    let date = arguments.next().context("the date of the pages is missing")?;
    let example = fs::read_to_string(&example).with_context(|| example.display().to_string())?;
    for (section, pages) in
        [("man1", commands::pages(&date)?), ("man5", vec![settings::page(&example, &date)?])]
    {
        fs::create_dir_all(folder.join(section))?;
        for (name, text) in pages {
            fs::write(folder.join(section).join(name), text)?;
        }
    }
    Ok(())
}
