//! Checks whether the card merges packets.

use crate::bringup::doctor::check::Check;
use crate::model::xdp_mode::XdpMode;
use crate::sys::netlink::{Attached, Link};

/// Checks whether the card merges segments; ethtool calls that `feature`. If native XDP already runs,
/// the driver supports both together.
pub(crate) fn merging(
    check: &'static str,
    feature: &str,
    link: &Link,
    on: bool,
    mode: XdpMode,
) -> Check {
    if !on {
        return Check::ok(check, "off");
    }
    if link.xdp.is_some_and(|xdp| xdp.mode == Attached::Native) {
        return Check::ok(check, "on, and native XDP works with it");
    }
    let mend = format!("ethtool -K {} {feature} off", link.name);
    match mode {
        XdpMode::Native => Check::fail(check, "on: drivers refuse native XDP with it", mend),
        XdpMode::NativeOrGeneric => {
            Check::warn(check, "on: drivers refuse native XDP with it; XDP will be generic", mend)
        }
        XdpMode::Generic => Check::ok(check, "on; generic XDP works with it"),
    }
}
