//! `palang config`.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::output::{Format, Output, written};
use crate::config::Config;
use crate::config::limits;
use crate::exit::{Exit, Failure};
use crate::store::reader::Reader;

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
            if let Some(why) = untested_redirect(&config) {
                let message = format!("{}: {why}", file.display());
                return Err(Failure::new(Exit::Usage, message));
            }
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

/// Returns why the daemon would refuse a configuration that is valid: a trunk answers with 302 without a passed test.
fn untested_redirect(config: &Config) -> Option<String> {
    let first = config.redirecting().next()?;
    let store = config.paths.store();
    let untested = if store.exists() {
        Reader::open(&store).and_then(|reader| reader.untested_redirects(config))
    } else {
        Ok(vec![(first.name.clone(), "it was not tested".to_owned())])
    };
    match untested {
        Ok(untested) => {
            let (trunk, why) = untested.first()?;
            Some(format!(
                "refuse = \"302\" of trunk {trunk}: {why}. Set another refuse, and run: palang selftest redirect {trunk}"
            ))
        }
        Err(error) => Some(format!(
            "refuse = \"302\" of trunk {}: whether it was tested is in the store, which cannot be read: {error}; use sudo",
            first.name
        )),
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, format!("cannot show the configuration: {error}"))
}
