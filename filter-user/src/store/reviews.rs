//! The review list, for a person to look at: each redial grant, and reports that led to no strike or
//! to a long block.

use std::ops::ControlFlow;
use std::time::Duration;

use filter_common::number::Number;
use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, named_params, params};

use crate::store::chain::Entry;
use crate::store::error::Error;
use crate::store::reader::Reader;
use crate::store::retention::ROWS;
use crate::store::retention::Step;
use crate::store::schema::Millis;
use crate::store::writer::{Store, Write};

pub(crate) const COLUMNS: &str =
    "id, time, number, kind, rule, call_id, until, closed, closed_by, note";
/// Two reports of one grant have times that differ by less: the conversion between clocks is not
/// exact.
const NEAR_MS: i64 = 5000;

/// An exception that the kernel made, or a report, for a person to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// Time of the first call that was let through, or of the report.
    pub time: Timestamp,
    /// The caller number.
    pub number: Number,
    /// The exception: `redial-grant`; or `report`.
    pub kind: String,
    /// Rule of the block with the exception, or of the block after the report; 0: none.
    pub rule: u64,
    /// Call-ID of that call, cut; `None` where it is not known.
    pub call_id: Option<String>,
    /// End of the exception, or of the block after the report; without a block `time`.
    pub until: Timestamp,
    /// How it was closed; `None`: it is open.
    pub closed: Option<Closed>,
}

/// How a review was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Time of the closing.
    pub time: Timestamp,
    /// The user.
    pub by: String,
    /// Result of the review.
    pub note: String,
}

impl Store {
    /// Adds an exception to the list, with an audit row. Returns its number; `None`: it is on the list
    /// already.
    ///
    /// # Errors
    /// Returns an error if the disk refuses; nothing was stored.
    pub fn open_review(&mut self, review: &Review, entry: Entry) -> Result<Option<u64>, Error> {
        self.write(|write| {
            let number = review.number.0.cast_signed();
            let known = write
                .tx
                .prepare_cached(
                    "SELECT 1 FROM reviews
                     WHERE number = ?1 AND kind = ?2 AND time - ?3 <= ?4 AND until > ?4",
                )?
                .exists(params![number, review.kind, NEAR_MS, Millis(review.time)])?;
            if known {
                return Ok(None);
            }
            let id = write.add_review(review)?;
            write.audit(about(entry, id, review))?;
            Ok(Some(id))
        })
    }

    /// Closes a review, with an audit row, and returns the review as it was before. `None`: no review has
    /// this number. A closed review is not changed.
    ///
    /// # Errors
    /// Returns an error if the disk refuses; nothing was stored.
    pub fn close_review(
        &mut self,
        id: u64,
        closed: &Closed,
        entry: Entry,
    ) -> Result<Option<Review>, Error> {
        // No exception has a number that SQLite cannot hold.
        let Ok(id) = i64::try_from(id) else { return Ok(None) };
        self.write(|write| {
            let sql = format!("SELECT {COLUMNS} FROM reviews WHERE id = ?1");
            let found = write.tx.prepare_cached(&sql)?.query_row([id], read).optional()?;
            let Some((_, before)) = found else { return Ok(None) };
            if before.closed.is_none() {
                write.tx.execute(
                    "UPDATE reviews SET closed = ?2, closed_by = ?3, note = ?4 WHERE id = ?1",
                    params![id, Millis(closed.time), closed.by, closed.note],
                )?;
                write.audit(about(entry, id.cast_unsigned(), &before))?;
            }
            Ok(Some(before))
        })
    }

    /// Deletes exceptions from before a time that were closed, for at most `time`.
    ///
    /// # Errors
    /// Returns an error if the disk refuses; nothing was deleted.
    pub fn prune_reviews(&mut self, before: Timestamp, time: Duration) -> Result<Step, Error> {
        let sql = format!(
            "DELETE FROM reviews WHERE id IN (
                 SELECT id FROM reviews WHERE time < ?1 AND closed IS NOT NULL LIMIT {ROWS})"
        );
        self.write(|write| write.repeat(&sql, &[&Millis(before)], time))
    }
}

impl Write<'_> {
    fn add_review(&mut self, review: &Review) -> rusqlite::Result<u64> {
        let mut statement = self.tx.prepare_cached(
            "INSERT INTO reviews (time, number, kind, rule, call_id, until)
             VALUES (:time, :number, :kind, :rule, :call_id, :until)",
        )?;
        let id = statement.insert(named_params! {
            ":time": Millis(review.time),
            ":number": review.number.0.cast_signed(),
            ":kind": review.kind,
            ":rule": review.rule.cast_signed(),
            ":call_id": review.call_id,
            ":until": Millis(review.until),
        })?;
        Ok(id.cast_unsigned())
    }

    /// Adds a report to the list. An open entry about this call is used again. The audit row of the
    /// report names the entry.
    pub(crate) fn open_report(&mut self, review: &Review) -> rusqlite::Result<u64> {
        let known = self
            .tx
            .prepare_cached(
                "SELECT id FROM reviews
                 WHERE number = ?1 AND kind = ?2 AND call_id IS ?3 AND closed IS NULL",
            )?
            .query_row(params![review.number.0.cast_signed(), review.kind, review.call_id], |row| {
                row.get(0)
            })
            .optional()?;
        match known {
            Some(id) => Ok(id),
            None => self.add_review(review),
        }
    }
}

impl Reader {
    /// Hands exceptions with numbers above `after` to `f`, oldest first, until it breaks; those
    /// that were closed only with `all`.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn reviews(
        &self,
        all: bool,
        after: u64,
        f: impl FnMut((u64, Review)) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let which = if all { "" } else { "AND closed IS NULL" };
        let sql = format!("SELECT {COLUMNS} FROM reviews WHERE id > ?1 {which} ORDER BY id");
        self.each(&sql, [after.cast_signed()], read, f).map(drop)
    }

    /// Returns the review with this number.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn review(&self, id: u64) -> Result<Option<Review>, Error> {
        let Ok(id) = i64::try_from(id) else { return Ok(None) };
        let sql = format!("SELECT {COLUMNS} FROM reviews WHERE id = ?1");
        let found = self.get(|conn| conn.prepare_cached(&sql)?.query_row([id], read).optional())?;
        Ok(found.map(|(_, review)| review))
    }

    /// Counts the open reviews.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn open_reviews(&self) -> Result<u64, Error> {
        let sql = "SELECT count(*) FROM reviews WHERE closed IS NULL";
        self.get(|conn| conn.query_row(sql, [], |row| row.get(0)))
    }
}

/// Adds the fields of a review. The row is not about the block's rule: such a row would record a change
/// of the block.
fn about(mut entry: Entry, id: u64, review: &Review) -> Entry {
    entry.number = Some(review.number.to_string());
    entry.with("review", id).with("kind", review.kind.as_str()).with("block_rule", review.rule)
}

pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<(u64, Review)> {
    let closed = row.get::<_, Option<Millis>>("closed")?;
    let review = Review {
        time: row.get::<_, Millis>("time")?.0,
        number: Number(row.get::<_, i64>("number")?.cast_unsigned()),
        kind: row.get("kind")?,
        rule: row.get::<_, i64>("rule")?.cast_unsigned(),
        call_id: row.get("call_id")?,
        until: row.get::<_, Millis>("until")?.0,
        closed: match closed {
            Some(Millis(time)) => {
                Some(Closed { time, by: row.get("closed_by")?, note: row.get("note")? })
            }
            None => None,
        },
    };
    Ok((row.get("id")?, review))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{Home, time};

    fn review(at: i64, number: u64) -> Review {
        Review {
            time: time(at),
            number: Number(number),
            kind: "redial-grant".to_owned(),
            rule: u64::MAX,
            call_id: Some("a@pbx".to_owned()),
            until: time(at + 1800),
            closed: None,
        }
    }

    fn entry(action: &str) -> Entry {
        Entry::new(time(0), "budi", action)
    }

    fn listed(reader: &Reader, all: bool) -> Vec<(u64, Review)> {
        let mut found = Vec::new();
        let push = |row| {
            found.push(row);
            ControlFlow::Continue(())
        };
        reader.reviews(all, 0, push).unwrap();
        found
    }

    #[test]
    fn a_list_goes_on_where_it_stopped() {
        let home = Home::new();
        let mut store = home.store();
        for index in 0..3_u64 {
            let review = review(100 + 100 * index.cast_signed(), index);
            store.open_review(&review, entry("redial grant")).unwrap();
        }
        let whole = listed(store.reader(), false);
        let (mut last, mut pages) = (0, Vec::new());
        for _ in 0..3 {
            let after = last;
            let one = |(id, review)| {
                last = id;
                pages.push((id, review));
                ControlFlow::Break(())
            };
            store.reader().reviews(false, after, one).unwrap();
        }
        assert_eq!(pages, whole);
    }

    #[test]
    fn a_number_that_no_exception_can_have_is_not_there() {
        let home = Home::new();
        let closed = Closed { time: time(1), by: "siti".into(), note: "a test".into() };
        for id in [7, i64::MAX as u64 + 1, u64::MAX] {
            let mut store = home.store();
            assert_eq!(store.close_review(id, &closed, entry("review close")).unwrap(), None);
            assert_eq!(store.reader().review(id).unwrap(), None);
        }
    }

    #[test]
    fn one_grant_is_one_entry() {
        let home = Home::new();
        let mut store = home.store();
        let mut open = |review: &Review| store.open_review(review, entry("redial grant")).unwrap();
        assert_eq!(open(&review(100, u64::MAX)), Some(1));
        assert_eq!(open(&review(100, u64::MAX)), None, "the very same");
        assert_eq!(open(&review(99, u64::MAX)), None, "told by another clock");
        assert_eq!(open(&review(100 + 1799, u64::MAX)), None, "a later call of the same grant");
        assert_eq!(open(&review(100 + 1800, u64::MAX)), Some(2), "the next grant");
        assert_eq!(open(&review(100, 7)), Some(3), "of another number");
        assert_eq!(store.reader().audit_head().unwrap().seq, 3);
        assert_eq!(store.reader().open_reviews().unwrap(), 3);
        assert_eq!(store.reader().review(1).unwrap(), Some(review(100, u64::MAX)));
        assert_eq!(store.reader().review(u64::MAX).unwrap(), None);
        drop(store);
        assert_eq!(listed(home.store().reader(), false).len(), 3);
    }

    #[test]
    fn closed_once_and_kept_for_a_while() {
        let home = Home::new();
        let mut store = home.store();
        for number in [7, 8] {
            store.open_review(&review(100, number), entry("redial grant")).unwrap();
        }
        let closed =
            Closed { time: time(200), by: "siti".to_owned(), note: "a real call".to_owned() };
        let mut close = |id, closed: &Closed| store.close_review(id, closed, entry("review close"));
        assert_eq!(close(1, &closed).unwrap(), Some(review(100, 7)));
        let again = Closed { by: "budi".to_owned(), ..closed.clone() };
        let first = Review { closed: Some(closed), ..review(100, 7) };
        assert_eq!(close(1, &again).unwrap(), Some(first.clone()));
        assert_eq!(close(3, &again).unwrap(), None);
        assert_eq!(store.reader().audit_head().unwrap().seq, 3);
        assert_eq!(listed(store.reader(), false), [(2, review(100, 8))]);
        assert_eq!(listed(store.reader(), true)[0], (1, first));
        assert_eq!(store.reader().open_reviews().unwrap(), 1);
        // An open review stays, however old.
        assert_eq!(store.prune_reviews(time(1000), Duration::MAX).unwrap().count, 1);
        assert_eq!(listed(store.reader(), true), [(2, review(100, 8))]);
        let next = store.open_review(&review(9000, 9), entry("redial grant")).unwrap();
        assert_eq!(next, Some(3), "numbers are not used again");
        assert!(store.reader().verify_audit(None).unwrap().first_bad.is_none());
    }
}
