//! Running programs that may hang.

use std::path::Path;
use std::process::Command;

/// Longest that [`run`] waits, in seconds: an import of a million rows on a busy machine.
const LONGEST: &str = "300";

/// The output of a program.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit code; 124 when it took too long, -1 when a signal ended it.
    pub code: i32,
    /// Standard output; what is not UTF-8 is replaced.
    pub stdout: String,
    /// Standard error; what is not UTF-8 is replaced.
    pub stderr: String,
}

/// Runs a command to its end, at most 300 s.
///
/// # Panics
/// When the program is not there.
pub fn run(command: &mut Command) -> Output {
    let mut bounded = Command::new("timeout");
    bounded.args(["--kill-after=5", LONGEST]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bounded.env(name, value),
            None => bounded.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        bounded.current_dir(folder);
    }
    let output = bounded.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let output = Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    assert!(output.code != 127, "{command:?}: {}", output.stderr);
    output
}

/// Runs a command that has to succeed; its standard output.
///
/// # Panics
/// When it does not.
pub fn must(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.code == 0, "{command:?}: exit {}: {}", output.code, output.stderr);
    output.stdout
}

/// Copies a program that a test runs. `cp` writes the copy: a process that another test starts meanwhile
/// would inherit the open file. The kernel refuses to run a file that is open for writing.
///
/// # Panics
/// When `cp` fails.
pub fn copy_program(from: &Path, to: &Path) {
    must(Command::new("cp").arg("--preserve=mode").args([from, to]));
}
