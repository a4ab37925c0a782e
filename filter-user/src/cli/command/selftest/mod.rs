//! `palang selftest`.

mod redirect;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::api::client::Client;
use crate::bringup::selftest::{self, Call, Outcome, Selftest, Tried};
use crate::cli::output::{self, Answer, Output, known, mode, r#override, thousands};
use crate::config::limits;
use crate::exit::{Exit, Failure};
use crate::sys::netlink;

/// Test whether a blocked caller would be refused now
///
/// palang selftest
///
/// Sends real INVITEs from unassigned numbers through the filter with a copy of the policy in force.
/// Each trunk gets three calls: one blocked, one not blocked, one both blocked and allowed. Two more calls,
/// blocked and not blocked, come in fragments: the second look judges them.
/// All of it runs in a separate network namespace: no live call, map, counter or interface is touched.
/// Also checks that every configured interface has the same filter. Needs root, but no daemon.
///
/// Exit codes, for cron. 0 is armed: only blocked callers are refused. 11 is observing, 12 is
/// overridden, 13 is broken. 1 and 5: the test could not run.
///
/// Raw: one line per item, with its name and its value.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration file of the daemon
    #[arg(long, env = "PALANG_CONFIG", value_name = "FILE", default_value = limits::PATH)]
    config: PathBuf,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Command {
    Redirect(redirect::Arguments),
}

/// Runs the self-test and prints the result.
///
/// # Errors
/// `Refused` without root; `Failed` if the test could not run.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    if let Some(Command::Redirect(redirect)) = &arguments.command {
        return redirect::run(redirect, client);
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::new(Exit::Refused, "the self-test needs root: sudo palang selftest"));
    }
    let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(&error))?;
    let links = runtime
        .block_on(netlink::links())
        .map_err(|error| failed(&format!("cannot list the interfaces: {error}")))?;
    let found = selftest::run(&arguments.config, &links)
        .map_err(|error| failed(&format!("the self-test could not run: {error}")))?;
    arguments.output.print(&found)?;
    Ok(match found.outcome {
        Outcome::Armed => Exit::Done,
        Outcome::Observing => Exit::Observing,
        Outcome::Overridden => Exit::Overridden,
        Outcome::Broken => Exit::Broken,
    })
}

/// Describes an outcome in one line.
fn describe(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Armed => "ARMED       blocked callers are refused, others pass",
        Outcome::Observing => {
            "OBSERVING   blocked callers are only observed and pass (see palang mode, or the trunk's mode)"
        }
        Outcome::Overridden => {
            "OVERRIDDEN  blocked callers pass: the override is on (to end it: palang override off)"
        }
        Outcome::Broken => "BROKEN      the filter does not work as it should",
    }
}

fn call(call: Option<&Call>) -> String {
    let Some(call) = call else { return "-".to_owned() };
    let fate = if call.arrived { "passes" } else { "refused" };
    format!("{fate} ({})", call.reason.as_deref().unwrap_or("?"))
}

fn cells(tried: &Tried) -> Vec<String> {
    vec![
        tried.trunk.clone(),
        tried.outcome.name().to_owned(),
        known(tried.source),
        known(tried.caller.as_ref()),
        call(tried.blocked.as_ref()),
        call(tried.other.as_ref()),
        call(tried.allowed.as_ref()),
        call(tried.blocked_in_fragments.as_ref()),
        call(tried.other_in_fragments.as_ref()),
    ]
}

impl Answer for Selftest {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        writeln!(writer, "{}", describe(self.outcome))?;
        for problem in &self.problems {
            writeln!(writer, "  {}", output::clean(problem))?;
        }
        for note in &self.notes {
            writeln!(writer, "  note: {}", output::clean(note))?;
        }
        writeln!(writer)?;
        let columns = [
            "trunk",
            "",
            "source",
            "caller",
            "blocked",
            "not blocked",
            "blocked, allowed",
            "blocked, in fragments",
            "not blocked, in fragments",
        ];
        let table = output::table(Some(&columns), self.trunks.iter().map(cells));
        writeln!(writer, "{}\n", table.trim_fmt())?;
        let mut field = |label, text: &str| output::field(writer, label, text);
        if let (Some(mode), Some(over)) = (&self.mode, &self.r#override) {
            field("mode", &mode::describe(mode))?;
            field("override", &r#override::describe(over))?;
        }
        if let Some(blocks) = self.blocks {
            field("blocks", &format!("{} in force, not tested one by one", thousands(blocks)))?;
        }
        for (index, interface) in self.interfaces.iter().enumerate() {
            let on = match (&interface.xdp, interface.program, &interface.tag) {
                (Some(xdp), Some(id), Some(tag)) => format!("{xdp} (program {id}, tag {tag})"),
                (Some(_), ..) | (None, ..) => "no filter".to_owned(),
            };
            let label = if index == 0 { "interfaces" } else { "" };
            field(label, &format!("{}: {on}", interface.name))?;
        }
        field("tested", &format!("{} (tag {})", self.version, self.tag))
    }

    fn raw(&self) -> Vec<Vec<String>> {
        let mut lines = vec![
            vec!["outcome".to_owned(), self.outcome.name().to_owned()],
            vec!["version".to_owned(), self.version.clone()],
            vec!["tag".to_owned(), self.tag.clone()],
            vec!["mode".to_owned(), known(self.mode.as_ref().map(|mode| &mode.mode))],
            vec![
                "override".to_owned(),
                known(self.r#override.as_ref().and_then(|over| over.until)),
            ],
            vec!["blocks".to_owned(), known(self.blocks)],
        ];
        let named = |name: &str, text: &String| vec![name.to_owned(), text.clone()];
        lines.extend(self.problems.iter().map(|problem| named("problem", problem)));
        lines.extend(self.notes.iter().map(|note| named("note", note)));
        lines.extend(self.interfaces.iter().map(|interface| {
            vec![
                "interface".to_owned(),
                interface.name.clone(),
                known(interface.xdp.as_ref()),
                known(interface.program),
                known(interface.tag.as_ref()),
                known(interface.problem.as_ref()),
            ]
        }));
        lines.extend(self.trunks.iter().map(|tried| {
            let mut line = vec!["trunk".to_owned()];
            line.extend(cells(tried));
            line
        }));
        lines
    }
}
