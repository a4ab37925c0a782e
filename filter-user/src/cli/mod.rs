//! The command line: one file for each command.

pub mod config;
pub mod daemon;
pub mod doctor;
pub mod hints;
pub mod output;
pub mod replay;

use clap::{Parser, Subcommand};

use crate::exit::Failure;

/// The caller gate for emergency call centres.
#[derive(Debug, Parser)]
#[command(name = "palang", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Config(config::Arguments),
    Daemon(daemon::Arguments),
    Doctor(doctor::Arguments),
    Replay(replay::Arguments),
}

impl Cli {
    /// Does what was asked for.
    ///
    /// # Errors
    /// The failure to tell and to exit with.
    pub fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Config(arguments) => config::run(&arguments),
            Command::Daemon(arguments) => daemon::run(&arguments),
            Command::Doctor(arguments) => doctor::run(&arguments),
            Command::Replay(arguments) => replay::run(&arguments),
        }
    }
}
