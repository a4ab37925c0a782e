//! `palang block export`.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::Block;
use crate::cli::command::block::row_writer::Writer;
use crate::cli::command::block::rows::{FileRow, Format};
use crate::cli::output;
use crate::cli::output::Output;
use crate::cli::output::atomic_file::{self, Exported, WholeFile};
use crate::exit::Failure;

/// Export all blocks to a file that `palang block import` reads
///
/// palang block export blocks.csv
///
/// The file appears only when it is complete; only its owner can read it. In CSV, a text that a
/// spreadsheet would read as a formula gets an apostrophe in front; `palang block import` removes it.
///
/// Raw: file, rows; nothing if the export itself goes to standard output.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Output file [default: standard output]
    file: Option<PathBuf>,
    /// File format [default: json if the file name says so, otherwise csv]
    #[arg(long)]
    format: Option<Format>,
    #[command(flatten)]
    output: Output,
}

/// Exports all blocks.
///
/// # Errors
/// `Failed` if the file cannot be written; otherwise returns an error if the daemon refuses or cannot be reached.
pub fn run(arguments: &Arguments, client: &Client) -> Result<(), Failure> {
    let path = arguments.file.as_deref();
    let format = arguments.format.unwrap_or_else(|| by_name(path));
    let mut writer = match Writer::new(WholeFile::create(path)?, format) {
        Ok(writer) => writer,
        Err(error) => return output::written(Err(error)),
    };
    let (mut rows, mut result) = (0, Ok(()));
    let end = client.list(&client::path(&["blocks"], &[]), |block: Block| {
        rows += 1;
        result =
            FileRow::try_from(block).map_err(io::Error::other).and_then(|row| writer.row(&row));
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    match result.and_then(|()| writer.finish()) {
        Ok(file) => atomic_file::finish(file, Ok(()), end)?,
        Err(error) => return output::written(Err(error)),
    }
    Exported::print(path, rows, "block", arguments.output)
}

fn by_name(path: Option<&Path>) -> Format {
    let ending = path.and_then(Path::extension).and_then(|ending| ending.to_str());
    match ending {
        Some("json" | "jsonl" | "ndjson") => Format::Json,
        Some(_) | None => Format::Csv,
    }
}
