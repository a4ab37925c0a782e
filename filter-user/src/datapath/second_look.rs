//! Attaches the second look to the root of the control groups. There it meets every packet that is about
//! to go to a socket of this machine. Fragments are already put together.
//!
//! ```text
//! <pins>/second-look    the link; it outlives every process
//! ```
//! The first look leaves datagrams to it while the map `SECOND_LOOK` says that it is attached. A packet that
//! this machine only forwards meets another program (`forwarded.rs`).

use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use aya::maps::Array;
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSkbAttachType};
use nix::errno::Errno;

use crate::datapath::attach::Filter;
use crate::datapath::error::{Error, reasons};
use crate::datapath::maps::layout::open;
use crate::datapath::pins::{Pins, linked_program, remove_pin};
use crate::datapath::syscall::{OBJ_GET_INFO, bpf_only, open_pin};
use crate::exit::chain;
use crate::sys::{cgroup, kernels};

const SWITCH: &str = "SECOND_LOOK";

impl Pins {
    /// Returns the pin of the second look's link.
    #[must_use]
    pub fn second_look(&self) -> PathBuf {
        self.folder().join("second-look")
    }

    /// Checks whether the second look is attached. After `bpftool link detach` its pin is still there.
    #[must_use]
    pub fn has_second_look(&self) -> bool {
        group(&self.second_look()).is_ok_and(|group| group != 0)
    }

    /// Returns the ID of the program of the second look that is attached; `None` if none is.
    ///
    /// # Errors
    /// [`Error::SecondLook`] if the link cannot be read.
    pub fn second_look_program(&self) -> Result<Option<u32>, Error> {
        if !self.second_look().exists() {
            return Ok(None);
        }
        let program = linked_program(&self.second_look());
        program.map(Some).map_err(|error| Error::SecondLook(chain(&error)))
    }

    /// Detaches the second look; `false` if it was not attached.
    ///
    /// # Errors
    /// [`Error::Pin`] if the pin cannot be removed.
    pub fn detach_second_look(&self) -> Result<bool, Error> {
        remove_pin(&self.second_look())
    }
}

impl Filter {
    /// Returns why the kernel refused to load the second look; `None` if it did not, or nothing has loaded it.
    #[must_use]
    pub fn no_second_look(&self) -> Option<&str> {
        self.no_second_look.as_deref()
    }

    /// Loads the second look, so that it can be attached later.
    ///
    /// # Errors
    /// [`Error::Refused`] if the kernel refuses the program, such as one before 5.17.
    pub fn load_second_look(&mut self) -> Result<(), Error> {
        let loaded = self.gate().second_look().map(drop);
        self.no_second_look = loaded.as_ref().err().map(describe);
        loaded
    }

    /// Attaches the second look in place of an older one of ours, and lets the first look leave datagrams
    /// to it. For a moment both are attached, so no datagram is missed.
    ///
    /// # Errors
    /// [`Error::Refused`] if the kernel refuses the program, [`Error::SecondLook`] if it cannot be attached,
    /// [`Error::Pin`] and [`Error::Map`] if a pin or the map cannot be written.
    pub fn attach_second_look(&mut self) -> Result<(), Error> {
        let path = self.pins().second_look();
        // No dot: the BPF file system reserves names with one.
        let new = self.pins().folder().join("second-look-new");
        let failed = |error: &dyn std::error::Error| Error::SecondLook(chain(error));
        let root = cgroup::root().map_err(|error| failed(&error))?;
        let program = self.gate().second_look()?;
        let ingress = CgroupSkbAttachType::Ingress;
        // The kernel adds a link to the programs of others in any case.
        let id = program
            .attach(root, ingress, CgroupAttachMode::Single)
            .map_err(|error| failed(&error))?;
        let link = program.take_link(id).map_err(Error::program)?;
        let link = FdLink::try_from(link).map_err(|error| failed(&error))?;
        remove_pin(&new)?;
        link.pin(&new).map_err(|error| Error::pin(&new, error))?;
        fs::rename(&new, &path).map_err(|error| Error::pin(&path, error))?;
        set(self.folder(), true)
    }
}

/// The beginning of `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoGet {
    object: u32,
    len: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info` (Linux `include/uapi/linux/bpf.h`) for a link to a control group.
#[derive(Default)]
#[repr(C)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
    /// 0 after the link was detached.
    group: u64,
}

/// Returns the control group of a pinned link; 0: it was detached.
fn group(path: &Path) -> Result<u64, Errno> {
    let link = open_pin(path)?;
    let mut info = LinkInfo::default();
    let mut attributes = InfoGet {
        object: link.as_raw_fd().cast_unsigned(),
        len: size_of::<LinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    bpf_only(OBJ_GET_INFO, &mut attributes)?;
    Ok(info.group)
}

/// Says whether the first look of the maps in a folder leaves datagrams to a second one.
///
/// # Errors
/// [`Error::Pin`] if there is no such map, [`Error::Map`] if the system call fails.
pub fn set(folder: &Path, on: bool) -> Result<(), Error> {
    let mut switch: Array<_, u32> =
        Array::try_from(open(folder, SWITCH)?).map_err(|error| Error::map(SWITCH, error))?;
    switch.set(0, u32::from(on), 0).map_err(|error| Error::map(SWITCH, error))
}

/// Describes in one line why there is no second look.
#[must_use]
pub fn describe(error: &Error) -> String {
    if let Error::Refused(refusals) = error {
        return format!(
            "Linux {} refuses the second look ({})",
            kernels::running(),
            reasons(refusals)
        );
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn second_look_is_attached_replaced_and_detached() {
        let folder = format!("/sys/fs/bpf/palang-unit-again-{}", std::process::id());
        let pins = Pins::new(Path::new(&folder));
        let load = || Filter::load(&pins, 1000).unwrap_or_else(|error| panic!("{error}"));
        let mut filter = load();
        assert_eq!(pins.second_look_program().unwrap(), None);
        filter.attach_second_look().unwrap_or_else(|error| panic!("{error}"));
        assert!(pins.has_second_look());
        assert!(pins.second_look_program().unwrap().is_some());
        drop(filter);
        load().attach_second_look().unwrap_or_else(|error| panic!("{error}"));
        assert!(pins.detach_second_look().unwrap());
        assert!(!pins.detach_second_look().unwrap(), "it was off already");
        fs::remove_dir_all(folder).unwrap();
    }
}
