//! Everything that is held about one number, and the audit.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::wire::call::{Call, Evidence};
use crate::api::wire::check::Check;
use crate::api::wire::decision::{Allow, Block};
use crate::api::wire::report::{Report, Review};

/// A line of `GET /v1/audit?since=&number=`: oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditRow {
    /// Number of the row, from 1, without a gap.
    pub seq: u64,
    /// The record as it was hashed: JSON with `time`, `author`, `action`, `number`, `rule`, … Its
    /// `number` is a pseudonym: `#` and hex digits. Rows that are older than pseudonyms have the
    /// number itself.
    pub record: String,
    /// SHA-256 of the hash before and this record, in hex.
    pub hash: String,
    /// The number or prefix of the pseudonym, beside the record and not hashed. Null: it was
    /// erased, or the record has no number, or the record itself has it.
    #[serde(default)]
    pub number: Option<String>,
}

/// `GET /v1/audit/verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditVerdict {
    /// Rows that were checked.
    pub rows: u64,
    /// The first row that was altered or is missing; null: none.
    pub first_bad: Option<u64>,
    /// Number and hash of the last row: `17:ab…`.
    pub head: String,
}

/// `GET /v1/numbers/{number}`: everything that is held about one number. Its lists are complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NumberExport {
    /// The number.
    pub number: String,
    /// Its pseudonym in the audit's records.
    pub pseudonym: String,
    /// When this was read.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The outcome of a call from it now, by prefixes and the configuration too.
    pub check: Check,
    /// The block against exactly this number; null: none.
    pub block: Option<Block>,
    /// The allow for exactly this number; null: none.
    pub allow: Option<Allow>,
    /// The entries of the kernel's maps about its calls.
    pub kernel: Remembered,
    /// Its calls, newest first.
    pub calls: Vec<Call>,
    /// Kept INVITEs of these calls, newest first.
    pub evidence: Vec<Evidence>,
    /// Reports of its calls, newest first.
    pub reports: Vec<Report>,
    /// Its entries on the review list, closed ones too, oldest first.
    pub reviews: Vec<Review>,
    /// Audit rows about it, oldest first.
    pub audit: Vec<AuditRow>,
    /// Data that cannot be found by a number, and so is missing here.
    pub notes: Vec<String>,
}

/// The entries of the kernel's maps about a number, besides its block and allow. Entries that have
/// ended stay until their room is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Remembered {
    /// End of its redial grant, also in the past; null: it had none.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub grant_until: Option<Timestamp>,
    /// End of the grace that a call to it opened, also in the past; null: it had none.
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
    /// Time of the first.
    #[schema(value_type = String, format = DateTime)]
    pub first: Timestamp,
    /// Time of the last.
    #[schema(value_type = String, format = DateTime)]
    pub last: Timestamp,
}

/// `DELETE /v1/numbers/{number}?reason=&dry_run=`: erases a number; role admin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Erasure {
    /// The number of the request.
    pub number: String,
    /// Its pseudonym in the audit's records from now on.
    pub pseudonym: String,
    /// Calls that were deleted.
    pub calls: u64,
    /// Reports that were deleted.
    pub reports: u64,
    /// Entries of the review list that were deleted, closed ones too.
    pub reviews: u64,
    /// Rows of the audit that no longer have the number beside them.
    pub audit_rows: u64,
    /// Rows of the audit that are older than pseudonyms: their records keep the number.
    pub audit_rows_kept: u64,
    /// Nothing was changed; this is the result of a real run.
    pub dry_run: bool,
    /// Places where the number still is, and for how long.
    pub notes: Vec<String>,
}
