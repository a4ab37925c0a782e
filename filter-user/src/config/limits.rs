//! Limits and defaults of the configuration's values.

use jiff::SignedDuration;

/// Path of the configuration unless the command line names another.
pub const PATH: &str = "/etc/palang/palang.toml";

/// Longest name of an interface (`IFNAMSIZ` less its zero) and longest path of a Unix socket
/// in bytes (unix(7), less its zero).
pub(crate) const INTERFACE_MAX: usize = 15;

pub(crate) const SOCKET_PATH_MAX: usize = 107;

pub(crate) const BLOCKS: u32 = 1_000_000;

pub(crate) const BLOCKS_MAX: i64 = 16_000_000;

/// Short codes (110, 112, 113, 1669) have up to four digits and belong to emergency services.
pub(crate) const SHORTEST_NUMBER: u8 = 5;

/// Country and operator together (62811): a shorter prefix covers more than one operator.
pub(crate) const SHORTEST_PREFIX: u8 = 5;

/// A prefix with these digits covers at most 100,000 numbers of 13 digits.
pub(crate) const SHORTEST_PREFIX_OPERATE: u8 = 8;

pub(crate) const LONGEST_BLOCK: SignedDuration = SignedDuration::from_hours(30 * 24);

pub(crate) const LONGEST_BLOCK_MAX: SignedDuration = SignedDuration::from_hours(3660 * 24);

pub(crate) const CALLS_KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);

pub(crate) const CALLS_KEPT_MIN: SignedDuration = SignedDuration::from_hours(1);

/// Longest call-back grace in seconds.
pub(crate) const GRACE_MAX: u32 = 24 * 60 * 60;

pub(crate) const CALLS_KEPT_MAX: SignedDuration = SignedDuration::from_hours(3660 * 24);

/// Most records of refusals that a number may have in a second.
pub(crate) const PER_NUMBER_MAX: u32 = 1000;

/// Most new records of refusals that a trunk may have in a second.
pub(crate) const PER_TRUNK_MAX: u32 = 10_000;

/// Bytes that the store may take.
pub(crate) const MAX_BYTES_MIN: u64 = 1 << 20;

pub(crate) const MAX_BYTES_MAX: u64 = 1 << 40;

pub(crate) const EVIDENCE_CALLS: u32 = 10_000;

pub(crate) const EVIDENCE_CALLS_MAX: u32 = 1_000_000;

pub(crate) const EVIDENCE_BYTES: u64 = 32 << 20;

pub(crate) const EVIDENCE_BYTES_MIN: u64 = 4096;

pub(crate) const EVIDENCE_BYTES_MAX: u64 = 1 << 40;

pub(crate) const EVIDENCE_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Keys of a policy file that a configuration does not have, because they change while the daemon runs.
pub(crate) const NOT_HERE: [(&str, &str); 4] = [
    ("mode", "palang mode observe|enforce"),
    ("block", "palang block add NUMBER"),
    ("allow", "palang allow add NUMBER"),
    ("override", "palang override on|off"),
];
