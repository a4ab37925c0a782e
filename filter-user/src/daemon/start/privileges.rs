//! Gives up privileges before the daemon has a second thread: both ways apply to the calling thread
//! and to the threads that it starts afterwards.
//!
//! 1. Files (Landlock, if the kernel has it): the daemon writes below its own folders and reads the
//!    files of a reload and the user database. It runs no program, listens on no TCP port but the
//!    configured ones, and sends no signals. (The unit limits connections: a reload may name a new
//!    webhook.)
//! 2. Capabilities: CAP_BPF and CAP_NET_ADMIN remain, to attach to an interface that comes later.
//!    CAP_CHOWN has given the socket its group by then. CAP_PERFMON is with [`Loader`], a thread that
//!    ends with the load.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use caps::{CapSet, Capability, CapsHashSet};
use tokio::sync::oneshot;

use crate::config::Config;
use crate::datapath::{Error, Filter, Pins};
use crate::exit::{Exit, Failure};
use crate::sys::landlock::{self, Open, RulesetStatus};

/// Capabilities that remain after the program is loaded.
const LEFT: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN];
/// Without it the verifier refuses the program.
const LOADING: Capability = Capability::CAP_PERFMON;

/// Restricts the file system to the needs of this configuration. The folders must exist. A kernel
/// without Landlock restricts nothing, and the log says so.
///
/// # Errors
/// Returns an error if a folder cannot be opened, or a kernel with Landlock refuses the rules.
pub fn close_files(config: &Config) -> Result<(), Failure> {
    let done = landlock::close(&open(config)).map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot restrict file access (Landlock): {error}"))
    })?;
    match done {
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => {
            tracing::debug!(status = ?done, "file access is restricted to our own folders");
        }
        RulesetStatus::NotEnforced => {
            tracing::warn!("this kernel has no Landlock: file access is not restricted");
        }
    }
    Ok(())
}

/// Returns the folders and ports that the daemon needs.
fn open(config: &Config) -> Open {
    let addresses = [config.check_listen, config.metrics_listen].into_iter().flatten();
    Open {
        read: read_folders(config),
        write: writable(config),
        tcp_ports: addresses.map(|address| address.port()).collect(),
    }
}

/// Folders that the daemon writes in.
fn writable(config: &Config) -> Vec<PathBuf> {
    let paths = &config.paths;
    let own = [&paths.state, &paths.runtime, &paths.pins];
    own.into_iter().chain(&paths.backup).cloned().collect()
}

/// Why a copy of the store may not be written to a file.
#[derive(Debug, thiserror::Error)]
pub enum BackupPlace {
    /// The folder of the file cannot be read.
    #[error("{}: {source}", folder.display())]
    Unread {
        /// The folder.
        folder: PathBuf,
        /// The system call's error.
        source: std::io::Error,
    },
    /// The configuration names no folder of backups.
    #[error(
        "backups are written below {0}, not in {1}: [paths] backup = \"{1}\" in {2} opens it at the \
         next start (with systemd also ReadWritePaths=)",
        state.display(), folder.display(), config.display()
    )]
    NotConfigured {
        /// The folder of the store.
        state: PathBuf,
        /// The folder of the file.
        folder: PathBuf,
        /// The configuration.
        config: PathBuf,
    },
    /// The file is in another folder.
    #[error(
        "backups are written below {} or {}, not in {}",
        backup.display(), state.display(), folder.display()
    )]
    Elsewhere {
        /// The folder of backups.
        backup: PathBuf,
        /// The folder of the store.
        state: PathBuf,
        /// The folder of the file.
        folder: PathBuf,
    },
}

/// Checks that a copy of the store may be written to this file: below the folder of the store or of
/// backups. The check is the same on every kernel.
///
/// # Errors
/// [`BackupPlace`] if it may not, or its folder cannot be read.
pub fn may_write_backup(config: &Config, file: &Path) -> Result<(), BackupPlace> {
    let folder = folder_of(file);
    let real = |folder: &Path| {
        let unread = |source| BackupPlace::Unread { folder: folder.to_owned(), source };
        folder.canonicalize().map_err(unread)
    };
    let wanted = real(&folder)?;
    let paths = &config.paths;
    let allowed = [Some(&paths.state), paths.backup.as_ref()];
    if allowed
        .into_iter()
        .flatten()
        .filter_map(|one| real(one).ok())
        .any(|one| wanted.starts_with(one))
    {
        return Ok(());
    }
    let state = paths.state.clone();
    Err(match &paths.backup {
        None => BackupPlace::NotConfigured { state, folder, config: config.path.clone() },
        Some(backup) => BackupPlace::Elsewhere { backup: backup.clone(), state, folder },
    })
}

/// Folders of the files that a reload reads. The folders, because editors replace files.
fn read_folders(config: &Config) -> Vec<PathBuf> {
    let ladder = config.ladder_path();
    let files = [Some(config.path.clone()), ladder].into_iter().flatten();
    files.map(|file| folder_of(&file)).collect()
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// Gives up all capabilities but those that attaching needs. Returns the only thread that may still
/// load the program.
///
/// # Errors
/// Returns an error if the kernel refuses it, or no thread starts.
pub fn drop_capabilities() -> Result<Loader, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Failed, format!("cannot give up capabilities: {error}"))
    };
    keep(LEFT.into_iter().chain([LOADING])).map_err(|error| failed(&error))?;
    let loader = Loader::start().map_err(|error| failed(&error))?;
    keep(LEFT).map_err(|error| failed(&error))?;
    Ok(loader)
}

/// Keeps these capabilities, as far as the calling thread has them.
fn keep(wanted: impl IntoIterator<Item = Capability>) -> Result<(), caps::errors::CapsError> {
    let have = caps::read(None, CapSet::Permitted)?;
    let left: CapsHashSet = wanted.into_iter().filter(|one| have.contains(one)).collect();
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &left)?;
    caps::set(None, CapSet::Permitted, &left)
}

type Order = (Pins, u32, oneshot::Sender<Result<Filter, Error>>);

/// The thread that has CAP_PERFMON. It loads once and ends; it also ends when it is dropped.
pub struct Loader(SyncSender<Order>);

impl Loader {
    fn start() -> io::Result<Loader> {
        let (orders, order) = sync_channel::<Order>(1);
        thread::Builder::new().name("loader".into()).spawn(move || {
            if let Ok((pins, blocks, answer)) = order.recv() {
                let mut loaded = Filter::load(&pins, blocks);
                // Attaching reports an error again; most incoming calls do not need these programs.
                if let Ok(filter) = &mut loaded {
                    if let Err(error) = filter.load_egress() {
                        tracing::warn!(%error, "cannot load the program for outgoing packets");
                    }
                    if let Err(error) = filter.load_second_look() {
                        tracing::warn!(%error, "cannot load the second look at whole datagrams");
                    }
                    if let Err(error) = filter.load_forwarded() {
                        tracing::info!(%error, "calls in fragments that are only forwarded pass unread");
                    }
                }
                let _ = answer.send(loaded);
            }
        })?;
        Ok(Loader(orders))
    }

    /// Calls [`Filter::load`] on its thread.
    ///
    /// # Errors
    /// Those of [`Filter::load`].
    pub async fn load(self, pins: &Pins, blocks: u32) -> Result<Filter, Failure> {
        let (answer, loaded) = oneshot::channel();
        let gone = || Failure::new(Exit::Failed, "the thread that loads the program has ended");
        self.0.send((pins.clone(), blocks, answer)).map_err(|_| gone())?;
        Ok(loaded.await.map_err(|_| gone())??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_without_a_folder_is_in_the_current_one() {
        for (file, folder) in [("palang.toml", "."), ("/etc/palang/p.toml", "/etc/palang")] {
            assert_eq!(folder_of(Path::new(file)), Path::new(folder));
        }
        assert_eq!(folder_of(Path::new("/")), Path::new("."));
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn capabilities_given_up_are_gone_and_those_of_other_threads_remain() {
        let loader = thread::spawn(|| {
            drop_capabilities().unwrap();
            let left = |set| caps::read(None, set).unwrap();
            let wanted: CapsHashSet = LEFT.into_iter().collect();
            assert_eq!(left(CapSet::Effective), wanted);
            assert_eq!(left(CapSet::Permitted), wanted);
            assert!(caps::raise(None, CapSet::Effective, LOADING).is_err());
        });
        loader.join().unwrap();
        assert!(caps::has_cap(None, CapSet::Effective, LOADING).unwrap());
    }
}
