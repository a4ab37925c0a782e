//! `palang config`.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::print::written;
use crate::config::{self, Config};
use crate::exit::{Exit, Failure};

/// Check or show a configuration file; needs no daemon
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell what a configuration means, or what is wrong with it (exit 2)
    ///
    /// palang config check palang.toml && systemctl reload palang
    Check {
        /// The configuration
        #[arg(value_name = "FILE", default_value = config::PATH)]
        file: PathBuf,
    },
    /// Show a configuration with all that it leaves out
    ///
    /// palang config show -o json
    Show {
        /// The configuration
        #[arg(value_name = "FILE", default_value = config::PATH)]
        file: PathBuf,
        /// How the output looks
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: Format,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people: TOML, with the defaults filled in
    Table,
    /// For programs: the same as one JSON object
    Json,
    /// The file to the letter
    Raw,
}

/// Checks or shows.
///
/// # Errors
/// A file that cannot be read, or that is wrong.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (Command::Check { file } | Command::Show { file, .. }) = &arguments.command;
    let config = Config::read(file).map_err(|error| Failure::new(Exit::Usage, error))?;
    let text = match &arguments.command {
        Command::Check { .. } => {
            let mut text = format!("ok: {}\n", file.display());
            for line in config.meaning() {
                text += &format!("  {line}\n");
            }
            text
        }
        Command::Show { output: Format::Raw, .. } => config.text,
        Command::Show { output: Format::Table, .. } => {
            toml::to_string(&config.shown()).map_err(failed)?
        }
        Command::Show { output: Format::Json, .. } => {
            serde_json::to_string(&config.shown()).map_err(failed)? + "\n"
        }
    };
    written(io::stdout().write_all(text.as_bytes()))
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, format!("cannot show the configuration: {error}"))
}
