//! The look-ups of a decision, on the kernel's maps.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::maps::LpmTrie;
use aya_ebpf::maps::lpm_trie::Key;
use filter_common::abi::{
    Allow, Attempt, AttemptKey, Block, DatagramKey, FragmentKey, FragmentState, GENERATIONS, Grace,
    Grant, PORT_WORDS, PrefixKey, Profile, RedialCounter, Settings, TRUNKS_MAX,
};
use filter_common::decide::PolicyLookup;
use filter_common::frame::{OWN_ADDRESSES_ONLY, Packet};
use filter_common::judge::JudgeContext;
use filter_common::number::Number;

use crate::maps;
use crate::packet::{Arrival, barrier_var, has_buffer_helpers, is_replay};

/// The kernel's maps, for one packet.
pub struct Kernel<C> {
    context: C,
    /// 0 until it was read: reading the clock is a helper call.
    now: u64,
    generation: u32,
}

impl<C: Arrival> Kernel<C> {
    /// Reads the generation in force. `None` never happens: the map has that element. But a default
    /// would be a second way through all that follows, which the verifier of Linux 6.1 walks whole.
    #[inline(always)]
    pub fn new(context: C) -> Option<Kernel<C>> {
        let generation = maps::GENERATION.get(0)? & (GENERATIONS - 1);
        Some(Kernel { context, now: 0, generation })
    }
}

/// Copies an element of a hash, from its last word to its first, which is its own number or key. An
/// element that is removed may be written for another number while it is read, from its first word
/// on. So if the number is right, the rest is right too.
#[inline(always)]
fn copied<T: Copy>(entry: *const T) -> T {
    const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() == 8) };
    let mut copy = MaybeUninit::<T>::uninit();
    let (from, to) = (entry.cast::<u64>(), copy.as_mut_ptr().cast::<u64>());
    let mut word = size_of::<T>() / 8;
    while word > 0 {
        word -= 1;
        // SAFETY: within an element of a map, which stays memory of that map, and within the copy.
        unsafe { to.add(word).write(from.add(word).read_volatile()) };
    }
    // SAFETY: all of its words were written, and every pattern is valid.
    unsafe { copy.assume_init() }
}

/// Finds the element of a hash for a number that may be let through. A second look-up follows a miss:
/// while an entry is replaced, a look-up on another CPU may walk past the old and the new one. Or it
/// finds the old one as it becomes that of another number.
macro_rules! find_number {
    ($map:ident, $number:expr) => {{
        let find = || maps::$map.get_ptr($number.0).map(copied);
        find().filter(|entry| entry.number == $number).or_else(find)
    }};
}

impl<C: Arrival> PolicyLookup for Kernel<C> {
    #[inline(always)]
    fn now(&mut self) -> u64 {
        if self.now == 0 {
            // The element is always there. A 0 in its place would be another way for the verifier.
            let replayed = if is_replay() { maps::REPLAY_CLOCK.get(0) } else { None };
            self.now = match replayed {
                Some(time) => *time,
                // SAFETY: the helper takes nothing and returns a number.
                None => unsafe { bpf_ktime_get_boot_ns() },
            };
        }
        self.now
    }

    #[inline(always)]
    fn override_until(&self) -> u64 {
        maps::OVERRIDE.get(0).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn protected(&self, key: &PrefixKey) -> Option<Allow> {
        find(&maps::PROTECTED, key)
    }

    #[inline(always)]
    fn short_rule(&self, digits: u32) -> u64 {
        maps::SETTINGS.get(self.generation).map_or(0, |settings| settings.short_rule(digits))
    }

    #[inline(always)]
    fn shortest_prefix(&self) -> u8 {
        maps::SETTINGS.get(self.generation).map_or(0, |settings| settings.shortest_prefix)
    }

    #[inline(always)]
    fn allowed_number(&self, number: Number) -> Option<Allow> {
        maps::ALLOWED_NUMBERS.get_ptr(number.0).map(copied)
    }

    #[inline(always)]
    fn allowed_prefix(&self, key: &PrefixKey) -> Option<Allow> {
        find(&maps::ALLOWED_PREFIXES, key)
    }

    #[inline(always)]
    fn blocked_number(&self, number: Number) -> Option<Block> {
        maps::BLOCKED_NUMBERS.get_ptr(number.0).map(copied)
    }

    #[inline(always)]
    fn blocked_prefix(&self, key: &PrefixKey) -> Option<Block> {
        find(&maps::BLOCKED_PREFIXES, key)
    }

    #[inline(always)]
    fn attempt(&mut self, number: Number, call_id: u64, _now: u64) -> Option<Attempt> {
        let key = AttemptKey { number, call_id };
        let entry = maps::ATTEMPTS.get_ptr_mut(key)?;
        let attempt = copied(entry.cast_const());
        if attempt.key == key {
            // Here, for a second look-up would cost as much as reading the number. An attempt that
            // is too old to count is replaced.
            // SAFETY: an element of this type; two CPUs may lose one of two counts.
            unsafe { (*entry).repeats += 1 };
        }
        Some(attempt)
    }

    #[inline(always)]
    fn remember(&mut self, attempt: &Attempt) -> bool {
        maps::ATTEMPTS.insert(attempt.key, attempt, BPF_ANY.into()).is_ok()
    }

    #[inline(always)]
    fn grace(&self, number: Number) -> Option<Grace> {
        find_number!(GRACE, number)
    }

    #[inline(always)]
    fn grant(&self, number: Number) -> Option<Grant> {
        find_number!(GRANTS, number)
    }

    #[inline(always)]
    fn open_grant(&mut self, grant: &Grant) -> bool {
        maps::GRANTS.insert(grant.number.0, grant, BPF_ANY.into()).is_ok()
    }

    #[inline(always)]
    fn redial(&self, number: Number) -> Option<RedialCounter> {
        find_number!(REDIALS, number)
    }

    #[inline(always)]
    fn count_redial(&mut self, redial: &RedialCounter) -> bool {
        maps::REDIALS.insert(redial.number.0, redial, BPF_ANY.into()).is_ok()
    }

    #[inline(always)]
    fn pinned(&self, number: u64) -> u64 {
        barrier_var(number as usize) as u64
    }

    #[inline(always)]
    fn has_daemon(&self, now: u64) -> bool {
        maps::DAEMON_UNTIL.get(0).is_some_and(|until| now < *until)
    }

    #[inline(always)]
    fn is_answered_by_daemon(&self) -> bool {
        // Without the helpers no reply can be put into a frame.
        !has_buffer_helpers() || maps::DAEMON_PATHS.get_ptr(self.context.interface()).is_some()
    }
}

impl<C: Arrival> JudgeContext for Kernel<C> {
    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        maps::SETTINGS.get(self.generation).filter(|settings| settings.abi_version != 0)
    }

    #[inline(always)]
    fn is_sip_port(&self, port: u16) -> bool {
        let word = self.generation * PORT_WORDS + port as u32 / 64;
        maps::PORTS.get(word).is_some_and(|bits| bits >> (port & 63) & 1 != 0)
    }

    #[inline(always)]
    fn trunk(&self, source: &[u8; 16]) -> u32 {
        let mut data = [0; 20];
        data[..4].copy_from_slice(&self.generation.to_be_bytes());
        data[4..].copy_from_slice(source);
        maps::TRUNKS
            .get(Key::new(160, data))
            .copied()
            .filter(|trunk| *trunk < TRUNKS_MAX)
            .unwrap_or(0)
    }

    #[inline(always)]
    fn profile(&self, trunk: u32) -> Option<&Profile> {
        maps::PROFILES.get(self.generation * TRUNKS_MAX + trunk)
    }

    #[inline(always)]
    fn fragments(&self, key: &FragmentKey) -> FragmentState {
        // SAFETY: one aligned load.
        unsafe { maps::FRAGMENTS.get(key).copied().unwrap_or(0) }
    }

    #[inline(always)]
    fn set_fragments(&mut self, key: &FragmentKey, state: FragmentState) {
        // When there is no room, the later fragments pass and are never put together.
        let _ = maps::FRAGMENTS.insert(key, state, BPF_ANY.into());
    }

    #[inline(always)]
    fn is_for_us(&self, address: u64) -> bool {
        is_own(address) || !is_own(OWN_ADDRESSES_ONLY)
    }

    #[inline(always)]
    fn reaches_socket(&self, packet: &Packet) -> bool {
        // A capture reaches no socket.
        !is_replay() && self.context.reaches_socket(packet)
    }

    #[inline(always)]
    fn has_second_look(&self) -> bool {
        maps::SECOND_LOOK.get(0).is_some_and(|on| *on != 0)
    }

    #[inline(always)]
    fn note_unread(&mut self, key: &DatagramKey, until: u64) -> bool {
        let Some(port) = maps::UNREAD_PORTS.get_ptr_mut(key.source_port as u32) else {
            return false;
        };
        // SAFETY: one aligned store of the only value.
        unsafe { port.write_volatile(1) };
        maps::UNREAD_DATAGRAMS.insert(key, until, BPF_ANY.into()).is_ok()
    }

    #[inline(always)]
    fn unread_until(&self, key: &DatagramKey) -> u64 {
        // SAFETY: one aligned load.
        unsafe { maps::UNREAD_DATAGRAMS.get(key).copied().unwrap_or(0) }
    }
}

/// Returns whether an Ethernet address is one of this machine.
#[inline(always)]
pub fn is_own(address: u64) -> bool {
    maps::OWN_ADDRESSES.get_ptr(address).is_some()
}

#[inline(always)]
fn find<V: Copy>(trie: &LpmTrie<[u8; 8], V>, key: &PrefixKey) -> Option<V> {
    trie.get(Key::new(key.prefix_len, key.number)).copied()
}
