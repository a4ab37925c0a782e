//! The refusal of a block of its own.

use crate::abi::{BLOCK_REFUSE_SHIFT, Event, PrefixKey};
use crate::decide::lookup::{PolicyLookup, shorten};
use crate::number::{DIGITS_MAX, Number};
use crate::reason::Reason;

/// Returns the refusal of a call on a trunk that answers, whose code is in [`Event::reply`]. It is that of the block
/// which refused the call ([`BLOCK_REFUSE_SHIFT`]). The trunk's is taken if the block has none, or is no longer
/// found. Not a part of [`decide`]: only a call that gets a reply pays for this look-up.
#[inline(always)]
pub fn refusal<L: PolicyLookup>(lists: &L, event: &Event) -> u8 {
    match own_refusal(lists, event.reason, event.number, event.rule) {
        0 => event.reply,
        own => own,
    }
}

/// Returns the refusal of the block that refused a call; 0: it has none, or is no longer found.
#[inline(always)]
pub(super) fn own_refusal<L: PolicyLookup>(lists: &L, reason: u8, number: Number, rule: u64) -> u8 {
    let flags = if reason == Reason::BlockedPrefix as u8 {
        prefix_flags(lists, number, rule)
    } else {
        let block = lists.blocked_number(number);
        let (found, flags) = block.map_or((0, 0), |block| (block.rule, block.flags));
        // Pinned: LLVM would read the flags of a block that is not there, and the verifier sees that.
        let flags = lists.pinned(flags as u64) as u8;
        if found == rule { flags } else { 0 }
    };
    flags >> BLOCK_REFUSE_SHIFT & 7
}

/// Returns the flags of the block on a prefix that refused a call; 0: it is no longer found. A longer prefix may
/// hide it: one whose block has ended.
#[inline(never)]
fn prefix_flags<L: PolicyLookup>(lists: &L, number: Number, rule: u64) -> u8 {
    let mut key = PrefixKey::number(number);
    let mut tries = 0;
    while tries < DIGITS_MAX {
        let Some(block) = lists.blocked_prefix(&key) else {
            break;
        };
        if block.rule == rule {
            return block.flags;
        }
        if !shorten(&mut key, block.number) {
            break;
        }
        tries += 1;
    }
    0
}
