//! The filter on live interfaces: pinned maps, pinned links, and the program in them.
//!
//! ```text
//! <pins>/v1-1000000/BLOCKED_NUMBERS …   maps, under the layout's version and the capacity
//! <pins>/links/eth0                     one link for each interface, under no version
//! <pins>/off/eth1                       somebody took the filter off eth1
//! <pins>/store/0a1b2c3d4e5f6071         the store that the maps were written from
//! ```
//! A link lives as long as its pin. Nobody holds a link open, so removing the pin takes the
//! filter off its interface, also when the daemon is dead or hangs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use aya::maps::{MapData, RingBuf};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, XdpMode as AyaMode};
use filter_common::abi::{ABI_VERSION, EventEntry};
use nix::net::if_::if_nametoindex;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::error::{Error, chain, os_error};
use super::gate::{Gate, Plan, Program};
use super::maps::{Maps, SPECS, open, typed};
use super::{attempts, raw};
use crate::config::XdpMode;
use crate::object::OBJECT;
use crate::xdp_refusal;

const ENOLINK: i32 = 67;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const ERANGE: i32 = 34;
const EOPNOTSUPP: i32 = 95;

/// How the program came to be on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// It was not there.
    New,
    /// An older program was there; each packet met one of both.
    Replaced,
}

/// The folder of pins.
#[derive(Clone, Debug)]
pub struct Pins(PathBuf);

impl Pins {
    /// Pins under a folder on a BPF file system.
    #[must_use]
    pub fn new(folder: &Path) -> Pins {
        Pins(folder.to_owned())
    }

    /// The folder of the maps of this version with room for so many blocked numbers.
    #[must_use]
    pub fn maps(&self, blocks: u32) -> PathBuf {
        self.0.join(format!("v{ABI_VERSION}-{blocks}"))
    }

    /// Makes the folder.
    ///
    /// # Errors
    /// No BPF file system, no permission.
    pub fn make(&self) -> Result<(), Error> {
        let there = self.0.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let found = statfs(there).map_err(|error| Error::pin(there, io::Error::from(error)))?;
        if found.filesystem_type() != BPF_FS_MAGIC {
            let error = "it is on no BPF file system: mount -t bpf bpf /sys/fs/bpf".to_owned();
            return Err(Error::Pin { path: self.0.clone(), error });
        }
        fs::create_dir_all(&self.0).map_err(|error| Error::pin(&self.0, error))
    }

    /// All folders of maps, of every version: the one that is in force was filled last.
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
        folders.sort();
        folders
    }

    /// Whether the maps in a folder have the layout of this version.
    #[must_use]
    pub fn is_of_this_version(folder: &Path) -> bool {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&format!("v{ABI_VERSION}-"))
    }

    /// The pin of an interface's link.
    #[must_use]
    pub fn link(&self, interface: &str) -> PathBuf {
        self.0.join("links").join(interface)
    }

    /// Interfaces that have a pinned link.
    #[must_use]
    pub fn links(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.join("links")).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Interfaces that have a pinned link, or a program for packets that leave.
    #[must_use]
    pub fn interfaces(&self) -> Vec<String> {
        let mut names = self.links();
        names.extend(self.egress_interfaces());
        names.sort();
        names.dedup();
        names
    }

    /// Removes the folder with all that is pinned in it: what is attached by links goes with it.
    ///
    /// # Errors
    /// A pin that cannot be removed.
    pub fn remove(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::pin(&self.0, error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Takes the filter off an interface, and notes beside the pins that this was wanted: no
    /// restart of the daemon puts it back. `false`: it was not on it.
    ///
    /// # Errors
    /// A pin that cannot be removed.
    pub fn detach(&self, interface: &str) -> Result<bool, Error> {
        let off = self.0.join("off").join(interface);
        // A folder, because a BPF file system holds nothing else that is no BPF object.
        fs::create_dir_all(&off).map_err(|error| Error::pin(&off, error))?;
        let was_on = self.unpin(interface)?;
        self.detach_egress(interface)?;
        Ok(was_on)
    }

    /// Whether somebody took the filter off an interface since this machine started.
    #[must_use]
    pub fn is_off(&self, interface: &str) -> bool {
        self.0.join("off").join(interface).exists()
    }

    /// Forgets that somebody took the filter off.
    pub fn forget_off(&self, interface: &str) {
        let _ = fs::remove_dir(self.0.join("off").join(interface));
    }

    /// Names the store that the maps are written from, in place of the one before.
    ///
    /// # Errors
    /// A folder that cannot be made.
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

    /// The store that the maps were written from; none in maps that no version with this note has
    /// written. Two where a daemon died between two steps of [`Pins::note_store`].
    #[must_use]
    pub fn noted_stores(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.join("store")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// The folder itself.
    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    fn unpin(&self, interface: &str) -> Result<bool, Error> {
        let path = self.link(interface);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::pin(&path, error)),
        }
    }

    /// Removes the maps of other versions and capacities. They end with the program that uses
    /// them last.
    pub fn remove_other_maps(&self, blocks: u32) {
        let ours = self.maps(blocks);
        for folder in self.map_folders().into_iter().filter(|folder| *folder != ours) {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// The loaded program and its maps.
pub struct Filter {
    gate: Gate,
    pins: Pins,
    folder: PathBuf,
    /// What the kernel said against the program on an interface, by index and error: attaching is
    /// tried again and again, and the kernel need not be asked each time.
    said: BTreeMap<(u32, Option<i32>), Option<String>>,
}

impl Filter {
    /// Loads the program against the pinned maps, which are made where they are missing: the one
    /// with the slim reader where the kernel refuses the full one. What is attached is not touched.
    ///
    /// # Errors
    /// No BPF file system, a pinned map of another layout, missing capabilities, a kernel that
    /// refuses both programs.
    pub fn load(pins: &Pins, blocks: u32) -> Result<Filter, Error> {
        pins.make()?;
        let folder = pins.maps(blocks);
        for new in [&folder, &pins.0.join("links")] {
            fs::create_dir_all(new).map_err(|error| Error::pin(new, error))?;
        }
        for spec in SPECS.iter().filter(|spec| folder.join(spec.name).exists()) {
            open(&folder, spec.name)?;
        }
        let attempts = attempts(blocks)?;
        let gate = Gate::load(OBJECT, &Plan::of_this_kernel()?, |loader| {
            loader
                .override_global("REPLAY", &0u32, true)
                .map_max_entries("BLOCKED_NUMBERS", blocks)
                .map_max_entries("ATTEMPTS", attempts)
                .map_max_entries("REDIALS", attempts);
            for spec in SPECS {
                loader.map_pin_path(spec.name, folder.join(spec.name));
            }
        })?;
        let capacity = Maps::capacity(&folder)?;
        if capacity != blocks {
            let path = folder.join("BLOCKED_NUMBERS");
            let what = format!("it holds {capacity} entries, not {blocks}");
            return Err(Error::Layout { path, what });
        }
        Ok(Filter { gate, pins: pins.clone(), folder, said: BTreeMap::new() })
    }

    pub(super) fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    /// Which program of the object it is.
    #[must_use]
    pub fn program(&self) -> Program {
        self.gate.program()
    }

    /// What to say where this kernel refuses the full reader; `None`: it takes it.
    #[must_use]
    pub fn slow_reader(&self) -> Option<String> {
        self.gate.slow_reader()
    }

    pub(super) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The folder of its maps.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The kernel's number of the program.
    ///
    /// # Errors
    /// A failing system call.
    pub fn program_id(&mut self) -> Result<u32, Error> {
        Ok(self.gate.xdp()?.info().map_err(Error::program)?.id())
    }

    /// Puts the program on an interface: into the pinned link where there is one, which replaces
    /// an older program between two packets, else by a new link.
    ///
    /// # Errors
    /// No such interface, another XDP program on it, a driver without native XDP.
    pub fn attach(&mut self, interface: &str, mode: XdpMode) -> Result<Attached, Error> {
        if self.replace(interface)? {
            return Ok(Attached::Replaced);
        }
        match mode {
            XdpMode::Native => self.create(interface, AyaMode::Driver),
            XdpMode::Generic => self.create(interface, AyaMode::Skb),
            XdpMode::NativeOrGeneric => match self.create(interface, AyaMode::Driver) {
                Err(Error::Attach { .. }) => self.create(interface, AyaMode::Skb),
                done => done,
            },
        }?;
        Ok(Attached::New)
    }

    /// Replaces the program in the pinned link; `false`: there is none, or none that leads to
    /// an interface any more.
    fn replace(&mut self, interface: &str) -> Result<bool, Error> {
        let path = self.pins.link(interface);
        if !path.exists() {
            return Ok(false);
        }
        let no_link = |error: &dyn std::error::Error| Error::Layout {
            path: path.clone(),
            what: format!("it is no XDP link ({})", chain(error)),
        };
        let pinned = PinnedLink::from_pin(&path).map_err(|error| no_link(&error))?;
        let link = XdpLink::try_from(FdLink::from(pinned)).map_err(|error| no_link(&error))?;
        let program = self.gate.xdp()?;
        match program.attach_to_link(link) {
            Ok(id) => {
                // Closed here; the pin keeps it.
                program.take_link(id).map_err(Error::program)?;
                Ok(true)
            }
            Err(error) if os_error(&error) == Some(ENOLINK) => {
                self.pins.unpin(interface)?;
                Ok(false)
            }
            Err(error) => Err(attach_error(interface, &error, None)),
        }
    }

    fn create(&mut self, interface: &str, mode: AyaMode) -> Result<(), Error> {
        let path = self.pins.link(interface);
        let id = match self.gate.xdp()?.attach(interface, mode) {
            Ok(id) => id,
            Err(ProgramError::UnknownInterface { name }) => return Err(Error::NoInterface(name)),
            Err(error) => {
                let said = self.said(interface, mode, os_error(&error));
                return Err(attach_error(interface, &error, said));
            }
        };
        let link = self.gate.xdp()?.take_link(id).map_err(Error::program)?;
        // Aya attaches without a link where the kernel has none; that cannot outlive us.
        let link = FdLink::try_from(link).map_err(|error| Error::Attach {
            interface: interface.to_owned(),
            error: format!("the kernel made no link ({})", chain(&error)),
        })?;
        link.pin(&path).map_err(|error| Error::pin(&path, error))?;
        Ok(())
    }

    /// The kernel's own words, asked for once for each error of an interface.
    fn said(&mut self, interface: &str, mode: AyaMode, number: Option<i32>) -> Option<String> {
        if is_busy(number) {
            return None;
        }
        let index = if_nametoindex(interface).ok()?;
        if let Some(said) = self.said.get(&(index, number)) {
            return said.clone();
        }
        let fd = self.gate.xdp().ok()?.fd().ok()?;
        let said = xdp_refusal::why(index, fd.as_fd(), mode == AyaMode::Driver).ok()?;
        self.said.insert((index, number), said.clone());
        said
    }
}

/// Whether another program is in the way.
fn is_busy(number: Option<i32>) -> bool {
    matches!(number, Some(EBUSY | EEXIST))
}

/// Why the program cannot be attached, with what the kernel said and what to do.
fn attach_error(
    interface: &str,
    error: &(dyn std::error::Error + 'static),
    said: Option<String>,
) -> Error {
    let number = os_error(error);
    if is_busy(number) {
        return Error::Busy(interface.to_owned());
    }
    let hint = match number {
        Some(EOPNOTSUPP) => {
            "; the driver has no native XDP: xdp_mode = \"generic\" works everywhere, slower"
        }
        Some(ERANGE) => "; the MTU is too large for this driver's XDP",
        _ => "",
    };
    let said = said.map_or_else(String::new, |said| format!(", the kernel says: {said}"));
    let error = format!("{}{said}{hint}", chain(error));
    Error::Attach { interface: interface.to_owned(), error }
}

/// The rings of events of a live filter.
pub struct Events {
    refused: RingBuf<MapData>,
    passed: RingBuf<MapData>,
}

impl Events {
    /// Opens the rings pinned in a folder. Events that nobody has read yet are still in them.
    ///
    /// # Errors
    /// A ring that is missing.
    pub fn open(folder: &Path) -> Result<Events, Error> {
        let mut take = |name| open(folder, name);
        Ok(Events {
            refused: typed(&mut take, "EVENTS_REFUSED")?,
            passed: typed(&mut take, "EVENTS_PASSED")?,
        })
    }

    /// Takes at most `limit` events out of each ring, refused attempts first.
    ///
    /// # Errors
    /// An event of another layout.
    pub fn drain(&mut self, limit: usize) -> Result<Vec<EventEntry>, Error> {
        let mut events = raw::drain(&mut self.refused, limit)?;
        events.append(&mut raw::drain(&mut self.passed, limit)?);
        Ok(events)
    }
    /// Takes all events out of both rings unread; how many refused and passed attempts they were.
    pub fn discard(&mut self) -> (u64, u64) {
        (raw::discard(&mut self.refused), raw::discard(&mut self.passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_netns::in_new_namespace;

    #[test]
    fn a_refusal_to_attach_has_the_kernels_own_words() {
        in_new_namespace(async {
            let folder = format!("/sys/fs/bpf/palang-unit-said-{}", std::process::id());
            let pins = Pins::new(Path::new(&folder));
            let mut filter = Filter::load(&pins, 1000).unwrap_or_else(|error| panic!("{error}"));
            for _ in 0..2 {
                let error = filter.attach("lo", XdpMode::Native).unwrap_err().to_string();
                assert!(error.contains("cannot attach to lo"), "{error}");
                assert!(error.contains(", the kernel says: "), "{error}");
                assert!(error.contains("native"), "{error}");
            }
            assert_eq!(filter.said.len(), 1, "asked once");
            assert!(pins.links().is_empty());
            fs::remove_dir_all(folder).unwrap();
        });
    }
}
