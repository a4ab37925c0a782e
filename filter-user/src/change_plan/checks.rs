//! Checks what all changes have in common: free texts and the end of a decision.

use jiff::{SignedDuration, Timestamp};

use crate::api::wire::{Problem, ProblemKind};
use crate::model::free_text;

/// Returns a problem of the kind [`ProblemKind::Usage`].
pub(crate) fn usage<T>(message: impl std::fmt::Display) -> Result<T, Problem> {
    Err(Problem { kind: ProblemKind::Usage, message: message.to_string() })
}

/// Checks a reason, comment or note.
///
/// # Errors
/// [`ProblemKind::Usage`] if the text is too long.
pub fn check_text(field: &str, text: &str) -> Result<(), Problem> {
    free_text::text(field, text).or_else(usage)
}

/// Checks the name of an incident, and returns it as it is stored.
///
/// # Errors
/// [`ProblemKind::Usage`] if it is empty or too long.
pub fn incident_id(text: &str) -> Result<String, Problem> {
    free_text::incident(text).or_else(usage)
}

/// Returns the end of a decision that is made `now`; `None`: it does not end.
///
/// # Errors
/// [`ProblemKind::Usage`] if not exactly one of the three is given, or the end is not in the future.
pub fn end(
    now: Timestamp,
    seconds: Option<u64>,
    expires: Option<Timestamp>,
    endless: bool,
) -> Result<Option<Timestamp>, Problem> {
    let end = match (seconds, expires, endless) {
        (None, None, true) => return Ok(None),
        (Some(seconds), None, false) => i64::try_from(seconds)
            .ok()
            .and_then(|seconds| now.checked_add(SignedDuration::from_secs(seconds)).ok()),
        (None, Some(expires), false) => Some(expires),
        (None, None, false) => {
            return usage("no end: every block ends; give a length, an end, or permanent");
        }
        _ => return usage("more than one end: give one of length, end or permanent"),
    };
    match end {
        Some(end) if end > now => Ok(Some(end)),
        Some(end) => usage(format!("{end} is over already: give an end in the future")),
        None => usage("the length is too long for a date: give a shorter one"),
    }
}
