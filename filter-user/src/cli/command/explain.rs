//! `palang explain`.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::Explain;
use crate::cli::input::options::Caller;
use crate::cli::output::strikes::Strikes;
use crate::cli::output::{self, Answer, Output, known};
use crate::exit::{Exit, Failure};

/// Show which rule decides on a number, who set it, and what the kernel's maps hold
///
/// palang explain 0812-3456-7890
///
/// The steps are in the kernel's order; `=>` marks the step that decided. The reports that count
/// against the number follow.
///
/// Raw: one line per step with its name, kernel, store, and `yes` for the step that decided.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    caller: Caller,
    #[command(flatten)]
    output: Output,
}

/// Prints the explanation for a number.
///
/// # Errors
/// Returns an error if the daemon refuses or cannot be reached.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    let path = client::path(&["explain", &arguments.caller.number], &[]);
    let explain = client.get::<Explain>(&path, client::LONG)?;
    let strikes = Strikes::of(client, &arguments.caller.number)?;
    arguments.output.print(&Explained { explain, strikes })?;
    Ok(Exit::Done)
}

/// Holds the rule that decides and the reports that count against the number.
#[derive(Serialize)]
struct Explained {
    #[serde(flatten)]
    explain: Explain,
    #[serde(flatten)]
    strikes: Strikes,
}

impl Answer for Explained {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        self.explain.write_table(writer)?;
        self.strikes.write_table(writer)
    }

    fn raw(&self) -> Vec<Vec<String>> {
        self.explain.raw()
    }
}

impl Answer for Explain {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        self.check.write_table(writer)?;
        let rows = self.steps.iter().map(|step| {
            let mark = if step.decides { "=>" } else { "" };
            let kernel = known(step.kernel.as_ref());
            vec![mark.to_owned(), step.step.clone(), kernel, known(step.store.as_ref())]
        });
        let columns = ["", "step", "kernel", "store"];
        writeln!(writer, "\n{}", output::table(Some(&columns), rows).trim_fmt())
    }

    fn raw(&self) -> Vec<Vec<String>> {
        let fields = |step: &crate::api::wire::Step| {
            let decides = if step.decides { "yes" } else { "-" };
            let kernel = known(step.kernel.as_ref());
            vec![step.step.clone(), kernel, known(step.store.as_ref()), decides.to_owned()]
        };
        self.steps.iter().map(fields).collect()
    }
}
