//! Reports of call-takers about calls, and which of them are strikes.

use std::ops::ControlFlow;
use std::time::Duration;

use filter_common::number::Number;
use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Row, named_params, params, params_from_iter};

use crate::model::ladder::{ReportKind, Strike};
use crate::store::chain::Entry;
use crate::store::error::Error;
use crate::store::reader::{Reader, conditions};
use crate::store::retention::ROWS;
use crate::store::retention::Step;
use crate::store::reviews::Review;
use crate::store::schema::Millis;
use crate::store::writer::Store;

const COLUMNS: &str = "id, time, number, kind, call_id, call_hash, call, call_time, trunk, reason, rule, \
                       why_not, author, note";

/// A report of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Time of the report.
    pub time: Timestamp,
    /// The caller number.
    pub number: Number,
    /// Kind of the call.
    pub kind: ReportKind,
    /// Call-ID of the report; `None`: it has none.
    pub call_id: Option<String>,
    /// Hash of the whole Call-ID.
    pub call_hash: Option<u64>,
    /// The call with this number and Call-ID; `None`: none was found.
    pub call: Option<ReportedCall>,
    /// The reason why it is not a strike; `None`: it is one, and has a call.
    pub why_not: Option<String>,
    /// Its author.
    pub author: String,
    /// Free text; may be empty.
    pub note: String,
}

/// A call as it was in the records when it was reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedCall {
    /// Its number.
    pub id: u64,
    /// Time of the call.
    pub time: Timestamp,
    /// Name of its trunk; `None`: outside every trunk.
    pub trunk: Option<String>,
    /// Reason of its verdict.
    pub reason: u8,
    /// The rule that decided; 0: none.
    pub rule: u64,
}

/// Selects reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportFilter {
    /// Only reports of this time and later.
    pub since: Option<Timestamp>,
    /// Only reports about this number.
    pub number: Option<Number>,
    /// Only reports after the one with this time and number, newest first.
    pub after: Option<(Timestamp, u64)>,
}

/// The result of storing a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Its number.
    pub id: u64,
    /// Its entry on the review list; `None`: it has none.
    pub review: Option<u64>,
    /// Strikes of this call that it replaced.
    pub replaced: Vec<u64>,
}

impl Store {
    /// Stores a report with an audit row, and its entry on the review list if a person has to look at
    /// it. A call has at most one strike: an earlier strike of this call no longer counts.
    ///
    /// # Errors
    /// Returns an error if the disk refuses; nothing was stored.
    pub fn add_report(
        &mut self,
        report: &Report,
        review: Option<&Review>,
        entry: Entry,
    ) -> Result<Added, Error> {
        self.write(|write| {
            let call = report.call.as_ref();
            let mut statement = write.tx.prepare_cached(&format!(
                "INSERT INTO reports ({COLUMNS}) VALUES (NULL, :time, :number, :kind, :call_id, \
                 :call_hash, :call, :call_time, :trunk, :reason, :rule, :why_not, :author, :note)"
            ))?;
            let id = statement.insert(named_params! {
                ":time": Millis(report.time),
                ":number": report.number.0.cast_signed(),
                ":kind": report.kind.name(),
                ":call_id": report.call_id,
                ":call_hash": report.call_hash.map(u64::cast_signed),
                ":call": call.map(|call| call.id),
                ":call_time": call.map(|call| Millis(call.time)),
                ":trunk": call.and_then(|call| call.trunk.as_ref()),
                ":reason": call.map(|call| call.reason),
                ":rule": call.map(|call| call.rule.cast_signed()),
                ":why_not": report.why_not,
                ":author": report.author,
                ":note": report.note,
            })?;
            drop(statement);
            let mut replaced = Vec::new();
            if let Some(call) = call {
                let mut statement = write.tx.prepare_cached(
                    "UPDATE reports SET why_not = ?1
                     WHERE number = ?2 AND call = ?3 AND why_not IS NULL AND id <> ?4 RETURNING id",
                )?;
                let why = format!("report {id} of the same call took its place");
                let about = params![why, report.number.0.cast_signed(), call.id, id];
                for row in statement.query_map(about, |row| row.get(0))? {
                    replaced.push(row?);
                }
            }
            let review = review.map(|review| write.open_report(review)).transpose()?;
            let added = Added { id: id.cast_unsigned(), review, replaced };
            write.audit(about(entry, &added, report))?;
            Ok(added)
        })
    }

    /// Deletes reports that are older than a time together with their calls, for at most `time`.
    ///
    /// # Errors
    /// Returns an error if the disk refuses; nothing was deleted.
    pub fn prune_reports(&mut self, before: Timestamp, time: Duration) -> Result<Step, Error> {
        let sql = format!(
            "DELETE FROM reports WHERE id IN (
                 SELECT id FROM reports WHERE time < ?1 AND ifnull(call_time, time) < ?1
                 ORDER BY time LIMIT {ROWS})"
        );
        self.write(|write| write.repeat(&sql, &[&Millis(before)], time))
    }
}

impl Reader {
    /// Hands reports and their numbers to `f`, newest first, until it breaks.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn reports(
        &self,
        filter: &ReportFilter,
        f: impl FnMut((u64, Report)) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let wanted = [
            ("time >= ?", filter.since.map(Timestamp::as_millisecond)),
            ("number = ?", filter.number.map(|number| number.0.cast_signed())),
        ];
        let (conditions, values) = conditions(&wanted, filter.after);
        let sql = format!("SELECT {COLUMNS} FROM reports{conditions} ORDER BY time DESC, id DESC");
        self.each(&sql, params_from_iter(values), read, f).map(drop)
    }

    /// Returns the strikes of a number whose calls came at this time or later, oldest first, with the
    /// numbers of these calls. A strike has the time of its call, so the time, number and order of the
    /// reports do not matter.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn strikes(&self, number: Number, since: Timestamp) -> Result<Vec<(u64, Strike)>, Error> {
        self.get(|conn| {
            conn.prepare_cached(
                "SELECT call, call_time, kind FROM reports
                 WHERE number = ?1 AND call_time >= ?2 AND why_not IS NULL ORDER BY call_time, id",
            )?
            .query_map(params![number.0.cast_signed(), Millis(since)], |row| {
                let time = row.get::<_, Millis>(1)?.0;
                Ok((row.get(0)?, Strike { time, kind: kind(row, 2)? }))
            })?
            .collect()
        })
    }

    /// Returns the existing strike of a call, found by the hash of its Call-ID, with the call.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn strike_of_call(
        &self,
        number: Number,
        call_hash: u64,
    ) -> Result<Option<ReportedCall>, Error> {
        let mut found = None;
        let sql = format!(
            "SELECT {COLUMNS} FROM reports
             WHERE number = ?1 AND call_hash = ?2 AND why_not IS NULL ORDER BY id DESC LIMIT 1"
        );
        let about = params![number.0.cast_signed(), call_hash.cast_signed()];
        let ended = self.each(&sql, about, read, |(_, report)| {
            found = report.call;
            ControlFlow::Break(())
        });
        ended.map(|_| found)
    }
}

fn about(mut entry: Entry, added: &Added, report: &Report) -> Entry {
    entry.number = Some(report.number.to_string());
    entry = entry
        .with("report", added.id)
        .with("kind", report.kind.name())
        .with("call_id", report.call_id.clone())
        .with("strike", report.why_not.is_none());
    if let Some(why) = &report.why_not {
        entry = entry.with("why_not", why.as_str());
    }
    if !report.note.is_empty() {
        entry = entry.with("note", report.note.as_str());
    }
    if let Some(review) = added.review {
        entry = entry.with("review", review);
    }
    if !added.replaced.is_empty() {
        entry = entry.with("replaced", added.replaced.clone());
    }
    entry
}

fn kind(row: &Row<'_>, index: usize) -> rusqlite::Result<ReportKind> {
    let name: String = row.get(index)?;
    ReportKind::from_name(&name).ok_or_else(|| {
        let unknown = format!("{name:?} is not a kind of report").into();
        rusqlite::Error::FromSqlConversionFailure(index, Type::Text, unknown)
    })
}

fn read(row: &Row<'_>) -> rusqlite::Result<(u64, Report)> {
    let call = match row.get::<_, Option<u64>>("call")? {
        Some(id) => Some(ReportedCall {
            id,
            time: row.get::<_, Millis>("call_time")?.0,
            trunk: row.get("trunk")?,
            reason: row.get("reason")?,
            rule: row.get::<_, i64>("rule")?.cast_unsigned(),
        }),
        None => None,
    };
    let report = Report {
        time: row.get::<_, Millis>("time")?.0,
        number: Number(row.get::<_, i64>("number")?.cast_unsigned()),
        kind: kind(row, 3)?,
        call_id: row.get("call_id")?,
        call_hash: row.get::<_, Option<i64>>("call_hash")?.map(i64::cast_unsigned),
        call,
        why_not: row.get("why_not")?,
        author: row.get("author")?,
        note: row.get("note")?,
    };
    Ok((row.get("id")?, report))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{Home, time};

    /// Creates a strike of a call with this number, that came 10 s before it was reported.
    fn report(at: i64, number: u64, call: u64) -> Report {
        Report {
            time: time(at),
            number: Number(number),
            kind: ReportKind::Prank,
            call_id: Some(format!("{call}@pbx")),
            call_hash: Some(u64::MAX - call),
            call: Some(ReportedCall {
                id: call,
                time: time(at - 10),
                trunk: Some("telco".to_owned()),
                reason: 255,
                rule: u64::MAX,
            }),
            why_not: None,
            author: "siti".to_owned(),
            note: "laughter".to_owned(),
        }
    }

    fn unmatched(at: i64, number: u64) -> Report {
        Report { call: None, why_not: Some("no such call".to_owned()), ..report(at, number, 9) }
    }

    fn entry() -> Entry {
        Entry::new(time(0), "siti", "report")
    }

    fn review_of(report: &Report) -> Review {
        Review {
            time: report.time,
            number: report.number,
            kind: "report".to_owned(),
            rule: 0,
            call_id: report.call_id.clone(),
            until: report.time,
            closed: None,
        }
    }

    fn listed(reader: &Reader, filter: ReportFilter) -> Vec<(u64, Report)> {
        let mut found = Vec::new();
        let push = |row| {
            found.push(row);
            ControlFlow::Continue(())
        };
        reader.reports(&filter, push).unwrap();
        found
    }

    #[test]
    fn reports_are_found_newest_first_after_a_restart() {
        let home = Home::new();
        let mut store = home.store();
        let reports = [report(100, u64::MAX, 1), unmatched(50, 7), report(100, 7, 2)];
        for (id, report) in (1..).zip(&reports) {
            let added = store.add_report(report, None, entry()).unwrap();
            assert_eq!(added, Added { id, review: None, replaced: Vec::new() });
        }
        drop(store);
        let store = home.store();
        let numbered: Vec<_> = (1..).zip(reports).collect();
        let all = ReportFilter::default();
        let [first, second, third] = &numbered[..] else { panic!() };
        assert_eq!(listed(store.reader(), all), [third.clone(), first.clone(), second.clone()]);
        let since = ReportFilter { since: Some(time(51)), ..all };
        assert_eq!(listed(store.reader(), since).len(), 2);
        let number = ReportFilter { number: Some(Number(7)), ..all };
        assert_eq!(listed(store.reader(), number), [third.clone(), second.clone()]);
        // Two of the same moment, of which the first was the last one of a page.
        let rest = ReportFilter { after: Some((third.1.time, third.0)), ..all };
        assert_eq!(listed(store.reader(), rest), [first.clone(), second.clone()]);
        assert_eq!(store.reader().verify_audit(None).unwrap().rows, 3);
    }

    #[test]
    fn one_call_is_one_strike() {
        let home = Home::new();
        let mut store = home.store();
        let mut add = |report: &Report| store.add_report(report, None, entry()).unwrap().replaced;
        assert_eq!(add(&report(100, 7, 1)), [0; 0]);
        assert_eq!(add(&report(100, 8, 1)), [0; 0], "of another number");
        assert_eq!(add(&report(200, 7, 2)), [0; 0]);
        let again = Report { kind: ReportKind::Abusive, ..report(100, 7, 1) };
        assert_eq!(add(&again), [1]);
        add(&unmatched(300, 7));
        let strikes = |since| store.reader().strikes(Number(7), time(since)).unwrap();
        let prank = Strike { time: time(190), kind: ReportKind::Prank };
        let abusive = Strike { time: time(90), kind: ReportKind::Abusive };
        assert_eq!(strikes(0), [(1, abusive), (2, prank)]);
        assert_eq!(strikes(91), [(2, prank)], "by the time of the call");
        let why = listed(store.reader(), ReportFilter::default());
        let why = why.iter().find(|(id, _)| *id == 1).unwrap().1.why_not.as_deref();
        assert_eq!(why, Some("report 4 of the same call took its place"));

        // A report without weight takes the strike away.
        let of_call = |store: &Store, call| {
            let found = store.reader().strike_of_call(Number(7), u64::MAX - call).unwrap();
            found.map(|call| call.id)
        };
        assert_eq!((of_call(&store, 2), of_call(&store, 3)), (Some(2), None));
        let test = Report {
            kind: ReportKind::Test,
            why_not: Some("weighs nothing".to_owned()),
            ..report(400, 7, 2)
        };
        assert_eq!(store.add_report(&test, None, entry()).unwrap().replaced, [3]);
        assert_eq!(store.reader().strikes(Number(7), time(0)).unwrap(), [(1, abusive)]);
        assert_eq!(of_call(&store, 2), None);
    }

    #[test]
    fn who_has_to_look_at_it_is_told_once_a_call() {
        let home = Home::new();
        let mut store = home.store();
        let mut add = |report: &Report| {
            store.add_report(report, Some(&review_of(report)), entry()).unwrap().review
        };
        assert_eq!(add(&unmatched(100, 7)), Some(1));
        assert_eq!(add(&unmatched(200, 7)), Some(1), "the same call");
        assert_eq!(add(&unmatched(200, 8)), Some(2));
        assert_eq!(add(&report(200, 7, 1)), Some(3));
        let without = Report { call_id: None, call_hash: None, ..unmatched(100, 7) };
        assert_eq!(add(&without), Some(4));
        assert_eq!(add(&without), Some(4));
        let closed = crate::store::Closed {
            time: time(300),
            by: "budi".to_owned(),
            note: "nothing".to_owned(),
        };
        store.close_review(1, &closed, entry()).unwrap();
        let again = unmatched(400, 7);
        let added = store.add_report(&again, Some(&review_of(&again)), entry()).unwrap();
        assert_eq!(added.review, Some(5), "the one before was looked at");
        assert_eq!(store.reader().open_reviews().unwrap(), 4);
        assert!(store.reader().verify_audit(None).unwrap().first_bad.is_none());
    }

    #[test]
    fn retention_and_what_the_table_refuses() {
        let home = Home::new();
        let mut store = home.store();
        store.add_report(&report(100, 7, 1), None, entry()).unwrap();
        store.add_report(&unmatched(100, 7), None, entry()).unwrap();
        // A clock that was set back: the call lies ahead.
        let mut ahead = report(50, 7, 2);
        ahead.call.as_mut().unwrap().time = time(500);
        store.add_report(&ahead, None, entry()).unwrap();
        assert_eq!(store.prune_reports(time(100), Duration::MAX).unwrap().count, 0);
        assert_eq!(store.prune_reports(time(101), Duration::MAX).unwrap().count, 2);
        assert_eq!(store.prune_reports(time(501), Duration::MAX).unwrap().count, 1);
        let added = store.add_report(&unmatched(600, 7), None, entry()).unwrap();
        assert_eq!(added.id, 4, "numbers are not used again");
        // A strike without a call.
        let odd = Report { why_not: None, ..unmatched(700, 7) };
        store.add_report(&odd, None, entry()).unwrap_err();
        assert_eq!(store.reader().verify_audit(None).unwrap().rows, 4);
    }
}
