//! What a log says about the tests.

use std::path::PathBuf;

/// How many verified instructions a kernel counted, as the tests print it.
const VERIFIED: &str = "verified instructions";

/// The tests on one kernel.
pub struct Outcome {
    pub kernel: String,
    pub log: PathBuf,
    /// The lines about [`VERIFIED`] instructions.
    pub verified: Vec<String>,
    /// The exit code of the tests, which a machine prints before it goes off.
    pub exit: Option<i32>,
    in_time: bool,
    passed: u32,
    failed: u32,
}

impl Outcome {
    /// Reads a log.
    pub fn new(kernel: String, log: PathBuf, text: &str, in_time: bool) -> Self {
        let mut outcome =
            Self { kernel, log, verified: Vec::new(), in_time, exit: None, passed: 0, failed: 0 };
        for line in text.lines().map(str::trim) {
            // The test harness may have printed "test … ... " on the same line.
            if let Some(at) = line.find(VERIFIED) {
                outcome.verified.push(line[at..].to_owned());
            } else if let Some(exit) = line.strip_prefix("PALANG-EXIT=") {
                outcome.exit = exit.parse().ok();
            } else if let Some((_, counts)) = line.split_once("test result: ") {
                outcome.passed = number_before(counts, " passed");
                outcome.failed = number_before(counts, " failed");
            }
        }
        outcome
    }

    /// Whether tests ran, and all passed.
    pub fn is_good(&self) -> bool {
        self.in_time && self.exit == Some(0) && self.failed == 0 && self.passed > 0
    }

    /// For the table.
    pub fn result(&self) -> String {
        let Self { passed, failed, .. } = self;
        match self.exit {
            _ if !self.in_time => "FAILED: time was up".into(),
            None => "FAILED: ended too early".into(),
            Some(_) if *failed > 0 => format!("FAILED: {failed} of {}", passed + failed),
            Some(0) if *passed == 0 => "FAILED: no test ran".into(),
            Some(0) => format!("ok: {passed} passed"),
            Some(exit) => format!("FAILED: exit code {exit}"),
        }
    }
}

/// The 12 of "ok. 12 passed; 0 failed".
fn number_before(text: &str, word: &str) -> u32 {
    let before = text.split(word).next().unwrap_or_default();
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    fn outcome(text: &str) -> Outcome {
        Outcome::new("6.1".into(), "6.1.log".into(), text, true)
    }

    #[test]
    fn passed_tests_are_good() {
        let log = "test a ... verified instructions 6.1: 12\r\nok\r\n\
                   test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured\r\n\
                   PALANG-EXIT=0\r\n";
        let outcome = outcome(log);
        assert!(outcome.is_good());
        assert_eq!(outcome.result(), "ok: 12 passed");
        assert_eq!(outcome.verified, ["verified instructions 6.1: 12"]);
    }

    #[test]
    fn everything_else_is_bad() {
        for log in [
            "",
            "Kernel panic - not syncing",
            "test result: ok. 12 passed; 0 failed", // and then nothing more
            "test result: ok. 0 passed; 0 failed\nPALANG-EXIT=0",
            "test result: FAILED. 3 passed; 1 failed\nPALANG-EXIT=101",
            "PALANG-EXIT=139",
        ] {
            let outcome = outcome(log);
            assert!(!outcome.is_good(), "{log}");
            assert!(outcome.result().starts_with("FAILED"), "{log}");
        }
        assert!(!Outcome::new("6.1".into(), "l".into(), "", false).is_good());
    }
}
