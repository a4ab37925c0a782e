//! The result of one check of the doctor.

use serde::Serialize;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// The gate works, but needs attention.
    Warn,
    /// The gate does not work, or not as configured.
    Fail,
}

impl State {
    /// Returns the name in the CLI and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "fail",
        }
    }
}

/// One check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Name of the check: `kernel`, `store`, `lro`.
    pub check: &'static str,
    /// The interface that was checked; null for the machine.
    pub interface: Option<String>,
    /// The result.
    pub state: State,
    /// The finding.
    pub finding: String,
    /// The fix, as a command if there is one; null if nothing needs a fix.
    pub mend: Option<String>,
}

impl Check {
    pub(crate) fn ok(check: &'static str, finding: impl Into<String>) -> Check {
        Check { check, interface: None, state: State::Ok, finding: finding.into(), mend: None }
    }

    pub(crate) fn warn(
        check: &'static str,
        finding: impl Into<String>,
        mend: impl Into<String>,
    ) -> Check {
        let mend = Some(mend.into());
        Check { state: State::Warn, mend, ..Check::ok(check, finding) }
    }

    pub(crate) fn fail(
        check: &'static str,
        finding: impl Into<String>,
        mend: impl Into<String>,
    ) -> Check {
        Check { state: State::Fail, ..Check::warn(check, finding, mend) }
    }
}
