//! The outcome of the tests, read from a log.

use std::path::PathBuf;

/// How the tests begin the line about a program: its name, then [`Load`].
const VERIFIED: &str = "verified instructions of ";

/// The programs with the full reader and with the slim one, as the tests name them. Of each two, the
/// second is for kernels without `xdp.frags` (before Linux 5.18).
const FULL: [&str; 2] = ["palang", "palang_no_frags"];
const SLIM: [&str; 2] = ["palang_slim", "palang_slim_no_frags"];

/// The outcome of loading a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    /// The kernel took it after the verifier walked this number of instructions.
    Verified(u32),
    /// The kernel took it and did not report a number.
    NotReported,
    /// The kernel did not take it, and why.
    Refused(String),
}

/// The tests on one kernel.
pub struct Outcome {
    /// The kernel's name of itself: `uname -r`.
    pub kernel: String,
    /// Where the kernel comes from.
    pub origin: String,
    pub log: PathBuf,
    pub programs: Vec<(String, Load)>,
    /// The exit code of the tests, which a machine prints before it goes off.
    pub exit: Option<i32>,
    in_time: bool,
    passed: u32,
    failed: u32,
}

impl Outcome {
    /// Reads a log; `kernel` is its name until the log says what the kernel calls itself.
    pub fn new(kernel: &str, origin: &str, log: PathBuf, text: &str, in_time: bool) -> Self {
        let mut outcome = Self {
            kernel: kernel.to_owned(),
            origin: origin.to_owned(),
            log,
            programs: Vec::new(),
            exit: None,
            in_time,
            passed: 0,
            failed: 0,
        };
        for line in text.lines().map(str::trim) {
            // The test harness may have printed "test … ... " on the same line.
            if let Some((_, program)) = line.split_once(VERIFIED) {
                outcome.programs.extend(load(program));
            } else if let Some(release) = line.strip_prefix("PALANG-KERNEL=") {
                release.clone_into(&mut outcome.kernel);
            } else if let Some(exit) = line.strip_prefix("PALANG-EXIT=") {
                outcome.exit = exit.parse().ok();
            } else if let Some((_, counts)) = line.split_once("test result: ") {
                // There may be several runs of them.
                outcome.passed += number_before(counts, " passed");
                outcome.failed += number_before(counts, " failed");
            }
        }
        outcome
    }

    /// Returns what became of loading a program; `None`: no test tried.
    pub fn load(&self, program: &str) -> Option<&Load> {
        let mut loads = self.programs.iter().filter(|(name, _)| name == program);
        loads.next().map(|(_, load)| load)
    }

    /// Returns what is wrong; `None`: tests ran, all passed, and both readers load.
    pub fn failure(&self) -> Option<String> {
        let Self { passed, failed, .. } = self;
        let loads = |programs: [&str; 2]| {
            programs
                .iter()
                .any(|program| !matches!(self.load(program), None | Some(Load::Refused(_))))
        };
        let failure = match self.exit {
            _ if !self.in_time => "time was up".into(),
            None => "ended too early".into(),
            Some(0) if *passed == 0 => "no test ran".into(),
            Some(_) if !loads(FULL) && loads(SLIM) => "only the slim program loads".into(),
            Some(_) if !loads(FULL) => "no program loads".into(),
            Some(_) if !loads(SLIM) => "the slim program does not load".into(),
            Some(_) if *failed > 0 => format!("{failed} of {} tests", passed + failed),
            Some(0) => return None,
            Some(exit) => format!("exit code {exit}"),
        };
        Some(failure)
    }

    /// Returns the outcome in a few words.
    pub fn result(&self) -> String {
        match self.failure() {
            Some(failure) => format!("FAILED: {failure}"),
            None => format!("ok: {} passed", self.passed),
        }
    }
}

/// Reads "palang: 423120 of 480000", "palang: refused (EINVAL)", "palang: not reported".
fn load(text: &str) -> Option<(String, Load)> {
    let (program, load) = text.split_once(": ")?;
    let load = match load.strip_prefix("refused") {
        Some(why) => Load::Refused(why.trim_matches([' ', '(', ')']).to_owned()),
        None if load.starts_with("not reported") => Load::NotReported,
        None => Load::Verified(load.split(' ').next()?.parse().ok()?),
    };
    Some((program.to_owned(), load))
}

/// Returns the 12 of "ok. 12 passed; 0 failed".
fn number_before(text: &str, word: &str) -> u32 {
    let before = text.split(word).next().unwrap_or_default();
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Load, Outcome};

    const LOADS: &str = "verified instructions of palang: 12 of 480000\n\
                         verified instructions of palang_slim: 5 of 480000\n";
    const PASSED: &str = "test result: ok. 12 passed; 0 failed\nPALANG-EXIT=0\n";

    fn outcome(text: &str) -> Outcome {
        Outcome::new("6.1", "here", "6.1.log".into(), text, true)
    }

    #[test]
    fn passed_tests_are_good() {
        let log = "PALANG-KERNEL=6.1.0-57-cloud-amd64\r\n\
                   test a ... verified instructions of palang: 12 of 480000\r\nok\r\n\
                   verified instructions of palang_slim: not reported\r\n\
                   verified instructions of palang_no_frags: refused (EINVAL: no flag)\r\n\
                   test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured\r\n\
                   PALANG-EXIT=0\r\n";
        let outcome = outcome(log);
        assert_eq!(outcome.failure(), None);
        assert_eq!(outcome.result(), "ok: 12 passed");
        assert_eq!(outcome.kernel, "6.1.0-57-cloud-amd64");
        assert_eq!(outcome.load("palang"), Some(&Load::Verified(12)));
        assert_eq!(outcome.load("palang_slim"), Some(&Load::NotReported));
        let refused = Load::Refused("EINVAL: no flag".into());
        assert_eq!(outcome.load("palang_no_frags"), Some(&refused));
        assert_eq!(outcome.load("palang_egress"), None);
    }

    #[test]
    fn a_kernel_takes_a_full_program_and_a_slim_one() {
        let lines = |full: &str, slim: &str| {
            let line = |program, load| format!("verified instructions of {program}: {load}\n");
            format!(
                "{}{}{PASSED}",
                line("palang_no_frags", full),
                line("palang_slim_no_frags", slim)
            )
        };
        assert_eq!(outcome(&lines("1 of 2", "not reported")).failure(), None);
        for (full, slim, failure) in [
            ("refused (E2BIG)", "1 of 2", "only the slim program loads"),
            ("1 of 2", "refused (E2BIG)", "the slim program does not load"),
            ("refused (E2BIG)", "refused (E2BIG)", "no program loads"),
            ("many", "few", "no program loads"),
        ] {
            assert_eq!(outcome(&lines(full, slim)).failure().as_deref(), Some(failure));
        }
        assert_eq!(outcome(PASSED).failure().as_deref(), Some("no program loads"));
    }

    #[test]
    fn other_outcomes_are_bad() {
        for (log, failure) in [
            ("", "ended too early"),
            ("Kernel panic - not syncing", "ended too early"),
            ("test result: ok. 12 passed; 0 failed", "ended too early"),
            ("test result: ok. 0 passed; 0 failed\nPALANG-EXIT=0", "no test ran"),
            ("test result: FAILED. 3 passed; 1 failed\nPALANG-EXIT=101", "1 of 4 tests"),
            (
                "test result: FAILED. 3 passed; 1 failed\n\
                 test result: ok. 4 passed; 0 failed\nPALANG-EXIT=101",
                "1 of 8 tests",
            ),
            ("PALANG-EXIT=139", "exit code 139"),
        ] {
            let log = format!("{LOADS}{log}");
            assert_eq!(outcome(&log).failure().as_deref(), Some(failure), "{log}");
        }
        let late = Outcome::new("6.1", "here", "l".into(), &format!("{LOADS}{PASSED}"), false);
        assert_eq!(late.result(), "FAILED: time was up");
    }
}
