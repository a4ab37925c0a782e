//! Every attempt that the gate saw, passed ones too.

use std::ops::ControlFlow;
use std::time::Duration;

use filter_common::number::{Digits, Number};
use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Row, named_params, params, params_from_iter};

use crate::model::per_ring::is_in_ring_of_refusals;
use crate::store::error::Error;
use crate::store::reader::{Reader, conditions};
use crate::store::retention::ROWS;
use crate::store::retention::Step;
use crate::store::schema::Millis;
use crate::store::writer::{Store, Write};

const COLUMNS: &str = "id, time, number, trunk, source, call_id, call_hash, identity, verdict, \
                       policy_verdict, reason, rule, repeats, count, unread, reply";

/// One attempt, and in a flood further ones of the same caller; numbers of identity, verdict and
/// reason as an [`Event`](filter_common::abi::Event) carries them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallRow {
    /// Time of the attempt.
    pub time: Timestamp,
    /// Caller number; `None` where none was read.
    pub number: Option<Number>,
    /// Name of the trunk; `None`: outside every trunk.
    pub trunk: Option<String>,
    /// Source address and port.
    pub source: String,
    /// Call-ID, cut; `None` where none was read.
    pub call_id: Option<String>,
    /// Hash of the whole Call-ID; 0: not read.
    pub call_hash: u64,
    /// The header with the caller number; 0: none.
    pub identity: u8,
    /// Its verdict.
    pub verdict: u8,
    /// Its verdict without observe and override.
    pub policy_verdict: u8,
    /// Its reason.
    pub reason: u8,
    /// The rule that decided; 0: none.
    pub rule: u64,
    /// Number of retransmissions.
    pub repeats: u32,
    /// Attempts that this record counts, 1 to 2^63 - 1: this one, and further refusals of the same
    /// caller within the same minute.
    pub count: u64,
    /// Value of the header field whose caller could not be read, cut; `None`: the caller was read, or there
    /// is no such header field.
    pub unread: Option<String>,
    /// SIP status code of the reply; `None`: no reply.
    pub reply: Option<u16>,
}

impl CallRow {
    /// Checks whether the kernel reports it in the ring of refusals, which also has redial grants.
    #[must_use]
    pub fn is_in_ring_of_refusals(&self) -> bool {
        is_in_ring_of_refusals(self.verdict, self.reason)
    }
}

/// Selects calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallFilter {
    /// Only calls of this time and later.
    pub since: Option<Timestamp>,
    /// Only calls from this number.
    pub number: Option<Number>,
    /// Only calls with this Call-ID.
    pub call_hash: Option<u64>,
    /// Only calls after the one with this time and number, newest first.
    pub after: Option<(Timestamp, u64)>,
    /// Largest number of calls.
    pub limit: Option<u32>,
}

impl Store {
    /// Stores calls, all or none; returns their numbers in the same order.
    ///
    /// # Errors
    /// Returns an error if the disk refuses; nothing was stored.
    pub fn put_calls(&mut self, calls: &[CallRow]) -> Result<Vec<u64>, Error> {
        self.write(|write| calls.iter().map(|call| write.call(call)).collect())
    }

    /// Writes without waiting for the disk.
    pub(crate) fn soon<T>(
        &mut self,
        write: impl FnOnce(&mut Store) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.wait_for_disk(false)?;
        let done = write(self);
        if let Err(error) = self.wait_for_disk(true) {
            // This change is written, but the next answered change must be on disk.
            self.stop_writing(&format!("it does not wait for the disk: {}", error.message()));
        }
        done
    }

    fn wait_for_disk(&self, wait: bool) -> Result<(), Error> {
        let Reader { conn, path } = &self.reader;
        let synchronous = if wait { "FULL" } else { "NORMAL" };
        conn.pragma_update(None, "synchronous", synchronous)
            .map_err(|error| Error::sqlite(path, error))
    }

    /// Stores the number of retransmissions of calls. A call that was deleted is skipped.
    ///
    /// # Errors
    /// Returns an error if the disk refuses; nothing was stored.
    pub fn set_repeats(&mut self, repeats: &[(u64, u32)]) -> Result<(), Error> {
        self.write(|write| {
            let sql = "UPDATE calls SET repeats = ?2 WHERE id = ?1";
            let mut statement = write.tx.prepare_cached(sql)?;
            for (id, count) in repeats {
                statement.execute((id, count))?;
            }
            Ok(())
        })
    }

    /// Deletes calls from before a time, oldest first, for at most `time`.
    ///
    /// # Errors
    /// Returns an error if the disk refuses; nothing was deleted.
    pub fn prune_calls(&mut self, before: Timestamp, time: Duration) -> Result<Step, Error> {
        let sql = format!(
            "DELETE FROM calls WHERE id IN (
                 SELECT id FROM calls WHERE time < ?1 ORDER BY time LIMIT {ROWS})"
        );
        self.write(|write| write.repeat(&sql, &[&Millis(before)], time))
    }
}

impl Write<'_> {
    /// Stores a call; returns its number.
    pub(crate) fn call(&mut self, call: &CallRow) -> rusqlite::Result<u64> {
        self.saw(call.time);
        let mut statement = self.tx.prepare_cached(&format!(
            "INSERT INTO calls ({COLUMNS}) VALUES (NULL, :time, :number, :trunk, :source, \
             :call_id, :call_hash, :identity, :verdict, :policy_verdict, :reason, :rule, :repeats, \
             :count, :unread, :reply)"
        ))?;
        // Rule and hash are stored bit by bit, because they use all 64 bits.
        let id = statement.insert(named_params! {
            ":time": Millis(call.time),
            ":number": call.number.map(|number| number.0.cast_signed()),
            ":trunk": call.trunk,
            ":source": call.source,
            ":call_id": call.call_id,
            ":call_hash": call.call_hash.cast_signed(),
            ":identity": call.identity,
            ":verdict": call.verdict,
            ":policy_verdict": call.policy_verdict,
            ":reason": call.reason,
            ":rule": call.rule.cast_signed(),
            ":repeats": call.repeats,
            ":count": call.count,
            ":unread": call.unread,
            ":reply": call.reply,
        })?;
        Ok(id.cast_unsigned())
    }
}

impl Reader {
    /// Hands calls and their numbers to `f`, newest first, until it breaks.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn calls(
        &self,
        filter: &CallFilter,
        f: impl FnMut((u64, CallRow)) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let wanted = [
            ("time >= ?", filter.since.map(Timestamp::as_millisecond)),
            ("number = ?", filter.number.map(|number| number.0.cast_signed())),
            ("call_hash = ?", filter.call_hash.map(u64::cast_signed)),
        ];
        let (conditions, mut values) = conditions(&wanted, filter.after);
        let sql =
            format!("SELECT {COLUMNS} FROM calls{conditions} ORDER BY time DESC, id DESC LIMIT ?");
        // SQLite reads a negative limit as no limit.
        values.push(filter.limit.map_or(-1, i64::from));
        self.each(&sql, params_from_iter(values), read, f).map(drop)
    }

    /// Returns how many callers of a prefix called since a time, and their calls.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn callers_of(&self, prefix: Digits, since: Timestamp) -> Result<(u64, u64), Error> {
        // The digits of a number are in its upper bits, four bits each, so its numbers follow each other.
        let first = prefix.0 & !0xF;
        let last = first | (u64::MAX >> (4 * prefix.len()));
        // Grouped in the order of the index: SQLite would sort for `count(DISTINCT number)`.
        let sql = "SELECT count(*), coalesce(sum(calls), 0) FROM (
                       SELECT sum(count) AS calls FROM calls INDEXED BY calls_number
                       WHERE number BETWEEN ?1 AND ?2 AND time >= ?3 GROUP BY number)";
        self.get(|conn| {
            let values = params![first.cast_signed(), last.cast_signed(), since.as_millisecond()];
            conn.prepare_cached(sql)?.query_row(values, |row| Ok((row.get(0)?, row.get(1)?)))
        })
    }

    /// Returns the call with this number.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn call(&self, id: u64) -> Result<Option<CallRow>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM calls WHERE id = ?1");
        let read = |row: &Row<'_>| read(row).map(|(_, call)| call);
        self.get(|conn| conn.query_row(&sql, [id.cast_signed()], read).optional())
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<(u64, CallRow)> {
    let call = CallRow {
        time: row.get::<_, Millis>("time")?.0,
        number: row.get::<_, Option<i64>>("number")?.map(|raw| Number(raw.cast_unsigned())),
        trunk: row.get("trunk")?,
        source: row.get("source")?,
        call_id: row.get("call_id")?,
        call_hash: row.get::<_, i64>("call_hash")?.cast_unsigned(),
        identity: row.get("identity")?,
        verdict: row.get("verdict")?,
        policy_verdict: row.get("policy_verdict")?,
        reason: row.get("reason")?,
        rule: row.get::<_, i64>("rule")?.cast_unsigned(),
        repeats: row.get("repeats")?,
        count: row.get("count")?,
        unread: row.get("unread")?,
        reply: row.get("reply")?,
    };
    Ok((row.get("id")?, call))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{Home, time};

    fn call(at: i64, number: u64) -> CallRow {
        CallRow {
            time: time(at),
            number: Some(Number(number)),
            trunk: Some("telco".to_owned()),
            source: "192.0.2.1:5060".to_owned(),
            call_id: Some(format!("{at}@pbx")),
            call_hash: u64::MAX - number,
            identity: 1,
            verdict: 1,
            policy_verdict: 1,
            reason: 255,
            rule: u64::MAX,
            repeats: 0,
            count: 1,
            unread: None,
            reply: None,
        }
    }

    fn found(reader: &Reader, filter: CallFilter) -> Vec<(u64, CallRow)> {
        let mut found = Vec::new();
        let push = |call| {
            found.push(call);
            ControlFlow::Continue(())
        };
        reader.calls(&filter, push).unwrap();
        found
    }

    #[test]
    fn calls_are_found_newest_first() {
        let home = Home::new();
        let mut store = home.store();
        let unread = CallRow {
            number: None,
            trunk: None,
            call_id: None,
            unread: Some("<sip:x@y>".to_owned()),
            ..call(2, 0)
        };
        let calls = [call(1, u64::MAX), unread, call(3, 7), call(3, 8)];
        assert_eq!(store.put_calls(&calls).unwrap(), [1, 2, 3, 4]);
        assert_eq!(store.reader().newest().unwrap(), Some(time(3)));

        let all = CallFilter::default();
        let mut newest_first: Vec<_> = (1..).zip(calls).collect();
        newest_first.reverse();
        assert_eq!(found(store.reader(), all), newest_first);
        let ids =
            |filter| found(store.reader(), filter).iter().map(|(id, _)| *id).collect::<Vec<_>>();
        assert_eq!(ids(CallFilter { since: Some(time(3)), ..all }), [4, 3]);
        assert_eq!(ids(CallFilter { number: Some(Number(u64::MAX)), ..all }), [1]);
        assert_eq!(ids(CallFilter { call_hash: Some(u64::MAX - 7), ..all }), [3]);
        assert_eq!(ids(CallFilter { limit: Some(2), ..all }), [4, 3]);
        assert_eq!(
            ids(CallFilter {
                since: Some(time(3)),
                number: Some(Number(8)),
                limit: Some(5),
                ..all
            }),
            [4]
        );
    }

    #[test]
    fn callers_of_a_prefix_are_counted_with_their_calls() {
        let home = Home::new();
        let mut store = home.store();
        let of = |digits: &str| Number::e164(Digits::parse(digits).unwrap()).0;
        let calls = [
            call(1, of("62812000001")),
            call(5, of("62812000001")),
            CallRow { count: 7, ..call(6, of("6281299")) },
            call(6, of("62813")),
            call(6, of("9198")),
            call(6, Number::local(Digits::parse("62812").unwrap()).unwrap().0),
        ];
        store.put_calls(&calls).unwrap();
        let counted = |prefix: &str, since| {
            store.reader().callers_of(Digits::parse(prefix).unwrap(), time(since)).unwrap()
        };
        assert_eq!(counted("62812", 0), (2, 9));
        assert_eq!(counted("62812", 5), (2, 8));
        assert_eq!(counted("6281", 0), (3, 10));
        assert_eq!(counted("91", 0), (1, 1));
        assert_eq!(counted("7", 0), (0, 0));
    }

    #[test]
    fn a_list_goes_on_where_it_stopped() {
        let home = Home::new();
        let mut store = home.store();
        // Many of the same millisecond.
        let calls: Vec<_> = (0..9).map(|index| call(index / 4, index as u64 % 2)).collect();
        store.put_calls(&calls).unwrap();
        for number in [None, Some(Number(1))] {
            let mut filter = CallFilter { number, ..CallFilter::default() };
            let whole = found(store.reader(), filter);
            let mut pages = Vec::new();
            for _ in 0..=whole.len() {
                let page = filter;
                let one = |(id, row): (u64, CallRow)| {
                    filter.after = Some((row.time, id));
                    pages.push((id, row));
                    ControlFlow::Break(())
                };
                store.reader().calls(&page, one).unwrap();
            }
            assert_eq!(pages, whole);
        }
    }

    #[test]
    fn repeats_and_retention() {
        let home = Home::new();
        let mut store = home.store();
        let ids = store.put_calls(&[call(1, 1), call(2, 2)]).unwrap();
        store.set_repeats(&[(ids[1], 3), (99, 1)]).unwrap();
        assert_eq!(found(store.reader(), CallFilter::default())[0].1.repeats, 3);
        assert_eq!(store.prune_calls(time(2), Duration::MAX).unwrap().count, 1);
        assert_eq!(store.prune_calls(time(3), Duration::MAX).unwrap().count, 1);
        assert_eq!(found(store.reader(), CallFilter::default()), []);
        assert_eq!(store.put_calls(&[call(4, 4)]).unwrap(), [3], "numbers are not used again");
    }
}
