//! The runs of the test program.

use std::path::Path;

/// The program of the second run; the first run has the program that the kernel takes first. It has
/// the slim reader and no `xdp.frags`, so that every kernel can take it. `tests/common/gates.rs` reads the
/// variable.
const AGAIN: &str = "PALANG_TEST_PROGRAM=palang_slim_no_frags";

/// The tests that the second run leaves out. They name their programs themselves, so they would do the same
/// again.
const SAME_AGAIN: &str = "--skip programs:: --skip verifier_walks";

/// Two tests at once, but one on Linux 5.x, and there without the test that judges on two CPUs. Each test
/// run of an XDP program patches the kernel's dispatcher there. Another test run at the same moment ended
/// Linux 5.10.262 once ("int3" in `bpf_dispatcher_xdp_func`, under emulation).
const HOW: &str = "how=--test-threads=2\n\
    case $(uname -r) in 5.*) how='--test-threads=1 --skip two_cpus_at_once' ;; esac\n";

/// How many of the tests run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tests {
    /// All of them, and then those that take any program once more with the slim reader.
    All,
    /// Those of loading: does the verifier take the programs, with how many instructions.
    Loading,
}

impl Tests {
    /// Returns how long they may take on one kernel, for `timeout` from coreutils. Emulated on two busy
    /// CPUs, all of them took twenty minutes.
    pub fn time(self) -> &'static str {
        match self {
            Tests::All => "80m",
            Tests::Loading => "15m",
        }
    }

    /// Returns a script of the shell that runs them and exits with 0 when all passed.
    pub fn script(self, program: &Path) -> String {
        let run = format!("'{}' $how --nocapture", program.display());
        let runs = match self {
            Tests::All => {
                format!("{run} || status=$?\n{AGAIN} {run} {SAME_AGAIN} || status=$?\n")
            }
            Tests::Loading => format!("{run} loading:: || status=$?\n"),
        };
        format!("status=0\n{HOW}{runs}exit $status\n")
    }
}
