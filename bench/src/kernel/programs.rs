//! The filter as the daemon loads it, and the reference programs, on the same maps.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use aya::programs::{CgroupSkb, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use filter_common::reason::Reason;
use palang::datapath::{Events, Filter, Maps, Pins};

#[path = "../../../filter-ebpf/bench/variants.rs"]
mod variants;

pub use variants::{Draw, FRAME_LEN, VARIANTS_MAX, Variant, octal};

/// Names of the second look and of the program beside it in their objects.
pub const SECOND_LOOK: &str = "palang_second_look";
pub const NULL_AGAIN: &str = "null_again";

/// Mount point of the BPF file system.
const BPFFS: &str = "/sys/fs/bpf";
/// Prefix of the folders of pins, before process and capacity.
const FOLDER: &str = "palang-bench-";

/// The ELF reader of aya casts parts of the object to structures, so it must be aligned.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("BENCH_OBJECT")));

// SAFETY: `repr(C)`, only integers and no padding.
unsafe impl aya::Pod for Variant {}
// SAFETY: as above.
unsafe impl aya::Pod for Draw {}

/// The measured programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Nothing: the test run itself.
    Null,
    /// Ethernet, IPv4, UDP and the port.
    Parse,
    /// As before, with one look-up.
    Lookup,
    /// The layers and the headers, without a decision.
    Scan,
    /// As before, with the full reader.
    ScanFull,
    /// The decision, with given positions of number and Call-ID.
    Oracle,
    /// The decision, with a byte-by-byte search for the number.
    Naive,
    /// The filter.
    Palang,
}

impl Program {
    /// All of them, in the order of the tables.
    pub const ALL: [Program; 8] = [
        Program::Null,
        Program::Parse,
        Program::Lookup,
        Program::Oracle,
        Program::Palang,
        Program::Scan,
        Program::ScanFull,
        Program::Naive,
    ];

    /// Returns the name in the object.
    pub const fn name(self) -> &'static str {
        match self {
            Program::Null => "null",
            Program::Parse => "parse",
            Program::Lookup => "lookup",
            Program::Scan => "scan",
            Program::ScanFull => "scan_full",
            Program::Oracle => "oracle",
            Program::Naive => "naive",
            Program::Palang => "palang",
        }
    }

    /// Returns the name of the program that first draws a frame, if there is one.
    pub const fn varied(self) -> Option<&'static str> {
        match self {
            Program::Null => Some("copy_varied"),
            Program::Scan => Some("scan_varied"),
            Program::ScanFull => Some("scan_full_varied"),
            Program::Oracle => Some("oracle_varied"),
            Program::Naive => Some("naive_varied"),
            Program::Palang => Some("palang_varied"),
            Program::Parse | Program::Lookup => None,
        }
    }

    /// Checks whether it decides and counts the reason.
    pub const fn decides(self) -> bool {
        matches!(self, Program::Oracle | Program::Naive | Program::Palang)
    }
}

/// Size and verifier cost of a loaded program.
pub struct Loaded {
    /// Bytes of machine code.
    pub jited: u32,
    /// Instructions that the verifier processed; 0 before Linux 5.16.
    pub verified: u32,
}

/// A folder of pins of this process, removed when this value is dropped.
struct Folder(PathBuf);

impl Folder {
    /// Creates the folder. Also removes that of a run that was killed, because its maps would stay.
    fn new(blocks: u32) -> Result<Folder> {
        for entry in fs::read_dir(BPFFS).context("there is no BPF file system")? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let process = name.strip_prefix(FOLDER).and_then(|rest| rest.split('-').next());
            if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
                fs::remove_dir_all(&path)?;
            }
        }
        let pid = std::process::id();
        Ok(Folder(Path::new(BPFFS).join(format!("{FOLDER}{pid}-{blocks}"))))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The next run tries to remove it again.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// All programs on one set of maps.
pub struct Stack {
    _pins: Folder,
    filter: Filter,
    palang: Ebpf,
    bench: Ebpf,
    variants: Array<MapData, Variant>,
    draw: Array<MapData, Draw>,
    /// The maps of the filter, as the daemon writes them.
    pub maps: Maps,
    /// The rings of the filter.
    pub events: Events,
}

impl Stack {
    /// Loads the filter with room for N blocked numbers, and these reference programs.
    pub fn load(blocks: u32, beside: &[Program]) -> Result<Stack> {
        let pins = Folder::new(blocks)?;
        // Makes the maps, as the daemon does.
        let filter = Filter::load(&Pins::new(&pins.0), blocks)?;
        let folder = filter.folder();
        let mut palang =
            load(palang::datapath::object::OBJECT, folder).context("loading the filter")?;
        let mut bench = load(&OBJECT.0, folder).context("loading the programs beside it")?;
        load_program(&mut palang, Program::Palang.name())?;
        for program in beside {
            if *program != Program::Palang {
                load_program(&mut bench, program.name())?;
            }
            if let Some(name) = program.varied() {
                load_program(&mut bench, name)?;
            }
        }
        let mut take = |name| bench.take_map(name).with_context(|| format!("no map {name}"));
        Ok(Stack {
            variants: take("VARIANTS")?.try_into()?,
            draw: take("DRAW")?.try_into()?,
            maps: Maps::open(folder)?,
            events: Events::open(folder)?,
            _pins: pins,
            filter,
            palang,
            bench,
        })
    }

    /// Draws from these variants from now on.
    pub fn set_corpus(&mut self, variants: &[Variant]) -> Result<()> {
        for (index, variant) in variants.iter().enumerate() {
            self.variants.set(index as u32, *variant, 0)?;
        }
        Ok(())
    }

    /// Draws in this way from now on. The number of attempts continues.
    pub fn set_draw(&mut self, draw: Draw) -> Result<()> {
        let attempt = self.draw.get(&0, 0)?.attempt;
        Ok(self.draw.set(0, Draw { attempt, ..draw }, 0)?)
    }

    /// Returns ns per run, and the result of the last run.
    pub fn run(&self, program: &str, frame: &[u8], repeat: u32) -> Result<(f64, u32)> {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
        let result = self.program(program)?.test_run(options)?;
        Ok((result.duration.as_nanos() as f64, result.return_value))
    }

    fn program(&self, name: &str) -> Result<&Xdp> {
        let of = if name == Program::Palang.name() { &self.palang } else { &self.bench };
        let program = of.program(name).with_context(|| format!("no program {name}"))?;
        Ok(program.try_into()?)
    }

    /// Loads the second look and the program that it is compared with.
    pub fn load_second_look(&mut self) -> Result<()> {
        for (object, name) in [(&mut self.palang, SECOND_LOOK), (&mut self.bench, NULL_AGAIN)] {
            let program = object.program_mut(name).with_context(|| format!("no program {name}"))?;
            let program: &mut CgroupSkb = program.try_into()?;
            program.load().with_context(|| format!("loading {name}"))?;
        }
        let map = MapData::from_pin(self.filter.folder().join("SECOND_LOOK"))?;
        let mut switch: Array<_, u32> = Array::try_from(Map::Array(map))?;
        Ok(switch.set(0, 1, 0)?)
    }

    /// Lets the first look leave a datagram to the second look.
    pub fn leave(&self, first_fragment: &[u8]) -> Result<()> {
        let before = self.maps.count(0, Reason::SecondLook)?;
        self.run(Program::Palang.name(), first_fragment, 1)?;
        let left = self.maps.count(0, Reason::SecondLook)? - before;
        ensure!(left == 1, "the first look did not leave a datagram to the second");
        Ok(())
    }

    /// Returns ns per run of the second look or the program beside it, and the result of the last run.
    pub fn run_again(&self, program: &str, frame: &[u8], repeat: u32) -> Result<(f64, u32)> {
        let of = if program == NULL_AGAIN { &self.bench } else { &self.palang };
        let found = of.program(program).with_context(|| format!("no program {program}"))?;
        let found: &CgroupSkb = found.try_into()?;
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
        let result = found.test_run(options)?;
        Ok((result.duration.as_nanos() as f64, result.return_value))
    }

    /// Returns size and verifier cost of a program.
    pub fn loaded(&self, name: &str) -> Result<Loaded> {
        let info = self.program(name)?.info()?;
        Ok(Loaded {
            jited: info.size_jitted(),
            verified: info.verified_instruction_count().unwrap_or(0),
        })
    }

    /// Returns the memory of the filter's maps in bytes by name, the largest first.
    pub fn memory(&self) -> Result<Vec<(String, u64)>> {
        let mut maps = Vec::new();
        for entry in fs::read_dir(self.filter.folder())? {
            let path = entry?.path();
            let map = MapData::from_pin(&path)?;
            let fd = map.fd().as_fd().as_raw_fd();
            let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
            let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"));
            let bytes = bytes.context("the kernel reports no memory of a map")?.trim().parse()?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            maps.push((name, bytes));
        }
        ensure!(!maps.is_empty(), "the filter has no pinned maps");
        maps.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        Ok(maps)
    }
}

/// Loads an object on the maps pinned in a folder.
fn load(object: &[u8], folder: &Path) -> Result<Ebpf> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::STATS).override_global("REPLAY", &0u32, true);
    for name in &names {
        loader.map_pin_path(name, folder.join(name));
    }
    Ok(loader.load(object)?)
}

fn load_program(object: &mut Ebpf, name: &str) -> Result<()> {
    let program = object.program_mut(name).with_context(|| format!("no program {name}"))?;
    let program: &mut Xdp = program.try_into()?;
    program.load().with_context(|| format!("loading {name}"))
}
