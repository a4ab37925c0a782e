//! The man pages: those of the commands from what `--help` says, palang.toml(5) from the
//! commented example. A program of its own, so that nothing of it is in the binary that is shipped.

mod commands;
mod settings;

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// `palang-pages FOLDER docs/palang.toml 2026-11-24`: writes `man1/` and `man5/` in the folder.
fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let folder = arguments.next().map(PathBuf::from).context("say in which folder")?;
    let example = arguments.next().map(PathBuf::from).context("say where palang.toml is")?;
    let date = arguments.next().context("say the date of the pages")?;
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
