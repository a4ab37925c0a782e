//! `palang block`.

pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod lines;
pub(crate) mod own_settings;
pub(crate) mod row_reader;
pub(crate) mod row_writer;
pub(crate) mod rows;

use std::io::{self, Write};
use std::ops::ControlFlow;

use clap::{ArgGroup, Args, Subcommand};
use serde::Serialize;

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::{AddBlock, Block, Changed};

use crate::cli::input::agreement;
use crate::cli::input::options::{ChangeOptions, End, Reason, Subject};
use crate::cli::input::time;
use crate::cli::output::change;
use crate::cli::output::change::By;
use crate::cli::output::strikes::Strikes;
use crate::cli::output::{self, Answer, Output, Row, known};
use crate::exit::{Exit, Failure};
use crate::model::redial::RedialPolicy;
use crate::model::refuse::Refuse;

/// Block and unblock numbers
///
/// palang block add 0812-3456-7890 --for 24h --reason 'prank, case 118'
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
    Show(Show),
    Import(import::Arguments),
    Export(export::Arguments),
}

/// Block a number, or a prefix that ends with `*`
///
/// palang block add 0812-3456-7890 --for 24h --reason 'prank, case 118'
///
/// On a terminal, a prefix shows its callers of the last 7 days and asks. An existing block gets the new end and reason. A blocked caller who keeps calling is let
/// through as `[redial]` in palang.toml says; --redial and --no-redial override it for this block.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("end").required(true))]
struct Add {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    end: End,
    /// No end; needs the role admin
    #[arg(long, group = "end")]
    permanent: bool,
    #[command(flatten)]
    reason: Reason,
    /// Refuse nothing, only record what would be refused
    #[arg(long)]
    observe: bool,
    /// Let the caller through at the 3rd attempt within 10 min, for 30 min
    #[arg(long, value_name = "3/10m/30m")]
    redial: Option<RedialPolicy>,
    /// Never let the caller through for calling repeatedly, not even in an emergency
    #[arg(long, conflicts_with = "redial")]
    no_redial: bool,
    /// Answer on a trunk that answers: 600, 486, 603, 403, 480; drop: no answer [default: as the trunk]
    #[arg(long, value_name = "CODE|drop", value_parser = Refuse::parse)]
    refuse: Option<Refuse>,
    /// Change nothing if the number is already blocked
    #[arg(long)]
    if_absent: bool,
    /// Do not ask before a prefix is blocked
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    change: ChangeOptions,
    #[command(flatten)]
    output: Output,
}

/// Remove a block
///
/// palang block remove 0812-3456-7890
///
/// Exit 4 if the number has no block of its own, even if a prefix blocks it.
#[derive(Debug, Args)]
struct Remove {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    change: ChangeOptions,
    #[command(flatten)]
    output: Output,
}

/// List all blocks
///
/// palang block list -o json | jq -r .number
///
/// Raw columns: number, end, refuse or observe, reason, author, origin, node, created, rule, id, redial.
#[derive(Debug, Args)]
struct List {
    /// Only blocks of this origin; `auto`: blocks that no person set
    #[arg(long, value_name = "operator|import|direct|ladder|auto")]
    origin: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Show a block and the reports that count against its number
///
/// palang block show 0812-3456-7890
///
/// `palang explain` shows which rule decides on a call from this number.
#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    output: Output,
}

/// Runs the `palang block` command.
///
/// # Errors
/// Returns an error if the daemon refuses or cannot be reached.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Add(add) => {
            let what = AddBlock {
                number: add.subject.number.clone(),
                seconds: add.end.seconds,
                expires: add.end.until,
                permanent: add.permanent,
                reason: add.reason.reason.clone(),
                observe: add.observe,
                redial: add.redial,
                no_redial: add.no_redial,
                refuse: add.refuse.map(Refuse::name),
                if_absent: add.if_absent,
                dry_run: add.change.dry_run,
            };
            let path = client::path(&["blocks"], &[]);
            if add.subject.number.ends_with('*')
                && !(add.yes || add.change.dry_run)
                && agreement::is_possible()
            {
                let asked = AddBlock { dry_run: true, ..what.clone() };
                let impact: Changed<Block> = client.post(&path, &asked, client::LONG)?;
                for note in &impact.notes {
                    eprintln!("{}", output::clean(note));
                }
                if !agreement::agreed()? {
                    return Err(Failure::new(
                        Exit::Refused,
                        "nothing was changed: you did not agree",
                    ));
                }
            }
            let changed = client.post(&path, &what, client::LONG)?;
            change::print::<Block>(&changed, By::Daemon, client, add.output)?;
        }
        Command::Remove(remove) => {
            let query = [("dry_run", remove.change.dry_run.then_some("true"))];
            let path = client::path(&["blocks", &remove.subject.number], &query);
            let changed = client.delete(&path, client::LONG)?;
            change::print::<Block>(&changed, By::Daemon, client, remove.output)?;
        }
        Command::List(list) => {
            let mut rows = list.output.list();
            let end = client.list(&client::path(&["blocks"], &[]), |block: Block| {
                let wanted = list.origin.as_ref().is_none_or(|origin| came_by(&block, origin));
                if wanted { rows.row(&block) } else { ControlFlow::Continue(()) }
            });
            rows.finish(end)?;
        }
        Command::Show(show) => {
            let path = client::path(&["blocks", &show.subject.number], &[]);
            let block = client.get::<Block>(&path, client::LONG)?;
            show.output.print(&BlockWithStrikes {
                block,
                strikes: Strikes::of(client, &show.subject.number)?,
            })?;
        }
        Command::Import(import) => return import::run(import, client),
        Command::Export(export) => export::run(export, client)?,
    }
    Ok(Exit::Done)
}

/// Lists the origins of blocks that no person set.
const AUTOMATIC: [&str; 2] = ["ladder", "auto-rate"];

fn came_by(block: &Block, origin: &str) -> bool {
    let origins = if origin == "auto" { &AUTOMATIC[..] } else { &[origin] };
    origins.contains(&block.origin.as_str())
}

/// Holds a block and the strikes of its number.
#[derive(Serialize)]
struct BlockWithStrikes {
    #[serde(flatten)]
    block: Block,
    #[serde(flatten)]
    strikes: Strikes,
}

impl Answer for BlockWithStrikes {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        self.block.write_table(writer)?;
        self.strikes.write_table(writer)
    }

    fn raw(&self) -> Vec<Vec<String>> {
        Answer::raw(&self.block)
    }
}

impl Row for Block {
    const NOUN: &'static str = "block";
    const COLUMNS: &'static [&'static str] =
        &["number", "until", "action", "reason", "author", "origin"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.number.clone(),
            self.expires.map_or_else(|| "for good".to_owned(), |end| time::local(end).to_string()),
            action(self).to_owned(),
            self.reason.clone(),
            self.author.clone(),
            self.origin.clone(),
        ]
    }

    fn raw(&self) -> Vec<String> {
        vec![
            self.number.clone(),
            known(self.expires),
            action(self).to_owned(),
            self.reason.clone(),
            self.author.clone(),
            self.origin.clone(),
            self.node.clone(),
            self.created.to_string(),
            self.rule.to_string(),
            self.id.to_string(),
            redial(self),
        ]
    }
}

impl Answer for Block {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        let mut field = |label, text: &str| output::field(writer, label, text);
        field("number", &self.number)?;
        field("in force", &output::until(self.expires, "for good"))?;
        field("action", action(self))?;
        field("refuse", self.refuse.as_deref().unwrap_or("as the trunk does"))?;
        field("redial", &redial(self))?;
        field("reason", &self.reason)?;
        field("author", &self.author)?;
        field("created", &time::local(self.created).to_string())?;
        field("origin", &format!("{} on {}", self.origin, self.node))?;
        field("rule", &self.rule.to_string())?;
        field("id", &self.id.to_string())
    }

    fn raw(&self) -> Vec<Vec<String>> {
        vec![Row::raw(self)]
    }
}

fn redial(block: &Block) -> String {
    match block.redial {
        _ if block.no_redial => "off".to_owned(),
        Some(redial) => redial.to_string(),
        None => "as configured".to_owned(),
    }
}

fn action(block: &Block) -> &'static str {
    if block.observe { "observe" } else { "refuse" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_auto_matches_blocks_that_no_person_set() {
        let by = |origin: &str| Block {
            id: uuid::Uuid::nil(),
            rule: 1,
            number: "6281234567890".into(),
            created: jiff::Timestamp::UNIX_EPOCH,
            expires: None,
            reason: "prank".into(),
            author: "siti".into(),
            origin: origin.into(),
            node: "edge1".into(),
            observe: false,
            redial: None,
            no_redial: false,
            refuse: None,
        };
        for (origin, automatic) in
            [("operator", false), ("import", false), ("ladder", true), ("auto-rate", true)]
        {
            assert_eq!(came_by(&by(origin), "auto"), automatic, "{origin}");
            assert!(came_by(&by(origin), origin), "{origin}");
        }
        assert!(!came_by(&by("operator"), "ladder"));
        // The JSON has the fields of both.
        let shown = BlockWithStrikes { block: by("ladder"), strikes: Strikes::default() };
        let json = serde_json::to_value(shown).unwrap();
        assert_eq!((&json["origin"], &json["strikes_hundredths"]), (&"ladder".into(), &0.into()));
    }
}
