//! Measures the run time of the program for a packet. The kernel measures it only on request.

use std::io;
use std::os::fd::OwnedFd;

use aya::sys::{Stats, enable_stats};

use crate::datapath::attach::Filter;
use crate::datapath::error::Error;

/// Measurements since the program was loaded, while statistics were on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunTime {
    /// Time in the program, in nanoseconds.
    pub nanoseconds: u64,
    /// Number of packets.
    pub packets: u64,
}

impl Filter {
    /// Returns the kernel's measurements of the program. They do not change while no process has
    /// [`Statistics`] on.
    ///
    /// # Errors
    /// [`Error::Load`] if the system call fails.
    pub fn run_time(&mut self) -> Result<RunTime, Error> {
        let info = self.gate().xdp()?.info().map_err(Error::program)?;
        let nanoseconds = u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX);
        Ok(RunTime { nanoseconds, packets: info.run_count() })
    }
}

/// A handle: while a process holds one, the kernel measures all its BPF programs. It ends with its
/// process at the latest.
#[derive(Debug)]
pub struct Statistics {
    _held: OwnedFd,
}

impl Statistics {
    /// Switches the measurements on.
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_SYS_ADMIN`; the error of the system call on a kernel before 5.8.
    pub fn enable() -> io::Result<Statistics> {
        let held = enable_stats(Stats::RunTime).map_err(|error| error.io_error)?;
        Ok(Statistics { _held: held })
    }
}
