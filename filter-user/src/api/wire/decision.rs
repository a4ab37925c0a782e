//! TODO-DOC

use crate::api::wire::check::Check;
use crate::api::wire::problem::Problem;
use crate::model::redial::RedialPolicy;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// A block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Block {
    /// UUIDv7 of the decision.
    #[schema(value_type = String)]
    pub id: uuid::Uuid,
    /// What the kernel's entry and call records carry; changes with every change of the block.
    pub rule: u64,
    /// Number, or prefix with `*`.
    pub number: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it ends; null: permanent.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// Why.
    pub reason: String,
    /// Who made it.
    pub author: String,
    /// How it came here: `operator`, `import`, `direct`, `ladder`, `auto-rate`.
    pub origin: String,
    /// The edge where it was made.
    pub node: String,
    /// It only observes.
    pub observe: bool,
    /// When a blocked caller who calls again is let through; null: as configured.
    #[serde(default)]
    pub redial: Option<RedialPolicy>,
    /// Who calls again is not let through.
    #[serde(default)]
    pub no_redial: bool,
}

/// An allow: never refused while it lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Allow {
    /// UUIDv7 of the decision.
    #[schema(value_type = String)]
    pub id: uuid::Uuid,
    /// What the kernel's entry and call records carry; changes with every change of the allow.
    pub rule: u64,
    /// Number, or prefix with `*`.
    pub number: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it ends; null: never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// Why.
    pub comment: String,
    /// Who made it.
    pub author: String,
    /// How it came here: `operator`, `import`, `direct`.
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
    /// As people write it; with `*` at its end a prefix.
    pub number: String,
    /// How long, in seconds; one of this, `expires` and `permanent`.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// Until when.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// It does not end; role admin.
    #[serde(default)]
    pub permanent: bool,
    /// Why; not empty.
    pub reason: String,
    /// It only observes.
    #[serde(default)]
    pub observe: bool,
    /// When a blocked caller who calls again is let through; null: as configured.
    #[serde(default)]
    pub redial: Option<RedialPolicy>,
    /// Who calls again is not let through; not with `redial`.
    #[serde(default)]
    pub no_redial: bool,
    /// Refuse when there is a block already, instead of moving its expiry.
    #[serde(default)]
    pub if_absent: bool,
    /// Change nothing, say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /v1/allows`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddAllow {
    /// As people write it; with `*` at its end a prefix.
    pub number: String,
    /// How long, in seconds; neither this nor `expires`: it does not end.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// Until when.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// Why.
    #[serde(default)]
    pub comment: String,
    /// The live incident that it is for, in the centre's own words; not empty.
    #[serde(default)]
    pub incident: Option<String>,
    /// Change nothing, say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /v1/callback`: the centre calls this number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// As people write it.
    pub number: String,
    /// Change nothing, say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// One row of `POST /v1/blocks/import`: newline-delimited JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportRow {
    /// Line of the file that the row came from, from 1.
    pub line: u64,
    /// As people write it; with `*` at its end a prefix.
    pub number: String,
    /// Until when; null: permanent, role admin.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// Why; not empty.
    pub reason: String,
    /// Who made it; empty: who imports it.
    #[serde(default)]
    pub author: String,
    /// How it came to be; empty: `import`.
    #[serde(default)]
    pub origin: String,
    /// It only observes.
    #[serde(default)]
    pub observe: bool,
    /// When a blocked caller who calls again is let through; null: as configured.
    #[serde(default)]
    pub redial: Option<RedialPolicy>,
    /// Who calls again is not let through; not with `redial`.
    #[serde(default)]
    pub no_redial: bool,
}

/// Answer to an import, newline-delimited: any number of `progress`, then one `done` or `refused`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImportNews {
    /// Rows that are in the kernel's maps, of all good ones.
    Progress {
        /// So many are.
        done: u64,
        /// Of so many.
        total: u64,
    },
    /// All good rows are in force.
    Done {
        /// New blocks.
        added: u64,
        /// Blocks whose expiry moved.
        moved: u64,
        /// Rows that say what is in force already.
        unchanged: u64,
        /// Rows that were skipped: a change of the same number was accepted after the import.
        #[serde(default)]
        superseded: u64,
        /// Bad rows that were skipped.
        bad: Vec<BadRow>,
        /// Nothing was changed; this is what would have been.
        dry_run: bool,
    },
    /// Nothing was changed.
    Refused {
        /// Why, in one line.
        problem: Problem,
        /// The bad rows.
        bad: Vec<BadRow>,
    },
}

/// A row of an import that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BadRow {
    /// Line of the file, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub message: String,
}

/// What a command changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It is new.
    Added,
    /// It existed before; its end, reason or comment changed.
    Updated,
    /// It was there, and is the same.
    Unchanged,
    /// It is gone.
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
    /// It is in force in the kernel, and not on disk: why.
    No(String),
}

/// Answer to a change of a block or an allow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changed<T> {
    /// What changed.
    pub change: Change,
    /// The block or allow as it is now, or was before it was removed.
    pub now: T,
    /// The one before, where there was one.
    #[schema(schema_with = or_null::<T>)]
    pub before: Option<T>,
    /// Whether it survives a restart of the machine.
    pub persisted: Persisted,
    /// Nothing was changed; this is what would have been.
    pub dry_run: bool,
    /// Place of this change in the order of all changes: one with a larger place was accepted
    /// later, and wins. Missing: nothing was changed, or it was done without the daemon.
    #[serde(default, skip_serializing_if = "has_no_place")]
    pub order: u64,
    /// What a call from this number gets now; null for a prefix.
    pub in_force: Option<Check>,
    /// What whoever asked should know besides: `an allow for 62811* beats this block`.
    pub notes: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
pub(super) fn has_no_place(order: &u64) -> bool {
    *order == 0
}

/// Else the document says that there always is one: utoipa forgets the `Option` around a `T`.
fn or_null<T: PartialSchema>() -> Schema {
    let null = ObjectBuilder::new().schema_type(Type::Null);
    OneOfBuilder::new().item(T::schema()).item(null).build().into()
}

/// `DELETE /v1/allows?incident=`: all allows of an incident are taken away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IncidentEnded {
    /// The incident.
    pub incident: String,
    /// Its allows, as they were. One that somebody has made again since is not among them.
    pub removed: Vec<Allow>,
    /// Nothing was changed; this is what would have been.
    pub dry_run: bool,
    /// Place of this change in the order of all changes. Missing: nothing was changed.
    #[serde(default, skip_serializing_if = "has_no_place")]
    pub order: u64,
}
