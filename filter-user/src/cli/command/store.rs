//! `palang store`.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::{AdoptFrom, AdoptStore, Adopted, Backup};
use crate::cli::input::options::ChangeOptions;
use crate::cli::output::{self, Answer, Output, counted, known};
use crate::config::Config;
use crate::config::limits;
use crate::exit::{Exit, Failure};
use crate::store;
use crate::store::Kind;
use crate::sys::lock;

/// Back up the store, restore it, or resolve a conflict between store and maps
///
/// palang store backup /var/lib/palang/palang.backup
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Backup(BackupArguments),
    Restore(RestoreArguments),
    Adopt(AdoptArguments),
}

/// Copy the store while the daemon runs; needs the role admin
///
/// palang store backup /var/lib/palang/palang.backup
///
/// The daemon writes the file: below /var/lib/palang, or below `[paths] backup`. Raw: file.
#[derive(Debug, Args)]
struct BackupArguments {
    /// Output file; it must not exist
    file: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// Restore the daemon's store from a copy, on this machine or a new one; the daemon must not run
///
/// palang store restore /var/backups/palang.db --replace
///
/// The copy is checked and not changed. An existing store is renamed, never deleted. Allows in the
/// kernel's maps stay; the blocks become those of the copy when the daemon starts. Raw: file, new
/// name of the former store, blocks, allows, audit head.
#[derive(Debug, Args)]
struct RestoreArguments {
    /// Copy made by `palang store backup`
    file: PathBuf,
    /// Configuration file of the daemon, which has the path of the store
    #[arg(long, env = "PALANG_CONFIG", value_name = "FILE", default_value = limits::PATH)]
    config: PathBuf,
    /// Rename the existing store
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    change: ChangeOptions,
    #[command(flatten)]
    output: Output,
}

/// Resolve a store that does not belong to the kernel's maps; needs the role admin
///
/// palang store adopt --from-maps
///
/// Needed if the store was missing when the daemon started, or was replaced by another or an older
/// one. The maps then keep their entries and `palang status` is red. --from-maps stores those
/// entries: numbers, ends and mode, but not the reasons, which only the lost store had. --from-store
/// makes the maps follow the present store. Raw: maps or store, blocks stored, blocks ended, allows
/// stored.
#[derive(Debug, Args)]
struct AdoptArguments {
    /// Store the entries of the maps
    #[arg(long, required_unless_present = "from_store", conflicts_with = "from_store")]
    from_maps: bool,
    /// Make the maps follow the store: numbers that only the maps block pass again
    #[arg(long)]
    from_store: bool,
    #[command(flatten)]
    change: ChangeOptions,
    #[command(flatten)]
    output: Output,
}

/// Runs the `palang store` command.
///
/// # Errors
/// `Usage` if the copy is not a store, or another store exists; otherwise returns an error if the daemon
/// refuses or cannot be reached.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Backup(arguments) => backup(arguments, client),
        Command::Restore(arguments) => restore(arguments),
        Command::Adopt(arguments) => adopt(arguments, client),
    }
}

fn restore(arguments: &RestoreArguments) -> Result<Exit, Failure> {
    let RestoreArguments { file, config, replace, change: ChangeOptions { dry_run }, output } =
        arguments;
    let paths = Config::read(config).map_err(|error| Failure::new(Exit::Usage, error))?.paths;
    // On a new machine these folders are missing.
    for folder in [&paths.runtime, &paths.state] {
        if !dry_run {
            fs::create_dir_all(folder).map_err(|error| lock::failed(folder, &error))?;
        }
    }
    let _lock = if paths.runtime.exists() { Some(lock::lock(&paths.lock())?) } else { None };
    let store = paths.store();
    let copy = store::check_restore(file, &store, *replace).map_err(failure)?;
    let mut done = Restored {
        file: store.display().to_string(),
        before: None,
        blocks: copy.count(Kind::Block).map_err(failure)?,
        allows: copy.count(Kind::Allow).map_err(failure)?,
        audit_head: copy.audit_head().map_err(failure)?.to_string(),
        dry_run: *dry_run,
    };
    drop(copy);
    if !dry_run {
        let before = store::restore(file, &store, *replace).map_err(failure)?;
        done.before = before.map(|path| path.display().to_string());
    }
    output.print(&done)?;
    Ok(Exit::Done)
}

fn failure(error: store::Error) -> Failure {
    match &error {
        store::Error::Exists { .. } => {
            let message = format!("{error}: to rename it, add --replace");
            Failure::new(Exit::Usage, message)
        }
        store::Error::Corrupt { .. } | store::Error::Newer { .. } => {
            Failure::new(Exit::Usage, error.message())
        }
        store::Error::Full { .. }
        | store::Error::ReadOnly { .. }
        | store::Error::Busy { .. }
        | store::Error::Gone { .. }
        | store::Error::Unopened { .. }
        | store::Error::Failed { .. } => Failure::new(Exit::Failed, error.message()),
    }
}

#[derive(Serialize)]
struct Restored {
    file: String,
    before: Option<String>,
    blocks: u64,
    allows: u64,
    audit_head: String,
    dry_run: bool,
}

impl Answer for Restored {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        if self.dry_run {
            writeln!(writer, "dry run, nothing was changed")?;
        }
        let verb = if self.dry_run { "would restore" } else { "restored" };
        let (blocks, allows) = (counted(self.blocks, "block"), counted(self.allows, "allow"));
        writeln!(writer, "{verb} {}: {blocks}, {allows}", output::clean(&self.file))?;
        if let Some(before) = &self.before {
            writeln!(writer, "the former store is now {}", output::clean(before))?;
        }
        writeln!(writer, "audit head {}", self.audit_head)?;
        if self.dry_run {
            return Ok(());
        }
        writeln!(writer, "takes effect when the daemon starts: systemctl start palang")
    }

    fn raw(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.file.clone(),
            known(self.before.as_ref()),
            self.blocks.to_string(),
            self.allows.to_string(),
            self.audit_head.clone(),
        ]]
    }
}

fn backup(backup: &BackupArguments, client: &Client) -> Result<Exit, Failure> {
    let usage = |message: String| Failure::new(Exit::Usage, message);
    // The daemon has a different working directory.
    let path = std::path::absolute(&backup.file)
        .map_err(|error| usage(format!("{}: {error}", backup.file.display())))?;
    let file = path
        .into_os_string()
        .into_string()
        .map_err(|path| usage(format!("{}: the name must be UTF-8", path.display())))?;
    let what = Backup { path: file.clone() };
    // Copying a large store takes long; the daemon reports a full disk.
    let _: serde_json::Value =
        client.post(&client::path(&["store", "backup"], &[]), &what, client::BACKUP)?;
    backup.output.print(&Done { file })?;
    Ok(Exit::Done)
}

fn adopt(arguments: &AdoptArguments, client: &Client) -> Result<Exit, Failure> {
    let AdoptArguments { from_maps, change: ChangeOptions { dry_run }, output, .. } = arguments;
    let from = if *from_maps { AdoptFrom::Maps } else { AdoptFrom::Store };
    let adopt = AdoptStore { from, dry_run: *dry_run };
    let path = client::path(&["store", "adopt"], &[]);
    let adopted: Adopted = client.post(&path, &adopt, client::BACKUP)?;
    output.print(&adopted)?;
    Ok(Exit::Done)
}

impl Answer for Adopted {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        if self.dry_run {
            writeln!(writer, "dry run, nothing was changed")?;
        }
        if self.from == AdoptFrom::Store {
            return writeln!(writer, "the kernel's maps now follow the store");
        }
        let (blocks, allows) = (counted(self.blocks, "block"), counted(self.allows, "allow"));
        let removed = counted(self.removed, "stored block");
        writeln!(
            writer,
            "the store now has the entries of the kernel's maps: {blocks} and {allows} stored, {removed} ended"
        )
    }

    fn raw(&self) -> Vec<Vec<String>> {
        let from = match self.from {
            AdoptFrom::Maps => "maps",
            AdoptFrom::Store => "store",
        };
        let counts = [self.blocks, self.removed, self.allows].map(|count| count.to_string());
        vec![[vec![from.to_owned()], counts.to_vec()].concat()]
    }
}

#[derive(Serialize)]
struct Done {
    file: String,
}

impl Answer for Done {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        writeln!(writer, "backed up to {}", output::clean(&self.file))
    }

    fn raw(&self) -> Vec<Vec<String>> {
        vec![vec![self.file.clone()]]
    }
}
