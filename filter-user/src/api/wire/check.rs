//! The outcome of a call, and the rule that decides.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/check/{number}`: the outcome of a call from this number now, by the kernel's own maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// The number.
    pub number: String,
    /// `pass` or `drop`.
    pub verdict: String,
    /// The verdict without observe and override.
    pub policy_verdict: String,
    /// The reason, from the closed list.
    pub reason: String,
    /// The rule that decided, as people know it: `block 62812*`; null: none.
    pub rule: Option<String>,
    /// Mode in force: `observe` or `enforce`.
    pub mode: String,
    /// End of the override, until which nothing is refused; null: no override.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub override_until: Option<Timestamp>,
    /// The exception that lets this blocked number through for a while; null: none.
    #[serde(default)]
    pub granted: Option<Granted>,
    /// The count of separate attempts after a call now; null where none is counted.
    #[serde(default)]
    pub next_attempt: Option<NextAttempt>,
}

/// An exception from a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Granted {
    /// `redial`: the caller called repeatedly.
    pub kind: String,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
}

/// The distance of a blocked number from a redial grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NextAttempt {
    /// The number of the next attempt, from 1. A call within 5 s of the last one belongs to that attempt,
    /// or within the time `separate` of its trunk.
    pub attempt: u32,
    /// The attempt that passes and opens the grant.
    pub of: u32,
}

/// `GET /v1/explain/{number}`: the rule that decides, its author and end, and the entries of the
/// kernel's maps.
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
    /// The entry in the kernel's map, in words; null: none.
    pub kernel: Option<String>,
    /// The decision in the store: author, reason, time; null: none.
    pub store: Option<String>,
    /// Whether this step decided.
    pub decides: bool,
}
