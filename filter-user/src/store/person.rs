//! Everything that is held about one number: to show it to its owner, and to erase it.

use std::ops::ControlFlow;
use std::time::Duration;

use filter_common::number::Number;
use rusqlite::Connection;

use crate::model::policy::Subject;
use crate::store::number_in_text::may_have;
use crate::store::reader::BUSY;
use crate::store::retention::ROWS;
use crate::store::reviews;
use crate::store::reviews::Review;
use crate::store::{
    AuditFilter, AuditRow, CallFilter, CallRow, Decision, Entry, Error, EvidenceRow, Kind, Reader,
    Report, ReportFilter, Store,
};

/// How long [`Store::clear_log`] waits for readers: nothing is written in this time.
const CLEAR_PATIENCE: Duration = Duration::from_millis(500);

/// The records of the store about a number, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberRecords {
    /// The block against exactly this number.
    pub block: Option<Decision>,
    /// The allow for exactly this number.
    pub allow: Option<Decision>,
    /// Its calls and their numbers, newest first; also unread ones whose text has its digits.
    pub calls: Vec<(u64, CallRow)>,
    /// INVITEs of them and the numbers of the calls, newest first.
    pub evidence: Vec<(u64, EvidenceRow)>,
    /// Reports of its calls and their numbers, newest first.
    pub reports: Vec<(u64, Report)>,
    /// Exceptions and reports to look at, closed ones too, oldest first.
    pub reviews: Vec<(u64, Review)>,
    /// Audit rows about it, oldest first.
    pub audit: Vec<AuditRow>,
}

/// The number of records about a number, without its block and allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls.
    pub calls: u64,
    /// Reports.
    pub reports: u64,
    /// Entries of the review list, closed ones too.
    pub reviews: u64,
    /// Rows of the audit with the plain number beside them.
    pub audit: u64,
    /// Rows of the audit that are older than pseudonyms, whose record has the number. They stay, because
    /// the chain needs them.
    pub audit_records: u64,
}

impl Counts {
    /// Checks whether nothing can be erased.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        Counts { audit_records: 0, ..*self } == Counts::default()
    }
}

impl Reader {
    /// Returns everything that is held about a number.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn person(&self, number: Number) -> Result<NumberRecords, Error> {
        let moment = self.conn.unchecked_transaction();
        let _moment = moment.map_err(|error| self.error(error))?;
        let subject = Subject::Number(number);
        let mut person = NumberRecords {
            block: self.find(Kind::Block, subject)?,
            allow: self.find(Kind::Allow, subject)?,
            calls: Vec::new(),
            evidence: Vec::new(),
            reports: Vec::new(),
            reviews: Vec::new(),
            audit: Vec::new(),
        };
        let filter = CallFilter { number: Some(number), ..CallFilter::default() };
        self.calls(&filter, into(&mut person.calls))?;
        for id in self.get(|conn| unread_with(conn, number))? {
            person.calls.extend(self.call(id)?.map(|call| (id, call)));
        }
        person.calls.sort_by_key(|(id, call)| std::cmp::Reverse((call.time, *id)));
        for (id, _) in &person.calls {
            person.evidence.extend(self.evidence(*id)?.map(|row| (*id, row)));
        }
        let filter = ReportFilter { number: Some(number), ..ReportFilter::default() };
        self.reports(&filter, into(&mut person.reports))?;
        let sql = format!("SELECT {} FROM reviews WHERE number = ?1 ORDER BY id", reviews::COLUMNS);
        let raw = [number.0.cast_signed()];
        let _all = self.each(&sql, raw, reviews::read, into(&mut person.reviews))?;
        let filter = AuditFilter { number: Some(subject.to_string()), ..AuditFilter::default() };
        self.audit_rows(0, &filter, into(&mut person.audit))?;
        Ok(person)
    }

    /// Counts the records about a number.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn counts(&self, number: Number) -> Result<Counts, Error> {
        let (plain, pseudonym) = self.names_of(number)?;
        self.get(|conn| {
            let of = |table: &str| {
                let sql = format!("SELECT count(*) FROM {table} WHERE number = ?1");
                conn.query_row(&sql, [number.0.cast_signed()], |row| row.get(0))
            };
            let sql = "SELECT count(*) FROM audit WHERE number = ?1 AND plain IS NOT NULL";
            Ok(Counts {
                calls: of("calls")? + unread_with(conn, number)?.len() as u64,
                reports: of("reports")?,
                reviews: of("reviews")?,
                audit: conn.query_row(sql, [&pseudonym], |row| row.get(0))?,
                audit_records: records_with(conn, &plain)?,
            })
        })
    }

    /// Returns the two forms of a number in the audit: plain, and as its pseudonym.
    fn names_of(&self, number: Number) -> Result<(String, String), Error> {
        let plain = Subject::Number(number).to_string();
        let pseudonym = self.pseudonyms()?.pseudonym(&plain);
        Ok((plain, pseudonym))
    }
}

impl Store {
    /// Erases a number and returns the counts. Its calls, reports and reviews are deleted, and the audit
    /// keeps only its pseudonym. One audit row records the erasure, with the pseudonym and the counts.
    /// Its block and allow stay: the caller ends them before.
    ///
    /// # Errors
    /// Returns an error if the disk refuses; nothing was erased.
    pub fn erase(&mut self, number: Number, entry: Entry) -> Result<Counts, Error> {
        let (plain, pseudonym) = self.reader().names_of(number)?;
        self.write(|write| {
            let raw = number.0.cast_signed();
            let of = |table: &str| {
                let sql = format!(
                    "DELETE FROM {table} WHERE id IN (
                         SELECT id FROM {table} WHERE number = ?1 LIMIT {ROWS})"
                );
                write.repeat(&sql, &[&raw], Duration::MAX).map(|step| step.count)
            };
            let sql = format!(
                "UPDATE audit SET plain = NULL WHERE seq IN (
                     SELECT seq FROM audit WHERE number = ?1 AND plain IS NOT NULL LIMIT {ROWS})"
            );
            let unread = unread_with(&write.tx, number)?;
            let mut statement = write.tx.prepare_cached("DELETE FROM calls WHERE id = ?1")?;
            for id in &unread {
                statement.execute([id.cast_signed()])?;
            }
            drop(statement);
            let erased = Counts {
                calls: of("calls")? + unread.len() as u64,
                reports: of("reports")?,
                reviews: of("reviews")?,
                audit: write.repeat(&sql, &[&pseudonym], Duration::MAX)?.count,
                audit_records: records_with(&write.tx, &plain)?,
            };
            let mut entry = entry
                .with("calls", erased.calls)
                .with("reports", erased.reports)
                .with("reviews", erased.reviews)
                .with("audit_rows", erased.audit);
            entry.number = Some(plain);
            write.audit_without_number(entry)?;
            Ok(erased)
        })
    }

    /// Empties the log beside the store (`-wal`), which still has erased data. `false`: the store is
    /// being read, so the log could not be emptied.
    ///
    /// # Errors
    /// Returns an error if the disk refuses.
    pub fn clear_log(&mut self) -> Result<bool, Error> {
        self.reader().get(|conn| {
            conn.busy_timeout(CLEAR_PATIENCE)?;
            let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
            let busy = conn.query_row(sql, [], |row| row.get::<_, bool>(0));
            conn.busy_timeout(BUSY)?;
            Ok(!busy?)
        })
    }
}

/// Returns the calls whose caller could not be read, and whose text may have the digits of a number.
fn unread_with(conn: &Connection, number: Number) -> rusqlite::Result<Vec<u64>> {
    let number = number.to_string();
    let mut statement =
        conn.prepare_cached("SELECT id, unread FROM calls WHERE unread IS NOT NULL ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if may_have(row.get_ref(1)?.as_str()?, &number) {
            found.push(row.get::<_, i64>(0)?.cast_unsigned());
        }
    }
    Ok(found)
}

/// Counts the rows of the audit that have a number in the record itself.
fn records_with(conn: &Connection, plain: &str) -> rusqlite::Result<u64> {
    conn.query_row("SELECT count(*) FROM audit WHERE number = ?1", [plain], |row| row.get(0))
}

fn into<T>(all: &mut Vec<T>) -> impl FnMut(T) -> ControlFlow<()> {
    |one| {
        all.push(one);
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::ladder::ReportKind;
    use crate::store::tests::*;
    use crate::store::{Closed, restore};

    const DIGITS: &str = "6281234567890";
    const OTHER: &str = "6281234567891";

    fn raw(digits: &str) -> Number {
        number(digits).raw()
    }

    fn call(at: i64, number: Number) -> CallRow {
        CallRow {
            time: time(at),
            number: Some(number),
            trunk: Some("telco".to_owned()),
            source: "192.0.2.1:5060".to_owned(),
            call_id: Some(format!("{at}@pbx")),
            call_hash: 7,
            identity: 1,
            verdict: 0,
            policy_verdict: 0,
            reason: 1,
            rule: 0,
            repeats: 0,
            count: 1,
            unread: None,
            reply: None,
        }
    }

    /// Creates a store where each of two numbers has been blocked and freed, called, was reported and
    /// reviewed.
    fn two() -> Home {
        let home = Home::new();
        let mut store = home.store();
        for (rule, digits) in [(1, DIGITS), (2, OTHER)] {
            let number = raw(digits);
            put(&mut store, &[block(rule, Subject::Number(number))]);
            store.remove(Kind::Block, Subject::Number(number), entry()).unwrap();
            // Among those of others, on many pages.
            let calls: Vec<_> = (0..2000)
                .map(|at| call(at, if at % 7 == 0 { number } else { raw(&format!("62811{at}")) }))
                .collect();
            store.put_calls(&calls).unwrap();
            let report = Report {
                time: time(1),
                number,
                kind: ReportKind::Prank,
                call_id: None,
                call_hash: None,
                call: None,
                why_not: Some("no Call-ID was given".to_owned()),
                author: "siti".to_owned(),
                note: String::new(),
            };
            let review = |kind: &str| Review {
                time: time(1),
                number,
                kind: kind.to_owned(),
                rule,
                call_id: None,
                until: time(60),
                closed: None,
            };
            store.add_report(&report, Some(&review("report")), entry()).unwrap();
            let id = store.open_review(&review("redial-grant"), entry()).unwrap().unwrap();
            let closed =
                Closed { time: time(2), by: "siti".to_owned(), note: "ambulance sent".to_owned() };
            store.close_review(id, &closed, entry()).unwrap();
        }
        home
    }

    /// Checks whether bytes are in a file of the store.
    fn stand_in_a_file(home: &Home, bytes: &[u8]) -> bool {
        let files = fs::read_dir(home.folder.path()).unwrap();
        let mut contents = files.map(|file| fs::read(file.unwrap().path()).unwrap());
        contents.any(|content| content.windows(bytes.len()).any(|window| window == bytes))
    }

    #[test]
    fn all_that_is_held_about_a_number_is_found() {
        let home = two();
        let mut store = home.store();
        put(&mut store, &[block(9, number(DIGITS))]);
        let person = store.reader().person(raw(DIGITS)).unwrap();
        assert_eq!(person.block.as_ref().unwrap().rule, 9);
        assert_eq!(person.allow, None);
        assert_eq!(person.calls.len(), 286);
        assert!(person.calls.iter().all(|(_, call)| call.number == Some(raw(DIGITS))));
        assert_eq!((person.reports.len(), person.reviews.len()), (1, 2));
        assert!(person.reviews.iter().any(|(_, review)| review.closed.is_some()));
        assert_eq!(person.audit.len(), 6);
        assert!(person.audit.iter().all(|row| row.plain.as_deref() == Some(DIGITS)));
        let counts = store.reader().counts(raw(DIGITS)).unwrap();
        let all = Counts { calls: 286, reports: 1, reviews: 2, audit: 6, audit_records: 0 };
        assert_eq!(counts, all);
        assert!(store.reader().counts(raw("62899")).unwrap().is_nothing());
    }

    #[test]
    fn an_erased_number_is_in_no_file_and_the_chain_holds() {
        let home = two();
        let mut store = home.store();
        let head = store.reader().audit_head().unwrap();
        let other = store.reader().person(raw(OTHER)).unwrap();
        let packed = |digits: &str| raw(digits).0.to_be_bytes();
        assert!(stand_in_a_file(&home, DIGITS.as_bytes()));
        assert!(stand_in_a_file(&home, &packed(DIGITS)));

        let why = Entry::new(time(9), "root", "erase").with("reason", "asked for, letter 12");
        let erased = store.erase(raw(DIGITS), why).unwrap();
        let all = Counts { calls: 286, reports: 1, reviews: 2, audit: 5, audit_records: 0 };
        assert_eq!(erased, all);
        assert!(store.clear_log().unwrap());
        assert!(!stand_in_a_file(&home, DIGITS.as_bytes()));
        assert!(!stand_in_a_file(&home, &packed(DIGITS)));
        assert!(stand_in_a_file(&home, &packed(OTHER)), "what is looked for is how it stands");

        assert_eq!(store.reader().verify_audit(Some(head)).unwrap().first_bad, None);
        assert_eq!(store.reader().verify_audit(None).unwrap().rows, head.seq + 1);
        assert_eq!(store.reader().person(raw(OTHER)).unwrap(), other);
        assert!(store.reader().counts(raw(DIGITS)).unwrap().is_nothing());
        // A user who knows the number still finds what was done, and nothing names it.
        let left = store.reader().person(raw(DIGITS)).unwrap();
        assert_eq!((left.calls.len(), left.reports.len(), left.reviews.len()), (0, 0, 0));
        assert_eq!(left.audit.len(), 6);
        assert!(left.audit.iter().all(|row| row.plain.is_none()), "{left:?}");
        assert!(!format!("{left:?}").contains(DIGITS), "{left:?}");
        let last = &left.audit[5].record;
        for told in [r#""action":"erase""#, r#""author":"root""#, r#""calls":286"#, "letter 12"] {
            assert!(last.contains(told), "{last}");
        }
    }

    #[test]
    fn an_unread_caller_is_found_and_erased_by_the_digits_of_its_text() {
        let home = two();
        let mut store = home.store();
        let unread = |text: &str| CallRow {
            number: None,
            unread: Some(text.to_owned()),
            ..call(9_000, raw(DIGITS))
        };
        let texts =
            ["\"Budi\" <sip:0812%2D3456.7890a@x>", "0812 3456 7890", "<sip:081234567891a@x>"];
        let ids = store.put_calls(&texts.map(unread)).unwrap();
        let found = store.reader().person(raw(DIGITS)).unwrap();
        assert_eq!((found.calls[0].0, found.calls[1].0, found.calls.len()), (ids[1], ids[0], 288));
        assert_eq!(store.reader().counts(raw(DIGITS)).unwrap().calls, 288);
        assert_eq!(store.reader().counts(raw("7890")).unwrap().calls, 0);
        assert_eq!(store.erase(raw(DIGITS), entry()).unwrap().calls, 288);
        assert!(store.clear_log().unwrap());
        assert!(!stand_in_a_file(&home, b"Budi"));
        assert!(store.reader().call(ids[2]).unwrap().is_some());
    }

    #[test]
    fn a_log_that_somebody_reads_is_not_cleared() {
        let home = two();
        let mut store = home.store();
        let reader = Reader::open(&home.path).unwrap();
        let moment = reader.conn.unchecked_transaction().unwrap();
        reader.counts(raw(DIGITS)).unwrap();
        store.erase(raw(DIGITS), entry()).unwrap();
        assert!(!store.clear_log().unwrap());
        drop(moment);
        assert!(store.clear_log().unwrap());
    }

    #[test]
    fn all_is_forgotten_or_nothing() {
        let home = two();
        let before = home.store().reader().person(raw(DIGITS)).unwrap();
        home.tamper(
            "CREATE TRIGGER no BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no'); END",
        );
        home.store().erase(raw(DIGITS), entry()).unwrap_err();
        assert_eq!(home.store().reader().person(raw(DIGITS)).unwrap(), before);
    }

    #[test]
    fn a_copy_has_the_same_pseudonyms() {
        let home = two();
        let store = home.store();
        let copy = home.folder.path().join("copy");
        store.reader().backup(&copy).unwrap();
        let new = Home::new();
        restore(&copy, &new.path, false).unwrap();
        let mut restored = new.store();
        let name = |store: &Store| store.reader().pseudonyms().unwrap().pseudonym(DIGITS);
        assert_eq!(name(&restored), name(&store));
        assert_eq!(
            restored.reader().verify_audit(None).unwrap(),
            store.reader().verify_audit(None).unwrap()
        );
        assert_eq!(restored.erase(raw(DIGITS), entry()).unwrap().calls, 286);
        assert_eq!(restored.reader().verify_audit(None).unwrap().first_bad, None);
        assert_eq!(store.reader().counts(raw(DIGITS)).unwrap().calls, 286, "the original has all");
    }
}
