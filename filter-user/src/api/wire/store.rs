//! The choice between store and kernel maps where they differ.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/store/adopt`: chooses store or maps, where the kernel's maps were not written from this
/// store; role admin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdoptStore {
    /// The side that is kept.
    pub from: AdoptFrom,
    /// Change nothing, only show what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// The side that is kept where store and maps do not belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AdoptFrom {
    /// The entries of the kernel's maps: they are stored.
    Maps,
    /// The decisions of the store: the maps follow it.
    Store,
}

/// The result of the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Adopted {
    /// The side that is kept.
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
