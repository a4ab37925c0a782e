//! The audit: every change as one JSON record, chained by hashes so that nobody alters,
//! deletes, inserts or swaps one unseen.
//!
//! `hash = SHA-256(hash before ‖ record)`, where the first row has 32 zero bytes before it.
//! A rewritten chain does not fit a head that was noted elsewhere: the daemon logs heads to the
//! journal.
//!
//! The record has a number as its pseudonym ([`crate::store::pseudonym`]); the plain number is beside the
//! record, where it can be erased. Rows that are older than pseudonyms have the number in the record.

use std::borrow::Cow;
use std::ops::ControlFlow;

use jiff::Timestamp;
use rusqlite::types::{Value as Column, ValueRef};
use rusqlite::{OptionalExtension as _, Row, params, params_from_iter};
use serde::Deserialize;

use crate::store::chain::{Entry, Head, head, link};
use crate::store::error::Error;
use crate::store::pseudonym::Pseudonyms;
use crate::store::reader::Reader;
use crate::store::writer::{Store, Write};

const COLUMNS: &str = "seq, record, hash, plain";
/// Rows that are verified in one question: as long as one lasts, the store's log cannot shrink.
const VERIFIED_AT_ONCE: u64 = 10_000;

/// A row of the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number, from 1, without a gap.
    pub seq: u64,
    /// The JSON exactly as it was hashed.
    pub record: String,
    /// Its hash.
    pub hash: [u8; 32],
    /// The number or prefix of the record's pseudonym. `None`: the record is about no number, or the
    /// number was erased, or the record itself has it.
    pub plain: Option<String>,
}

/// Selects rows of the audit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only rows of this time and later.
    pub since: Option<Timestamp>,
    /// Only rows about this number or prefix, also after it was erased; or about this pseudonym.
    pub number: Option<String>,
}

/// The result of a check of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditCheck {
    /// Rows that were checked; the check ends at the first bad one.
    pub rows: u64,
    /// Number of the first row that is missing or was altered.
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

    /// Adds a row about a number without the plain number beside it.
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
    /// Records an action that changes nothing in the store: `attach`, `reload`.
    ///
    /// # Errors
    /// Returns an error if the disk refuses; nothing was recorded.
    pub fn audit(&mut self, entry: Entry) -> Result<(), Error> {
        self.write(|write| write.audit(entry))
    }
}

impl Reader {
    /// Returns the last row.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn audit_head(&self) -> Result<Head, Error> {
        self.get(head)
    }

    /// Returns whether a row that was the last one is still in the chain. A chain without rows is always in it.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn audit_has(&self, known: Head) -> Result<bool, Error> {
        let there = self.get(|conn| link(conn, known.seq))?;
        Ok(known == Head::default() || there == Some(known))
    }

    /// Hands rows from number `from` on to `f`, oldest first, until it breaks.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
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

    /// Returns the last record about a rule, also about a removed one.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn last_audit(&self, rule: u64) -> Result<Option<AuditRow>, Error> {
        let Ok(rule) = i64::try_from(rule) else { return Ok(None) };
        let sql = format!("SELECT {COLUMNS} FROM audit WHERE rule = ?1 ORDER BY seq DESC LIMIT 1");
        self.get(|conn| conn.prepare_cached(&sql)?.query_row([rule], read).optional())
    }

    /// Checks whether a user removed the decision with this rule. A decision that ended or was
    /// changed was not removed.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn was_removed(&self, rule: u64) -> Result<bool, Error> {
        let Ok(rule) = i64::try_from(rule) else { return Ok(false) };
        let sql = "SELECT 1 FROM audit
                   WHERE rule = ?1 AND record ->> '$.action' IN ('block remove', 'allow remove')";
        self.get(|conn| conn.prepare_cached(sql)?.exists([rule]))
    }

    /// Computes the whole chain again, and the pseudonym of each number beside it. Rows that were cut
    /// off at the end are only noticed with a head from before.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
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
                        || !is_number_of(record, row.get_ref(3)?, &names)
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

/// Checks whether the number beside a record is that of its pseudonym, or missing.
fn is_number_of(record: &[u8], plain: ValueRef<'_>, names: &Pseudonyms) -> bool {
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

fn read(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    Ok(AuditRow { seq: row.get(0)?, record: row.get(1)?, hash: row.get(2)?, plain: row.get(3)? })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::store::tests::*;

    /// Creates a store with five audit rows.
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
        home.store().reader().verify_audit(expected).unwrap().first_bad
    }

    fn seqs(home: &Home, from: u64, filter: &AuditFilter) -> Vec<u64> {
        let mut seqs = Vec::new();
        let push = |row: AuditRow| {
            seqs.push(row.seq);
            ControlFlow::Continue(())
        };
        home.store().reader().audit_rows(from, filter, push).unwrap();
        seqs
    }

    #[test]
    fn a_record_is_json_with_sorted_names() {
        let home = five();
        let store = home.store();
        let row = store.reader().last_audit(2).unwrap().unwrap();
        let pseudonym = store.reader().pseudonyms().unwrap().pseudonym("62812");
        assert_eq!(
            row.record,
            format!(
                r#"{{"action":"block add","author":"budi","number":"{pseudonym}","reason":"prank","rule":2,"time":"2027-01-15T08:00:02.000Z"}}"#
            )
        );
        assert_eq!(row.plain.as_deref(), Some("62812"));
        // The output of `sha256sum` for 32 zero bytes and `{}`.
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
        let pseudonym = home.store().reader().pseudonyms().unwrap().pseudonym("62814");
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
        let pseudonym = store.reader().pseudonyms().unwrap().pseudonym("62812");
        let mut records = Vec::new();
        let filter = AuditFilter::default();
        let push = |row: AuditRow| {
            records.push(serde_json::from_str::<Value>(&row.record).unwrap());
            ControlFlow::Continue(())
        };
        store.reader().audit_rows(0, &filter, push).unwrap();
        assert_eq!([&records[0]["block"], &records[0]["number"]], [&pseudonym, &pseudonym]);
        assert_eq!((&records[0]["to"], &records[0]["none"]), (&"62813".into(), &Value::Null));
        assert_eq!((&records[1]["number"], &records[1]["none"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn a_whole_chain_verifies() {
        let home = five();
        let store = home.store();
        let head = store.reader().audit_head().unwrap();
        let whole = AuditCheck { rows: 5, first_bad: None, head };
        assert_eq!(store.reader().verify_audit(None).unwrap(), whole);
        assert_eq!(store.reader().verify_audit(Some(head)).unwrap(), whole);
        assert_eq!(head.to_string().parse(), Ok(head));
        let empty = Home::new().store().reader().verify_audit(Some(Head::default())).unwrap();
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
            // Another number beside the record, or a number beside a record without one.
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
        let head = home.store().reader().audit_head().unwrap();
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
