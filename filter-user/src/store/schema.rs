//! The tables, and the form of values in them.

use jiff::Timestamp;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, TransactionBehavior};

/// Marks a file as ours (`PRAGMA application_id`): `Plng`.
const APPLICATION: i64 = 0x506C_6E67;

/// The steps that make the tables, oldest first. A released step never changes: a new step is added
/// after it.
pub(crate) const STEPS: &[&str] = &[
    "
    CREATE TABLE decisions (
        rule INTEGER PRIMARY KEY CHECK (rule > 0),
        id BLOB NOT NULL UNIQUE,
        kind INTEGER NOT NULL CHECK (kind IN (0, 1)),
        prefix INTEGER NOT NULL CHECK (prefix IN (0, 1)),
        subject INTEGER NOT NULL,
        created INTEGER NOT NULL,
        expires INTEGER,
        reason TEXT NOT NULL,
        author TEXT NOT NULL,
        origin TEXT NOT NULL,
        node TEXT NOT NULL,
        flags INTEGER NOT NULL,
        UNIQUE (kind, prefix, subject)
    ) STRICT;
    CREATE INDEX decisions_expires ON decisions (expires) WHERE expires IS NOT NULL;

    -- What can be searched for comes out of the record, so that nothing stands beside the hash.
    CREATE TABLE audit (
        seq INTEGER PRIMARY KEY,
        record TEXT NOT NULL,
        hash BLOB NOT NULL,
        time TEXT AS (record ->> '$.time') VIRTUAL,
        number TEXT AS (record ->> '$.number') VIRTUAL,
        rule INTEGER AS (record ->> '$.rule') VIRTUAL
    ) STRICT;
    CREATE INDEX audit_time ON audit (time);
    CREATE INDEX audit_number ON audit (number) WHERE number IS NOT NULL;
    CREATE INDEX audit_rule ON audit (rule) WHERE rule IS NOT NULL;

    CREATE TABLE calls (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time INTEGER NOT NULL,
        number INTEGER,
        trunk TEXT,
        source TEXT NOT NULL,
        call_id TEXT,
        call_hash INTEGER NOT NULL,
        identity INTEGER NOT NULL,
        verdict INTEGER NOT NULL,
        would INTEGER NOT NULL,
        reason INTEGER NOT NULL,
        rule INTEGER NOT NULL,
        repeats INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX calls_time ON calls (time);
    CREATE INDEX calls_number ON calls (number, time) WHERE number IS NOT NULL;

    CREATE TABLE state (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    -- NULL, all three: as configured. Windows and grants in seconds.
    ALTER TABLE decisions ADD COLUMN redial_attempts INTEGER;
    ALTER TABLE decisions ADD COLUMN redial_window INTEGER;
    ALTER TABLE decisions ADD COLUMN redial_grant INTEGER;
    ALTER TABLE decisions ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE decisions ADD COLUMN incident TEXT CHECK (incident <> '');
    CREATE INDEX decisions_incident ON decisions (incident) WHERE incident IS NOT NULL;

    CREATE TABLE reviews (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time INTEGER NOT NULL,
        number INTEGER NOT NULL,
        kind TEXT NOT NULL,
        rule INTEGER NOT NULL,
        call_id TEXT,
        until INTEGER NOT NULL,
        closed INTEGER,
        closed_by TEXT,
        note TEXT,
        CHECK ((closed IS NULL) = (closed_by IS NULL) AND (closed IS NULL) = (note IS NULL))
    ) STRICT;
    CREATE INDEX reviews_number ON reviews (number, time);
    CREATE INDEX reviews_open ON reviews (id) WHERE closed IS NULL;
",
    "
    -- The call as it was when it was reported, because call records go earlier. Where why_not is
    -- NULL the report is a strike.
    CREATE TABLE reports (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time INTEGER NOT NULL,
        number INTEGER NOT NULL,
        kind TEXT NOT NULL,
        call_id TEXT,
        call_hash INTEGER,
        call INTEGER,
        call_time INTEGER,
        trunk TEXT,
        reason INTEGER,
        rule INTEGER,
        why_not TEXT CHECK (why_not <> ''),
        author TEXT NOT NULL,
        note TEXT NOT NULL,
        CHECK ((call IS NULL) = (call_time IS NULL) AND (call IS NULL) = (reason IS NULL)
            AND (call IS NULL) = (rule IS NULL)),
        CHECK (call IS NOT NULL OR why_not IS NOT NULL)
    ) STRICT;
    CREATE INDEX reports_time ON reports (time);
    CREATE INDEX reports_number ON reports (number, time);
    CREATE INDEX reports_strikes ON reports (number, call_time) WHERE why_not IS NULL;
",
    "
    -- Beside the record, whose number is a pseudonym from now on: no part of the chain, so that it
    -- can be forgotten. The key of the pseudonyms is random from the operating system.
    ALTER TABLE audit ADD COLUMN plain TEXT;
    INSERT INTO state (key, value)
        VALUES ('audit-key', '\"' || lower(hex(randomblob(32))) || '\"');
",
    "
    -- Beside the calls, whose rows stay short. It goes with its call, whoever deletes that.
    CREATE TABLE evidence (
        call INTEGER PRIMARY KEY,
        time INTEGER NOT NULL,
        frame_len INTEGER NOT NULL,
        kept_len INTEGER NOT NULL,
        frame BLOB NOT NULL
    ) STRICT;
    CREATE INDEX evidence_time ON evidence (time);
    -- What all of it takes is told without reading it.
    CREATE INDEX evidence_size ON evidence (call, kept_len);
    CREATE TRIGGER evidence_goes AFTER DELETE ON calls
        BEGIN DELETE FROM evidence WHERE call = OLD.id; END;
",
    "
    -- Each block asks whether there is room for it: counting a million others took 30 ms.
    CREATE TABLE decision_counts (
        kind INTEGER NOT NULL,
        prefix INTEGER NOT NULL,
        count INTEGER NOT NULL CHECK (count >= 0),
        PRIMARY KEY (kind, prefix)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO decision_counts
        SELECT kinds.value, prefixes.value, (SELECT count(*) FROM decisions
            WHERE kind = kinds.value AND prefix = prefixes.value)
        FROM json_each('[0, 1]') AS kinds, json_each('[0, 1]') AS prefixes;
    CREATE TRIGGER decision_comes AFTER INSERT ON decisions BEGIN
        UPDATE decision_counts SET count = count + 1 WHERE kind = NEW.kind AND prefix = NEW.prefix;
    END;
    CREATE TRIGGER decision_goes AFTER DELETE ON decisions BEGIN
        UPDATE decision_counts SET count = count - 1 WHERE kind = OLD.kind AND prefix = OLD.prefix;
    END;
",
    "
    -- Attempts that a record counts. Without a CHECK, which would read every record there is.
    ALTER TABLE calls ADD COLUMN count INTEGER NOT NULL DEFAULT 1;
",
    "
    -- The name that the event and the API have.
    ALTER TABLE calls RENAME COLUMN would TO policy_verdict;
",
    "
    -- The text of a caller who could not be read. An erase looks for a number in it.
    ALTER TABLE calls ADD COLUMN unread TEXT;
    CREATE INDEX calls_unread ON calls (id) WHERE unread IS NOT NULL;
",
    "
    -- SIP status code of the reply to a refused call.
    ALTER TABLE calls ADD COLUMN reply INTEGER;
",
];

/// Version of the tables that this program writes (`PRAGMA user_version`).
pub const VERSION: u32 = STEPS.len() as u32;

/// The kind of a database.
pub enum Identity {
    /// A store of this version or an older one.
    Known,
    /// A store with tables of a newer version.
    Newer(u32),
    /// Something else.
    Foreign,
}

/// Identifies a database; only reads.
pub fn identify(conn: &Connection) -> rusqlite::Result<Identity> {
    let application: i64 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version = version(conn)?;
    // Makes SQLite read the schema, and with it notice a file that was cut.
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(match version {
        _ if application != APPLICATION => Identity::Foreign,
        0 => Identity::Foreign,
        newer if newer > VERSION => Identity::Newer(newer),
        _ => Identity::Known,
    })
}

/// Returns the version of the tables; 0: there are no tables.
pub fn version(conn: &Connection) -> rusqlite::Result<u32> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings the tables to [`VERSION`]: all steps or none.
pub fn migrate(conn: &mut Connection) -> rusqlite::Result<()> {
    migrate_by(conn, STEPS)
}

pub(crate) fn migrate_by(conn: &mut Connection, steps: &[&str]) -> rusqlite::Result<()> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = version(&tx)? as usize;
    for step in steps.iter().skip(done) {
        tx.execute_batch(step)?;
    }
    if done < steps.len() {
        tx.pragma_update(None, "application_id", APPLICATION)?;
        tx.pragma_update(None, "user_version", steps.len())?;
    }
    tx.commit()
}

/// A time as milliseconds since 1970, UTC.
pub struct Millis(pub Timestamp);

impl ToSql for Millis {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.as_millisecond().into())
    }
}

impl FromSql for Millis {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Millis> {
        let millis = value.as_i64()?;
        Timestamp::from_millisecond(millis).map(Millis).map_err(FromSqlError::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_done_once_and_all_or_none() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate_by(&mut conn, &["CREATE TABLE a (x)"]).unwrap();
        let two = ["CREATE TABLE a (x)", "CREATE TABLE b (x)"];
        migrate_by(&mut conn, &two).unwrap();
        migrate_by(&mut conn, &two).unwrap();
        assert_eq!(version(&conn).unwrap(), 2);

        let broken = [two[0], two[1], "CREATE TABLE c (x)", "CREATE TABLE a (x)"];
        migrate_by(&mut conn, &broken).unwrap_err();
        assert_eq!(version(&conn).unwrap(), 2);
        conn.prepare("SELECT * FROM b").unwrap();
        conn.prepare("SELECT * FROM c").unwrap_err();
    }

    #[test]
    fn a_block_of_the_first_version_is_kept() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate_by(&mut conn, &STEPS[..1]).unwrap();
        conn.execute_batch(
            "INSERT INTO decisions VALUES (7, x'00', 0, 0, 42, 1, NULL, 'r', 'a', 'o', 'n', 1)",
        )
        .unwrap();
        migrate(&mut conn).unwrap();
        let row = conn.query_row(
            "SELECT rule, flags, redial_attempts, epoch, incident FROM decisions",
            [],
            |row| <(i64, i64, Option<i64>, i64, Option<String>)>::try_from(row),
        );
        assert_eq!(row.unwrap(), (7, 1, None, 0, None));
        let count = "SELECT count FROM decision_counts WHERE kind = 0 AND prefix = 0";
        assert_eq!(conn.query_row(count, [], |row| row.get(0)), Ok(1));
        conn.prepare("SELECT why_not FROM reports").unwrap();
    }

    #[test]
    fn a_record_of_an_older_version_counts_one_attempt() {
        let mut conn = Connection::open_in_memory().unwrap();
        let before = STEPS.iter().position(|step| step.contains("ADD COLUMN count")).unwrap();
        migrate_by(&mut conn, &STEPS[..before]).unwrap();
        conn.execute_batch(
            "INSERT INTO calls VALUES (1, 0, 7, 't', 's', 'c', 0, 1, 1, 1, 2, 3, 0)",
        )
        .unwrap();
        migrate(&mut conn).unwrap();
        assert_eq!(conn.query_row("SELECT count FROM calls", [], |row| row.get(0)), Ok(1));
    }

    #[test]
    fn a_record_of_an_older_version_keeps_its_policy_verdict() {
        let mut conn = Connection::open_in_memory().unwrap();
        let before = STEPS.iter().position(|step| step.contains("RENAME COLUMN would")).unwrap();
        migrate_by(&mut conn, &STEPS[..before]).unwrap();
        conn.execute_batch(
            "INSERT INTO calls VALUES (1, 0, 7, 't', 's', 'c', 0, 1, 0, 1, 2, 3, 0, 1)",
        )
        .unwrap();
        migrate(&mut conn).unwrap();
        let verdicts = "SELECT verdict, policy_verdict FROM calls";
        let row = conn.query_row(verdicts, [], |row| <(u8, u8)>::try_from(row));
        assert_eq!(row, Ok((0, 1)));
    }

    #[test]
    fn an_audit_from_before_pseudonyms_holds_and_keeps_its_numbers() {
        use crate::store::tests::*;
        use crate::store::{AuditFilter, Entry};

        let home = Home::new();
        let (older, newer) = ("6281234567890", "6281234567891");
        let mut conn = Connection::open(&home.path).unwrap();
        migrate_by(&mut conn, &STEPS[..3]).unwrap();
        let mut head = crate::store::Head::default();
        for (rule, number) in [(1, older), (2, older), (3, newer)] {
            let record = format!(
                r#"{{"action":"block add","author":"budi","number":"{number}","rule":{rule},"time":"2027-01-15T08:00:02.000Z"}}"#
            );
            head = head.next(record.as_bytes());
            let row = (head.seq, record, head.hash);
            conn.execute("INSERT INTO audit (seq, record, hash) VALUES (?1, ?2, ?3)", row).unwrap();
        }
        drop(conn);

        let mut store = home.store();
        let holds = |store: &crate::store::Store| {
            let check = store.reader().verify_audit(Some(head)).unwrap();
            assert_eq!(check.first_bad, None);
            check.rows
        };
        assert_eq!(holds(&store), 3);
        put(&mut store, &[block(4, number(older))]);
        assert_eq!(holds(&store), 4);
        let rows = |number: &str| {
            let filter = AuditFilter { since: None, number: Some(number.to_owned()) };
            let mut rows = Vec::new();
            let push = |row| {
                rows.push(row);
                std::ops::ControlFlow::Continue(())
            };
            home.store().reader().audit_rows(0, &filter, push).unwrap();
            rows
        };
        assert_eq!(rows(older).iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!(store.reader().last_audit(2).unwrap().unwrap().plain, None);

        let erased =
            store.erase(number(older).raw(), Entry::new(time(9), "root", "erase")).unwrap();
        assert_eq!((erased.audit, erased.audit_records), (1, 2));
        assert_eq!(holds(&store), 5);
        let left = rows(older);
        assert!(left[0].record.contains(older) && !left[2].record.contains(older), "{left:?}");
        // A number that is added beside a row that never had one is found.
        home.tamper("UPDATE audit SET plain = number WHERE seq = 3");
        assert_eq!(store.reader().verify_audit(None).unwrap().first_bad, Some(3));
    }
}
