//! The gate on the host: the kernel's decision on ordinary collections.
//!
//! The tests compare it with the kernel, packet by packet.

use std::collections::{HashMap, HashSet};

use filter_common::abi::Keys;
use filter_common::abi::{
    ATTEMPT_NS, Allow, Attempt, AttemptKey, BLOCK_REFUSE_DROP, Block, DatagramKey, EVENT_BY_DAEMON,
    Event, FRAGMENTS_UNTIL, FragmentKey, FragmentState, Grace, Grant, PrefixKey, Profile,
    RedialCounter, ReplySecond, Settings,
};
use filter_common::answer::{Answer, Outcome, ROOM, is_own_ack, note_own_ack};
use filter_common::bytes::Slice;
use filter_common::decide::{Call, Decision, PolicyLookup, decide, refusal};
use filter_common::egress::{called, is_sip};
use filter_common::frame::address_number;
use filter_common::handed_over::{
    HANDED_REQUEST, HANDED_WITHOUT_CHECKSUM, HandedOver, is_by_daemon,
};
use filter_common::judge::{JudgeContext, Scratch, is_noted, judge, judge_again};
use filter_common::number::Number;
use filter_common::reason::Reason;
use filter_common::sip::message::{Reader, scan_in_turns};

use crate::model::late_answer;
use crate::model::policy::{Policy, Subject};

/// Bytes of a frame that a program can read directly in a test run. A program without `xdp.frags` gets
/// no more. It is one page less 256 bytes of headroom and 320 bytes of tailroom (Linux
/// `net/bpf/test_run.c`).
pub const READABLE: usize = 4096 - 256 - 320;

/// Bytes of a frame that the second look can read in a test run. It is one page less 64 bytes of headroom
/// and 320 bytes of tailroom (Linux `net/bpf/test_run.c`).
pub const READABLE_AGAIN: usize = 4096 - 64 - 320;

/// The keys of the tags in replies of replays. A capture shows no secret, and the same capture gets the same
/// replies.
pub const REPLAY_KEYS: Keys = Keys {
    keys: [[0x0070_616C_616E_6700, 1], [0x0070_616C_616E_6700, 2]],
    newest: 0,
    older_until: 0,
};

/// A gate with one policy and its own state: attempts, fragments, grants.
#[derive(Clone, Debug, Default)]
pub struct HostGate {
    reader: Reader,
    now: u64,
    override_until: u64,
    settings: Option<Settings>,
    ports: Vec<u16>,
    profiles: Vec<Profile>,
    sources: Vec<([u8; 16], u32, u32)>,
    protected: Trie<Allow>,
    allowed_numbers: HashMap<Number, Allow>,
    allowed_prefixes: Trie<Allow>,
    blocked_numbers: HashMap<Number, Block>,
    blocked_prefixes: Trie<Block>,
    attempts: HashMap<AttemptKey, Attempt>,
    fragments: HashMap<FragmentKey, FragmentState>,
    own_addresses: Option<HashSet<u64>>,
    second_look: bool,
    unread: HashMap<DatagramKey, u64>,
    grace: HashMap<Number, Grace>,
    grants: HashMap<Number, Grant>,
    redials: HashMap<Number, RedialCounter>,
    no_replies: bool,
    by_daemon: bool,
    no_driver: bool,
    no_daemon: bool,
    reply_seconds: HashMap<u16, ReplySecond>,
    reply: Option<Vec<u8>>,
}

/// Entries by prefix length in bits and by those bits. A digit has four bits.
#[derive(Clone, Debug)]
struct Trie<V>(HashMap<(u32, u64), V>);

impl<V> Default for Trie<V> {
    fn default() -> Trie<V> {
        Trie(HashMap::new())
    }
}

impl<V: Copy> Trie<V> {
    fn insert(&mut self, subject: Subject, value: V) {
        let key = subject.key();
        self.0.insert((key.prefix_len, u64::from_be_bytes(key.number)), value);
    }

    fn longest(&self, key: &PrefixKey) -> Option<V> {
        let bits = u64::from_be_bytes(key.number);
        let mut lengths = (0..=key.prefix_len / 4).rev().map(|digits| 4 * digits);
        lengths.find_map(|length| self.0.get(&(length, bits & top_bits(length))).copied())
    }
}

fn top_bits(count: u32) -> u64 {
    if count == 0 { 0 } else { u64::MAX << (64 - count) }
}

impl HostGate {
    /// Creates a gate with this policy and no state.
    #[must_use]
    pub fn new(policy: &Policy) -> HostGate {
        let mut gate = HostGate {
            settings: Some(policy.settings),
            override_until: policy.override_until,
            ports: policy.ports.clone(),
            ..HostGate::default()
        };
        for (trunk, entry) in policy.trunks.iter().enumerate() {
            gate.profiles.push(entry.profile);
            for (address, bits) in &entry.sources {
                gate.sources.push((*address, *bits, trunk as u32));
            }
        }
        for protected in &policy.protected {
            gate.protected.insert(protected.subject, protected.entry);
        }
        for (subject, allow) in &policy.allows {
            match subject {
                Subject::Number(number) => {
                    gate.allowed_numbers.insert(*number, *allow);
                }
                Subject::Prefix(_) => gate.allowed_prefixes.insert(*subject, *allow),
            }
        }
        for (subject, block) in &policy.blocks {
            gate.put_block(*subject, *block);
        }
        gate
    }

    /// Returns the gate with another reader; a new gate has the full reader.
    #[must_use]
    pub fn with_reader(self, reader: Reader) -> HostGate {
        HostGate { reader, ..self }
    }

    /// Sets the Ethernet addresses of this machine. `None`, or no address: frames for others are judged too.
    pub fn set_own_addresses(&mut self, own: Option<&[[u8; 6]]>) {
        let own = own.filter(|own| !own.is_empty());
        self.own_addresses = own.map(|own| own.iter().copied().map(address_number).collect());
    }

    /// Adds a block or replaces the one with the same subject.
    pub fn put_block(&mut self, subject: Subject, block: Block) {
        match subject {
            Subject::Number(number) => {
                self.blocked_numbers.insert(number, block);
            }
            Subject::Prefix(_) => self.blocked_prefixes.insert(subject, block),
        }
    }

    /// Opens the call-back grace of a number until a time in nanoseconds.
    pub fn put_grace(&mut self, number: Number, until: u64) {
        self.grace.insert(number, Grace { number, until });
    }

    /// Replaces the policy and keeps the state.
    pub fn change(&mut self, policy: &Policy) {
        let old = std::mem::take(self);
        *self = HostGate {
            reader: old.reader,
            attempts: old.attempts,
            fragments: old.fragments,
            second_look: old.second_look,
            unread: old.unread,
            grace: old.grace,
            grants: old.grants,
            redials: old.redials,
            no_replies: old.no_replies,
            by_daemon: old.by_daemon,
            no_driver: old.no_driver,
            no_daemon: old.no_daemon,
            reply_seconds: old.reply_seconds,
            ..HostGate::new(policy)
        };
    }

    /// Sets the end of the override: nothing is refused before it.
    pub fn set_override(&mut self, until: u64) {
        self.override_until = until;
    }

    /// Judges an Ethernet frame at a time in nanoseconds.
    pub fn judge(&mut self, frame: &[u8], now: u64) -> Event {
        self.now = now;
        let mut scratch = Scratch::default();
        let reason = judge(&mut Slice::new(frame, READABLE), self, &mut scratch, self.reader);
        self.reply = None;
        if self.no_replies {
            scratch.event.reply = 0;
        } else if scratch.event.reply != 0 {
            self.answer(frame, &mut scratch);
        } else if reason == Reason::NotInvite {
            self.note_own_ack(frame, &mut scratch);
        }
        scratch.event
    }

    /// Returns the frame of the reply to the frame that was judged last; `None`: it got no reply.
    #[must_use]
    pub fn reply(&self) -> Option<&[u8]> {
        self.reply.as_deref()
    }

    /// Returns the gate without replies, as on a kernel that cannot answer.
    #[must_use]
    pub fn without_replies(self) -> HostGate {
        HostGate { no_replies: true, ..self }
    }

    /// Returns the gate whose driver sends no reply, as on a kernel without the helpers for it.
    #[must_use]
    pub fn without_driver_replies(self) -> HostGate {
        HostGate { no_driver: true, ..self }
    }

    /// Lets the daemon answer the calls of trunks that leave it open, or the driver again.
    pub fn set_answered_by_daemon(&mut self, by_daemon: bool) {
        self.by_daemon = by_daemon;
    }

    /// Sets whether a daemon runs; a new gate has one.
    pub fn set_daemon(&mut self, runs: bool) {
        self.no_daemon = !runs;
    }

    fn answer(&mut self, frame: &[u8], scratch: &mut Scratch) {
        let code = refusal(self, &scratch.event);
        let event = &mut scratch.event;
        let profile = self.profiles.get(usize::from(event.trunk)).copied().unwrap_or_default();
        let by_daemon = is_by_daemon(&profile, || self.by_daemon || self.no_driver);
        event.reply = 0;
        if self.no_driver && !by_daemon || self.no_daemon && by_daemon {
            return;
        }
        let has_room = || counts(&mut self.reply_seconds, event, &profile);
        let mut answer = Answer::<ROOM>::default();
        let (bytes, packet) = (&mut Slice::new(frame, READABLE), &scratch.packet);
        let outcome = answer.reply(bytes, packet, &REPLAY_KEYS, &profile, code, has_room);
        match outcome {
            Outcome::Written(reply) => {
                event.reply = code;
                if by_daemon {
                    event.flags |= EVENT_BY_DAEMON;
                }
                self.reply = Some(answer.bytes(reply.start, reply.end).to_vec());
            }
            Outcome::Damaged | Outcome::Limited | Outcome::Impossible | Outcome::Silent => {}
        }
    }

    /// Answers a datagram that the second look has refused.
    fn answer_later(&mut self, frame: &[u8], scratch: &mut Scratch) {
        let code = refusal(self, &scratch.event);
        let event = &mut scratch.event;
        let profile = self.profiles.get(usize::from(event.trunk)).copied().unwrap_or_default();
        event.reply = 0;
        if code == BLOCK_REFUSE_DROP
            || self.no_daemon
            || frame.len() > READABLE_AGAIN
            || !counts(&mut self.reply_seconds, event, &profile)
        {
            return;
        }
        event.reply = code;
        event.flags |= EVENT_BY_DAEMON;
        let without =
            if profile.replies_without_checksum == 0 { 0 } else { HANDED_WITHOUT_CHECKSUM };
        let head = HandedOver { code, flags: HANDED_REQUEST | without, ..HandedOver::default() };
        self.reply = late_answer::reply(&head, frame, &REPLAY_KEYS, &profile.contact).ok();
    }

    fn note_own_ack(&self, frame: &[u8], scratch: &mut Scratch) {
        let trunk = self.trunk(&scratch.event.source);
        let answers = self.settings.is_some_and(|settings| settings.trunks_configured != 0);
        let (bytes, answer) = (Slice::new(frame, READABLE), &mut Answer::<ROOM>::default());
        if answers
            && trunk != 0
            && is_own_ack(&bytes, &scratch.packet, &REPLAY_KEYS, self.now, answer)
        {
            note_own_ack(&mut scratch.event, trunk);
        }
    }

    /// Switches the second look on or off; a new gate has none.
    pub fn set_second_look(&mut self, on: bool) {
        self.second_look = on;
    }

    /// Judges a datagram that the host has put together, as an Ethernet frame, at a time in nanoseconds. Returns
    /// `None` if the first look did not note it.
    pub fn judge_again(&mut self, frame: &[u8], now: u64) -> Option<Event> {
        self.now = now;
        let mut scratch = Scratch::default();
        let mut bytes = Slice::new(frame, READABLE_AGAIN);
        if !is_noted(&bytes, self, &mut scratch) {
            return None;
        }
        judge_again(&mut bytes, self, &mut scratch, scan_in_turns);
        self.reply = None;
        if scratch.event.reply != 0 {
            self.answer_later(frame, &mut scratch);
        }
        Some(scratch.event)
    }

    /// Judges an Ethernet frame with a whole datagram by both looks, at a time in nanoseconds.
    pub fn judge_twice(&mut self, frame: &[u8], now: u64) -> Event {
        let first = self.judge(frame, now);
        if first.reason != Reason::SecondLook as u8 {
            return first;
        }
        self.judge_again(frame, now).unwrap_or(first)
    }

    /// Decides on a call whose number is already known, at a time in nanoseconds.
    pub fn decide(&mut self, call: &Call, now: u64) -> Decision {
        self.now = now;
        decide(self, call)
    }

    /// Drops attempts and fragments that have expired at this time.
    pub fn drop_expired(&mut self, now: u64) {
        self.attempts.retain(|_, attempt| now.saturating_sub(attempt.first) < ATTEMPT_NS);
        self.fragments.retain(|_, state| now < *state & FRAGMENTS_UNTIL);
        self.unread.retain(|_, until| now < *until);
    }

    /// Records and returns the number that an outgoing frame calls; [`Number::NONE`] if it calls no number.
    pub fn send(&mut self, frame: &[u8], now: u64) -> Number {
        let mut scratch = Scratch::default();
        let mut bytes = Slice::new(frame, frame.len());
        if !is_sip(&bytes, self, &mut scratch) {
            return Number::NONE;
        }
        let number = called(&mut bytes, self, &mut scratch);
        let seconds = self.settings.map_or(0, |settings| settings.callback_grace);
        if number != Number::NONE {
            self.put_grace(number, now + u64::from(seconds) * 1_000_000_000);
        }
        number
    }
}

/// Counts a reply of this second. `false`: the trunk has got all of its replies.
fn counts(seconds: &mut HashMap<u16, ReplySecond>, event: &Event, profile: &Profile) -> bool {
    let window = seconds.entry(event.trunk).or_default();
    let (next, has_room) = window.counted(event.time, profile.replies_per_second);
    *window = next;
    has_room
}

impl PolicyLookup for HostGate {
    fn now(&mut self) -> u64 {
        self.now
    }

    fn override_until(&self) -> u64 {
        self.override_until
    }

    fn protected(&self, key: &PrefixKey) -> Option<Allow> {
        self.protected.longest(key)
    }

    fn short_rule(&self, digits: u32) -> u64 {
        self.settings.map_or(0, |settings| settings.short_rule(digits))
    }

    fn shortest_prefix(&self) -> u8 {
        self.settings.map_or(0, |settings| settings.shortest_prefix)
    }

    fn allowed_number(&self, number: Number) -> Option<Allow> {
        self.allowed_numbers.get(&number).copied()
    }

    fn allowed_prefix(&self, key: &PrefixKey) -> Option<Allow> {
        self.allowed_prefixes.longest(key)
    }

    fn blocked_number(&self, number: Number) -> Option<Block> {
        self.blocked_numbers.get(&number).copied()
    }

    fn blocked_prefix(&self, key: &PrefixKey) -> Option<Block> {
        self.blocked_prefixes.longest(key)
    }

    fn attempt(&mut self, number: Number, call_id: u64, _now: u64) -> Option<Attempt> {
        self.attempts.get(&AttemptKey { number, call_id }).copied()
    }

    fn remember(&mut self, attempt: &Attempt) -> bool {
        self.attempts.insert(attempt.key, *attempt);
        true
    }

    fn grace(&self, number: Number) -> Option<Grace> {
        self.grace.get(&number).copied()
    }

    fn grant(&self, number: Number) -> Option<Grant> {
        self.grants.get(&number).copied()
    }

    fn open_grant(&mut self, grant: &Grant) -> bool {
        self.grants.insert(grant.number, *grant);
        true
    }

    fn redial(&self, number: Number) -> Option<RedialCounter> {
        self.redials.get(&number).copied()
    }

    fn count_redial(&mut self, redial: &RedialCounter) -> bool {
        self.redials.insert(redial.number, *redial);
        true
    }

    fn has_daemon(&self, _now: u64) -> bool {
        !self.no_daemon
    }

    fn is_answered_by_daemon(&self) -> bool {
        self.by_daemon || self.no_driver
    }
}

impl JudgeContext for HostGate {
    fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    fn is_sip_port(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }

    fn trunk(&self, source: &[u8; 16]) -> u32 {
        let source = u128::from_be_bytes(*source);
        self.sources
            .iter()
            .filter(|(address, bits, _)| {
                let differs = u128::from_be_bytes(*address) ^ source;
                differs.leading_zeros() >= *bits
            })
            .max_by_key(|(_, bits, _)| *bits)
            .map_or(0, |(_, _, trunk)| *trunk)
    }

    fn profile(&self, trunk: u32) -> Option<&Profile> {
        self.profiles.get(trunk as usize)
    }

    fn fragments(&self, key: &FragmentKey) -> FragmentState {
        self.fragments.get(key).copied().unwrap_or(0)
    }

    fn set_fragments(&mut self, key: &FragmentKey, state: FragmentState) {
        self.fragments.insert(*key, state);
    }

    fn is_for_us(&self, address: u64) -> bool {
        self.own_addresses.as_ref().is_none_or(|own| own.contains(&address))
    }

    fn has_second_look(&self) -> bool {
        self.second_look
    }

    fn note_unread(&mut self, key: &DatagramKey, until: u64) -> bool {
        self.unread.insert(*key, until);
        true
    }

    fn unread_until(&self, key: &DatagramKey) -> u64 {
        self.unread.get(key).copied().unwrap_or(0)
    }
}
