//! Blocks and allows in force.

use std::borrow::Borrow;
use std::ops::ControlFlow;

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, params};

use crate::model::policy::Subject;
use crate::store::chain::Entry;
use crate::store::decision::{COLUMNS, Decision, Kind, find, is_prefix, read, upsert};
use crate::store::error::Error;
use crate::store::reader::Reader;
use crate::store::schema::Millis;
use crate::store::writer::Store;

impl Store {
    /// Stores decisions, each with one audit row, and returns their number. A decision replaces that of
    /// its kind and subject. All are stored or none.
    ///
    /// `entry` gets each decision and the one before, and makes its audit row; `number` and
    /// `rule` of the row are those of the decision.
    ///
    /// # Errors
    /// Returns an error if another decision has the rule or id, or the disk refuses; nothing was stored.
    pub fn put<D: Borrow<Decision>>(
        &mut self,
        decisions: impl IntoIterator<Item = D>,
        mut entry: impl FnMut(&Decision, Option<&Decision>) -> Entry,
    ) -> Result<u64, Error> {
        self.write(|write| {
            let mut count = 0;
            for decision in decisions {
                let decision = decision.borrow();
                let before = find(&write.tx, decision.kind, decision.subject)?;
                upsert(&write.tx, decision, before.as_ref())?;
                let entry = entry(decision, before.as_ref());
                write.audit(entry.about(decision.subject, decision.rule))?;
                count += 1;
            }
            Ok(count)
        })
    }

    /// Stores one decision as [`Store::put`] does, with a further audit row about its meaning.
    ///
    /// # Errors
    /// Returns an error if another decision has the rule or id, or the disk refuses; nothing was stored.
    pub fn put_telling(
        &mut self,
        decision: &Decision,
        besides: Option<Entry>,
        entry: impl FnOnce(&Decision, Option<&Decision>) -> Entry,
    ) -> Result<(), Error> {
        self.write(|write| {
            let before = find(&write.tx, decision.kind, decision.subject)?;
            upsert(&write.tx, decision, before.as_ref())?;
            let entry = entry(decision, before.as_ref());
            write.audit(entry.about(decision.subject, decision.rule))?;
            besides.map_or(Ok(()), |besides| write.audit(besides))
        })
    }

    /// Removes a decision, with an audit row. `None`: it does not exist, and nothing was changed.
    ///
    /// `action`, `number` and `rule` of the row are set here, so that [`Reader::was_removed`]
    /// finds it.
    ///
    /// # Errors
    /// Returns an error if the disk refuses; nothing was changed.
    pub fn remove(
        &mut self,
        kind: Kind,
        subject: Subject,
        mut entry: Entry,
    ) -> Result<Option<Decision>, Error> {
        self.write(|write| {
            let Some(decision) = find(&write.tx, kind, subject)? else {
                return Ok(None);
            };
            write.tx.execute("DELETE FROM decisions WHERE rule = ?1", [decision.rule])?;
            entry.action = match kind {
                Kind::Block => "block remove",
                Kind::Allow => "allow remove",
            }
            .to_owned();
            write.audit(entry.about(subject, decision.rule))?;
            Ok(Some(decision))
        })
    }

    /// Removes decisions that have ended by `now`, earliest first. It removes at most `limit`, so that a
    /// command never waits for a million of them.
    ///
    /// It writes no audit row: the row about the new decision has its end.
    ///
    /// # Errors
    /// Returns an error if the disk refuses; nothing was changed.
    pub fn remove_expired(&mut self, now: Timestamp, limit: u32) -> Result<Vec<Decision>, Error> {
        self.write(|write| {
            write.saw(now);
            let mut statement = write.tx.prepare_cached(&format!(
                "DELETE FROM decisions WHERE rule IN (
                     SELECT rule FROM decisions WHERE expires <= ?1 ORDER BY expires LIMIT ?2
                 ) RETURNING {COLUMNS}"
            ))?;
            statement.query_map(params![Millis(now), limit], read)?.collect()
        })
    }
}

impl Reader {
    /// Returns the decision of a kind about exactly this subject.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn find(&self, kind: Kind, subject: Subject) -> Result<Option<Decision>, Error> {
        self.get(|conn| find(conn, kind, subject))
    }

    /// Returns the decision in force with this rule number. [`Reader::last_audit`] finds removed
    /// decisions.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn by_rule(&self, rule: u64) -> Result<Option<Decision>, Error> {
        // No decision has a number that SQLite cannot hold.
        let Ok(rule) = i64::try_from(rule) else { return Ok(None) };
        self.get(|conn| {
            conn.prepare_cached(&format!("SELECT {COLUMNS} FROM decisions WHERE rule = ?1"))?
                .query_row([rule], read)
                .optional()
        })
    }

    /// Hands all decisions of a kind to `f` until it breaks, as of one moment: numbers, then
    /// prefixes, each by [`Subject::raw`].
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn for_each(
        &self,
        kind: Kind,
        f: impl FnMut(Decision) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.for_each_after(kind, None, f)
    }

    /// Hands decisions to `f` as [`Reader::for_each`] does, beginning after `last`, which may be gone.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn for_each_after(
        &self,
        kind: Kind,
        last: Option<Subject>,
        mut f: impl FnMut(Decision) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let sql = format!(
            "SELECT {COLUMNS} FROM decisions
             WHERE kind = ?1 AND prefix = ?2 AND subject BETWEEN ?3 AND ?4 ORDER BY subject"
        );
        let last = last.map(|last| (is_prefix(last), last.raw().0));
        let moment = self.conn.unchecked_transaction();
        let _moment = moment.map_err(|error| self.error(error))?;
        for prefix in [false, true] {
            // Numbers whose top bit is set are negative here, but not the smallest.
            for (lowest, highest) in [(0, i64::MAX), (i64::MIN, -1)] {
                let first = match last {
                    Some(last) if last >= (prefix, i64::cast_unsigned(highest)) => continue,
                    Some((of, raw)) if of == prefix && raw >= i64::cast_unsigned(lowest) => {
                        (raw + 1).cast_signed()
                    }
                    Some(_) | None => lowest,
                };
                let range = params![kind.column(), prefix, first, highest];
                if self.each(&sql, range, read, &mut f)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Returns the decisions of a kind that were made for an incident, by their rule.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn of_incident(&self, kind: Kind, incident: &str) -> Result<Vec<Decision>, Error> {
        self.get(|conn| {
            conn.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM decisions WHERE incident = ?1 AND kind = ?2 ORDER BY rule"
            ))?
            .query_map(params![incident, kind.column()], read)?
            .collect()
        })
    }

    /// Checks whether any decision has ended by `now`.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn has_expired(&self, now: Timestamp) -> Result<bool, Error> {
        let sql = "SELECT 1 FROM decisions WHERE expires <= ?1";
        self.get(|conn| conn.prepare_cached(sql)?.exists([Millis(now)]))
    }

    /// Counts the decisions of a kind.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn count(&self, kind: Kind) -> Result<u64, Error> {
        let sql = "SELECT sum(count) FROM decision_counts WHERE kind = ?1";
        self.get(|conn| conn.query_row(sql, [kind.column()], |row| row.get(0)))
    }

    /// Counts the decisions of a kind about numbers (`false`) or prefixes (`true`): they fill separate
    /// maps.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn count_of(&self, kind: Kind, prefix: bool) -> Result<u64, Error> {
        let sql = "SELECT count FROM decision_counts WHERE kind = ?1 AND prefix = ?2";
        self.get(|conn| conn.query_row(sql, (kind.column(), prefix), |row| row.get(0)))
    }

    /// Returns the largest rule number that was ever given, also to a removed decision; 0: none.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn max_rule(&self) -> Result<u64, Error> {
        let sql = "SELECT max(
            ifnull((SELECT max(rule) FROM decisions), 0),
            ifnull((SELECT max(rule) FROM audit WHERE rule IS NOT NULL), 0))";
        self.get(|conn| conn.query_row(sql, [], |row| row.get(0)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use filter_common::number::{Digits, Number};
    use uuid::Uuid;

    use super::*;
    use crate::model::redial::RedialPolicy;
    use crate::store::tests::*;

    #[test]
    fn every_field_survives() {
        let home = Home::new();
        let mut store = home.store();
        let local = Subject::Number(Number::local(Digits::parse("112").unwrap()).unwrap());
        let full = Decision {
            id: Uuid::now_v7(),
            rule: i64::MAX as u64,
            kind: Kind::Allow,
            created: Timestamp::from_millisecond(1_800_000_000_123).unwrap(),
            expires: None,
            flags: 3,
            redial: Some(RedialPolicy { attempts: 8, window: 86_400, grant: 60 }),
            epoch: u32::MAX,
            incident: Some("2026-118".to_owned()),
            ..block(1, local)
        };
        let other = block(1, prefix("112"));
        put(&mut store, &[full.clone(), other.clone()]);
        assert_eq!(store.reader().find(Kind::Allow, local).unwrap(), Some(full.clone()));
        assert_eq!(store.reader().find(Kind::Block, local).unwrap(), None);
        assert_eq!(store.reader().find(Kind::Block, number("112")).unwrap(), None);
        assert_eq!(store.reader().by_rule(1).unwrap(), Some(other));
        assert_eq!(store.reader().by_rule(full.rule).unwrap(), Some(full));
        assert_eq!(store.reader().by_rule(u64::MAX).unwrap(), None);
    }

    #[test]
    fn those_of_an_incident_are_found() {
        let home = Home::new();
        let mut store = home.store();
        let of = |rule, kind, incident: Option<&str>| Decision {
            kind,
            incident: incident.map(str::to_owned),
            ..block(rule, number(&rule.to_string()))
        };
        let wanted = [of(2, Kind::Allow, Some("118")), of(5, Kind::Allow, Some("118"))];
        let others = [
            of(1, Kind::Allow, None),
            of(3, Kind::Allow, Some("11")),
            of(4, Kind::Block, Some("118")),
        ];
        put(&mut store, &wanted);
        put(&mut store, &others);
        assert_eq!(store.reader().of_incident(Kind::Allow, "118").unwrap(), wanted);
        assert_eq!(store.reader().of_incident(Kind::Allow, "119").unwrap(), []);
        store.put([&of(6, Kind::Allow, Some(""))], |_, _| entry()).unwrap_err();
    }

    #[test]
    fn the_same_subject_again_moves_it() {
        let home = Home::new();
        let mut store = home.store();
        let first = block(1, number("62811"));
        let later = Decision { rule: 2, expires: Some(time(9)), id: first.id, ..first.clone() };
        let mut seen = Vec::new();
        let mut note = |now: &Decision, before: Option<&Decision>| {
            seen.push((now.rule, before.map(|before| before.rule)));
            entry()
        };
        store.put([&first], &mut note).unwrap();
        store.put([&later], &mut note).unwrap();
        // The very same once more.
        store.put([&later], &mut note).unwrap();
        assert_eq!(seen, [(1, None), (2, Some(1)), (2, Some(2))]);
        assert_eq!(all(store.reader(), Kind::Block), [later]);
        assert_eq!(store.reader().by_rule(1).unwrap(), None);
        assert_eq!(store.reader().audit_head().unwrap().seq, 3);
    }

    #[test]
    fn one_bad_decision_keeps_all_out() {
        let home = Home::new();
        let mut store = home.store();
        put(&mut store, &[block(1, number("1"))]);
        let before = digest(store.reader());
        for bad in [
            block(3, number("9")),
            block(0, number("9")),
            block(u64::MAX, number("9")),
            Decision { id: block(3, number("2")).id, ..block(7, number("9")) },
        ] {
            let batch = [block(2, number("1")), block(3, number("2")), bad];
            store.put(&batch, |_, _| entry()).unwrap_err();
            assert_eq!(digest(store.reader()), before);
        }
    }

    #[test]
    fn a_rule_number_is_never_used_again() {
        let home = Home::new();
        let mut store = home.store();
        assert_eq!(store.reader().max_rule().unwrap(), 0);
        put(&mut store, &[block(7, number("1")), block(5, number("2"))]);
        assert_eq!(store.reader().max_rule().unwrap(), 7);
        let gone = store.remove(Kind::Block, number("1"), entry()).unwrap();
        assert_eq!(gone, Some(block(7, number("1"))));
        assert_eq!(store.remove(Kind::Block, number("1"), entry()).unwrap(), None);
        assert_eq!(store.reader().audit_head().unwrap().seq, 3);
        assert_eq!(store.reader().max_rule().unwrap(), 7);
        assert!(store.reader().was_removed(7).unwrap());
        assert!(!store.reader().was_removed(5).unwrap());
        assert!(!store.reader().was_removed(6).unwrap());
        let last = store.reader().last_audit(7).unwrap().unwrap();
        assert!(last.record.contains(r#""action":"block remove""#), "{}", last.record);
        assert_eq!(store.reader().last_audit(6).unwrap(), None);
    }

    #[test]
    fn what_has_ended_goes_earliest_first() {
        let home = Home::new();
        let mut store = home.store();
        let ends = |rule, at: Option<i64>| Decision {
            expires: at.map(time),
            ..block(rule, number(&rule.to_string()))
        };
        put(&mut store, &[ends(1, Some(30)), ends(2, Some(10)), ends(3, None), ends(4, Some(20))]);
        let rules = |gone: Vec<Decision>| gone.iter().map(|gone| gone.rule).collect::<Vec<_>>();
        assert_eq!(rules(store.remove_expired(time(9), 10).unwrap()), [0; 0]);
        assert_eq!(rules(store.remove_expired(time(20), 1).unwrap()), [2]);
        assert_eq!(rules(store.remove_expired(time(20), 10).unwrap()), [4]);
        assert_eq!(store.reader().count(Kind::Block).unwrap(), 2);
        assert_eq!(store.reader().audit_head().unwrap().seq, 4);
        assert!(!store.reader().was_removed(2).unwrap());
        assert_eq!(store.reader().max_rule().unwrap(), 4);
    }

    #[test]
    fn all_come_in_the_order_of_their_keys() {
        let home = Home::new();
        let mut store = home.store();
        let local = Subject::Number(Number::local(Digits::parse("112").unwrap()).unwrap());
        let sorted = [number("1"), number("62811"), number("91"), local, prefix("62"), prefix("8")];
        for (i, subject) in sorted.iter().rev().enumerate() {
            put(&mut store, &[block(i as u64 + 1, *subject)]);
        }
        let subjects: Vec<_> =
            all(store.reader(), Kind::Block).iter().map(|decision| decision.subject).collect();
        assert_eq!(subjects, sorted);
        let mut first = None;
        let take = |decision: Decision| {
            first = Some(decision.subject);
            ControlFlow::Break(())
        };
        store.reader().for_each(Kind::Block, take).unwrap();
        assert_eq!(first, Some(number("1")));

        let rest = |last| {
            let mut rest = Vec::new();
            let push = |decision: Decision| {
                rest.push(decision.subject);
                ControlFlow::Continue(())
            };
            store.reader().for_each_after(Kind::Block, last, push).unwrap();
            rest
        };
        assert_eq!(rest(None), sorted);
        for (index, last) in sorted.iter().enumerate() {
            assert_eq!(rest(Some(*last)), sorted[index + 1..]);
        }
        // Of those that are gone, and of the ends of each range.
        assert_eq!(rest(Some(number("2"))), sorted[1..]);
        let raw = |raw| Subject::Number(Number(raw));
        assert_eq!(rest(Some(raw(i64::MAX as u64))), sorted[2..]);
        assert_eq!(rest(Some(raw(u64::MAX))), sorted[4..]);
        assert_eq!(rest(Some(Subject::Prefix(Digits(u64::MAX)))), []);
    }

    #[test]
    fn a_hundred_thousand_in_one_call() {
        let home = Home::new();
        let mut store = home.store();
        let many =
            (1..=100_000).map(|rule| block(rule, number(&(6_281_100_000 + rule).to_string())));
        assert_eq!(store.put(many, |_, _| entry()).unwrap(), 100_000);
        assert_eq!(store.reader().count(Kind::Block).unwrap(), 100_000);
        assert_eq!(store.reader().audit_head().unwrap().seq, 100_000);
        assert_eq!(store.reader().verify_audit(None).unwrap().rows, 100_000);
        // Not only the first rows are looked at.
        for bad in [10_000, 10_001, 99_999] {
            home.tamper(&format!("UPDATE audit SET record = record || ' ' WHERE seq = {bad}"));
            assert_eq!(store.reader().verify_audit(None).unwrap().first_bad, Some(bad));
            home.tamper(&format!("UPDATE audit SET record = trim(record) WHERE seq = {bad}"));
        }
    }

    #[test]
    fn a_question_that_nobody_waits_for_ends() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicBool, Ordering};
        let home = Home::new();
        let mut store = home.store();
        let many = (1..=2000).map(|rule| block(rule, number(&(6_281_100_000 + rule).to_string())));
        store.put(many, |_, _| entry()).unwrap();
        let mut reader = Reader::open(&home.path).unwrap();
        let end = Arc::new(AtomicBool::new(false));
        reader.end_when(Arc::clone(&end)).unwrap();
        let mut seen = 0;
        let error = reader.for_each(Kind::Block, |_| {
            seen += 1;
            end.store(true, Ordering::Relaxed);
            ControlFlow::Continue(())
        });
        assert!(error.unwrap_err().message().contains("interrupted"));
        assert!(seen < 2000, "{seen}");
        assert!(matches!(reader.verify_audit(None), Err(Error::Failed { .. })));
        assert!(store.reader().verify_audit(None).is_ok(), "others go on");
    }

    #[derive(Clone, Debug)]
    enum Change {
        Put(Vec<(Kind, Subject, Option<i64>)>),
        Remove(Kind, Subject),
        Expire(i64),
        Restart,
    }

    fn change() -> impl Strategy<Value = Change> {
        let kind = || prop_oneof![Just(Kind::Block), Just(Kind::Allow)];
        let subject = || {
            let digits = prop::sample::select(vec!["1", "62", "6281", "91"]);
            (digits, any::<bool>()).prop_map(|(d, short)| if short { prefix(d) } else { number(d) })
        };
        let put = (kind(), subject(), prop::option::of(0..20_i64));
        prop_oneof![
            4 => prop::collection::vec(put, 0..4).prop_map(Change::Put),
            3 => (kind(), subject()).prop_map(|(kind, subject)| Change::Remove(kind, subject)),
            1 => (0..20_i64).prop_map(Change::Expire),
            1 => Just(Change::Restart),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Checks that a store equals a map in memory, through any changes and restarts.
        #[test]
        fn a_store_is_a_map(changes in prop::collection::vec(change(), 0..30)) {
            let home = Home::new();
            let mut store = home.store();
            let mut model = HashMap::new();
            let mut rule = 0;
            let mut rows = 0;
            for change in changes {
                match change {
                    Change::Put(wanted) => {
                        let mut batch = Vec::new();
                        for (kind, subject, expires) in wanted {
                            rule += 1;
                            let expires = expires.map(time);
                            batch.push(Decision { kind, expires, ..block(rule, subject) });
                        }
                        rows += batch.len() as u64;
                        store.put(&batch, |now, before| {
                            let known = model.insert((now.kind, now.subject), now.clone());
                            assert_eq!(known.as_ref(), before);
                            entry()
                        }).unwrap();
                    }
                    Change::Remove(kind, subject) => {
                        let gone = store.remove(kind, subject, entry()).unwrap();
                        rows += u64::from(gone.is_some());
                        prop_assert_eq!(gone, model.remove(&(kind, subject)));
                    }
                    Change::Expire(now) => {
                        for gone in store.remove_expired(time(now), 100).unwrap() {
                            prop_assert_eq!(model.remove(&(gone.kind, gone.subject)), Some(gone));
                        }
                        let ended = |d: &Decision| d.expires.is_some_and(|end| end <= time(now));
                        prop_assert!(!model.values().any(ended));
                    }
                    Change::Restart => {
                        drop(store);
                        store = home.store();
                    }
                }
                prop_assert_eq!(store.reader().max_rule().unwrap(), rule);
                for kind in [Kind::Block, Kind::Allow] {
                    let count = |wanted: &dyn Fn(Subject) -> bool| {
                        model.keys().filter(|(of, subject)| *of == kind && wanted(*subject)).count() as u64
                    };
                    prop_assert_eq!(store.reader().count(kind).unwrap(), count(&|_| true));
                    prop_assert_eq!(store.reader().count_of(kind, true).unwrap(), count(&is_prefix));
                }
            }
            let mut stored = all(store.reader(), Kind::Block);
            stored.extend(all(store.reader(), Kind::Allow));
            for decision in &stored {
                let key = (decision.kind, decision.subject);
                let known = model.remove(&key);
                prop_assert_eq!(known.as_ref(), Some(decision));
            }
            prop_assert!(model.is_empty());
            let check = store.reader().verify_audit(None).unwrap();
            prop_assert_eq!((check.rows, check.first_bad), (rows, None));
        }
    }
}
