//! TODO-DOC

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/store/adopt`: decides, where the store is not the one that the kernel's maps were
/// written from; role admin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdoptStore {
    /// What is right.
    pub from: AdoptFrom,
    /// Change nothing, say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// What is right where store and maps do not belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AdoptFrom {
    /// What the kernel's maps hold: it is stored.
    Maps,
    /// What the store holds: the maps follow it.
    Store,
}

/// What was decided for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Adopted {
    /// What is right.
    pub from: AdoptFrom,
    /// Blocks that were stored.
    pub blocks: u64,
    /// Stored blocks that were ended, because the maps do not have them.
    pub removed: u64,
    /// Allows that were stored.
    pub allows: u64,
    /// Nothing was changed.
    pub dry_run: bool,
}
