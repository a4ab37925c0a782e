//! What the daemon gives up before it has a second thread, because both ways of giving up hold for
//! the calling thread and for those that it makes afterwards:
//!
//! 1. Files (Landlock, where the kernel has it): it writes below its own folders, reads what a
//!    reload and the user database need, runs no program, listens on no TCP port but the configured
//!    ones, and signals nobody. (Connecting is the unit's matter: a reload may name a new webhook.)
//! 2. Capabilities: CAP_BPF and CAP_NET_ADMIN are left, to attach to an interface that comes later.
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
use crate::sys::landlock;
use crate::sys::landlock::{Open, RulesetStatus};

/// What is left when the program is loaded.
const LEFT: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN];
/// Without it the verifier refuses the program.
const LOADING: Capability = Capability::CAP_PERFMON;

/// Closes the file system but for what this configuration needs. Its folders have to be there. On a
/// kernel without Landlock nothing happens, and the log says so.
///
/// # Errors
/// A folder that cannot be opened; a kernel that has Landlock and refuses the rules.
pub fn close_files(config: &Config) -> Result<(), Failure> {
    let done = landlock::close(&open(config)).map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot close the file system (Landlock): {error}"))
    })?;
    match done {
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => {
            tracing::debug!("files are closed but for our own folders ({done:?})");
        }
        RulesetStatus::NotEnforced => {
            tracing::warn!("this kernel has no Landlock: files are not closed");
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

/// Whether a copy of the store may be written to this file: below the folder of the store or that
/// of backups. The same on every kernel.
///
/// # Errors
/// It may not, or its folder is not there; what to do.
pub fn may_write_backup(config: &Config, file: &Path) -> Result<(), String> {
    let folder = folder_of(file);
    let real = |folder: &Path| {
        folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()))
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
    let folder = folder.display();
    let state = paths.state.display();
    Err(match &paths.backup {
        None => format!(
            "backups are written below {state}, not in {folder}: [paths] backup = \"{folder}\" in {} \
             opens it at the next start (with systemd also ReadWritePaths=)",
            config.path.display()
        ),
        Some(backup) => {
            format!("backups are written below {} or {state}, not in {folder}", backup.display())
        }
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

/// Gives up all capabilities but those that attaching needs, and hands out the one thread that
/// may still load the program.
///
/// # Errors
/// The kernel refuses it, which it never should; no thread.
pub fn drop_capabilities() -> Result<Loader, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Failed, format!("cannot give up capabilities: {error}"))
    };
    keep(LEFT.into_iter().chain([LOADING])).map_err(|error| failed(&error))?;
    let loader = Loader::start().map_err(|error| failed(&error))?;
    keep(LEFT).map_err(|error| failed(&error))?;
    Ok(loader)
}

/// Keeps these, as far as the calling thread has them.
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
                if let Ok(filter) = &mut loaded
                    && let Err(error) = filter.load_egress()
                {
                    // Attaching it will say so again; calls that come in do not need it.
                    tracing::warn!("the program for packets that leave: {error}");
                }
                let _ = answer.send(loaded);
            }
        })?;
        Ok(Loader(orders))
    }

    /// [`Filter::load`].
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
    fn a_file_without_a_folder_is_in_this_one() {
        for (file, folder) in [("palang.toml", "."), ("/etc/palang/p.toml", "/etc/palang")] {
            assert_eq!(folder_of(Path::new(file)), Path::new(folder));
        }
        assert_eq!(folder_of(Path::new("/")), Path::new("."));
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn capabilities_that_are_given_up_are_gone_and_those_of_other_threads_are_not() {
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
