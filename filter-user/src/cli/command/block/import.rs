//! `palang block import`.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek as _, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde::Serialize;

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::{BadRow, ImportNews, Problem};
use crate::cli::command::block::row_reader;
use crate::cli::command::block::rows::{End, Format};
use crate::cli::input::options::ChangeOptions;
use crate::cli::input::time;
use crate::cli::output::in_force;
use crate::cli::output::{self, Answer, Output, counted, thousands};
use crate::exit::{Exit, Failure};
use crate::model::refuse::Refuse;

/// Block the numbers of a file, CSV or JSON; all of them or none
///
/// palang block import blocks.csv
///
/// palang block import numbers.txt --for 30d --reason 'list of the carrier'
///
/// A CSV file has the header number,expires,reason,author,origin,observe,redial,refuse; only number is
/// needed. A list of numbers alone, one in a line, needs no header. Spreadsheets may write it with `;` or tabs,
/// and in UTF-16. A JSON file is an array, or one object per line, with the same names. Times are
/// RFC 3339, or local; `permanent` needs the role admin. refuse is 600, 486, 603, 403, 480
/// or drop; empty: as the trunk refuses. An existing block gets the end
/// and reason of the file. If a row is bad, it is named by line and nothing is imported, unless
/// --skip-bad.
///
/// Raw: new, updated, unchanged, bad, permanent, impossible.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Input file; `-` is standard input
    file: PathBuf,
    /// File format [default: detected from the first character]
    #[arg(long)]
    format: Option<Format>,
    /// How long the rows without an end are in force: 24h, 30d
    #[arg(long = "for", value_name = "DURATION", value_parser = time::seconds)]
    seconds: Option<u64>,
    /// Reason of the rows without one
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Import the good rows if others are bad; then exit 6
    #[arg(long)]
    skip_bad: bool,
    /// Answer of all rows on a trunk that answers, also of those with their own: 600, 486, 603, 403, 480; drop: no answer
    #[arg(long, value_name = "CODE|drop", value_parser = Refuse::parse)]
    refuse: Option<Refuse>,
    #[command(flatten)]
    change: ChangeOptions,
    #[command(flatten)]
    output: Output,
}

/// Imports blocks from a file.
///
/// # Errors
/// `Usage` if the file cannot be read or has bad rows; otherwise returns an error if the daemon refuses or
/// cannot be reached.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    let bar = progress();
    let rows = read(arguments, &bar)?;
    print_bad(&rows.bad);
    if rows.good == 0 && rows.bad.is_empty() {
        let message = format!("{}: the file has no rows", arguments.file.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    // If a row is bad, nothing is imported, but the daemon still checks the other rows.
    let only_ask = !rows.bad.is_empty() && !arguments.skip_bad;
    let dry_run = arguments.change.dry_run || only_ask;
    let news =
        if rows.good == 0 { None } else { Some(send(&rows, arguments, dry_run, client, &bar)?) };
    bar.finish_and_clear();
    let (mut imported, refused) = match news {
        None => (Imported { dry_run, ..Imported::default() }, None),
        Some(News::Done(imported)) => (imported, None),
        Some(News::Refused(problem, bad)) => {
            (Imported { bad, ..Imported::default() }, Some(problem))
        }
    };
    print_bad(&imported.bad);
    if only_ask || imported.bad.is_empty() && rows.good == 0 {
        let bad = (rows.bad.len() + imported.bad.len()) as u64;
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "nothing was imported: {} bad, listed above by line{}",
                if bad == 1 {
                    "1 row is".to_owned()
                } else {
                    format!("{} rows are", thousands(bad))
                },
                if only_ask { "; correct the file, or add --skip-bad" } else { "" },
            ),
        ));
    }
    if let Some(problem) = refused {
        return Err(client::Error::Problem(problem).into());
    }
    imported.bad.extend(rows.bad);
    imported.bad.sort_by_key(|row| row.line);
    arguments.output.print(&imported)?;
    if arguments.output.is_table() {
        in_force::print_in_force(client, imported.dry_run)?;
    }
    Ok(if imported.bad.is_empty() { Exit::Done } else { Exit::Partly })
}

/// The rows of a file; the good ones are spooled for the API in an unnamed file.
struct Rows {
    spool: File,
    good: u64,
    bad: Vec<BadRow>,
}

fn read(arguments: &Arguments, bar: &ProgressBar) -> Result<Rows, Failure> {
    let path = &arguments.file;
    let failed =
        |exit, error: &dyn Display| Failure::new(exit, format!("{}: {error}", path.display()));
    let reader: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(path).map_err(|error| failed(Exit::Usage, &error))?;
        bar.set_length(file.metadata().map_or(0, |metadata| metadata.len()));
        Box::new(file)
    };
    bar.set_message("reading");
    let folder = std::env::temp_dir();
    let no_spool = |error: io::Error| {
        io::Error::other(format!("cannot write a temporary file in {}: {error}", folder.display()))
    };
    let fatal = |error| failed(Exit::Failed, &no_spool(error));
    let mut spool = BufWriter::new(tempfile::tempfile_in(&folder).map_err(fatal)?);
    let (mut good, mut bad) = (0, Vec::new());
    let end = arguments.seconds.map(time::after).transpose();
    let end = end.map_err(|error| failed(Exit::Usage, &error))?;
    row_reader::read(bar.wrap_read(reader), arguments.format, &mut |line, row| {
        let row = row.and_then(|mut row| {
            row.refuse = arguments.refuse.or(row.refuse);
            if let (End::Missing, Some(end)) = (row.expires, end) {
                row.expires = End::At(end);
            }
            if row.reason.trim().is_empty() {
                row.reason.clone_from(&arguments.reason);
            }
            row.on_line(line)
        });
        match row {
            Ok(row) => {
                good += 1;
                let written = serde_json::to_writer(&mut spool, &row);
                let written = written.map_err(io::Error::from);
                written.and_then(|()| spool.write_all(b"\n")).map_err(no_spool)?;
            }
            Err(mistake) => bad.push(BadRow { line, message: mistake.to_string() }),
        }
        Ok(())
    })
    .map_err(|error| match error {
        row_reader::Error::File(message) => failed(Exit::Usage, &message),
        row_reader::Error::Io(error) => failed(Exit::Failed, &error),
    })?;
    let mut spool = spool.into_inner().map_err(|error| fatal(error.into_error()))?;
    spool.rewind().map_err(fatal)?;
    Ok(Rows { spool, good, bad })
}

enum News {
    Done(Imported),
    Refused(Problem, Vec<BadRow>),
}

fn send(
    rows: &Rows,
    arguments: &Arguments,
    dry_run: bool,
    client: &Client,
    bar: &ProgressBar,
) -> Result<News, Failure> {
    let flag = |is: bool| is.then_some("true");
    let query = [("dry_run", flag(dry_run)), ("skip_bad", flag(arguments.skip_bad))];
    let path = client::path(&["blocks", "import"], &query);
    let spool = rows.spool.try_clone().map_err(|error| Failure::new(Exit::Failed, error))?;
    bar.set_message("sending");
    bar.set_position(0);
    bar.set_length(spool.metadata().map_or(0, |metadata| metadata.len()));
    let ticker = bar.clone();
    let mut end = None;
    client.post_lines(
        &path,
        spool,
        move |bytes| ticker.inc(bytes),
        |news| {
            match news {
                ImportNews::Progress { done, total } => {
                    bar.set_message("in force");
                    bar.set_length(total);
                    bar.set_position(done);
                    return ControlFlow::Continue(());
                }
                ImportNews::Done {
                    added,
                    updated,
                    unchanged,
                    superseded,
                    permanent,
                    last_end,
                    impossible,
                    bad,
                    dry_run,
                } => {
                    end = Some(News::Done(Imported {
                        added,
                        updated,
                        unchanged,
                        superseded,
                        permanent,
                        last_end,
                        impossible,
                        bad,
                        dry_run,
                    }));
                }
                ImportNews::Refused { problem, bad } => end = Some(News::Refused(problem, bad)),
            }
            ControlFlow::Break(())
        },
    )?;
    end.ok_or_else(|| {
        let message = "the daemon did not report the result of the import: `palang block list` shows what \
                       is in force; it is safe to import the file again";
        Failure::new(Exit::Failed, message)
    })
}

fn progress() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{msg:8} {bar:40} {percent:>3} % {eta}") {
        bar.set_style(style);
    }
    bar
}

fn print_bad(bad: &[BadRow]) {
    for row in bad {
        eprintln!("line {}: {}", row.line, output::clean(&row.message));
    }
}

/// Result of an import.
#[derive(Debug, Default, Serialize)]
struct Imported {
    added: u64,
    updated: u64,
    unchanged: u64,
    superseded: u64,
    permanent: u64,
    last_end: Option<Timestamp>,
    impossible: u64,
    bad: Vec<BadRow>,
    dry_run: bool,
}

impl Answer for Imported {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        if self.dry_run {
            writeln!(writer, "dry run, nothing was changed")?;
        }
        let verb = if self.dry_run { "would import" } else { "imported" };
        let Imported { added, updated, unchanged, bad, .. } = self;
        let blocks = counted(added + updated + unchanged, "block");
        let [added, updated, unchanged] =
            [added, updated, unchanged].map(|count| thousands(*count));
        writeln!(writer, "{verb} {blocks}: {added} new, {updated} updated, {unchanged} unchanged")?;
        let ends = self.last_end.map(|end| format!("the last one ends {}", time::local(end)));
        let permanent = (self.permanent > 0).then(|| {
            format!(
                "{} permanent",
                if self.permanent == 1 {
                    "1 is".to_owned()
                } else {
                    format!("{} are", thousands(self.permanent))
                }
            )
        });
        let ends: Vec<_> = permanent.into_iter().chain(ends).collect();
        if !ends.is_empty() {
            writeln!(writer, "{}", ends.join(", "))?;
        }
        if self.impossible > 0 {
            let numbers = counted(self.impossible, "number");
            writeln!(writer, "check {numbers}: the country has no numbers of such a length")?;
        }
        if self.superseded > 0 {
            let rows = counted(self.superseded, "row");
            writeln!(writer, "skipped {rows}: later changes of these numbers are in force")?;
        }
        if bad.is_empty() {
            return Ok(());
        }
        writeln!(writer, "skipped {}", counted(bad.len() as u64, "bad row"))
    }

    fn raw(&self) -> Vec<Vec<String>> {
        let bad = self.bad.len() as u64;
        let counts =
            [self.added, self.updated, self.unchanged, bad, self.permanent, self.impossible];
        vec![counts.iter().map(ToString::to_string).collect()]
    }
}
