//! The look-ups that a decision rests on.

use crate::abi::{Allow, Attempt, Block, Grace, Grant, PrefixKey, RedialCounter};
use crate::number::Number;

/// The look-ups that a decision rests on.
pub trait PolicyLookup {
    /// Returns the time of this packet, in nanoseconds of the clock that expiries are in.
    fn now(&mut self) -> u64;
    /// Returns the time before which nothing is refused; 0: no override.
    fn override_until(&self) -> u64;
    /// Returns the longest protected number or prefix that `key` begins with.
    fn protected(&self, key: &PrefixKey) -> Option<Allow>;
    /// Returns the rule by which a number of this many digits is never refused; 0: it may be refused.
    fn short_rule(&self, digits: u32) -> u64;
    /// Returns how many digits a blocked prefix needs for its block to have an effect; 0: any number.
    fn shortest_prefix(&self) -> u8;
    /// Returns the allow for this number. May miss one that is being replaced, for a moment.
    fn allowed_number(&self, number: Number) -> Option<Allow>;
    /// Returns the allow for the longest prefix of `key`, the whole number included. Never misses one.
    fn allowed_prefix(&self, key: &PrefixKey) -> Option<Allow>;
    /// Returns the block against this number.
    fn blocked_number(&self, number: Number) -> Option<Block>;
    /// Returns the block against the longest prefix of `key`.
    fn blocked_prefix(&self, key: &PrefixKey) -> Option<Block>;
    /// Returns the remembered attempt that this packet belongs to; `None`: it is a new one.
    fn attempt(&mut self, number: Number, call_id: u64, now: u64) -> Option<Attempt>;
    /// Remembers the first verdict of an attempt. `false` when that failed.
    fn remember(&mut self, attempt: &Attempt) -> bool;
    /// Returns the call-back grace of a number.
    fn grace(&self, number: Number) -> Option<Grace>;
    /// Returns the redial grant of a number.
    fn grant(&self, number: Number) -> Option<Grant>;
    /// Opens a redial grant. `false` when that failed.
    fn open_grant(&mut self, grant: &Grant) -> bool;
    /// Returns how often a blocked number called lately.
    fn redial(&self, number: Number) -> Option<RedialCounter>;
    /// Remembers how often a blocked number called. `false` when that failed.
    fn count_redial(&mut self, redial: &RedialCounter) -> bool;
    /// Returns `number`, which the compiler then keeps in a register.
    #[inline(always)]
    fn pinned(&self, number: u64) -> u64 {
        number
    }
    /// Returns whether a daemon runs that sends replies.
    #[inline(always)]
    fn has_daemon(&self, now: u64) -> bool {
        let _ = now;
        true
    }
    /// Returns whether the daemon, and not the driver, sends the replies to calls of this interface, where the trunk
    /// wants neither of them.
    #[inline(always)]
    fn is_answered_by_daemon(&self) -> bool {
        false
    }
}

/// Sets `key` to find only prefixes shorter than `entry`; returns `false` when no digit is left.
pub(super) fn shorten(key: &mut PrefixKey, entry: Number) -> bool {
    let len = prefix_len(entry);
    if len < 2 {
        return false;
    }
    key.prefix_len = 4 * (len - 1);
    true
}

/// Returns how many digits the prefix of an entry has.
pub(super) fn prefix_len(entry: Number) -> u32 {
    (entry.0 & 0xF) as u32
}
