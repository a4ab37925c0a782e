//! `palang check`.

use std::io::{self, Write};

use clap::Args;

use super::number;
use super::print::{self, Answer, Output, known};
use crate::client::{self, Client};
use crate::exit::{Exit, Failure};
use crate::wire::Check;

/// Check whether a call from a number passes now: exit 0 yes, 10 it would be refused
///
/// palang check 0812-3456-7890 && echo passes
///
/// With the override on, or in mode observe, every call passes; -o json also has the verdict of the policy.
///
/// Raw: number, verdict, would, reason, rule, mode, end of the override.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The caller number in any usual spelling
    #[arg(value_parser = number::given)]
    number: String,
    #[command(flatten)]
    output: Output,
}

/// Prints the verdict for a number.
///
/// # Errors
/// Returns an error if the daemon refuses or cannot be reached.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    let path = client::path(&["check", &arguments.number], &[]);
    let check: Check = client.get(&path, client::LONG)?;
    arguments.output.tell(&check)?;
    Ok(if check.verdict == "pass" { Exit::Done } else { Exit::WouldBeRefused })
}

impl Answer for Check {
    fn people(&self, writer: &mut dyn Write) -> io::Result<()> {
        let line = format!("{}: {}", self.number, print::outcome(self));
        writeln!(writer, "{}", print::clean(&line))
    }

    fn raw(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.number.clone(),
            self.verdict.clone(),
            self.would.clone(),
            self.reason.clone(),
            known(self.rule.as_ref()),
            self.mode.clone(),
            known(self.override_until),
        ]]
    }
}
