//! What the control API says and hears: the JSON is a contract with consoles and scripts.
//!
//! Times are RFC 3339 in UTC. A number is E.164 digits without `+` or a local number; with a
//! `*` at its end it is a prefix. A field that is not known is null, and a list is never cut.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::udp_payload::udp_payload;

pub use crate::ladder::ReportKind;
pub use crate::redial::Redial;

/// Where the daemon listens unless the configuration says otherwise.
pub const SOCKET: &str = "/run/palang/palang.sock";

/// A request may say until when its answer is waited for, in nanoseconds of `CLOCK_BOOTTIME`. One
/// that is read later is not done: whoever asked has been told that nobody answers.
pub const DEADLINE: &str = "palang-deadline";

/// Longest time that the override can be set for.
pub const OVERRIDE_MAX: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);

/// What the API refuses to do, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What kind of problem; decides the exit code of the CLI.
    pub kind: ProblemKind,
    /// What was wrong, where, and what to do.
    pub message: String,
}

/// Kinds of problems, with their HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// 400: the request says something that cannot be. CLI: exit 2.
    Usage,
    /// 403: a permission is missing, or the number is protected or allowed. CLI: exit 5.
    Refused,
    /// 404: what was asked for is not there. CLI: exit 4.
    NotFound,
    /// 409: a change of the same thing that was accepted later is in force; this one is not. CLI:
    /// exit 1.
    Superseded,
    /// 500: a system call failed. CLI: exit 1.
    Failed,
    /// 503: the store takes no writes; the data path goes on. CLI: exit 1.
    Store,
    /// 507: a map is full; nothing was stored. CLI: exit 1.
    Full,
    /// 429: this user has too many such requests under way; nothing was done. CLI: exit 1.
    Busy,
    /// 503: all users together have too many such requests under way; nothing was done. CLI: exit 1.
    Overloaded,
}

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
    pub redial: Option<Redial>,
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
    pub redial: Option<Redial>,
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
    pub redial: Option<Redial>,
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
    /// It was there; its expiry, reason or comment is another one now.
    Moved,
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
fn has_no_place(order: &u64) -> bool {
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

/// `GET /v1/check/{number}`: what a call from this number gets now, by the kernel's own maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// The number.
    pub number: String,
    /// `pass`, `drop`, `reply`, `divert`.
    pub verdict: String,
    /// The verdict without observe and override.
    pub would: String,
    /// The reason, from the closed list.
    pub reason: String,
    /// The rule that decided, as people know it: `block 62812*`; null: none.
    pub rule: Option<String>,
    /// Mode in force: `observe` or `enforce`.
    pub mode: String,
    /// Until when nothing is refused; null: no override.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub override_until: Option<Timestamp>,
    /// What lets this blocked number through for a while; null: nothing.
    #[serde(default)]
    pub granted: Option<Granted>,
    /// Which separate attempt a call now would be; null where none is counted.
    #[serde(default)]
    pub next_attempt: Option<NextAttempt>,
}

/// An exception from a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Granted {
    /// `redial`: the caller called again and again.
    pub kind: String,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
}

/// How near a blocked number is to a redial grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NextAttempt {
    /// The attempt that a call now would be, from 1; within 5 s of the last it would be the same.
    pub attempt: u32,
    /// The attempt that passes and opens the grant.
    pub of: u32,
}

/// `GET /v1/explain/{number}`: which rule decides, who set it, when it ends, and what the
/// kernel's maps hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explain {
    /// The outcome.
    pub check: Check,
    /// The steps of the decision in the kernel's order; the one that decided has `decides`.
    pub steps: Vec<Step>,
}

/// A step of the decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// `override`, `protected`, `allowed-number`, `allowed-prefix`, `blocked-number`,
    /// `blocked-prefix`, `redial-grant`, `mode`.
    pub step: String,
    /// What the kernel's map holds, in words; null: nothing.
    pub kernel: Option<String>,
    /// What the store says of that: who, why, when; null: nothing.
    pub store: Option<String>,
    /// Whether this step decided.
    pub decides: bool,
}

/// `GET /v1/override`, and the answer to a change of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Override {
    /// Until when nothing is refused; null: no override.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// Why; null when it is off.
    pub reason: Option<String>,
    /// Who; null when it is off.
    pub author: Option<String>,
    /// Whether it survives a restart of the machine.
    pub persisted: Persisted,
    /// Nothing was changed; this is what would have been.
    pub dry_run: bool,
    /// Place of a change in the order of all changes. Missing: this is no change, or it was done
    /// without the daemon.
    #[serde(default, skip_serializing_if = "has_no_place")]
    pub order: u64,
}

/// `PUT /v1/override`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetOverride {
    /// How long, in seconds; 0: off.
    pub seconds: u64,
    /// Why; not empty unless off.
    #[serde(default)]
    pub reason: String,
    /// Change nothing, say what would change.
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
    /// Whether it survives a restart of the machine.
    pub persisted: Persisted,
    /// Nothing was changed; this is what would have been.
    pub dry_run: bool,
    /// Place of a change in the order of all changes. Missing: this is no change.
    #[serde(default, skip_serializing_if = "has_no_place")]
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
    /// Change nothing, say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Colour {
    /// As it should be.
    Green,
    /// Works, but look at it.
    Amber,
    /// The gate does not do what it is for.
    Red,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The worst of all findings.
    pub colour: Colour,
    /// What is not as it should be, worst first; empty when green.
    pub findings: Vec<Finding>,
    /// Whether the daemon answered; false: read from the pinned maps.
    pub daemon: bool,
    /// Version of the daemon (or of this program).
    pub version: String,
    /// Since when the daemon runs.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// Mode.
    pub mode: Mode,
    /// Override.
    pub r#override: Override,
    /// Where the filter is.
    pub interfaces: Vec<Interface>,
    /// Blocks in the kernel's maps; null without the daemon, which counts them.
    pub blocks: Option<u64>,
    /// Room for blocked numbers.
    pub blocks_capacity: u64,
    /// Allows in the kernel's maps; null without the daemon.
    pub allows: Option<u64>,
    /// Packets by reason, over all trunks; reasons without any are left out.
    pub packets: std::collections::BTreeMap<String, u64>,
    /// Refusals without a record, thinned ones not included; as [`Attempts`] where the daemon answers.
    pub refused_lost: u64,
    /// Passed attempts without a record, thinned ones included.
    pub passed_lost: u64,
    /// Which attempts have a record; null without the daemon.
    #[serde(default)]
    pub attempts: Option<Attempts>,
    /// Differences between store and maps that were repaired since the start.
    pub drift: u64,
    /// Re-attachments since the start.
    pub reattached: u64,
    /// Newest row of the audit: its number and hash; null without the store.
    pub audit_head: Option<String>,
    /// Redial grants and reports that nobody has looked at; null without the store.
    #[serde(default)]
    pub reviews: Option<u64>,
}

impl Status {
    /// Returns the refusals of a flood that are only counted, of all trunks.
    #[must_use]
    pub fn refused_thinned(&self) -> u64 {
        self.attempts.as_ref().map_or(0, |attempts| attempts.refused.thinned)
    }
}

/// Which attempts have a record, since the machine was started or the store was replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attempts {
    /// Refusals, and attempts that a redial grant let through.
    pub refused: Records,
    /// All other attempts.
    pub passed: Records,
    /// Refusals of a flood that are only counted, by the name of their trunk.
    pub thinned: std::collections::BTreeMap<String, u64>,
}

/// Attempts that were judged: the sum of the other four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Records {
    /// Attempts that the kernel judged, without repeats.
    pub judged: u64,
    /// Those that have a record, or count in one.
    pub recorded: u64,
    /// Those whose record is not in the store yet.
    pub waiting: u64,
    /// Those that are only counted, because they were too many in a second.
    pub thinned: u64,
    /// Those without a record that should have one.
    pub lost: u64,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// How bad.
    pub colour: Colour,
    /// What, and what to do.
    pub message: String,
}

/// An interface, and the filter on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index; null: there is no such interface.
    pub index: Option<u32>,
    /// `native`, `generic` or `offloaded`; null: our filter is not on it.
    pub xdp: Option<String>,
    /// Id of the XDP program on it, ours or another's.
    pub program: Option<u32>,
    /// What is wrong with it; null: nothing.
    pub problem: Option<String>,
}

/// `POST /v1/interfaces/{name}` attaches; `DELETE` detaches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// `native`, `generic` or `native-or-generic`; null: as configured.
    #[serde(default)]
    pub mode: Option<String>,
    /// Change nothing, say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// A line of `GET /v1/calls?since=&caller=&call_id=&verdict=&reason=&trunk=&limit=`: one attempt, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Call {
    /// Its number.
    pub id: u64,
    /// When it came.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// Caller number; null where none was read.
    pub caller: Option<String>,
    /// Name of the trunk; null: outside every trunk.
    pub trunk: Option<String>,
    /// Source address and port.
    pub source: String,
    /// Call-ID, cut at 128 bytes; null where none was read.
    pub call_id: Option<String>,
    /// `from` or `pai`: which header named the caller.
    pub identity: Option<String>,
    /// What it got.
    pub verdict: String,
    /// What it would have got without observe and override.
    pub would: String,
    /// Why, from the closed list.
    pub reason: String,
    /// The rule that decided, by its number; 0: none.
    pub rule: u64,
    /// How often it was sent again; known 70 s after it came.
    pub repeats: u32,
    /// Attempts that this record counts: 1, or in a flood this one and further refusals of the same
    /// caller within the same minute.
    #[serde(default = "one")]
    pub attempts: u64,
}

/// Returns the attempts of a record that an older daemon reports.
fn one() -> u64 {
    1
}

/// `GET /v1/calls/{id}`: all of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CallShown {
    /// Its record.
    pub call: Call,
    /// Its INVITE; null where it was not kept, or is deleted already.
    pub evidence: Option<Evidence>,
}

/// The INVITE of a refused attempt, as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Evidence {
    /// Number of its call; 0: it is not stored yet, or not at all.
    pub call: u64,
    /// When it came.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// How many bytes the frame had; what is kept is cut at 2,048.
    pub frame_len: u32,
    /// The frame from its Ethernet header on, as base64 (RFC 4648 §4).
    pub frame: String,
    /// The SIP message in it, for people: what is not UTF-8 is replaced.
    pub message: String,
}

impl Evidence {
    /// The frame of a call.
    #[must_use]
    pub fn new(call: u64, time: Timestamp, frame_len: u32, frame: &[u8]) -> Evidence {
        let message = udp_payload(frame).unwrap_or_default();
        Evidence {
            call,
            time,
            frame_len,
            frame: BASE64_STANDARD.encode(frame),
            message: String::from_utf8_lossy(message).into_owned(),
        }
    }

    /// The bytes of the frame; `None`: they are no base64.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        BASE64_STANDARD.decode(&self.frame).ok()
    }
}

/// A line of `GET /v1/calls/live?evidence=`: what is judged from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Live {
    /// An attempt; its `id` is 0, because it is not stored yet.
    Call(Box<Call>),
    /// The INVITE of a refused one, before or after its line; only where it was asked for.
    Evidence(Box<Evidence>),
    /// Once a second: what has no line.
    Lost(Lost),
}

/// Attempts that nobody was told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lost {
    /// Refused attempts without a record, since the maps were made.
    pub refused: u64,
    /// Passed attempts without a record, thinned ones included.
    pub passed: u64,
    /// Refused attempts of a flood that are only counted, by trunk.
    #[serde(default)]
    pub thinned: u64,
    /// Attempts that whoever looks was too slow for, since he began.
    pub missed: u64,
    /// INVITEs of refused attempts that were not kept, since the maps were made; null: they were not
    /// asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<u64>,
}

/// A line of `GET /v1/top`: how the gate is, once a second. Counts only rise; a rate is the
/// difference of two lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Top {
    /// When this was read.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The same in nanoseconds of `CLOCK_BOOTTIME`, which nobody sets.
    pub boot_ns: u64,
    /// How the gate is.
    pub status: Status,
    /// The configured trunks, `default` first.
    pub trunks: Vec<TrunkPackets>,
    /// How long the program has run while the kernel measured it (`BPF_ENABLE_STATS`), in
    /// nanoseconds.
    pub run_time_ns: u64,
    /// Packets that it has run for meanwhile.
    pub run_count: u64,
    /// Who was refused most in the last 5 minutes, most first, 50 at most.
    pub busiest: Vec<BusyCaller>,
    /// Attempts in these minutes of callers that there was no room to count.
    pub uncounted: u64,
}

/// What the kernel counted on a trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrunkPackets {
    /// Its name.
    pub name: String,
    /// Packets by reason, repeats included; reasons without any are left out.
    pub packets: std::collections::BTreeMap<String, u64>,
}

/// A caller who is refused, or would be without observe and override.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BusyCaller {
    /// Its number.
    pub number: String,
    /// Its attempts, without repeats.
    pub attempts: u64,
    /// Those that were refused.
    pub refused: u64,
    /// When the last came.
    #[schema(value_type = String, format = DateTime)]
    pub last: Timestamp,
    /// Why that one got its verdict, from the closed list.
    pub reason: String,
    /// The trunk that it came by; null: outside every trunk.
    pub trunk: Option<String>,
}

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
pub struct Held {
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
pub struct Erased {
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

/// `GET /v1/config`: the configuration in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigInForce {
    /// The file.
    pub path: String,
    /// What it said when it was read last without an error; where `masked`, all that holds, without
    /// comments.
    pub text: String,
    /// Whether protected numbers have their middle hidden: below the role operate.
    #[serde(default)]
    pub masked: bool,
    /// What was wrong with it since then; null: nothing.
    pub problem: Option<String>,
}

/// `POST /v1/store/backup`: an online copy of the store; role admin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Absolute path of a file that does not exist yet.
    pub path: String,
}

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
