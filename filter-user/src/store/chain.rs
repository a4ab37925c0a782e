//! The records of the audit, and the hashes that chain them.

use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::model::policy::Subject;
use crate::store::hex::{hex, unhex};
use crate::store::pseudonym::Pseudonyms;

/// A record that is to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Time of the action.
    pub time: Timestamp,
    /// Author of the action.
    pub author: String,
    /// The action: `block add`, `block move`, `override on`, `attach`.
    pub action: String,
    /// Its number or prefix, as text.
    pub number: Option<String>,
    /// Its rule.
    pub rule: Option<u64>,
    /// Further fields: reason, expires. Their names differ from those of the fields above.
    pub extra: Map<String, Value>,
}

impl Entry {
    /// Creates a record without number and rule.
    #[must_use]
    pub fn new(time: Timestamp, author: &str, action: &str) -> Entry {
        Entry {
            time,
            author: author.to_owned(),
            action: action.to_owned(),
            number: None,
            rule: None,
            extra: Map::new(),
        }
    }

    /// Adds a further field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Entry {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    /// Sets the number or prefix and the rule.
    pub(crate) fn about(mut self, subject: Subject, rule: u64) -> Entry {
        self.number = Some(subject.to_string());
        self.rule = Some(rule);
        self
    }

    /// Returns JSON with sorted names, without spaces, and with a pseudonym instead of the number.
    pub(super) fn record(self, names: &Pseudonyms) -> String {
        let mut record = self.extra;
        let pseudonym = self.number.as_deref().map(|number| names.pseudonym(number));
        for value in record.values_mut() {
            // A further field may repeat the number.
            if value.is_string() && value.as_str() == self.number.as_deref() {
                *value = pseudonym.clone().into();
            }
        }
        // Always three digits of a second: as text, times sort by time.
        record.insert("time".to_owned(), format!("{:.3}", self.time).into());
        record.insert("author".to_owned(), self.author.into());
        record.insert("action".to_owned(), self.action.into());
        record.insert("number".to_owned(), pseudonym.into());
        record.insert("rule".to_owned(), self.rule.into());
        Value::Object(record).to_string()
    }
}

/// The last row of the chain: `17:ab…`; `0:00…` for an empty chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

/// The text is not the head of an audit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the head of an audit: write NUMBER:HASH as `palang status` shows it")]
pub struct BadHead(String);

impl Head {
    /// Returns the head after one more record.
    pub(crate) fn next(self, record: &[u8]) -> Head {
        let hash = Sha256::new().chain_update(self.hash).chain_update(record).finalize();
        Head { seq: self.seq + 1, hash: hash.into() }
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.seq, hex(&self.hash))
    }
}

impl FromStr for Head {
    type Err = BadHead;

    fn from_str(text: &str) -> Result<Head, BadHead> {
        let parse = || {
            let (seq, digits) = text.split_once(':')?;
            Some(Head { seq: seq.parse().ok()?, hash: unhex(digits)? })
        };
        parse().ok_or_else(|| BadHead(text.to_owned()))
    }
}

/// Returns the last row of the chain.
/// Returns the row with a number as it is in the chain.
pub(crate) fn link(conn: &Connection, seq: u64) -> rusqlite::Result<Option<Head>> {
    let Ok(seq) = i64::try_from(seq) else { return Ok(None) };
    conn.prepare_cached("SELECT seq, hash FROM audit WHERE seq = ?1")?
        .query_row([seq], |row| Ok(Head { seq: row.get(0)?, hash: row.get(1)? }))
        .optional()
}

pub(crate) fn head(conn: &Connection) -> rusqlite::Result<Head> {
    let sql = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";
    let row = conn
        .prepare_cached(sql)?
        .query_row([], |row| Ok(Head { seq: row.get(0)?, hash: row.get(1)? }))
        .optional()?;
    Ok(row.unwrap_or_default())
}
