//! Exit codes. They are a contract with scripts.

/// Exit code of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Success.
    Done = 0,
    /// A failure without a code of its own.
    Failed = 1,
    /// The command line, or a file that it names, is not valid.
    Usage = 2,
    /// The daemon cannot be reached.
    NoDaemon = 3,
    /// The requested item does not exist.
    NotFound = 4,
    /// Refused: a permission or a condition is missing.
    Refused = 5,
    /// Partly done; the message says what was not done.
    Partly = 6,
    /// `check`: a call from this number would be refused now.
    WouldBeRefused = 10,
    /// `selftest`: the filter works, but blocked callers are only observed.
    Observing = 11,
    /// `selftest`: the filter works, but the override is on.
    Overridden = 12,
    /// `selftest`: a blocked caller would not be refused, or another caller would be.
    Broken = 13,
    /// `status --exit-code`: amber.
    Amber = 20,
    /// `status --exit-code`: red.
    Red = 21,
    /// `daemon`: a part of it has ended, which never should (EX_SOFTWARE, sysexits(3)). The unit
    /// starts it again.
    Internal = 70,
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// Message: the failure, its cause, and what to do.
    pub message: String,
}

impl Failure {
    /// Creates a failure with an exit code.
    pub fn new(exit: Exit, message: impl std::fmt::Display) -> Failure {
        Failure { exit, message: message.to_string() }
    }
}

/// Formats an error and its causes, for errors whose texts lack their causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
