//! A number for each of the two rings in which the kernel reports attempts.

use std::ops::AddAssign;

use filter_common::abi::Verdict;
use filter_common::reason::Reason;
use serde::{Deserialize, Serialize};

/// Two numbers of attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerRing {
    /// Refusals, and attempts that a redial grant let through.
    pub refused: u64,
    /// All other attempts.
    pub passed: u64,
}

/// Returns whether the kernel reports an attempt in the ring of refusals, which also has redial grants.
#[must_use]
pub fn is_in_ring_of_refusals(verdict: u8, reason: u8) -> bool {
    verdict != Verdict::Pass as u8 || reason == Reason::RedialGrant as u8
}

impl PerRing {
    /// Adds attempts to the ring of refusals, or to the other.
    pub fn add(&mut self, is_refusal: bool, attempts: u64) {
        let ring = if is_refusal { &mut self.refused } else { &mut self.passed };
        *ring = ring.saturating_add(attempts);
    }

    /// Subtracts others, down to 0.
    #[must_use]
    pub fn without(self, others: PerRing) -> PerRing {
        PerRing {
            refused: self.refused.saturating_sub(others.refused),
            passed: self.passed.saturating_sub(others.passed),
        }
    }
}

impl AddAssign for PerRing {
    fn add_assign(&mut self, other: PerRing) {
        self.add(true, other.refused);
        self.add(false, other.passed);
    }
}
