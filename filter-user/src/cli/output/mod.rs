//! Prints answers as a table, as JSON, or raw.

pub(crate) mod atomic_file;
pub(crate) mod call;
pub(crate) mod capture_file;
pub(crate) mod change;
pub(crate) mod checks;
pub(crate) mod in_force;
pub(crate) mod interface;
pub(crate) mod mode;
pub(crate) mod not_judged;
pub(crate) mod r#override;
pub(crate) mod plan_check;
pub(crate) mod progress;
pub(crate) mod strikes;

use std::borrow::Cow;
use std::io::{self, Write};
use std::io::{BufWriter, StdoutLock};
use std::ops::ControlFlow;

use clap::Args;
use clap::ValueEnum;
use comfy_table::{ColumnConstraint, Width};
use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use crate::api::client;
use crate::api::wire::{Check, NextAttempt, Persisted};
use crate::cli::input::time;
use crate::exit::{Exit, Failure};

/// Number of table rows that are held back to find the column widths.
const ROWS: usize = 1000;
/// Largest column width that later rows inherit.
const WIDTH_MAX: u16 = 60;

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For programs: one object, or one per line; nothing for an empty list
    Json,
    /// For scripts: fields separated by tabs, `-` for unknown, times in UTC
    Raw,
}

/// The output option of every command.
#[derive(Clone, Copy, Debug, Args)]
pub struct Output {
    /// Output format
    #[arg(
        id = "output",
        short = 'o',
        long = "output",
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub format: Format,
}

/// An answer that is printed as one object.
pub trait Answer: Serialize {
    /// Writes the answer for people.
    ///
    /// # Errors
    /// Returns the error of the writer.
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()>;
    /// Returns the fields of the raw lines.
    fn raw(&self) -> Vec<Vec<String>>;
}

/// An answer that is printed as a row of a list.
pub trait Row: Serialize {
    /// Singular noun for the count of rows.
    const NOUN: &'static str;
    /// Names of the table columns.
    const COLUMNS: &'static [&'static str];
    /// Returns the cells of the table row.
    fn cells(&self) -> Vec<String>;
    /// Returns the fields of the raw line.
    fn raw(&self) -> Vec<String>;
}

impl Output {
    /// Prints an answer.
    ///
    /// # Errors
    /// `Failed` if the output cannot be written. A reader that closed the output is not an error.
    pub fn print(self, answer: &impl Answer) -> Result<(), Failure> {
        let mut writer = BufWriter::new(io::stdout().lock());
        written(write(self.format, answer, &mut writer).and_then(|()| writer.flush()))
    }

    /// Checks whether the output is for people.
    #[must_use]
    pub fn is_table(self) -> bool {
        self.format == Format::Table
    }

    /// Creates a list whose rows go to standard output.
    #[must_use]
    pub fn list<R: Row>(self) -> List<R, BufWriter<StdoutLock<'static>>> {
        List::new(self.format, BufWriter::new(io::stdout().lock()))
    }
}

fn write(format: Format, answer: &impl Answer, writer: &mut dyn Write) -> io::Result<()> {
    match format {
        Format::Table => answer.write_table(writer),
        Format::Json => json_line(answer, writer),
        Format::Raw => answer.raw().into_iter().try_for_each(|fields| raw_line(&fields, writer)),
    }
}

/// Writes a value as a line of JSON.
pub(crate) fn json_line(value: &impl Serialize, mut writer: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut writer, value)?;
    writer.write_all(b"\n")
}

/// Writes fields separated by tabs, without control characters.
pub(crate) fn raw_line(fields: &[String], writer: &mut dyn Write) -> io::Result<()> {
    let fields: Vec<_> = fields.iter().map(|field| clean(field)).collect();
    writeln!(writer, "{}", fields.join("\t"))
}

/// Prints rows as they come. Table rows are held back in groups of 1,000.
pub struct List<R, W> {
    pub(crate) format: Format,
    pub(crate) writer: W,
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) widths: Vec<u16>,
    pub(crate) count: u64,
    /// The error after which nothing more is written.
    broken: Option<io::Error>,
    pub(crate) kind: std::marker::PhantomData<R>,
}

impl<R: Row, W: Write> List<R, W> {
    pub(crate) fn new(format: Format, writer: W) -> List<R, W> {
        let kind = std::marker::PhantomData;
        List { format, writer, rows: Vec::new(), widths: Vec::new(), count: 0, broken: None, kind }
    }

    /// Prints a row; breaks if nothing more can be written.
    pub fn row(&mut self, row: &R) -> ControlFlow<()> {
        if let Err(error) = self.add(row) {
            self.broken = Some(error);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn add(&mut self, row: &R) -> io::Result<()> {
        self.count += 1;
        match self.format {
            Format::Table => {
                self.rows.push(row.cells());
                if self.rows.len() < ROWS { Ok(()) } else { self.table() }
            }
            Format::Json => json_line(row, &mut self.writer),
            Format::Raw => raw_line(&row.raw(), &mut self.writer),
        }
    }

    pub(crate) fn table(&mut self) -> io::Result<()> {
        let columns = self.widths.is_empty().then_some(R::COLUMNS);
        let mut table = table(columns, self.rows.drain(..));
        for (column, width) in table.column_iter_mut().zip(&self.widths) {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(*width)));
        }
        // A constraint includes the padding of a cell.
        let widths = table.column_max_content_widths();
        self.widths = widths.into_iter().map(|width| width.min(WIDTH_MAX) + 2).collect();
        writeln!(self.writer, "{}", table.trim_fmt())
    }

    /// Prints the remaining rows and, in a table, the count.
    ///
    /// # Errors
    /// Returns the error of the request after the rows that preceded it; `Failed` if the output cannot be
    /// written. A reader that closed the output is not an error.
    pub fn finish(mut self, end: Result<(), client::Error>) -> Result<(), Failure> {
        if let Some(error) = self.broken.take() {
            return written(Err(error));
        }
        let complete = end.is_ok();
        written(self.rest(complete).and_then(|()| self.writer.flush()))?;
        end.map_err(Failure::from)
    }

    fn rest(&mut self, complete: bool) -> io::Result<()> {
        if self.format != Format::Table {
            return Ok(());
        }
        if !self.rows.is_empty() {
            self.table()?;
        }
        match self.count {
            _ if !complete => Ok(()),
            0 => writeln!(self.writer, "no {}s", R::NOUN),
            count => writeln!(self.writer, "\n{}", counted(count, R::NOUN)),
        }
    }
}

/// Creates a table in the common style.
#[must_use]
pub fn table(columns: Option<&[&str]>, rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if let Some(columns) = columns {
        table.set_header(columns);
    }
    for row in rows {
        table.add_row(row.iter().map(|cell| clean(cell)));
    }
    table
}

/// Maps a write error to a failure. A reader that closed our output (a broken pipe) is not an error.
///
/// # Errors
/// `Failed` for any other write error.
pub fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failed, format!("cannot write the output: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Replaces control characters, which a caller's text may hold and a terminal would obey. It also replaces
/// invisible characters, and characters that turn the direction of a line.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.contains(is_obeyed) {
        return text.replace(is_obeyed, "\u{fffd}").into();
    }
    text.into()
}

/// Returns whether a character is a control or format character (Unicode Cc, and most of Cf, Zl and Zp).
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}')
        || matches!(c, '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

/// Makes a CSV cell safe: without control characters, and with an apostrophe in front of a text that a
/// spreadsheet would read as a formula.
#[must_use]
pub fn harmless(text: &str) -> String {
    let text = clean(text);
    if text.starts_with(['=', '+', '-', '@', '\u{fffd}']) {
        format!("'{text}")
    } else {
        text.into()
    }
}

/// Formats a count with its noun: `1 frame`, `2 frames`, `1,000,000 frames`.
#[must_use]
pub fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// Formats a number with thousands separators: `1,000,000`.
#[must_use]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns the text, or `-` for `None`.
#[must_use]
pub fn known(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Formats an end: `until 2026-11-25 18:20:00 +07 (in 24 h)`, or `without` if there is no end.
#[must_use]
pub fn until(end: Option<Timestamp>, without: &str) -> String {
    end.map_or_else(
        || without.to_owned(),
        |end| {
            let distance = time::distance(end, Timestamp::now());
            format!("until {} ({distance})", time::local(end))
        },
    )
}

/// Writes a label and its value in columns.
///
/// # Errors
/// Returns the error of the writer.
pub fn field(writer: &mut dyn Write, label: &str, text: &str) -> io::Result<()> {
    writeln!(writer, "{label:<11} {}", clean(text))
}

/// Describes the outcome of a call from a number now, and why.
#[must_use]
pub fn outcome(check: &Check) -> String {
    let rule = check.rule.as_ref().map_or_else(String::new, |rule| format!(", {rule}"));
    if check.verdict != "pass" {
        let next = check.next_attempt.map_or_else(String::new, |NextAttempt { attempt, of }| {
            format!(
                "; the next call is attempt {attempt} and is refused, attempt {of} gets through"
            )
        });
        return format!("this number is refused ({}, {}{rule}){next}", check.verdict, check.reason);
    }
    if check.reason == "redial-grant" {
        let why = match &check.granted {
            Some(granted) => format!("redial grant {}", until(Some(granted.until), "on")),
            None => "the next call opens a redial grant".to_owned(),
        };
        return format!("{why}, so this number passes ({}{rule})", check.reason);
    }
    if check.policy_verdict == "pass" {
        return format!("this number passes ({}{rule})", check.reason);
    }
    let policy = format!("this call would be refused ({}{rule})", check.policy_verdict);
    match check.override_until {
        Some(end) => {
            format!("not refused now: override is on {}. Without it {policy}", until(Some(end), ""))
        }
        None if check.mode == "observe" => {
            format!("not refused yet: mode is observe. In enforce {policy}")
        }
        None => format!("not refused: {}. Otherwise {policy}", check.reason),
    }
}

/// Warns on standard error if a change would not survive a restart.
pub fn warn_unless_persisted(persisted: &Persisted, dry_run: bool) {
    if dry_run {
        return;
    }
    match persisted {
        Persisted::Yes => {}
        Persisted::Pending => eprintln!(
            "palang: NOT ON DISK YET: the change is in force, but the disk has not answered; a \
             restart of this machine may undo it"
        ),
        Persisted::No(why) => eprintln!(
            "palang: NOT ON DISK: the change is in force, but a restart of this machine undoes it: {}",
            clean(why)
        ),
    }
}

/// Formats a count: `1 frame`, `2 frames`.
pub fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Word(String);

    impl Row for Word {
        const NOUN: &'static str = "word";
        const COLUMNS: &'static [&'static str] = &["word", "length"];

        fn cells(&self) -> Vec<String> {
            vec![self.0.clone(), self.0.len().to_string()]
        }

        fn raw(&self) -> Vec<String> {
            self.cells()
        }
    }

    fn list(format: Format, words: impl IntoIterator<Item = String>) -> String {
        let mut text = Vec::new();
        let mut list = List::new(format, &mut text);
        for word in words {
            assert!(list.row(&Word(word)).is_continue());
        }
        list.finish(Ok(())).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_list_in_every_format() {
        let words = || ["gate".to_owned(), "\u{1b}[2J\t".to_owned()];
        assert_eq!(list(Format::Json, words()), "\"gate\"\n\"\\u001b[2J\\t\"\n");
        assert_eq!(list(Format::Raw, words()), "gate\t4\n\u{fffd}[2J\u{fffd}\t5\n");
        let table = list(Format::Table, words());
        assert_eq!(table, " word   length\n gate   4\n \u{fffd}[2J\u{fffd}  5\n\n2 words\n");
    }

    #[test]
    fn an_empty_list() {
        assert_eq!(list(Format::Table, []), "no words\n");
        assert_eq!(list(Format::Json, []) + &list(Format::Raw, []), "");
    }

    #[test]
    fn a_long_table_keeps_its_columns() {
        let text = list(Format::Table, (0..2500).map(|index| format!("word{index}")));
        assert_eq!(text.matches("length").count(), 1);
        assert_eq!(text.lines().count(), 1 + 2500 + 2);
        let column = |line: &str| line.rfind("  ");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(column(lines[1001]), column(lines[1002]));
        assert!(text.ends_with("\n2,500 words\n"), "{text}");
    }

    #[test]
    fn list_that_breaks_off_has_no_count() {
        let mut text = Vec::new();
        let mut list = List::new(Format::Table, &mut text);
        assert!(list.row(&Word("gate".into())).is_continue());
        let failure = list.finish(Err(client::Error::Answer("broke off".into()))).unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("gate") && !text.contains("1 word"), "{text}");
    }

    #[test]
    fn outcomes() {
        let check = Check {
            number: "6281234567890".into(),
            verdict: "pass".into(),
            policy_verdict: "drop".into(),
            reason: "observe".into(),
            rule: Some("block 62812*".into()),
            mode: "observe".into(),
            override_until: None,
            granted: None,
            next_attempt: None,
        };
        assert_eq!(
            outcome(&check),
            "not refused yet: mode is observe. In enforce this call would be refused (drop, block 62812*)"
        );
        let overridden = Check { override_until: Some(Timestamp::MAX), ..check.clone() };
        assert!(outcome(&overridden).starts_with("not refused now: override is on until "));
        let refused =
            Check { verdict: "drop".into(), reason: "blocked-prefix".into(), ..check.clone() };
        assert_eq!(
            outcome(&refused),
            "this number is refused (drop, blocked-prefix, block 62812*)"
        );
        let free = Check {
            policy_verdict: "pass".into(),
            reason: "not-blocked".into(),
            rule: None,
            ..check
        };
        assert_eq!(outcome(&free), "this number passes (not-blocked)");
    }

    #[test]
    fn numbers_with_thousands() {
        let texts = [0, 999, 1000, 1_000_000].map(thousands);
        assert_eq!(texts, ["0", "999", "1,000", "1,000,000"]);
    }
}
