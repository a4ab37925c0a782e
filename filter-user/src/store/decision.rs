//! A block or an allow, and its row in the table.

use filter_common::number::{Digits, Number};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};
use uuid::Uuid;

use crate::model::policy::Subject;
use crate::model::redial::RedialPolicy;
use crate::store::schema::Millis;

/// Columns of the table, in the order of [`read`].
pub(super) const COLUMNS: &str = "rule, id, kind, prefix, subject, created, expires, reason, author, origin, node, flags, \
     redial_attempts, redial_window, redial_grant, epoch, incident";

/// The effect of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Refuses.
    Block,
    /// Lets through, also where a block exists.
    Allow,
}

impl Kind {
    /// Returns the number that the column `kind` holds.
    pub(super) fn column(self) -> i64 {
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
    /// Number of the rule in kernel entries and call records, 1 to `i64::MAX`. A change of a decision
    /// gives it a new one, above [`Reader::max_rule`](crate::store::Reader::max_rule).
    pub rule: u64,
    /// Its effect.
    pub kind: Kind,
    /// Its number or prefix.
    pub subject: Subject,
    /// Time when it was made.
    pub created: Timestamp,
    /// When it ends; `None`: never.
    pub expires: Option<Timestamp>,
    /// Its reason.
    pub reason: String,
    /// Its author.
    pub author: String,
    /// Its origin: `operator`, `import`, `direct`, `ladder`, `auto-rate`.
    pub origin: String,
    /// The edge where it was made.
    pub node: String,
    /// [`BLOCK_OBSERVE`](filter_common::abi::BLOCK_OBSERVE),
    /// [`BLOCK_NO_REDIAL`](filter_common::abi::BLOCK_NO_REDIAL).
    pub flags: u8,
    /// When a blocked caller who calls again is let through; `None`: as configured.
    pub redial: Option<RedialPolicy>,
    /// The kernel's memory of the number under another epoch does not count. The epoch grows when
    /// this memory must restart, and stays when a block is changed.
    pub epoch: u32,
    /// The live incident that it was made for, not empty; `None`: none.
    pub incident: Option<String>,
}

/// Checks whether the subject is a prefix.
pub(super) fn is_prefix(subject: Subject) -> bool {
    matches!(subject, Subject::Prefix(_))
}

/// Returns the decision of a kind about exactly this subject.
pub(super) fn find(
    conn: &Connection,
    kind: Kind,
    subject: Subject,
) -> rusqlite::Result<Option<Decision>> {
    let sql =
        format!("SELECT {COLUMNS} FROM decisions WHERE kind = ?1 AND prefix = ?2 AND subject = ?3");
    let raw = subject.raw().0.cast_signed();
    conn.prepare_cached(&sql)?
        .query_row(params![kind.column(), is_prefix(subject), raw], read)
        .optional()
}

/// Stores a decision in the place of `before`.
pub(super) fn upsert(
    conn: &Connection,
    decision: &Decision,
    before: Option<&Decision>,
) -> rusqlite::Result<()> {
    if let Some(before) = before {
        conn.prepare_cached("DELETE FROM decisions WHERE rule = ?1")?.execute([before.rule])?;
    }
    let mut statement = conn.prepare_cached(&format!(
        "INSERT INTO decisions ({COLUMNS}) VALUES (:rule, :id, :kind, :prefix, :subject, \
         :created, :expires, :reason, :author, :origin, :node, :flags, :redial_attempts, \
         :redial_window, :redial_grant, :epoch, :incident)"
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
        ":redial_attempts": decision.redial.map(|redial| redial.attempts),
        ":redial_window": decision.redial.map(|redial| redial.window),
        ":redial_grant": decision.redial.map(|redial| redial.grant),
        ":epoch": decision.epoch,
        ":incident": decision.incident,
    })?;
    Ok(())
}

/// Reads a row of [`COLUMNS`]; by position, because looking names up costs a second for a
/// million rows.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Decision> {
    let raw = row.get::<_, i64>(4)?.cast_unsigned();
    Ok(Decision {
        rule: row.get(0)?,
        id: Uuid::from_bytes(row.get(1)?),
        kind: match row.get(2)? {
            0 => Kind::Block,
            1 => Kind::Allow,
            other => return Err(rusqlite::Error::IntegralValueOutOfRange(2, other)),
        },
        subject: if row.get(3)? {
            Subject::Prefix(Digits(raw))
        } else {
            Subject::Number(Number(raw))
        },
        created: row.get::<_, Millis>(5)?.0,
        expires: row.get::<_, Option<Millis>>(6)?.map(|time| time.0),
        reason: row.get(7)?,
        author: row.get(8)?,
        origin: row.get(9)?,
        node: row.get(10)?,
        flags: row.get(11)?,
        redial: match row.get(12)? {
            Some(attempts) => {
                Some(RedialPolicy { attempts, window: row.get(13)?, grant: row.get(14)? })
            }
            None => None,
        },
        epoch: row.get(15)?,
        incident: row.get(16)?,
    })
}
