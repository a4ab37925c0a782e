//! A trunk that an option names.

use crate::exit::{Exit, Failure};
use crate::model::policy::Policy;

/// Returns the index of the trunk that `--trunk` names.
///
/// # Errors
/// `Usage` if the policy has no such trunk.
pub(crate) fn find(policy: &Policy, name: &str) -> Result<usize, Failure> {
    policy.trunks.iter().position(|trunk| trunk.name == name).ok_or_else(|| {
        let names: Vec<_> = policy.trunks.iter().map(|trunk| trunk.name.as_str()).collect();
        let message =
            format!("--trunk: {name:?} is not configured: write one of {}", names.join(", "));
        Failure::new(Exit::Usage, message)
    })
}
