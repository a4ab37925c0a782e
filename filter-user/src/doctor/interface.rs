//! What a configured interface needs so that the filter can stand on it.

use std::path::Path;

use super::{Check, State};
use crate::config::{Config, XdpMode};
use crate::ethtool::{self, Offloads};
use crate::netlink::{self, Attached, Link};
use crate::xdp_features::{self, Features};

/// Frames of this MTU, in bytes, are one buffer with every driver (ENA has the least room).
const ONE_BUFFER_MTU: u32 = 3498;

/// Drivers, by the name that ethtool tells, with native XDP in Linux 5.18 to 6.2; newer kernels
/// tell for each interface.
const NATIVE: &[&str] = &[
    "atlantic",
    "bnxt_en",
    "bonding",
    "cpsw",
    "cpsw-switch",
    "ena",
    "fsl_dpa",
    "fsl_dpaa2_eth",
    "fsl_enetc",
    "fsl_enetc_vf",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mana",
    "mlx4_en",
    "mlx5_core",
    "mvneta",
    "mvpp2",
    "netsec",
    "nfp",
    "nicvf",
    "qede",
    "rvu_nicpf",
    "rvu_nicvf",
    "sfc",
    "st_gmac",
    "st_xgmac",
    "tun",
    "veth",
    "virtio_net",
];

/// Drivers that had none in these kernels.
const NOT_NATIVE: &[&str] = &[
    "802.1Q VLAN Support",
    "be2net",
    "bnx2",
    "bnx2x",
    "bridge",
    "dummy",
    "e1000",
    "e1000e",
    "ipvlan",
    "macvlan",
    "r8169",
    "tg3",
    "vmxnet3",
    "vxlan",
    "wireguard",
];

/// What the kernel tells of an interface.
struct Facts<'a> {
    link: &'a Link,
    /// The interface that it is a VLAN of.
    parent: Option<&'a str>,
    /// VLANs of it.
    vlans: Vec<&'a str>,
    driver: Option<String>,
    features: Option<Features>,
    offloads: std::io::Result<Offloads>,
}

pub(super) async fn checks(config: &Config) -> Vec<Check> {
    let file = config.path.display();
    if config.interfaces.is_empty() {
        let mend = format!("name them in `interfaces` of {file}");
        return vec![Check::warn("interfaces", "none: no call is judged", mend)];
    }
    let links = match netlink::links().await {
        Ok(links) => links,
        Err(error) => {
            let finding = format!("the kernel does not tell of them: {error}");
            return vec![Check::fail("interfaces", finding, "ip link")];
        }
    };
    let ours = holds_something(&config.paths.pins);
    let mut checks = Vec::new();
    for name in &config.interfaces {
        let found = match links.iter().find(|link| link.name == *name) {
            None => {
                let names: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
                let finding = format!("there is no such interface, only {}", names.join(", "));
                vec![Check::fail("link", finding, format!("correct `interfaces` of {file}"))]
            }
            Some(link) => judge(&facts(link, &links), config.xdp_mode, ours),
        };
        checks.extend(
            found.into_iter().map(|check| Check { interface: Some(name.clone()), ..check }),
        );
    }
    checks
}

/// Whether there is anything in the folder of pins: only then a program can be ours.
fn holds_something(pins: &Path) -> bool {
    std::fs::read_dir(pins).is_ok_and(|mut entries| entries.next().is_some())
}

fn facts<'a>(link: &'a Link, links: &'a [Link]) -> Facts<'a> {
    let parent = links.iter().find(|other| Some(other.index) == link.vlan_of);
    let vlans = links.iter().filter(|other| other.vlan_of == Some(link.index));
    Facts {
        link,
        parent: parent.map(|parent| parent.name.as_str()),
        vlans: vlans.map(|vlan| vlan.name.as_str()).collect(),
        driver: ethtool::driver(&link.name).ok().flatten(),
        features: xdp_features::of(link.index).ok().flatten(),
        offloads: ethtool::offloads(&link.name),
    }
}

fn judge(facts: &Facts<'_>, mode: XdpMode, ours: bool) -> Vec<Check> {
    let mut checks = vec![up(facts.link), driver(facts, mode), mtu(facts, mode)];
    checks.push(xdp(facts.link, mode, ours));
    match &facts.offloads {
        Ok(offloads) => {
            checks.push(rx_vlan(facts, *offloads));
            checks.push(lro(facts.link, *offloads, mode));
        }
        Err(error) => {
            let mend = format!("ethtool -k {}", facts.link.name);
            checks.push(Check::warn(
                "offloads",
                format!("the driver does not tell: {error}"),
                mend,
            ));
        }
    }
    checks
}

fn up(link: &Link) -> Check {
    let name = &link.name;
    if !link.up {
        return Check::warn("link", "down: no call comes in", format!("ip link set dev {name} up"));
    }
    if !link.carrier {
        return Check::warn(
            "link",
            "up, but without a carrier",
            format!("ethtool {name}; its cable"),
        );
    }
    Check::ok("link", "up")
}

fn driver(facts: &Facts<'_>, mode: XdpMode) -> Check {
    let driver = facts.driver.as_deref().unwrap_or("the driver");
    let listed = |list: &[&str]| facts.driver.as_deref().is_some_and(|name| list.contains(&name));
    let native = match facts.features {
        Some(features) => Some(features.native),
        None if listed(NATIVE) => Some(true),
        None if listed(NOT_NATIVE) => Some(false),
        None => None,
    };
    let generic = "set xdp_mode = \"generic\" (slower)";
    match (native, mode) {
        (Some(true), XdpMode::Native | XdpMode::NativeOrGeneric) => {
            Check::ok("driver", format!("{driver} does native XDP"))
        }
        (_, XdpMode::Generic) => Check::ok("driver", format!("{driver}; generic XDP is asked for")),
        (None, XdpMode::Native | XdpMode::NativeOrGeneric) => {
            let finding = format!("{driver}: not known whether it does native XDP");
            Check::warn("driver", finding, format!("attach and see; else {generic}"))
        }
        (Some(false), _) => {
            let (finding, mend) = match (facts.parent, driver) {
                (Some(parent), _) => (
                    format!(
                        "a VLAN of {parent}; native XDP is with {parent}, which sees its calls"
                    ),
                    format!("interfaces = [\"{parent}\"]"),
                ),
                (None, "virtio_net") => (
                    "virtio_net does no native XDP while the host merges segments (GUEST_TSO) and \
                     does not let it be switched off"
                        .to_owned(),
                    format!("the host's settings of this card; else {generic}"),
                ),
                (None, _) => (format!("{driver} does no native XDP"), generic.to_owned()),
            };
            match mode {
                XdpMode::NativeOrGeneric => {
                    Check::warn("driver", format!("{finding}; it will be generic, slower"), mend)
                }
                XdpMode::Native | XdpMode::Generic => Check::fail("driver", finding, mend),
            }
        }
    }
}

fn mtu(facts: &Facts<'_>, mode: XdpMode) -> Check {
    let Link { name, mtu, .. } = facts.link;
    let generic = mode == XdpMode::Generic || facts.features.is_some_and(|can| !can.native);
    if *mtu <= ONE_BUFFER_MTU || generic {
        return Check::ok("mtu", mtu.to_string());
    }
    let mend = format!("ip link set dev {name} mtu 1500");
    match facts.features {
        Some(Features { multi_buffer: true, .. }) => {
            Check::ok("mtu", format!("{mtu}; the driver takes frames of several buffers"))
        }
        Some(_) => {
            let finding =
                format!("{mtu}: frames of several buffers, which the driver cannot with XDP");
            let state = if mode == XdpMode::Native { State::Fail } else { State::Warn };
            Check { state, ..Check::fail("mtu", finding, mend) }
        }
        None => {
            let finding =
                format!("{mtu}: not every driver takes frames of several buffers with XDP");
            Check::warn("mtu", finding, format!("attach and see; else {mend}"))
        }
    }
}

fn xdp(link: &Link, mode: XdpMode, ours: bool) -> Check {
    let name = &link.name;
    let Some(xdp) = link.xdp else {
        return Check::ok("xdp", "no program is on it");
    };
    let finding = format!("program {}, {}", xdp.program, xdp.mode.name());
    if !ours {
        let off = match xdp.mode {
            Attached::Native => "xdpdrv",
            Attached::Generic => "xdpgeneric",
            Attached::Offloaded => "xdpoffload",
        };
        let mend = format!("ip link set dev {name} {off} off");
        return Check::fail("xdp", format!("{finding}: another's, ours cannot be attached"), mend);
    }
    if xdp.mode == Attached::Generic && mode == XdpMode::Native {
        let mend = format!("palang detach {name} && palang attach {name}");
        return Check::fail("xdp", format!("{finding}, but native is asked for"), mend);
    }
    Check::ok("xdp", finding)
}

/// The filter reads a call with its tag or without, and no rule of it asks for a VLAN. Only
/// the fragments of a refused datagram are told apart by their VLAN, too.
fn rx_vlan(facts: &Facts<'_>, offloads: Offloads) -> Check {
    let name = &facts.link.name;
    if !offloads.rx_vlan {
        return Check::ok("rx-vlan-offload", "off: the filter sees VLAN tags");
    }
    if facts.vlans.is_empty() {
        return Check::ok("rx-vlan-offload", "on, and there are no VLANs");
    }
    let finding = format!(
        "on: tags of {} are gone before XDP; calls are read all the same, but fragments of VLANs \
         with the same addresses are not told apart",
        facts.vlans.join(", ")
    );
    Check::warn("rx-vlan-offload", finding, format!("ethtool -K {name} rxvlan off"))
}

fn lro(link: &Link, offloads: Offloads, mode: XdpMode) -> Check {
    if !offloads.lro {
        return Check::ok("lro", "off");
    }
    let mend = format!("ethtool -K {} lro off", link.name);
    match mode {
        XdpMode::Native => Check::fail("lro", "on: drivers refuse native XDP with it", mend),
        XdpMode::NativeOrGeneric => {
            Check::warn("lro", "on: drivers refuse native XDP with it; it will be generic", mend)
        }
        XdpMode::Generic => Check::ok("lro", "on; generic XDP switches it off"),
    }
}
