//! The pages of the file: how many are free, and whether the file can shrink.

use rusqlite::Connection;

/// The log is brought into the file from this many bytes on. (A new log is cut to this size.)
pub(crate) const LOG: u64 = 4 << 20;
/// Largest store of an older version that is rewritten at its start, in bytes, so that it can return
/// pages: SQLite rewrites in memory.
const REWRITTEN: u64 = 256 << 20;

/// How large the store is, without the log beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes of pages in use.
    pub used: u64,
    /// Bytes of free pages in the file.
    pub free: u64,
}

/// Switches incremental vacuum on, so that the file can shrink later. It takes effect before the first
/// table is made, or at the next `VACUUM`.
pub(crate) fn make_incremental(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")
}

/// Rewrites a store of an older version so that it can shrink. A large store is not rewritten: its free
/// pages are used again.
pub(crate) fn rewrite(conn: &Connection) -> rusqlite::Result<()> {
    if is_incremental(conn)? || size(conn)?.used > REWRITTEN {
        return Ok(());
    }
    make_incremental(conn)?;
    conn.execute_batch("VACUUM")
}

pub(crate) fn is_incremental(conn: &Connection) -> rusqlite::Result<bool> {
    let mode: u8 = conn.pragma_query_value(None, "auto_vacuum", |row| row.get(0))?;
    Ok(mode == 2)
}

/// Returns the size of a database.
pub(super) fn size(conn: &Connection) -> rusqlite::Result<Size> {
    let value = |name| conn.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    let (page, pages) = (value("page_size")?, value("page_count")?);
    let free = value("freelist_count")?;
    Ok(Size { used: pages.saturating_sub(free) * page, free: free * page })
}
