//! `palang callback`.

use clap::Args;

use super::print::Output;
use super::without_daemon::By;
use super::{changed, number};
use crate::client::{self, Client};
use crate::exit::{Exit, Failure};
use crate::wire::{Allow, Callback, Changed};

/// Tell that the centre calls a number, which then passes for a while
///
/// palang callback 0812-3456-7890
///
/// For calls over TCP or TLS; those over UDP are seen as they leave. As long as `grace` in
/// \[callback\] of palang.toml. While no daemon answers: palang allow add NUMBER --for 60m
#[derive(Debug, Args)]
pub struct Arguments {
    /// The number as people write it
    #[arg(value_name = "NUMBER", value_parser = number::given)]
    number: String,
    /// Change nothing, say what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

/// Does what was asked for.
///
/// # Errors
/// The daemon's no, or none to ask.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    let call = Callback { number: arguments.number.clone(), dry_run: arguments.dry_run };
    let path = client::path(&["callback"], &[]);
    let changed: Changed<Allow> = client.post(&path, &call, client::SHORT)?;
    changed::tell(&changed, By::Daemon, client, arguments.output)?;
    Ok(Exit::Done)
}
