//! Attempts that wait to be written into the store. They stay here until the store has answered that
//! it has them: the store gets copies.

use std::collections::{BTreeMap, HashMap, VecDeque};

use filter_common::abi::AttemptKey;

use crate::model::per_ring::PerRing;
use crate::store::{CallRow, Records, Stored};

/// Records that wait for a disk that takes none, about 300 bytes each. Of passed attempts half as
/// many, so that they displace no refusal.
const ROWS: usize = 100_000;
/// New records in one go: a block that comes meanwhile waits for them.
const BATCH: usize = 5000;

/// Records and counts that wait. Each record has a number of its own here, from 0 on, in the order of their coming.
#[derive(Debug, Default)]
pub struct Queue {
    rows: VecDeque<Row>,
    /// The number of the first of them.
    first: u64,
    passed: usize,
    /// Stored records that refusals may count in: their number here, and in the store.
    ids: HashMap<u64, u64>,
    /// Further refusals of stored records, by the number of the record here.
    more: HashMap<u64, u64>,
    thinned: BTreeMap<String, u64>,
    handed: Handed,
}

#[derive(Debug)]
struct Row {
    row: CallRow,
    key: AttemptKey,
    /// Refusals that count in it and came after it was handed out.
    more: u64,
}

/// The part that was handed out and not answered yet.
#[derive(Debug, Default)]
struct Handed {
    rows: usize,
    more: Vec<(u64, u64)>,
    thinned: BTreeMap<String, u64>,
}

impl Queue {
    /// Returns whether another record has room.
    #[must_use]
    pub fn has_room(&self, is_refusal: bool) -> bool {
        self.rows.len() < ROWS && (is_refusal || self.passed < ROWS / 2)
    }

    /// Adds a record; returns its number.
    pub fn push(&mut self, row: CallRow, key: AttemptKey) -> u64 {
        self.passed += usize::from(!row.is_in_ring_of_refusals());
        self.rows.push_back(Row { row, key, more: 0 });
        self.first + self.rows.len() as u64 - 1
    }

    /// Counts another refusal in a record; returns `false` where the record is gone.
    pub fn count(&mut self, record: u64) -> bool {
        if let Some(index) = record.checked_sub(self.first) {
            let row = usize::try_from(index).ok().and_then(|index| self.rows.get_mut(index));
            return row.map(|row| row.more += 1).is_some();
        }
        if !self.ids.contains_key(&record) {
            return false;
        }
        *self.more.entry(record).or_default() += 1;
        true
    }

    /// Counts a refusal by its trunk only.
    pub fn thin(&mut self, trunk: &str) {
        match self.thinned.get_mut(trunk) {
            Some(count) => *count += 1,
            None => {
                self.thinned.insert(trunk.to_owned(), 1);
            }
        }
    }

    /// Closes the records up to now: no refusal counts in them any more.
    pub fn close(&mut self) {
        self.ids.retain(|record, _| self.more.contains_key(record));
    }

    /// Returns whether no new record waits.
    #[must_use]
    pub fn has_no_rows(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.more.is_empty() && self.thinned.is_empty()
    }

    /// Returns a copy of the records that wait longest, and `with_counts` of all counts. Afterwards
    /// either [`Queue::stored`] or [`Queue::failed`] is called.
    pub fn hand_out(&mut self, with_counts: bool) -> Records {
        let rows = self.rows.len().min(BATCH);
        let row = |row: &mut Row| {
            row.row.count += std::mem::take(&mut row.more);
            row.row.clone()
        };
        let mut records = Records {
            rows: self.rows.iter_mut().take(rows).map(row).collect(),
            ..Records::default()
        };
        self.handed = Handed { rows, ..Handed::default() };
        if with_counts {
            let id = |(record, more): (&u64, &u64)| Some((*self.ids.get(record)?, *more));
            records.more = self.more.iter().filter_map(id).collect();
            records.thinned = self.thinned.clone();
            self.handed.more = self.more.iter().map(|(record, more)| (*record, *more)).collect();
            self.handed.thinned = self.thinned.clone();
        }
        records
    }

    /// Returns whether no record waits but those handed out.
    #[must_use]
    pub fn has_handed_out_all(&self) -> bool {
        self.handed.rows == self.rows.len()
    }

    /// Removes the part that the store has now. Returns numbers and keys of the new records there.
    pub fn stored(&mut self, stored: &Stored) -> Vec<(u64, AttemptKey)> {
        let Handed { rows, more, thinned } = std::mem::take(&mut self.handed);
        let mut new = Vec::with_capacity(rows);
        for (Row { row, key, more }, id) in self.rows.drain(..rows).zip(&stored.ids) {
            let record = self.first;
            self.first += 1;
            let is_refusal = row.is_in_ring_of_refusals();
            self.passed -= usize::from(!is_refusal);
            let Some(id) = *id else { continue };
            new.push((id, key));
            if is_refusal || more > 0 {
                self.ids.insert(record, id);
            }
            if more > 0 {
                self.more.insert(record, more);
            }
        }
        for (record, count) in more {
            if let Some(left) = self.more.get_mut(&record) {
                *left = left.saturating_sub(count);
            }
        }
        self.more.retain(|_, left| *left > 0);
        for (trunk, count) in thinned {
            if let Some(left) = self.thinned.get_mut(&trunk) {
                *left = left.saturating_sub(count);
            }
        }
        self.thinned.retain(|_, left| *left > 0);
        if !stored.gone.is_empty() {
            self.ids.retain(|_, id| !stored.gone.contains(id));
            self.more.retain(|record, _| self.ids.contains_key(record));
        }
        new
    }

    /// Keeps all that was handed out, because the store has nothing of it.
    pub fn failed(&mut self) {
        self.handed = Handed::default();
    }

    /// Returns the attempts that wait, without thinned ones.
    #[must_use]
    pub fn waiting(&self) -> PerRing {
        let mut waiting = PerRing::default();
        for Row { row, more, .. } in &self.rows {
            waiting.add(row.is_in_ring_of_refusals(), row.count + more);
        }
        waiting.add(true, self.more.values().sum());
        waiting
    }

    /// Returns the refusals that are only counted and not stored yet, by trunk.
    #[must_use]
    pub fn thinned(&self) -> &BTreeMap<String, u64> {
        &self.thinned
    }
}

#[cfg(test)]
mod tests {
    use filter_common::abi::Verdict;
    use filter_common::number::Number;
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    const KEY: AttemptKey = AttemptKey { number: Number(7), call_id: 1 };

    fn row(verdict: Verdict) -> CallRow {
        CallRow {
            time: Timestamp::UNIX_EPOCH,
            number: Some(Number(7)),
            trunk: None,
            source: String::new(),
            call_id: None,
            call_hash: 1,
            identity: 1,
            verdict: verdict as u8,
            policy_verdict: verdict as u8,
            reason: 1,
            rule: 1,
            repeats: 0,
            count: 1,
            unread: None,
            reply: None,
        }
    }

    #[test]
    fn record_that_the_store_refused_waits() {
        let mut queue = Queue::default();
        let record = queue.push(row(Verdict::Drop), KEY);
        queue.push(row(Verdict::Pass), KEY);
        queue.thin("telkom");
        let records = queue.hand_out(true);
        assert!(queue.count(record), "also while it is with the store");
        queue.failed();
        assert_eq!(queue.waiting(), PerRing { refused: 2, passed: 1 });
        let again = queue.hand_out(true);
        assert_eq!(
            (again.rows.len(), again.rows[0].count, &again.thinned),
            (2, 2, &records.thinned)
        );
    }

    #[test]
    fn passed_attempts_do_not_displace_refusals() {
        let mut queue = Queue::default();
        while queue.has_room(false) {
            queue.push(row(Verdict::Pass), KEY);
        }
        let mut refusals = 0;
        while queue.has_room(true) {
            queue.push(row(Verdict::Drop), KEY);
            refusals += 1;
        }
        assert_eq!((queue.waiting().passed, refusals), (ROWS as u64 / 2, ROWS / 2));
        let ids = vec![Some(1); queue.hand_out(false).rows.len()];
        queue.stored(&Stored { ids, ..Stored::default() });
        assert!(queue.has_room(false) && queue.has_room(true));
    }

    /// A thing that happens to a queue.
    #[derive(Clone, Debug)]
    enum Step {
        Refuse,
        Pass,
        Count(u64),
        Thin,
        Close,
        HandOut(bool),
        /// The store has taken it, but for the records with an odd shape and those that are gone.
        Stored {
            odd: usize,
            gone: usize,
        },
        Failed,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Refuse),
            2 => Just(Step::Pass),
            4 => (0u64..40).prop_map(Step::Count),
            1 => Just(Step::Thin),
            1 => Just(Step::Close),
            3 => any::<bool>().prop_map(Step::HandOut),
            3 => (0usize..20, 0usize..20).prop_map(|(odd, gone)| Step::Stored { odd, gone }),
            1 => Just(Step::Failed),
        ]
    }

    proptest! {
        /// Checks that an attempt is stored or waits, or its record was odd or gone, for any
        /// answers of the store.
        #[test]
        fn attempt_is_stored_or_waits_after_any_answers(steps in prop::collection::vec(step(), 0..120)) {
            let mut queue = Queue::default();
            let (mut taken, mut stored, mut lost) = (0u64, 0u64, 0u64);
            let mut handed: Option<Records> = None;
            let mut next_id = 1;
            for step in steps {
                match step {
                    Step::Refuse => { queue.push(row(Verdict::Drop), KEY); taken += 1; }
                    Step::Pass => { queue.push(row(Verdict::Pass), KEY); taken += 1; }
                    Step::Count(record) => taken += u64::from(queue.count(record)),
                    Step::Thin => { queue.thin("telkom"); taken += 1; }
                    Step::Close => queue.close(),
                    Step::HandOut(counts) if handed.is_none() => {
                        handed = Some(queue.hand_out(counts));
                    }
                    Step::Stored { odd, gone } => {
                        let Some(records) = handed.take() else { continue };
                        let waits = queue.waiting();
                        let before = waits.refused + waits.passed
                            + queue.thinned().values().sum::<u64>();
                        let mut answer = Stored::default();
                        let mut put = 0;
                        for (index, row) in records.rows.iter().enumerate() {
                            let is_odd = index == odd;
                            answer.ids.push((!is_odd).then_some(next_id));
                            next_id += 1;
                            put += if is_odd { 0 } else { row.count };
                        }
                        for (index, (id, more)) in records.more.iter().enumerate() {
                            if index == gone { answer.gone.push(*id) } else { put += more }
                        }
                        put += records.thinned.values().sum::<u64>();
                        queue.stored(&answer);
                        stored += put;
                        let waits = queue.waiting();
                        let after = waits.refused + waits.passed
                            + queue.thinned().values().sum::<u64>();
                        prop_assert!(before >= after + put);
                        lost += before - after - put;
                        if odd >= records.rows.len() && gone >= records.more.len() {
                            prop_assert_eq!(before, after + put);
                        }
                    }
                    Step::Failed => if handed.take().is_some() { queue.failed() },
                    Step::HandOut(_) => {}
                }
                let waits = queue.waiting();
                let thinned = queue.thinned().values().sum::<u64>();
                prop_assert_eq!(taken, stored + waits.refused + waits.passed + thinned + lost);
                prop_assert_eq!(waits == PerRing::default() && thinned == 0, queue.is_empty());
            }
        }
    }
}
