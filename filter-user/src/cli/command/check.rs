//! `palang check`.

use std::io::{self, Write};

use clap::Args;

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::Check;
use crate::cli::input::options::Caller;
use crate::cli::output::{self, Answer, Output, known};
use crate::exit::{Exit, Failure};

/// Check whether a call from a number passes now: exit 0 yes, 10 it would be refused
///
/// palang check 0812-3456-7890 && echo passes
///
/// With the override on, or in mode observe, every call passes; -o json also has the verdict of the policy.
///
/// Raw: number, verdict, policy verdict, reason, rule, mode, end of the override.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    caller: Caller,
    #[command(flatten)]
    output: Output,
}

/// Prints the verdict for a number.
///
/// # Errors
/// Returns an error if the daemon refuses or cannot be reached.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    let path = client::path(&["check", &arguments.caller.number], &[]);
    let check: Check = client.get(&path, client::LONG)?;
    arguments.output.print(&check)?;
    Ok(if check.verdict == "pass" { Exit::Done } else { Exit::WouldBeRefused })
}

impl Answer for Check {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        let line = format!("{}: {}", self.number, output::outcome(self));
        writeln!(writer, "{}", output::clean(&line))
    }

    fn raw(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.number.clone(),
            self.verdict.clone(),
            self.policy_verdict.clone(),
            self.reason.clone(),
            known(self.rule.as_ref()),
            self.mode.clone(),
            known(self.override_until),
        ]]
    }
}
