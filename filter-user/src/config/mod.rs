//! The daemon's configuration, `palang.toml`: read strictly, and refused whole with file,
//! line and reason.

pub(crate) mod attempts;
pub(crate) mod effective;
pub(crate) mod error;
pub(crate) mod file;
pub(crate) mod ladder_file;
pub(crate) mod limits;
pub mod policy_file;
pub(crate) mod profile;
pub(crate) mod replies;
pub(crate) mod strip;
#[cfg(test)]
mod tests;
pub(crate) mod units;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::model::ladder::Ladder;
use crate::model::policy::Policy;
use crate::model::redial::RedialPolicy;
use crate::model::xdp_mode::XdpMode;

/// A configuration that was read without an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file.
    pub path: PathBuf,
    /// Its text, unchanged.
    pub text: String,
    /// Ports, protected numbers, trunks. It has no blocks and allows, and its mode is observe: the
    /// store has these.
    pub policy: Policy,
    /// Interfaces with the filter.
    pub interfaces: Vec<String>,
    /// The way to attach it to them.
    pub xdp_mode: XdpMode,
    /// Whether calls in frames for other machines are judged: this machine is a bridge, for instance.
    pub forwarded: bool,
    /// Whether netfilter puts together all fragments that this machine forwards, to judge the calls among them.
    pub reassemble_forwarded: bool,
    /// Capacity for blocked numbers, 1 to 16,000,000.
    pub blocks: u32,
    /// Limits of the blocks that the role operate sets.
    pub operate: OperateLimits,
    /// Time for which call records are kept, 1 hour to 3,660 days.
    pub calls_kept: SignedDuration,
    /// Limits of the refusals with a record of their own.
    pub records: RecordLimits,
    /// Bytes that the store may take before the oldest call records are deleted, 2^20 to 2^40.
    /// `None`: 10 GiB, or 20 % of the disk's free space if that is less.
    pub max_bytes: Option<u64>,
    /// Limits of the kept INVITEs of refused attempts; `None`: no INVITE is kept.
    pub evidence: Option<EvidenceKept>,
    /// When a blocked caller who calls again is let through, for blocks without a setting of
    /// their own.
    pub redial: RedialPolicy,
    /// The ladder from reported calls to blocks.
    pub ladder: Ladder,
    /// The file of the ladder as it is written in the configuration; `None`: the delivered ladder.
    pub ladder_file: Option<String>,
    /// When a number is blocked only because it calls too often.
    pub auto_rate: AutoRate,
    /// The program that receives redial grants.
    pub webhook: Option<Webhook>,
    /// Group of the socket of the control API.
    pub group: String,
    /// Loopback address where only `GET /v1/check/{number}` is served.
    pub check_listen: Option<SocketAddr>,
    /// Loopback address of metrics and health.
    pub metrics_listen: Option<SocketAddr>,
    /// The groups that have the roles.
    pub roles: Roles,
    /// The folders of the daemon.
    pub paths: Paths,
}

/// Limits of the blocks that the role operate sets; the role admin has others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperateLimits {
    /// Longest time of a block, 1 hour to 3,660 days.
    pub longest_block: SignedDuration,
    /// Fewest digits of a prefix, 0 to 15.
    pub shortest_prefix: u8,
}

/// A program on this machine that takes notifications as HTTP POSTs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The URL as it is written in the configuration.
    pub url: String,
    /// Loopback address and port.
    pub address: SocketAddr,
    /// Path and query, from `/` on.
    pub path: String,
}

/// Limits of the refusals with a record of their own: in a flood not every refusal has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLimits {
    /// Refusals of a number in a second, 1 to 1,000; further ones count in its last record. 0: no limit.
    pub per_number: u32,
    /// Refusals of a trunk in a second, 1 to 10,000; further ones are only counted. 0: no limit.
    pub per_trunk: u32,
}

impl Default for RecordLimits {
    /// Returns 5 and 100. A person dials a few times a minute, and a carrier tries three or four routes
    /// for a call. At this limit, records of a flood take 2 GB a day.
    fn default() -> RecordLimits {
        RecordLimits { per_number: 5, per_trunk: 100 }
    }
}

/// Limits of the kept INVITEs of refused attempts. The oldest are deleted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvidenceKept {
    /// Largest number, 1 to 1,000,000.
    pub max_calls: u32,
    /// Most bytes, 4,096 to 2^40.
    pub max_bytes: u64,
    /// Time for which they are kept, 1 hour to that of call records.
    pub kept: SignedDuration,
}

/// Blocks a number that calls too often; only if its trunk vouches for the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoRate {
    /// More separate attempts than these within the window are too many, 2 to 100; 0: off.
    pub attempts: u8,
    /// Seconds, 60 to 86,400.
    pub window: u32,
    /// Duration of the block in seconds, 60 to 86,400.
    pub block: u32,
}

impl Default for AutoRate {
    fn default() -> AutoRate {
        AutoRate { attempts: 0, window: 15 * 60, block: 60 * 60 }
    }
}

/// Groups whose members have a role. Each role includes those before it; root is admin.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Roles {
    /// May read, with masked numbers.
    pub read: Vec<String>,
    /// May also report a call.
    pub report: Vec<String>,
    /// May also block and allow, and read full numbers.
    pub operate: Vec<String>,
    /// May also make permanent blocks, set the mode, attach and detach.
    pub admin: Vec<String>,
}

impl Default for Roles {
    fn default() -> Roles {
        Roles {
            read: vec!["palang".to_owned()],
            report: Vec::new(),
            operate: vec!["palang-operate".to_owned()],
            admin: vec!["palang-admin".to_owned()],
        }
    }
}

/// The folders of the daemon; all paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// Folder of the store.
    pub state: PathBuf,
    /// Folder of the socket and of the lock.
    pub runtime: PathBuf,
    /// Folder of pinned maps and links, on a BPF file system.
    pub pins: PathBuf,
    /// Folder where backups are written, besides `state`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<PathBuf>,
}

impl Default for Paths {
    fn default() -> Paths {
        Paths {
            state: "/var/lib/palang".into(),
            runtime: "/run/palang".into(),
            pins: "/sys/fs/bpf/palang".into(),
            backup: None,
        }
    }
}

impl Paths {
    /// Returns the path of the store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.state.join("palang.db")
    }

    /// Returns the path of the control API's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("palang.sock")
    }

    /// Returns the path of the lock that keeps a second daemon from starting.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.runtime.join("daemon.lock")
    }
}

impl Config {
    /// Returns the path of the ladder's file if the configuration names one.
    #[must_use]
    pub fn ladder_path(&self) -> Option<PathBuf> {
        let folder = self.path.parent().unwrap_or_else(|| Path::new(""));
        self.ladder_file.as_ref().map(|file| folder.join(file))
    }

    /// Returns the differences of another configuration that need a restart of the daemon, such as
    /// `limits.blocks: 1000000 → 2000000`.
    #[must_use]
    pub fn changes_needing_restart(&self, new: &Config) -> Vec<String> {
        let listen = |address: Option<SocketAddr>| {
            address.map_or_else(|| "none".to_owned(), |address| address.to_string())
        };
        let path = |path: &Path| path.display().to_string();
        let backup = |paths: &Paths| paths.backup.as_deref().map_or_else(|| "none".into(), path);
        [
            ("limits.blocks", self.blocks.to_string(), new.blocks.to_string()),
            ("api.group", self.group.clone(), new.group.clone()),
            ("api.check_listen", listen(self.check_listen), listen(new.check_listen)),
            ("metrics.listen", listen(self.metrics_listen), listen(new.metrics_listen)),
            ("paths.state", path(&self.paths.state), path(&new.paths.state)),
            ("paths.runtime", path(&self.paths.runtime), path(&new.paths.runtime)),
            ("paths.pins", path(&self.paths.pins), path(&new.paths.pins)),
            ("paths.backup", backup(&self.paths), backup(&new.paths)),
        ]
        .into_iter()
        .filter(|(_, old, new)| old != new)
        .map(|(key, old, new)| format!("{key}: {old} → {new}"))
        .collect()
    }
}
