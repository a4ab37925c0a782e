//! The result of a check.

use std::fmt;

/// A rule that a file breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Name of the check.
    pub check: &'static str,
    /// File.
    pub path: String,
    /// Line, from 1.
    pub line: usize,
    /// The offence.
    pub what: String,
    /// How to mend it.
    pub advice: String,
    /// How much it counts in the baseline: 1, or for a long file the lines above the limit.
    pub weight: usize,
}

impl Finding {
    /// Returns a finding that counts once.
    pub fn new(
        check: &'static str,
        path: &str,
        line: usize,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        let (what, advice) = (what.into(), advice.into());
        Finding { check, path: path.to_owned(), line, what, advice, weight: 1 }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { check, path, line, what, advice, .. } = self;
        write!(formatter, "{path}:{line}: [{check}] {what}; {advice}")
    }
}
