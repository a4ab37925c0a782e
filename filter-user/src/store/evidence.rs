//! Kept INVITEs of refused attempts, unchanged. Each belongs to a call and is deleted
//! with it: a trigger in [`schema`](crate::store::schema).

use std::time::Duration;

use filter_common::number::Number;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{OptionalExtension as _, Row, params};

use crate::store::error::Error;
use crate::store::reader::Reader;
use crate::store::retention::ROWS;
use crate::store::retention::Step;
use crate::store::schema::Millis;
use crate::store::writer::{Store, Write};

/// The times of an attempt's record and of its frame are read from the clock one after the other.
const APART: SignedDuration = SignedDuration::from_secs(2);
/// How long frames are deleted at once.
const ROOM_TIME: Duration = Duration::from_millis(20);

/// The frame of a refused attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceRow {
    /// Time of the frame.
    pub time: Timestamp,
    /// Its length in bytes.
    pub frame_len: u32,
    /// Its bytes, cut at [`EVIDENCE_MAX`](filter_common::abi::EVIDENCE_MAX).
    pub frame: Vec<u8>,
}

/// Room for kept frames; the oldest are deleted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Largest number of frames.
    pub frames: u64,
    /// Most bytes of all frames.
    pub bytes: u64,
}

/// A frame whose call is looked for: its caller number and the hash of its Call-ID.
pub type Unplaced = (Number, u64, EvidenceRow);

impl Store {
    /// Stores frames beside the calls that they belong to, and deletes the oldest above the `room`.
    /// Those whose call is not stored come back. Does not wait for the disk, as
    /// [`Store::put_records`] may.
    ///
    /// # Errors
    /// Returns an error if the disk refuses; nothing was stored.
    pub fn put_evidence(
        &mut self,
        frames: Vec<Unplaced>,
        room: Room,
    ) -> Result<Vec<Unplaced>, Error> {
        self.soon(|store| store.place(frames, room))
    }

    fn place(&mut self, frames: Vec<Unplaced>, room: Room) -> Result<Vec<Unplaced>, Error> {
        self.write(|write| {
            let mut unplaced = Vec::new();
            for (number, call_hash, row) in frames {
                let span = (row.time - APART, row.time + APART);
                let mut find = write.tx.prepare_cached(
                    "SELECT id FROM calls WHERE number = ?1 AND time BETWEEN ?2 AND ?3 \
                     AND call_hash = ?4 ORDER BY time DESC, id DESC LIMIT 1",
                )?;
                let wanted = params![
                    number.0.cast_signed(),
                    Millis(span.0),
                    Millis(span.1),
                    call_hash.cast_signed()
                ];
                let Some(call) = find.query_row(wanted, |row| row.get::<_, i64>(0)).optional()?
                else {
                    unplaced.push((number, call_hash, row));
                    continue;
                };
                let mut put = write.tx.prepare_cached(
                    "INSERT INTO evidence (call, time, frame_len, kept_len, frame) \
                     VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (call) DO NOTHING",
                )?;
                put.execute(params![
                    call,
                    Millis(row.time),
                    row.frame_len,
                    row.frame.len() as u64,
                    row.frame
                ])?;
            }
            make_room(write, room)?;
            Ok(unplaced)
        })
    }

    /// Deletes frames from before a time, oldest first, for at most `time`.
    ///
    /// # Errors
    /// Returns an error if the disk refuses; nothing was deleted.
    pub fn prune_evidence(&mut self, before: Timestamp, time: Duration) -> Result<Step, Error> {
        let sql = format!(
            "DELETE FROM evidence WHERE call IN (
                 SELECT call FROM evidence WHERE time < ?1 ORDER BY time LIMIT {ROWS})"
        );
        self.write(|write| write.repeat(&sql, &[&Millis(before)], time))
    }
}

/// Deletes the oldest frames until the others fit. When much less room was configured, the next
/// frames go on with it.
fn make_room(write: &Write<'_>, room: Room) -> rusqlite::Result<()> {
    let tx = &write.tx;
    let (mut frames, mut bytes) = size(tx)?;
    let mut last = None;
    if frames > room.frames || bytes > room.bytes {
        // Calls are numbered in the order in which they came.
        let mut oldest = tx.prepare_cached("SELECT call, kept_len FROM evidence ORDER BY call")?;
        let mut rows = oldest.query([])?;
        while (frames > room.frames || bytes > room.bytes)
            && let Some(row) = rows.next()?
        {
            last = Some(row.get::<_, i64>(0)?);
            frames -= 1;
            bytes = bytes.saturating_sub(row.get(1)?);
        }
    }
    if let Some(last) = last {
        let sql = format!(
            "DELETE FROM evidence WHERE call IN (
                 SELECT call FROM evidence WHERE call <= ?1 ORDER BY call LIMIT {ROWS})"
        );
        write.repeat(&sql, &[&last], ROOM_TIME)?;
    }
    Ok(())
}

/// Counts the frames and their bytes.
fn size(conn: &rusqlite::Connection) -> rusqlite::Result<(u64, u64)> {
    let sql = "SELECT count(*), coalesce(sum(kept_len), 0) FROM evidence INDEXED BY evidence_size";
    conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
}

impl Reader {
    /// Returns the frame of a call if it was kept.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn evidence(&self, call: u64) -> Result<Option<EvidenceRow>, Error> {
        let sql = "SELECT time, frame_len, frame FROM evidence WHERE call = ?1";
        self.get(|conn| conn.query_row(sql, [call.cast_signed()], read).optional())
    }

    /// Counts the kept frames and their bytes.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn evidence_size(&self) -> Result<Room, Error> {
        let (frames, bytes) = self.get(size)?;
        Ok(Room { frames, bytes })
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<EvidenceRow> {
    Ok(EvidenceRow {
        time: row.get::<_, Millis>("time")?.0,
        frame_len: row.get("frame_len")?,
        frame: row.get("frame")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{Home, time};
    use crate::store::{CallRow, Entry};

    const LOTS: Room = Room { frames: 100, bytes: 1 << 20 };

    fn call(at: i64, number: u64) -> CallRow {
        CallRow {
            time: time(at),
            number: Some(Number(number)),
            trunk: None,
            source: "192.0.2.1:5060".to_owned(),
            call_id: None,
            call_hash: 7,
            identity: 1,
            verdict: 1,
            policy_verdict: 1,
            reason: 1,
            rule: 1,
            repeats: 0,
            count: 1,
            unread: None,
            reply: None,
        }
    }

    fn frame(at: i64, number: u64, text: &str) -> Unplaced {
        let frame = text.as_bytes().to_vec();
        (Number(number), 7, EvidenceRow { time: time(at), frame_len: 9000, frame })
    }

    fn text(store: &Reader, call: u64) -> Option<String> {
        store.evidence(call).unwrap().map(|row| String::from_utf8(row.frame).unwrap())
    }

    #[test]
    fn a_frame_finds_its_call_and_goes_with_it() {
        let home = Home::new();
        let mut store = home.store();
        // This Call-ID again after a while is another attempt.
        store.put_calls(&[call(1, 5), call(100, 5), call(100, 6)]).unwrap();
        let none = frame(50, 5, "no such call");
        let frames = vec![frame(1, 5, "one"), frame(101, 5, "two"), frame(100, 6, "three"), none];
        let unplaced = store.put_evidence(frames, LOTS).unwrap();
        assert_eq!(unplaced, [frame(50, 5, "no such call")]);
        assert_eq!([1, 2, 3].map(|id| text(store.reader(), id).unwrap()), ["one", "two", "three"]);
        assert_eq!(store.reader().evidence(2).unwrap().unwrap().frame_len, 9000);
        assert_eq!(store.reader().call(3).unwrap(), Some(call(100, 6)));
        assert_eq!(store.reader().call(4).unwrap(), None);

        store.prune_calls(time(50), Duration::MAX).unwrap();
        assert_eq!(text(store.reader(), 1), None);
        let erased = store.erase(Number(5), Entry::new(time(200), "root", "erase")).unwrap();
        assert_eq!(erased.calls, 1);
        assert_eq!(
            (text(store.reader(), 2), text(store.reader(), 3)),
            (None, Some("three".to_owned()))
        );
        assert_eq!(store.reader().evidence_size().unwrap(), Room { frames: 1, bytes: 5 });
        assert_eq!(store.prune_evidence(time(100), Duration::MAX).unwrap().count, 0);
        assert_eq!(store.prune_evidence(time(101), Duration::MAX).unwrap().count, 1);
        assert_eq!(store.reader().call(3).unwrap(), Some(call(100, 6)), "its record stays");
    }

    #[test]
    fn the_oldest_make_room() {
        let home = Home::new();
        let mut store = home.store();
        let calls: Vec<_> = (1..=10).map(|at| call(at * 10, 5)).collect();
        store.put_calls(&calls).unwrap();
        let put = |store: &mut Store, at: i64, room| {
            let unplaced = store.put_evidence(vec![frame(at * 10, 5, "12345")], room).unwrap();
            assert!(unplaced.is_empty());
        };
        let three = Room { frames: 3, ..LOTS };
        for at in 1..=5 {
            put(&mut store, at, three);
        }
        let left = |store: &Store| {
            (1..=10).filter(|id| text(store.reader(), *id).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(left(&store), [3, 4, 5]);
        put(&mut store, 6, Room { bytes: 12, ..LOTS });
        assert_eq!(left(&store), [5, 6]);
        put(&mut store, 7, Room { bytes: 4, ..LOTS });
        assert_eq!(left(&store), [0; 0], "one that does not fit at all is not kept");
        assert_eq!(store.reader().evidence_size().unwrap(), Room { frames: 0, bytes: 0 });
    }

    #[test]
    fn what_was_erased_is_in_no_file() {
        let home = Home::new();
        let mut store = home.store();
        store.put_calls(&[call(1, 5)]).unwrap();
        let secret = "From: <sip:+6281234567890@x>".repeat(60);
        store.put_evidence(vec![frame(1, 5, &secret)], LOTS).unwrap();
        let stands = || {
            let files = std::fs::read_dir(home.folder.path()).unwrap();
            files.into_iter().any(|file| {
                let bytes = std::fs::read(file.unwrap().path()).unwrap();
                bytes.windows(13).any(|window| window == b"6281234567890")
            })
        };
        assert!(stands());
        store.erase(Number(5), Entry::new(time(2), "root", "erase")).unwrap();
        assert!(store.clear_log().unwrap());
        assert!(!stands());
    }
}
