//! `palang store`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::print::{self, Answer, Output};
use crate::client::{self, Client};
use crate::exit::{Exit, Failure};
use crate::wire::Backup;

/// Back the store up
///
/// palang store backup /var/backups/palang.db
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Backup(BackupArguments),
}

/// Copy the store while the daemon works; needs the role admin
///
/// palang store backup /var/backups/palang.db
///
/// The daemon writes the file. Raw: file.
#[derive(Debug, Args)]
struct BackupArguments {
    /// A file that does not exist yet
    file: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// Does what was asked for.
///
/// # Errors
/// The daemon's no, or none to ask.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    let Command::Backup(backup) = &arguments.command;
    let usage = |message: String| Failure::new(Exit::Usage, message);
    // The daemon has another working directory.
    let path = std::path::absolute(&backup.file)
        .map_err(|error| usage(format!("{}: {error}", backup.file.display())))?;
    let file = path
        .into_os_string()
        .into_string()
        .map_err(|path| usage(format!("{}: the name has to be UTF-8", path.display())))?;
    let what = Backup { path: file.clone() };
    // A large store takes its time; the daemon tells when the disk is full.
    let _: serde_json::Value =
        client.post(&client::path(&["store", "backup"], &[]), &what, client::BACKUP)?;
    backup.output.tell(&Done { file })?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Done {
    file: String,
}

impl Answer for Done {
    fn people(&self, writer: &mut dyn Write) -> io::Result<()> {
        writeln!(writer, "backed up to {}", print::clean(&self.file))
    }

    fn raw(&self) -> Vec<Vec<String>> {
        vec![vec![self.file.clone()]]
    }
}
