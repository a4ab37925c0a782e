//! Single values: mode, override, newest time seen.

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::chain::Entry;
use crate::store::error::Error;
use crate::store::reader::Reader;
use crate::store::schema::Millis;
use crate::store::writer::{NEWEST, Store};

/// Key of why the maps do not follow this store; null: they do.
pub const HELD: &str = "held";
/// Key of whether the store was restored from a copy, and the maps have not followed it yet.
pub const RESTORED: &str = "restored";

/// Marks a store that was made from a copy: a user has chosen it.
pub(crate) fn mark_restored(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute("REPLACE INTO state (key, value) VALUES (?1, 'true')", [RESTORED])?;
    conn.execute("DELETE FROM state WHERE key = ?1", [HELD]).map(drop)
}

impl Store {
    /// Stores a value under a key, with its audit row. `newest` is not a key for this.
    ///
    /// # Errors
    /// Returns an error if the disk refuses; nothing was stored.
    pub fn set_state(
        &mut self,
        key: &str,
        value: &impl Serialize,
        entry: Option<Entry>,
    ) -> Result<(), Error> {
        self.write(|write| {
            put(&write.tx, key, value)?;
            entry.map_or(Ok(()), |entry| write.audit(entry))
        })
    }

    /// Notes a time that this machine's clock showed, see [`Reader::newest`].
    ///
    /// # Errors
    /// Returns an error if the disk refuses; nothing was stored.
    pub fn seen(&mut self, now: Timestamp) -> Result<(), Error> {
        self.write(|write| {
            write.saw(now);
            Ok(())
        })
    }
}

impl Reader {
    /// Returns the value under a key.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read, or the value has another type.
    pub fn state<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.get(|conn| {
            let sql = "SELECT value FROM state WHERE key = ?1";
            let text: Option<String> = conn.query_row(sql, [key], |row| row.get(0)).optional()?;
            text.map(|text| serde_json::from_str(&text))
                .transpose()
                .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, e.into()))
        })
    }

    /// Returns the newest time of all audit rows, calls and sweeps: an earlier clock is suspect.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn newest(&self) -> Result<Option<Timestamp>, Error> {
        let sql = "SELECT CAST(value AS INTEGER) FROM state WHERE key = ?1";
        self.get(|conn| conn.query_row(sql, [NEWEST], |row| row.get::<_, Millis>(0)).optional())
            .map(|time| time.map(|time| time.0))
    }
}

/// Stores a value under a key.
pub(crate) fn put(conn: &Connection, key: &str, value: &impl Serialize) -> rusqlite::Result<()> {
    let text = serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    conn.prepare_cached("REPLACE INTO state (key, value) VALUES (?1, ?2)")?.execute((key, text))?;
    Ok(())
}
