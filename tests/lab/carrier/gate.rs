//! A gate that a carrier sends calls to.

use super::super::{Daemon, Lab, TRUNK, foreign_xdp};

/// The blocked caller of [`gate`].
pub const BLOCKED: &str = "+6281200000001";

/// Starts a gate that enforces, with one trunk, whose keys are `keys`, and one block, added with `options`.
///
/// # Panics
/// When it does not start, or a command fails.
#[must_use]
pub fn gate<'a>(lab: &'a Lab, keys: &str, options: &[&str]) -> Daemon<'a> {
    let trunk = format!("[[trunk]]\nname = \"carrier\"\nsources = [\"{TRUNK}\"]\n{keys}\n");
    let daemon = Daemon::start(lab, &trunk);
    foreign_xdp::wake_trunk(lab, daemon.pins());
    let block = ["block", "add", BLOCKED, "--for", "1h", "--reason", "a test"];
    for arguments in [&["mode", "enforce"][..], &[&block[..], options].concat()] {
        let output = daemon.cli(arguments);
        assert_eq!(output.code, 0, "{arguments:?}: {}", output.stderr);
    }
    daemon
}
