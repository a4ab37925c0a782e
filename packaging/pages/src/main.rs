//! The man pages: those of the commands from what `--help` says, palang.toml(5) from the
//! commented example. A program of its own, so that nothing of it is in the binary that is shipped.

mod commands;
mod settings;

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// `palang-pages FOLDER docs/palang.toml`: writes `man1/` and `man5/` in the folder.
fn main() -> Result<()> {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let folder = arguments.next().context("say in which folder")?;
    let example = arguments.next().context("say where palang.toml is")?;
    let example = fs::read_to_string(&example).with_context(|| example.display().to_string())?;
    for (section, pages) in
        [("man1", commands::pages()?), ("man5", vec![settings::page(&example)?])]
    {
        fs::create_dir_all(folder.join(section))?;
        for (name, text) in pages {
            fs::write(folder.join(section).join(name), text)?;
        }
    }
    Ok(())
}
