//! Finds the root of the machine's control groups (Linux `Documentation/admin-guide/cgroup-v2.rst`).

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// The mounts of this process (proc_pid_mountinfo(5)).
const MOUNTS: &str = "/proc/self/mountinfo";

/// Opens the root of the control groups (version 2), only to name it: no file in it is read.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] if no file system of the type `cgroup2` is mounted; otherwise the error of the
/// system call.
pub fn root() -> io::Result<OwnedFd> {
    let mounts = fs::read_to_string(MOUNTS)?;
    let folder = mounted(&mounts).ok_or_else(|| {
        let message = "no file system of the type cgroup2 is mounted";
        io::Error::new(io::ErrorKind::NotFound, message)
    })?;
    // Landlock has no say in an open that only names the folder.
    let how = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open(&folder, how, Mode::empty())?)
}

/// Returns where the control groups are mounted; the whole of them rather than a part.
fn mounted(mounts: &str) -> Option<PathBuf> {
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
        if root == "/" {
            return Some(point);
        }
        found.get_or_insert(point);
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
            assert_eq!(mounted(&mounts), expected.map(PathBuf::from), "{mounts}");
        }
    }
}
