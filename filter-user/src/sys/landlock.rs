//! Closes the file system for a process with Landlock, except for named folders.

use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, Scope, path_beneath_rules,
};
pub use landlock::{RulesetError, RulesetStatus};

/// The newest Landlock ABI that this file uses; an older kernel has a part of it.
const LANDLOCK: ABI = ABI::V6;

/// Paths that libraries read: users and groups, the libraries of the name service, SSSD's memory caches and
/// time zones. The number of CPUs, the kernel's types, randomness. Files that are replaced by renaming need their folder.
const READ: [&str; 11] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/var/lib/sss",
    "/var/lib/extrausers",
    "/proc/self",
    "/proc/sys",
    "/sys/devices/system/cpu",
    "/sys/kernel/btf",
    "/dev/urandom",
];

/// The folders and ports that stay open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// Folders to read, besides those of libraries.
    pub read: Vec<PathBuf>,
    /// Folders to read and write. They must exist.
    pub write: Vec<PathBuf>,
    /// TCP ports to listen on.
    pub tcp_ports: Vec<u16>,
}

/// Closes the file system, TCP listening and signals for the calling thread and its later threads. They
/// also cannot run programs. A kernel without Landlock closes nothing, and the status says so.
///
/// # Errors
/// [`RulesetError`] if the kernel has Landlock and refuses the rules.
pub fn close(open: &Open) -> Result<RulesetStatus, RulesetError> {
    let write = AccessFs::from_all(LANDLOCK) & !AccessFs::Execute;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(READ, read))?
        .add_rules(path_beneath_rules(&open.read, read))?
        .add_rules(path_beneath_rules(["/dev/null"], read | AccessFs::WriteFile))?;
    for folder in &open.write {
        match PathFd::new(folder) {
            Ok(fd) => rules = rules.add_rule(PathBeneath::new(fd, write))?,
            Err(error) => tracing::warn!(folder = %folder.display(), %error, "folder stays closed"),
        }
    }
    for port in &open.tcp_ports {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}
