//! What can go wrong between user space and the kernel, in words that help.

use std::io;
use std::path::{Path, PathBuf};

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use caps::{CapSet, Capability};

use crate::datapath::object::OBJECT;
use crate::sys::kernels;

/// A missing capability. `EACCES`, which Rust takes for the same, is the verifier's no.
const EPERM: i32 = 1;
const EACCES: i32 = 13;
/// A full hash, a full LPM trie.
const E2BIG: i32 = 7;
const ENOSPC: i32 = 28;

/// Lines of a verifier's log that are kept of a refusal.
const LOG_LINES: usize = 30;

/// An error of the datapath.
#[derive(Debug)]
pub enum Error {
    /// The kernel does not let us: capabilities are missing.
    Permission,
    /// The kernel refuses every program that was tried, each for a reason of its own.
    Refused(Vec<Refusal>),
    /// This `palang` was built without the BPF toolchain.
    NoProgram,
    /// The program cannot be loaded at all.
    Load(String),
    /// The kernel did not run the program on a frame.
    Run(String),
    /// A map did not take or give a value.
    Map {
        /// Name of the map.
        name: &'static str,
        /// What the kernel said.
        error: String,
    },
    /// A map has no room for another element.
    Full(&'static str),
    /// A pin cannot be opened.
    Pin {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: String,
    },
    /// A pinned object is not what stands there in this version.
    Layout {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: String,
    },
    /// There is no such interface.
    NoInterface(String),
    /// Another XDP program is on the interface.
    Busy(String),
    /// The program cannot be attached to the interface.
    Attach {
        /// The interface.
        interface: String,
        /// What the kernel said, and what to do.
        error: String,
    },
    /// The object lacks something that this version expects.
    Missing(&'static str),
    /// A ring holds an item of another length than an event's.
    Event(usize),
    /// The number of CPUs cannot be told.
    Cpus(io::Error),
    /// More trunks than the maps hold.
    TooManyTrunks(usize),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Permission => f.write_str(
                "no permission to load BPF programs: run as root, or with CAP_BPF, CAP_NET_ADMIN \
                 and CAP_PERFMON",
            ),
            Error::Refused(refusals) => {
                let told: Vec<_> = refusals.iter().map(Refusal::to_string).collect();
                write!(
                    f,
                    "cannot load the program: Linux {} refuses it ({}); {}. What is attached stays in \
                     force",
                    kernels::running(),
                    told.join("; "),
                    kernels::advice()
                )?;
                refusals.iter().try_for_each(|refusal| match refusal.log.as_str() {
                    "" => Ok(()),
                    log => {
                        write!(f, "\n{}, the end of the verifier's log:\n{log}", refusal.program)
                    }
                })
            }
            Error::NoProgram => f.write_str(
                "cannot load the kernel program: this palang was built without it; run \
                 `cargo xtask setup`, then build palang again",
            ),
            Error::Load(error) => write!(f, "cannot load the BPF program: {error}"),
            Error::Run(error) => write!(f, "the kernel cannot judge a frame: {error}"),
            Error::Map { name, error } => write!(f, "BPF map {name}: {error}"),
            Error::Full(name) => write!(f, "BPF map {name} is full"),
            Error::Pin { path, error } => write!(f, "{}: {error}", path.display()),
            Error::Layout { path, what } => write!(
                f,
                "{}: not a map or link of this version of Palang: {what}. Whatever is attached goes \
                 on. Look what it is (bpftool map show pinned {0}), remove it, and start again",
                path.display()
            ),
            Error::NoInterface(name) => write!(f, "there is no interface {name} (ip link)"),
            Error::Busy(name) => write!(
                f,
                "another XDP program is on {name}: see `ip link show {name}`, and take it off first"
            ),
            Error::Attach { interface, error } => {
                write!(f, "cannot attach to {interface}: {error}")
            }
            Error::Missing(name) => write!(
                f,
                "the BPF object has no {name}: it was built from other sources than this program"
            ),
            Error::Event(len) => write!(f, "an event of {len} bytes in the ring: other layout"),
            Error::Cpus(error) => write!(f, "cannot tell the number of CPUs: {error}"),
            Error::TooManyTrunks(count) => write!(
                f,
                "{count} trunks, but the maps hold {} with the default one",
                filter_common::abi::TRUNKS_MAX
            ),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    pub(crate) fn load(error: EbpfError) -> Error {
        if OBJECT.is_empty() {
            return Error::NoProgram;
        }
        if is_permission(&error) { Error::Permission } else { Error::Load(chain(&error)) }
    }

    pub(crate) fn program(error: ProgramError) -> Error {
        if is_permission(&error) { Error::Permission } else { Error::Load(chain(&error)) }
    }

    /// The kernel does not take the program of this name.
    pub(crate) fn loading(program: &'static str, error: ProgramError) -> Error {
        let ProgramError::LoadError { io_error, verifier_log } = &error else {
            return Error::program(error);
        };
        if io_error.raw_os_error() == Some(EPERM) {
            return Error::Permission;
        }
        // Without CAP_PERFMON the verifier is stricter, and takes no program of this kind.
        let has = |one| caps::has_cap(None, CapSet::Effective, one).unwrap_or(true);
        if !has(Capability::CAP_PERFMON) && !has(Capability::CAP_SYS_ADMIN) {
            return Error::Permission;
        }
        Error::Refused(vec![Refusal::new(program, io_error, &verifier_log.to_string())])
    }

    pub(crate) fn run(error: ProgramError) -> Error {
        Error::Run(chain(&error))
    }

    pub(crate) fn map(name: &'static str, error: MapError) -> Error {
        if is_permission(&error) {
            return Error::Permission;
        }
        match os_error(&error) {
            Some(E2BIG | ENOSPC) => Error::Full(name),
            _ => Error::Map { name, error: chain(&error) },
        }
    }

    pub(crate) fn pin(path: &Path, error: impl std::error::Error + 'static) -> Error {
        // A verifier says EACCES, too; here it is the file's mode, or there is a folder.
        if is_permission(&error) || os_error(&error) == Some(EACCES) && !path.is_dir() {
            return Error::Permission;
        }
        Error::Pin { path: path.to_owned(), error: chain(&error) }
    }

    /// Whether a map has no room for another element: `E2BIG` of a hash, `ENOSPC` of a trie.
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
    /// How many instructions the verifier walked; `None`: it did not get to them.
    pub instructions: Option<u32>,
    /// What the kernel said.
    pub error: String,
    /// The last lines of the verifier's log; empty: there is none.
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
            None if self.log.is_empty() => f.write_str(" and no word more"),
            None => Ok(()),
        }
    }
}

fn is_permission(error: &(dyn std::error::Error + 'static)) -> bool {
    os_error(error) == Some(EPERM)
}

/// The number of the system's error behind an error.
pub(crate) fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        next = error.source();
    }
    None
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
