//! `palang review`.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::{CloseReview, ExtendReview, Review, ReviewClosed, ReviewSettled};
use crate::cli::input::options::ChangeOptions;
use crate::cli::input::time;
use crate::cli::output::change;
use crate::cli::output::change::By;
use crate::cli::output::{self, Answer, Format, Output, Row, known};
use crate::exit::{Exit, Failure};

/// Review blocked callers who were let through, and reports that need a person's decision
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
    Extend(Extend),
    Free(Free),
}

/// List the open reviews of redial grants and reports, oldest first
///
/// palang review list
///
/// A `report` needs a review if it is not a strike, led to a long block, or its block could not be
/// set. `palang report list NUMBER` shows the reports.
///
/// Raw: id, time, number, kind, end of the grant or block, rule of the block, Call-ID, closed, by, note.
#[derive(Debug, Args)]
struct List {
    /// Include closed reviews
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    output: Output,
}

/// Close a review with a note on the result
///
/// palang review close 3 --note 'a real call: ambulance sent, block removed'
///
/// The block and the grant stay unchanged: `palang block remove` ends the block.
///
/// Raw: as in the list.
#[derive(Debug, Args)]
struct Close {
    /// ID of the review in the list
    id: u64,
    /// Result of the review
    #[arg(long, value_name = "TEXT")]
    note: String,
    #[command(flatten)]
    change: ChangeOptions,
    #[command(flatten)]
    output: Output,
}

/// Extend the block of a number and close its review
///
/// palang review extend 3 --for 7d
///
/// The number must have a block of its own that ends earlier.
///
/// Raw: the review as in the list; added, updated, unchanged or removed, and the block as in its list.
#[derive(Debug, Args)]
struct Extend {
    /// ID of the review in the list
    id: u64,
    /// How long from now: 24h, 7d
    #[arg(long = "for", value_name = "DURATION", value_parser = time::seconds)]
    seconds: u64,
    /// Result of the review [default: that the block was extended]
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
    #[command(flatten)]
    change: ChangeOptions,
    #[command(flatten)]
    output: Output,
}

/// Remove the block of a number and close its review
///
/// palang review free 3 --note 'a child, parents informed'
///
/// The strikes stay: to withdraw one, `palang report add … --kind test` with its Call-ID.
///
/// Raw: as for `extend`.
#[derive(Debug, Args)]
struct Free {
    /// ID of the review in the list
    id: u64,
    /// Reason
    #[arg(long, value_name = "TEXT")]
    note: String,
    #[command(flatten)]
    change: ChangeOptions,
    #[command(flatten)]
    output: Output,
}

/// Runs the `palang review` command.
///
/// # Errors
/// Returns an error if the daemon refuses or cannot be reached.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::List(list) => {
            let mut rows = list.output.list();
            let path = client::path(&["reviews"], &[("all", list.all.then_some("true"))]);
            let end = client.list(&path, |review: Review| rows.row(&review));
            rows.finish(end)?;
        }
        Command::Close(close) => {
            let path = client::path(&["reviews", &close.id.to_string(), "close"], &[]);
            let what = CloseReview { note: close.note.clone(), dry_run: close.change.dry_run };
            let closed: ReviewClosed = client.post(&path, &what, client::LONG)?;
            close.output.print(&closed)?;
        }
        Command::Extend(extend) => {
            let path = client::path(&["reviews", &extend.id.to_string(), "extend"], &[]);
            let what = ExtendReview {
                seconds: extend.seconds,
                note: extend.note.clone(),
                dry_run: extend.change.dry_run,
            };
            settle(&client.post(&path, &what, client::LONG)?, client, extend.output)?;
        }
        Command::Free(free) => {
            let path = client::path(&["reviews", &free.id.to_string(), "free"], &[]);
            let what = CloseReview { note: free.note.clone(), dry_run: free.change.dry_run };
            settle(&client.post(&path, &what, client::LONG)?, client, free.output)?;
        }
    }
    Ok(Exit::Done)
}

/// Prints the change of a block and the review that it closes.
fn settle(settled: &ReviewSettled, client: &Client, output: Output) -> Result<(), Failure> {
    if output.format != Format::Table {
        output.print(&Settled(settled))?;
        output::warn_unless_persisted(&settled.block.persisted, settled.block.dry_run);
        return Ok(());
    }
    change::print(&settled.block, By::Daemon, client, output)?;
    output.print(&Settled(settled))
}

#[derive(Serialize)]
#[serde(transparent)]
struct Settled<'a>(&'a ReviewSettled);

impl Answer for Settled<'_> {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        let ReviewSettled { review, block } = self.0;
        let does = if block.dry_run { "would close" } else { "closed" };
        let note = known(review.note.as_ref());
        let line = format!("{does} review {} of {}: {note}", known(review.id), review.number);
        writeln!(writer, "{}", output::clean(&line))
    }

    fn raw(&self) -> Vec<Vec<String>> {
        let ReviewSettled { review, block } = self.0;
        let mut fields = Row::raw(review);
        fields.extend(change::raw(block));
        vec![fields]
    }
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
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        if self.dry_run {
            writeln!(writer, "dry run, nothing was changed")?;
        }
        let does = if self.dry_run { "would close" } else { "closed" };
        let review = &self.review;
        let what = if review.kind == "report" { "reported" } else { "let through" };
        let line = format!(
            "{does} review {} of {}, {what} {}: {}",
            known(review.id),
            review.number,
            time::local(review.time),
            known(review.note.as_ref())
        );
        writeln!(writer, "{}", output::clean(&line))?;
        let now = if self.dry_run { " now" } else { "" };
        writeln!(writer, "in force{now}: {}", output::clean(&output::outcome(&self.in_force)))
    }

    fn raw(&self) -> Vec<Vec<String>> {
        vec![Row::raw(&self.review)]
    }
}
