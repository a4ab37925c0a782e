//! `palang`: parse, act, and exit with a code that scripts can rely on.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;
use palang::cli::Cli;

fn main() -> ExitCode {
    // clap itself exits with 2 for a wrong command line.
    match Cli::parse().run() {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(failure) => {
            eprintln!("palang: {}", failure.message);
            ExitCode::from(failure.exit as u8)
        }
    }
}
