//! TODO-DOC

use crate::api::wire::call::{Call, Evidence};
use crate::api::wire::check::Check;
use crate::api::wire::decision::{Allow, Block};
use crate::api::wire::report::{Report, Review};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A line of `GET /v1/audit?since=&number=`: oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditRow {
    /// Number of the row, from 1, without a gap.
    pub seq: u64,
    /// The record as it was hashed: JSON with `time`, `author`, `action`, `number`, `rule`, … Its
    /// `number` is a pseudonym, `#` and hex digits; in rows from before there were pseudonyms it is
    /// the number itself.
    pub record: String,
    /// SHA-256 of the hash before and this record, in hex.
    pub hash: String,
    /// The number or prefix that the pseudonym stands for, beside the record and not hashed; null:
    /// it was erased, the record has none, or has itself.
    #[serde(default)]
    pub number: Option<String>,
}

/// `GET /v1/audit/verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditVerdict {
    /// Rows that were looked at.
    pub rows: u64,
    /// The first row that is not what was written; null: none.
    pub first_bad: Option<u64>,
    /// Number and hash of the last row: `17:ab…`.
    pub head: String,
}

/// `GET /v1/numbers/{number}`: all that is held about one number. Its lists are whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NumberExport {
    /// The number.
    pub number: String,
    /// What stands for it in the audit's records.
    pub pseudonym: String,
    /// When this was read.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// What a call from it gets now, also by prefixes and the configuration.
    pub check: Check,
    /// The block against exactly this number; null: none.
    pub block: Option<Block>,
    /// The allow for exactly this number; null: none.
    pub allow: Option<Allow>,
    /// What the kernel's maps remember of it.
    pub kernel: Remembered,
    /// Its calls, newest first.
    pub calls: Vec<Call>,
    /// INVITEs of them, where they were kept, newest first.
    pub evidence: Vec<Evidence>,
    /// Reports of its calls, newest first.
    pub reports: Vec<Report>,
    /// Its entries on the review list, closed ones too, oldest first.
    pub reviews: Vec<Review>,
    /// What was changed about it, oldest first.
    pub audit: Vec<AuditRow>,
    /// What is not here: what nobody can look for by a number.
    pub notes: Vec<String>,
}

/// What the kernel's maps remember of a number, besides its block and allow. What has ended stays
/// there until there is no room for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Remembered {
    /// When its redial grant ends or ended; null: it had none.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub grant_until: Option<Timestamp>,
    /// When the grace ends or ended that a call to it opened; null: there was none.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub grace_until: Option<Timestamp>,
    /// Calls of it while it was blocked, towards a redial grant; null: none.
    pub redial: Option<Redials>,
}

/// Calls of a blocked number that the kernel counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Redials {
    /// Separate attempts.
    pub attempts: u32,
    /// When the first came.
    #[schema(value_type = String, format = DateTime)]
    pub first: Timestamp,
    /// When the last came.
    #[schema(value_type = String, format = DateTime)]
    pub last: Timestamp,
}

/// `DELETE /v1/numbers/{number}?reason=&dry_run=`: a number is forgotten; role admin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Erasure {
    /// The number as it was asked for.
    pub number: String,
    /// What stands for it in the audit's records from now on.
    pub pseudonym: String,
    /// Calls that were deleted.
    pub calls: u64,
    /// Reports that were deleted.
    pub reports: u64,
    /// Entries of the review list that were deleted, closed ones too.
    pub reviews: u64,
    /// Rows of the audit that no longer have the number beside them.
    pub audit_rows: u64,
    /// Rows of the audit from before there were pseudonyms: their records keep the number.
    pub audit_rows_kept: u64,
    /// Nothing was changed; this is what would have been.
    pub dry_run: bool,
    /// Where the number still stands, and for how long.
    pub notes: Vec<String>,
}
