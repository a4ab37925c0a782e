//! The audit: every change as one JSON record, chained by hashes so that nobody alters,
//! deletes, inserts or swaps one unseen.
//!
//! `hash = SHA-256(hash before ‖ record)`, where the first row has 32 zero bytes before it.
//! Whoever rewrites the rest of the chain is found by a head that was noted elsewhere: the
//! daemon logs it to the journal.
//!
//! A number stands in the record as its pseudonym ([`crate::store::pseudonym`]) and plain beside it, where
//! it can be erased. In rows from before there were pseudonyms it stands in the record.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::types::{Value as Column, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::model::policy::Subject;
use crate::store::{Error, Pseudonyms, Reader, Store, Write};

const COLUMNS: &str = "seq, record, hash, plain";
/// Rows that are verified in one question: as long as one lasts, the store's log cannot shrink.
const VERIFIED_AT_ONCE: u64 = 10_000;

/// A record that is to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When.
    pub time: Timestamp,
    /// Who.
    pub author: String,
    /// What: `block add`, `block move`, `override on`, `attach`.
    pub action: String,
    /// The number or prefix that it is about, as people read it.
    pub number: Option<String>,
    /// The rule that it is about.
    pub rule: Option<u64>,
    /// What else is to be known: reason, expires. A name of a field above is not for these.
    pub extra: Map<String, Value>,
}

impl Entry {
    /// A record about no number and no rule.
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

    /// With one more thing to be known.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Entry {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    pub(crate) fn about(mut self, subject: Subject, rule: u64) -> Entry {
        self.number = Some(subject.to_string());
        self.rule = Some(rule);
        self
    }

    /// JSON with sorted names, without spaces; a pseudonym in it stands for the number.
    fn record(self, names: &Pseudonyms) -> String {
        let mut record = self.extra;
        let pseudonym = self.number.as_deref().map(|number| names.pseudonym(number));
        for value in record.values_mut() {
            // What else is told may be the number once more.
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

/// The last row of the chain: `17:ab…`; `0:00…` while there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl Head {
    /// The row after it.
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
    type Err = String;

    fn from_str(text: &str) -> Result<Head, String> {
        let parse = || {
            let (seq, digits) = text.split_once(':')?;
            Some(Head { seq: seq.parse().ok()?, hash: unhex(digits)? })
        };
        parse().ok_or_else(|| {
            format!("{text:?} is no head of an audit: write NUMBER:HASH as `status` shows it")
        })
    }
}

/// Bytes as lower-case hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What [`hex`] made of 32 bytes.
pub(crate) fn unhex(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}

/// A row of the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number, from 1, without a gap.
    pub seq: u64,
    /// The JSON exactly as it was hashed.
    pub record: String,
    /// Its hash.
    pub hash: [u8; 32],
    /// The number or prefix that the record has the pseudonym of; `None`: it is about none, the
    /// number was erased, or the record itself has it.
    pub plain: Option<String>,
}

/// Which rows of the audit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Of this time and later.
    pub since: Option<Timestamp>,
    /// About this number or prefix, also after it was erased; or the pseudonym of one.
    pub number: Option<String>,
}

/// What a check of the chain found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditCheck {
    /// Rows that were looked at; the check ends at the first bad one.
    pub rows: u64,
    /// Number of the first row that is missing or not what was written.
    pub first_bad: Option<u64>,
    /// The last good row.
    pub head: Head,
}

impl Write<'_> {
    /// Adds a row to the chain.
    pub(crate) fn audit(&mut self, entry: Entry) -> rusqlite::Result<()> {
        let plain = entry.number.clone();
        self.chain(entry, plain)
    }

    /// Adds a row about a number that is not to be told.
    pub(crate) fn audit_without_number(&mut self, entry: Entry) -> rusqlite::Result<()> {
        self.chain(entry, None)
    }

    fn chain(&mut self, entry: Entry, plain: Option<String>) -> rusqlite::Result<()> {
        self.saw(entry.time);
        let record = entry.record(self.names);
        self.head = self.head.next(record.as_bytes());
        self.tx
            .prepare_cached(&format!("INSERT INTO audit ({COLUMNS}) VALUES (?1, ?2, ?3, ?4)"))?
            .execute(params![self.head.seq, record, self.head.hash, plain])?;
        Ok(())
    }
}

impl Store {
    /// Records what changed nothing in the store: `attach`, `reload`.
    ///
    /// # Errors
    /// Nothing was recorded: the disk says no.
    pub fn audit(&mut self, entry: Entry) -> Result<(), Error> {
        self.write(|write| write.audit(entry))
    }
}

impl Reader {
    /// The last row.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn audit_head(&self) -> Result<Head, Error> {
        self.get(head)
    }

    /// Hands rows from number `from` on to `f`, oldest first, until it breaks.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn audit_rows(
        &self,
        from: u64,
        filter: &AuditFilter,
        f: impl FnMut(AuditRow) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut sql = format!("SELECT {COLUMNS} FROM audit WHERE seq >= ?");
        let mut values = vec![Column::from(i64::try_from(from).unwrap_or(i64::MAX))];
        if let Some(since) = filter.since {
            sql.push_str(" AND time >= ?");
            values.push(format!("{since:.3}").into());
        }
        if let Some(number) = &filter.number {
            sql.push_str(" AND number IN (?, ?)");
            values.push(number.clone().into());
            values.push(self.pseudonyms()?.pseudonym(number).into());
        }
        sql.push_str(" ORDER BY seq");
        self.each(&sql, params_from_iter(values), read, f).map(drop)
    }

    /// The last record about a rule, also about one that is gone.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn last_audit(&self, rule: u64) -> Result<Option<AuditRow>, Error> {
        let Ok(rule) = i64::try_from(rule) else { return Ok(None) };
        let sql = format!("SELECT {COLUMNS} FROM audit WHERE rule = ?1 ORDER BY seq DESC LIMIT 1");
        self.get(|conn| conn.prepare_cached(&sql)?.query_row([rule], read).optional())
    }

    /// Whether somebody took the decision with this rule out. One that ended or was changed
    /// was not.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn was_removed(&self, rule: u64) -> Result<bool, Error> {
        let Ok(rule) = i64::try_from(rule) else { return Ok(false) };
        let sql = "SELECT 1 FROM audit
                   WHERE rule = ?1 AND record ->> '$.action' IN ('block remove', 'allow remove')";
        self.get(|conn| conn.prepare_cached(sql)?.exists([rule]))
    }

    /// Computes the whole chain again, and the pseudonym of each number that stands beside it. Rows
    /// that were cut off at the end are only noticed with a head from before.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn verify_audit(&self, expected: Option<Head>) -> Result<AuditCheck, Error> {
        let mut check = AuditCheck { rows: 0, first_bad: None, head: Head::default() };
        self.get(|conn| {
            let names = Pseudonyms::of(conn)?;
            // As raw values: one of a type that this program does not write is a bad row.
            let mut statement = conn.prepare(&format!(
                "SELECT {COLUMNS} FROM audit WHERE seq >= ?1 ORDER BY seq LIMIT ?2"
            ))?;
            loop {
                let before = check.rows;
                // A row with a number below 1 is a bad one as well.
                let first = if before == 0 { i64::MIN } else { check.head.seq.cast_signed() + 1 };
                let mut rows = statement.query(params![first, VERIFIED_AT_ONCE])?;
                while let Some(row) = rows.next()? {
                    check.rows += 1;
                    let record = row.get_ref(1)?.as_bytes().unwrap_or_default();
                    let next = check.head.next(record);
                    if row.get_ref(0)?.as_i64() != Ok(next.seq.cast_signed())
                        || row.get_ref(2)?.as_blob() != Ok(&next.hash)
                        || expected.is_some_and(|known| known.seq == next.seq && known != next)
                        || !is_told_by(record, row.get_ref(3)?, &names)
                    {
                        check.first_bad = Some(next.seq);
                        return Ok(());
                    }
                    check.head = next;
                }
                if check.rows - before < VERIFIED_AT_ONCE {
                    return Ok(());
                }
            }
        })?;
        if check.first_bad.is_none() && expected.is_some_and(|known| known.seq > check.head.seq) {
            check.first_bad = Some(check.head.seq + 1);
        }
        Ok(check)
    }
}

/// Whether what stands beside a record is the number that its pseudonym stands for, or nothing.
fn is_told_by(record: &[u8], plain: ValueRef<'_>, names: &Pseudonyms) -> bool {
    #[derive(Deserialize)]
    struct About<'r> {
        #[serde(borrow)]
        number: Option<Cow<'r, str>>,
    }
    if plain == ValueRef::Null {
        return true;
    }
    let (Ok(plain), Ok(about)) = (plain.as_str(), serde_json::from_slice::<About<'_>>(record))
    else {
        return false;
    };
    about.number.is_some_and(|number| number == names.pseudonym(plain))
}

/// The last row of the chain.
pub(crate) fn head(conn: &Connection) -> rusqlite::Result<Head> {
    let sql = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";
    let row = conn
        .prepare_cached(sql)?
        .query_row([], |row| Ok(Head { seq: row.get(0)?, hash: row.get(1)? }))
        .optional()?;
    Ok(row.unwrap_or_default())
}

fn read(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    Ok(AuditRow { seq: row.get(0)?, record: row.get(1)?, hash: row.get(2)?, plain: row.get(3)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::*;

    /// A store with five audit rows.
    fn five() -> Home {
        let home = Home::new();
        let mut store = home.store();
        for rule in 1..=5_u64 {
            let subject = number(&format!("6281{rule}"));
            let make = |_: &_, _: Option<&_>| {
                let at = time(rule.cast_signed());
                Entry::new(at, "budi", "block add").with("reason", "prank")
            };
            store.put([block(rule, subject)], make).unwrap();
        }
        home
    }

    fn first_bad(home: &Home, expected: Option<Head>) -> Option<u64> {
        home.store().verify_audit(expected).unwrap().first_bad
    }

    fn seqs(home: &Home, from: u64, filter: &AuditFilter) -> Vec<u64> {
        let mut seqs = Vec::new();
        let push = |row: AuditRow| {
            seqs.push(row.seq);
            ControlFlow::Continue(())
        };
        home.store().audit_rows(from, filter, push).unwrap();
        seqs
    }

    #[test]
    fn a_record_is_json_with_sorted_names() {
        let home = five();
        let store = home.store();
        let row = store.last_audit(2).unwrap().unwrap();
        let pseudonym = store.pseudonyms().unwrap().pseudonym("62812");
        assert_eq!(
            row.record,
            format!(
                r#"{{"action":"block add","author":"budi","number":"{pseudonym}","reason":"prank","rule":2,"time":"2027-01-15T08:00:02.000Z"}}"#
            )
        );
        assert_eq!(row.plain.as_deref(), Some("62812"));
        // What `sha256sum` makes of 32 zero bytes and `{}`.
        assert_eq!(
            Head::default().next(b"{}").to_string(),
            "1:fb1634c4e6cd4b1f1afe3ce2d6ef080f7ac5d1f357d723ad4dfca782733b62db"
        );
    }

    #[test]
    fn rows_are_found_by_number_and_time() {
        let home = five();
        let since = |at| AuditFilter { since: Some(time(at)), number: None };
        assert_eq!(seqs(&home, 1, &AuditFilter::default()), [1, 2, 3, 4, 5]);
        assert_eq!(seqs(&home, 4, &AuditFilter::default()), [4, 5]);
        assert_eq!(seqs(&home, 0, &since(3)), [3, 4, 5]);
        let number = |text: &str| Some(text.to_owned());
        assert_eq!(seqs(&home, 0, &AuditFilter { since: None, number: number("62814") }), [4]);
        assert_eq!(seqs(&home, 0, &AuditFilter { number: number("62812"), ..since(3) }), [0; 0]);
        let pseudonym = home.store().pseudonyms().unwrap().pseudonym("62814");
        assert_eq!(seqs(&home, 0, &AuditFilter { since: None, number: Some(pseudonym) }), [4]);
    }

    #[test]
    fn the_number_stands_in_no_field_of_the_record() {
        let home = Home::new();
        let mut entry =
            entry().with("block", "62812").with("to", "62813").with("none", Value::Null);
        entry.number = Some("62812".to_owned());
        home.store().audit(entry).unwrap();
        home.store()
            .audit(Entry::new(time(1), "budi", "attach").with("none", Value::Null))
            .unwrap();
        let store = home.store();
        let pseudonym = store.pseudonyms().unwrap().pseudonym("62812");
        let mut records = Vec::new();
        let filter = AuditFilter::default();
        let push = |row: AuditRow| {
            records.push(serde_json::from_str::<Value>(&row.record).unwrap());
            ControlFlow::Continue(())
        };
        store.audit_rows(0, &filter, push).unwrap();
        assert_eq!([&records[0]["block"], &records[0]["number"]], [&pseudonym, &pseudonym]);
        assert_eq!((&records[0]["to"], &records[0]["none"]), (&"62813".into(), &Value::Null));
        assert_eq!((&records[1]["number"], &records[1]["none"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn a_whole_chain_verifies() {
        let home = five();
        let store = home.store();
        let head = store.audit_head().unwrap();
        let whole = AuditCheck { rows: 5, first_bad: None, head };
        assert_eq!(store.verify_audit(None).unwrap(), whole);
        assert_eq!(store.verify_audit(Some(head)).unwrap(), whole);
        assert_eq!(head.to_string().parse(), Ok(head));
        let empty = Home::new().store().verify_audit(Some(Head::default())).unwrap();
        assert_eq!(empty, AuditCheck { rows: 0, first_bad: None, head: Head::default() });
    }

    #[test]
    fn the_first_bad_row_is_named() {
        for (bad, sql) in [
            (3, "UPDATE audit SET record = replace(record, 'budi', 'siti') WHERE seq = 3"),
            (3, "UPDATE audit SET record = CAST(x'7b2261223a22ff227d' AS TEXT) WHERE seq = 3"),
            (2, "UPDATE audit SET hash = x'00' WHERE seq = 2"),
            (1, "DELETE FROM audit WHERE seq = 1"),
            (4, "DELETE FROM audit WHERE seq = 4"),
            // Deleted, and the rest moved up.
            (4, "DELETE FROM audit WHERE seq = 4; UPDATE audit SET seq = 4 WHERE seq = 5"),
            (1, "INSERT INTO audit SELECT 0, record, hash, plain FROM audit WHERE seq = 1"),
            (1, "INSERT INTO audit SELECT -7, record, hash, plain FROM audit WHERE seq = 1"),
            (6, "INSERT INTO audit SELECT 6, record, hash, plain FROM audit WHERE seq = 5"),
            // Another number beside the record, or one where there is none.
            (3, "UPDATE audit SET plain = '62814' WHERE seq = 3"),
            (3, "UPDATE audit SET plain = CAST(x'ff' AS TEXT) WHERE seq = 3"),
            (3, "UPDATE audit SET plain = number WHERE seq = 3"),
            (
                1,
                "UPDATE state SET value = '\"' || hex(randomblob(32)) || '\"' WHERE key = 'audit-key'",
            ),
            // Two swapped.
            (
                2,
                "UPDATE audit SET seq = 9 WHERE seq = 2; UPDATE audit SET seq = 2 WHERE seq = 3;
                 UPDATE audit SET seq = 3 WHERE seq = 9",
            ),
        ] {
            let home = five();
            home.tamper(sql);
            assert_eq!(first_bad(&home, None), Some(bad), "{sql}");
        }
    }

    #[test]
    fn a_cut_or_rewritten_tail_is_found_with_a_head_from_before() {
        let home = five();
        let head = home.store().audit_head().unwrap();
        home.tamper("DELETE FROM audit WHERE seq >= 4");
        assert_eq!(first_bad(&home, None), None);
        assert_eq!(first_bad(&home, Some(head)), Some(4));
        // The chain goes on from there, as if nothing had been.
        for _ in 0..3 {
            home.store().audit(entry()).unwrap();
        }
        assert_eq!(first_bad(&home, None), None);
        assert_eq!(first_bad(&home, Some(head)), Some(5));
    }

    #[test]
    fn what_is_no_head_is_told() {
        for text in ["", "17", "17:ab", "x:00", &format!("1:{}", "é".repeat(32))] {
            text.parse::<Head>().unwrap_err();
        }
    }
}
