//! `palang allow`.

use clap::{ArgGroup, Args, Subcommand};
use jiff::Timestamp;

use super::print::{Output, Row, known};
use super::without_daemon::{By, or_directly};
use super::{changed, number, time};
use crate::client::{self, Client};
use crate::direct;
use crate::exit::{Exit, Failure};
use crate::wire::{AddAllow, Allow};

/// Name numbers that are never refused
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

/// Never refuse a number, or with `*` at its end a prefix
///
/// palang allow add '+62431*' --comment 'Manado, earthquake'
///
/// Beats every block. Where there is an allow already, its end and comment become these.
/// Works for root when the daemon does not answer.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("end"))]
struct Add {
    /// The caller number as people write it
    #[arg(value_name = "NUMBER|PREFIX*", value_parser = number::given)]
    number: String,
    /// How long: 30m, 24h, 7d [default: for good]
    #[arg(long = "for", value_name = "DURATION", group = "end", value_parser = time::seconds)]
    seconds: Option<u64>,
    /// Until when: '2026-11-25 18:20' local time, or RFC 3339
    #[arg(long, value_name = "TIME", group = "end", value_parser = time::point)]
    until: Option<Timestamp>,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,
    /// Change nothing, say what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

/// Take an allow away
///
/// palang allow remove '+62431*'
#[derive(Debug, Args)]
struct Remove {
    /// The number or prefix of the allow
    #[arg(value_name = "NUMBER|PREFIX*", value_parser = number::given)]
    number: String,
    /// Change nothing, say what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

/// List all allows
///
/// palang allow list
///
/// Raw: number, end, comment, author, origin, node, created, rule, id.
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    output: Output,
}

/// Does what was asked for.
///
/// # Errors
/// The daemon's no, or none to ask.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Add(add) => {
            let what = AddAllow {
                number: add.number.clone(),
                seconds: add.seconds,
                expires: add.until,
                comment: add.comment.clone(),
                dry_run: add.dry_run,
            };
            let answer = client.post(&client::path(&["allows"], &[]), &what, client::SHORT);
            let (changed, by) = or_directly(answer, || direct::add_allow(&what))?;
            changed::tell(&changed, by, client, add.output)?;
        }
        Command::Remove(remove) => {
            let query = [("dry_run", remove.dry_run.then_some("true"))];
            let path = client::path(&["allows", &remove.number], &query);
            let changed = client.delete(&path, client::LONG)?;
            changed::tell::<Allow>(&changed, By::Daemon, client, remove.output)?;
        }
        Command::List(list) => {
            let mut told = list.output.list();
            let path = client::path(&["allows"], &[]);
            let end = client.list(&path, |allow: Allow| told.row(&allow));
            told.finish(end)?;
        }
    }
    Ok(Exit::Done)
}

impl Row for Allow {
    const NOUN: &'static str = "allow";
    const COLUMNS: &'static [&'static str] = &["number", "until", "comment", "author", "origin"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.number.clone(),
            self.expires.map_or_else(|| "for good".to_owned(), |end| time::local(end).to_string()),
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
        ]
    }
}
