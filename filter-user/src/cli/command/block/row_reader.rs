//! Reads files of blocks: CSV as spreadsheets write it, a plain list of numbers, a JSON array, or newline-delimited JSON.

use std::fmt;
use std::io::{self, BufRead, BufReader, Cursor, Read};

use encoding_rs_io::DecodeReaderBytesBuilder;
use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::Value;

use crate::cli::command::block::lines::{Lines, Place};
use crate::cli::command::block::rows::{BadRow, FileRow, Format, HEADER, from_cell};

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

/// Receives the line number and either the row or what is wrong with it.
pub type Each<'a> = dyn FnMut(u64, Result<FileRow, BadRow>) -> io::Result<()> + 'a;

/// Bytes of the beginning of a file that are looked at before its rows.
const BEGIN: usize = 1 << 16;

/// Reads a file row by row. Without a format, the first character decides. UTF-16 is read if it begins with its
/// byte-order mark, as spreadsheets write it.
///
/// # Errors
/// `File` if the file does not have the format; `Io` if reading it or `each` fails.
pub fn read(reader: impl Read, format: Option<Format>, each: &mut Each<'_>) -> Result<(), Error> {
    // Bytes without such a mark stay as they are: a row in another character set is a bad row.
    let mut decoded =
        DecodeReaderBytesBuilder::new().utf8_passthru(true).strip_bom(true).build(reader);
    // The decoder returns a few bytes at first, and the whole first line is looked at.
    let mut begin = Vec::new();
    decoded.by_ref().take(BEGIN as u64).read_to_end(&mut begin)?;
    let mut reader = BufReader::with_capacity(BEGIN, Cursor::new(begin).chain(decoded));
    let start = reader.fill_buf()?;
    if start.starts_with(b"PK\x03\x04") {
        let wrong =
            "this is a workbook of a spreadsheet: save it as \"CSV UTF-8\", and import that file";
        return Err(Error::File(wrong.to_owned()));
    }
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

fn csv_rows(mut reader: impl BufRead, each: &mut Each<'_>) -> Result<(), Error> {
    let place = Place::default();
    let delimiter = delimiter(&mut reader, &place)?;
    let first = first_line(reader.fill_buf()?);
    let is_list = !first.contains(&delimiter) && is_number(first);
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(!is_list)
        .trim(csv::Trim::Headers)
        .from_reader(Lines { reader, place: &place });
    let columns =
        if is_list { vec![HEADER[0]] } else { columns(reader.byte_headers().map_err(of_csv)?)? };
    let header = csv::ByteRecord::from(columns);
    let mut record = csv::ByteRecord::new();
    loop {
        let read = reader.read_byte_record(&mut record);
        // The position in the record is that of the empty lines before it.
        let inner: usize = record.iter().map(ends).sum();
        let line = place.line() - inner as u64;
        match read {
            Ok(false) => return Ok(()),
            Ok(true) => {
                let more =
                    record.iter().skip(header.len()).find(|cell| !cell.trim_ascii().is_empty());
                if more.is_some() {
                    each(line, Err(BadRow("it has text in a column without a name".to_owned())))?;
                    continue;
                }
                record.truncate(header.len());
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

/// Returns the separator of the columns. A line `sep=;`, as Excel writes it, is read.
fn delimiter(reader: &mut impl BufRead, place: &Place) -> Result<u8, Error> {
    let line = first_line(reader.fill_buf()?);
    if let Some(rest) = line.strip_prefix(b"sep=")
        && let [separator] = rest
    {
        let separator = *separator;
        let mut read = Vec::new();
        reader.read_until(b'\n', &mut read)?;
        place.ends.set(1);
        return Ok(separator);
    }
    let count = |wanted: u8| line.iter().filter(|byte| **byte == wanted).count();
    let most = [b',', b';', b'\t']
        .into_iter()
        .max_by_key(|separator| (count(*separator), *separator == b','));
    Ok(most.unwrap_or(b','))
}

/// Returns the first line of some bytes without its end.
fn first_line(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    bytes[..end].trim_ascii_end()
}

/// Returns whether a line is a number or a prefix, so that the file is a list without a header.
fn is_number(line: &[u8]) -> bool {
    line.iter().any(u8::is_ascii_digit) && !line.iter().any(u8::is_ascii_alphabetic)
}

/// Other names of the columns, in English and Indonesian.
const OTHER_NAMES: [(&str, &str); 22] = [
    ("caller", "number"),
    ("hp", "number"),
    ("msisdn", "number"),
    ("no", "number"),
    ("no hp", "number"),
    ("no telepon", "number"),
    ("nomor", "number"),
    ("nomor hp", "number"),
    ("nomor telepon", "number"),
    ("phone", "number"),
    ("phone number", "number"),
    ("telepon", "number"),
    ("berakhir", "expires"),
    ("berlaku sampai", "expires"),
    ("end", "expires"),
    ("sampai", "expires"),
    ("until", "expires"),
    ("alasan", "reason"),
    ("comment", "reason"),
    ("keterangan", "reason"),
    ("note", "reason"),
    ("asal", "origin"),
];

/// Returns the names of the columns, without empty ones at the end.
///
/// # Errors
/// `File` with the first column that is unknown, repeated or missing.
fn columns(header: &csv::ByteRecord) -> Result<Vec<&'static str>, Error> {
    let refused = |wrong: String| {
        Err(Error::File(format!(
            "line 1: {wrong}; the columns of a CSV file are {}, with a comma, a semicolon or a tab between them",
            HEADER.join(",")
        )))
    };
    let mut names = Vec::new();
    let last = header.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1);
    for name in header.iter().take(last) {
        let text = String::from_utf8_lossy(name);
        let plain = text.to_lowercase().replace(['.', '_'], " ");
        let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
        let known = HEADER.into_iter().find(|known| *known == plain);
        let other =
            || OTHER_NAMES.iter().find(|(other, _)| *other == plain).map(|(_, known)| *known);
        let Some(known) = known.or_else(other) else {
            return refused(format!("unknown column {text:?}"));
        };
        if names.contains(&known) {
            return refused(format!("column {known:?} appears twice"));
        }
        names.push(known);
    }
    if names.contains(&HEADER[0]) {
        Ok(names)
    } else {
        refused("column \"number\" is missing".to_owned())
    }
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
        let row = text.trim_ascii();
        if !row.is_empty() {
            each(line, serde_json::from_slice(row).map_err(|error| of_json(&error)))?;
        }
    }
    Ok(())
}

fn ends(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

fn array(reader: impl BufRead, each: &mut Each<'_>) -> Result<(), Error> {
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
    use crate::cli::command::block::own_settings::OwnRedial;
    use crate::cli::command::block::row_writer::Writer;
    use crate::cli::command::block::rows::{End, FORMULA};
    use crate::model::redial::RedialPolicy;
    use crate::model::refuse::Refuse;
    use filter_common::answer::code::Code;
    use jiff::Timestamp;
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
            assert_eq!(first.expires, End::At("2026-11-25T11:20:00Z".parse().unwrap()));
            assert_eq!(rows[1].1.as_ref().unwrap().expires, End::Missing);
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
    fn csv_header_with_a_column_too_many_or_without_number_is_refused() {
        for (header, part) in [
            ("number,expiry,reason", "unknown column \"expiry\""),
            ("expires,reason", "\"number\" is missing"),
            ("number,expires,reason,number", "\"number\" appears twice"),
            ("number,expires,reason,Nomor", "\"number\" appears twice"),
            ("number|expires|reason", "unknown column \"number|expires|reason\""),
            ("number,,reason", "unknown column \"\""),
        ] {
            let error = rows(&format!("{header}\n0812,,prank\n"), None).unwrap_err();
            assert!(error.starts_with("line 1: ") && error.contains(part), "{error}");
        }
    }

    /// Checks that no row becomes permanent by mistake.
    #[test]
    fn row_without_an_end_is_bad_and_permanent_is_a_word() {
        let csv = rows("number,expires,reason\n0812,,prank\n0813,Permanent,prank\n", None).unwrap();
        let json = "{\"number\":\"0812\",\"reason\":\"prank\"}\n\
            {\"number\":\"0813\",\"expires\":\"permanent\",\"reason\":\"prank\"}\n";
        let json = rows(json, None).unwrap();
        for rows in [csv, json] {
            let rows: Vec<_> =
                rows.into_iter().map(|(line, row)| row.unwrap().on_line(line)).collect();
            let BadRow(error) = rows[0].as_ref().unwrap_err();
            assert!(error.starts_with("it has no end: write a time or `permanent`"), "{error}");
            assert_eq!(rows[1].as_ref().unwrap().expires, None);
        }
    }

    fn utf_16(text: &str, little: bool) -> Vec<u8> {
        let bytes = |unit: u16| if little { unit.to_le_bytes() } else { unit.to_be_bytes() };
        "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(bytes).collect()
    }

    #[test]
    fn files_of_spreadsheets_give_the_rows_of_a_plain_file() {
        let plain = "number,expires,reason\n0812,2026-11-25T11:20:00Z,\"prank; again\"\n\n0813,permanent,é\n";
        let expected = rows(plain, None).unwrap();
        let lines: Vec<_> = expected.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 4]);
        let semicolons = "Nomor Telepon;Berlaku_Sampai;Keterangan;;\r\n\
            0812;2026-11-25T11:20:00Z;\"prank; again\";;\r\n\r\n0813;permanent;é;;\r\n";
        let tabs =
            "No. HP\tuntil\tNote\n0812\t2026-11-25T11:20:00Z\tprank; again\n\n0813\tpermanent\té\n";
        for text in [semicolons, tabs] {
            for bytes in [
                text.as_bytes().to_vec(),
                format!("\u{feff}{text}").into_bytes(),
                utf_16(text, true),
                utf_16(text, false),
            ] {
                let mut found = Vec::new();
                read(&bytes[..], None, &mut |line, row| {
                    found.push((line, row));
                    Ok(())
                })
                .unwrap();
                assert_eq!(found, expected, "{}", String::from_utf8_lossy(&bytes));
            }
        }
        let with_separator = rows(&format!("sep=;\r\n{semicolons}"), None).unwrap();
        let lines: Vec<_> = with_separator.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [3, 5]);
        let text_beside = rows("number,reason,\n0812,prank,x\n", None).unwrap();
        assert_bad(&text_beside, &[(2, "a column without a name")]);
    }

    #[test]
    fn list_of_numbers_needs_no_header() {
        let list = "0812-3456-7890\n'+62 812 3456 7891\n\n62811*\r\n";
        let found = rows(list, None).unwrap();
        let found: Vec<_> =
            found.iter().map(|(line, row)| (*line, &*row.as_ref().unwrap().number)).collect();
        assert_eq!(found, [(1, "0812-3456-7890"), (2, "+62 812 3456 7891"), (4, "62811*")]);
        let second = rows("0812\n0813,x\n", None).unwrap();
        assert_bad(&second, &[(2, "2 fields instead of 1")]);
    }

    #[test]
    fn workbook_is_refused_with_what_to_do() {
        let error = rows("PK\u{3}\u{4}…", None).unwrap_err();
        assert!(error.contains("save it as \"CSV UTF-8\""), "{error}");
    }

    #[test]
    fn array_and_lines_give_the_same_rows() {
        let good = r#"{"number":"0812","expires":"permanent","reason":"prank","observe":true}"#;
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
                expires: End::Permanent,
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
                    let expires = End::of(expires.map(|time| Timestamp::from_second(time).unwrap()));
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
