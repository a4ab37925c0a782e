//! The answer to a request that the daemon refuses.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where the daemon listens unless the configuration says otherwise.
pub const SOCKET: &str = "/run/palang/palang.sock";

/// Header with the time until which the client waits, in nanoseconds of `CLOCK_BOOTTIME`. The daemon
/// does not carry out a request that it reads later: the client has already reported no answer.
pub const DEADLINE: &str = "palang-deadline";

/// Header with the name of the user for whom root sends a request, such as the user who called sudo. The audit has it
/// as the author. From another user than root it has no effect.
pub const AUTHOR: &str = "palang-author";

/// Longest time that the override can be set for.
pub const OVERRIDE_MAX: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);

/// The reason why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The kind; decides the exit code of the CLI.
    pub kind: ProblemKind,
    /// The cause, its place, and what to do.
    pub message: String,
}

/// Kinds of problems, with their HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// 400: the request is not valid. CLI: exit 2.
    Usage,
    /// 403: a permission is missing, or the number is protected or allowed. CLI: exit 5.
    Refused,
    /// 404: the requested item does not exist. CLI: exit 4.
    NotFound,
    /// 409: a later change of this item is in force; this one is not. CLI: exit 1.
    Superseded,
    /// 500: a system call failed. CLI: exit 1.
    Failed,
    /// 503: the store cannot be written; the filter continues. CLI: exit 1.
    Store,
    /// 507: a map is full; nothing was stored. CLI: exit 1.
    Full,
    /// 429: this user has too many such requests under way; nothing was done. CLI: exit 1.
    Busy,
    /// 503: all users together have too many such requests under way; nothing was done. CLI: exit 1.
    Overloaded,
}
