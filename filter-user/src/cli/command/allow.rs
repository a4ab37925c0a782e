//! `palang allow`.

use std::io::{self, Write};

use clap::{ArgGroup, Args, Subcommand};

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::{AddAllow, Allow, IncidentEnded};
use crate::cli::fallback::or_directly;
use crate::cli::input::options::{ChangeOptions, End, Subject};
use crate::cli::input::{number, time};
use crate::cli::output::change;
use crate::cli::output::change::By;
use crate::cli::output::in_force;
use crate::cli::output::{self, Answer, Output, Row, counted, known};
use crate::exit::{Exit, Failure};
use crate::offline;

/// Manage numbers that are never refused
///
/// palang allow add '+62431*' --comment 'Manado, earthquake'
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(Add),
    Remove(Remove),
    List(List),
}

/// Never refuse a number, or a prefix that ends with `*`
///
/// palang allow add '+62431*' --comment 'Manado, earthquake'
///
/// An allow wins over every block. An existing allow gets the new end and comment, but an
/// incident never shortens an allow that lasts longer. Works for root when the daemon does not
/// answer.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("end"))]
#[command(mut_arg("seconds", |arg| arg.help("How long: 30m, 24h, 7d [default: for good]")))]
struct Add {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    end: End,
    /// Reason for the allow
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,
    /// Live incident of this allow: `palang allow remove --incident ID` ends all of its allows
    #[arg(long, value_name = "ID")]
    incident: Option<String>,
    #[command(flatten)]
    change: ChangeOptions,
    #[command(flatten)]
    output: Output,
}

/// Remove an allow
///
/// palang allow remove '+62431*'
///
/// palang allow remove --incident 2026-118
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true))]
struct Remove {
    /// The number or prefix of the allow
    #[arg(value_name = "NUMBER|PREFIX*", group = "which", value_parser = number::given)]
    number: Option<String>,
    /// All allows of this incident
    #[arg(long, value_name = "ID", group = "which")]
    incident: Option<String>,
    #[command(flatten)]
    change: ChangeOptions,
    #[command(flatten)]
    output: Output,
}

/// List all allows
///
/// palang allow list
///
/// Raw: number, end, comment, author, origin, node, created, rule, id, incident.
#[derive(Debug, Args)]
struct List {
    /// Only allows of this incident
    #[arg(long, value_name = "ID")]
    incident: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Runs the `palang allow` command.
///
/// # Errors
/// Returns an error if the daemon refuses; `NoDaemon` if neither it nor the kernel's maps can be used.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Add(add) => {
            let what = AddAllow {
                number: add.subject.number.clone(),
                seconds: add.end.seconds,
                expires: add.end.until,
                comment: add.comment.clone(),
                incident: add.incident.clone(),
                dry_run: add.change.dry_run,
            };
            let answer = client.post(&client::path(&["allows"], &[]), &what, client::SHORT);
            let (changed, by) = or_directly(answer, || offline::add_allow(&what))?;
            change::print(&changed, by, client, add.output)?;
        }
        Command::Remove(remove) => {
            let dry_run = ("dry_run", remove.change.dry_run.then_some("true"));
            if let Some(number) = &remove.number {
                let path = client::path(&["allows", number], &[dry_run]);
                let changed = client.delete(&path, client::LONG)?;
                change::print::<Allow>(&changed, By::Daemon, client, remove.output)?;
            } else {
                let incident = ("incident", remove.incident.as_deref());
                let path = client::path(&["allows"], &[incident, dry_run]);
                let ended: IncidentEnded = client.delete(&path, client::LONG)?;
                remove.output.print(&ended)?;
                if remove.output.is_table() {
                    in_force::print_in_force(client, ended.dry_run)?;
                }
            }
        }
        Command::List(list) => {
            let mut rows = list.output.list();
            let path = client::path(&["allows"], &[("incident", list.incident.as_deref())]);
            let end = client.list(&path, |allow: Allow| rows.row(&allow));
            rows.finish(end)?;
        }
    }
    Ok(Exit::Done)
}

impl Row for Allow {
    const NOUN: &'static str = "allow";
    const COLUMNS: &'static [&'static str] =
        &["number", "until", "incident", "comment", "author", "origin"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.number.clone(),
            self.expires.map_or_else(|| "for good".to_owned(), |end| time::local(end).to_string()),
            self.incident.clone().unwrap_or_default(),
            self.comment.clone(),
            self.author.clone(),
            self.origin.clone(),
        ]
    }

    fn raw(&self) -> Vec<String> {
        vec![
            self.number.clone(),
            known(self.expires),
            self.comment.clone(),
            self.author.clone(),
            self.origin.clone(),
            self.node.clone(),
            self.created.to_string(),
            self.rule.to_string(),
            self.id.to_string(),
            known(self.incident.as_deref()),
        ]
    }
}

impl Answer for IncidentEnded {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        if self.dry_run {
            writeln!(writer, "dry run, nothing was changed")?;
        }
        let verb = if self.dry_run { "would remove" } else { "removed" };
        let count = counted(self.removed.len() as u64, "allow");
        let line = format!("{verb} {count} of incident {}", self.incident);
        writeln!(writer, "{}", output::clean(&line))?;
        self.removed.iter().try_for_each(|allow| {
            let until = output::until(allow.expires, "for good");
            let line = format!("  {}, which was in force {until}", allow.number);
            writeln!(writer, "{}", output::clean(&line))
        })
    }

    fn raw(&self) -> Vec<Vec<String>> {
        self.removed.iter().map(Row::raw).collect()
    }
}
