//! Reports of calls, reviews and events.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::wire::check::Check;
use crate::api::wire::decision::{Block, Change, Changed};
use crate::api::wire::problem::Problem;
use crate::model::ladder::ReportKind;

/// `POST /v1/reports`: the report of a call-taker about a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddReport {
    /// The caller number in any usual spelling.
    pub number: String,
    /// Kind of the call.
    pub kind: ReportKind,
    /// Its Call-ID; a report without one is recorded, but never leads to a block.
    #[serde(default)]
    pub call_id: Option<String>,
    /// Free text.
    #[serde(default)]
    pub note: String,
    /// Change nothing, only show what would change.
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
    /// Kind of the call.
    pub kind: ReportKind,
    /// Call-ID of the report; null: it has none.
    pub call_id: Option<String>,
    /// The call's number in the records; null: none was found.
    pub call: Option<u64>,
    /// Time of the call: its strike counts from then on.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub call_time: Option<Timestamp>,
    /// Name of the call's trunk; null: not known, or outside every trunk.
    pub trunk: Option<String>,
    /// The reason of the call's verdict, from the closed list; null: no call was found.
    pub reason: Option<String>,
    /// The rule that decided on the call, by its number; 0: none.
    pub rule: u64,
    /// It is a strike, even if it no longer counts.
    pub strike: bool,
    /// Its current weight in hundredths of a strike: 34 is a third; 0: it does not count.
    pub counts_hundredths: u32,
    /// The reason why it is not a strike; null: it is one.
    pub why_not: Option<String>,
    /// Its author.
    pub author: String,
    /// Free text.
    pub note: String,
}

/// Answer to a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reported {
    /// The recorded report.
    pub report: Report,
    /// Sum of all strikes of the number now, in hundredths: 200 is two strikes.
    pub strikes_hundredths: u32,
    /// The sum in words: `2.00 strikes: 2 prank`.
    pub strikes: String,
    /// The strikes are only a warning on record.
    pub warning: bool,
    /// The change that the ladder made to the number's block; null: none.
    pub change: Option<Change>,
    /// The block that the ladder added or changed; null: none.
    pub block: Option<Block>,
    /// The block after the redial grant of this call was ended: its attempts are doubled. Null: no
    /// grant was ended.
    pub grant_ended: Option<Block>,
    /// A person has to review it.
    pub needs_review: bool,
    /// Number of its review; null: it has none, or this is a dry run.
    pub review: Option<u64>,
    /// The reason why the ladder's block was not set: the number is protected or allowed, or a map
    /// is full. The report is on record nevertheless. Null: nothing failed.
    pub problem: Option<Problem>,
    /// The outcome of a call from this number now.
    pub in_force: Check,
    /// Nothing was changed; this is the result of a real run.
    pub dry_run: bool,
    /// Further notes for the user.
    pub notes: Vec<String>,
}

/// A line of `GET /v1/reviews?all=`, oldest first: an exception from a block, or a report, for a
/// person to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Review {
    /// Its number; null in a notification that is sent before the review is on disk.
    pub id: Option<u64>,
    /// Time of the first call that was let through, or of the report.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The caller number.
    pub number: String,
    /// `redial-grant`: a blocked caller was let through. `report`: the report is not a strike, or led
    /// to a long block, or a block was due and could not be set.
    pub kind: String,
    /// Rule number of the block with the exception, or of the block after the report; 0: none.
    pub rule: u64,
    /// Call-ID of that call, cut at 128 bytes; null where it is not known.
    pub call_id: Option<String>,
    /// End of the exception, or of the block after the report; without a block `time`.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// Time when it was closed; null: it is open.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub closed: Option<Timestamp>,
    /// The user who closed it; null: it is open.
    pub closed_by: Option<String>,
    /// Result of the review.
    pub note: Option<String>,
}

/// `POST /v1/reviews/{id}/close`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloseReview {
    /// Result of the review; not empty.
    #[serde(default)]
    pub note: String,
    /// Change nothing, only show what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// Answer to the closing of a review.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReviewClosed {
    /// As it is now.
    pub review: Review,
    /// The outcome of a call from its number now; closing does not change it.
    pub in_force: Check,
    /// Nothing was changed; this is the result of a real run.
    pub dry_run: bool,
}

/// `POST /v1/reviews/{id}/extend`: the block goes on, and the review is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtendReview {
    /// Duration of the block from now on, in seconds; it must end later than before.
    pub seconds: u64,
    /// Result of the review; empty: that the block was extended.
    #[serde(default)]
    pub note: String,
    /// Change nothing, only show what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// Answer to the extension or the end of the block that a review is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReviewSettled {
    /// As it is now: closed.
    pub review: Review,
    /// The change of the block.
    pub block: Changed<Block>,
}

/// A line of `GET /v1/events`, and the body of a POST to the webhook. Later versions add kinds: a
/// client ignores unknown ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A blocked caller called repeatedly, and is let through for a while.
    RedialGrant {
        /// The entry of the review list.
        review: Review,
    },
    /// A period of mode enforce ran out: nothing is refused.
    EnforceEnded {
        /// Its end.
        #[schema(value_type = String, format = DateTime)]
        until: Timestamp,
    },
    /// The override ran out: blocked callers are refused again.
    OverrideEnded {
        /// Its end.
        #[schema(value_type = String, format = DateTime)]
        until: Timestamp,
    },
    /// The client was too slow.
    Lost {
        /// Number of events that were not sent.
        count: u64,
    },
}
