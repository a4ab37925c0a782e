//! `palang config`.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::output::{Format, Output, written};
use crate::config::Config;
use crate::config::limits;
use crate::exit::{Exit, Failure};

/// Check or show a configuration file; needs no daemon
///
/// palang config check palang.toml
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what a configuration means, or what is wrong with it (exit 2)
    ///
    /// palang config check palang.toml && systemctl reload palang
    Check {
        /// Configuration file
        #[arg(env = "PALANG_CONFIG", value_name = "FILE", default_value = limits::PATH)]
        file: PathBuf,
    },
    /// Show a configuration with every default filled in
    ///
    /// palang config show -o json
    ///
    /// Raw: the file exactly as it is.
    Show {
        /// Configuration file
        #[arg(env = "PALANG_CONFIG", value_name = "FILE", default_value = limits::PATH)]
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
}

/// Runs the `palang config` command.
///
/// # Errors
/// `Usage` if the file cannot be read or is not valid; `Failed` if it cannot be printed.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (Command::Check { file } | Command::Show { file, .. }) = &arguments.command;
    let config = Config::read(file).map_err(|error| Failure::new(Exit::Usage, error))?;
    let text = match &arguments.command {
        Command::Check { .. } => {
            let mut text = format!("ok: {}\n", file.display());
            for line in config.summary() {
                text += &format!("  {line}\n");
            }
            text
        }
        Command::Show { output, .. } => match output.format {
            Format::Table => toml::to_string(&config.effective()).map_err(failed)?,
            Format::Json => serde_json::to_string(&config.effective()).map_err(failed)? + "\n",
            Format::Raw => config.text,
        },
    };
    written(io::stdout().write_all(text.as_bytes()))
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, format!("cannot show the configuration: {error}"))
}
