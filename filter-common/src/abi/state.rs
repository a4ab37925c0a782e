//! The memory of the program about callers: attempts, redial grants, call-back grace.

use crate::number::Number;

/// One attempt: a number and a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct AttemptKey {
    /// The caller number.
    pub number: Number,
    /// Hash of the Call-ID.
    pub call_id: u64,
}

/// The decision when an attempt was first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Attempt {
    /// The attempt that this entry is about; see [`Block::number`](crate::abi::Block).
    pub key: AttemptKey,
    /// When it was first seen.
    pub first: u64,
    /// The rule of the first verdict; 0: none.
    pub rule: u64,
    /// First [`Verdict`](crate::abi::Verdict) as number.
    pub verdict: u8,
    /// The first verdict without observe or override, as number.
    pub policy_verdict: u8,
    /// Its [`Reason`](crate::reason::Reason) as number.
    pub reason: u8,
    /// Zero.
    pub reserved: u8,
    /// How often it was seen again. CPUs that count at the same time may lose one.
    pub repeats: u32,
}

/// How often a blocked number called lately: towards a redial grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RedialCounter {
    /// The number that this entry is about; see [`Block::number`](crate::abi::Block).
    pub number: Number,
    /// When the first attempt of this window came.
    pub start: u64,
    /// When the last attempt came that counted.
    pub last: u64,
    /// Epoch of the block that it was counted for.
    pub epoch: u32,
    /// Separate attempts in this window.
    pub count: u32,
    /// [`Event::attempt_identity`](crate::abi::Event) of the last attempt that counted.
    pub identity: u32,
    /// Zero.
    pub reserved: u32,
}

/// A redial grant: a blocked number that is let through for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Grant {
    /// The number that this entry is about; see [`Block::number`](crate::abi::Block).
    pub number: Number,
    /// Ends at this time.
    pub until: u64,
    /// The block that it is an exception from.
    pub rule: u64,
    /// Epoch of that block.
    pub epoch: u32,
    /// Zero.
    pub reserved: u32,
}

/// Call-back grace: a number that the centre called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Grace {
    /// The number that this entry is about; see [`Block::number`](crate::abi::Block).
    pub number: Number,
    /// Ends at this time.
    pub until: u64,
}
