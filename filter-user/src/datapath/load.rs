//! Loads a program of the object for incoming packets: the best one that this kernel accepts.

use std::io::ErrorKind;
use std::path::Path;

use aya::maps::{MapData, ProgramArray};
use aya::programs::{CgroupSkb, ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use filter_common::sip::message::{Reader, SLIM_SCAN_MAX};

use crate::datapath::error::{Error, Refusal, reasons};
use crate::datapath::features::{Features, TRIES};
use crate::sys::kernels;

/// Name of the program for packets that leave.
pub(crate) const EGRESS_PROGRAM: &str = "palang_egress";
/// Name of the program for datagrams that the host has put together.
pub(crate) const SECOND_LOOK_PROGRAM: &str = "palang_second_look";
/// Why a kernel answers no refused call.
const NO_REPLIES: &str =
    "this kernel has no tail calls beside functions (Linux 5.10, on aarch64 6.0)";
/// Number of bytes of a program's name that the kernel keeps.
const KERNEL_NAME_MAX: usize = 15;

/// A program of the object for incoming packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its reader.
    pub reader: Reader,
    /// Whether it accepts frames of several buffers (`xdp.frags`).
    pub frags: bool,
}

impl Program {
    /// All programs for incoming packets.
    pub const ALL: [Program; 4] = [
        Program { reader: Reader::Full, frags: true },
        Program { reader: Reader::Full, frags: false },
        Program { reader: Reader::Slim, frags: true },
        Program { reader: Reader::Slim, frags: false },
    ];

    /// Returns the name in the object.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match (self.reader, self.frags) {
            (Reader::Full, true) => "palang",
            (Reader::Full, false) => "palang_no_frags",
            (Reader::Slim, true) => "palang_slim",
            (Reader::Slim, false) => "palang_slim_no_frags",
        }
    }

    /// Returns the programs in the map `NEXT`, with their places: one answers, one hands over to the daemon, one drops
    /// ACKs. The kernel accepts in one array only programs that all have `xdp.frags`, or none.
    #[must_use]
    pub const fn reply_programs(self) -> &'static [(u32, &'static str)] {
        if self.frags {
            &[(0, "palang_answer"), (1, "palang_hand_over"), (2, "palang_ack")]
        } else {
            &[(1, "palang_hand_over_no_frags"), (2, "palang_ack_no_frags")]
        }
    }

    /// Returns the program that the kernel lists under this name; `None` for the name of no program.
    #[must_use]
    pub fn of_kernel_name(name: &str) -> Option<Program> {
        let kept = |program: &Program| &program.name()[..program.name().len().min(KERNEL_NAME_MAX)];
        Program::ALL.into_iter().find(|program| kept(program) == name)
    }
}

/// The programs to try, one after the other, and the features that they may use.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The programs, the best one first.
    pub programs: Vec<Program>,
    /// Features of the kernel.
    pub features: Features,
}

impl Plan {
    /// Returns the plan for this kernel: the full program, then the slim one.
    ///
    /// # Errors
    /// Returns the error of [`Features::probe`].
    pub fn of_this_kernel() -> Result<Plan, Error> {
        let features = Features::probe()?;
        // A program with frames of several buffers needs a helper to know the length of a frame. A
        // program with one buffer needs no helper.
        let frags = features.frags && features.buffer_helpers;
        let programs = [Reader::Full, Reader::Slim].map(|reader| Program { reader, frags });
        let features = Features { buffer_helpers: frags, ..features };
        Ok(Plan { programs: programs.to_vec(), features })
    }

    /// Returns a plan with one program only.
    ///
    /// # Errors
    /// Returns the error of [`Features::probe`].
    pub fn only(program: Program) -> Result<Plan, Error> {
        Ok(Plan { programs: vec![program], features: Features::probe()? })
    }
}

/// A loaded object, with the program for incoming packets that the kernel accepted.
pub(crate) struct Gate {
    pub(crate) ebpf: Ebpf,
    program: Program,
    refusals: Vec<Refusal>,
    /// The array with the programs that answer; `None` where they are not loaded, or it is pinned.
    next: Option<ProgramArray<MapData>>,
    no_replies: Option<String>,
}

impl Gate {
    /// Loads the object and the first program of the plan that the kernel accepts. `prepare` adds the
    /// settings of the caller to the loader.
    ///
    /// # Errors
    /// [`Error::Refused`] if the kernel accepts no program of the plan, [`Error::Permission`] without
    /// the capabilities, [`Error::Load`] otherwise.
    pub(crate) fn load<'a>(
        object: &[u8],
        plan: &Plan,
        prepare: impl FnOnce(&mut EbpfLoader<'a>),
    ) -> Result<Gate, Error> {
        plan.features.lift_memory_limit();
        let mut loader = loader(plan.features);
        prepare(&mut loader);
        let mut ebpf = loader.load(object).map_err(Error::load)?;
        let mut refusals = Vec::new();
        for program in &plan.programs {
            let found = xdp(&mut ebpf, *program)?;
            match uninterrupted(program.name(), || found.load()) {
                Ok(()) => {
                    let program = *program;
                    let (next, no_replies) = (None, None);
                    let mut gate = Gate { ebpf, program, refusals, next, no_replies };
                    gate.load_replies(plan.features)?;
                    return Ok(gate);
                }
                Err(Error::Refused(mut refused)) => refusals.append(&mut refused),
                Err(error) => return Err(error),
            }
        }
        Err(Error::Refused(refusals))
    }

    /// Loads the programs that answer a refused call and drop its ACK. Without them a refused call ends in silence.
    fn load_replies(&mut self, features: Features) -> Result<(), Error> {
        if !features.replies {
            self.no_replies = Some(NO_REPLIES.to_owned());
            return Ok(());
        }
        let next = self.ebpf.take_map("NEXT").ok_or(Error::Missing("NEXT"))?;
        let failed = |error| Error::map("NEXT", error);
        let mut next = ProgramArray::try_from(next).map_err(failed)?;
        for (index, name) in self.program.reply_programs().iter().copied() {
            let found = self.ebpf.program_mut(name).ok_or(Error::Missing(name))?;
            let program: &mut Xdp = found.try_into().map_err(Error::program)?;
            match uninterrupted(name, || program.load()) {
                Ok(()) => {}
                // The others do their part: the driver answers without the program that hands over.
                Err(refused @ Error::Refused(_)) => {
                    self.no_replies = Some(refused.to_string());
                    continue;
                }
                Err(error) => return Err(error),
            }
            let fd = program.fd().map_err(Error::program)?;
            next.set(index, fd, 0).map_err(failed)?;
        }
        self.next = Some(next);
        Ok(())
    }

    /// Returns why this kernel answers no refused call; `None` if it does.
    pub(crate) fn no_replies(&self) -> Option<&str> {
        self.no_replies.as_deref()
    }

    /// Pins the array of the programs that answer, so that they work without this process.
    pub(crate) fn pin_replies(&mut self, path: &Path) -> Result<(), Error> {
        self.next
            .take()
            .map_or(Ok(()), |next| next.pin(path).map_err(|error| Error::pin(path, error)))
    }

    /// Returns the program that the kernel accepted.
    pub(crate) fn program(&self) -> Program {
        self.program
    }

    /// Returns the warning about the slim reader, with the reason; `None` for the full reader.
    pub(crate) fn slow_reader(&self) -> Option<String> {
        (self.program.reader == Reader::Slim).then(|| slow_reader(&self.refusals))
    }

    /// Returns the program for incoming packets.
    pub(crate) fn xdp(&mut self) -> Result<&mut Xdp, Error> {
        xdp(&mut self.ebpf, self.program)
    }

    /// Returns the program for incoming packets, only to run it.
    pub(crate) fn xdp_to_run(&self) -> Result<&Xdp, Error> {
        let name = self.program.name();
        let program = self.ebpf.program(name).ok_or(Error::Missing(name))?;
        program.try_into().map_err(Error::program)
    }

    /// Returns the second look. Loads it at the first call.
    pub(crate) fn second_look(&mut self) -> Result<&mut CgroupSkb, Error> {
        let name = SECOND_LOOK_PROGRAM;
        let found = self.ebpf.program_mut(name).ok_or(Error::Missing(name))?;
        let program: &mut CgroupSkb = found.try_into().map_err(Error::program)?;
        uninterrupted(name, || once(program.load()))?;
        Ok(program)
    }

    /// Returns the program for packets that leave. Loads it at the first call.
    pub(crate) fn egress(&mut self) -> Result<&mut SchedClassifier, Error> {
        let program = egress(&mut self.ebpf)?;
        uninterrupted(EGRESS_PROGRAM, || once(program.load()))?;
        Ok(program)
    }
}

/// Returns the warning about a program with the slim reader. `refusals` are those of the full one.
/// `kernels::advice` says what to do.
#[must_use]
pub fn slow_reader(refusals: &[Refusal]) -> String {
    let mut text = "slow reader on this kernel".to_owned();
    if !refusals.is_empty() {
        let release = kernels::running();
        text += &format!(": Linux {release} refuses the full one ({})", reasons(refusals));
    }
    text + &format!(
        ". Calls are judged, but those with more than {SLIM_SCAN_MAX} bytes of headers pass"
    )
}

fn xdp(ebpf: &mut Ebpf, program: Program) -> Result<&mut Xdp, Error> {
    let found = ebpf.program_mut(program.name()).ok_or(Error::Missing(program.name()))?;
    found.try_into().map_err(Error::program)
}

fn egress(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, Error> {
    let found = ebpf.program_mut(EGRESS_PROGRAM).ok_or(Error::Missing(EGRESS_PROGRAM))?;
    found.try_into().map_err(Error::program)
}

/// Returns a loader whose verifier logs only errors and statistics. The library repeats a failed load
/// with a log, and forgets the signal that interrupted the first try. With a log of each instruction
/// the second try of a good load would fail, because the log does not fit (`ENOSPC`).
fn loader<'a>(features: Features) -> EbpfLoader<'a> {
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::STATS);
    // A constant for the verifier: without the helpers no code calls them.
    let has = if features.buffer_helpers { &1u32 } else { &0u32 };
    loader.override_global("BUFFER_HELPERS", has, true);
    let has = if features.replies { &1u32 } else { &0u32 };
    loader.override_global("REPLIES", has, true);
    loader
}

/// Returns success for a program that is loaded already.
fn once(loaded: Result<(), ProgramError>) -> Result<(), ProgramError> {
    match loaded {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        loaded => loaded,
    }
}

/// Loads a program, and tries again after a signal: the verifier then returns `EAGAIN` for any
/// program.
fn uninterrupted(
    name: &'static str,
    mut load: impl FnMut() -> Result<(), ProgramError>,
) -> Result<(), Error> {
    let mut left = TRIES;
    loop {
        left -= 1;
        match load() {
            Err(ProgramError::LoadError { io_error, .. })
                if left > 0 && io_error.kind() == ErrorKind::WouldBlock => {}
            loaded => return loaded.map_err(|error| Error::loading(name, error)),
        }
    }
}
