//! Whether this machine forwards packets.

use std::fs;
use std::io;

/// Whether the kernel forwards packets of IPv4, and of IPv6.
const SETTINGS: [(&str, &str); 2] = [
    ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
    ("net.ipv6.conf.all.forwarding", "/proc/sys/net/ipv6/conf/all/forwarding"),
];

/// Returns whether this network namespace forwards packets.
#[must_use]
pub fn is_on() -> bool {
    !settings_that_are_on(|path| fs::read_to_string(path)).is_empty()
}

/// Returns the settings by which the kernel forwards packets. `read` returns the text of a file.
pub fn settings_that_are_on(read: impl Fn(&str) -> io::Result<String>) -> Vec<&'static str> {
    let is_on = |path: &str| read(path).is_ok_and(|text| !matches!(text.trim(), "0" | ""));
    SETTINGS.iter().filter(|(_, path)| is_on(path)).map(|(name, _)| *name).collect()
}
