//! Map keys, map values and events: the contents of the kernel's maps, byte for byte.
//!
//! Every type here is `repr(C)` without padding, and its size is asserted below. A change of any of them, or of the
//! meaning of a field, needs a new [`ABI_VERSION`]. The version is part of the path that the maps are pinned under,
//! so a program never reads the bytes of another layout.
//!
//! Times are nanoseconds of the kernel's boot time (`CLOCK_BOOTTIME`), in a replay of the time of the capture.

mod state;
use crate::contact::Contact;
use crate::number::{Digits, Number};
use crate::plan::{IDENTITY_FROM, IDENTITY_PAI, Plan};
pub use state::{Attempt, AttemptKey, Grace, Grant, RedialCounter};

/// Version of all layouts in this file.
pub const ABI_VERSION: u32 = 10;

/// Most trunk profiles, the profile `default` (0) included.
pub const TRUNKS_MAX: u32 = 64;
/// Sets of settings, profiles, ports and trunks: one in force, one to write the next into.
pub const GENERATIONS: u32 = 2;
/// Words of 64 ports in the set of SIP ports: one bit for every port.
pub const PORT_WORDS: u32 = 65_536 / 64;
/// An attempt keeps its first verdict for this long: twice the longest life of an INVITE transaction (RFC 3261 §17.1.1.2).
pub const ATTEMPT_NS: u64 = 64_000_000_000;
/// Attempts of one number are separate when they are this many seconds apart, unless the trunk has another time.
pub const SEPARATE: u32 = 5;
/// A call with the identity of the last counted attempt is another leg of it for this many seconds. A longer
/// [`Profile::separate`] holds instead. It lasts minutes only: a carrier that sends one constant value must not take the
/// redial grants from its callers.
pub const SAME_ATTEMPT: u32 = 180;
/// How long later fragments of a datagram share the fate of its first one.
pub const FRAGMENT_NS: u64 = 2_000_000_000;
/// How long Linux keeps fragments of a datagram that is not whole: 60 s for IPv6 (`ip6frag_time`), 30 s for IPv4.
pub const REASSEMBLY_NS: u64 = 60_000_000_000;

/// The fate of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// Goes on to the SIP server.
    Pass = 0,
    /// Ends in the driver. The gate may answer it ([`Event::reply`]).
    Drop = 1,
}

impl Verdict {
    /// Returns the name in tables, JSON and metrics: a contract.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Drop => "drop",
        }
    }

    /// Returns the verdict with this number, as maps and events carry it; `None` for an unknown one.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Verdict> {
        match number {
            0 => Some(Verdict::Pass),
            1 => Some(Verdict::Drop),
            _ => None,
        }
    }
}

/// Everything is judged and recorded, nothing is refused.
pub const MODE_OBSERVE: u8 = 0;
/// Blocks are enforced.
pub const MODE_ENFORCE: u8 = 1;

/// An expiry that is always over: the block was lifted in the map, and the store may not know it yet. So a lifted
/// block cannot come back from a store that could not be written.
pub const TOMBSTONE: u64 = 1;
/// Rule of an entry that was written into the maps while no daemon answered.
pub const RULE_DIRECT: u64 = i64::MAX as u64;

/// Rule of a number that no entry protects, but [`Settings::shortest_number`].
pub const RULE_SHORT_NUMBER: u64 = RULE_DIRECT - 1;

/// This block only observes.
pub const BLOCK_OBSERVE: u8 = 1;
/// No redial grant for this block.
pub const BLOCK_NO_REDIAL: u8 = 2;
/// Where the refusal of a block begins in its flags; it has three bits. 0: as the trunk refuses. Otherwise it is the
/// number of a [`Code`](crate::answer::code::Code), or [`BLOCK_REFUSE_DROP`].
pub const BLOCK_REFUSE_SHIFT: u8 = 2;
/// The refusal of a block whose caller gets no reply, also where the trunk answers.
pub const BLOCK_REFUSE_DROP: u8 = 7;

/// A block: against a number (hash) or a prefix (LPM trie).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Block {
    /// The number or prefix that this entry is about. Compared after reading: an element of a BPF hash is re-used
    /// without a grace period.
    pub number: Number,
    /// Ends at this time; 0: permanent.
    pub expires: u64,
    /// Id of the decision, for records; never 0.
    pub rule: u64,
    /// Kernel state of another epoch does not count for this block.
    pub epoch: u32,
    /// Redial window W in seconds.
    pub redial_window: u32,
    /// Redial grant G in seconds.
    pub redial_grant: u32,
    /// The N-th separate attempt opens a redial grant.
    pub redial_attempts: u8,
    /// The [`Verdict`] of a refused call, as number. With another one than [`Verdict::Drop`] the call passes.
    pub action: u8,
    /// [`BLOCK_OBSERVE`], [`BLOCK_NO_REDIAL`], and from bit [`BLOCK_REFUSE_SHIFT`] on the refusal on a trunk that
    /// answers.
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 9],
}

/// An allow for a number (hash) or a prefix (LPM trie), and a protected number or prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Allow {
    /// The number or prefix that this entry is about; see [`Block::number`].
    pub number: Number,
    /// Ends at this time; 0: never.
    pub expires: u64,
    /// Id of the decision, for records; never 0.
    pub rule: u64,
}

/// Key of the tries of prefixes: a number or prefix as [`Number::key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PrefixKey {
    /// Bits that count: 4 × digits of a prefix, 64 of a whole number.
    pub prefix_len: u32,
    /// Big-endian bytes of the number or prefix.
    pub number: [u8; 8],
}

impl PrefixKey {
    /// Returns the key for looking a number up, or for storing a whole one.
    #[must_use]
    pub const fn number(number: Number) -> PrefixKey {
        PrefixKey { prefix_len: 64, number: number.key() }
    }

    /// Returns the key of a prefix. Its length is 4 × digits, never the padded width: otherwise `628120*` would be
    /// `62812*`.
    #[must_use]
    pub const fn prefix(prefix: Digits) -> PrefixKey {
        PrefixKey { prefix_len: 4 * prefix.len(), number: prefix.nibbles().to_be_bytes() }
    }
}

/// Key of the trie that finds the trunk of a source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TrunkKey {
    /// Bits that count, the 32 of `generation` included.
    pub prefix_len: u32,
    /// Which of the two sets of settings this entry belongs to, big-endian.
    pub generation: [u8; 4],
    /// IPv6 address; IPv4 mapped (RFC 4291 §2.5.5.2).
    pub address: [u8; 16],
}

/// Settings for all trunks. Two sets exist; which one holds is a single index, so that a change swaps them whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Version of the layout that wrote this; 0: nothing was loaded.
    pub abi_version: u32,
    /// Above this many pass events in a second on a CPU they are sampled.
    pub pass_events_per_second: u32,
    /// Mode enforce ends at this time, then observe; 0: it does not end.
    pub enforce_until: u64,
    /// [`RULE_SHORT_NUMBER`]. Here, because what follows a constant is walked once more by the verifier.
    pub short_rule: u64,
    /// [`MODE_OBSERVE`] or [`MODE_ENFORCE`].
    pub mode: u8,
    /// 1: trunks are configured, and a source outside all of them is never refused.
    pub trunks_configured: u8,
    /// Numbers of fewer digits, local ones too, are never refused; 0: all may be.
    pub shortest_number: u8,
    /// Blocks against prefixes of fewer digits are never in force; 0: all are.
    pub shortest_prefix: u8,
    /// Seconds for which a number that the centre called passes; 0: call-back grace is off.
    pub callback_grace: u32,
}

impl Settings {
    /// Returns the rule by which a number of this many digits is never refused; 0: it may be refused.
    #[inline(always)]
    #[must_use]
    pub const fn short_rule(&self, digits: u32) -> u64 {
        if digits < self.shortest_number as u32 { self.short_rule } else { 0 }
    }
}

/// The settings of one trunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Profile {
    /// How the trunk's digits become a number.
    pub plan: Plan,
    /// [`MODE_OBSERVE`] or [`MODE_ENFORCE`]; enforced is only what both this and [`Settings::mode`] enforce.
    pub mode: u8,
    /// [`IDENTITY_FROM`], [`IDENTITY_PAI`] or [`IDENTITY_PAI_ELSE_FROM`](crate::plan::IDENTITY_PAI_ELSE_FROM).
    pub identity: u8,
    /// The [`Code`](crate::answer::code::Code) that a refused call is answered with, as number; 0: no reply. 0 for
    /// the profile `default`, because a source outside all trunks never gets a reply.
    pub refuse: u8,
    /// 1: also a datagram without a checksum gets a reply (IPv4, RFC 768).
    pub replies_without_checksum: u8,
    /// Most replies in a second. Above it a refused call gets none.
    pub replies_per_second: u32,
    /// Attempts of one number are separate when they are this many seconds apart ([`SEPARATE`]).
    pub separate: u32,
    /// [`REPLY_PATH_AUTO`], [`REPLY_PATH_DRIVER`] or [`REPLY_PATH_DAEMON`].
    pub reply_path: u8,
    /// [`DROPPED_WITHOUT_DAEMON`], [`PASSES_ON_SOME_INTERFACES`] or [`PASSES_WITHOUT_DAEMON`].
    pub without_daemon: u8,
    /// Bits: the identities of attempts that the trunk is trusted for ([`ATTEMPT_EMERGENCY`], [`ATTEMPT_ICID`],
    /// [`ATTEMPT_SESSION`]).
    pub attempt_identity: u8,
    /// Zero.
    pub reserved: u8,
    /// The place that a `302` names.
    pub contact: Contact,
}

/// The emergency call identifier names an attempt.
pub const ATTEMPT_EMERGENCY: u8 = 1;
/// The `icid-value` of `P-Charging-Vector` names an attempt.
pub const ATTEMPT_ICID: u8 = 2;
/// `Session-ID` names an attempt.
pub const ATTEMPT_SESSION: u8 = 4;
/// All identities of attempts.
pub const ATTEMPT_ALL: u8 = 7;

/// The driver sends a reply where it can, and otherwise the daemon.
pub const REPLY_PATH_AUTO: u8 = 0;
/// Only the driver sends replies.
pub const REPLY_PATH_DRIVER: u8 = 1;
/// Only the daemon sends replies.
pub const REPLY_PATH_DAEMON: u8 = 2;
/// Without a daemon a refused call is dropped in silence.
pub const DROPPED_WITHOUT_DAEMON: u8 = 0;
/// Without a daemon a call passes where the daemon has to answer it: by its interface, or in the second look.
pub const PASSES_ON_SOME_INTERFACES: u8 = 1;
/// Without a daemon each call passes that would be refused with a reply.
pub const PASSES_WITHOUT_DAEMON: u8 = 2;

impl Profile {
    /// Returns whether `P-Asserted-Identity` of this trunk is to be believed (RFC 3325 §4).
    #[must_use]
    pub const fn trusts_pai(&self) -> bool {
        self.identity != IDENTITY_FROM
    }

    /// Returns whether a call of this trunk has no identity without `P-Asserted-Identity`.
    #[must_use]
    pub const fn needs_pai(&self) -> bool {
        self.identity == IDENTITY_PAI
    }
}

/// A fragmented datagram (RFC 791 §2.3, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FragmentKey {
    /// Source address, IPv4 mapped.
    pub source: [u8; 16],
    /// Destination address, IPv4 mapped.
    pub destination: [u8; 16],
    /// Identification: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// Outer and inner VLAN id, 0 without a tag.
    pub vlans: [u16; 2],
}

/// Knowledge about the other fragments of a datagram: a time in nanoseconds until which it holds, and from bit 62 on
/// a `FRAGMENTS_…` kind.
pub type FragmentState = u64;
/// Bits of a [`FragmentState`] that are the time.
pub const FRAGMENTS_UNTIL: u64 = (1 << 62) - 1;
/// The first fragment was refused: later ones are dropped.
pub const FRAGMENTS_REFUSED: u64 = 0;
/// The first fragment passed: later ones pass.
pub const FRAGMENTS_PASSED: u64 = 1 << 62;
/// A later fragment passed before the first one came. The host holds it, so the first one passes too: otherwise the
/// host would put it together with a fragment of another datagram.
pub const FRAGMENTS_LATER: u64 = 2 << 62;

/// A datagram that the first look could not read whole, as both looks see it. The host may change its destination in
/// between, and IPv6 loses its identification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct DatagramKey {
    /// Source address, IPv4 mapped.
    pub source: [u8; 16],
    /// Source port.
    pub source_port: u16,
    /// Length of the datagram in bytes, its UDP header included (RFC 768).
    pub len: u16,
    /// Its checksum without the destination; 0: it has none. Two datagrams of one length differ in it.
    pub sum: u16,
}

/// The INVITE has a To-tag: it belongs to a running call.
pub const EVENT_TO_TAG: u8 = 1;
/// The attempt was seen before: a retransmission or an authentication retry.
pub const EVENT_REPEATED: u8 = 2;
/// Two asserted identities were judged. `number` is the lower one, or the one whose redial grant the call passed by.
pub const EVENT_TWO_IDENTITIES: u8 = 4;
/// The INVITE has a `P-Asserted-Identity`, and its trunk reads `From`.
pub const EVENT_PAI_IGNORED: u8 = 8;

/// The daemon sends the reply; otherwise the driver has sent it.
pub const EVENT_BY_DAEMON: u8 = 16;

/// The identity is from `From`.
pub const EVENT_FROM: u8 = 1;
/// The identity is from `P-Asserted-Identity`.
pub const EVENT_PAI: u8 = 2;

/// IPv4/IPv6 and UDP: the only transport that is read so far.
pub const TRANSPORT_UDP: u8 = 17;
/// TCP: counted, never refused.
pub const TRANSPORT_TCP: u8 = 6;

/// The program of forwarded packets calls a helper of this number. The loader puts the kernel's function
/// `bpf_dynptr_from_skb` in its place, whose number is different on each kernel.
pub const DYNPTR_FROM_SKB: i32 = 0x7061_6C61;

/// The findings and the verdict of the gate for one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// When it was judged.
    pub time: u64,
    /// The caller number, [`Number::NONE`] where none was read.
    pub number: Number,
    /// The rule that decided; 0: none.
    pub rule: u64,
    /// Hash of the Call-ID; 0: not read.
    pub call_id: u64,
    /// Source address, IPv4 mapped.
    pub source: [u8; 16],
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Index of the trunk's profile.
    pub trunk: u16,
    /// [`TRANSPORT_UDP`], [`TRANSPORT_TCP`]; 0: not read.
    pub transport: u8,
    /// [`EVENT_FROM`], [`EVENT_PAI`]; 0: no identity was read.
    pub identity: u8,
    /// [`Verdict`] as number.
    pub verdict: u8,
    /// The verdict without observe or override, as number.
    pub policy_verdict: u8,
    /// [`Reason`](crate::reason::Reason) as number.
    pub reason: u8,
    /// Bits: [`EVENT_TO_TAG`] and the constants after it up to [`EVENT_BY_DAEMON`].
    pub flags: u8,
    /// Where the Call-ID begins in the frame; 0: not read.
    pub call_id_offset: u16,
    /// How long the Call-ID is, in bytes.
    pub call_id_len: u16,
    /// The [`Code`](crate::answer::code::Code) of the reply that was sent or handed to the daemon, as number; 0:
    /// none.
    pub reply: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// The identity that the legs of one attempt share ([`attempt_identity::read`](crate::sip::attempt_identity::read));
    /// 0: none was read.
    pub attempt_identity: u32,
}

/// Bytes of a Call-ID that an [`EventEntry`] holds; a longer one is cut.
pub const CALL_ID_EVENT_MAX: usize = 128;
/// Bytes of a Call-ID that count for its hash; its length counts too.
pub const CALL_ID_HASH_MAX: usize = 256;
/// Bytes of the longest Call-ID that a report may name.
pub const CALL_ID_REPORT_MAX: usize = 4096;

/// Bytes of a header field that an [`EventEntry`] holds; a longer one is cut.
pub const UNREAD_MAX: usize = 128;

/// An event in a ring, with the Call-ID and the text of an unread caller or of an ignored `P-Asserted-Identity` as in
/// the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct EventEntry {
    /// The event.
    pub event: Event,
    /// The Call-ID. Only the first `call_id_len` bytes were written.
    pub call_id: [u8; CALL_ID_EVENT_MAX],
    /// The bytes after the colon of the header field that should name the caller, also those after its end. If the
    /// caller was read from `From`: those of the `P-Asserted-Identity` that the trunk does not read.
    pub unread: [u8; UNREAD_MAX],
    /// How many bytes of `unread` were written, 0 to [`UNREAD_MAX`]; 0: there is no such header field.
    pub unread_len: u64,
}

/// Events that were thinned out or lost, per CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct EventStats {
    /// Refusals whose event found no room.
    pub refused_lost: u64,
    /// Passed attempts whose event found no room.
    pub passed_lost: u64,
    /// Passed attempts that were not reported, by [`Settings::pass_events_per_second`].
    pub passed_thinned: u64,
    /// The second that `passed_in_second` counts.
    pub second: u64,
    /// Passed attempts in that second.
    pub passed_in_second: u64,
    /// Datagrams that the first look left, and that were judged whole.
    pub judged_again: u64,
}

/// Bytes of a refused frame that an [`Evidence`] holds; a longer one is cut.
pub const EVIDENCE_MAX: usize = 2048;

/// The frame of a refused attempt in a ring, as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Evidence {
    /// When it was judged, as in its [`Event`].
    pub time: u64,
    /// The caller number.
    pub number: Number,
    /// Hash of the Call-ID.
    pub call_id: u64,
    /// How long the frame was, in bytes.
    pub frame_len: u32,
    /// How many of its bytes were kept.
    pub kept_len: u32,
    /// The frame. Only the first `kept_len` bytes were written.
    pub bytes: [u8; EVIDENCE_MAX],
}

impl Evidence {
    /// Returns the frame as it came, cut at [`EVIDENCE_MAX`].
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        &self.bytes[..(self.kept_len as usize).min(EVIDENCE_MAX)]
    }
}

/// Frames of refused attempts that were kept or not, per CPU, while keeping was on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct EvidenceStats {
    /// Frames that went into the ring.
    pub kept: u64,
    /// Frames that found no room in it.
    pub lost: u64,
    /// Frames above the rate at which they are kept.
    pub limited: u64,
    /// The second that `in_second` counts.
    pub second: u64,
    /// Frames in that second.
    pub in_second: u64,
}

/// Replies to refused calls of one trunk, per CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ReplyStats {
    /// Replies that the driver sent.
    pub sent: u64,
    /// Of these, replies to an INVITE of an attempt that was refused before.
    pub repeated: u64,
    /// ACKs for replies, which ended in the driver.
    pub acks: u64,
    /// Refused calls above [`Profile::replies_per_second`]: no reply.
    pub limited: u64,
    /// Refused calls with a wrong checksum: no reply, for the number may be damaged.
    pub damaged: u64,
    /// Refused calls that no reply is possible to.
    pub impossible: u64,
    /// Refused calls that the daemon was to answer while no daemon ran, without repeats: no reply.
    pub without_daemon: u64,
    /// Refused calls that the daemon was to answer, and for which its ring had no room: no reply.
    pub lost: u64,
}

/// The replies of one trunk in the present second, over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ReplySecond {
    /// The second of the boot clock.
    pub second: u64,
    /// Replies in it. CPUs that count at the same time may lose one.
    pub count: u64,
}

/// The keys of the tags in replies. The daemon changes them in turns: the new key replaces the older one, which has
/// not been valid for long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Keys {
    /// Both keys, each of 128 random bits.
    pub keys: [[u64; 2]; 2],
    /// The number of the key that new tags are made with, 0 or 1.
    pub newest: u64,
    /// Until when a tag of the other key is valid, in ns of the boot clock: 64 s after the change. A client sends its
    /// INVITE for 32 s, and an ACK for each reply during 32 s more (RFC 3261 §17.1.1.2, timers B and D).
    pub older_until: u64,
}

macro_rules! layout {
    ($($type:ty = $size:literal),* $(,)?) => {
        $(const _: () = assert!(core::mem::size_of::<$type>() == $size);)*
    };
}

layout! {
    Block = 48,
    Allow = 24,
    PrefixKey = 12,
    TrunkKey = 24,
    Settings = 32,
    Profile = 536,
    AttemptKey = 16,
    Attempt = 40,
    RedialCounter = 40,
    Grant = 32,
    Grace = 16,
    FragmentKey = 40,
    DatagramKey = 22,
    Event = 72,
    EventEntry = 336,
    EventStats = 48,
    Evidence = 2080,
    EvidenceStats = 40,
    Keys = 48,
    ReplyStats = 64,
    ReplySecond = 16,
}
