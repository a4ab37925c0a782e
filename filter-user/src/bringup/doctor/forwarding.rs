//! Checks whether calls in fragments are judged that this machine only forwards: the second look meets packets for its
//! own sockets only.

use std::path::Path;

use crate::bringup::doctor::check::Check;
use crate::datapath::{Error, Pins, try_forwarded};
use crate::sys::{forwarding, kernels};

/// Returns a check if the machine forwards packets.
pub(crate) fn check(pins: &Path) -> Option<Check> {
    let on = forwarding::settings_that_are_on(|path| std::fs::read_to_string(path));
    if on.is_empty() {
        return None;
    }
    let attached = Pins::new(pins).has_forwarded();
    Some(found(&on, attached, if attached { Ok(()) } else { try_forwarded().map(drop) }))
}

/// Returns the check of a machine that forwards packets by these settings. `can`: whether its kernel takes the program.
fn found(on: &[&str], attached: bool, can: Result<(), Error>) -> Check {
    let forwards = format!("this machine forwards packets ({})", on.join(", "));
    let ok = |finding: &str| Check::ok("forwarding", format!("{forwards}, {finding}"));
    match can {
        Ok(()) if attached => ok("and judges the calls in fragments among them"),
        Ok(()) => ok("and the daemon will judge the calls in fragments among them"),
        Err(error) => {
            let finding = format!(
                "{forwards}: calls in fragments that it only forwards pass unread: {error}"
            );
            let mend = format!(
                "nothing, if it forwards no calls; otherwise use Linux 6.6 or newer (this is {}), or run the SIP server here. \
                 To switch it off: sysctl -w {}=0",
                kernels::running(),
                on.join("=0 ")
            );
            Check::warn("forwarding", finding, mend)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bringup::doctor::check::State;

    #[test]
    fn kernel_that_cannot_judge_forwarded_fragments_is_a_warning() {
        let on = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];
        let check = found(&on, false, Err(Error::Forwarded("no function".into())));
        assert_eq!((check.check, check.state), ("forwarding", State::Warn));
        assert!(check.finding.contains("that it only forwards pass unread"), "{check:?}");
        let mend = check.mend.unwrap();
        assert!(mend.ends_with("net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0"), "{mend}");
        assert_eq!(found(&on[..1], true, Ok(())).state, State::Ok);
        assert!(found(&on[..1], false, Ok(())).finding.contains("the daemon will judge"));
    }
}
