//! The path of the replies to refused calls of an interface: its driver, or the daemon.

/// The facts that decide about the path of an interface.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// Name of its driver, if that is known.
    pub driver: Option<&'a str>,
    /// Name and driver of the interface that it is a port of.
    pub above: Option<(&'a str, &'a str)>,
    /// Names of the VLANs on it.
    pub vlans: &'a [&'a str],
    /// Whether the card removes their tags.
    pub rx_vlan: bool,
}

/// Drivers that send by one of their ports, which the kernel chooses.
const OVER_PORTS: [&str; 2] = ["bonding", "hv_netvsc"];

/// Returns why the daemon sends the replies to calls of an interface; `None`: its driver sends them.
#[must_use]
pub fn why_daemon(facts: &Facts<'_>) -> Option<String> {
    if facts.rx_vlan && !facts.vlans.is_empty() {
        return Some(format!(
            "the card removes the tags of {}, and a reply of the driver would have none",
            facts.vlans.join(", ")
        ));
    }
    if let Some((name, _)) = facts.above.filter(|(_, driver)| OVER_PORTS.contains(driver)) {
        return Some(format!(
            "it is a port of {name}, and a reply may have to leave by another one"
        ));
    }
    match facts.driver {
        Some("veth") => Some(
            "a reply of veth waits for the next packet, unless an XDP program is on the other end"
                .to_owned(),
        ),
        Some(driver) if OVER_PORTS.contains(&driver) => {
            Some(format!("a reply may have to leave by another port of {driver}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemon_sends_where_a_driver_may_not() {
        let by_daemon = |driver, vlans: &[&str], rx_vlan| {
            why_daemon(&Facts { driver, vlans, rx_vlan, ..Facts::default() }).is_some()
        };
        assert!(!by_daemon(Some("ixgbe"), &[], true));
        assert!(!by_daemon(Some("ixgbe"), &["eth0.7"], false));
        assert!(!by_daemon(None, &[], false));
        assert!(by_daemon(Some("ixgbe"), &["eth0.7"], true));
        for driver in ["veth", "bonding", "hv_netvsc"] {
            assert!(by_daemon(Some(driver), &[], false), "{driver}");
        }
    }

    #[test]
    fn daemon_sends_for_the_ports_of_a_bond_but_not_of_a_bridge() {
        let port = |driver| {
            why_daemon(&Facts {
                driver: Some("ixgbe"),
                above: Some(("up0", driver)),
                ..Facts::default()
            })
        };
        assert!(port("bonding").is_some_and(|why| why.contains("a port of up0")));
        assert!(port("hv_netvsc").is_some());
        assert_eq!(port("bridge"), None);
    }
}
