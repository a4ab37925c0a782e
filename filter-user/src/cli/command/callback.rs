//! `palang callback`.

use clap::Args;

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::{Allow, Callback, Changed};
use crate::cli::input::number;
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
    /// The number in any usual spelling
    #[arg(value_name = "NUMBER", value_parser = number::given)]
    number: String,
    /// Change nothing, only show what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

/// Runs the `palang callback` command.
///
/// # Errors
/// Returns an error if the daemon refuses or cannot be reached.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    let call = Callback { number: arguments.number.clone(), dry_run: arguments.dry_run };
    let path = client::path(&["callback"], &[]);
    let changed: Changed<Allow> = client.post(&path, &call, client::SHORT)?;
    change::tell(&changed, By::Daemon, client, arguments.output)?;
    Ok(Exit::Done)
}
