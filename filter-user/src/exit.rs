//! Exit codes: a contract with scripts.

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// The command line, or a file that it names, says something that cannot be.
    Usage = 2,
    /// The daemon cannot be reached.
    NoDaemon = 3,
    /// What was asked for is not there.
    NotFound = 4,
    /// Refused: a permission is missing.
    Refused = 5,
    /// Partly done: what could be done was, and the message tells what not.
    Partly = 6,
    /// `check`: a call of this number would be refused now.
    WouldBeRefused = 10,
    /// `selftest`: all works, but blocked callers are only observed.
    Observing = 11,
    /// `selftest`: all works, but the override is on.
    Overridden = 12,
    /// `selftest`: a blocked caller would not be refused, or an innocent one would.
    Broken = 13,
    /// `daemon`: a part of it has ended, which never should (EX_SOFTWARE, sysexits(3)). The unit
    /// starts it again.
    Internal = 70,
}

/// Why a command did not end as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What was wrong, where, and what to do.
    pub message: String,
}

impl Failure {
    /// A failure with an exit code.
    pub fn new(exit: Exit, message: impl std::fmt::Display) -> Failure {
        Failure { exit, message: message.to_string() }
    }
}

impl From<crate::datapath::Error> for Failure {
    fn from(error: crate::datapath::Error) -> Failure {
        let refused = matches!(error, crate::datapath::Error::Permission);
        Failure::new(if refused { Exit::Refused } else { Exit::Failed }, error)
    }
}
