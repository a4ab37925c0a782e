//! Blocks and allows, and their changes.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::api::wire::check::Check;
use crate::api::wire::problem::Problem;
use crate::model::redial::RedialPolicy;

/// A block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Block {
    /// UUIDv7 of the decision.
    #[schema(value_type = String)]
    pub id: uuid::Uuid,
    /// Number of the rule in the kernel's entry and in call records; new with every change of the block.
    pub rule: u64,
    /// Number, or prefix with `*`.
    pub number: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it ends; null: permanent.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// The reason.
    pub reason: String,
    /// Its author.
    pub author: String,
    /// Its origin: `operator`, `import`, `direct`, `ladder`, `auto-rate`.
    pub origin: String,
    /// The edge where it was made.
    pub node: String,
    /// It only observes.
    pub observe: bool,
    /// When a blocked caller who calls again is let through; null: as configured.
    #[serde(default)]
    pub redial: Option<RedialPolicy>,
    /// A caller who calls repeatedly is not let through.
    #[serde(default)]
    pub no_redial: bool,
    /// The reply on a trunk that answers, `600`, or `drop`; null: as the trunk refuses.
    #[serde(default)]
    pub refuse: Option<String>,
}

/// An allow: never refused while it lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Allow {
    /// UUIDv7 of the decision.
    #[schema(value_type = String)]
    pub id: uuid::Uuid,
    /// Number of the rule in the kernel's entry and in call records; new with every change of the allow.
    pub rule: u64,
    /// Number, or prefix with `*`.
    pub number: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it ends; null: never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// The reason.
    pub comment: String,
    /// Its author.
    pub author: String,
    /// Its origin: `operator`, `import`, `direct`.
    pub origin: String,
    /// The edge where it was made.
    pub node: String,
    /// The live incident that it was made for; null: none.
    #[serde(default)]
    pub incident: Option<String>,
}

/// `POST /v1/blocks`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddBlock {
    /// The number in any usual spelling; a prefix ends with `*`.
    pub number: String,
    /// Duration in seconds; one of this, `expires` and `permanent`.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// End.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// It has no end; role admin.
    #[serde(default)]
    pub permanent: bool,
    /// The reason; not empty.
    pub reason: String,
    /// It only observes.
    #[serde(default)]
    pub observe: bool,
    /// When a blocked caller who calls again is let through; null: as configured.
    #[serde(default)]
    pub redial: Option<RedialPolicy>,
    /// A caller who calls repeatedly is not let through; not with `redial`.
    #[serde(default)]
    pub no_redial: bool,
    /// The reply on a trunk that answers: `600`, `486`, `603`, `403`, `480`, or `drop`; null: as the trunk refuses.
    #[serde(default)]
    pub refuse: Option<String>,
    /// Refuse when there is a block already, instead of moving its expiry.
    #[serde(default)]
    pub if_absent: bool,
    /// Change nothing, only show what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /v1/allows`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddAllow {
    /// The number in any usual spelling; a prefix ends with `*`.
    pub number: String,
    /// Duration in seconds; neither this nor `expires`: it does not end.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// End.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// The reason.
    #[serde(default)]
    pub comment: String,
    /// The live incident that it is for, in the centre's own words; not empty.
    #[serde(default)]
    pub incident: Option<String>,
    /// Change nothing, only show what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /v1/callback`: the centre calls this number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// The number in any usual spelling.
    pub number: String,
    /// Change nothing, only show what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// One row of `POST /v1/blocks/import`: newline-delimited JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportRow {
    /// Line of the file that the row came from, from 1.
    pub line: u64,
    /// The number in any usual spelling; a prefix ends with `*`.
    pub number: String,
    /// End; null: permanent, role admin.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// The reason; not empty.
    pub reason: String,
    /// Its author; empty: the user who imports it.
    #[serde(default)]
    pub author: String,
    /// Its origin; empty: `import`.
    #[serde(default)]
    pub origin: String,
    /// It only observes.
    #[serde(default)]
    pub observe: bool,
    /// When a blocked caller who calls again is let through; null: as configured.
    #[serde(default)]
    pub redial: Option<RedialPolicy>,
    /// A caller who calls repeatedly is not let through; not with `redial`.
    #[serde(default)]
    pub no_redial: bool,
    /// The reply on a trunk that answers: `600`, `486`, `603`, `403`, `480`, or `drop`; null: as the trunk refuses.
    #[serde(default)]
    pub refuse: Option<String>,
}

/// Answer to an import, newline-delimited: any number of `progress`, then one `done` or `refused`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImportNews {
    /// Rows that are in the kernel's maps, of all good ones.
    Progress {
        /// Rows in the maps.
        done: u64,
        /// All good rows.
        total: u64,
    },
    /// All good rows are in force.
    Done {
        /// New blocks.
        added: u64,
        /// Blocks that were there and changed: end, reason, observe, redial or refuse.
        updated: u64,
        /// Rows whose block is in force already.
        unchanged: u64,
        /// Rows that were skipped: a change of the same number was accepted after the import.
        #[serde(default)]
        superseded: u64,
        /// Good rows without an end.
        #[serde(default)]
        permanent: u64,
        /// The latest end of a good row; `null`: no row has one.
        #[serde(default)]
        #[schema(value_type = Option<String>, format = DateTime)]
        last_end: Option<Timestamp>,
        /// Good rows with a number of a length that its country does not use.
        #[serde(default)]
        impossible: u64,
        /// Bad rows that were skipped.
        bad: Vec<BadRow>,
        /// Nothing was changed; these are the changes of a real run.
        dry_run: bool,
    },
    /// Nothing was changed.
    Refused {
        /// The reason, in one line.
        problem: Problem,
        /// The bad rows.
        bad: Vec<BadRow>,
    },
}

/// A row of an import that is not valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BadRow {
    /// Line of the file, from 1.
    pub line: u64,
    /// The mistake in it.
    pub message: String,
}

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It is new.
    Added,
    /// It existed; its end, reason or comment was changed.
    Updated,
    /// It existed, and was not changed.
    Unchanged,
    /// It was removed.
    Removed,
}

/// Whether a change survives a restart of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Persisted {
    /// It is on disk.
    Yes,
    /// It is in force in the kernel; the disk has not answered yet.
    Pending,
    /// It is in force in the kernel, and not on disk; the text is the reason.
    No(String),
}

/// Answer to a change of a block or an allow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changed<T> {
    /// The kind of the change.
    pub change: Change,
    /// The block or allow as it is now, or was before it was removed.
    pub now: T,
    /// The previous block or allow, if there was one.
    #[schema(schema_with = or_null::<T>)]
    pub before: Option<T>,
    /// Whether it survives a restart of the machine.
    pub persisted: Persisted,
    /// Nothing was changed; these are the changes of a real run.
    pub dry_run: bool,
    /// Place of this change in the order of all changes: one with a larger place was accepted
    /// later, and wins. Missing: nothing was changed, or it was done without the daemon.
    #[serde(default, skip_serializing_if = "has_no_place")]
    pub order: u64,
    /// The outcome of a call from this number now; null for a prefix.
    pub in_force: Option<Check>,
    /// Further notes for the user: `an allow for 62811* beats this block`.
    pub notes: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
/// Checks whether the answer is not about a change.
pub(super) fn has_no_place(order: &u64) -> bool {
    *order == 0
}

/// Returns the schema of a `T` or null: utoipa loses the `Option` around a `T`.
fn or_null<T: PartialSchema>() -> Schema {
    let null = ObjectBuilder::new().schema_type(Type::Null);
    OneOfBuilder::new().item(T::schema()).item(null).build().into()
}

/// `DELETE /v1/allows?incident=`: removes all allows of an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IncidentEnded {
    /// The incident.
    pub incident: String,
    /// The removed allows. An allow that was added again since is not among them.
    pub removed: Vec<Allow>,
    /// Nothing was changed; these are the changes of a real run.
    pub dry_run: bool,
    /// Place of this change in the order of all changes. Missing: nothing was changed.
    #[serde(default, skip_serializing_if = "has_no_place")]
    pub order: u64,
}
