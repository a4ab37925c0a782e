//! Errors between user space and the kernel: their causes, and advice for the person who reads them.

use std::io;
use std::path::{Path, PathBuf};

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use caps::{CapSet, Capability};
use nix::errno::Errno;

use crate::datapath::object::OBJECT;
use crate::exit::{Exit, Failure, chain};
use crate::sys::kernels;

/// Lines of a verifier's log that are kept of a refusal.
const LOG_LINES: usize = 30;

/// A cause of any type; its text is part of the message of the error that has it as source.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An error of the datapath. Its text includes the causes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process lacks a capability that the kernel demands.
    #[error(
        "no permission to load BPF programs: run as root, or with CAP_BPF, CAP_NET_ADMIN and \
         CAP_PERFMON"
    )]
    Permission,
    /// The kernel refuses every program that was tried, each for a reason of its own.
    #[error("{}", refused(.0))]
    Refused(Vec<Refusal>),
    /// This `palang` was built without the BPF toolchain.
    #[error(
        "cannot load the kernel program: this palang was built without it; run `cargo xtask setup`, \
         then build palang again"
    )]
    NoProgram,
    /// The program cannot be loaded at all.
    #[error("cannot load the BPF program: {}", chain(.0.as_ref()))]
    Load(#[source] Cause),
    /// The program for forwarded packets cannot be loaded or attached.
    #[error("the program for forwarded packets: {0}")]
    Forwarded(String),
    /// The kernel did not run the program on a frame.
    #[error("the kernel cannot judge a frame: {}", chain(.0.as_ref()))]
    Run(#[source] Cause),
    /// A map did not accept or return a value.
    #[error("BPF map {name}: {}", chain(.source))]
    Map {
        /// Name of the map.
        name: &'static str,
        /// The error of the system call.
        source: MapError,
    },
    /// A map has no room for another element.
    #[error("BPF map {0} is full")]
    Full(&'static str),
    /// A pin cannot be opened, made or removed.
    #[error("{}: {}", path.display(), chain(.source.as_ref()))]
    Pin {
        /// The file.
        path: PathBuf,
        /// The error of the system call.
        source: Cause,
    },
    /// The folder of pins is not on a BPF file system.
    #[error("{}: not on a BPF file system: mount -t bpf bpf /sys/fs/bpf", .0.display())]
    NoBpfFileSystem(PathBuf),
    /// A pinned object is not the map or link that this version pins there.
    #[error(
        "{path}: not a map or link of this version of Palang: {what}. An attached filter keeps \
         running. Look at the object (bpftool map show pinned {path}), remove it, and start again",
        path = path.display()
    )]
    Layout {
        /// The file.
        path: PathBuf,
        /// The difference.
        what: String,
    },
    /// There is no such interface.
    #[error("there is no interface {0} (ip link)")]
    NoInterface(String),
    /// Another XDP program is on the interface.
    #[error("another XDP program is on {0}: see `ip link show {0}`, and remove it first")]
    Busy(String),
    /// The program cannot be attached to the interface.
    #[error("cannot attach to {interface}: {message}")]
    Attach {
        /// The interface.
        interface: String,
        /// The text of the cause, and what to do.
        message: String,
        /// The error of the system call.
        source: Cause,
    },
    /// The second look cannot be attached.
    #[error("cannot attach the second look at whole datagrams: {0}")]
    SecondLook(String),
    /// The object lacks something that this version expects.
    #[error("the BPF object has no {0}: it was built from other sources than this program")]
    Missing(&'static str),
    /// A ring holds an item of another length than an event's.
    #[error("an event of {0} bytes in the ring: other layout")]
    Event(usize),
    /// The number of CPUs is not known.
    #[error("cannot read the number of CPUs: {0}")]
    Cpus(#[source] io::Error),
    /// More trunks than the maps hold.
    #[error(
        "{0} trunks, but the maps hold {max} with the default one",
        max = filter_common::abi::TRUNKS_MAX
    )]
    TooManyTrunks(usize),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let refused = matches!(error, Error::Permission);
        Failure::new(if refused { Exit::Refused } else { Exit::Failed }, error)
    }
}

/// Describes why the kernel refuses all programs that were tried.
fn refused(refusals: &[Refusal]) -> String {
    let mut text = format!(
        "cannot load the program: Linux {} refuses it ({}); {}. An attached filter stays in force",
        kernels::running(),
        reasons(refusals),
        kernels::advice()
    );
    for refusal in refusals.iter().filter(|refusal| !refusal.log.is_empty()) {
        let Refusal { program, log, .. } = refusal;
        text += &format!("\n{program}, the end of the verifier's log:\n{log}");
    }
    text
}

/// Lists refusals in one line.
pub(crate) fn reasons(refusals: &[Refusal]) -> String {
    refusals.iter().map(Refusal::to_string).collect::<Vec<_>>().join("; ")
}

impl Error {
    pub(crate) fn load(error: EbpfError) -> Error {
        if OBJECT.is_empty() {
            return Error::NoProgram;
        }
        if is_permission(&error) { Error::Permission } else { Error::Load(error.into()) }
    }

    pub(crate) fn program(error: ProgramError) -> Error {
        if is_permission(&error) { Error::Permission } else { Error::Load(error.into()) }
    }

    /// Returns the error of a kernel that does not load the program of this name.
    pub(crate) fn loading(program: &'static str, error: ProgramError) -> Error {
        let ProgramError::LoadError { io_error, verifier_log } = &error else {
            return Error::program(error);
        };
        if is_errno(io_error, Errno::EPERM) {
            return Error::Permission;
        }
        // Without CAP_PERFMON the verifier is stricter, and accepts no program of this kind.
        let has = |one| caps::has_cap(None, CapSet::Effective, one).unwrap_or(true);
        if !has(Capability::CAP_PERFMON) && !has(Capability::CAP_SYS_ADMIN) {
            return Error::Permission;
        }
        Error::Refused(vec![Refusal::new(program, io_error, &verifier_log.to_string())])
    }

    pub(crate) fn run(error: ProgramError) -> Error {
        Error::Run(error.into())
    }

    pub(crate) fn map(name: &'static str, error: MapError) -> Error {
        if is_permission(&error) {
            return Error::Permission;
        }
        match errno(&error) {
            // A full hash, a full LPM trie.
            Some(Errno::E2BIG | Errno::ENOSPC) => Error::Full(name),
            _ => Error::Map { name, source: error },
        }
    }

    pub(crate) fn pin(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
        // The verifier also returns EACCES. Here it means the mode of the file, or `path` is a folder.
        if is_permission(&error) || errno(&error) == Some(Errno::EACCES) && !path.is_dir() {
            return Error::Permission;
        }
        Error::Pin { path: path.to_owned(), source: error.into() }
    }

    /// Checks whether a map has no room for another element: `E2BIG` of a hash, `ENOSPC` of a trie.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Error::Full(_))
    }
}

/// A program that the kernel refuses, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its name in the object.
    pub program: &'static str,
    /// Number of instructions that the verifier walked; `None`: it did not get to them.
    pub instructions: Option<u32>,
    /// Text of the kernel's error.
    pub error: String,
    /// The last lines of the verifier's log; empty if there is no log.
    pub log: String,
}

impl Refusal {
    fn new(program: &'static str, error: &io::Error, log: &str) -> Refusal {
        let instructions = log
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("processed ")?.split(' ').next()?.parse().ok());
        let last: Vec<_> = log.lines().rev().take(LOG_LINES).collect();
        let log = last.into_iter().rev().collect::<Vec<_>>().join("\n");
        Refusal { program, instructions, error: error.to_string(), log }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.program, self.error)?;
        match self.instructions {
            Some(count) => write!(f, " after {count} instructions"),
            None if self.log.is_empty() => f.write_str(" and no further message"),
            None => Ok(()),
        }
    }
}

/// Checks whether a capability is missing. `EACCES`, which Rust reads as the same, is the verifier's.
fn is_permission(error: &(dyn std::error::Error + 'static)) -> bool {
    errno(error) == Some(Errno::EPERM)
}

/// Checks whether an I/O error has this number.
pub(crate) fn is_errno(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

/// Returns the number of the system call's error that caused an error.
pub(crate) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error().map(Errno::from_raw);
        }
        next = error.source();
    }
    None
}
