//! Finds the machine's control groups (Linux `Documentation/admin-guide/cgroup-v2.rst`).

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// The mounts of this process (proc_pid_mountinfo(5)).
const MOUNTS: &str = "/proc/self/mountinfo";
/// The control groups of this process (cgroups(7)).
const OWN: &str = "/proc/self/cgroup";

/// Opens the root of the control groups (version 2), only to name it: no file in it is read.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] if no file system of the type `cgroup2` is mounted; otherwise the error of the
/// system call.
pub fn root() -> io::Result<OwnedFd> {
    let mounts = fs::read_to_string(MOUNTS)?;
    name(&mounted(&mounts).ok_or_else(no_groups)?.point)
}

/// Opens the control group of this process, only to name it.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] if no file system of the type `cgroup2` is mounted, or it lacks that control
/// group; otherwise the error of the system call.
pub fn own() -> io::Result<OwnedFd> {
    let mounts = fs::read_to_string(MOUNTS)?;
    let mount = mounted(&mounts).ok_or_else(no_groups)?;
    let groups = fs::read_to_string(OWN)?;
    name(&mount.folder_of(&groups).ok_or_else(no_groups)?)
}

fn no_groups() -> io::Error {
    let message = "no file system of the type cgroup2 is mounted";
    io::Error::new(io::ErrorKind::NotFound, message)
}

fn name(folder: &Path) -> io::Result<OwnedFd> {
    // Landlock has no say in an open that only names the folder.
    let how = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open(folder, how, Mode::empty())?)
}

/// A place where control groups are mounted.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    /// The control group that is mounted there.
    root: PathBuf,
    /// The folder.
    point: PathBuf,
}

impl Mounted {
    /// Returns the folder of the process with these control groups; `None` if it is not below this mount.
    fn folder_of(&self, groups: &str) -> Option<PathBuf> {
        let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
        let below = Path::new(group).strip_prefix(&self.root).ok()?;
        let is_below = below.components().all(|part| matches!(part, Component::Normal(_)));
        is_below.then(|| self.point.join(below))
    }
}

/// Returns where the control groups are mounted; the whole of them rather than a part.
fn mounted(mounts: &str) -> Option<Mounted> {
    let mut found = None;
    for line in mounts.lines() {
        // ID, parent, device, root, mount point, options … - type, source, options
        let Some((mount, rest)) = line.split_once(" - ") else { continue };
        if rest.split(' ').next() != Some("cgroup2") {
            continue;
        }
        let mut fields = mount.split(' ').skip(3);
        let (Some(root), Some(point)) = (fields.next(), fields.next()) else { continue };
        let point = Path::new(&point.replace("\\040", " ")).to_owned();
        let mount = Mounted { root: root.into(), point };
        if root == "/" {
            return Some(mount);
        }
        found.get_or_insert(mount);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_of_the_control_groups_is_preferred() {
        let part = "40 30 0:28 /docker/1 /part rw - cgroup2 cgroup rw\n";
        let whole = "41 30 0:28 / /sys/fs/cgroup ro,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        let old = "42 30 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        for (mounts, expected) in [
            (format!("{old}{part}{whole}"), Some("/sys/fs/cgroup")),
            (format!("{old}{part}"), Some("/part")),
            (old.to_owned(), None),
            ("nonsense".to_owned(), None),
        ] {
            let found = mounted(&mounts).map(|mount| mount.point);
            assert_eq!(found, expected.map(PathBuf::from), "{mounts}");
        }
    }

    #[test]
    fn own_control_group_is_found_below_the_mount() {
        for (root, group, expected) in [
            ("/", "0::/", Some("/g/")),
            (
                "/",
                "4:memory:/old\n0::/system.slice/cron.service\n",
                Some("/g/system.slice/cron.service"),
            ),
            ("/docker/1", "0::/docker/1/init", Some("/g/init")),
            ("/docker/1", "0::/docker/2", None),
            ("/", "0::/../other", None),
            ("/", "4:memory:/old\n", None),
        ] {
            let mount = Mounted { root: root.into(), point: "/g".into() };
            assert_eq!(mount.folder_of(group), expected.map(PathBuf::from), "{root} {group}");
        }
    }
}
