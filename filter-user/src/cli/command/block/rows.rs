//! Rows of a file of blocks, and their fields.

use clap::ValueEnum;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::api::wire::{Block, ImportRow};
use crate::cli::command::block::own_settings::{OwnRedial, refuse_text};
use crate::cli::input::time;
use crate::model::refuse::Refuse;

/// Format of a file of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Header number,expires,reason,author,origin,observe,redial,refuse; only `number` is needed
    Csv,
    /// One object per line (export), or an array of objects, with the same names
    Json,
}

pub(super) const HEADER: [&str; 8] =
    ["number", "expires", "reason", "author", "origin", "observe", "redial", "refuse"];

/// Holds one row of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRow {
    /// Number, or prefix with `*`.
    pub number: String,
    /// End of the block.
    #[serde(default)]
    pub expires: End,
    /// Reason; may be empty if the import gives one.
    #[serde(default)]
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

/// The end of a block in a file. An empty cell is not a permanent block: it may be a mistake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// Nothing is written.
    #[default]
    Missing,
    /// `permanent`
    Permanent,
    /// A time.
    At(Timestamp),
}

impl End {
    /// Returns the end of a block in force; `None`: it is permanent.
    pub(super) fn of(expires: Option<Timestamp>) -> End {
        expires.map_or(End::Permanent, End::At)
    }
}

const PERMANENT: &str = "permanent";

impl Serialize for End {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            End::Missing => serializer.serialize_none(),
            End::Permanent => serializer.serialize_str(PERMANENT),
            End::At(time) => time.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for End {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<End, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        match text.trim() {
            "" => Ok(End::Missing),
            text if text.eq_ignore_ascii_case(PERMANENT) => Ok(End::Permanent),
            text => time::point(text).map(End::At).map_err(serde::de::Error::custom),
        }
    }
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
    ///
    /// # Errors
    /// [`BadRow`] if the row has no end.
    pub fn on_line(self, line: u64) -> Result<ImportRow, BadRow> {
        let FileRow { number, expires, reason, author, origin, observe, redial, refuse } = self;
        let (redial, no_redial) = match redial {
            OwnRedial::AsConfigured => (None, false),
            OwnRedial::Off => (None, true),
            OwnRedial::Own(redial) => (Some(redial), false),
        };
        let expires = match expires {
            End::At(time) => Some(time),
            End::Permanent => None,
            End::Missing => {
                let wrong = "it has no end: write a time or `permanent` into the column expires, or give --for";
                return Err(BadRow(wrong.to_owned()));
            }
        };
        Ok(ImportRow {
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
        })
    }
}

/// The mistake in a row, without its position: the caller prints the line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRow(pub(crate) String);

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
        let expires = End::of(expires);
        Ok(FileRow { number, expires, reason, author, origin, observe, redial, refuse })
    }
}

/// Characters with which a formula begins in a spreadsheet.
pub(super) const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// Puts an apostrophe in front of a text that a spreadsheet would read as a formula, or that begins
/// with an apostrophe itself. [`from_cell`] restores the text.
pub(super) fn to_cell(text: String) -> String {
    if text.starts_with(FORMULA) || text.starts_with('\'') { format!("'{text}") } else { text }
}

/// Restores the text that [`to_cell`] changed. Spreadsheets write such cells, too.
pub(super) fn from_cell(mut cell: String) -> String {
    let rest = cell.strip_prefix('\'');
    if rest.is_some_and(|rest| rest.starts_with(FORMULA) || rest.starts_with('\'')) {
        cell.remove(0);
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
