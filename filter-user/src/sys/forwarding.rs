//! Whether this machine forwards packets.

use std::fs;
use std::path::Path;

/// Settings of the network of this process.
const NET: &str = "/proc/sys/net";
/// Per family and interface: whether the kernel forwards packets that come in there. `force_forwarding` is of IPv6
/// since Linux 6.17.
const NAMES: [&str; 2] = ["forwarding", "force_forwarding"];

/// Returns whether this network namespace forwards packets.
#[must_use]
pub fn is_on() -> bool {
    !settings_that_are_on().is_empty()
}

/// Returns the settings by which the kernel forwards packets.
#[must_use]
pub fn settings_that_are_on() -> Vec<String> {
    settings_below(Path::new(NET))
}

fn settings_below(net: &Path) -> Vec<String> {
    let mut on = Vec::new();
    for family in ["ipv4", "ipv6"] {
        let entries = fs::read_dir(net.join(family).join("conf")).into_iter().flatten().flatten();
        for folder in entries.map(|entry| entry.path()) {
            let interface = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for name in NAMES {
                let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
                if !matches!(text.trim(), "" | "0") {
                    on.push(format!("net.{family}.conf.{interface}.{name}"));
                }
            }
        }
    }
    on.sort();
    on
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_interface_that_forwards_is_enough() {
        let net = tempfile::tempdir().unwrap();
        let set = |path: &str, text: &str| {
            let file = net.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        set("ipv4/conf/all/forwarding", "0\n");
        set("ipv6/conf/eth0/forwarding", "0\n");
        assert_eq!(settings_below(net.path()), [""; 0]);
        set("ipv4/conf/eth0/forwarding", "1\n");
        set("ipv6/conf/eth0/force_forwarding", "1\n");
        let on = ["net.ipv4.conf.eth0.forwarding", "net.ipv6.conf.eth0.force_forwarding"];
        assert_eq!(settings_below(net.path()), on);
    }
}
