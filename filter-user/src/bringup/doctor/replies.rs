//! Checks whether an interface can send replies to refused calls: the driver sends them out where the calls came in.

use crate::bringup::doctor::check::Check;

/// Checks an interface. `vlans` are those on it; `rx_vlan`: the card removes their tags.
pub(crate) fn check(name: &str, driver: Option<&str>, vlans: &[&str], rx_vlan: bool) -> Check {
    let warn = |finding: String, mend: String| Check::warn("replies", finding, mend);
    if rx_vlan && !vlans.is_empty() {
        let finding = format!(
            "the card removes the tags of {}, so a reply to a call from there goes out without a tag",
            vlans.join(", ")
        );
        return warn(finding, format!("ethtool -K {name} rxvlan off txvlan off"));
    }
    match driver {
        Some("veth") => warn(
            "veth: a reply waits for the next packet, unless an XDP program is on the other end"
                .to_owned(),
            "docs/carriers.md, \"No reply\"".to_owned(),
        ),
        Some("bonding" | "hv_netvsc") => warn(
            "this driver may not send replies".to_owned(),
            "make a test call, and compare ACKs with replies: palang status".to_owned(),
        ),
        _ => Check::ok("replies", "refused calls of trunks are answered through this interface"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bringup::doctor::check::State;

    #[test]
    fn reply_that_may_not_arrive_is_a_warning() {
        let state = |driver, vlans: &[&str], rx_vlan| check("eth0", driver, vlans, rx_vlan).state;
        assert_eq!(state(Some("ixgbe"), &[], true), State::Ok);
        assert_eq!(state(Some("ixgbe"), &["eth0.7"], false), State::Ok);
        assert_eq!(state(None, &[], false), State::Ok);
        assert_eq!(state(Some("ixgbe"), &["eth0.7"], true), State::Warn);
        for driver in ["veth", "bonding", "hv_netvsc"] {
            assert_eq!(state(Some(driver), &[], false), State::Warn, "{driver}");
        }
    }
}
