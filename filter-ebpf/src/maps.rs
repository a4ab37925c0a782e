//! All maps: their writers, their readers, and how long an entry lives.
//!
//! The loader sets the capacities that depend on the number of blocks and CPUs. Policy
//! maps are read-only for the program and never LRU: an LRU map would unblock, or
//! stop allowing, in silence.

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_F_RDONLY_PROG};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use filter_common::abi::Keys;
use filter_common::abi::{
    Allow, Attempt, AttemptKey, Block, DatagramKey, Event, EventStats, EvidenceStats, FragmentKey,
    FragmentState, Grace, Grant, Profile, RedialCounter, ReplySecond, ReplyStats, Settings,
};
use filter_common::answer::Answer;
use filter_common::handed_over::DaemonReplies;
use filter_common::judge::Scratch;
use filter_common::maps::{MapKind, capacity};

use crate::room::Room;

const POLICY: u32 = BPF_F_RDONLY_PROG;
/// The kernel wants it for every LPM trie.
const POLICY_TRIE: u32 = BPF_F_RDONLY_PROG | BPF_F_NO_PREALLOC;

/// Which generation is in force. Written by user space: the one store that swaps all settings.
#[map]
pub static GENERATION: Array<u32> =
    Array::with_max_entries(capacity::<u32, u32>("GENERATION", MapKind::Array), POLICY);

/// Settings, by generation. Written by user space.
#[map]
pub static SETTINGS: Array<Settings> =
    Array::with_max_entries(capacity::<u32, Settings>("SETTINGS", MapKind::Array), POLICY);

/// SIP ports, one bit each, by generation. Written by user space.
#[map]
pub static PORTS: Array<u64> =
    Array::with_max_entries(capacity::<u32, u64>("PORTS", MapKind::Array), POLICY);

/// Profiles, by generation and trunk. Written by user space.
#[map]
pub static PROFILES: Array<Profile> =
    Array::with_max_entries(capacity::<u32, Profile>("PROFILES", MapKind::Array), POLICY);

/// Generation and source address → trunk. Written by user space.
#[map]
pub static TRUNKS: LpmTrie<[u8; 20], u32> = LpmTrie::with_max_entries(
    capacity::<Key<[u8; 20]>, u32>("TRUNKS", MapKind::LpmTrie),
    POLICY_TRIE,
);

/// Ethernet addresses of this machine, and `OWN_ADDRESSES_ONLY` while frames for others are not judged.
/// Empty: all frames are judged. Written by user space.
#[map]
pub static OWN_ADDRESSES: HashMap<u64, u32> =
    HashMap::with_max_entries(capacity::<u64, u32>("OWN_ADDRESSES", MapKind::Hash), POLICY);

/// Until when nothing is refused. Written by user space, one aligned store.
#[map]
pub static OVERRIDE: Array<u64> =
    Array::with_max_entries(capacity::<u32, u64>("OVERRIDE", MapKind::Array), POLICY);

/// Protected numbers and prefixes. Written by user space.
#[map]
pub static PROTECTED: LpmTrie<[u8; 8], Allow> = LpmTrie::with_max_entries(
    capacity::<Key<[u8; 8]>, Allow>("PROTECTED", MapKind::LpmTrie),
    POLICY_TRIE,
);

/// Allowed numbers. Written by user space.
#[map]
pub static ALLOWED_NUMBERS: HashMap<u64, Allow> =
    HashMap::with_max_entries(capacity::<u64, Allow>("ALLOWED_NUMBERS", MapKind::Hash), POLICY);

/// Allowed prefixes, and all of [`ALLOWED_NUMBERS`] once more. The kernel replaces an entry of a trie in
/// one go, but a look-up can miss an entry of a hash while it is replaced. Written by user space.
#[map]
pub static ALLOWED_PREFIXES: LpmTrie<[u8; 8], Allow> = LpmTrie::with_max_entries(
    capacity::<Key<[u8; 8]>, Allow>("ALLOWED_PREFIXES", MapKind::LpmTrie),
    POLICY_TRIE,
);

/// Blocked numbers. Written by user space.
#[map]
pub static BLOCKED_NUMBERS: HashMap<u64, Block> =
    HashMap::with_max_entries(capacity::<u64, Block>("BLOCKED_NUMBERS", MapKind::Hash), POLICY);

/// Blocked prefixes. Written by user space.
#[map]
pub static BLOCKED_PREFIXES: LpmTrie<[u8; 8], Block> = LpmTrie::with_max_entries(
    capacity::<Key<[u8; 8]>, Block>("BLOCKED_PREFIXES", MapKind::LpmTrie),
    POLICY_TRIE,
);

/// First verdicts of attempts. Written and read by the program only. At least
/// 2 × blocks + 128 × CPUs, or the free lists of the CPUs starve it.
#[map]
pub static ATTEMPTS: LruHashMap<AttemptKey, Attempt> =
    LruHashMap::with_max_entries(capacity::<AttemptKey, Attempt>("ATTEMPTS", MapKind::LruHash), 0);

/// How often blocked numbers called lately. The program's own; as large as [`ATTEMPTS`] has to
/// be, so that a million other callers push no count out.
#[map]
pub static REDIALS: LruHashMap<u64, RedialCounter> =
    LruHashMap::with_max_entries(capacity::<u64, RedialCounter>("REDIALS", MapKind::LruHash), 0);

/// Redial grants. The program's own, and never LRU: a grant that was given holds.
#[map]
pub static GRANTS: HashMap<u64, Grant> =
    HashMap::with_max_entries(capacity::<u64, Grant>("GRANTS", MapKind::Hash), 0);

/// Numbers that the centre called. The program's own. LRU, because user space neither
/// removes nor writes an entry, and a centre does not call this many numbers in an hour.
#[map]
pub static GRACE: LruHashMap<u64, Grace> =
    LruHashMap::with_max_entries(capacity::<u64, Grace>("GRACE", MapKind::LruHash), 0);

/// Knowledge about the other fragments of a datagram. The program's own.
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentState> = LruHashMap::with_max_entries(
    capacity::<FragmentKey, FragmentState>("FRAGMENTS", MapKind::LruHash),
    0,
);

/// 1: the second look is attached. Written by user space.
#[map]
pub static SECOND_LOOK: Array<u32> =
    Array::with_max_entries(capacity::<u32, u32>("SECOND_LOOK", MapKind::Array), POLICY);

/// Until when a datagram is to be judged by the second look. Written by the first look.
#[map]
pub static UNREAD_DATAGRAMS: LruHashMap<DatagramKey, u64> = LruHashMap::with_max_entries(
    capacity::<DatagramKey, u64>("UNREAD_DATAGRAMS", MapKind::LruHash),
    0,
);

/// 1: a datagram from this source port was in [`UNREAD_DATAGRAMS`]. Most packets to the sockets of a machine
/// come from other ports, and the second look reads no more of them. Written by the first look.
#[map]
pub static UNREAD_PORTS: Array<u32> =
    Array::with_max_entries(capacity::<u32, u32>("UNREAD_PORTS", MapKind::Array), 0);

/// Packets, by trunk and reason. Written by the program, read by user space; survives it.
#[map]
pub static COUNTERS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(capacity::<u32, u64>("COUNTERS", MapKind::PerCpuArray), 0);

/// Events that were thinned out or lost.
#[map]
pub static EVENT_STATS: PerCpuArray<EventStats> = PerCpuArray::with_max_entries(
    capacity::<u32, EventStats>("EVENT_STATS", MapKind::PerCpuArray),
    0,
);

/// Events of refused attempts: apart, so that passed ones never displace them.
#[map]
pub static EVENTS_REFUSED: RingBuf =
    RingBuf::with_byte_size(capacity::<(), ()>("EVENTS_REFUSED", MapKind::RingBuf), 0);

/// Events of passed attempts.
#[map]
pub static EVENTS_PASSED: RingBuf =
    RingBuf::with_byte_size(capacity::<(), ()>("EVENTS_PASSED", MapKind::RingBuf), 0);

/// How many frames of refused attempts each CPU keeps in a second; 0: none. Written by user space.
#[map]
pub static EVIDENCE_PER_SECOND: Array<u32> =
    Array::with_max_entries(capacity::<u32, u32>("EVIDENCE_PER_SECOND", MapKind::Array), POLICY);

/// Frames of refused attempts: apart, so that they never displace an event.
#[map]
pub static EVIDENCE: RingBuf =
    RingBuf::with_byte_size(capacity::<(), ()>("EVIDENCE", MapKind::RingBuf), 0);

/// Frames that were kept, lost, or above the rate.
#[map]
pub static EVIDENCE_STATS: PerCpuArray<EvidenceStats> = PerCpuArray::with_max_entries(
    capacity::<u32, EvidenceStats>("EVIDENCE_STATS", MapKind::PerCpuArray),
    0,
);

/// The keys of the tags in replies. Written by user space.
#[map]
pub static REPLY_KEYS: Array<Keys> =
    Array::with_max_entries(capacity::<u32, Keys>("REPLY_KEYS", MapKind::Array), POLICY);

/// Replies of the present second, by trunk.
#[map]
pub static REPLY_SECONDS: Array<ReplySecond> =
    Array::with_max_entries(capacity::<u32, ReplySecond>("REPLY_SECONDS", MapKind::Array), 0);

/// Replies, by trunk. Written by the program, read by user space.
#[map]
pub static REPLY_STATS: PerCpuArray<ReplyStats> = PerCpuArray::with_max_entries(
    capacity::<u32, ReplyStats>("REPLY_STATS", MapKind::PerCpuArray),
    0,
);

/// Interfaces whose calls the daemon answers, and not the driver. Written by user space.
#[map]
pub static DAEMON_PATHS: HashMap<u32, u32> =
    HashMap::with_max_entries(capacity::<u32, u32>("DAEMON_PATHS", MapKind::Hash), POLICY);

/// Until when a daemon is taken for alive that sends replies. Written by user space.
#[map]
pub static DAEMON_UNTIL: Array<u64> =
    Array::with_max_entries(capacity::<u32, u64>("DAEMON_UNTIL", MapKind::Array), POLICY);

/// Refused calls that the daemon answers: a `HandedOver` and a frame each.
#[map]
pub static HANDED_OVER: RingBuf =
    RingBuf::with_byte_size(capacity::<(), ()>("HANDED_OVER", MapKind::RingBuf), 0);

/// The outcomes of these calls, by trunk. Written by user space. The program does not read it.
#[map]
pub static DAEMON_REPLIES: Array<DaemonReplies> = Array::with_max_entries(
    capacity::<u32, DaemonReplies>("DAEMON_REPLIES", MapKind::Array),
    POLICY,
);

/// The programs that answer a refused call, hand it to the daemon, and drop an ACK. User space loads them into it. They share
/// [`SCRATCH`] with the program that calls them, so each load of the object has an array of its own.
#[map]
pub static NEXT: ProgramArray = ProgramArray::with_max_entries(3, 0);

/// Room for the reply that a CPU is working on.
#[map]
pub static ANSWER: PerCpuArray<Answer> = PerCpuArray::with_max_entries(1, 0);

/// Room for the packet that a CPU is working on.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Room for packets that leave: incoming packets may interrupt them.
#[map]
pub static EGRESS_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Room for datagrams that the host has put together: incoming packets may interrupt them.
#[map]
pub static SECOND_LOOK_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// The datagram that the second look is working on.
#[map]
pub static SECOND_LOOK_ROOM: PerCpuArray<Room> = PerCpuArray::with_max_entries(1, 0);

/// As [`SCRUB_SLOT`], for packets that leave.
#[map]
pub static EGRESS_SCRUB_SLOT: PerCpuArray<usize> = PerCpuArray::with_max_entries(1, 0);

/// The slot that numbers pass through so that the verifier forgets their ranges.
#[map]
pub static SCRUB_SLOT: PerCpuArray<usize> = PerCpuArray::with_max_entries(1, 0);

/// The time of the frame that is replayed. Not used by a live filter.
#[map]
pub static REPLAY_CLOCK: Array<u64> = Array::with_max_entries(1, POLICY);

/// Length of the frame that is replayed, of which the kernel gives a program without `xdp.frags` only
/// the first buffer. Not used by a live filter.
#[map]
pub static REPLAY_LEN: Array<u32> = Array::with_max_entries(1, POLICY);

/// The findings about the frame that was replayed last. Not used by a live filter.
#[map]
pub static REPLAY_EVENT: Array<Event> = Array::with_max_entries(1, 0);
