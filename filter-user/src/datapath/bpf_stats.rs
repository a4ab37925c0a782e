//! How long the program runs for a packet, as the kernel measures it while somebody wants it.

use std::io;
use std::os::fd::OwnedFd;

use aya::sys::{Stats, enable_stats};

use crate::datapath::Error;
use crate::datapath::attach::Filter;

/// What was measured since the program was loaded, while statistics were on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunTime {
    /// In the program, in nanoseconds.
    pub nanoseconds: u64,
    /// Packets.
    pub packets: u64,
}

impl Filter {
    /// What the kernel measured of the program; it stands still while nobody has
    /// [`Statistics`] on.
    ///
    /// # Errors
    /// A failing system call.
    pub fn run_time(&mut self) -> Result<RunTime, Error> {
        let info = self.gate().xdp()?.info().map_err(Error::program)?;
        let nanoseconds = u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX);
        Ok(RunTime { nanoseconds, packets: info.run_count() })
    }
}

/// As long as somebody holds it, the kernel measures all its BPF programs. It ends with its
/// process, however that ends.
#[derive(Debug)]
pub struct Statistics {
    _held: OwnedFd,
}

impl Statistics {
    /// Switches them on.
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_SYS_ADMIN`; a kernel before 5.8.
    pub fn enable() -> io::Result<Statistics> {
        let held = enable_stats(Stats::RunTime).map_err(|error| error.io_error)?;
        Ok(Statistics { _held: held })
    }
}
