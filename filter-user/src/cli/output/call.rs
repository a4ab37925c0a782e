//! Columns of a call record, for `palang calls` and `palang monitor`.

use crate::api::wire::Call;
use crate::cli::output::{clean, known};

/// Characters of an unread header field that a table shows.
const UNREAD_SHOWN: usize = 40;

/// Returns the caller, or the beginning of the header field that could not be read.
pub(crate) fn caller(call: &Call) -> String {
    let Some(unread) = call.unread.as_deref().filter(|_| call.caller.is_none()) else {
        return known(call.caller.as_ref());
    };
    let shown: String = clean(unread).chars().take(UNREAD_SHOWN).collect();
    let rest = if unread.chars().count() > UNREAD_SHOWN { "…" } else { "" };
    format!("?{shown}{rest}")
}

/// Returns the reason, with the code of the reply, or with the policy verdict if observe or the override
/// changed it.
pub(crate) fn reason(call: &Call) -> String {
    if let Some(code) = call.reply {
        return format!("{}, answered {code}", call.reason);
    }
    if call.policy_verdict == call.verdict {
        return call.reason.clone();
    }
    format!("{}, would {}", call.reason, call.policy_verdict)
}
