//! TODO-DOC

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where the daemon listens unless the configuration says otherwise.
pub const SOCKET: &str = "/run/palang/palang.sock";

/// A request may say until when its answer is waited for, in nanoseconds of `CLOCK_BOOTTIME`. One
/// that is read later is not done: whoever asked has been told that nobody answers.
pub const DEADLINE: &str = "palang-deadline";

/// Longest time that the override can be set for.
pub const OVERRIDE_MAX: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);

/// What the API refuses to do, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What kind of problem; decides the exit code of the CLI.
    pub kind: ProblemKind,
    /// What was wrong, where, and what to do.
    pub message: String,
}

/// Kinds of problems, with their HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// 400: the request says something that cannot be. CLI: exit 2.
    Usage,
    /// 403: a permission is missing, or the number is protected or allowed. CLI: exit 5.
    Refused,
    /// 404: what was asked for is not there. CLI: exit 4.
    NotFound,
    /// 409: a change of the same thing that was accepted later is in force; this one is not. CLI:
    /// exit 1.
    Superseded,
    /// 500: a system call failed. CLI: exit 1.
    Failed,
    /// 503: the store takes no writes; the data path goes on. CLI: exit 1.
    Store,
    /// 507: a map is full; nothing was stored. CLI: exit 1.
    Full,
    /// 429: this user has too many such requests under way; nothing was done. CLI: exit 1.
    Busy,
    /// 503: all users together have too many such requests under way; nothing was done. CLI: exit 1.
    Overloaded,
}
