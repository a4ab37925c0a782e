//! Attaches the filter to live interfaces: pinned maps, pinned links, and the program in them.
//!
//! ```text
//! <pins>/v1-1000000/BLOCKED_NUMBERS …   maps, under the layout's version and the capacity
//! <pins>/links/eth0                     one link for each interface, under no version
//! <pins>/next/17                       the programs that answer, by the ID of the program that calls them
//! <pins>/off/eth1                       somebody detached the filter from eth1
//! <pins>/store/0a1b2c3d4e5f6071         the store that the maps were written from
//! ```
//! A link lives as long as its pin. No process holds a link open, so removing the pin detaches the
//! filter from its interface, also when the daemon is dead or hangs.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, XdpMode as AyaMode};
use filter_common::maps::{MAPS, MaxEntries};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use crate::datapath::error::{Error, errno};
use crate::datapath::load::{Gate, Plan, Program};
use crate::datapath::maps::Maps;
use crate::datapath::maps::layout::{attempts_capacity, open};
use crate::datapath::object::OBJECT;
use crate::datapath::pins::Pins;
use crate::exit::chain;
use crate::model::xdp_mode::XdpMode;
use crate::sys::xdp_refusal;

/// The outcome of attaching the program to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// No program of ours was on the interface.
    New,
    /// The program replaced an older one; each packet met one of both.
    Replaced,
}

/// The loaded program and its maps.
pub struct Filter {
    pub(crate) gate: Gate,
    pub(crate) pins: Pins,
    pub(crate) folder: PathBuf,
    /// Why the kernel refused to load the second look.
    pub(crate) no_second_look: Option<String>,
    /// The program for forwarded packets.
    pub(crate) forwarded: Option<OwnedFd>,
    /// Why the kernel does not take it.
    pub(crate) no_forwarded: Option<String>,
    /// Texts of the kernel's refusals, by index of the interface and error. The daemon tries again and
    /// again to attach; this saves a question to the kernel each time.
    said: BTreeMap<(u32, Option<i32>), Option<String>>,
}

impl Filter {
    /// Loads the program with the pinned maps, and makes maps that are missing. If the kernel refuses
    /// the program with the full reader, loads the one with the slim reader. Attached programs stay.
    ///
    /// # Errors
    /// [`Error::NoBpfFileSystem`] if the pins are elsewhere, [`Error::Layout`] for a pinned map of
    /// another layout. [`Error::Permission`] without the capabilities, [`Error::Refused`] if the kernel
    /// refuses both programs.
    pub fn load(pins: &Pins, blocks: u32) -> Result<Filter, Error> {
        pins.make()?;
        let folder = pins.maps(blocks);
        for new in [&folder, &pins.0.join("links")] {
            fs::create_dir_all(new).map_err(|error| Error::pin(new, error))?;
        }
        for spec in MAPS.iter().filter(|spec| folder.join(spec.name).exists()) {
            open(&folder, spec.name)?;
        }
        let attempts = attempts_capacity(blocks)?;
        let gate = Gate::load(OBJECT, &Plan::of_this_kernel()?, |loader| {
            loader.override_global("REPLAY", &0u32, true);
            for spec in MAPS {
                match spec.max_entries {
                    MaxEntries::Fixed(_) => {}
                    MaxEntries::Blocks => _ = loader.map_max_entries(spec.name, blocks),
                    MaxEntries::Attempts => _ = loader.map_max_entries(spec.name, attempts),
                }
                loader.map_pin_path(spec.name, folder.join(spec.name));
            }
        })?;
        let capacity = Maps::capacity(&folder)?;
        if capacity != blocks {
            let path = folder.join("BLOCKED_NUMBERS");
            let what = format!("it holds {capacity} entries, not {blocks}");
            return Err(Error::Layout { path, what });
        }
        let said = BTreeMap::new();
        let mut gate = gate;
        let id = gate.xdp()?.info().map_err(Error::program)?.id();
        gate.pin_replies(&pins.new_reply_programs(id)?)?;
        let (no_second_look, forwarded, no_forwarded) = (None, None, None);
        let pins = pins.clone();
        Ok(Filter { gate, pins, folder, no_second_look, forwarded, no_forwarded, said })
    }

    pub(crate) fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    /// Returns the program of the object that the kernel accepted.
    #[must_use]
    pub fn program(&self) -> Program {
        self.gate.program()
    }

    /// Returns the warning for a kernel that refuses the full reader; `None` if it accepts it.
    #[must_use]
    pub fn slow_reader(&self) -> Option<String> {
        self.gate.slow_reader()
    }

    pub(crate) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Returns the folder of the pinned maps.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the kernel's ID of the program.
    ///
    /// # Errors
    /// [`Error::Load`] if the system call fails.
    pub fn program_id(&mut self) -> Result<u32, Error> {
        Ok(self.gate.xdp()?.info().map_err(Error::program)?.id())
    }

    /// Attaches the program to an interface. If the interface has a pinned link, replaces the older
    /// program in it between two packets; otherwise makes a new link.
    ///
    /// # Errors
    /// [`Error::NoInterface`], [`Error::Busy`] if another XDP program is on the interface, and
    /// [`Error::Attach`] otherwise, such as for a driver without native XDP.
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

    /// Replaces the program in the pinned link; `false` if there is no link, or its interface is gone.
    pub(crate) fn replace(&mut self, interface: &str) -> Result<bool, Error> {
        let path = self.pins.link(interface);
        if !path.exists() {
            return Ok(false);
        }
        let no_link = |error: &dyn std::error::Error| Error::Layout {
            path: path.clone(),
            what: format!("it is not an XDP link ({})", chain(error)),
        };
        let pinned = PinnedLink::from_pin(&path).map_err(|error| no_link(&error))?;
        let link = XdpLink::try_from(FdLink::from(pinned)).map_err(|error| no_link(&error))?;
        let program = self.gate.xdp()?;
        match program.attach_to_link(link) {
            Ok(id) => {
                // Closed here; the pin keeps the link.
                program.take_link(id).map_err(Error::program)?;
                Ok(true)
            }
            Err(error) if errno(&error) == Some(Errno::ENOLINK) => {
                self.pins.unpin(interface)?;
                Ok(false)
            }
            Err(error) => Err(attach_error(interface, error, None)),
        }
    }

    fn create(&mut self, interface: &str, mode: AyaMode) -> Result<(), Error> {
        let path = self.pins.link(interface);
        let id = match self.gate.xdp()?.attach(interface, mode) {
            Ok(id) => id,
            Err(ProgramError::UnknownInterface { name }) => return Err(Error::NoInterface(name)),
            Err(error) => {
                let said = self.said(interface, mode, errno(&error));
                return Err(attach_error(interface, error, said));
            }
        };
        let link = self.gate.xdp()?.take_link(id).map_err(Error::program)?;
        // On a kernel without links, Aya attaches without one; such a program ends with this process.
        let link = FdLink::try_from(link).map_err(|error| Error::Attach {
            interface: interface.to_owned(),
            message: format!("the kernel made no link ({})", chain(&error)),
            source: error.into(),
        })?;
        link.pin(&path).map_err(|error| Error::pin(&path, error))?;
        Ok(())
    }

    /// Returns the kernel's text of a refusal; asks the kernel once for each error of an interface.
    fn said(&mut self, interface: &str, mode: AyaMode, number: Option<Errno>) -> Option<String> {
        if is_busy(number) {
            return None;
        }
        let index = if_nametoindex(interface).ok()?;
        let key = (index, number.map(|number| number as i32));
        if let Some(said) = self.said.get(&key) {
            return said.clone();
        }
        let fd = self.gate.xdp().ok()?.fd().ok()?;
        let said = xdp_refusal::why(index, fd.as_fd(), mode == AyaMode::Driver).ok()?;
        self.said.insert(key, said.clone());
        said
    }
}

/// Checks whether another program is on the interface.
fn is_busy(number: Option<Errno>) -> bool {
    matches!(number, Some(Errno::EBUSY | Errno::EEXIST))
}

/// Returns the error of a failed attachment, with the kernel's text and what to do.
fn attach_error(interface: &str, error: ProgramError, said: Option<String>) -> Error {
    let number = errno(&error);
    if is_busy(number) {
        return Error::Busy(interface.to_owned());
    }
    let hint = match number {
        Some(Errno::EOPNOTSUPP) => {
            "; the driver has no native XDP: xdp_mode = \"generic\" works everywhere, slower"
        }
        Some(Errno::ERANGE) => "; the MTU is too large for this driver's XDP",
        _ => "",
    };
    let said = said.map_or_else(String::new, |said| format!(", the kernel says: {said}"));
    let message = format!("{}{said}{hint}", chain(&error));
    Error::Attach { interface: interface.to_owned(), message, source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::test_netns::in_new_namespace;

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn refusal_to_attach_has_the_text_of_the_kernel() {
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
