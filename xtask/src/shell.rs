//! Running other programs in the open: every command is printed before it runs.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// Returns the top folder of the repository.
pub fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Returns cargo's target folder; this program lies in `target/debug/`.
pub fn target_dir() -> Result<PathBuf> {
    let program = env::current_exe().context("cannot find the path of this program")?;
    let target = program.ancestors().nth(2).context("this program is not in a target folder")?;
    Ok(target.to_path_buf())
}

/// Returns the cargo for everything but the kernel program: the one that runs us.
///
/// Debian's cargo, which the kernel program needs, must not take the place of rustup's: it
/// has neither the toolchain of `rust-toolchain` files nor rustfmt.
pub fn cargo() -> Command {
    let ours = env::var_os("CARGO").map(PathBuf::from);
    let rustup = env::home_dir().map(|home| home.join(".cargo/bin/cargo"));
    let program = match (ours, rustup) {
        (Some(ours), Some(rustup)) if ours.starts_with("/usr/bin") && rustup.exists() => rustup,
        (Some(ours), _) => ours,
        (None, _) => "cargo".into(),
    };
    let mut cargo = Command::new(program);
    cargo.current_dir(root());
    // The variables that `cargo run` sets for xtask itself would make build scripts run again.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&*name);
        }
    }
    cargo
}

/// Prints the command, runs it and fails if it does.
pub fn run(command: &mut Command) -> Result<()> {
    run_as(&show(command), command)
}

/// Runs a command like [`run`], with a readable text for a command that is too long to show.
pub fn run_as(text: &str, command: &mut Command) -> Result<()> {
    eprintln!("\n$ {text}");
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    ensure!(status.success(), "`{text}` failed ({status})");
    Ok(())
}

/// Runs a command, shows what it prints to its standard output, and returns that.
///
/// # Errors
/// Fails if the command cannot be run, or fails.
pub fn run_and_read(command: &mut Command) -> Result<String> {
    let text = show(command);
    eprintln!("\n$ {text}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let mut printed = String::new();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line.with_context(|| format!("`{text}` printed no UTF-8"))?;
            println!("{line}");
            printed += &line;
            printed.push('\n');
        }
    }
    let status = child.wait().with_context(|| format!("`{text}`"))?;
    ensure!(status.success(), "`{text}` failed ({status})");
    Ok(printed)
}

/// Returns the output of a command; its stderr is shown.
pub fn read(command: &mut Command) -> Result<String> {
    let text = show(command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    ensure!(output.status.success(), "`{text}` failed ({})", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("`{text}` printed no UTF-8"))
}

/// Returns a command as a person would type it.
pub fn show(command: &Command) -> String {
    let set = command.get_envs().filter_map(|(name, value)| {
        value.map(|value| format!("{}={}", name.display(), value.display()))
    });
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let arguments = command.get_args().map(|argument| argument.display().to_string());
    let words = set.chain([program.display().to_string()]).chain(arguments);
    words.collect::<Vec<_>>().join(" ")
}

/// Returns whether this process is root's.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Fails unless root, with the reason why it takes root.
pub fn need_root(task: &str, why: &str) -> Result<()> {
    if !is_root() {
        bail!("`cargo xtask {task}` must run as root: {why}");
    }
    Ok(())
}
