//! `palang callback`.

use clap::Args;

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::{Allow, Callback, Changed};
use crate::cli::input::options::{Caller, ChangeOptions};
use crate::cli::output::Output;
use crate::cli::output::change;
use crate::cli::output::change::By;
use crate::exit::{Exit, Failure};

/// Report that the centre calls a number, so that its calls pass for a while
///
/// palang callback 0812-3456-7890
///
/// Needed for calls over TCP or TLS; calls over UDP are detected as they leave. It lasts as long as
/// `grace` in \[callback\] of palang.toml. If no daemon answers: palang allow add NUMBER --for 60m
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    caller: Caller,
    #[command(flatten)]
    change: ChangeOptions,
    #[command(flatten)]
    output: Output,
}

/// Runs the `palang callback` command.
///
/// # Errors
/// Returns an error if the daemon refuses or cannot be reached.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    let call =
        Callback { number: arguments.caller.number.clone(), dry_run: arguments.change.dry_run };
    let path = client::path(&["callback"], &[]);
    let changed: Changed<Allow> = client.post(&path, &call, client::SHORT)?;
    change::print(&changed, By::Daemon, client, arguments.output)?;
    Ok(Exit::Done)
}
