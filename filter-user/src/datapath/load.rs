//! The programs of the object for packets that come in, and which of them this kernel takes.

use std::io::ErrorKind;

use aya::programs::{ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use filter_common::sip::message::{Reader, SLIM_SCAN_MAX};

use crate::datapath::error::{Error, Refusal};
use crate::datapath::features::Features;
use crate::sys::kernels;

/// Name of the program for packets that leave.
pub(crate) const EGRESS_PROGRAM: &str = "palang_egress";
/// Bytes of a program's name that the kernel keeps.
const KERNEL_NAME_MAX: usize = 15;
/// How often a load is tried that a signal interrupts.
const LOADS: u32 = 10;

/// A program of the object for packets that come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its reader.
    pub reader: Reader,
    /// Whether it takes frames of several buffers (`xdp.frags`).
    pub frags: bool,
}

impl Program {
    /// All of them.
    pub const ALL: [Program; 4] = [
        Program { reader: Reader::Full, frags: true },
        Program { reader: Reader::Full, frags: false },
        Program { reader: Reader::Slim, frags: true },
        Program { reader: Reader::Slim, frags: false },
    ];

    /// Its name in the object.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match (self.reader, self.frags) {
            (Reader::Full, true) => "palang",
            (Reader::Full, false) => "palang_no_frags",
            (Reader::Slim, true) => "palang_slim",
            (Reader::Slim, false) => "palang_slim_no_frags",
        }
    }

    /// The program that the kernel lists under this name; `None`: it is not one of these.
    #[must_use]
    pub fn of_kernel_name(name: &str) -> Option<Program> {
        let kept = |program: &Program| &program.name()[..program.name().len().min(KERNEL_NAME_MAX)];
        Program::ALL.into_iter().find(|program| kept(program) == name)
    }
}

/// Which programs are tried, one after the other, and what they may use.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The programs, the best one first.
    pub programs: Vec<Program>,
    /// What the kernel can do.
    pub features: Features,
}

impl Plan {
    /// The plan for this kernel: the full program, and the slim one where the kernel refuses that.
    ///
    /// # Errors
    /// Those of [`Features::probe`].
    pub fn of_this_kernel() -> Result<Plan, Error> {
        let features = Features::probe()?;
        // A program that is given several buffers has to know how long a frame is; one that is given one
        // buffer needs no helper for that.
        let frags = features.frags && features.buffer_helpers;
        let programs = [Reader::Full, Reader::Slim].map(|reader| Program { reader, frags });
        let features = Features { buffer_helpers: frags, ..features };
        Ok(Plan { programs: programs.to_vec(), features })
    }

    /// This program and no other.
    ///
    /// # Errors
    /// Those of [`Features::probe`].
    pub fn only(program: Program) -> Result<Plan, Error> {
        Ok(Plan { programs: vec![program], features: Features::probe()? })
    }
}

/// A loaded object, one of whose programs for packets that come in the kernel took.
pub(crate) struct Gate {
    pub(crate) ebpf: Ebpf,
    program: Program,
    refusals: Vec<Refusal>,
}

impl Gate {
    /// Loads the object and the first program of the plan that the kernel takes. `prepare` sets what
    /// is the caller's own.
    ///
    /// # Errors
    /// [`Error::Refused`] when the kernel takes none of them; otherwise see [`Error`].
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
                Ok(()) => return Ok(Gate { ebpf, program: *program, refusals }),
                Err(Error::Refused(mut refused)) => refusals.append(&mut refused),
                Err(error) => return Err(error),
            }
        }
        Err(Error::Refused(refusals))
    }

    /// Which program it is.
    pub(crate) fn program(&self) -> Program {
        self.program
    }

    /// What to say where the program has the slim reader, with the reason why.
    pub(crate) fn slow_reader(&self) -> Option<String> {
        (self.program.reader == Reader::Slim).then(|| slow_reader(&self.refusals))
    }

    /// The program for packets that come in.
    pub(crate) fn xdp(&mut self) -> Result<&mut Xdp, Error> {
        xdp(&mut self.ebpf, self.program)
    }

    /// The same, to run it only.
    pub(crate) fn xdp_to_run(&self) -> Result<&Xdp, Error> {
        let name = self.program.name();
        let program = self.ebpf.program(name).ok_or(Error::Missing(name))?;
        program.try_into().map_err(Error::program)
    }

    /// The program for packets that leave, loaded when it is asked for the first time.
    pub(crate) fn egress(&mut self) -> Result<&mut SchedClassifier, Error> {
        let program = egress(&mut self.ebpf)?;
        uninterrupted(EGRESS_PROGRAM, || match program.load() {
            Err(ProgramError::AlreadyLoaded) => Ok(()),
            loaded => loaded,
        })?;
        Ok(program)
    }
}

/// What is said of a program with the slim reader; `refusals` are of the full one. What to do is
/// said by `kernels::advice`.
#[must_use]
pub fn slow_reader(refusals: &[Refusal]) -> String {
    let mut text = "slow reader on this kernel".to_owned();
    if !refusals.is_empty() {
        let told: Vec<_> = refusals.iter().map(Refusal::to_string).collect();
        let release = kernels::running();
        text += &format!(": Linux {release} refuses the full one ({})", told.join("; "));
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

/// A loader with a verifier that tells what is wrong, and no more. The library tries a load that
/// failed once more with a log, and a good load fails when the log of each instruction does not
/// fit (`ENOSPC`); by then a signal that interrupted the first try is forgotten.
fn loader<'a>(features: Features) -> EbpfLoader<'a> {
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::STATS);
    // A constant for the verifier: without the helpers no code calls them.
    let has = if features.buffer_helpers { &1u32 } else { &0u32 };
    loader.override_global("BUFFER_HELPERS", has, true);
    loader
}

/// The verifier gives up with `EAGAIN` when the thread gets a signal, which says nothing of the
/// program.
fn uninterrupted(
    name: &'static str,
    mut load: impl FnMut() -> Result<(), ProgramError>,
) -> Result<(), Error> {
    let mut left = LOADS;
    loop {
        left -= 1;
        match load() {
            Err(ProgramError::LoadError { io_error, .. })
                if left > 0 && io_error.kind() == ErrorKind::WouldBlock => {}
            loaded => return loaded.map_err(|error| Error::loading(name, error)),
        }
    }
}
