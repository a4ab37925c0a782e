//! Opens every connection of the store, and notes which file SQLite could not open.

#![expect(unsafe_code, reason = "rusqlite installs the listener of SQLite's messages unsafely")]

use std::cell::RefCell;
use std::ffi::c_int;
use std::io;
use std::path::Path;
use std::sync::Once;

use rusqlite::{Connection, OpenFlags};

/// Function of the operating system in a message such as
/// `os_unix.c:45032: (13) open(/var/tmp/etilqs_0a1b) - Permission denied`.
const OPEN: &str = ") open(";

thread_local! {
    /// The file that SQLite could not open last on this thread, and the number of the error.
    static UNOPENED: RefCell<Option<(String, i32)>> = const { RefCell::new(None) };
}

/// Opens a database. It never needs a temporary file: the daemon's sandbox allows none. So each
/// statement has to be bounded by what fits into memory.
///
/// # Errors
/// Returns the error of SQLite.
pub(crate) fn open(name: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    static LISTEN: Once = Once::new();
    LISTEN.call_once(|| {
        // SAFETY: `heard` calls nothing of SQLite and touches one thread's memory only. Every
        // connection of this program is opened below, so no thread uses SQLite yet. SQLite itself
        // refuses the call once it is in use, and then messages only lack the cause.
        let _ = unsafe { rusqlite::trace::config_log(Some(heard)) };
    });
    let conn = Connection::open_with_flags(name, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(conn)
}

fn heard(_code: c_int, message: &str) {
    if let Some(found) = unopened(message) {
        UNOPENED.set(Some(found));
    }
}

fn unopened(message: &str) -> Option<(String, i32)> {
    let (before, rest) = message.split_once(OPEN)?;
    let (_, number) = before.rsplit_once('(')?;
    let (file, _) = rest.rsplit_once(") - ")?;
    Some((file.to_owned(), number.parse().ok()?))
}

/// Takes the file that SQLite could not open last on this thread, and the cause.
pub(crate) fn take_unopened() -> Option<(String, io::Error)> {
    let (file, number) = UNOPENED.take()?;
    Some((file, io::Error::from_raw_os_error(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_and_the_cause_are_read_out_of_a_message_of_sqlite() {
        let message = "os_unix.c:45032: (13) open(/var/tmp/a (1) - b) - Permission denied";
        assert_eq!(unopened(message), Some(("/var/tmp/a (1) - b".to_owned(), 13)));
        assert_eq!(unopened("os_unix.c:1: (2) open(/x) - "), Some(("/x".to_owned(), 2)));
        for other in
            ["", "os_unix.c:1: (2) unlink(/x) - ", "(x) open(/x) - ", ") open(", "a) open(b"]
        {
            assert_eq!(unopened(other), None, "{other}");
        }
    }
}
