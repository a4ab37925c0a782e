//! The one way to compile the kernel program (`filter-ebpf`).
//!
//! `cargo xtask` has this file as a module and `filter-ebpf/embed.rs` includes it by path,
//! so it uses nothing but the standard library.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// The name that `rustc` gives the kernel's little-endian virtual machine.
pub const TARGET: &str = "bpfel-unknown-none";

// rustc and bpf-linker are a pair: the linker reads rustc's LLVM bitcode. It dies by SIGABRT when
// its own LLVM is older (0.10.1 did on the bitcode of rustc 1.96). Change these together.
/// The bpf-linker that is known to work.
pub const BPF_LINKER: &str = "0.13.0";
/// The LLVM that this bpf-linker is built with, and the one that rustc must have.
pub const LLVM: u32 = 22;
/// The oldest rustc that is known to work: (1, 96) is the first with LLVM 22.
pub const RUSTC: (u32, u32) = (1, 96);

/// The object of the filter.
pub const FILTER: &str = "filter-ebpf";
/// The object of what `cargo xtask bench kernel` times it beside.
pub const BENCH: &str = "bench";
/// The object of what `cargo xtask bench peers` and `goodput` flood with.
pub const FLOOD: &str = "flood";

/// Set to 1, it compiles the debug logging of `filter-ebpf` in.
pub const LOG_VARIABLE: &str = "PALANG_EBPF_LOG";

/// rustc flags of every build of the kernel program, besides the linker.
const FLAGS: [&str; 4] = [
    // BTF is made from debug info, and the kernel wants BTF for callbacks.
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    // 32-bit jumps and registers (Linux 5.1): fewer instructions.
    "-Ctarget-cpu=v3",
    "-Cpanic=abort",
];

/// Where the compiled `core` of the kernel target comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Core {
    /// The compiler's package ships it (Debian's libstd-rust-web-dev-bpf).
    Shipped,
    /// Built from the rust-src component of rustup's nightly.
    FromSource,
}

/// A compiler and a linker that fit together.
pub struct Toolchain {
    /// The folder with `cargo`, `rustc` and perhaps `cargo-clippy`.
    bin: PathBuf,
    core: Core,
    sysroot: PathBuf,
    linker: PathBuf,
    /// "rustc 1.96.0 (LLVM 22.1.8)"
    rustc_version: String,
}

/// Why this machine cannot compile the kernel program: no compiler fits, no linker fits, or both.
#[derive(Debug)]
pub struct Missing {
    /// Debian's compiler and rustup's.
    compilers: Option<Box<[Unfit; 2]>>,
    linker: Option<Unfit>,
}

impl Error for Missing {}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cannot compile the kernel program (filter-ebpf):")?;
        if let Some([debian, nightly]) = self.compilers.as_deref() {
            writeln!(f, "  Debian's compiler: {debian}\n  rustup's nightly: {nightly}")?;
        }
        match &self.linker {
            Some(linker) => writeln!(f, "  bpf-linker: {linker}, need {BPF_LINKER}"),
            None => Ok(()),
        }
    }
}

/// Why a compiler or a linker does not fit. Its text includes the cause.
#[derive(Debug)]
pub enum Unfit {
    /// No file of its name is at the usual places.
    NotFound,
    /// The folder has no `rustc` or no `cargo`.
    NoCompiler(PathBuf),
    /// This `rustc` has no compiled `core` for the kernel's virtual machine.
    NoCore(PathBuf),
    /// The source of `core` is missing.
    NoSource,
    /// This `rustc` does not print a field of its version.
    NoField(PathBuf, &'static str),
    /// This `rustc` is too old, or has another LLVM: its release and LLVM.
    Compiler(PathBuf, String, String),
    /// This linker has another version.
    Linker(PathBuf, String),
    /// The program cannot be started.
    NotRun(String, io::Error),
    /// The program failed; the first line of its messages.
    Failed(String, ExitStatus, String),
}

impl Error for Unfit {}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::NotFound => write!(f, "not found"),
            Unfit::NoCompiler(bin) => write!(f, "no rustc and cargo in {}", bin.display()),
            Unfit::NoCore(rustc) => {
                write!(f, "{} has no core library for {TARGET}", rustc.display())
            }
            Unfit::NoSource => write!(f, "the component rust-src is missing"),
            Unfit::NoField(rustc, name) => {
                write!(f, "{} -vV does not print its {name}", rustc.display())
            }
            Unfit::Compiler(rustc, release, llvm) => write!(
                f,
                "{} is {release} with LLVM {llvm}, need {}.{} or newer with LLVM {LLVM}",
                rustc.display(),
                RUSTC.0,
                RUSTC.1
            ),
            Unfit::Linker(linker, version) => write!(f, "{} is {version}", linker.display()),
            Unfit::NotRun(program, error) => write!(f, "cannot run {program}: {error}"),
            Unfit::Failed(program, status, reason) => {
                write!(f, "{program} failed ({status}): {reason}")
            }
        }
    }
}

/// Finds what compiles the kernel program: Debian's packages or, failing that, rustup's nightly.
///
/// # Errors
/// [`Missing`] if no compiler or no linker fits.
pub fn find() -> Result<Toolchain, Missing> {
    let compiler =
        debian().or_else(|debian| nightly().map_err(|nightly| Box::new([debian, nightly])));
    match (compiler, find_linker()) {
        (Ok((bin, core, sysroot, rustc_version)), Ok(linker)) => {
            Ok(Toolchain { bin, core, sysroot, linker, rustc_version })
        }
        (compiler, linker) => Err(Missing { compilers: compiler.err(), linker: linker.err() }),
    }
}

/// Returns the places that change when one of the programs that [`find`] looks for is installed.
pub fn places() -> Vec<PathBuf> {
    let linker = cargo_home().map(|home| home.join("bin"));
    [Some("/usr/bin/rustc".into()), Some("/usr/lib/rustlib".into()), linker]
        .into_iter()
        .flatten()
        .collect()
}

impl Toolchain {
    /// Returns the name of this pair: "rustc 1.96.0 (LLVM 22.1.8), bpf-linker 0.13.0".
    pub fn name(&self) -> String {
        format!("{}, bpf-linker {BPF_LINKER}", self.rustc_version)
    }

    /// Returns the files whose change means that the object is out of date.
    pub fn programs(&self) -> [PathBuf; 2] {
        [self.bin.join("rustc"), self.linker.clone()]
    }

    /// Returns the command that compiles an object of the workspace at `root`. The object lies at
    /// [`object_in`] of the same `target_dir`.
    pub fn build(&self, object: &str, root: &Path, target_dir: &Path) -> Command {
        let mut command = self.cargo(&self.bin.join("cargo"), "build", root, target_dir);
        command.args(["--bin", object]);
        command
    }

    /// Returns whether [`Toolchain::clippy`] can work.
    pub fn has_clippy(&self) -> bool {
        self.bin.join("cargo-clippy").exists()
    }

    /// Returns the command that runs clippy on the kernel program, if this toolchain has clippy.
    pub fn clippy(&self, root: &Path, target_dir: &Path) -> Option<Command> {
        let clippy = self.bin.join("cargo-clippy");
        self.has_clippy().then(|| self.cargo(&clippy, "clippy", root, target_dir))
    }

    fn cargo(&self, program: &Path, subcommand: &str, root: &Path, target_dir: &Path) -> Command {
        let mut command = Command::new(program);
        clean_environment(&mut command);
        let linker = format!("-Clinker={}", self.linker.display());
        let flags = [linker].into_iter().chain(FLAGS.map(str::to_owned));
        let flags: Vec<_> = flags.chain(remap(root, &self.sysroot)).collect();
        command
            .current_dir(root)
            // For cargo-clippy, which runs cargo.
            .env("CARGO", self.bin.join("cargo"))
            .env("RUSTC", self.bin.join("rustc"))
            // The inline assembler for BPF is not stable.
            .env("RUSTC_BOOTSTRAP", "1")
            // Empty: a wrapper in the user's cargo configuration is not used either.
            .env("RUSTC_WRAPPER", "")
            // Beats flags in the user's cargo configuration and may hold paths with spaces.
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .args([subcommand, "--release", "--locked", "--package", "filter-ebpf"])
            .args(["--target", TARGET, "--target-dir"])
            .arg(target_dir);
        if self.core == Core::FromSource {
            command.args(["-Z", "build-std=core"]);
        }
        if has_log() {
            command.args(["--features", "log"]);
        }
        command
    }
}

/// Returns whether the kernel program is to log every judgement, for debugging.
pub fn has_log() -> bool {
    env::var_os(LOG_VARIABLE).is_some_and(|value| value == "1")
}

/// Returns the path at which [`Toolchain::build`] puts an object.
pub fn object_in(target_dir: &Path, object: &str) -> PathBuf {
    target_dir.join(TARGET).join("release").join(object)
}

/// Returns the linker of the pinned version, in PATH or where `cargo install` puts it.
///
/// # Errors
/// [`Unfit::NotFound`], or why the last one that was found does not fit.
pub fn find_linker() -> Result<PathBuf, Unfit> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders =
        cargo_home().map(|home| home.join("bin")).into_iter().chain(env::split_paths(&path));
    let mut unfit = Unfit::NotFound;
    for linker in folders.map(|folder| folder.join("bpf-linker")) {
        if !linker.is_file() {
            continue;
        }
        match output(Command::new(&linker).arg("--version")) {
            Ok(version) if version.trim() == format!("bpf-linker {BPF_LINKER}") => {
                return Ok(linker);
            }
            Ok(version) => unfit = Unfit::Linker(linker, version.trim().to_owned()),
            Err(error) => unfit = error,
        }
    }
    Err(unfit)
}

/// Returns flags of rustc that put the same names in the place of this machine's folders. So the
/// object and the binary are the same in every folder.
pub fn remap(root: &Path, sysroot: &Path) -> Vec<String> {
    folders(root, sysroot).map(|(from, to)| format!("--remap-path-prefix={from}={to}")).collect()
}

/// Folders of this machine that source comes from, and what they are called in what is built.
pub fn folders(root: &Path, sysroot: &Path) -> impl Iterator<Item = (String, &'static str)> {
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let library = sysroot.join("lib/rustlib/src/rust");
    let folders = [
        (cargo_home(), "/usr/src/cargo"),
        (Some(library), "/usr/src/rust"),
        (Some(root), "/usr/src/palang"),
    ];
    folders.into_iter().filter_map(|(from, to)| Some((from?.display().to_string(), to)))
}

fn cargo_home() -> Option<PathBuf> {
    let set = env::var_os("CARGO_HOME").map(PathBuf::from);
    set.or_else(|| env::home_dir().map(|home| home.join(".cargo")))
}

/// Finds Debian's `rustc-web`, which brings a compiled `core` for BPF in a package.
fn debian() -> Result<(PathBuf, Core, PathBuf, String), Unfit> {
    let bin = PathBuf::from("/usr/bin");
    if !bin.join("rustc").exists() || !bin.join("cargo").exists() {
        return Err(Unfit::NoCompiler(bin));
    }
    let version = check_rustc(&bin)?;
    let sysroot = output(Command::new(bin.join("rustc")).args(["--print", "sysroot"]))?;
    let sysroot = PathBuf::from(sysroot.trim());
    let core = sysroot.join("lib/rustlib").join(TARGET);
    if !core.exists() {
        return Err(Unfit::NoCore(bin.join("rustc")));
    }
    Ok((bin, Core::Shipped, sysroot, version))
}

/// Finds rustup's nightly with the source of `core`.
fn nightly() -> Result<(PathBuf, Core, PathBuf, String), Unfit> {
    let mut rustc = Command::new("rustup");
    clean_environment(&mut rustc);
    rustc.args(["run", "nightly", "rustc", "--print", "sysroot"]);
    let sysroot = output(&mut rustc)?;
    let sysroot = PathBuf::from(sysroot.trim());
    let bin = sysroot.join("bin");
    let version = check_rustc(&bin)?;
    if !sysroot.join("lib/rustlib/src/rust/library/core").exists() {
        return Err(Unfit::NoSource);
    }
    Ok((bin, Core::FromSource, sysroot, version))
}

/// Returns the version of the `rustc` in a folder, if it fits.
fn check_rustc(bin: &Path) -> Result<String, Unfit> {
    let rustc = bin.join("rustc");
    let text = output(Command::new(&rustc).arg("-vV"))?;
    let field = |name| {
        let found = text.lines().find_map(|line| line.strip_prefix(name));
        found.ok_or_else(|| Unfit::NoField(rustc.clone(), name))
    };
    let (release, llvm) = (field("release: ")?, field("LLVM version: ")?);
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    let mut parts = release.split('.');
    let version = (number(parts.next()), number(parts.next()));
    if version < RUSTC || number(llvm.split('.').next()) != LLVM {
        let (release, llvm) = (release.to_owned(), llvm.to_owned());
        return Err(Unfit::Compiler(rustc, release, llvm));
    }
    Ok(format!("rustc {release} (LLVM {llvm})"))
}

/// Removes what an outer cargo, rustup or clippy said about *its* compiler and target: the
/// inner one has another compiler and another target.
pub fn clean_environment(command: &mut Command) {
    // Where crates come from and how cargo talks is the same inside.
    const KEPT: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "CARGO_MAKEFLAGS",
    ];
    const STARTS: [&str; 4] = ["CARGO", "RUSTC", "RUSTDOC", "CLIPPY_"];
    const WHOLE: [&str; 3] = ["RUSTFLAGS", "RUSTUP_TOOLCHAIN", "__CARGO_DEFAULT_LIB_METADATA"];
    let foreign = |name: &OsString| {
        let name = name.to_string_lossy();
        WHOLE.contains(&&*name)
            || STARTS.iter().any(|start| name.starts_with(start))
                && !KEPT.iter().any(|kept| name.starts_with(kept))
    };
    for (name, _) in env::vars_os().filter(|(name, _)| foreign(name)) {
        command.env_remove(name);
    }
}

/// Returns the output of a program.
fn output(command: &mut Command) -> Result<String, Unfit> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return Err(Unfit::NotRun(program, error)),
    };
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let reason = stderr.lines().next().unwrap_or("no reason given");
        return Err(Unfit::Failed(program, output.status, reason.to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
