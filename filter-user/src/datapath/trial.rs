//! Runs the program with private maps on an interface, to test it with real packets.

use aya::programs::{CgroupAttachMode, CgroupSkbAttachType, XdpMode as AyaMode};
use filter_common::abi::EventEntry;

use crate::datapath::error::Error;
use crate::datapath::load::Plan;
use crate::datapath::maps::Maps;
use crate::datapath::object::OBJECT;
use crate::datapath::replay;
use crate::datapath::replay::Replay;
use crate::exit::chain;
use crate::model::policy::Policy;
use crate::sys::cgroup;

/// The program of a live filter, but with private maps. Maps, program and attachment end with this
/// value.
pub struct Trial(Replay);

impl Trial {
    /// Loads the program of this binary with a policy, whose times are boot time.
    ///
    /// # Errors
    /// [`Error::Permission`] without the capabilities, [`Error::Refused`] if the kernel refuses the
    /// program, [`Error::Full`] or [`Error::TooManyTrunks`] for a policy that does not fit.
    pub fn load(policy: &Policy) -> Result<Trial, Error> {
        replay::load(OBJECT, &Plan::of_this_kernel()?, policy, false, &[]).map(Trial)
    }

    /// Attaches the program to the driver of an interface of the calling thread's namespace.
    ///
    /// # Errors
    /// [`Error::Attach`] if there is no such interface, another program is on it, or its driver has no
    /// native XDP.
    pub fn attach(&mut self, interface: &str) -> Result<(), Error> {
        let attached = self.0.gate().xdp()?.attach(interface, AyaMode::Driver);
        attached.map(|_| ()).map_err(|error| Error::Attach {
            interface: interface.to_owned(),
            message: chain(&error),
            source: error.into(),
        })
    }

    /// Attaches the second look to the control group of this process, whose sockets alone it then serves. The
    /// first look leaves datagrams to it. Returns the tag of its program.
    ///
    /// # Errors
    /// [`Error::Refused`] if the kernel refuses the program, [`Error::SecondLook`] if it cannot be attached,
    /// [`Error::Map`] if the map cannot be written.
    pub fn attach_second_look(&mut self) -> Result<u64, Error> {
        let failed = |error: &dyn std::error::Error| Error::SecondLook(chain(error));
        let group = cgroup::own().map_err(|error| failed(&error))?;
        let program = self.0.gate().second_look()?;
        let tag = program.info().map_err(Error::program)?.tag();
        // The kernel adds a link to the programs of others in any case.
        program
            .attach(group, CgroupSkbAttachType::Ingress, CgroupAttachMode::Single)
            .map_err(|error| failed(&error))?;
        self.0.load_second_look()?;
        Ok(tag)
    }

    /// Returns the private maps.
    #[must_use]
    pub fn maps(&self) -> &Maps {
        self.0.maps()
    }

    /// Returns the program's tag: a hash of its instructions, equal for each load of one object.
    ///
    /// # Errors
    /// [`Error::Load`] if the system call fails.
    pub fn tag(&mut self) -> Result<u64, Error> {
        self.0.tag()
    }

    /// Returns the warning of [`Replay::slow_reader`].
    #[must_use]
    pub fn slow_reader(&self) -> Option<String> {
        self.0.slow_reader()
    }

    /// Removes all events from the rings and returns them.
    ///
    /// # Errors
    /// [`Error::Event`] for an event of another layout.
    pub fn events(&mut self) -> Result<Vec<EventEntry>, Error> {
        let (mut events, passed) = self.0.drain_events()?;
        events.extend(passed);
        Ok(events)
    }
}
