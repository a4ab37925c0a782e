//! Blocks and allows in force.

use std::borrow::Borrow;
use std::ops::ControlFlow;

use filter_common::number::{Digits, Number};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};
use uuid::Uuid;

use super::schema::Millis;
use super::{Entry, Error, Reader, Store};
use crate::policy::Subject;

const COLUMNS: &str =
    "rule, id, kind, prefix, subject, created, expires, reason, author, origin, node, flags";

/// What a decision does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Refuses.
    Block,
    /// Lets through, whatever is blocked.
    Allow,
}

impl Kind {
    fn column(self) -> i64 {
        match self {
            Kind::Block => 0,
            Kind::Allow => 1,
        }
    }
}

/// A block or an allow. There is at most one of a kind for a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// UUIDv7, the same on every edge.
    pub id: Uuid,
    /// What kernel entries and call records carry, 1 to `i64::MAX`; whoever changes a decision
    /// gives it a new one, above [`Reader::max_rule`].
    pub rule: u64,
    /// What it does.
    pub kind: Kind,
    /// What it is about.
    pub subject: Subject,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends; `None`: never.
    pub expires: Option<Timestamp>,
    /// Why.
    pub reason: String,
    /// Who made it.
    pub author: String,
    /// How it came here: `operator`, `import`, `direct`.
    pub origin: String,
    /// The edge where it was made.
    pub node: String,
    /// [`BLOCK_OBSERVE`](filter_common::abi::BLOCK_OBSERVE),
    /// [`BLOCK_NO_REDIAL`](filter_common::abi::BLOCK_NO_REDIAL).
    pub flags: u8,
}

impl Store {
    /// Stores decisions, each with one audit row; one for the same kind and subject takes the
    /// place of the one before. All are stored or none. Returns how many.
    ///
    /// `entry` gets each decision and the one before, and makes its audit row; `number` and
    /// `rule` of the row are those of the decision.
    ///
    /// # Errors
    /// Nothing was stored: a rule or id is another decision's, or the disk says no.
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

    /// Takes a decision out, with an audit row; `None`: there is none, nothing was changed.
    ///
    /// `action`, `number` and `rule` of the row are set here, so that [`Reader::was_removed`]
    /// finds it.
    ///
    /// # Errors
    /// Nothing was changed: the disk says no.
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

    /// Takes decisions out that have ended by `now`, earliest first, at most `limit` at once so
    /// that a command never waits for a million of them.
    ///
    /// No audit row: the one that was written when the decision was made tells its end.
    ///
    /// # Errors
    /// Nothing was changed: the disk says no.
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
    /// The decision of a kind about exactly this subject.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn find(&self, kind: Kind, subject: Subject) -> Result<Option<Decision>, Error> {
        self.get(|conn| find(conn, kind, subject))
    }

    /// The decision in force with this rule number; [`Reader::last_audit`] knows those that
    /// are gone.
    ///
    /// # Errors
    /// The store cannot be read.
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
    /// The store cannot be read.
    pub fn for_each(
        &self,
        kind: Kind,
        mut f: impl FnMut(Decision) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let sql = format!(
            "SELECT {COLUMNS} FROM decisions
             WHERE kind = ?1 AND prefix = ?2 AND subject BETWEEN ?3 AND ?4 ORDER BY subject"
        );
        let moment = self.conn.unchecked_transaction();
        let _moment = moment.map_err(|error| self.error(&error))?;
        for prefix in [false, true] {
            // Numbers whose top bit is set are negative here, but not the smallest.
            for (first, last) in [(0, i64::MAX), (i64::MIN, -1)] {
                let range = params![kind.column(), prefix, first, last];
                if self.each(&sql, range, read, &mut f)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// How many decisions of a kind there are.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn count(&self, kind: Kind) -> Result<u64, Error> {
        let sql = "SELECT count(*) FROM decisions WHERE kind = ?1";
        self.get(|conn| conn.query_row(sql, [kind.column()], |row| row.get(0)))
    }

    /// How many decisions of a kind are about numbers (`false`) or prefixes (`true`): each
    /// fills a map of its own.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn count_of(&self, kind: Kind, prefix: bool) -> Result<u64, Error> {
        let sql = "SELECT count(*) FROM decisions WHERE kind = ?1 AND prefix = ?2";
        self.get(|conn| conn.query_row(sql, (kind.column(), prefix), |row| row.get(0)))
    }

    /// The largest rule number ever given, also to what is gone; 0: none.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn max_rule(&self) -> Result<u64, Error> {
        let sql = "SELECT max(
            ifnull((SELECT max(rule) FROM decisions), 0),
            ifnull((SELECT max(rule) FROM audit WHERE rule IS NOT NULL), 0))";
        self.get(|conn| conn.query_row(sql, [], |row| row.get(0)))
    }
}

fn is_prefix(subject: Subject) -> bool {
    matches!(subject, Subject::Prefix(_))
}

fn find(conn: &Connection, kind: Kind, subject: Subject) -> rusqlite::Result<Option<Decision>> {
    let sql =
        format!("SELECT {COLUMNS} FROM decisions WHERE kind = ?1 AND prefix = ?2 AND subject = ?3");
    let raw = subject.raw().0.cast_signed();
    conn.prepare_cached(&sql)?
        .query_row(params![kind.column(), is_prefix(subject), raw], read)
        .optional()
}

fn upsert(
    conn: &Connection,
    decision: &Decision,
    before: Option<&Decision>,
) -> rusqlite::Result<()> {
    if let Some(before) = before {
        conn.prepare_cached("DELETE FROM decisions WHERE rule = ?1")?.execute([before.rule])?;
    }
    let mut statement = conn.prepare_cached(&format!(
        "INSERT INTO decisions ({COLUMNS}) VALUES (:rule, :id, :kind, :prefix, :subject, \
         :created, :expires, :reason, :author, :origin, :node, :flags)"
    ))?;
    statement.execute(named_params! {
        ":rule": decision.rule,
        ":id": decision.id.as_bytes(),
        ":kind": decision.kind.column(),
        ":prefix": is_prefix(decision.subject),
        ":subject": decision.subject.raw().0.cast_signed(),
        ":created": Millis(decision.created),
        ":expires": decision.expires.map(Millis),
        ":reason": decision.reason,
        ":author": decision.author,
        ":origin": decision.origin,
        ":node": decision.node,
        ":flags": decision.flags,
    })?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Decision> {
    let raw = row.get::<_, i64>("subject")?.cast_unsigned();
    Ok(Decision {
        id: Uuid::from_bytes(row.get("id")?),
        rule: row.get("rule")?,
        kind: match row.get("kind")? {
            0 => Kind::Block,
            1 => Kind::Allow,
            other => return Err(rusqlite::Error::IntegralValueOutOfRange(2, other)),
        },
        subject: if row.get("prefix")? {
            Subject::Prefix(Digits(raw))
        } else {
            Subject::Number(Number(raw))
        },
        created: row.get::<_, Millis>("created")?.0,
        expires: row.get::<_, Option<Millis>>("expires")?.map(|time| time.0),
        reason: row.get("reason")?,
        author: row.get("author")?,
        origin: row.get("origin")?,
        node: row.get("node")?,
        flags: row.get("flags")?,
    })
}
