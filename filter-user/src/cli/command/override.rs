//! `palang override`: the emergency switch.

use std::io::{self, Write};

use clap::{Args, Subcommand};

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::{Override, SetOverride};
use crate::cli::fallback::or_directly;
use crate::cli::input::options::{ChangeOptions, Reason};
use crate::cli::input::time;
use crate::cli::output::change::By;
use crate::cli::output::in_force;
use crate::cli::output::r#override::describe;
use crate::cli::output::{self, Answer, Output, known};
use crate::exit::{Exit, Failure};
use crate::offline;

/// Let every call through for a set time
///
/// palang override on --for 30m --reason 'flood in the city'
///
/// Works for root when the daemon does not answer.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    On(On),
    Off(Off),
    Status(Show),
}

/// Refuse nothing for a set time
///
/// palang override on --for 30m --reason 'flood in the city'
///
/// An override that is already on gets the new end and reason.
#[derive(Debug, Args)]
pub(crate) struct On {
    /// How long: 30m, 24h, 7d
    #[arg(long = "for", value_name = "DURATION", value_parser = time::seconds)]
    pub(crate) seconds: u64,
    #[command(flatten)]
    pub(crate) reason: Reason,
    #[command(flatten)]
    pub(crate) change: ChangeOptions,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// End the override
///
/// palang override off
#[derive(Debug, Args)]
pub(crate) struct Off {
    #[command(flatten)]
    pub(crate) change: ChangeOptions,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Show whether the override is on, until when, and why
///
/// palang override status
///
/// Raw: end, reason, author.
#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Runs the `palang override` command.
///
/// # Errors
/// Returns an error if the daemon refuses; `NoDaemon` if neither it nor the kernel's maps can be used.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::On(on) => {
            let what = SetOverride {
                seconds: on.seconds,
                reason: on.reason.reason.clone(),
                dry_run: on.change.dry_run,
            };
            set(&what, client, on.output)?;
        }
        Command::Off(off) => {
            let what =
                SetOverride { seconds: 0, reason: String::new(), dry_run: off.change.dry_run };
            set(&what, client, off.output)?;
        }
        Command::Status(show) => {
            let answer = client.get(&client::path(&["override"], &[]), client::SHORT);
            show.output.print(&or_directly(answer, offline::get_override)?.0)?;
        }
    }
    Ok(Exit::Done)
}

fn set(what: &SetOverride, client: &Client, output: Output) -> Result<(), Failure> {
    let answer = client.put(&client::path(&["override"], &[]), what, client::SHORT);
    let (now, by) = or_directly(answer, || offline::set_override(what))?;
    output.print(&now)?;
    if output.is_table() && now.until.is_none() && by == By::Daemon {
        in_force::print_in_force(client, now.dry_run)?;
    }
    output::warn_unless_persisted(&now.persisted, now.dry_run);
    Ok(())
}

impl Answer for Override {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        let text = describe(self);
        if self.dry_run {
            writeln!(writer, "dry run, nothing was changed")?;
            return writeln!(writer, "override would be {}", output::clean(&text));
        }
        writeln!(writer, "override {}", output::clean(&text))?;
        if self.until.is_some() {
            writeln!(writer, "in force: no call is refused until then")?;
        }
        Ok(())
    }

    fn raw(&self) -> Vec<Vec<String>> {
        vec![vec![known(self.until), known(self.reason.as_ref()), known(self.author.as_ref())]]
    }
}
