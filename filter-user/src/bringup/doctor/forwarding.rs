//! Checks whether calls in fragments are judged that this machine only forwards: the second look meets packets for its
//! own sockets only.

use std::path::Path;

use crate::bringup::doctor::check::Check;
use crate::config::Config;
use crate::datapath::{Error, Pins, try_forwarded};
use crate::sys::{forwarding, kernels};

/// Interfaces that the finding names.
const NAMED: usize = 3;

/// Returns a check if the machine forwards packets.
pub(crate) fn check(pins: &Path, config: Option<&Config>) -> Option<Check> {
    let on = forwarding::settings_that_are_on();
    if on.is_empty() {
        return None;
    }
    let attached = Pins::new(pins).has_forwarded();
    let reassembles = config.is_some_and(|config| config.reassemble_forwarded);
    let can = if attached { Ok(()) } else { try_forwarded().map(drop) };
    Some(found(&on, can, attached, reassembles))
}

/// Returns the check of a machine that forwards packets by these settings. `can`: whether its kernel takes the program.
fn found(on: &[String], can: Result<(), Error>, attached: bool, reassembles: bool) -> Check {
    let mut named = on[..on.len().min(NAMED)].join(", ");
    if on.len() > NAMED {
        named += &format!(" and {} more", on.len() - NAMED);
    }
    let forwards = format!("this machine forwards packets ({named})");
    match can {
        Ok(()) if reassembles && !attached => Check::warn(
            "forwarding",
            format!(
                "{forwards}: the program that judges calls in fragments among them is not attached"
            ),
            "palang status says why; systemctl start palang",
        ),
        Ok(()) if reassembles => Check::ok(
            "forwarding",
            format!("{forwards}, and calls in fragments among them are judged"),
        ),
        Ok(()) => Check::warn(
            "forwarding",
            format!(
                "{forwards}: calls in fragments among them are judged only if connection tracking puts them together"
            ),
            "nothing, if it forwards no calls or a firewall tracks connections; otherwise reassemble_forwarded = true \
             (docs/reasons.md)",
        ),
        Err(error) => Check::warn(
            "forwarding",
            format!("{forwards}: calls in fragments that it only forwards pass unread: {error}"),
            format!(
                "nothing, if it forwards no calls; otherwise use Linux 6.6 or newer (this is {}), or run the SIP server here",
                kernels::running()
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bringup::doctor::check::State;

    #[test]
    fn forwarded_fragments_that_may_pass_are_a_warning() {
        let on: Vec<_> = (0..5).map(|at| format!("net.ipv4.conf.eth{at}.forwarding")).collect();
        let check = found(&on, Err(Error::Forwarded("no function".into())), false, true);
        assert_eq!((check.check, check.state), ("forwarding", State::Warn));
        assert!(check.finding.contains("eth2.forwarding and 2 more)"), "{check:?}");
        assert!(check.finding.contains("that it only forwards pass unread"), "{check:?}");
        assert_eq!(found(&on[..1], Ok(()), true, true).state, State::Ok);
        assert_eq!(found(&on[..1], Ok(()), false, true).state, State::Warn);
        let check = found(&on[..1], Ok(()), true, false);
        assert_eq!(check.state, State::Warn);
        assert!(check.finding.contains("only if connection tracking"), "{check:?}");
    }
}
