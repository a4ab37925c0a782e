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

use crate::datapath::pins::Pins;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, XdpMode as AyaMode};
use nix::net::if_::if_nametoindex;

use crate::datapath::attempts;
use crate::datapath::error::{Error, chain, os_error};
use crate::datapath::load::{Gate, Plan, Program};
use crate::datapath::maps::Maps;
use crate::datapath::maps::layout::{SPECS, open};
use crate::datapath::object::OBJECT;
use crate::model::xdp_mode::XdpMode;
use crate::sys::xdp_refusal;

pub(crate) const ENOLINK: i32 = 67;
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

/// The loaded program and its maps.
pub struct Filter {
    pub(crate) gate: Gate,
    pub(crate) pins: Pins,
    pub(crate) folder: PathBuf,
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

    pub(crate) fn gate(&mut self) -> &mut Gate {
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

    pub(crate) fn pins(&self) -> &Pins {
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
    pub(crate) fn replace(&mut self, interface: &str) -> Result<bool, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::test_netns::in_new_namespace;

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
