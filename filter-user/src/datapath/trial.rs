//! The program on maps of its own and on an interface: to see what it does with real packets.

use aya::programs::XdpMode as AyaMode;
use filter_common::abi::EventEntry;

use crate::datapath::error::{Error, chain};
use crate::datapath::load::Plan;
use crate::datapath::maps::Maps;
use crate::datapath::object::OBJECT;
use crate::datapath::replay;
use crate::datapath::replay::Replay;
use crate::model::policy::Policy;

/// The program as a live filter has it, but on private maps. All of it ends with this value: the
/// maps, the program, and that it is on an interface.
pub struct Trial(Replay);

impl Trial {
    /// Loads the program of this binary with a policy, whose times are boot time.
    ///
    /// # Errors
    /// Missing capabilities, a program that the verifier refuses, a policy that does not fit.
    pub fn load(policy: &Policy) -> Result<Trial, Error> {
        replay::load(OBJECT, &Plan::of_this_kernel()?, policy, false, &[]).map(Trial)
    }

    /// Puts it into the driver of an interface of the calling thread's namespace.
    ///
    /// # Errors
    /// No such interface, another program on it, a driver without native XDP.
    pub fn attach(&mut self, interface: &str) -> Result<(), Error> {
        let attached = self.0.gate().xdp()?.attach(interface, AyaMode::Driver);
        attached.map(|_| ()).map_err(|error| Error::Attach {
            interface: interface.to_owned(),
            error: chain(&error),
        })
    }

    /// Its maps.
    #[must_use]
    pub fn maps(&self) -> &Maps {
        self.0.maps()
    }

    /// The program's tag: a hash of its instructions, the same wherever the same object was loaded.
    ///
    /// # Errors
    /// A failing system call.
    pub fn tag(&mut self) -> Result<u64, Error> {
        self.0.tag()
    }

    /// As [`Replay::slow_reader`].
    #[must_use]
    pub fn slow_reader(&self) -> Option<String> {
        self.0.slow_reader()
    }

    /// All events since the last time.
    ///
    /// # Errors
    /// A failing system call.
    pub fn events(&mut self) -> Result<Vec<EventEntry>, Error> {
        let (mut events, passed) = self.0.drain_events()?;
        events.extend(passed);
        Ok(events)
    }
}
