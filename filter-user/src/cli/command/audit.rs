//! `palang audit`.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::{AuditRow, AuditVerdict};
use crate::cli::input::time;
use crate::cli::output::atomic_file::{self, Exported, WholeFile};
use crate::cli::output::{self, Answer, Output, Row, counted, known};
use crate::daemon::audit_row_of;
use crate::exit::{Exit, Failure};
use crate::store::{AuditFilter, Reader};

/// List, verify and export the record of every change
///
/// palang audit list --since 7d --number 0812-3456-7890
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Verify(Verify),
    Export(Export),
}

/// List who changed what, oldest first
///
/// palang audit list --since 7d --number 0812-3456-7890
///
/// An erased number appears as its pseudonym, `#` and hex digits.
///
/// Raw: row, time, author, action, number, the record as JSON, hash.
#[derive(Debug, Args)]
struct List {
    /// Start: 1h, 7d, '2026-11-25 18:20' local time, or RFC 3339
    #[arg(long, value_name = "DURATION|TIME", value_parser = time::since)]
    since: Option<Timestamp>,
    /// Only this number or prefix, even if erased, or this pseudonym
    #[arg(long, value_name = "NUMBER|PREFIX*|#HEX")]
    number: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Verify that no record was altered, deleted or swapped
///
/// palang audit verify --head 17:9f86d081884c7d65…
///
/// A chain that was completely rewritten is found only with a head that was saved elsewhere, such
/// as in the journal. Raw: rows, first bad row, head.
#[derive(Debug, Args)]
struct Verify {
    /// Head that was saved earlier: the chain must contain it
    #[arg(long, value_name = "SEQ:HASH")]
    head: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Export all records as newline-delimited JSON, to verify them elsewhere
///
/// palang audit export audit.ndjson
///
/// Each line has the record as it was hashed, its hash, and the number of the pseudonym in the
/// record. The file appears only when it is complete. --store reads a copy of the store, or the
/// store of a node without a daemon. Raw: file, rows; nothing if the export itself goes to standard output.
#[derive(Debug, Args)]
struct Export {
    /// Output file [default: standard output]
    file: Option<PathBuf>,
    /// Store file to read [default: ask the daemon]
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Runs the `palang audit` command.
///
/// # Errors
/// `Failed` if a record was altered or a file cannot be written; otherwise returns an error if the daemon refuses or cannot be reached.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::List(list) => {
            let since = list.since.map(|since| since.to_string());
            let query = [("since", since.as_deref()), ("number", list.number.as_deref())];
            let mut rows = list.output.list();
            let path = client::path(&["audit"], &query);
            let end = client.list(&path, |row: AuditRow| rows.row(&row));
            rows.finish(end)?;
        }
        Command::Verify(verify) => {
            let query = [("head", verify.head.as_deref())];
            let path = client::path(&["audit", "verify"], &query);
            let verdict: AuditVerdict = client.get(&path, client::LONG)?;
            verify.output.print(&verdict)?;
            if let Some(row) = verdict.first_bad {
                let message = format!(
                    "the audit was altered: the chain breaks at row {row}; do not trust it from there on"
                );
                return Err(Failure::new(Exit::Failed, message));
            }
        }
        Command::Export(export) => {
            let mut file = WholeFile::create(export.file.as_deref())?;
            let (mut rows, mut result) = (0, Ok(()));
            let write = |row: AuditRow| {
                rows += 1;
                result = serde_json::to_writer(&mut file, &row)
                    .map_err(io::Error::from)
                    .and_then(|()| file.write_all(b"\n"));
                if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            let end = match &export.store {
                Some(store) => Ok(of_store(store, write)?),
                None => client.list(&client::path(&["audit"], &[]), write),
            };
            atomic_file::finish(file, result, end)?;
            Exported::print(export.file.as_deref(), rows, "row", export.output)?;
        }
    }
    Ok(Exit::Done)
}

/// Reads the audit rows from a store file, in the form that the daemon returns.
fn of_store(
    store: &Path,
    mut write: impl FnMut(AuditRow) -> ControlFlow<()>,
) -> Result<(), Failure> {
    Reader::open(store)
        .and_then(|reader| {
            reader.audit_rows(0, &AuditFilter::default(), |row| write(audit_row_of(row)))
        })
        .map_err(|error| Failure::new(Exit::Failed, error.message()))
}

/// Returns the record's fields, with the number if it is known. A record that is not JSON was not
/// written by Palang; it has no fields.
fn record(row: &AuditRow) -> Map<String, Value> {
    let mut record: Map<_, _> = serde_json::from_str(&row.record).unwrap_or_default();
    if let Some(number) = &row.number {
        record.insert("number".to_owned(), number.as_str().into());
    }
    record
}

fn text(value: Option<Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text,
        Some(value @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_))) => {
            value.to_string()
        }
    }
}

impl Row for AuditRow {
    const NOUN: &'static str = "row";
    const COLUMNS: &'static [&'static str] =
        &["row", "time", "author", "action", "number", "details"];

    fn cells(&self) -> Vec<String> {
        let mut record = record(self);
        let time = text(record.remove("time"));
        let time = time.parse().map_or(time, |time| time::local(time).to_string());
        let [author, action, number] =
            ["author", "action", "number"].map(|name| text(record.remove(name)));
        let details: Vec<_> = record
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| format!("{name}={}", text(Some(value))))
            .collect();
        vec![self.seq.to_string(), time, author, action, number, details.join(", ")]
    }

    fn raw(&self) -> Vec<String> {
        let mut record = record(self);
        let [time, author, action, number] =
            ["time", "author", "action", "number"].map(|name| text(record.remove(name)));
        let (seq, hash) = (self.seq.to_string(), self.hash.clone());
        vec![seq, time, author, action, number, self.record.clone(), hash]
    }
}

impl Answer for AuditVerdict {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        if self.first_bad.is_none() {
            let rows = counted(self.rows, "row");
            writeln!(writer, "{rows}: nothing was altered")?;
        }
        writeln!(writer, "head {}", output::clean(&self.head))
    }

    fn raw(&self) -> Vec<Vec<String>> {
        vec![vec![self.rows.to_string(), known(self.first_bad), self.head.clone()]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_the_audit() {
        let row = AuditRow {
            seq: 17,
            record: r#"{"action":"block add","author":"siti","number":"628","reason":"prank","rule":7,"time":"bad","to":null}"#
                .into(),
            hash: "ab".into(),
            number: None,
        };
        let beside = AuditRow {
            record: row.record.replace("628", "#ab"),
            number: Some("628".into()),
            ..row.clone()
        };
        assert_eq!(beside.cells(), row.cells());
        let erased = AuditRow { number: None, ..beside };
        assert_eq!(erased.cells()[4], "#ab");
        assert_eq!(row.cells(), ["17", "bad", "siti", "block add", "628", "reason=prank, rule=7"]);
        assert_eq!(row.raw()[..5], ["17", "bad", "siti", "block add", "628"]);
        let foreign = AuditRow { record: "tampered".into(), ..row };
        assert_eq!(foreign.cells(), ["17", "-", "-", "-", "-", ""]);
    }
}
