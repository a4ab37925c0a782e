//! Checks whether this machine forwards packets: the second look meets only packets for its own sockets.

use std::io;

use crate::bringup::doctor::check::Check;

/// Whether the kernel forwards packets of IPv4, and of IPv6.
const SETTINGS: [(&str, &str); 2] = [
    ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
    ("net.ipv6.conf.all.forwarding", "/proc/sys/net/ipv6/conf/all/forwarding"),
];

/// Returns a finding if the machine forwards packets. `read` returns the text of a file.
pub(crate) fn check(read: impl Fn(&str) -> io::Result<String>) -> Option<Check> {
    let is_on = |path: &str| read(path).is_ok_and(|text| !matches!(text.trim(), "0" | ""));
    let on: Vec<_> =
        SETTINGS.iter().filter(|(_, path)| is_on(path)).map(|(name, _)| *name).collect();
    if on.is_empty() {
        return None;
    }
    let finding = format!(
        "this machine forwards packets ({}): calls in fragments that it only forwards pass unread, because the second \
         look meets packets for its own sockets only",
        on.join(", ")
    );
    let mend = format!(
        "if it forwards no calls, nothing needs to be done; otherwise run the SIP server or a proxy here. To switch it off: \
         sysctl -w {}=0",
        on.join("=0 ")
    );
    Some(Check::warn("forwarding", finding, mend))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bringup::doctor::check::State;

    #[test]
    fn machine_that_forwards_is_told_that_fragments_pass() {
        let found = |v4: &'static str, v6: &'static str| {
            check(|path| match path.contains("ipv4") {
                true => Ok(v4.to_owned()),
                false if v6.is_empty() => Err(io::ErrorKind::NotFound.into()),
                false => Ok(v6.to_owned()),
            })
        };
        assert_eq!(found("0\n", "0\n"), None);
        assert_eq!(found("0\n", ""), None);
        let check = found("1\n", "2\n").unwrap();
        assert_eq!((check.check, check.state), ("forwarding", State::Warn));
        assert!(check.finding.contains("calls in fragments that it only forwards"), "{check:?}");
        let mend = check.mend.unwrap();
        assert!(mend.ends_with("net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0"), "{mend}");
        assert!(found("0\n", "1\n").unwrap().finding.contains("(net.ipv6"));
    }
}
