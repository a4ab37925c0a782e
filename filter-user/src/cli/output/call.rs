//! Columns of a call record, for `palang calls` and `palang monitor`.

use crate::api::wire::Call;

/// Returns the reason, and the policy verdict if observe or the override changed it.
pub(crate) fn reason(call: &Call) -> String {
    if call.policy_verdict == call.verdict {
        return call.reason.clone();
    }
    format!("{}, would {}", call.reason, call.policy_verdict)
}
