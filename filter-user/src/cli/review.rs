//! `palang review`.

use std::io::{self, Write};

use clap::{Args, Subcommand};

use super::print::{self, Answer, Output, Row, known};
use super::time;
use crate::client::{self, Client};
use crate::exit::{Exit, Failure};
use crate::wire::{CloseReview, Review, ReviewClosed};

/// Look at blocked callers who were let through because they called again and again
///
/// palang review list
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Close(Close),
}

/// List the redial grants that nobody has looked at, oldest first
///
/// palang review list
///
/// Raw: id, time, number, kind, end of the grant, rule of the block, Call-ID, closed, by, note.
#[derive(Debug, Args)]
struct List {
    /// Also those that were closed
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    output: Output,
}

/// Note that a redial grant was looked at, and what came of it
///
/// palang review close 3 --note 'a real call: ambulance sent, block removed'
///
/// Block and grant stay as they are: `palang block remove` frees the number for good.
///
/// Raw: as the list.
#[derive(Debug, Args)]
struct Close {
    /// Its number in the list
    id: u64,
    /// What came of it
    #[arg(long, value_name = "TEXT")]
    note: String,
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
    match &arguments.command {
        Command::List(list) => {
            let mut told = list.output.list();
            let path = client::path(&["reviews"], &[("all", list.all.then_some("true"))]);
            let end = client.list(&path, |review: Review| told.row(&review));
            told.finish(end)?;
        }
        Command::Close(close) => {
            let path = client::path(&["reviews", &close.id.to_string(), "close"], &[]);
            let what = CloseReview { note: close.note.clone(), dry_run: close.dry_run };
            let closed: ReviewClosed = client.post(&path, &what, client::LONG)?;
            close.output.tell(&closed)?;
        }
    }
    Ok(Exit::Done)
}

impl Row for Review {
    const NOUN: &'static str = "review";
    const COLUMNS: &'static [&'static str] =
        &["id", "time", "number", "kind", "until", "Call-ID", "closed"];

    fn cells(&self) -> Vec<String> {
        let closed = self.closed.map_or_else(
            || "-".to_owned(),
            |time| {
                let (by, note) = (known(self.closed_by.as_ref()), known(self.note.as_ref()));
                format!("{} by {by}: {note}", time::local(time))
            },
        );
        vec![
            known(self.id),
            time::local(self.time).to_string(),
            self.number.clone(),
            self.kind.clone(),
            time::local(self.until).to_string(),
            known(self.call_id.as_ref()),
            closed,
        ]
    }

    fn raw(&self) -> Vec<String> {
        vec![
            known(self.id),
            self.time.to_string(),
            self.number.clone(),
            self.kind.clone(),
            self.until.to_string(),
            self.rule.to_string(),
            known(self.call_id.as_ref()),
            known(self.closed),
            known(self.closed_by.as_ref()),
            known(self.note.as_ref()),
        ]
    }
}

impl Answer for ReviewClosed {
    fn people(&self, writer: &mut dyn Write) -> io::Result<()> {
        if self.dry_run {
            writeln!(writer, "dry run, nothing was changed")?;
        }
        let does = if self.dry_run { "would close" } else { "closed" };
        let review = &self.review;
        let line = format!(
            "{does} review {} of {}, let through {}: {}",
            known(review.id),
            review.number,
            time::local(review.time),
            known(review.note.as_ref())
        );
        writeln!(writer, "{}", print::clean(&line))?;
        let now = if self.dry_run { " now" } else { "" };
        writeln!(writer, "in force{now}: {}", print::clean(&print::outcome(&self.in_force)))
    }

    fn raw(&self) -> Vec<Vec<String>> {
        vec![Row::raw(&self.review)]
    }
}
