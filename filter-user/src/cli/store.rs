//! `palang store`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::print::{self, Answer, Output, counted, known};
use crate::client::{self, Client};
use crate::config::{self, Config};
use crate::daemon;
use crate::exit::{Exit, Failure};
use crate::store::{self, Kind};
use crate::wire::{AdoptFrom, AdoptStore, Adopted, Backup};

/// Back the store up, make it again from a copy, decide between store and maps
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

/// Copy the store while the daemon works; needs the role admin
///
/// palang store backup /var/lib/palang/palang.backup
///
/// The daemon writes the file: below /var/lib/palang, or where `[paths] backup` says. Raw: file.
#[derive(Debug, Args)]
struct BackupArguments {
    /// A file that does not exist yet
    file: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// Make the daemon's store from a copy, on this machine or a new one; the daemon must not run
///
/// palang store restore /var/backups/palang.db --replace
///
/// The copy is checked and not changed. A store that is there is renamed, never deleted. What
/// the kernel's maps let through stays; what is blocked is made as the copy says when the daemon
/// starts. Raw: file, name of the store before, blocks, allows, audit head.
#[derive(Debug, Args)]
struct RestoreArguments {
    /// The copy that `palang store backup` made
    file: PathBuf,
    /// Configuration of the daemon, which says where the store is
    #[arg(long, value_name = "FILE", default_value = config::PATH)]
    config: PathBuf,
    /// Rename the store that is there
    #[arg(long)]
    replace: bool,
    /// Change nothing, say what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

/// Decide, where the store is not the one that the kernel's maps were written from; needs the role admin
///
/// palang store adopt --from-maps
///
/// The store was missing when the daemon started, or another or an older one was put in its place: then
/// the maps keep what they hold, and `palang status` is red. With --from-maps it is stored: numbers, ends
/// and mode, without the reasons, which only the store had. With --from-store the maps follow the store
/// as it is. Raw: maps or store, blocks stored, blocks ended, allows stored.
#[derive(Debug, Args)]
struct AdoptArguments {
    /// Store what the maps hold
    #[arg(long, required_unless_present = "from_store", conflicts_with = "from_store")]
    from_maps: bool,
    /// Let the maps follow the store: what only they block passes
    #[arg(long)]
    from_store: bool,
    /// Change nothing, say what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

/// Does what was asked for.
///
/// # Errors
/// The daemon's no, or none to ask; a copy that is no store; a store that is in the way.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Backup(arguments) => backup(arguments, client),
        Command::Restore(arguments) => restore(arguments),
        Command::Adopt(arguments) => adopt(arguments, client),
    }
}

fn restore(arguments: &RestoreArguments) -> Result<Exit, Failure> {
    let RestoreArguments { file, config, replace, dry_run, output } = arguments;
    let paths = Config::read(config).map_err(|error| Failure::new(Exit::Usage, error))?.paths;
    let failed = |path: &Path, error: io::Error| {
        let refused = error.kind() == io::ErrorKind::PermissionDenied;
        let exit = if refused { Exit::Refused } else { Exit::Failed };
        Failure::new(exit, format!("{}: {error}", path.display()))
    };
    // A new machine has neither.
    for folder in [&paths.runtime, &paths.state] {
        if !dry_run {
            fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        }
    }
    let _lock = if paths.runtime.exists() { Some(daemon::lock(&paths.lock())?) } else { None };
    let store = paths.store();
    let copy = store::check_restore(file, &store, *replace).map_err(told)?;
    let mut done = Restored {
        file: store.display().to_string(),
        before: None,
        blocks: copy.count(Kind::Block).map_err(told)?,
        allows: copy.count(Kind::Allow).map_err(told)?,
        audit_head: copy.audit_head().map_err(told)?.to_string(),
        dry_run: *dry_run,
    };
    drop(copy);
    if !dry_run {
        let before = store::restore(file, &store, *replace).map_err(told)?;
        done.before = before.map(|path| path.display().to_string());
    }
    output.tell(&done)?;
    Ok(Exit::Done)
}

fn told(error: store::Error) -> Failure {
    match &error {
        store::Error::Exists { .. } => {
            let message = format!("{error}: --replace renames it");
            Failure::new(Exit::Usage, message)
        }
        store::Error::Corrupt { .. } | store::Error::Newer { .. } => {
            Failure::new(Exit::Usage, error)
        }
        store::Error::Full { .. }
        | store::Error::ReadOnly { .. }
        | store::Error::Busy { .. }
        | store::Error::Gone { .. }
        | store::Error::Failed { .. } => Failure::new(Exit::Failed, error),
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
    fn people(&self, writer: &mut dyn Write) -> io::Result<()> {
        if self.dry_run {
            writeln!(writer, "dry run, nothing was changed")?;
        }
        let verb = if self.dry_run { "would restore" } else { "restored" };
        let (blocks, allows) = (counted(self.blocks, "block"), counted(self.allows, "allow"));
        writeln!(writer, "{verb} {}: {blocks}, {allows}", print::clean(&self.file))?;
        if let Some(before) = &self.before {
            writeln!(writer, "the store before is now {}", print::clean(before))?;
        }
        writeln!(writer, "audit head {}", self.audit_head)?;
        if self.dry_run {
            return Ok(());
        }
        writeln!(writer, "in force when the daemon starts: systemctl start palang")
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

fn adopt(arguments: &AdoptArguments, client: &Client) -> Result<Exit, Failure> {
    let AdoptArguments { from_maps, dry_run, output, .. } = arguments;
    let from = if *from_maps { AdoptFrom::Maps } else { AdoptFrom::Store };
    let adopt = AdoptStore { from, dry_run: *dry_run };
    let path = client::path(&["store", "adopt"], &[]);
    let adopted: Adopted = client.post(&path, &adopt, client::BACKUP)?;
    output.tell(&adopted)?;
    Ok(Exit::Done)
}

impl Answer for Adopted {
    fn people(&self, writer: &mut dyn Write) -> io::Result<()> {
        if self.dry_run {
            writeln!(writer, "dry run, nothing was changed")?;
        }
        if self.from == AdoptFrom::Store {
            return writeln!(writer, "the kernel's maps follow the store");
        }
        let (blocks, allows) = (counted(self.blocks, "block"), counted(self.allows, "allow"));
        let removed = counted(self.removed, "stored block");
        writeln!(
            writer,
            "the store has what the kernel's maps hold: {blocks} and {allows} stored, {removed} ended"
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
    fn people(&self, writer: &mut dyn Write) -> io::Result<()> {
        writeln!(writer, "backed up to {}", print::clean(&self.file))
    }

    fn raw(&self) -> Vec<Vec<String>> {
        vec![vec![self.file.clone()]]
    }
}
