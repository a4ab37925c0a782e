//! The decision: one function, in the order of docs/design.md §5.7.
//!
//! The kernel runs it on its maps, the host on ordinary collections. Reasons to
//! let a call through are looked at for every packet and come first, so a stale block
//! never wins.

mod lookup;
mod refusal;

use crate::abi::{
    ATTEMPT_NS, Attempt, AttemptKey, BLOCK_NO_REDIAL, BLOCK_OBSERVE, BLOCK_REFUSE_DROP, Block,
    Grant, PrefixKey, RedialCounter, SAME_ATTEMPT, Verdict,
};
use crate::number::{DIGITS_MAX, Number};
use crate::reason::Reason;

pub use lookup::PolicyLookup;
use lookup::{prefix_len, shorten};
use refusal::own_refusal;
pub use refusal::refusal;

/// A call whose caller number was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The caller number; of two asserted identities the lower one.
    pub number: Number,
    /// The second asserted identity, where it is another number; otherwise [`Number::NONE`].
    pub second: Number,
    /// Hash of the Call-ID.
    pub call_id: u64,
    /// [`Event::attempt_identity`](crate::abi::Event); 0: the Call-ID alone is the identity of the attempt.
    pub identity: u32,
    /// Not 0: mode and trunk enforce blocks; otherwise everything is only observed. Not a `bool`:
    /// making one is a branch, and the verifier walks what follows twice.
    pub enforced: u32,
    /// Attempts are separate when they are this many seconds apart ([`Profile::separate`](crate::abi::Profile)).
    pub separate: u32,
    /// Whether the call passes if its reply needs a daemon that does not run. 0: never. 1: where the daemon answers the
    /// calls of its interface. Otherwise always.
    pub without_daemon: u32,
}

/// The decision on a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// The verdict without observe or override.
    pub policy_verdict: Verdict,
    /// The reason.
    pub reason: Reason,
    /// The rule that decided; 0: none.
    pub rule: u64,
    /// Whether the attempt was seen before.
    pub repeated: bool,
    /// The number of the call, or that of its two whose redial grant it passed by.
    pub number: Number,
}

/// The list entry that decides on a number.
#[derive(Clone, Copy)]
struct PolicyMatch {
    /// A reason that may refuse means a live block.
    reason: Reason,
    rule: u64,
    /// The [`Verdict`] of the block, as number.
    action: u8,
    /// How many digits the blocked number or prefix has.
    digits: u8,
    observe: bool,
    /// The N-th separate attempt opens a redial grant; 0: none does.
    redial_attempts: u8,
    /// Seconds.
    redial_window: u32,
    /// Seconds.
    redial_grant: u32,
    epoch: u32,
    /// Epoch of the block against the second number.
    second_epoch: u32,
    /// Not 0: a redial grant of the second number lets the call through.
    second_redials: u8,
}

impl PolicyMatch {
    const fn passes(reason: Reason, rule: u64) -> PolicyMatch {
        PolicyMatch {
            reason,
            rule,
            action: Verdict::Pass as u8,
            digits: 0,
            observe: false,
            redial_attempts: 0,
            redial_window: 0,
            redial_grant: 0,
            epoch: 0,
            second_epoch: 0,
            second_redials: 0,
        }
    }

    const fn is_blocked(&self) -> bool {
        matches!(self.reason, Reason::BlockedNumber | Reason::BlockedPrefix)
    }
}

/// Decides on a call.
#[inline(always)]
pub fn decide<L: PolicyLookup>(lists: &mut L, call: &Call) -> Decision {
    let now = lists.now();
    let mut found = PolicyMatch::passes(Reason::NotBlocked, 0);
    match_both(lists, call, now, &mut found);
    let key = AttemptKey { number: call.number, call_id: call.call_id };
    let mut known = Known { repeated: false, verdict: 0, policy_verdict: 0 };
    if let Some(attempt) = lists.attempt(call.number, call.call_id, now)
        && attempt.key == key
        && now.wrapping_sub(attempt.first) < ATTEMPT_NS
    {
        known = Known {
            repeated: true,
            verdict: attempt.verdict,
            policy_verdict: attempt.policy_verdict,
        };
    }
    let mut decision = weigh(&found, known, call);
    // Asked of what would be refused, also while it is only observed.
    if decision.policy_verdict != Verdict::Pass {
        let exemption = exemption(lists, call, now, &found, known.repeated);
        let reason = match exemption {
            REDIAL_GRANT | SECOND_GRANT => Reason::RedialGrant,
            STATE_FULL => Reason::StateFull,
            CALLBACK_GRACE => Reason::CallbackGrace,
            _ => decision.reason,
        };
        if reason != decision.reason {
            decision.verdict = Verdict::Pass;
            decision.policy_verdict = Verdict::Pass;
            decision.reason = reason;
            if exemption == SECOND_GRANT {
                decision.number = call.second;
            }
        }
    }
    if now < lists.override_until() {
        decision.verdict = Verdict::Pass;
        decision.reason = Reason::Override;
    }
    // Not for a repeated one: an attempt that was refused may have got its final reply.
    if !known.repeated
        && call.without_daemon != 0
        && decision.verdict != Verdict::Pass
        && is_unanswered(lists, call, now, &decision)
    {
        decision.verdict = Verdict::Pass;
        decision.reason = Reason::WithoutDaemon;
    }
    if !known.repeated {
        let attempt = Attempt {
            key,
            first: now,
            rule: decision.rule,
            verdict: decision.verdict as u8,
            policy_verdict: decision.policy_verdict as u8,
            reason: decision.reason as u8,
            reserved: 0,
            repeats: 0,
        };
        let remembered = lists.remember(&attempt);
        if !remembered && decision.verdict != Verdict::Pass {
            decision.verdict = Verdict::Pass;
            decision.reason = Reason::StateFull;
        }
    }
    decision
}

/// The first verdict of a repeated attempt. No `Option`: LLVM reads the undefined half of one, and the
/// verifier sees that.
#[derive(Clone, Copy)]
struct Known {
    repeated: bool,
    verdict: u8,
    policy_verdict: u8,
}

/// Returns the decision by a block and by the first verdict of the attempt. The override is applied later.
#[inline(always)]
fn weigh(standing: &PolicyMatch, known: Known, call: &Call) -> Decision {
    let enforced = call.enforced != 0;
    let mut decision = Decision {
        verdict: Verdict::Pass,
        policy_verdict: Verdict::Pass,
        reason: standing.reason,
        rule: standing.rule,
        repeated: known.repeated,
        number: call.number,
    };
    if !standing.is_blocked() {
        return decision;
    }
    let mut action = standing.action;
    if known.repeated {
        action = known.policy_verdict;
        if known.verdict == Verdict::Pass as u8
            && (enforced && !standing.observe || known.policy_verdict == Verdict::Pass as u8)
        {
            decision.reason = Reason::AttemptPassed;
            decision.policy_verdict = verdict_of(action);
            return decision;
        }
    }
    decision.policy_verdict = verdict_of(action);
    if !enforced || standing.observe {
        decision.reason = Reason::Observe;
    } else if action == Verdict::Drop as u8 {
        decision.verdict = Verdict::Drop;
    } else {
        // No code carries this action out.
        decision.reason = Reason::NotBlocked;
    }
    decision
}

/// Why a call passes although its number is blocked.
type Exemption = u32;
/// The call has no exemption.
const NO_EXEMPTION: Exemption = 0;
/// A redial grant of its first number runs, which this call may have opened.
const REDIAL_GRANT: Exemption = 1;
/// The attempt could not be remembered.
const STATE_FULL: Exemption = 2;
/// The centre called its number a while ago.
const CALLBACK_GRACE: Exemption = 3;
/// A redial grant of its second number runs, which this call may have opened.
const SECOND_GRANT: Exemption = 4;

/// Returns why a blocked call passes, or [`NO_EXEMPTION`]. Grace holds for every packet and is no attempt towards a redial
/// grant; a new attempt may have an exemption by [`redial`]. Grace and grants of either number count. The attempts of
/// two numbers count for the first, which is the same in whichever order a message has them.
#[inline(never)]
fn exemption<L: PolicyLookup>(
    lists: &mut L,
    call: &Call,
    now: u64,
    block: &PolicyMatch,
    repeated: bool,
) -> Exemption {
    if is_graced(lists, call.number, now) || is_graced(lists, call.second, now) {
        return CALLBACK_GRACE;
    }
    if repeated {
        return NO_EXEMPTION;
    }
    if block.second_redials != 0 && is_granted(lists, call.second, now, block.second_epoch) {
        return SECOND_GRANT;
    }
    redial(lists, call, now, block)
}

/// Returns whether the call-back grace of a number runs; `false` for [`Number::NONE`].
#[inline(always)]
fn is_graced<L: PolicyLookup>(lists: &L, number: Number, now: u64) -> bool {
    match lists.grace(number) {
        Some(grace) => grace.number == number && now < grace.until,
        None => false,
    }
}

/// Returns whether a redial grant of a number runs; `false` for [`Number::NONE`].
#[inline(always)]
fn is_granted<L: PolicyLookup>(lists: &L, number: Number, now: u64, epoch: u32) -> bool {
    match lists.grant(number) {
        Some(grant) => grant.number == number && grant.epoch == epoch && now < grant.until,
        None => false,
    }
}

/// Returns how far apart separate attempts are, in nanoseconds: half of the window's part for one attempt at most. The gate
/// then counts at least every second call of a caller with a shorter interval. So the caller reaches the grant in time.
#[must_use]
pub const fn separation(separate: u32, window: u64, attempts: u8) -> u64 {
    let part = window / if attempts == 0 { 1 } else { 2 * attempts as u64 };
    let separate = separate as u64 * SECOND;
    if part < separate { part } else { separate }
}

const SECOND: u64 = 1_000_000_000;

/// Returns how far apart two calls are separate attempts, in seconds. A carrier that tries another way has the identity of
/// the attempt in both calls.
#[inline(always)]
const fn apart(call: &Call, counted: &RedialCounter) -> u32 {
    let is_same = call.identity != 0 && call.identity == counted.identity;
    if is_same && call.separate < SAME_ATTEMPT { SAME_ATTEMPT } else { call.separate }
}

/// Counts a separate attempt of a blocked number and returns the exemption by its redial grant.
#[inline(always)]
fn redial<L: PolicyLookup>(lists: &mut L, call: &Call, now: u64, block: &PolicyMatch) -> Exemption {
    let number = call.number;
    if block.redial_attempts == 0 {
        return NO_EXEMPTION;
    }
    if is_granted(lists, number, now, block.epoch) {
        return REDIAL_GRANT;
    }
    let window = block.redial_window as u64 * SECOND;
    let mut state = RedialCounter {
        number,
        start: now,
        last: 0,
        epoch: block.epoch,
        count: 0,
        identity: 0,
        reserved: 0,
    };
    if let Some(found) = lists.redial(number)
        && found.number == number
        && found.epoch == block.epoch
        && found.count != 0
        && now.wrapping_sub(found.start) < window
    {
        let apart = separation(apart(call, &found), window, block.redial_attempts);
        if now.wrapping_sub(found.last) < apart {
            return NO_EXEMPTION;
        }
        state = found;
    }
    state.count += 1;
    state.last = now;
    state.identity = call.identity;
    let opens = state.count >= block.redial_attempts as u32;
    if opens {
        let until = now + block.redial_grant as u64 * SECOND;
        let grant = Grant { number, until, rule: block.rule, epoch: block.epoch, reserved: 0 };
        if !lists.open_grant(&grant) {
            return STATE_FULL;
        }
        // After the grant it begins again.
        state.count = 0;
    }
    if !lists.count_redial(&state) {
        return STATE_FULL;
    }
    // Equals `REDIAL_GRANT` or `NO_EXEMPTION`, without a branch.
    opens as Exemption
}

/// Returns whether a refused call would get no reply for want of a daemon. A block that wants silence gets it.
#[inline(always)]
fn is_unanswered<L: PolicyLookup>(lists: &L, call: &Call, now: u64, decision: &Decision) -> bool {
    (call.without_daemon > 1 || lists.is_answered_by_daemon())
        && !lists.has_daemon(now)
        && own_refusal(lists, decision.reason as u8, decision.number, decision.rule)
            != BLOCK_REFUSE_DROP
}

fn verdict_of(action: u8) -> Verdict {
    if action == Verdict::Drop as u8 { Verdict::Drop } else { Verdict::Pass }
}

/// Finds the entry for a number and, where there is one, for a second. A call is blocked only if both are, and
/// only observed if one of the blocks only observes.
#[inline(never)]
fn match_both<L: PolicyLookup>(lists: &L, call: &Call, now: u64, found: &mut PolicyMatch) {
    match_number(lists, call.number, now, found);
    if found.is_blocked() && call.second != Number::NONE {
        let mut other = PolicyMatch::passes(Reason::NotBlocked, 0);
        match_number(lists, call.second, now, &mut other);
        if other.is_blocked() {
            found.observe |= other.observe;
            found.second_epoch = other.epoch;
            found.second_redials = other.redial_attempts;
        } else {
            *found = other;
        }
    }
}

/// Finds the entry for a number: protected, then allowed, then blocked.
#[inline(never)]
fn match_number<L: PolicyLookup>(lists: &L, number: Number, now: u64, standing: &mut PolicyMatch) {
    let rule = protected(lists, number);
    if rule != 0 {
        *standing = PolicyMatch::passes(Reason::Protected, rule);
        return;
    }
    let rule = allowed_number(lists, number, now);
    if rule != 0 {
        *standing = PolicyMatch::passes(Reason::AllowedNumber, rule);
        return;
    }
    let rule = allowed_prefix(lists, number, now);
    if rule != 0 {
        *standing = PolicyMatch::passes(Reason::AllowedPrefix, rule);
        return;
    }
    let by_number = blocked_number(lists, number, now, standing);
    if by_number != Found::Live {
        let by_prefix = blocked_prefix(lists, number, now, standing);
        // A prefix block that is too short may be in the map; all others are shorter still.
        if by_prefix != Found::Live || standing.digits < lists.shortest_prefix() {
            let expired = by_number == Found::Expired || by_prefix == Found::Expired;
            let reason = if expired { Reason::BlockExpired } else { Reason::NotBlocked };
            *standing = PolicyMatch::passes(reason, 0);
        }
    }
}

/// The state of the block against a number.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Found {
    None = 0,
    Expired = 1,
    Live = 2,
}

/// Returns the rule that protects a number; 0: no entry.
#[inline(always)]
fn protected<L: PolicyLookup>(lists: &L, number: Number) -> u64 {
    match lists.protected(&PrefixKey::number(number)) {
        Some(entry) if covers(entry.number, number) => entry.rule,
        _ => lists.short_rule(number.count()),
    }
}

/// Returns the rule of the live allow for a number; 0: no entry.
#[inline(always)]
fn allowed_number<L: PolicyLookup>(lists: &L, number: Number, now: u64) -> u64 {
    match lists.allowed_number(number) {
        Some(allow) if allow.number == number && is_live(allow.expires, now) => allow.rule,
        _ => 0,
    }
}

/// Returns the rule of the longest live allow for a prefix of a number; 0: no entry.
#[inline(always)]
fn allowed_prefix<L: PolicyLookup>(lists: &L, number: Number, now: u64) -> u64 {
    let mut key = PrefixKey::number(number);
    let mut tries = 0;
    while tries <= DIGITS_MAX {
        let Some(allow) = lists.allowed_prefix(&key) else {
            break;
        };
        if covers(allow.number, number) && is_live(allow.expires, now) {
            return allow.rule;
        }
        // A shorter prefix may still be in force; after a whole number a prefix of as many digits.
        if tries == 0 {
            key.prefix_len = 4 * DIGITS_MAX;
        } else if !shorten(&mut key, allow.number) {
            break;
        }
        tries += 1;
    }
    0
}

/// Finds the live block against a number.
#[inline(always)]
fn blocked_number<L: PolicyLookup>(
    lists: &L,
    number: Number,
    now: u64,
    live: &mut PolicyMatch,
) -> Found {
    match lists.blocked_number(number) {
        Some(block) if block.number == number => {
            if !is_live(block.expires, now) {
                return Found::Expired;
            }
            *live = blocked(Reason::BlockedNumber, &block);
            Found::Live
        }
        _ => Found::None,
    }
}

/// Finds the longest live block against a prefix of a number.
#[inline(always)]
fn blocked_prefix<L: PolicyLookup>(
    lists: &L,
    number: Number,
    now: u64,
    live: &mut PolicyMatch,
) -> Found {
    let mut found = Found::None;
    let mut key = PrefixKey::number(number);
    let mut tries = 0;
    while tries < DIGITS_MAX {
        let Some(block) = lists.blocked_prefix(&key) else {
            break;
        };
        if covers(block.number, number) {
            if is_live(block.expires, now) {
                *live = blocked(Reason::BlockedPrefix, &block);
                return Found::Live;
            }
            found = Found::Expired;
        }
        if !shorten(&mut key, block.number) {
            break;
        }
        tries += 1;
    }
    found
}

fn blocked(reason: Reason, block: &Block) -> PolicyMatch {
    PolicyMatch {
        reason,
        rule: block.rule,
        action: block.action,
        digits: prefix_len(block.number) as u8,
        observe: block.flags & BLOCK_OBSERVE != 0,
        redial_attempts: if block.flags & BLOCK_NO_REDIAL == 0 { block.redial_attempts } else { 0 },
        redial_window: block.redial_window,
        redial_grant: block.redial_grant,
        epoch: block.epoch,
        second_epoch: 0,
        second_redials: 0,
    }
}

/// Returns whether an entry has not ended; an expiry of 0 never ends.
#[must_use]
pub fn is_live(expires: u64, now: u64) -> bool {
    expires == 0 || now < expires
}

/// Returns whether an entry of a trie is this number or a prefix of it.
fn covers(entry: Number, number: Number) -> bool {
    // A local number carries its mark as first nibble, so no E.164 prefix covers it.
    crate::number::Digits(number.0).starts_with(crate::number::Digits(entry.0))
}

#[cfg(test)]
mod tests;
