//! The kernel side, from user space: load the program, attach it, fill its maps, run it. The
//! only place that knows Aya.

mod egress;
mod error;
mod evidence;
mod live;
mod loaded;
mod maps;
mod raw;
mod replay;
mod run_time;
mod trial;

pub use self::egress::{Egress, tcx_programs};
pub use self::error::Error;
pub use self::evidence::{EvidenceRing, EvidenceSwitch};
pub use self::live::{Attached, Events, Filter, Pins};
pub use self::loaded::{Loaded, loaded, map_id};
pub use self::maps::{AllowHalves, LookUp, Maps, WayOut, carry_over, walk_blocks};
pub use self::replay::{Judged, Replay};
pub use self::run_time::{RunTime, Statistics};
pub use self::trial::Trial;

use std::io::ErrorKind;

use aya::programs::{ProgramError, SchedClassifier, Xdp, XdpMode as AyaMode};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};

/// Name of the program in the object, as `bpftool prog` shows it.
const PROGRAM: &str = "palang";

/// Name of the program for packets that leave.
const EGRESS_PROGRAM: &str = "palang_egress";

/// The program's memory of attempts needs room for two of each blocked number, and for
/// what each CPU keeps free for itself, or it forgets too early.
fn attempts(blocks: u32) -> Result<u32, Error> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| Error::Cpus(error))? as u32;
    Ok(blocks.saturating_mul(2).saturating_add(128 * cpus).max(65_536))
}

/// How often a load is tried that a signal interrupts.
const LOADS: u32 = 10;

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, Error> {
    let program = ebpf.program_mut(PROGRAM).ok_or(Error::Missing(PROGRAM))?;
    program.try_into().map_err(Error::program)
}

/// A loader with a verifier that tells what is wrong, and no more. The library tries a load that
/// failed once more with a log, and a good load fails when the log of each instruction does not
/// fit (`ENOSPC`); by then a signal that interrupted the first try is forgotten.
fn loader<'a>() -> EbpfLoader<'a> {
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::STATS);
    loader
}

/// Loads the program for packets that come in.
fn load_program(ebpf: &mut Ebpf) -> Result<(), Error> {
    let program = program(ebpf)?;
    uninterrupted(|| program.load())
}

/// The program for packets that leave, loaded when it is asked for the first time.
fn egress_program(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, Error> {
    let program = ebpf.program_mut(EGRESS_PROGRAM).ok_or(Error::Missing(EGRESS_PROGRAM))?;
    let program: &mut SchedClassifier = program.try_into().map_err(Error::program)?;
    uninterrupted(|| match program.load() {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        loaded => loaded,
    })?;
    Ok(program)
}

/// The verifier gives up with `EAGAIN` when the thread gets a signal, which says nothing of the
/// program.
fn uninterrupted(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), Error> {
    let mut left = LOADS;
    loop {
        left -= 1;
        match load() {
            Err(ProgramError::LoadError { io_error, .. })
                if left > 0 && io_error.kind() == ErrorKind::WouldBlock => {}
            loaded => return loaded.map_err(Error::program),
        }
    }
}
