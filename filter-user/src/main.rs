//! `palang`: parses the command line, runs the command, and exits with a code of the contract.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;
use palang::cli::Cli;
use palang::cli::output::clean;

fn main() -> ExitCode {
    // clap itself exits with 2 for a wrong command line.
    match Cli::parse().run() {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(failure) => {
            // A number or a file's name may have control characters, which a terminal obeys.
            for (index, line) in failure.message.lines().enumerate() {
                let begin = if index == 0 { "palang: " } else { "" };
                eprintln!("{begin}{}", clean(line));
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}
