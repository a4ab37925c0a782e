//! The daemon's configuration, `palang.toml`: read strictly, and refused whole with file,
//! line and reason.

pub(crate) mod effective;
pub(crate) mod error;
pub(crate) mod file;
pub(crate) mod ladder_file;
pub(crate) mod limits;
pub mod policy_file;
pub(crate) mod profile;
#[cfg(test)]
mod tests;
pub(crate) mod units;

use crate::model::xdp_mode::XdpMode;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::model::ladder::Ladder;
use crate::model::policy::Policy;
use crate::model::redial::RedialPolicy;

/// A configuration that was read without an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file.
    pub path: PathBuf,
    /// What it said, to the letter.
    pub text: String,
    /// Ports, protected numbers, trunks. Nothing is blocked or allowed, and the mode is
    /// observe: the store knows of these.
    pub policy: Policy,
    /// Interfaces that the filter stands on.
    pub interfaces: Vec<String>,
    /// How it is attached to them.
    pub xdp_mode: XdpMode,
    /// Blocked numbers that fit, 1 to 16,000,000.
    pub blocks: u32,
    /// How long call records are kept, 1 hour to 3,660 days.
    pub calls_kept: SignedDuration,
    /// How many refusals have a record of their own.
    pub records: RecordLimits,
    /// Bytes that the store may take before the oldest call records go, 2^20 to 2^40; `None`: 10 GiB
    /// or 20 % of the disk's free space, whichever is less.
    pub max_bytes: Option<u64>,
    /// How INVITEs of refused attempts are kept; `None`: they are not.
    pub evidence: Option<EvidenceKept>,
    /// When a blocked caller who calls again is let through, for blocks without a setting of
    /// their own.
    pub redial: RedialPolicy,
    /// What reported calls lead to.
    pub ladder: Ladder,
    /// The file that says so, as it was written; `None`: as delivered.
    pub ladder_file: Option<String>,
    /// When a number is blocked for the number of its calls alone.
    pub auto_rate: AutoRate,
    /// Whom redial grants are told to.
    pub webhook: Option<Webhook>,
    /// Group of the socket of the control API.
    pub group: String,
    /// Loopback address where only `GET /v1/check/{number}` is served.
    pub check_listen: Option<SocketAddr>,
    /// Where metrics and health are told; a loopback address.
    pub metrics_listen: Option<SocketAddr>,
    /// Who may do what.
    pub roles: Roles,
    /// Where things are kept.
    pub paths: Paths,
}

/// A program on this machine that takes notifications as HTTP POSTs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// As it was written.
    pub url: String,
    /// Loopback address and port.
    pub address: SocketAddr,
    /// Path and query, from `/` on.
    pub path: String,
}

/// How many refusals have a record of their own; in a flood not every one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLimits {
    /// Of a number in a second, 1 to 1,000; further ones count in its last record. 0: any number.
    pub per_number: u32,
    /// Of a trunk in a second, 1 to 10,000; further ones are only counted. 0: any number.
    pub per_trunk: u32,
}

impl Default for RecordLimits {
    /// A person dials a few times a minute, and a carrier tries three or four ways for a call. Records
    /// of a flood take 2 GB a day.
    fn default() -> RecordLimits {
        RecordLimits { per_number: 5, per_trunk: 100 }
    }
}

/// How INVITEs of refused attempts are kept. The oldest make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvidenceKept {
    /// So many at most, 1 to 1,000,000.
    pub max_calls: u32,
    /// So many bytes at most, 4,096 to 2^40.
    pub max_bytes: u64,
    /// For so long, 1 hour to as long as call records.
    pub kept: SignedDuration,
}

/// Blocks a number that calls too often; only where its trunk vouches for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoRate {
    /// More separate attempts than these within the window are too many, 2 to 100; 0: off.
    pub attempts: u8,
    /// Seconds, 60 to 86,400.
    pub window: u32,
    /// How long the block lasts, in seconds, 60 to 86,400.
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
    /// Who sees, with masked numbers.
    pub read: Vec<String>,
    /// Who may report a call.
    pub report: Vec<String>,
    /// Who blocks and allows, and sees full numbers.
    pub operate: Vec<String>,
    /// Who also makes permanent blocks, sets the mode, attaches and detaches.
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

/// Where things are kept; all paths are absolute.
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
    /// The store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.state.join("palang.db")
    }

    /// The socket of the control API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("palang.sock")
    }

    /// The lock that keeps a second daemon away.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.runtime.join("daemon.lock")
    }
}

impl Config {
    /// The file of the ladder, where one is named.
    #[must_use]
    pub fn ladder_path(&self) -> Option<PathBuf> {
        let folder = self.path.parent().unwrap_or_else(|| Path::new(""));
        self.ladder_file.as_ref().map(|file| folder.join(file))
    }

    /// What another configuration says differently and only a restart of the daemon can
    /// change, in words such as `limits.blocks: 1000000 → 2000000`.
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
