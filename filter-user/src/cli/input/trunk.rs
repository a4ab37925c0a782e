//! A trunk that an option names.

use crate::exit::{Exit, Failure};
use crate::model::policy::Policy;

/// Makes every packet of a capture one of the trunk that `--trunk` names.
///
/// # Errors
/// `Usage` if the policy has no such trunk.
pub(crate) fn assume(policy: &mut Policy, name: &str) -> Result<(), Failure> {
    policy.assume_trunk(name).map_err(|names| {
        let message =
            format!("--trunk: {name:?} is not configured: write one of {}", names.join(", "));
        Failure::new(Exit::Usage, message)
    })
}
