//! TODO-DOC

use crate::api::wire::check::Check;
use crate::api::wire::decision::{Block, Change, Changed};
use crate::api::wire::problem::Problem;
use crate::model::ladder::ReportKind;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/reports`: what a call-taker says of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddReport {
    /// The caller number as people write it.
    pub number: String,
    /// What the call was.
    pub kind: ReportKind,
    /// Its Call-ID; without one the report is on record and blocks nobody.
    #[serde(default)]
    pub call_id: Option<String>,
    /// What else there is to say.
    #[serde(default)]
    pub note: String,
    /// Change nothing, say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// A line of `GET /v1/reports?number=&since=`: newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// Its number; null in a dry run.
    pub id: Option<u64>,
    /// When it was reported.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The caller number.
    pub number: String,
    /// What was said of the call.
    pub kind: ReportKind,
    /// Call-ID as it was given; null: none was.
    pub call_id: Option<String>,
    /// The call's number in the records; null: none was found.
    pub call: Option<u64>,
    /// When the call came: from then on its strike counts.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub call_time: Option<Timestamp>,
    /// Name of the call's trunk; null: not known, or outside every trunk.
    pub trunk: Option<String>,
    /// Why the call got its verdict, from the closed list; null: no call was found.
    pub reason: Option<String>,
    /// The rule that decided on the call, by its number; 0: none.
    pub rule: u64,
    /// It is a strike, also one that counts no more.
    pub strike: bool,
    /// How much of a strike it is now, in hundredths: 34 is a third; 0: it does not count.
    pub counts_hundredths: u32,
    /// Why it is no strike; null: it is one.
    pub why_not: Option<String>,
    /// Who reported it.
    pub author: String,
    /// What else was said.
    pub note: String,
}

/// Answer to a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reported {
    /// What was recorded.
    pub report: Report,
    /// What all strikes of the number come to now, in hundredths: 200 is two strikes.
    pub strikes_hundredths: u32,
    /// The same in words: `2.00 strikes: 2 prank`.
    pub strikes: String,
    /// The strikes are a warning on record, and not more.
    pub warning: bool,
    /// What the ladder did to the number's block; null: nothing.
    pub change: Option<Change>,
    /// The block that the ladder set or moved; null: it did not.
    pub block: Option<Block>,
    /// The redial grant that let the call through has ended; the block as it is now, whose
    /// attempts are doubled; null: no grant has ended.
    pub grant_ended: Option<Block>,
    /// Somebody has to look at it.
    pub needs_review: bool,
    /// Its number on the review list; null: it is not there, or this is a dry run.
    pub review: Option<u64>,
    /// Why the ladder's block is not there: the number is protected or allowed, a map is full;
    /// the report is on record all the same. Null: nothing failed.
    pub problem: Option<Problem>,
    /// What a call from this number gets now.
    pub in_force: Check,
    /// Nothing was changed; this is what would have been.
    pub dry_run: bool,
    /// What whoever asked should know besides.
    pub notes: Vec<String>,
}

/// A line of `GET /v1/reviews?all=`, oldest first: an exception that the kernel made from a block,
/// or a report, for somebody to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Review {
    /// Its number; null in a notification that did not wait for the disk.
    pub id: Option<u64>,
    /// When the call came that was let through first, or when the call was reported.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The caller number.
    pub number: String,
    /// `redial-grant`: what let a blocked caller through. `report`: a report that is no strike, or
    /// that led to a long block or to none where there should be one.
    pub kind: String,
    /// The block that it is an exception from, or that the report led to, by its number; 0: none.
    pub rule: u64,
    /// Call-ID of that call, cut at 128 bytes; null where it is not known.
    pub call_id: Option<String>,
    /// When the exception ends, or the block that the report led to; with no block its own time.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// When it was looked at; null: not yet.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub closed: Option<Timestamp>,
    /// By whom.
    pub closed_by: Option<String>,
    /// What came of it.
    pub note: Option<String>,
}

/// `POST /v1/reviews/{id}/close`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloseReview {
    /// What came of it; not empty.
    #[serde(default)]
    pub note: String,
    /// Change nothing, say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// Answer to the closing of a review.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReviewClosed {
    /// As it is now.
    pub review: Review,
    /// What a call from its number gets now: closing changes nothing of that.
    pub in_force: Check,
    /// Nothing was changed; this is what would have been.
    pub dry_run: bool,
}

/// `POST /v1/reviews/{id}/extend`: the block goes on, and the review is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtendReview {
    /// How long the block lasts from now on, in seconds; longer than it would.
    pub seconds: u64,
    /// What came of it; empty: that the block was extended.
    #[serde(default)]
    pub note: String,
    /// Change nothing, say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// Answer to the extension or the end of the block that a review is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReviewSettled {
    /// As it is now: closed.
    pub review: Review,
    /// What became of the block.
    pub block: Changed<Block>,
}

/// A line of `GET /v1/events`, and what is posted to the webhook. More kinds will come: leave out
/// those that you do not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A blocked caller called again and again, and is let through for a while.
    RedialGrant {
        /// As it stands on the review list.
        review: Review,
    },
    /// Whoever listens was too slow.
    Lost {
        /// So many events were left out.
        count: u64,
    },
}
