//! `palang completions`.

use std::io;

use clap::{Args, Command, ValueEnum};
use clap_complete::{generate, shells};

use crate::cli::output;
use crate::exit::{Exit, Failure};

/// Print a script that completes `palang` commands on the Tab key
///
/// palang completions bash > /usr/share/bash-completion/completions/palang
///
/// The packages install these scripts. Needs no daemon.
#[derive(Debug, Args)]
pub struct Arguments {
    pub(crate) shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script that completes `command`.
///
/// # Errors
/// `Failed` if standard output cannot be written.
pub fn run(arguments: &Arguments, command: Command) -> Result<Exit, Failure> {
    output::written(io::Write::write_all(&mut io::stdout(), &script(arguments.shell, command)))?;
    Ok(Exit::Done)
}

/// Returns the script of a shell that completes `command`.
pub(crate) fn script(shell: Shell, mut command: Command) -> Vec<u8> {
    let mut text = Vec::new();
    match shell {
        Shell::Bash => generate(shells::Bash, &mut command, "palang", &mut text),
        Shell::Zsh => generate(shells::Zsh, &mut command, "palang", &mut text),
        Shell::Fish => generate(shells::Fish, &mut command, "palang", &mut text),
    }
    text
}
