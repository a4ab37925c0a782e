//! `palang export`.

use std::io::{self, Write};

use clap::Args;

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::{Evidence, NumberExport, Redials, Remembered};
use crate::cli::input::number;
use crate::cli::input::time;
use crate::cli::output::{self, Answer, Output, Row, counted};
use crate::exit::{Exit, Failure};

/// Export all data about one number
///
/// palang export --number 0812-3456-7890 -o json >letter-12.json
///
/// Block, allow, calls, kept INVITEs, reports, reviews, audit rows and kernel state: all that the
/// owner of the number may ask for. JSON is one document. Free text (reasons, notes) is not
/// searched. Needs the role operate (docs/privacy.md).
///
/// Raw: block, allow, call, evidence, report, review or audit, then the fields of that list. Evidence
/// has call, time, frame length and the frame as base64.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The number in any usual spelling
    #[arg(long, value_name = "NUMBER", value_parser = number::given)]
    number: String,
    #[command(flatten)]
    output: Output,
}

/// Exports the data about a number.
///
/// # Errors
/// Returns an error if the daemon refuses or cannot be reached.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    let path = client::path(&["numbers", &arguments.number], &[]);
    let held: NumberExport = client.get(&path, client::LONG)?;
    arguments.output.print(&held)?;
    Ok(Exit::Done)
}

impl Answer for NumberExport {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        self.check.write_table(writer)?;
        output::field(writer, "pseudonym", &self.pseudonym)?;
        for line in remembered(&self.kernel) {
            output::field(writer, "kernel", &line)?;
        }
        section(writer, "block", self.block.as_slice())?;
        section(writer, "allow", self.allow.as_slice())?;
        section(writer, "call", &self.calls)?;
        section(writer, "INVITE", &self.evidence)?;
        section(writer, "report", &self.reports)?;
        section(writer, "review", &self.reviews)?;
        section(writer, "audit row", &self.audit)?;
        writeln!(writer)?;
        self.notes.iter().try_for_each(|note| writeln!(writer, "note: {}", output::clean(note)))
    }

    fn raw(&self) -> Vec<Vec<String>> {
        let mut lines = Vec::new();
        named("block", self.block.as_slice(), &mut lines);
        named("allow", self.allow.as_slice(), &mut lines);
        named("call", &self.calls, &mut lines);
        named("evidence", &self.evidence, &mut lines);
        named("report", &self.reports, &mut lines);
        named("review", &self.reviews, &mut lines);
        named("audit", &self.audit, &mut lines);
        lines
    }
}

/// Writes a count and a table; only the count if there are no rows.
fn section<R: Row>(writer: &mut dyn Write, noun: &str, rows: &[R]) -> io::Result<()> {
    if rows.is_empty() {
        return writeln!(writer, "\nno {noun}s");
    }
    let table = output::table(Some(R::COLUMNS), rows.iter().map(Row::cells));
    writeln!(writer, "\n{}\n{}", counted(rows.len() as u64, noun), table.trim_fmt())
}

fn named<R: Row>(name: &str, rows: &[R], lines: &mut Vec<Vec<String>>) {
    for row in rows {
        let mut fields = vec![name.to_owned()];
        fields.extend(row.raw());
        lines.push(fields);
    }
}

impl Row for Evidence {
    const NOUN: &'static str = "INVITE";
    const COLUMNS: &'static [&'static str] = &["time", "call", "bytes", "see"];

    fn cells(&self) -> Vec<String> {
        vec![
            time::local(self.time).to_string(),
            self.call.to_string(),
            self.frame_len.to_string(),
            format!("palang calls show {}", self.call),
        ]
    }

    fn raw(&self) -> Vec<String> {
        vec![
            self.call.to_string(),
            self.time.to_string(),
            self.frame_len.to_string(),
            self.frame.clone(),
        ]
    }
}

fn remembered(kernel: &Remembered) -> Vec<String> {
    let Remembered { grant_until, grace_until, redial } = kernel;
    let grant = grant_until.map(|end| format!("redial grant {}", output::until(Some(end), "")));
    let grace = grace_until.map(|end| format!("call-back grace {}", output::until(Some(end), "")));
    let redial = redial.map(|Redials { attempts, first, last }| {
        let (first, last) = (time::local(first), time::local(last));
        format!("{} while blocked, {first} to {last}", counted(attempts.into(), "attempt"))
    });
    [grant, grace, redial].into_iter().flatten().collect()
}
