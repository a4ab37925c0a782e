//! The status of the gate, its interfaces and its counts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::wire::mode::{Mode, Override};

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// No problem.
    Green,
    /// It works, but needs attention.
    Amber,
    /// The gate does not do its job.
    Red,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The worst of all findings.
    pub colour: Health,
    /// The problems, worst first; empty when green.
    pub findings: Vec<Finding>,
    /// Whether the daemon answered; false: read from the pinned maps.
    pub daemon: bool,
    /// Version of the daemon (or of this program).
    pub version: String,
    /// Start of the daemon.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// Mode.
    pub mode: Mode,
    /// Override.
    pub r#override: Override,
    /// Interfaces with the filter.
    pub interfaces: Vec<Interface>,
    /// Blocks in the kernel's maps; null without the daemon, which counts them.
    pub blocks: Option<u64>,
    /// Capacity for blocked numbers.
    pub blocks_capacity: u64,
    /// Allows in the kernel's maps; null without the daemon.
    pub allows: Option<u64>,
    /// Packets by reason, over all trunks; reasons without packets are omitted.
    pub packets: std::collections::BTreeMap<String, u64>,
    /// Refusals without a record, thinned ones not included; those of [`Attempts`] if the daemon answers.
    pub refused_lost: u64,
    /// Passed attempts without a record, thinned ones included.
    pub passed_lost: u64,
    /// Attempts with and without a record; null without the daemon.
    #[serde(default)]
    pub attempts: Option<Attempts>,
    /// Differences between store and maps that were repaired since the start.
    pub drift: u64,
    /// Re-attachments since the start.
    pub reattached: u64,
    /// Newest row of the audit: its number and hash; null without the store.
    pub audit_head: Option<String>,
    /// Open reviews; null without the store.
    #[serde(default)]
    pub reviews: Option<u64>,
    /// Calls of the last hour whose `P-Asserted-Identity` names another caller than `From`, by the trunks that
    /// read `From`; only trunks where they are a finding.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub asserted_others: std::collections::BTreeMap<String, u64>,
    /// Trunks whose carrier seems to call again by machine, which opens redial grants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machine_redials: Vec<MachineRedial>,
    /// How each trunk refuses, and its replies; empty without the daemon.
    #[serde(default)]
    pub replies: Vec<Replies>,
}

/// How a trunk refuses, and its replies since the machine was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Replies {
    /// Name of the trunk.
    pub trunk: String,
    /// Status code of the reply as configured, `600`, or `drop`; `none`: nothing is refused (`esinet`).
    pub refuse: String,
    /// `driver` or `daemon`: it sends the replies. `both`: it depends on the interface. `none`: a refused call ends in
    /// silence. The daemon answers calls in fragments also for `driver`.
    pub path: String,
    /// Replies that were sent.
    pub sent: u64,
    /// Of these, replies that the daemon sent.
    #[serde(default)]
    pub by_daemon: u64,
    /// Of these, replies to an INVITE of an attempt that was refused before.
    pub repeated: u64,
    /// ACKs of the carrier for replies; they end in the driver.
    pub acks: u64,
    /// Refused calls above `replies_per_second`, without a reply.
    pub limited: u64,
    /// Refused calls with a wrong checksum, without a reply.
    pub damaged: u64,
    /// Refused calls that no reply is possible to.
    pub impossible: u64,
    /// Refused calls that the daemon should have answered while it did not run, without a reply. A call
    /// that passed then counts among the packets, as `without-daemon`.
    #[serde(default)]
    pub without_daemon: u64,
    /// Refused calls whose reply the daemon could not send.
    #[serde(default)]
    pub failed: u64,
    /// Whether the daemon sends the replies, until it is reloaded or restarted, because too few of the driver's were
    /// acknowledged.
    #[serde(default)]
    pub moved: bool,
    /// Why replies may not arrive; null: the carrier acknowledges them.
    pub problem: Option<String>,
}

impl Status {
    /// Returns the refusals of a flood that are only counted, of all trunks.
    #[must_use]
    pub fn refused_thinned(&self) -> u64 {
        self.attempts.as_ref().map_or(0, |attempts| attempts.refused.thinned)
    }
}

/// Attempts with and without a record, since the machine was started or the store was replaced.
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

#[cfg(test)]
impl Status {
    /// Returns the green status of a gate that enforces and has seen no call.
    pub(crate) fn sample() -> Status {
        Status {
            colour: Health::Green,
            findings: Vec::new(),
            daemon: true,
            version: "0.1.0".into(),
            since: None,
            mode: Mode {
                mode: "enforce".into(),
                ended: None,
                until: None,
                persisted: crate::api::wire::Persisted::Yes,
                dry_run: false,
                order: 0,
            },
            r#override: Override {
                until: None,
                reason: None,
                author: None,
                persisted: crate::api::wire::Persisted::Yes,
                dry_run: false,
                order: 0,
            },
            interfaces: Vec::new(),
            blocks: Some(0),
            blocks_capacity: 1_000_000,
            allows: Some(0),
            packets: std::collections::BTreeMap::new(),
            refused_lost: 0,
            passed_lost: 0,
            attempts: None,
            drift: 0,
            reattached: 0,
            audit_head: None,
            reviews: Some(0),
            replies: Vec::new(),
            asserted_others: std::collections::BTreeMap::new(),
            machine_redials: Vec::new(),
        }
    }
}

/// A trunk whose carrier seems to call again by machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MachineRedial {
    /// Name of the trunk.
    pub trunk: String,
    /// Milliseconds after a refused call until its carrier calls again.
    pub gap_ms: u64,
    /// The setting `separate` that makes both calls one attempt, in seconds.
    pub separate: u64,
    /// The finding, in one line.
    pub finding: String,
}

/// A problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// How serious it is.
    pub colour: Health,
    /// The problem, and what to do.
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
    /// Id of the XDP program on it, ours or a foreign one.
    pub program: Option<u32>,
    /// Its problem; null: none.
    pub problem: Option<String>,
    /// Whether its cable or its lower interface is connected; null: there is no such interface.
    #[serde(default)]
    pub carrier: Option<bool>,
    /// Why the daemon, and not the driver, sends the replies to refused calls of this interface; null: the driver does.
    #[serde(default)]
    pub replies_by_daemon: Option<String>,
}

/// `POST /v1/interfaces/{name}` attaches; `DELETE` detaches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// `native`, `generic` or `native-or-generic`; null: as configured.
    #[serde(default)]
    pub mode: Option<String>,
    /// Change nothing, only show what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// A line of `GET /v1/top`: the state of the gate, once a second. Counts only rise; a rate is the
/// difference of two lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Top {
    /// When this was read.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// This time in nanoseconds of `CLOCK_BOOTTIME`, which cannot be set.
    pub boot_ns: u64,
    /// State of the gate.
    pub status: Status,
    /// The configured trunks, `default` first.
    pub trunks: Vec<TrunkPackets>,
    /// Run time of the program while the kernel measured it (`BPF_ENABLE_STATS`), in nanoseconds.
    pub run_time_ns: u64,
    /// Packets that the program processed in that time.
    pub run_count: u64,
    /// The callers with most refusals in the last 5 minutes, most first, at most 50.
    pub busiest: Vec<BusyCaller>,
    /// Attempts in these minutes of callers that did not fit into the table of counts.
    pub uncounted: u64,
}

/// The kernel's counts of a trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrunkPackets {
    /// Its name.
    pub name: String,
    /// Packets by reason, repeats included; reasons without packets are omitted.
    pub packets: std::collections::BTreeMap<String, u64>,
}

/// A caller that is refused, or would be without observe and override.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BusyCaller {
    /// Its number.
    pub number: String,
    /// Its attempts, without repeats.
    pub attempts: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Time of the last one.
    #[schema(value_type = String, format = DateTime)]
    pub last: Timestamp,
    /// Reason of its verdict, from the closed list.
    pub reason: String,
    /// Its trunk; null: outside every trunk.
    pub trunk: Option<String>,
}

/// `GET /v1/config`: the configuration in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigInForce {
    /// The file.
    pub path: String,
    /// Its text when it was last read without an error; where `masked`, the effective configuration
    /// without comments.
    pub text: String,
    /// Whether the middle of protected numbers is hidden, as for roles below operate.
    #[serde(default)]
    pub masked: bool,
    /// The error of a later version of the file; null: none.
    pub problem: Option<String>,
}

/// `POST /v1/store/backup`: an online copy of the store; role admin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Absolute path of a file that does not exist yet.
    pub path: String,
}
