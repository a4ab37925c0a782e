//! Call records as the daemon writes them: new ones, and attempts that count in a stored one. The
//! account of the attempts with a record is part of the transaction, so it stays right if the process
//! dies.

use std::collections::BTreeMap;

use rusqlite::{ErrorCode, OptionalExtension as _};
use serde::{Deserialize, Serialize};

use crate::model::per_ring::PerRing;
use crate::store::calls::CallRow;
use crate::store::error::Error;
use crate::store::reader::Reader;
use crate::store::state;
use crate::store::writer::Store;

/// Key of the account in the table `state`.
const ACCOUNT: &str = "records";

/// The number of attempts with a record, since the kernel's rings were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The rings of this account.
    pub rings: String,
    /// Bytes that an event takes in them.
    pub event_bytes: u64,
    /// Attempts of earlier rings that this account took over, with and without a record.
    pub before: PerRing,
    /// Attempts that have a record.
    pub recorded: PerRing,
    /// Refusals that are only counted, by the name of their trunk.
    pub thinned: BTreeMap<String, u64>,
}

/// Records to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// New records.
    pub rows: Vec<CallRow>,
    /// Stored records by their number, and how many further refusals each counts.
    pub more: Vec<(u64, u64)>,
    /// Refusals that are only counted, by the name of their trunk.
    pub thinned: BTreeMap<String, u64>,
}

/// The outcome of a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Numbers of the new records, in their order; `None`: SQLite refuses the values of this one.
    pub ids: Vec<Option<u64>>,
    /// Records of [`Records::more`] that were deleted.
    pub gone: Vec<u64>,
    /// The account after the write.
    pub account: Account,
}

impl Reader {
    /// Returns the account as it was last written; `None`: it does not exist or cannot be parsed.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn account(&self) -> Result<Option<Account>, Error> {
        let sql = "SELECT value FROM state WHERE key = ?1";
        let text: Option<String> =
            self.get(|conn| conn.query_row(sql, [ACCOUNT], |row| row.get(0)).optional())?;
        // An odd account must not keep records from being written.
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }
}

impl Store {
    /// Writes records and their account. A record whose values SQLite refuses is left out, and the
    /// others are written. With `waits_for_disk` all of it is on disk afterwards; otherwise it
    /// outlives this process, and the machine as soon as another change is written.
    ///
    /// # Errors
    /// Nothing was written, as with [`Store::put_calls`].
    pub fn put_records(
        &mut self,
        records: &Records,
        account: &Account,
        waits_for_disk: bool,
    ) -> Result<Stored, Error> {
        if waits_for_disk {
            return self.record(records, account);
        }
        self.soon(|store| store.record(records, account))
    }

    fn record(&mut self, records: &Records, account: &Account) -> Result<Stored, Error> {
        self.write(|write| {
            let mut stored = Stored { account: account.clone(), ..Stored::default() };
            let recorded = &mut stored.account.recorded;
            for row in &records.rows {
                let id = match write.call(row) {
                    Ok(id) => Some(id),
                    Err(error) if is_about_the_row(&error) => None,
                    Err(error) => return Err(error),
                };
                if id.is_some() {
                    recorded.add(row.is_in_ring_of_refusals(), row.count);
                }
                stored.ids.push(id);
            }
            let sql = "UPDATE calls SET count = count + ?2 WHERE id = ?1";
            let mut count = write.tx.prepare_cached(sql)?;
            for (id, more) in &records.more {
                if count.execute((id, more))? == 0 {
                    stored.gone.push(*id);
                } else {
                    recorded.add(true, *more);
                }
            }
            drop(count);
            for (trunk, thinned) in &records.thinned {
                *stored.account.thinned.entry(trunk.clone()).or_default() += thinned;
            }
            state::put(&write.tx, ACCOUNT, &stored.account)?;
            Ok(stored)
        })
    }
}

/// Returns whether an error is about a row, so that other rows can be written.
fn is_about_the_row(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(
        code,
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
    ) || matches!(error, rusqlite::Error::ToSqlConversionFailure(_))
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use filter_common::number::Number;

    use super::*;
    use crate::store::CallFilter;
    use crate::store::tests::{Home, time};

    fn refusal(at: i64) -> CallRow {
        CallRow {
            time: time(at),
            number: Some(Number(7)),
            trunk: Some("telco".to_owned()),
            source: "192.0.2.1:5060".to_owned(),
            call_id: Some(format!("{at}@pbx")),
            call_hash: 7,
            identity: 1,
            verdict: 1,
            policy_verdict: 1,
            reason: 255,
            rule: 3,
            repeats: 0,
            count: 1,
            unread: None,
            reply: None,
        }
    }

    fn counts(reader: &Reader) -> Vec<u64> {
        let mut counts = Vec::new();
        let push = |(_, call): (u64, CallRow)| {
            counts.push(call.count);
            ControlFlow::Continue(())
        };
        reader.calls(&CallFilter::default(), push).unwrap();
        counts.reverse();
        counts
    }

    #[test]
    fn records_and_their_account_are_one() {
        let home = Home::new();
        let mut store = home.store();
        assert_eq!(store.reader().account().unwrap(), None);
        let pass = CallRow { verdict: 0, reason: 1, ..refusal(2) };
        let flood = CallRow { count: 5, ..refusal(3) };
        let rows = vec![refusal(1), pass, flood];
        let begun = Account { rings: "a".to_owned(), event_bytes: 200, ..Account::default() };
        let first = Records { rows, ..Records::default() };
        let stored = store.put_records(&first, &begun, false).unwrap();
        assert_eq!(stored.ids, [Some(1), Some(2), Some(3)]);
        let recorded = PerRing { refused: 6, passed: 1 };
        assert_eq!(stored.account, Account { recorded, ..begun });
        assert_eq!(store.reader().account().unwrap(), Some(stored.account.clone()));

        let more = vec![(3, 10), (99, 4)];
        let thinned = BTreeMap::from([("telco".to_owned(), 8)]);
        let second = Records { rows: Vec::new(), more, thinned };
        let stored = store.put_records(&second, &stored.account, true).unwrap();
        assert_eq!(stored.gone, [99], "it is not counted as recorded");
        assert_eq!(stored.account.recorded, PerRing { refused: 16, passed: 1 });
        assert_eq!(stored.account.thinned.values().sum::<u64>(), 8);
        assert_eq!(store.reader().account().unwrap(), Some(stored.account));
        assert_eq!(counts(store.reader()), [1, 1, 15]);
    }

    #[test]
    fn an_odd_record_costs_no_other() {
        let home = Home::new();
        home.store();
        home.tamper(
            "CREATE TRIGGER odd BEFORE INSERT ON calls WHEN NEW.call_id = '2@pbx'
             BEGIN SELECT RAISE(ABORT, 'odd'); END",
        );
        let mut store = home.store();
        let too_many = CallRow { count: u64::MAX, ..refusal(3) };
        let rows = vec![refusal(1), refusal(2), too_many, refusal(4)];
        let records = Records { rows, ..Records::default() };
        let stored = store.put_records(&records, &Account::default(), true).unwrap();
        assert_eq!(stored.ids, [Some(1), None, None, Some(2)]);
        assert_eq!(stored.account.recorded.refused, 2);
        assert_eq!(counts(store.reader()), [1, 1]);
    }

    #[test]
    fn all_of_it_is_written_or_nothing() {
        let home = Home::new();
        let mut store = home.store();
        home.tamper(
            "CREATE TRIGGER no BEFORE INSERT ON state BEGIN SELECT RAISE(ABORT, 'no'); END",
        );
        let records = Records { rows: vec![refusal(1)], ..Records::default() };
        store.put_records(&records, &Account::default(), true).unwrap_err();
        assert_eq!(counts(store.reader()), [0; 0]);
        assert_eq!(store.reader().account().unwrap(), None);
    }

    #[test]
    fn an_account_that_cannot_be_understood_is_none() {
        let home = Home::new();
        home.store();
        for odd in ["[]", "x", r#"{"rings": 7}"#] {
            home.tamper(&format!("REPLACE INTO state VALUES ('records', '{odd}')"));
            assert_eq!(home.store().reader().account().unwrap(), None, "{odd}");
        }
        let records = Records { rows: vec![refusal(1)], ..Records::default() };
        home.store().put_records(&records, &Account::default(), true).unwrap();
        assert_eq!(home.store().reader().account().unwrap().unwrap().recorded.refused, 1);
    }
}
