//! Keeps the file within bounds in small steps, each in its own transaction, so that a writer never
//! waits long.
//!
//! Deleted rows leave free pages in the file. [`Store::give_back`] returns them to the file system
//! if the file was created for it (`auto_vacuum = INCREMENTAL`).

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{OpenFlags, ToSql};

use crate::store::error::Error;
use crate::store::path::{absolute, beside};
use crate::store::reader::{Reader, connect};
use crate::store::vacuum::{LOG, Size, is_incremental, size};
use crate::store::writer::{Store, Write};

/// Rows that one statement deletes or changes: what SQLite remembers to undo a statement is in
/// memory.
pub(crate) const ROWS: u32 = 100;
/// Pages that one statement gives back.
const PAGES: u32 = 32;
/// The result of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Rows that were deleted, or pages that were given back.
    pub count: u64,
    /// Nothing is left to do.
    pub is_done: bool,
}

impl Write<'_> {
    /// Runs a statement that deletes or changes at most [`ROWS`] rows, until it finds none or `time`
    /// is over. It runs at least once.
    pub(crate) fn repeat(
        &self,
        sql: &str,
        params: &[&dyn ToSql],
        time: Duration,
    ) -> rusqlite::Result<Step> {
        let begun = Instant::now();
        let mut statement = self.tx.prepare_cached(sql)?;
        let mut count = 0;
        loop {
            let rows = statement.execute(params)?;
            count += rows as u64;
            let is_done = rows == 0;
            if is_done || begun.elapsed() >= time {
                return Ok(Step { count, is_done });
            }
        }
    }
}

impl Reader {
    /// Returns the size of the store.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn size(&self) -> Result<Size, Error> {
        let moment = self.conn.unchecked_transaction();
        let _moment = moment.map_err(|error| self.error(error))?;
        self.get(size)
    }
}

impl Store {
    /// Gives free pages back to the file system for at most `time`, until `keep` bytes are free in
    /// the file. Done as well where the file cannot shrink.
    ///
    /// # Errors
    /// Returns an error if the disk refuses; no page was returned.
    pub fn give_back(&mut self, keep: u64, time: Duration) -> Result<Step, Error> {
        self.write(|write| {
            let begun = Instant::now();
            let mut count = 0;
            let mut statement =
                write.tx.prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
            loop {
                let is_done = size(&write.tx)?.free <= keep || !is_incremental(&write.tx)?;
                if is_done || begun.elapsed() >= time && count > 0 {
                    return Ok(Step { count, is_done });
                }
                let mut pages = statement.query([])?;
                while pages.next()?.is_some() {
                    count += 1;
                }
            }
        })
    }
}

/// Checks whether the log beside the store is longer than 4 MiB.
#[must_use]
pub fn is_log_long(path: &Path) -> bool {
    beside(path, "-wal").metadata().is_ok_and(|log| log.len() > LOG)
}

/// Writes the log beside the store into the file, as far as nobody reads an older state. Writers
/// continue. Returns whether the whole log is in the file.
///
/// To be asked for only where the log is that of the file: see [`Store::check_place`].
///
/// # Errors
/// Returns an error if the store cannot be opened, or a disk refuses.
pub fn bring_in_log(path: &Path) -> Result<bool, Error> {
    let path = &absolute(path)?;
    let conn = connect(path, path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let columns = |row: &rusqlite::Row<'_>| {
        Ok((row.get::<_, bool>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    };
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], columns)
        .map(|(is_busy, log, done)| !is_busy && log == done)
        .map_err(|error| Error::sqlite(path, error))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use jiff::Timestamp;
    use rusqlite::Connection;

    use super::*;
    use crate::store::tests::*;
    use crate::store::{CallRow, Kind};

    fn calls(count: u64) -> Vec<CallRow> {
        let call = |at: u64| CallRow {
            time: time(at.cast_signed()),
            number: Some(number(&(6_281_200_000_000 + at * 7919 % 1_000_003).to_string()).raw()),
            trunk: Some("telco".to_owned()),
            source: "192.0.2.1:5060".to_owned(),
            call_id: Some(format!("{at}@pbx.example.org")),
            call_hash: at,
            identity: 1,
            verdict: 1,
            policy_verdict: 1,
            reason: 255,
            rule: at,
            repeats: 0,
            count: 1,
            unread: None,
            reply: None,
        };
        (0..count).map(call).collect()
    }

    fn length(path: &Path) -> u64 {
        fs::metadata(path).unwrap().len()
    }

    #[test]
    fn a_step_is_small_and_steps_come_to_an_end() {
        let home = Home::new();
        let mut store = home.store();
        store.put_calls(&calls(1050)).unwrap();
        let before = time(1000);
        let mut counts = Vec::new();
        loop {
            let step = store.prune_calls(before, Duration::ZERO).unwrap();
            counts.push(step.count);
            if step.is_done {
                break;
            }
        }
        assert_eq!(counts, [&[u64::from(ROWS); 10][..], &[0]].concat());
        let step = store.prune_calls(Timestamp::MAX, Duration::MAX).unwrap();
        assert_eq!(step, Step { count: 50, is_done: true });
    }

    #[test]
    fn the_file_shrinks_and_so_does_the_log() {
        let home = Home::new();
        let mut store = home.store();
        let wal = beside(&home.path, "-wal");
        let empty = store.reader().size().unwrap();
        for _ in 0..5 {
            store.put_calls(&calls(20_000)).unwrap();
            assert!(bring_in_log(&home.path).unwrap());
        }
        let full = length(&home.path);
        assert!(full > 10 << 20, "{full}");
        // Steps, and a reader who looks in between.
        while !store.prune_calls(Timestamp::MAX, Duration::from_millis(20)).unwrap().is_done {
            bring_in_log(&home.path).unwrap();
            assert!(length(&wal) < 16 << 20, "{}", length(&wal));
        }
        let size = store.reader().size().unwrap();
        assert!(size.free > 10 << 20 && size.used < empty.used + (1 << 20), "{size:?}");
        assert_eq!(store.give_back(size.free, Duration::MAX).unwrap().count, 0);
        let step = store.give_back(0, Duration::ZERO).unwrap();
        assert_eq!((step.count, step.is_done), (PAGES.into(), false));
        while !store.give_back(1 << 20, Duration::from_millis(20)).unwrap().is_done {
            bring_in_log(&home.path).unwrap();
        }
        assert!(store.reader().size().unwrap().free <= 1 << 20);
        assert!(store.clear_log().unwrap());
        assert!(length(&home.path) < 4 << 20, "{}", length(&home.path));
        assert_eq!(length(&wal), 0);
        store.reader().check().unwrap();
    }

    #[test]
    fn a_log_that_somebody_reads_is_brought_in_later() {
        let home = Home::new();
        let mut store = home.store();
        store.put_calls(&calls(10)).unwrap();
        let reader = Reader::open(&home.path).unwrap();
        let moment = reader.conn.unchecked_transaction().unwrap();
        reader.count(Kind::Block).unwrap();
        store.put_calls(&calls(40_000)).unwrap();
        assert!(!bring_in_log(&home.path).unwrap());
        drop(moment);
        assert!(bring_in_log(&home.path).unwrap());
        // The next change begins a short log.
        store.put_calls(&calls(10)).unwrap();
        assert!(length(&beside(&home.path, "-wal")) <= LOG);
        store.reader().check().unwrap();
    }

    #[test]
    fn a_store_of_before_can_shrink_after_its_first_start_and_so_can_a_copy() {
        let home = Home::new();
        let mode = |path: &Path| is_incremental(&Connection::open(path).unwrap()).unwrap();
        put(&mut home.store(), &[block(1, number("1"))]);
        let kept = digest(home.store().reader());
        let forget =
            || home.tamper("PRAGMA auto_vacuum = NONE; PRAGMA journal_mode = DELETE; VACUUM");
        forget();
        assert!(!mode(&home.path));
        let copy = home.folder.path().join("copy");
        Reader::open(&home.path).unwrap().backup(&copy).unwrap();
        assert!(mode(&copy));
        let store = home.store();
        assert!(mode(&home.path));
        assert_eq!(digest(store.reader()), kept);
        let again = home.folder.path().join("again");
        store.reader().backup(&again).unwrap();
        assert!(mode(&again));
    }
}
