//! TODO-DOC

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/check/{number}`: what a call from this number gets now, by the kernel's own maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// The number.
    pub number: String,
    /// `pass` or `drop`.
    pub verdict: String,
    /// The verdict without observe and override.
    pub would: String,
    /// The reason, from the closed list.
    pub reason: String,
    /// The rule that decided, as people know it: `block 62812*`; null: none.
    pub rule: Option<String>,
    /// Mode in force: `observe` or `enforce`.
    pub mode: String,
    /// Until when nothing is refused; null: no override.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub override_until: Option<Timestamp>,
    /// What lets this blocked number through for a while; null: nothing.
    #[serde(default)]
    pub granted: Option<Granted>,
    /// Which separate attempt a call now would be; null where none is counted.
    #[serde(default)]
    pub next_attempt: Option<NextAttempt>,
}

/// An exception from a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Granted {
    /// `redial`: the caller called again and again.
    pub kind: String,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
}

/// How near a blocked number is to a redial grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NextAttempt {
    /// The attempt that a call now would be, from 1; within 5 s of the last it would be the same.
    pub attempt: u32,
    /// The attempt that passes and opens the grant.
    pub of: u32,
}

/// `GET /v1/explain/{number}`: which rule decides, who set it, when it ends, and what the
/// kernel's maps hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explain {
    /// The outcome.
    pub check: Check,
    /// The steps of the decision in the kernel's order; the one that decided has `decides`.
    pub steps: Vec<Step>,
}

/// A step of the decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// `override`, `protected`, `allowed-number`, `allowed-prefix`, `blocked-number`,
    /// `blocked-prefix`, `redial-grant`, `mode`.
    pub step: String,
    /// What the kernel's map holds, in words; null: nothing.
    pub kernel: Option<String>,
    /// What the store says of that: who, why, when; null: nothing.
    pub store: Option<String>,
    /// Whether this step decided.
    pub decides: bool,
}
