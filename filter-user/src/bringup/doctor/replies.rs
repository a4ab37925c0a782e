//! Reports who sends the replies to refused calls of an interface, and why.

use crate::bringup::doctor::check::Check;
use crate::model::reply_path::why_daemon;

/// Reports on an interface. `vlans` are those on it; `rx_vlan`: the card removes their tags.
pub(crate) fn check(driver: Option<&str>, vlans: &[&str], rx_vlan: bool) -> Check {
    let finding = match why_daemon(driver, vlans, rx_vlan) {
        Some(why) => format!("the daemon answers refused calls of trunks: {why}"),
        None => "the driver answers refused calls of trunks".to_owned(),
    };
    Check::ok("replies", finding)
}
