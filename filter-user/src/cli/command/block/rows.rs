//! Reads and writes files of blocks: CSV with a header, a JSON array, or newline-delimited JSON.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, Read};

use clap::ValueEnum;
use jiff::Timestamp;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::wire::{Block, ImportRow};
use crate::cli::command::block::own_settings::{OwnRedial, refuse_text};
use crate::cli::input::time;
use crate::model::refuse::Refuse;

/// Format of a file of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Header number,expires,reason,author,origin,observe,redial,refuse; the last five columns are optional
    Csv,
    /// One object per line (export), or an array of objects, with the same names
    Json,
}

pub(super) const HEADER: [&str; 8] =
    ["number", "expires", "reason", "author", "origin", "observe", "redial", "refuse"];
const REQUIRED: usize = 3;

/// Holds one row of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRow {
    /// Number, or prefix with `*`.
    pub number: String,
    /// End of the block; `None` is permanent. The field is required, so that nobody omits it by mistake.
    #[serde(deserialize_with = "end")]
    pub expires: Option<Timestamp>,
    /// Reason.
    pub reason: String,
    /// Author; may be empty.
    #[serde(default)]
    pub author: String,
    /// Origin; may be empty.
    #[serde(default)]
    pub origin: String,
    /// Only observes.
    #[serde(default, deserialize_with = "flag")]
    pub observe: bool,
    /// `3/10m/30m` or `off`; empty: as configured.
    #[serde(default)]
    pub redial: OwnRedial,
    /// `600`, another code, or `drop`; empty: as the trunk refuses.
    #[serde(default, with = "refuse_text")]
    pub refuse: Option<Refuse>,
}

fn end<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let time = text.map(|text| time::point(text.trim()).map_err(serde::de::Error::custom));
    time.transpose()
}

fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<bool>::deserialize(deserializer)?.unwrap_or(false))
}

impl FileRow {
    /// Applies `change` to each text of the row.
    pub(super) fn with_texts(self, change: impl Fn(String) -> String) -> FileRow {
        FileRow {
            number: change(self.number),
            reason: change(self.reason),
            author: change(self.author),
            origin: change(self.origin),
            ..self
        }
    }

    /// Converts the row to a row of an API import request.
    #[must_use]
    pub fn on_line(self, line: u64) -> ImportRow {
        let FileRow { number, expires, reason, author, origin, observe, redial, refuse } = self;
        let (redial, no_redial) = match redial {
            OwnRedial::AsConfigured => (None, false),
            OwnRedial::Off => (None, true),
            OwnRedial::Own(redial) => (Some(redial), false),
        };
        ImportRow {
            line,
            number,
            expires,
            reason,
            author,
            origin,
            observe,
            redial,
            no_redial,
            refuse: refuse.map(Refuse::name),
        }
    }
}

impl TryFrom<Block> for FileRow {
    type Error = String;

    /// Converts a block. A refusal that this program does not know is an error: the file would lack it.
    fn try_from(block: Block) -> Result<FileRow, String> {
        let refuse = block.refuse.as_deref().map(Refuse::named).transpose().map_err(|error| {
            format!(
                "block {}: refuse: {error}; use the palang of the daemon's version",
                block.number
            )
        })?;
        let Block { number, expires, reason, author, origin, observe, .. } = block;
        let redial = match block.redial {
            _ if block.no_redial => OwnRedial::Off,
            Some(redial) => OwnRedial::Own(redial),
            None => OwnRedial::AsConfigured,
        };
        Ok(FileRow { number, expires, reason, author, origin, observe, redial, refuse })
    }
}

/// Characters with which a formula begins in a spreadsheet.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// Puts an apostrophe in front of a text that a spreadsheet would read as a formula, or that begins
/// with an apostrophe itself. [`from_cell`] restores the text.
pub(super) fn to_cell(text: String) -> String {
    if text.starts_with(FORMULA) || text.starts_with('\'') { format!("'{text}") } else { text }
}

/// Restores the text that [`to_cell`] changed. Spreadsheets write such cells, too.
fn from_cell(mut cell: String) -> String {
    let rest = cell.strip_prefix('\'');
    if rest.is_some_and(|rest| rest.starts_with(FORMULA) || rest.starts_with('\'')) {
        cell.remove(0);
    }
    cell
}

/// Reasons why a file cannot be read to its end.
#[derive(Debug)]
pub enum Error {
    /// Reading the file or handing over a row failed.
    Io(io::Error),
    /// The file does not have the expected format, so its rows cannot be found.
    File(String),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Io(error)
    }
}

/// The mistake in a row, without its position: the caller prints the line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRow(pub(crate) String);

/// Receives the line number and either the row or what is wrong with it.
pub type Each<'a> = dyn FnMut(u64, Result<FileRow, BadRow>) -> io::Result<()> + 'a;

/// Reads a file row by row. Without a format, the first character decides.
///
/// # Errors
/// `File` if the file does not have the format; `Io` if reading it or `each` fails.
pub fn read(
    mut reader: impl BufRead,
    format: Option<Format>,
    each: &mut Each<'_>,
) -> Result<(), Error> {
    let start = reader.fill_buf()?;
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let first = start.iter().copied().find(|byte| !byte.is_ascii_whitespace());
    let json = matches!(first, Some(b'[' | b'{'));
    match format {
        // An empty file is an export without blocks, as JSON lines.
        None if first.is_none() => Ok(()),
        Some(Format::Csv) => csv_rows(reader, each),
        None if !json => csv_rows(reader, each),
        Some(Format::Json) | None if first == Some(b'[') => array(reader, each),
        Some(Format::Json) | None => json_lines(reader, each),
    }
}

fn csv_rows(reader: impl BufRead, each: &mut Each<'_>) -> Result<(), Error> {
    let place = Place::default();
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::Headers)
        .from_reader(Lines { reader, place: &place });
    let header = reader.byte_headers().map_err(of_csv)?.clone();
    check(&header)?;
    let mut record = csv::ByteRecord::new();
    loop {
        let read = reader.read_byte_record(&mut record);
        // The position in the record is that of the empty lines before it.
        let inner: usize = record.iter().map(ends).sum();
        let line = place.line() - inner as u64;
        match read {
            Ok(false) => return Ok(()),
            Ok(true) => {
                let row = record.deserialize(Some(&header));
                let row = row.map(|row: FileRow| row.with_texts(from_cell));
                each(line, row.map_err(|error| of_row(&error)))?;
            }
            Err(error) if error.is_io_error() => return Err(of_csv(error)),
            // The reader continues after a bad record.
            Err(error) => each(line, Err(of_row(&error)))?,
        }
    }
}

/// Checks the names of the columns.
///
/// # Errors
/// `File` with the first column that is unknown, repeated or missing.
fn check(header: &csv::ByteRecord) -> Result<(), Error> {
    let refused = |wrong: String| {
        Err(Error::File(format!(
            "line 1: {wrong}; the header of a CSV file is {}",
            HEADER.join(",")
        )))
    };
    for (index, name) in header.iter().enumerate() {
        let text = String::from_utf8_lossy(name);
        if !HEADER.contains(&&*text) {
            return refused(format!("unknown column {text:?}"));
        }
        if header.iter().take(index).any(|before| before == name) {
            return refused(format!("column {text:?} appears twice"));
        }
    }
    let there = |name: &str| header.iter().any(|is| is == name.as_bytes());
    let missing = HEADER[..REQUIRED].iter().find(|name| !there(name));
    missing.map_or(Ok(()), |name| refused(format!("column {name:?} is missing")))
}

fn of_csv(error: csv::Error) -> Error {
    if error.is_io_error() { Error::Io(error.into()) } else { Error::File(error.to_string()) }
}

/// Describes an error without its position: the caller prints the line.
fn of_row(error: &csv::Error) -> BadRow {
    BadRow(if let csv::ErrorKind::Deserialize { err, .. } = error.kind() {
        err.kind().to_string()
    } else if let csv::ErrorKind::UnequalLengths { expected_len, len, .. } = error.kind() {
        format!("{len} fields instead of {expected_len}")
    } else {
        error.to_string()
    })
}

/// Describes an error without its position: the caller prints the line, and the column does not help.
fn of_json(error: &serde_json::Error) -> BadRow {
    let text = error.to_string();
    BadRow(text.split(" at line ").next().unwrap_or_default().to_owned())
}

fn json_lines(mut reader: impl BufRead, each: &mut Each<'_>) -> Result<(), Error> {
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        if reader.read_until(b'\n', &mut text)? == 0 {
            break;
        }
        let row = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text).trim_ascii();
        if !row.is_empty() {
            each(line, serde_json::from_slice(row).map_err(|error| of_json(&error)))?;
        }
    }
    Ok(())
}

/// Counts the lines that a reader has passed.
#[derive(Default)]
struct Place {
    ends: Cell<u64>,
    /// Whether a line was started and not finished.
    within: Cell<bool>,
}

impl Place {
    /// Returns the line of the last byte read, from 1.
    fn line(&self) -> u64 {
        self.ends.get() + u64::from(self.within.get())
    }
}

/// Returns one line per read, so that a buffering reader never runs past the end of a line.
struct Lines<'a, R> {
    reader: R,
    place: &'a Place,
}

impl<R: BufRead> Read for Lines<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.reader.fill_buf()?;
        let bytes = &bytes[..bytes.len().min(buffer.len())];
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(bytes.len(), |end| end + 1);
        buffer[..length].copy_from_slice(&bytes[..length]);
        self.reader.consume(length);
        if let Some(last) = buffer[..length].last() {
            self.place.within.set(*last != b'\n');
            self.place.ends.set(self.place.ends.get() + u64::from(*last == b'\n'));
        }
        Ok(length)
    }
}

fn ends(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

fn array(mut reader: impl BufRead, each: &mut Each<'_>) -> Result<(), Error> {
    if reader.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
        reader.consume(3);
    }
    let place = Place::default();
    let mut failed = None;
    let mut json = serde_json::Deserializer::from_reader(Lines { reader, place: &place });
    let rows = Rows { place: &place, each, failed: &mut failed };
    let result = json.deserialize_seq(rows).and_then(|()| json.end());
    match (failed, result) {
        (Some(error), _) => Err(Error::Io(error)),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) if error.is_io() => Err(Error::Io(error.into())),
        (None, Err(error)) => Err(Error::File(format!("not JSON: {error}"))),
    }
}

struct Rows<'a, 'b> {
    place: &'a Place,
    each: &'a mut Each<'b>,
    failed: &'a mut Option<io::Error>,
}

impl<'de> Visitor<'de> for Rows<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of blocks")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        while let Some((line, value)) = rows.next_element_seed(Placed(self.place))? {
            let row = FileRow::deserialize(value).map_err(|error| of_json(&error));
            if let Err(error) = (self.each)(line, row) {
                *self.failed = Some(error);
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// Deserializes a value together with the line where it begins.
struct Placed<'a>(&'a Place);

impl<'de> DeserializeSeed<'de> for Placed<'_> {
    type Value = (u64, Value);

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(u64, Value), D::Error> {
        Ok((self.0.line(), Value::deserialize(json)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command::block::row_writer::Writer;
    use crate::model::redial::RedialPolicy;
    use filter_common::answer::code::Code;
    use proptest::prelude::*;

    type Row = (u64, Result<FileRow, BadRow>);

    fn rows(text: &str, format: Option<Format>) -> Result<Vec<Row>, String> {
        let mut rows = Vec::new();
        read(text.as_bytes(), format, &mut |line, row| {
            rows.push((line, row));
            Ok(())
        })
        .map_err(|error| match error {
            Error::Io(error) => error.to_string(),
            Error::File(message) => message,
        })?;
        Ok(rows)
    }

    #[track_caller]
    fn assert_bad(rows: &[Row], expected: &[(u64, &str)]) {
        let bad: Vec<_> = rows
            .iter()
            .filter_map(|(line, row)| row.as_ref().err().map(|message| (*line, message.0.as_str())))
            .collect();
        assert_eq!(bad.len(), expected.len(), "{bad:?}");
        for ((line, message), (expected_line, part)) in bad.iter().zip(expected) {
            assert_eq!(line, expected_line, "{bad:?}");
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    }

    const CSV: &str = "\u{feff}number,expires,reason,author,origin\n\
        0812-3456-7890,2026-11-25T11:20:00Z,\"prank, \"\"again\"\"\",siti,operator\n\
        62811*,,for good,,\n\
        \n\
        0813,tomorrow,prank,,\n\
        0814,2026-11-25T11:20:00Z,\"two\nlines\",,\n\
        0815,2026-11-25T11:20:00Z\n\
        0816,2026-11-25T11:20:00Z,prank,,\n";

    #[test]
    fn bad_rows_of_csv_are_named_by_line() {
        for text in [CSV.to_owned(), CSV.replace('\n', "\r\n")] {
            let rows = rows(&text, None).unwrap();
            assert_bad(&rows, &[(5, "\"tomorrow\" is not a time"), (8, "2 fields instead of 5")]);
            let lines: Vec<_> = rows.iter().map(|(line, _)| *line).collect();
            assert_eq!(lines, [2, 3, 5, 6, 8, 9]);
            let first = rows[0].1.as_ref().unwrap();
            assert_eq!(first.reason, "prank, \"again\"");
            assert_eq!(first.expires, Some("2026-11-25T11:20:00Z".parse().unwrap()));
            assert_eq!(rows[1].1.as_ref().unwrap().expires, None);
        }
    }

    #[test]
    fn csv_row_in_another_charset_is_bad() {
        let text = b"number,expires,reason\n0812,,caf\xe9\n0813,,prank\n";
        let mut seen = Vec::new();
        read(&text[..], None, &mut |line, row| {
            seen.push((line, row.is_ok()));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [(2, false), (3, true)]);
    }

    #[test]
    fn block_with_a_refusal_of_a_newer_daemon_is_not_exported_without_it() {
        let block = |refuse: Option<&str>| -> Block {
            serde_json::from_value(serde_json::json!({
                "id": uuid::Uuid::nil(), "rule": 1, "number": "0812", "created": "2026-01-01T00:00:00Z",
                "expires": null, "reason": "", "author": "", "origin": "operator", "node": "",
                "observe": false, "refuse": refuse
            }))
            .unwrap()
        };
        assert!(FileRow::try_from(block(None)).is_ok_and(|row| row.refuse.is_none()));
        assert!(FileRow::try_from(block(Some("486"))).is_ok_and(|row| row.refuse.is_some()));
        let error = FileRow::try_from(block(Some("699"))).unwrap_err();
        assert!(error.starts_with("block 0812: refuse: \"699\" is no refusal"), "{error}");
    }

    #[test]
    fn csv_header_that_would_make_blocks_permanent_is_refused() {
        for (header, part) in [
            ("number,expiry,reason", "unknown column \"expiry\""),
            ("number,reason", "\"expires\" is missing"),
            ("number,expires,reason,number", "\"number\" appears twice"),
            ("number;expires;reason", "unknown column \"number;expires;reason\""),
        ] {
            let error = rows(&format!("{header}\n0812,,prank\n"), None).unwrap_err();
            assert!(error.starts_with("line 1: ") && error.contains(part), "{error}");
        }
        let error = rows("{\"number\":\"0812\",\"reason\":\"prank\"}\n", None).unwrap();
        assert_bad(&error, &[(1, "missing field `expires`")]);
    }

    #[test]
    fn array_and_lines_give_the_same_rows() {
        let good = r#"{"number":"0812","expires":null,"reason":"prank","observe":true}"#;
        let bad = r#"{"number":812,"expires":null,"reason":"prank"}"#;
        let lines = rows(&format!("{good}\n\n{bad}\n{{\n{good}"), None).unwrap();
        assert_bad(&lines, &[(3, "invalid type: integer"), (4, "EOF")]);
        let array = format!("\n[\n{good},\n {bad}, {{\n\n}}\n,\n{good}\n]\n");
        let array = rows(&array, None).unwrap();
        assert_bad(&array, &[(4, "invalid type: integer"), (4, "missing field")]);
        for rows in [lines, array] {
            let good: Vec<_> = rows.iter().filter_map(|(_, row)| row.as_ref().ok()).collect();
            assert_eq!(good.len(), 2);
            assert!(good[0] == good[1] && good[0].observe && good[0].author.is_empty());
        }
        let unknown = r#"[{"number":"0812","expires":null,"reason":"prank","observ":true}]"#;
        assert_bad(&rows(unknown, None).unwrap(), &[(1, "unknown field `observ`")]);
    }

    #[test]
    fn truncated_array_is_an_error() {
        let error = rows("[{\"number\":\"0812\"", Some(Format::Json)).unwrap_err();
        assert!(error.starts_with("not JSON: EOF"), "{error}");
        assert!(rows("[]x", None).is_err());
        assert!(rows("[]", None).unwrap().is_empty());
    }

    #[test]
    fn csv_cells_are_not_formulas() {
        for reason in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''", "'"] {
            let row = FileRow {
                number: "62812".into(),
                expires: None,
                reason: reason.into(),
                author: reason.into(),
                origin: "operator".into(),
                observe: false,
                redial: OwnRedial::AsConfigured,
                refuse: None,
            };
            let mut writer = Writer::new(Vec::new(), Format::Csv).unwrap();
            writer.row(&row).unwrap();
            let text = writer.finish().unwrap();
            let mut reader = csv::Reader::from_reader(&text[..]);
            let cells = reader.records().next().unwrap().unwrap();
            assert!(cells.iter().all(|cell| !cell.starts_with(FORMULA)), "{cells:?}");
            let text = String::from_utf8(text).unwrap();
            assert_eq!(rows(&text, None).unwrap(), [(2, Ok(row))]);
        }
        // Other texts stay unchanged.
        for text in ["'tis a prank", "prank", ""] {
            assert_eq!(from_cell(text.into()), text);
        }
        assert_eq!(from_cell("'+62812".into()), "+62812");
    }

    fn refusals() -> Vec<Refuse> {
        let codes = Code::ALL.into_iter().filter(|code| *code != Code::MovedTemporarily);
        codes.map(Refuse::Reply).chain([Refuse::Drop]).collect()
    }

    #[test]
    fn refusal_that_is_not_offered_is_a_bad_row_with_the_reason() {
        let text = "number,expires,reason,refuse\n0812,,prank,486\n0813,,prank,\n0814,,prank,503\n\
            0815,,prank,drop\n0816,,prank,Drop\n0817,,prank,302\n";
        let csv = rows(text, None).unwrap();
        let expected = [
            (4, "refuse: 503 is not offered: a carrier that gets it takes the trunk away"),
            (6, "refuse: \"Drop\" is no refusal: write \"600\""),
            (7, "refuse: 302 is not offered: a carrier has to follow it"),
        ];
        assert_bad(&csv, &expected);
        let good: Vec<_> =
            csv.iter().filter_map(|(_, row)| row.as_ref().ok()).map(|row| row.refuse).collect();
        assert_eq!(good, [Some(Refuse::Reply(Code::BusyHere)), None, Some(Refuse::Drop)]);
        let json = r#"{"number":"0812","expires":null,"reason":"prank","refuse":"607"}"#;
        assert_bad(&rows(json, None).unwrap(), &[(1, "refuse: 607 is not offered")]);
    }

    proptest! {
        #[test]
        fn exported_rows_import_unchanged(
            given in prop::collection::vec(
                (
                    ".*",
                    prop::option::of(0i64..4_000_000_000),
                    "['=+@-]{0,2}.*",
                    ".*",
                    ".*",
                    any::<bool>(),
                    (0u8..=8, 60u32..=86_400),
                    prop::option::of(prop::sample::select(refusals())),
                ),
                0..8,
            ),
            json: bool,
        ) {
            let given: Vec<_> = given
                .into_iter()
                .map(|(number, expires, reason, author, origin, observe, (attempts, window), refuse)| {
                    let redial = match attempts {
                        0 => OwnRedial::AsConfigured,
                        1 => OwnRedial::Off,
                        attempts => OwnRedial::Own(RedialPolicy { attempts, window, grant: window }),
                    };
                    let expires = expires.map(|time| Timestamp::from_second(time).unwrap());
                    FileRow { number, expires, reason, author, origin, observe, redial, refuse }
                })
                .collect();
            let format = if json { Format::Json } else { Format::Csv };
            let mut writer = Writer::new(Vec::new(), format).unwrap();
            for row in &given {
                writer.row(row).unwrap();
            }
            let text = String::from_utf8(writer.finish().unwrap()).unwrap();
            let found: Result<Vec<_>, _> =
                rows(&text, None).unwrap().into_iter().map(|(_, row)| row).collect();
            prop_assert_eq!(found, Ok(given));
        }
    }
}
