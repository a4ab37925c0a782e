//! `palang audit`.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::print::{self, Answer, Output, Row, counted, known};
use super::time;
use super::whole_file::{self, Exported, WholeFile};
use crate::client::{self, Client};
use crate::daemon::audit_row_of;
use crate::exit::{Exit, Failure};
use crate::store::{AuditFilter, Reader};
use crate::wire::{AuditRow, AuditVerdict};

/// Read and verify the record of every change
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
/// A number that was erased is told as its pseudonym, `#` and hex digits.
///
/// Raw: row, time, author, action, number, the record as JSON, hash.
#[derive(Debug, Args)]
struct List {
    /// Since when: 1h, 7d, '2026-11-25 18:20' local time, or RFC 3339
    #[arg(long, value_name = "DURATION|TIME", value_parser = time::since)]
    since: Option<Timestamp>,
    /// About this number or prefix, also an erased one; or about the one with this pseudonym
    #[arg(long, value_name = "NUMBER|PREFIX*|#HEX")]
    number: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Verify that nobody altered, deleted or swapped a record
///
/// palang audit verify --head 17:9f86d081884c7d65…
///
/// Only a head that was noted elsewhere, such as in the journal, finds a chain that was
/// written anew. Raw: rows, first bad row, head.
#[derive(Debug, Args)]
struct Verify {
    /// Head that was noted earlier: the chain has to go through it
    #[arg(long, value_name = "SEQ:HASH")]
    head: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Export all records as newline-delimited JSON, to be verified elsewhere
///
/// palang audit export audit.ndjson
///
/// Each line has a record as it was hashed, its hash, and beside them the number that the pseudonym
/// in the record stands for. The file appears when it is whole. With --store it is read from a copy, or
/// where no daemon runs any more. Raw: file, rows; nothing where there is no file.
#[derive(Debug, Args)]
struct Export {
    /// The file [default: standard output]
    file: Option<PathBuf>,
    /// The store to read [default: ask the daemon]
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Does what was asked for.
///
/// # Errors
/// The daemon's no, or none to ask; an audit that is not what was written.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::List(list) => {
            let since = list.since.map(|since| since.to_string());
            let query = [("since", since.as_deref()), ("number", list.number.as_deref())];
            let mut told = list.output.list();
            let path = client::path(&["audit"], &query);
            let end = client.list(&path, |row: AuditRow| told.row(&row));
            told.finish(end)?;
        }
        Command::Verify(verify) => {
            let query = [("head", verify.head.as_deref())];
            let path = client::path(&["audit", "verify"], &query);
            let verdict: AuditVerdict = client.get(&path, client::LONG)?;
            verify.output.tell(&verdict)?;
            if let Some(row) = verdict.first_bad {
                let message = format!("the audit is not what was written, from row {row} on");
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
            whole_file::finish(file, result, end)?;
            Exported::tell(export.file.as_deref(), rows, "row", export.output)?;
        }
    }
    Ok(Exit::Done)
}

/// Hands over what a store has, as the daemon would tell it.
fn of_store(
    store: &Path,
    mut write: impl FnMut(AuditRow) -> ControlFlow<()>,
) -> Result<(), Failure> {
    Reader::open(store)
        .and_then(|reader| {
            reader.audit_rows(0, &AuditFilter::default(), |row| write(audit_row_of(row)))
        })
        .map_err(|error| Failure::new(Exit::Failed, error))
}

/// The record's fields, with the number where it is known; none where it is not JSON, which then is
/// no record of ours.
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
    fn people(&self, writer: &mut dyn Write) -> io::Result<()> {
        if self.first_bad.is_none() {
            let rows = counted(self.rows, "row");
            writeln!(writer, "{rows}: nothing was altered")?;
        }
        writeln!(writer, "head {}", print::clean(&self.head))
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
