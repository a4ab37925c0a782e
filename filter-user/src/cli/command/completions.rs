//! `palang completions`.

use std::io;

use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::{generate, shells};

use crate::cli::{Cli, output};
use crate::exit::{Exit, Failure};

/// Print a script that completes `palang` commands on the Tab key
///
/// palang completions bash > /usr/share/bash-completion/completions/palang
///
/// The packages install these scripts. Needs no daemon.
#[derive(Debug, Args)]
pub struct Arguments {
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
///
/// # Errors
/// `Failed` if standard output cannot be written.
pub fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    output::written(io::Write::write_all(&mut io::stdout(), &script(arguments.shell)))?;
    Ok(Exit::Done)
}

fn script(shell: Shell) -> Vec<u8> {
    let (mut command, mut text) = (Cli::command(), Vec::new());
    match shell {
        Shell::Bash => generate(shells::Bash, &mut command, "palang", &mut text),
        Shell::Zsh => generate(shells::Zsh, &mut command, "palang", &mut text),
        Shell::Fish => generate(shells::Fish, &mut command, "palang", &mut text),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_completes_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = String::from_utf8(script(shell)).unwrap();
            for word in ["override", "what-if", "xdp_mode", "dry-run"] {
                assert_eq!(text.contains(word), word != "xdp_mode", "{shell:?} {word}");
            }
        }
    }
}
