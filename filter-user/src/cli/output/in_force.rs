//! Describes what the gate does now.

use std::io::{self, Write};

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::{Mode, Override, Status};
use crate::cli::output;
use crate::exit::Failure;

/// Requests the status from the daemon.
///
/// # Errors
/// Returns an error if the daemon refuses or cannot be reached.
pub fn ask(client: &Client) -> Result<Status, client::Error> {
    client.get(&client::path(&["status"], &[]), client::SHORT)
}

/// Describes what the gate does with blocked callers now; `None` if the daemon does not answer.
#[must_use]
pub fn in_force(client: &Client) -> Option<String> {
    let status = ask(client).ok()?;
    Some(gate(&status.mode, &status.r#override))
}

/// Prints what the gate does now, after a change whose answer does not include it.
///
/// # Errors
/// `Failed` if the output cannot be written.
pub fn print_in_force(client: &Client, dry_run: bool) -> Result<(), Failure> {
    let Some(gate) = in_force(client) else { return Ok(()) };
    let now = if dry_run { " now" } else { "" };
    output::written(writeln!(io::stdout(), "in force{now}: {}", output::clean(&gate)))
}

pub(crate) fn gate(mode: &Mode, over: &Override) -> String {
    if over.until.is_some() {
        return format!("override {}: no call is refused", output::until(over.until, "on"));
    }
    let does = match mode.mode.as_str() {
        "enforce" => "blocked callers are refused",
        _ => "no call is refused",
    };
    format!("mode {}: {does}", mode.mode)
}
