//! The mode and the override.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::wire::decision::Persisted;

/// `GET /v1/override`, and the answer to a change of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Override {
    /// Its end, until which nothing is refused; null: no override.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// The reason; null when it is off.
    pub reason: Option<String>,
    /// Its author; null when it is off.
    pub author: Option<String>,
    /// Whether it survives a restart of the machine.
    pub persisted: Persisted,
    /// Nothing was changed; this is the result of a real run.
    pub dry_run: bool,
    /// Place of a change in the order of all changes. Missing: this is no change, or it was done
    /// without the daemon.
    #[serde(default, skip_serializing_if = "super::decision::has_no_place")]
    pub order: u64,
}

/// `PUT /v1/override`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetOverride {
    /// Duration in seconds; 0: off.
    pub seconds: u64,
    /// The reason; not empty unless off.
    #[serde(default)]
    pub reason: String,
    /// Change nothing, only show what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// `GET /v1/mode`, and the answer to a change of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mode {
    /// `observe` or `enforce`.
    pub mode: String,
    /// When enforce falls back to observe; null: it does not.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// When enforce fell back to observe by itself; null: it did not, or a person has set the mode since.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default)]
    pub ended: Option<Timestamp>,
    /// Whether it survives a restart of the machine.
    pub persisted: Persisted,
    /// Nothing was changed; this is the result of a real run.
    pub dry_run: bool,
    /// Place of a change in the order of all changes. Missing: this is no change.
    #[serde(default, skip_serializing_if = "super::decision::has_no_place")]
    pub order: u64,
}

/// `PUT /v1/mode`; role admin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetMode {
    /// `observe` or `enforce`.
    pub mode: String,
    /// Seconds until enforce falls back to observe.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// Change nothing, only show what would change.
    #[serde(default)]
    pub dry_run: bool,
}
