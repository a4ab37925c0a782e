//! The table of the pinned maps: the kernel program declares them by it, and user space checks them.

use crate::abi::{
    Allow, Attempt, AttemptKey, Block, DatagramKey, EventStats, EvidenceStats, FragmentKey,
    FragmentState, GENERATIONS, Grace, Grant, Keys, PORT_WORDS, PrefixKey, Profile, RedialCounter,
    ReplySecond, ReplyStats, Settings, TRUNKS_MAX, TrunkKey,
};
use crate::handed_over::DaemonReplies;
use crate::number::Number;
use crate::reason::REASON_NUMBERS;

/// The type of a BPF map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// `BPF_MAP_TYPE_ARRAY`
    Array,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`
    PerCpuArray,
    /// `BPF_MAP_TYPE_HASH`
    Hash,
    /// `BPF_MAP_TYPE_LRU_HASH`
    LruHash,
    /// `BPF_MAP_TYPE_LPM_TRIE`
    LpmTrie,
    /// `BPF_MAP_TYPE_RINGBUF`: no keys and no values, and its capacity is in bytes.
    RingBuf,
}

/// How many entries a map has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxEntries {
    /// One number for every installation; bytes for a ring.
    Fixed(u32),
    /// The number of blocks that the configuration has room for.
    Blocks,
    /// 2 × blocks + 128 × CPUs: with fewer, the free lists of the CPUs starve the map.
    Attempts,
}

impl MaxEntries {
    /// Returns the capacity in the object of the kernel program: for 1,000,000 blocks and 2 CPUs. The
    /// loader may replace it.
    #[must_use]
    pub const fn in_object(self) -> u32 {
        match self {
            MaxEntries::Fixed(entries) => entries,
            MaxEntries::Blocks => 1_000_000,
            MaxEntries::Attempts => 2_000_256,
        }
    }
}

/// Name, type, sizes and capacity of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// Name in the object and in the pin folder.
    pub name: &'static str,
    /// Type.
    pub kind: MapKind,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Capacity.
    pub max_entries: MaxEntries,
}

const fn map<K, V>(name: &'static str, kind: MapKind, max_entries: MaxEntries) -> MapSpec {
    let (key_size, value_size) = (size_of::<K>() as u32, size_of::<V>() as u32);
    MapSpec { name, kind, key_size, value_size, max_entries }
}

const fn array<V>(name: &'static str, entries: u32) -> MapSpec {
    map::<u32, V>(name, MapKind::Array, MaxEntries::Fixed(entries))
}

const fn per_cpu<V>(name: &'static str, entries: u32) -> MapSpec {
    map::<u32, V>(name, MapKind::PerCpuArray, MaxEntries::Fixed(entries))
}

const fn hash<V>(name: &'static str, max_entries: MaxEntries) -> MapSpec {
    map::<Number, V>(name, MapKind::Hash, max_entries)
}

const fn lru<K, V>(name: &'static str, max_entries: MaxEntries) -> MapSpec {
    map::<K, V>(name, MapKind::LruHash, max_entries)
}

const fn trie<K, V>(name: &'static str, entries: u32) -> MapSpec {
    map::<K, V>(name, MapKind::LpmTrie, MaxEntries::Fixed(entries))
}

const fn ring(name: &'static str) -> MapSpec {
    map::<(), ()>(name, MapKind::RingBuf, MaxEntries::Fixed(1 << 21))
}

/// Trunks, prefixes, protected numbers and Ethernet addresses that there is room for.
const PREFIXES: u32 = 4096;
/// Allowed numbers that there is room for; also grants, numbers in grace and fragmented datagrams.
const NUMBERS: u32 = 65_536;

/// All maps that are pinned and so outlive the daemon. Maps that one program alone uses, as
/// `SCRATCH`, are not in it.
pub const MAPS: &[MapSpec] = &[
    array::<u32>("GENERATION", 1),
    array::<Settings>("SETTINGS", GENERATIONS),
    array::<u64>("PORTS", GENERATIONS * PORT_WORDS),
    array::<Profile>("PROFILES", GENERATIONS * TRUNKS_MAX),
    trie::<TrunkKey, u32>("TRUNKS", PREFIXES),
    map::<u64, u32>("OWN_ADDRESSES", MapKind::Hash, MaxEntries::Fixed(PREFIXES)),
    array::<u64>("OVERRIDE", 1),
    trie::<PrefixKey, Allow>("PROTECTED", PREFIXES),
    hash::<Allow>("ALLOWED_NUMBERS", MaxEntries::Fixed(NUMBERS)),
    trie::<PrefixKey, Allow>("ALLOWED_PREFIXES", PREFIXES + NUMBERS),
    hash::<Block>("BLOCKED_NUMBERS", MaxEntries::Blocks),
    trie::<PrefixKey, Block>("BLOCKED_PREFIXES", PREFIXES),
    lru::<AttemptKey, Attempt>("ATTEMPTS", MaxEntries::Attempts),
    lru::<Number, RedialCounter>("REDIALS", MaxEntries::Attempts),
    hash::<Grant>("GRANTS", MaxEntries::Fixed(NUMBERS)),
    lru::<Number, Grace>("GRACE", MaxEntries::Fixed(NUMBERS)),
    lru::<FragmentKey, FragmentState>("FRAGMENTS", MaxEntries::Fixed(NUMBERS)),
    array::<u32>("SECOND_LOOK", 1),
    lru::<DatagramKey, u64>("UNREAD_DATAGRAMS", MaxEntries::Fixed(NUMBERS)),
    array::<u32>("UNREAD_PORTS", 1 << 16),
    per_cpu::<u64>("COUNTERS", TRUNKS_MAX * REASON_NUMBERS),
    per_cpu::<EventStats>("EVENT_STATS", 1),
    ring("EVENTS_REFUSED"),
    ring("EVENTS_PASSED"),
    array::<u32>("EVIDENCE_PER_SECOND", 1),
    ring("EVIDENCE"),
    per_cpu::<EvidenceStats>("EVIDENCE_STATS", 1),
    array::<Keys>("REPLY_KEYS", 1),
    array::<ReplySecond>("REPLY_SECONDS", TRUNKS_MAX),
    per_cpu::<ReplyStats>("REPLY_STATS", TRUNKS_MAX),
    map::<u32, u32>("DAEMON_PATHS", MapKind::Hash, MaxEntries::Fixed(PREFIXES)),
    array::<u64>("DAEMON_UNTIL", 1),
    ring("HANDED_OVER"),
    array::<DaemonReplies>("DAEMON_REPLIES", TRUNKS_MAX),
];

/// Returns the capacity in the object of the map `name`, which has this type and these sizes.
///
/// # Panics
/// Fails the build if [`MAPS`] has no such map, or one of another type or other sizes. Call it only where
/// constants are made.
#[must_use]
pub const fn capacity<K, V>(name: &str, kind: MapKind) -> u32 {
    let mut index = 0;
    while index < MAPS.len() {
        let spec = &MAPS[index];
        if is_same(spec.name.as_bytes(), name.as_bytes()) {
            assert!(spec.kind as u8 == kind as u8, "the map has another type in MAPS");
            assert!(spec.key_size as usize == size_of::<K>(), "the key has another size in MAPS");
            assert!(
                spec.value_size as usize == size_of::<V>(),
                "the value has another size in MAPS"
            );
            return spec.max_entries.in_object();
        }
        index += 1;
    }
    panic!("no such map in MAPS");
}

/// Compares two texts, in constants too.
const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut index = 0;
    while index < one.len() && index < other.len() && one[index] == other[index] {
        index += 1;
    }
    index == one.len() && index == other.len()
}
