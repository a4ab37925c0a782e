//! The path of the replies to refused calls of an interface: its driver, or the daemon.

/// Returns why the daemon sends the replies to calls of an interface; `None`: its driver sends them. `vlans` are the
/// interfaces on it; `rx_vlan`: the card removes their tags.
#[must_use]
pub fn why_daemon(driver: Option<&str>, vlans: &[&str], rx_vlan: bool) -> Option<String> {
    if rx_vlan && !vlans.is_empty() {
        return Some(format!(
            "the card removes the tags of {}, and a reply of the driver would have none",
            vlans.join(", ")
        ));
    }
    match driver {
        Some("veth") => Some(
            "a reply of veth waits for the next packet, unless an XDP program is on the other end"
                .to_owned(),
        ),
        Some(driver @ ("bonding" | "hv_netvsc")) => {
            Some(format!("the driver {driver} may not send replies"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemon_sends_where_a_driver_may_not() {
        let by_daemon =
            |driver, vlans: &[&str], rx_vlan| why_daemon(driver, vlans, rx_vlan).is_some();
        assert!(!by_daemon(Some("ixgbe"), &[], true));
        assert!(!by_daemon(Some("ixgbe"), &["eth0.7"], false));
        assert!(!by_daemon(None, &[], false));
        assert!(by_daemon(Some("ixgbe"), &["eth0.7"], true));
        for driver in ["veth", "bonding", "hv_netvsc"] {
            assert!(by_daemon(Some(driver), &[], false), "{driver}");
        }
    }
}
