//! The folder of pins on the BPF file system: paths of maps and links, and notes beside them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use filter_common::abi::ABI_VERSION;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::datapath::error::Error;

/// The folder of pins.
#[derive(Clone, Debug)]
pub struct Pins(pub(crate) PathBuf);

impl Pins {
    /// Creates the paths of pins under a folder on a BPF file system.
    #[must_use]
    pub fn new(folder: &Path) -> Pins {
        Pins(folder.to_owned())
    }

    /// Returns the folder of the maps of this version with room for N blocked numbers.
    #[must_use]
    pub fn maps(&self, blocks: u32) -> PathBuf {
        self.0.join(format!("v{ABI_VERSION}-{blocks}"))
    }

    /// Makes the folder.
    ///
    /// # Errors
    /// [`Error::NoBpfFileSystem`] if it is elsewhere, [`Error::Permission`] or [`Error::Pin`] if it
    /// cannot be made.
    pub fn make(&self) -> Result<(), Error> {
        let there = self.0.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let found = statfs(there).map_err(|error| Error::pin(there, io::Error::from(error)))?;
        if found.filesystem_type() != BPF_FS_MAGIC {
            return Err(Error::NoBpfFileSystem(self.0.clone()));
        }
        fs::create_dir_all(&self.0).map_err(|error| Error::pin(&self.0, error))
    }

    /// Returns all folders of maps: the oldest version first, and of one version the least capacity.
    /// An upgrade that was cut off leaves several, and no order shows which one is in force.
    #[must_use]
    pub fn map_folders(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut folders: Vec<_> = entries
            .map(|entry| entry.path())
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with('v') && path.is_dir()
            })
            .collect();
        folders.sort_by_cached_key(|folder| (numbers(folder), folder.clone()));
        folders
    }

    /// Returns the folders of maps that hold something. An upgrade that failed early leaves empty ones.
    #[must_use]
    pub fn filled_map_folders(&self) -> Vec<PathBuf> {
        let mut folders = self.map_folders();
        folders.retain(|folder| fs::read_dir(folder).is_ok_and(|mut pins| pins.next().is_some()));
        folders
    }

    /// Checks whether the maps in a folder have the layout of this version.
    #[must_use]
    pub fn is_of_this_version(folder: &Path) -> bool {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&format!("v{ABI_VERSION}-"))
    }

    /// Returns the pin of an interface's link.
    #[must_use]
    pub fn link(&self, interface: &str) -> PathBuf {
        self.0.join("links").join(pin_name(interface))
    }

    /// Returns the interfaces that have a pinned link.
    #[must_use]
    pub fn links(&self) -> Vec<String> {
        let mut names = interfaces_in(&self.0.join("links"));
        names.sort();
        names
    }

    /// Returns the interfaces that have a pinned link or a program for packets that leave.
    #[must_use]
    pub fn interfaces(&self) -> Vec<String> {
        let mut names = self.links();
        names.extend(self.egress_interfaces());
        names.sort();
        names.dedup();
        names
    }

    /// Removes the folder with all its pins, which also detaches programs that are attached by links.
    ///
    /// # Errors
    /// [`Error::Pin`] if a pin cannot be removed.
    pub fn remove(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::pin(&self.0, error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Detaches the filter from an interface, and notes beside the pins that a person wanted it: no
    /// restart of the daemon attaches it again. Returns `false` if it was not attached.
    ///
    /// # Errors
    /// [`Error::Pin`] if a pin cannot be removed or the note cannot be made.
    pub fn detach(&self, interface: &str) -> Result<bool, Error> {
        let off = self.0.join("off").join(pin_name(interface));
        // A folder: besides BPF objects, a BPF file system can hold only folders.
        fs::create_dir_all(&off).map_err(|error| Error::pin(&off, error))?;
        let was_on = self.unpin(interface)?;
        self.detach_egress(interface)?;
        if self.links().is_empty() {
            self.detach_second_look()?;
            self.detach_forwarded()?;
        }
        Ok(was_on)
    }

    /// Checks whether a person detached the filter from an interface since this machine started.
    #[must_use]
    pub fn is_off(&self, interface: &str) -> bool {
        self.0.join("off").join(pin_name(interface)).exists()
    }

    /// Removes the note that a person detached the filter.
    pub fn forget_off(&self, interface: &str) {
        let _ = fs::remove_dir(self.0.join("off").join(pin_name(interface)));
    }

    /// Notes the store that the maps are written from, in place of the one before.
    ///
    /// # Errors
    /// [`Error::Pin`] if the note cannot be made or the one before cannot be removed.
    pub fn note_store(&self, identity: &str) -> Result<(), Error> {
        let others = self.noted_stores();
        let folder = self.0.join("store");
        let new = folder.join(identity);
        fs::create_dir_all(&new).map_err(|error| Error::pin(&new, error))?;
        for other in others.iter().filter(|other| *other != identity) {
            let other = folder.join(other);
            fs::remove_dir(&other).map_err(|error| Error::pin(&other, error))?;
        }
        Ok(())
    }

    /// Returns the store that the maps were written from. The list is empty for maps of a version
    /// without this note. It has two stores after a daemon died between two steps of
    /// [`Pins::note_store`].
    #[must_use]
    pub fn noted_stores(&self) -> Vec<String> {
        names(&self.0.join("store"))
    }

    /// Returns the folder itself.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0
    }

    pub(crate) fn unpin(&self, interface: &str) -> Result<bool, Error> {
        remove_pin(&self.link(interface))
    }

    /// Removes the pins of maps of other versions and capacities. Such a map ends with the last program
    /// that uses it.
    pub fn remove_other_maps(&self, blocks: u32) {
        let ours = self.maps(blocks);
        for folder in self.map_folders().into_iter().filter(|folder| *folder != ours) {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// Returns version and capacity of a folder of maps; `None` where its name has no such number.
fn numbers(folder: &Path) -> [Option<u32>; 2] {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let (version, capacity) = name.split_once('-').unwrap_or((name.as_ref(), ""));
    [version.trim_start_matches('v'), capacity].map(|number| number.parse().ok())
}

/// Returns the name of an interface as a BPF file system takes it: without a dot (`bpf_lookup` in kernel/bpf/inode.c).
pub(crate) fn pin_name(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2E")
}

/// Returns the interfaces that have a pin in a folder; none if it cannot be read.
pub(crate) fn interfaces_in(folder: &Path) -> Vec<String> {
    let of_pin = |name: String| name.replace("%2E", ".").replace("%25", "%");
    names(folder).into_iter().map(of_pin).collect()
}

/// Returns the names in a folder; none if it cannot be read.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Returns the ID of the program in a pinned link.
pub(crate) fn linked_program(path: &Path) -> Result<u32, LinkError> {
    Ok(FdLink::from(PinnedLink::from_pin(path)?).info()?.program_id())
}

/// Removes a pin; `false` if it did not exist.
pub(crate) fn remove_pin(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::pin(path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_of_an_interface_has_no_dot_and_its_name_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let links = folder.path().join("links");
        fs::create_dir(&links).unwrap();
        let mut interfaces = ["eth0", "eth0.100", "a%2E", "%", "%25.%2E.", ".."];
        let pins = Pins::new(folder.path());
        for interface in interfaces {
            let pin = pins.link(interface);
            assert!(!pin.file_name().unwrap().to_str().unwrap().contains('.'), "{pin:?}");
            fs::write(pin, "").unwrap();
        }
        interfaces.sort_unstable();
        assert_eq!(pins.links(), interfaces);
    }

    #[test]
    fn map_folders_are_in_the_order_of_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["v0", "v4-200000", "v4-1000000", "v10-30000"];
        for name in names {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let found = Pins::new(folder.path()).map_folders();
        assert_eq!(found, names.map(|name| folder.path().join(name)));
    }
}
