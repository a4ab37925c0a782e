//! `palang plan`.

pub(crate) mod check;
pub(crate) mod explain;
pub(crate) mod show;
pub(crate) mod which;

use clap::{Args, Subcommand};

use crate::api::client::Client;
use crate::exit::{Exit, Failure};

/// Show the numbering plans of the trunks, how they read a text, and how well they fit
///
/// palang plan explain 0812-3456-7890
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Show(show::Arguments),
    Explain(explain::Arguments),
    Check(check::Arguments),
}

/// Runs the `palang plan` command.
///
/// # Errors
/// `Usage` if the configuration is not valid, or has no such trunk or country; `Failed` or `Partly` if a
/// capture cannot be read. Returns an error if the records are needed and the daemon refuses or cannot be reached.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Show(arguments) => show::run(arguments),
        Command::Explain(arguments) => explain::run(arguments),
        Command::Check(arguments) => check::run(arguments, client),
    }
}
