//! Attaches the program for packets that leave to an interface. If the kernel has tcx (Linux 6.6), it
//! uses a pinned tcx link. Otherwise it uses a filter of the qdisc clsact with our priority and handle.
//!
//! ```text
//! <pins>/links-egress/eth0    the tcx link
//! <pins>/clsact/eth0          a note: the interface has a filter of ours
//! ```
//! Both outlive every process. The qdisc is never removed: others may use it.

use std::fs;
use std::io;
use std::path::PathBuf;

use aya::programs::links::{FdLink, Link as _, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{LinkOrder, ProgramInfo, SchedClassifier, TcAttachType, tc};
use nix::errno::Errno;

use crate::datapath::attach::{Attached, Filter};
use crate::datapath::error::{Error, errno};
use crate::datapath::load::EGRESS_PROGRAM;
use crate::datapath::pins::{Pins, interfaces_in, pin_name, remove_pin};
use crate::exit::chain;

/// An interface that every network namespace has.
const EVERYWHERE: &str = "lo";

/// Priority and handle of our filter.
const PRIORITY: u16 = 112;
const HANDLE: TcHandle = TcHandle::new(0, 112);

/// Ways of attaching a program to packets that leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// A link of its own, where the kernel has tcx (Linux 6.6).
    Tcx,
    /// A filter of the qdisc clsact.
    Clsact,
}

impl Egress {
    /// Returns the way of this kernel. A kernel without tcx does not know the query for programs on tcx.
    #[must_use]
    pub fn of_this_kernel() -> Egress {
        match SchedClassifier::query_tcx(EVERYWHERE, TcAttachType::Egress) {
            Err(error) if errno(&error) == Some(Errno::EINVAL) => Egress::Clsact,
            Ok(_) | Err(_) => Egress::Tcx,
        }
    }
}

/// Counts our programs for packets that leave on tcx links of an interface, in the network namespace of
/// the calling thread. Returns 0 on a kernel without tcx.
#[must_use]
pub fn tcx_programs(interface: &str) -> usize {
    let found = SchedClassifier::query_tcx(interface, TcAttachType::Egress);
    let is_ours = |program: &ProgramInfo| program.name() == EGRESS_PROGRAM.as_bytes();
    found.map_or(0, |(_, programs)| programs.iter().filter(|one| is_ours(one)).count())
}

impl Pins {
    /// Returns the pin of the link for packets that leave an interface.
    #[must_use]
    pub fn egress_link(&self, interface: &str) -> PathBuf {
        self.folder().join("links-egress").join(pin_name(interface))
    }

    fn clsact(&self, interface: &str) -> PathBuf {
        self.folder().join("clsact").join(pin_name(interface))
    }

    /// Returns the interfaces that have the program for packets that leave.
    pub(crate) fn egress_interfaces(&self) -> Vec<String> {
        ["links-egress", "clsact"]
            .iter()
            .flat_map(|name| interfaces_in(&self.folder().join(name)))
            .collect()
    }

    /// Checks whether an interface has the program for packets that leave.
    #[must_use]
    pub fn has_egress(&self, interface: &str) -> bool {
        self.egress_link(interface).exists() || self.clsact(interface).exists()
    }

    /// Detaches the program for packets that leave from an interface; `false` if it was not attached.
    ///
    /// # Errors
    /// [`Error::Pin`] if a pin cannot be removed, [`Error::Attach`] if a filter cannot.
    pub fn detach_egress(&self, interface: &str) -> Result<bool, Error> {
        let tcx = remove_pin(&self.egress_link(interface))?;
        let note = self.clsact(interface);
        if !note.exists() {
            return Ok(tcx);
        }
        match ours(interface).map(|link| link.detach()) {
            Ok(Ok(())) => {}
            Ok(Err(error)) if errno(&error).is_some_and(is_gone) => {}
            Err(error) if errno(&error).is_some_and(is_gone) => {}
            Ok(Err(error)) => return Err(failed(interface, error)),
            Err(error) => return Err(failed(interface, error)),
        }
        fs::remove_dir(&note).map_err(|error| Error::pin(&note, error))?;
        Ok(true)
    }
}

impl Filter {
    /// Loads the program for packets that leave, so that it can be attached later.
    ///
    /// # Errors
    /// [`Error::Refused`] if the kernel refuses the program.
    pub fn load_egress(&mut self) -> Result<(), Error> {
        self.gate().egress().map(drop)
    }

    /// Attaches the program for packets that leave to an interface, in place of an older one of ours.
    ///
    /// # Errors
    /// [`Error::Refused`] if the kernel refuses the program, [`Error::Attach`] if there is no such
    /// interface or the kernel cannot attach it.
    pub fn attach_egress(&mut self, interface: &str, way: Egress) -> Result<Attached, Error> {
        match way {
            Egress::Tcx => self.attach_tcx(interface),
            Egress::Clsact => self.attach_clsact(interface),
        }
    }

    fn attach_tcx(&mut self, interface: &str) -> Result<Attached, Error> {
        let path = self.pins().egress_link(interface);
        let program = self.gate().egress()?;
        if path.exists() {
            let no_link = |error: &dyn std::error::Error| Error::Layout {
                path: path.clone(),
                what: format!("it is not a tcx link ({})", chain(error)),
            };
            let pinned = PinnedLink::from_pin(&path).map_err(|error| no_link(&error))?;
            let link = SchedClassifierLink::try_from(FdLink::from(pinned))
                .map_err(|error| no_link(&error))?;
            match program.attach_to_link(link) {
                Ok(id) => {
                    // Closed here; the pin keeps the link.
                    program.take_link(id).map_err(Error::program)?;
                    return Ok(Attached::Replaced);
                }
                // The interface is gone; there may be another of its name.
                Err(error) if errno(&error) == Some(Errno::ENOLINK) => {
                    fs::remove_file(&path).map_err(|error| Error::pin(&path, error))?;
                }
                Err(error) => return Err(failed(interface, error)),
            }
        }
        make_folder_of(&path)?;
        // First, because another program may end the processing of a packet.
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program
            .attach_with_options(interface, TcAttachType::Egress, order)
            .map_err(|error| failed(interface, error))?;
        let link = program.take_link(id).map_err(Error::program)?;
        let link = FdLink::try_from(link).map_err(|error| failed(interface, error))?;
        link.pin(&path).map_err(|error| Error::pin(&path, error))?;
        Ok(Attached::New)
    }

    fn attach_clsact(&mut self, interface: &str) -> Result<Attached, Error> {
        let note = self.pins().clsact(interface);
        // Before the filter, so that a filter always has its note.
        fs::create_dir_all(&note).map_err(|error| Error::pin(&note, error))?;
        // It usually exists. If it cannot be made, the error of the filter says so.
        let _ = tc::qdisc_add_clsact(interface);
        let program = self.gate().egress()?;
        let link = ours(interface).map_err(|error| failed(interface, error))?;
        let (id, how) = match program.attach_to_link(link) {
            Ok(id) => (id, Attached::Replaced),
            Err(error) if errno(&error) == Some(Errno::ENOENT) => {
                let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
                let options = TcAttachOptions::Netlink(options);
                let id = program
                    .attach_with_options(interface, TcAttachType::Egress, options)
                    .map_err(|error| failed(interface, error))?;
                (id, Attached::New)
            }
            Err(error) => return Err(failed(interface, error)),
        };
        // The filter must outlive this process, and dropping the link would detach it.
        std::mem::forget(program.take_link(id).map_err(Error::program)?);
        Ok(how)
    }
}

fn make_folder_of(path: &std::path::Path) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|error| Error::pin(folder, error))
}

/// Returns our filter on an interface, whether or not it exists.
fn ours(interface: &str) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, TcAttachType::Egress, PRIORITY, HANDLE, None)
}

/// Checks for an error that means: the filter, its qdisc or its interface does not exist.
fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENODEV | Errno::EINVAL)
}

fn failed(interface: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Attach {
        interface: interface.to_owned(),
        message: format!("the program for packets that leave (call-back grace): {}", chain(&error)),
        source: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;
    use crate::model::xdp_mode::XdpMode;
    use crate::sys::test_netns::{in_new_namespace, ip};

    /// Counts our programs for packets that leave, of either way.
    fn count(interface: &str) -> usize {
        let mut tc = Command::new("tc");
        let output = tc.args(["filter", "show", "dev", interface, "egress"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // A line has its name twice.
        let of_clsact = text.lines().filter(|line| line.contains(EGRESS_PROGRAM)).count();
        of_clsact + tcx_programs(interface)
    }

    fn attached_replaced_and_detached(way: Egress) {
        in_new_namespace(async move {
            let folder = format!("/sys/fs/bpf/palang-unit-{way:?}-{}", std::process::id());
            let pins = Pins::new(Path::new(&folder));
            ip("link add left type veth peer name right");
            let load = || Filter::load(&pins, 1000).unwrap_or_else(|error| panic!("{error}"));
            let attach = |filter: &mut Filter| {
                filter.attach_egress("left", way).unwrap_or_else(|error| panic!("{error}"))
            };
            let mut filter = load();
            assert_eq!(filter.attach("left", XdpMode::Generic).unwrap(), Attached::New);
            assert_eq!(attach(&mut filter), Attached::New);
            assert_eq!(attach(&mut filter), Attached::Replaced);
            drop(filter);
            assert_eq!(count("left"), 1, "it outlives who attached it");
            let mut filter = load();
            assert_eq!(attach(&mut filter), Attached::Replaced);
            assert_eq!(count("left"), 1);
            assert!(pins.has_egress("left"));

            // Another interface of that name.
            ip("link del left");
            ip("link add left type veth peer name right");
            assert_eq!(count("left"), 0);
            assert_eq!(attach(&mut filter), Attached::New);
            drop(filter);
            pins.detach("left").unwrap();
            assert_eq!(count("left"), 0);
            assert!(!pins.has_egress("left"));
            assert!(!pins.detach_egress("left").unwrap(), "it was off already");
            fs::remove_dir_all(folder).unwrap();
        });
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn tcx_link_is_attached_replaced_and_detached() {
        if Egress::of_this_kernel() == Egress::Tcx {
            attached_replaced_and_detached(Egress::Tcx);
        }
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn clsact_filter_is_attached_replaced_and_detached() {
        attached_replaced_and_detached(Egress::Clsact);
    }
}
