//! Records and summaries as a table, as JSON, or raw.

use std::io::{self, Write};
use std::path::Path;

use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::cli::command::replay::hints::hints;
use crate::cli::output::{clean, count, json_line, known};
use crate::replay::record::Record;
use crate::replay::summary::Summary;

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: a table and a summary.
    Table,
    /// For programs: one object per line, the summary last.
    Json,
    /// For scripts: file, frame, time, src, caller, verdict, policy verdict, rule, reason, reply, separated by
    /// tabs; `-` for unknown; no header, no summary.
    Raw,
}

/// The note where `--replies` or `--write-replies` has nothing to show.
pub(crate) const NO_REPLY: &str =
    "no call got a reply: only trunks of --config or --policy answer, and none that observes";

/// Prints records as they come. A table is held back until the end.
pub struct Output<W> {
    pub(crate) format: Format,
    pub(crate) writer: W,
    pub(crate) table: Table,
    files: bool,
    /// Whether a table is followed by the replies.
    shows_replies: bool,
    replies: String,
}

#[derive(Serialize)]
pub(crate) struct Last<'a> {
    pub(crate) summary: &'a Summary,
}

impl<W: Write> Output<W> {
    /// Creates an output; `files` adds a column for the file, and `shows_replies` the text of each reply.
    pub fn new(format: Format, writer: W, files: bool, shows_replies: bool) -> Output<W> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        let mut header = vec!["frame", "source", "caller number", "verdict", "reason"];
        if files {
            header.insert(0, "file");
        }
        table.set_header(header);
        Output { format, writer, table, files, shows_replies, replies: String::new() }
    }

    /// Prints a record.
    ///
    /// # Errors
    /// Returns the error of the writer.
    pub fn record(&mut self, record: &Record) -> io::Result<()> {
        match self.format {
            Format::Table => {
                let mut row = vec![
                    record.frame.to_string(),
                    known(record.src.as_ref()),
                    known(record.caller.as_ref()),
                    record.verdict.to_owned(),
                    reason(record),
                ];
                if self.files {
                    let name = Path::new(&record.file).file_name().unwrap_or_default();
                    row.insert(0, name.to_string_lossy().into_owned());
                }
                self.table.add_row(row);
                if let Some(message) = record.reply_message.as_ref().filter(|_| self.shows_replies)
                {
                    self.replies.push_str(&format!("reply to frame {}:\n", record.frame));
                    for line in message.lines() {
                        self.replies.push_str(&format!("  {}\n", clean(line)));
                    }
                }
                Ok(())
            }
            Format::Json => json_line(record, &mut self.writer),
            Format::Raw => {
                let fields = [
                    record.file.clone(),
                    record.frame.to_string(),
                    record.time.clone(),
                    known(record.src.as_ref()),
                    known(record.caller.as_ref()),
                    record.verdict.to_owned(),
                    known(record.policy_verdict),
                    known(record.rule.as_ref()),
                    record.reason.to_owned(),
                    known(record.reply),
                ];
                writeln!(self.writer, "{}", fields.join("\t"))
            }
        }
    }

    /// Prints the table and the summary. SIP was read on `ports`.
    ///
    /// # Errors
    /// Returns the error of the writer.
    pub fn finish(mut self, summary: &Summary, ports: &[u16]) -> io::Result<()> {
        match self.format {
            Format::Table => self.write_table(summary, ports)?,
            Format::Json => json_line(&Last { summary }, &mut self.writer)?,
            Format::Raw => {}
        }
        self.writer.flush()
    }

    pub(crate) fn write_table(&mut self, summary: &Summary, ports: &[u16]) -> io::Result<()> {
        if self.table.row_count() > 0 {
            if let Some(column) = self.table.column_mut(usize::from(self.files)) {
                column.set_cell_alignment(CellAlignment::Right);
            }
            writeln!(self.writer, "{}\n", self.table.trim_fmt())?;
        }
        if self.shows_replies && self.replies.is_empty() {
            writeln!(self.writer, "{NO_REPLY}\n")?;
        }
        if !self.replies.is_empty() {
            writeln!(self.writer, "{}", self.replies)?;
        }
        let judged: u64 = summary.verdicts.values().sum();
        writeln!(
            self.writer,
            "{} in {}: {}",
            count(summary.invites, "INVITE"),
            count(summary.frames, "frame"),
            if judged == 0 { "nothing to judge".to_owned() } else { list(summary.verdicts.iter()) }
        )?;
        if judged > 0 {
            writeln!(self.writer, "reasons: {}", list(summary.reasons.iter()))?;
        }
        for hint in hints(summary, ports) {
            writeln!(self.writer, "{hint}")?;
        }
        Ok(())
    }
}

/// Returns the reason, the code of the reply, the policy verdict that was not applied, the rule, and the identity of the
/// attempt.
fn reason(record: &Record) -> String {
    let mut text = record.reason.to_owned();
    if let Some(code) = record.reply {
        text += &format!(", answered {code}");
    }
    if let Some(policy_verdict) = record.policy_verdict {
        text += &format!(", would {policy_verdict}");
    }
    if let Some(rule) = &record.rule {
        text += &format!(" ({rule})");
    }
    if let Some(identity) = &record.attempt_identity {
        text += &format!(", {identity}");
    }
    text
}

pub(crate) fn list<'a>(counts: impl Iterator<Item = (&'a &'static str, &'a u64)>) -> String {
    counts.map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}
