// The smallest gate: one block, and a memory of attempts. The kernel program has BPF maps in its
// place, `palang` ordinary collections. The documentation of `judge` includes this file.

use std::collections::HashMap;

use filter_common::abi::{
    ABI_VERSION, Allow, Attempt, AttemptKey, Block, DatagramKey, FragmentKey, FragmentState, Grace,
    Grant, MODE_ENFORCE, PrefixKey, Profile, RedialCounter, Settings, Verdict,
};
use filter_common::decide::PolicyLookup;
use filter_common::judge::JudgeContext;
use filter_common::number::{Digits, Number};
use filter_common::plan::{FORMAT_E164, FORMAT_NATIONAL, Plan};

/// A gate that refuses one number.
pub struct OneBlock {
    /// Nanoseconds.
    pub now: u64,
    /// The override is on before this time.
    pub override_until: u64,
    settings: Settings,
    profile: Profile,
    block: Block,
    attempts: HashMap<AttemptKey, Attempt>,
}

impl OneBlock {
    /// Returns a gate in mode enforce that refuses `number` without an end.
    pub fn new(number: Number) -> OneBlock {
        let settings = Settings {
            abi_version: ABI_VERSION,
            pass_events_per_second: 0,
            enforce_until: 0,
            short_rule: 0,
            mode: MODE_ENFORCE,
            trunks_configured: 0,
            shortest_number: 0,
            shortest_prefix: 0,
            callback_grace: 0,
        };
        let digits = |text| Digits::parse(text).unwrap_or_default();
        let plan = Plan {
            country: digits("62"),
            trunk_prefix: digits("0"),
            formats: FORMAT_E164 | FORMAT_NATIONAL,
            short_digits: 6,
            ..Plan::default()
        };
        OneBlock {
            now: 0,
            override_until: 0,
            settings,
            profile: Profile { plan, mode: MODE_ENFORCE, ..Profile::default() },
            block: Block { number, rule: 1, action: Verdict::Drop as u8, ..Block::default() },
            attempts: HashMap::new(),
        }
    }
}

impl PolicyLookup for OneBlock {
    fn now(&mut self) -> u64 {
        self.now
    }

    fn override_until(&self) -> u64 {
        self.override_until
    }

    fn protected(&self, _: &PrefixKey) -> Option<Allow> {
        None
    }

    fn short_rule(&self, digits: u32) -> u64 {
        self.settings.short_rule(digits)
    }

    fn shortest_prefix(&self) -> u8 {
        self.settings.shortest_prefix
    }

    fn allowed_number(&self, _: Number) -> Option<Allow> {
        None
    }

    fn allowed_prefix(&self, _: &PrefixKey) -> Option<Allow> {
        None
    }

    fn blocked_number(&self, number: Number) -> Option<Block> {
        (number == self.block.number).then_some(self.block)
    }

    fn blocked_prefix(&self, _: &PrefixKey) -> Option<Block> {
        None
    }

    fn attempt(&mut self, number: Number, call_id: u64, _: u64) -> Option<Attempt> {
        self.attempts.get(&AttemptKey { number, call_id }).copied()
    }

    fn remember(&mut self, attempt: &Attempt) -> bool {
        self.attempts.insert(attempt.key, *attempt);
        true
    }

    fn grace(&self, _: Number) -> Option<Grace> {
        None
    }

    fn grant(&self, _: Number) -> Option<Grant> {
        None
    }

    fn open_grant(&mut self, _: &Grant) -> bool {
        false
    }

    fn redial(&self, _: Number) -> Option<RedialCounter> {
        None
    }

    fn count_redial(&mut self, _: &RedialCounter) -> bool {
        false
    }
}

impl JudgeContext for OneBlock {
    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn is_sip_port(&self, port: u16) -> bool {
        port == 5060
    }

    fn trunk(&self, _: &[u8; 16]) -> u32 {
        0
    }

    fn profile(&self, trunk: u32) -> Option<&Profile> {
        (trunk == 0).then_some(&self.profile)
    }

    fn fragments(&self, _: &FragmentKey) -> FragmentState {
        0
    }

    fn set_fragments(&mut self, _: &FragmentKey, _: FragmentState) {}

    fn has_second_look(&self) -> bool {
        false
    }

    fn note_unread(&mut self, _: &DatagramKey, _: u64) -> bool {
        false
    }

    fn unread_until(&self, _: &DatagramKey) -> u64 {
        0
    }
}

/// Returns an Ethernet frame with an INVITE of `caller` (a user part) over IPv4 and UDP.
pub fn invite(caller: &str, call_id: &str) -> Vec<u8> {
    let message = format!(
        "INVITE sip:112@psap.example SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK1\r\n\
         From: <sip:{caller}@trunk.example>;tag=1\r\n\
         To: <sip:112@psap.example>\r\n\
         Call-ID: {call_id}\r\n\
         CSeq: 1 INVITE\r\n\
         Content-Length: 0\r\n\r\n"
    );
    let udp_len = 8 + message.len() as u16;
    let mut frame = Vec::new();
    // Ethernet: two addresses, IPv4.
    frame.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00]);
    // IPv4: version and length, total length, no fragment, TTL 64, UDP, no checksum, addresses.
    frame.extend([0x45, 0]);
    frame.extend((20 + udp_len).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1]);
    // UDP: ports, length, no checksum.
    frame.extend(5060_u16.to_be_bytes());
    frame.extend(5060_u16.to_be_bytes());
    frame.extend(udp_len.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(message.bytes());
    frame
}
