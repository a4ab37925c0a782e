//! `palang mode`.

use std::io::{self, Write};

use clap::{Args, ValueEnum};

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::{Mode, SetMode};
use crate::cli::input::options::ChangeOptions;
use crate::cli::input::time;
use crate::cli::output::in_force;
use crate::cli::output::mode::describe;
use crate::cli::output::{self, Answer, Output, known};
use crate::exit::{Exit, Failure};

/// Show or set whether blocked callers are refused or only observed
///
/// palang mode enforce --for 24h
///
/// Without an argument it shows the mode. Setting it needs the role admin.
///
/// Raw: mode, end of enforce.
#[derive(Debug, Args)]
#[command(mut_arg("dry_run", |arg| arg.requires("mode")))]
pub struct Arguments {
    /// The mode to set
    pub(crate) mode: Option<Name>,
    /// How long enforce lasts: 30m, 24h, 7d; the mode is observe after that
    #[arg(long = "for", value_name = "DURATION", value_parser = time::seconds, requires = "mode")]
    pub(crate) seconds: Option<u64>,
    #[command(flatten)]
    pub(crate) change: ChangeOptions,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// Judge and record every call, refuse none
    Observe,
    /// Refuse blocked callers
    Enforce,
}

/// Shows or sets the mode.
///
/// # Errors
/// `Usage` for observe with a duration; otherwise returns an error if the daemon refuses or cannot be reached.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    let path = client::path(&["mode"], &[]);
    let Some(name) = arguments.mode else {
        arguments.output.print(&client.get::<Mode>(&path, client::LONG)?)?;
        return Ok(Exit::Done);
    };
    let mode = match name {
        Name::Observe => "observe",
        Name::Enforce => "enforce",
    };
    if name == Name::Observe && arguments.seconds.is_some() {
        return Err(Failure::new(Exit::Usage, "mode observe has no end: omit --for"));
    }
    let what = SetMode {
        mode: mode.to_owned(),
        seconds: arguments.seconds,
        dry_run: arguments.change.dry_run,
    };
    let now: Mode = client.put(&path, &what, client::LONG)?;
    arguments.output.print(&now)?;
    if arguments.output.is_table() {
        in_force::print_in_force(client, now.dry_run)?;
    }
    output::warn_unless_persisted(&now.persisted, now.dry_run);
    Ok(Exit::Done)
}

impl Answer for Mode {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        let text = describe(self);
        if self.dry_run {
            writeln!(writer, "dry run, nothing was changed")?;
            return writeln!(writer, "mode would be {}", output::clean(&text));
        }
        writeln!(writer, "mode {}", output::clean(&text))
    }

    fn raw(&self) -> Vec<Vec<String>> {
        vec![vec![self.mode.clone(), known(self.until)]]
    }
}
