//! Checks whether a configured interface can run the filter.

use crate::bringup::doctor::check::{Check, State};
use crate::bringup::doctor::drivers;
use crate::bringup::doctor::in_force::{Whose, whose};
use crate::bringup::doctor::offloads;
use crate::bringup::doctor::replies::{self, Kernel};
use crate::config::Config;
use crate::model::policy::Trunk;
use crate::model::reply_path;
use crate::model::xdp_mode::XdpMode;
use crate::sys::ethtool::{self, Offloads, Queues};
use crate::sys::netlink::{self, Attached, Link};
use crate::sys::xdp_features;
use crate::sys::xdp_features::Features;

/// Largest MTU in bytes whose frames fit one buffer with every driver (ENA has the least room).
const ONE_BUFFER_MTU: u32 = 3498;

/// The kernel's information about an interface.
struct Facts<'a> {
    link: &'a Link,
    /// Name of the parent interface, if it is a VLAN.
    parent: Option<&'a str>,
    /// Name and driver of the interface that it is a port of.
    above: Option<(&'a str, String)>,
    /// Names of its VLANs.
    vlans: Vec<&'a str>,
    driver: Option<String>,
    features: Option<Features>,
    kernel: Kernel,
    offloads: std::io::Result<Offloads>,
    /// `None` if the driver does not report queues.
    queues: Option<Queues>,
    /// Owner of the XDP program on it.
    whose: Whose,
    trunks: &'a [Trunk],
    /// Whether calls in frames for other machines are judged.
    forwarded: bool,
}

/// Checks all configured interfaces. `tag` is that of the program in this binary, if it could be
/// loaded.
pub(crate) async fn checks(config: &Config, tag: Option<u64>, kernel: &Kernel) -> Vec<Check> {
    let file = config.path.display();
    if config.interfaces.is_empty() {
        let mend = format!("list them under `interfaces` in {file}");
        return vec![Check::warn("interfaces", "none configured: no call is judged", mend)];
    }
    let links = match netlink::links().await {
        Ok(links) => links,
        Err(error) => {
            let finding = format!("cannot list the interfaces: {error}");
            return vec![Check::fail("interfaces", finding, "ip link")];
        }
    };
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32);
    let mut checks = Vec::new();
    for name in &config.interfaces {
        let found = match links.iter().find(|link| link.name == *name) {
            None => {
                let names: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
                let finding = format!("no such interface; there are: {}", names.join(", "));
                vec![Check::fail("link", finding, format!("correct `interfaces` of {file}"))]
            }
            Some(link) => {
                let forwarded = config.forwarded;
                let (kernel, trunks) = (kernel.clone(), &config.policy.trunks);
                let mut facts = Facts { kernel, trunks, forwarded, ..facts(link, &links) };
                if let Some(xdp) = link.xdp {
                    facts.whose = whose(xdp.program, &config.paths.pins, tag);
                }
                judge(&facts, config.xdp_mode, cpus)
            }
        };
        checks.extend(
            found.into_iter().map(|check| Check { interface: Some(name.clone()), ..check }),
        );
    }
    checks
}

fn facts<'a>(link: &'a Link, links: &'a [Link]) -> Facts<'a> {
    let parent = links.iter().find(|other| Some(other.index) == link.vlan_of);
    let vlans = links.iter().filter(|other| other.vlan_of == Some(link.index));
    let above = links.iter().find(|other| Some(other.index) == link.port_of);
    let driver = |link: &Link| ethtool::driver(&link.name).ok().flatten();
    Facts {
        link,
        parent: parent.map(|parent| parent.name.as_str()),
        above: above.and_then(|above| Some((above.name.as_str(), driver(above)?))),
        vlans: vlans.map(|vlan| vlan.name.as_str()).collect(),
        driver: driver(link),
        features: xdp_features::of(link.index).ok().flatten(),
        kernel: Kernel::default(),
        offloads: ethtool::offloads(&link.name),
        queues: ethtool::queues(&link.name).ok().flatten(),
        whose: Whose::Ours,
        trunks: &[],
        forwarded: true,
    }
}

fn judge(facts: &Facts<'_>, mode: XdpMode, cpus: u32) -> Vec<Check> {
    let mut checks = vec![up(facts.link), driver(facts, mode), mtu(facts, mode)];
    if !facts.link.has_ethernet {
        checks.push(Check::fail(
            "ethernet",
            "packets have no Ethernet header: the filter reads none of them",
            "name the interface below it in palang.toml",
        ));
    }
    if facts.link.promiscuous {
        checks.push(promiscuous(&facts.link.name, facts.forwarded));
    }
    checks.push(queues(&facts.link.name, facts.queues, cpus));
    checks.push(xdp(facts.link, mode, facts.whose));
    let path = reply_path::Facts {
        driver: facts.driver.as_deref(),
        above: facts.above.as_ref().map(|(name, driver)| (*name, driver.as_str())),
        vlans: &facts.vlans,
        rx_vlan: facts.offloads.as_ref().is_ok_and(|offloads| offloads.rx_vlan),
    };
    checks.extend(replies::check(&facts.kernel, &path, facts.trunks));
    match &facts.offloads {
        Ok(offloads) => {
            checks.push(rx_vlan(facts, *offloads));
            checks.push(offloads::merging("lro", "lro", facts.link, offloads.lro, mode));
            checks.push(offloads::merging(
                "gro-hw",
                "rx-gro-hw",
                facts.link,
                offloads.gro_hw,
                mode,
            ));
        }
        Err(error) => {
            let mend = format!("ethtool -k {}", facts.link.name);
            checks.push(Check::warn(
                "offloads",
                format!("the driver does not report its offloads: {error}"),
                mend,
            ));
        }
    }
    checks
}

/// Reports that the filter judges all that arrives: XDP runs before the kernel looks for whom a frame is.
fn promiscuous(name: &str, forwarded: bool) -> Check {
    if !forwarded {
        return Check::ok(
            "promiscuous",
            "promiscuous, and calls in frames for other machines pass (forwarded = false)",
        );
    }
    let finding =
        "promiscuous: frames for other machines arrive too, and the filter judges their calls";
    let mend = format!(
        "see why: ip -d link show dev {name}. After a capture nothing is to do. If the SIP server is on this \
         machine, set forwarded = false in palang.toml"
    );
    Check::warn("promiscuous", finding, mend)
}

fn up(link: &Link) -> Check {
    let name = &link.name;
    if !link.up {
        return Check::warn("link", "down: no call arrives", format!("ip link set dev {name} up"));
    }
    if !link.carrier {
        let mend = format!("ethtool {name}; check the cable");
        return Check::warn("link", "up, but no carrier", mend);
    }
    Check::ok("link", "up")
}

fn driver(facts: &Facts<'_>, mode: XdpMode) -> Check {
    let driver = facts.driver.as_deref().unwrap_or("the driver");
    let native = match facts.features {
        Some(features) => Some(features.native),
        None => facts.driver.as_deref().and_then(drivers::has_native_xdp),
    };
    let generic = "set xdp_mode = \"generic\" (slower)";
    match (native, mode) {
        (Some(true), XdpMode::Native | XdpMode::NativeOrGeneric) => {
            Check::ok("driver", format!("{driver} supports native XDP"))
        }
        (_, XdpMode::Generic) => {
            Check::ok("driver", format!("{driver}; generic XDP is configured"))
        }
        (None, XdpMode::Native | XdpMode::NativeOrGeneric) => {
            let finding = format!("{driver}: unknown whether it supports native XDP");
            Check::warn("driver", finding, format!("try to attach; if that fails, {generic}"))
        }
        (Some(false), _) => {
            let (finding, mend) = match (facts.parent, driver) {
                (Some(parent), _) => (
                    format!(
                        "a VLAN of {parent}: native XDP runs on {parent}, where its calls arrive"
                    ),
                    format!("interfaces = [\"{parent}\"]"),
                ),
                (None, "virtio_net") => (
                    "virtio_net does not support native XDP while the host merges segments (GUEST_TSO) and \
                     does not allow to switch that off"
                        .to_owned(),
                    format!("change the host's settings of this card, or {generic}"),
                ),
                (None, _) => (format!("{driver} does not support native XDP"), generic.to_owned()),
            };
            match mode {
                XdpMode::NativeOrGeneric => Check::warn(
                    "driver",
                    format!("{finding}; XDP will be generic, which is slower"),
                    mend,
                ),
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
    let state = if mode == XdpMode::Native { State::Fail } else { State::Warn };
    match facts.features {
        _ if facts.kernel.frags == Some(false) => {
            let finding = format!("{mtu} needs several buffers, which this kernel cannot with XDP");
            Check { state, ..Check::fail("mtu", finding, mend) }
        }
        Some(Features { multi_buffer: true, .. }) => {
            Check::ok("mtu", format!("{mtu}; the driver supports frames of several buffers"))
        }
        Some(_) => {
            let finding = format!("{mtu} needs several buffers, which the driver cannot with XDP");
            Check { state, ..Check::fail("mtu", finding, mend) }
        }
        None => {
            let finding =
                format!("{mtu}: not every driver supports frames of several buffers with XDP");
            Check::warn("mtu", finding, format!("try to attach; if that fails, {mend}"))
        }
    }
}

/// Checks the receive queues: each queue is served by one CPU at a time.
fn queues(name: &str, queues: Option<Queues>, cpus: u32) -> Check {
    let Some(Queues { now, most, combined }) = queues else {
        return Check::ok("queues", "the driver reports no queues");
    };
    let finding = format!("{now} of {most}");
    if now > 1 || most < 2 || cpus < 2 {
        return Check::ok("queues", finding);
    }
    let kind = if combined { "combined" } else { "rx" };
    let mend = format!("ethtool -L {name} {kind} {}", most.min(cpus));
    Check::warn("queues", format!("{finding}: one CPU of {cpus} judges all traffic"), mend)
}

fn xdp(link: &Link, mode: XdpMode, whose: Whose) -> Check {
    let name = &link.name;
    let Some(xdp) = link.xdp else {
        return Check::ok("xdp", "no program is attached");
    };
    let finding = format!("program {}, {}", xdp.program, xdp.mode.name());
    if whose == Whose::Others {
        let off = match xdp.mode {
            Attached::Native => "xdpdrv",
            Attached::Generic => "xdpgeneric",
            Attached::Offloaded => "xdpoffload",
        };
        let mend = format!("ip link set dev {name} {off} off");
        return Check::fail(
            "xdp",
            format!("{finding}: belongs to other software, so the filter cannot be attached"),
            mend,
        );
    }
    if xdp.mode == Attached::Generic && mode == XdpMode::Native {
        let mend = format!("palang detach {name} && palang attach {name}");
        return Check::fail("xdp", format!("{finding}, but native is configured"), mend);
    }
    if whose == Whose::OtherBuild {
        let finding = format!("{finding}: from another build than this palang");
        return Check::warn("xdp", finding, "systemctl restart palang");
    }
    Check::ok("xdp", finding)
}

/// Checks the VLAN offload. The filter reads a call with or without its tag, and no rule needs a VLAN.
/// Only the fragments of a refused datagram are distinguished by VLAN, too.
fn rx_vlan(facts: &Facts<'_>, offloads: Offloads) -> Check {
    let name = &facts.link.name;
    if !offloads.rx_vlan {
        return Check::ok("rx-vlan-offload", "off: the filter sees VLAN tags");
    }
    if facts.vlans.is_empty() {
        let finding = "on: VLAN tags are removed before XDP; harmless while there is no VLAN here";
        return Check::warn("rx-vlan-offload", finding, format!("ethtool -K {name} rxvlan off"));
    }
    let finding = format!(
        "on: tags of {} are removed before XDP; calls are still read, but fragments of VLANs \
         with the same addresses cannot be distinguished",
        facts.vlans.join(", ")
    );
    Check::warn("rx-vlan-offload", finding, format!("ethtool -K {name} rxvlan off"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::sys::test_netns::{in_new_namespace, ip, put_foreign_xdp};

    const ALL_OFF: Offloads = Offloads { rx_vlan: false, lro: false, gro_hw: false };
    const MODES: [XdpMode; 3] = [XdpMode::Native, XdpMode::Generic, XdpMode::NativeOrGeneric];

    const FRAGS: Kernel = Kernel { frags: Some(true), no_replies: None };

    fn link(name: &str) -> Link {
        Link::named(name, 2)
    }

    fn facts<'a>(link: &'a Link, driver: &str, features: Option<Features>) -> Facts<'a> {
        Facts {
            link,
            parent: None,
            vlans: Vec::new(),
            driver: Some(driver.to_owned()).filter(|name| !name.is_empty()),
            features,
            above: None,
            kernel: FRAGS,
            offloads: Ok(ALL_OFF),
            queues: None,
            whose: Whose::Ours,
            trunks: &[],
            forwarded: true,
        }
    }

    fn can(native: bool, multi_buffer: bool) -> Option<Features> {
        Some(Features { native, multi_buffer })
    }

    #[test]
    fn kernel_features_override_the_driver_list() {
        use State::{Fail, Ok, Warn};
        let eth0 = link("eth0");
        for (name, features, expected) in [
            ("ixgbe", None, [Ok, Ok, Ok]),
            ("tg3", None, [Fail, Ok, Warn]),
            ("palang_test", None, [Warn, Ok, Warn]),
            ("", None, [Warn, Ok, Warn]),
            ("tg3", can(true, false), [Ok, Ok, Ok]),
            ("ixgbe", can(false, false), [Fail, Ok, Warn]),
            ("virtio_net", can(false, false), [Fail, Ok, Warn]),
        ] {
            let facts = facts(&eth0, name, features);
            assert_eq!(MODES.map(|mode| driver(&facts, mode).state), expected, "{name}");
        }
        let vlan = Facts { parent: Some("eth0"), ..facts(&eth0, "802.1Q VLAN Support", None) };
        let check = driver(&vlan, XdpMode::Native);
        assert_eq!(check.mend.as_deref(), Some("interfaces = [\"eth0\"]"));
        let virtio = driver(&facts(&eth0, "virtio_net", can(false, false)), XdpMode::Native);
        assert!(virtio.finding.contains("the host"), "{}", virtio.finding);
    }

    #[test]
    fn large_mtu_needs_frames_of_several_buffers() {
        use State::{Fail, Ok, Warn};
        let small = Link { mtu: 3498, ..link("eth0") };
        let large = Link { mtu: 3499, ..link("eth0") };
        for (link, features, expected) in [
            (&small, can(true, false), [Ok, Ok, Ok]),
            (&small, None, [Ok, Ok, Ok]),
            (&large, can(true, true), [Ok, Ok, Ok]),
            (&large, can(true, false), [Fail, Ok, Warn]),
            (&large, None, [Warn, Ok, Warn]),
            // The driver check reports this already.
            (&large, can(false, false), [Ok, Ok, Ok]),
        ] {
            let facts = facts(link, "ixgbe", features);
            assert_eq!(MODES.map(|mode| mtu(&facts, mode).state), expected, "{features:?}");
        }
        for (link, expected) in [(&small, [Ok, Ok, Ok]), (&large, [Fail, Ok, Warn])] {
            let facts = Facts {
                kernel: Kernel { frags: Some(false), ..FRAGS },
                ..facts(link, "ixgbe", can(true, true))
            };
            let found = MODES.map(|mode| mtu(&facts, mode));
            assert_eq!(found.clone().map(|check| check.state), expected);
            assert_eq!(found[0].finding.contains("this kernel"), found[0].state == Fail);
        }
    }

    #[test]
    fn program_is_ours_only_if_something_is_pinned() {
        use State::{Fail, Ok};
        let on = |mode| Link { xdp: Some(netlink::Xdp { mode, program: 42 }), ..link("eth0") };
        assert_eq!(xdp(&link("eth0"), XdpMode::Native, Whose::Ours).state, Ok);
        let strange = xdp(&on(Attached::Generic), XdpMode::Native, Whose::Others);
        assert_eq!(strange.state, Fail);
        assert!(strange.finding.contains("program 42, generic"), "{}", strange.finding);
        assert_eq!(strange.mend.as_deref(), Some("ip link set dev eth0 xdpgeneric off"));
        let states = |attached| MODES.map(|mode| xdp(&on(attached), mode, Whose::Ours).state);
        let older = xdp(&on(Attached::Native), XdpMode::Native, Whose::OtherBuild);
        assert_eq!(older.state, State::Warn);
        assert!(older.finding.contains("another build"), "{}", older.finding);
        assert_eq!(states(Attached::Native), [Ok, Ok, Ok]);
        assert_eq!(states(Attached::Generic), [Fail, Ok, Ok]);
    }

    #[test]
    fn offload_that_prevents_xdp_is_reported() {
        use State::{Fail, Ok, Warn};
        let eth0 = link("eth0");
        let none = facts(&eth0, "ixgbe", None);
        let vlans = Facts { vlans: vec!["eth0.7", "eth0.8"], ..facts(&eth0, "ixgbe", None) };
        let (on, off) = (Offloads { rx_vlan: true, lro: true, gro_hw: true }, ALL_OFF);
        assert_eq!(rx_vlan(&none, off).state, Ok);
        let none = rx_vlan(&none, on);
        assert_eq!(none.state, Warn);
        assert!(none.finding.contains("harmless while"), "{}", none.finding);
        assert_eq!(rx_vlan(&vlans, off).state, Ok);
        let check = rx_vlan(&vlans, on);
        assert_eq!(check.state, Warn);
        assert!(check.finding.contains("eth0.7, eth0.8"), "{}", check.finding);
        assert_eq!(check.mend.as_deref(), Some("ethtool -K eth0 rxvlan off"));
        let native = netlink::Xdp { mode: Attached::Native, program: 42 };
        let works = Link { xdp: Some(native), ..link("eth0") };
        for (link, on, expected) in [
            (&eth0, false, [Ok, Ok, Ok]),
            (&eth0, true, [Fail, Ok, Warn]),
            (&works, true, [Ok, Ok, Ok]),
        ] {
            let merging = |mode| offloads::merging("gro-hw", "rx-gro-hw", link, on, mode);
            assert_eq!(MODES.map(|mode| merging(mode).state), expected, "{on}");
        }
        let check = offloads::merging("gro-hw", "rx-gro-hw", &eth0, true, XdpMode::Native);
        assert_eq!(check.mend.as_deref(), Some("ethtool -K eth0 rx-gro-hw off"));
    }

    #[test]
    fn single_queue_for_many_cpus_is_a_warning() {
        let check =
            |now, most, combined, cpus| queues("eth0", Some(Queues { now, most, combined }), cpus);
        for (now, most, cpus, state) in [
            (1, 1, 8, State::Ok),
            (1, 8, 1, State::Ok),
            (2, 8, 8, State::Ok),
            (1, 8, 8, State::Warn),
        ] {
            assert_eq!(check(now, most, true, cpus).state, state, "{now} of {most}, {cpus}");
        }
        let mend = |combined, cpus| check(1, 8, combined, cpus).mend;
        assert_eq!(mend(true, 4).as_deref(), Some("ethtool -L eth0 combined 4"));
        assert_eq!(mend(false, 64).as_deref(), Some("ethtool -L eth0 rx 8"));
        assert_eq!(queues("eth0", None, 8).state, State::Ok);
    }

    fn configuration(name: &str, interfaces: &str) -> (PathBuf, Config) {
        let folder = std::env::temp_dir().join(format!("palang-{name}-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("pins")).unwrap();
        let file = folder.join("palang.toml");
        let pins = folder.join("pins");
        std::fs::write(&file, format!("interfaces = {interfaces}\n[paths]\npins = {pins:?}\n"))
            .unwrap();
        (folder, Config::read(&file).unwrap())
    }

    fn states(checks: &[Check]) -> Vec<(&str, &str, State)> {
        checks
            .iter()
            .map(|check| (check.interface.as_deref().unwrap_or("-"), check.check, check.state))
            .collect()
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn interfaces_of_a_namespace_are_checked() {
        use State::{Fail, Ok, Warn};
        in_new_namespace(async {
            let (folder, config) = configuration("interfaces", "[\"left\", \"middle\", \"right\"]");
            let one = "numrxqueues 1 numtxqueues 1";
            ip(&format!("link add left mtu 9000 {one} type veth peer name right {one}"));
            ip("link set left up");
            put_foreign_xdp("right", Attached::Generic).await;
            let found = checks(&config, None, &FRAGS).await;
            assert_eq!(
                states(&found),
                [
                    ("left", "link", Warn),
                    ("left", "driver", Ok),
                    ("left", "mtu", if found[2].finding.contains("several") { Ok } else { Warn }),
                    ("left", "queues", Ok),
                    ("left", "xdp", Ok),
                    ("left", "rx-vlan-offload", Warn),
                    ("left", "lro", Ok),
                    ("left", "gro-hw", Ok),
                    ("middle", "link", Fail),
                    ("right", "link", Warn),
                    ("right", "driver", Ok),
                    ("right", "mtu", Ok),
                    ("right", "queues", Ok),
                    ("right", "xdp", Fail),
                    ("right", "rx-vlan-offload", Warn),
                    ("right", "lro", Ok),
                    ("right", "gro-hw", Ok),
                ]
            );
            assert_eq!(found[0].finding, "up, but no carrier");
            assert_eq!(found[1].finding, "veth supports native XDP");
            assert!(found[8].finding.contains("lo, right, left"), "{}", found[8].finding);
            assert_eq!(found[9].mend.as_deref(), Some("ip link set dev right up"));
            // The fix that the check proposes works.
            ip(found[13].mend.as_deref().unwrap().strip_prefix("ip ").unwrap());
            ip("link set dev right up");
            let mended = checks(&config, None, &FRAGS).await;
            let left = states(&mended).into_iter().filter(|(_, _, state)| *state != Ok);
            let left: Vec<_> = left.map(|(name, check, _)| (name, check)).collect();
            let offload = |name| (name, "rx-vlan-offload");
            let mtu = found[2].state != Ok;
            let expected = [offload("left"), ("middle", "link"), offload("right")];
            assert_eq!(left[usize::from(mtu)..], expected);
            std::fs::remove_dir_all(folder).unwrap();
        });
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn interface_that_takes_in_frames_of_others_is_reported() {
        in_new_namespace(async {
            let (folder, config) = configuration("promiscuous", "[\"left\"]");
            ip("link add left type veth peer name right");
            let has = async || {
                let found = checks(&config, None, &FRAGS).await;
                found.iter().any(|check| check.check == "promiscuous" && check.state == State::Warn)
            };
            assert!(!has().await);
            ip("link set dev left promisc on");
            assert!(has().await);
            let quiet = Config { forwarded: false, ..config.clone() };
            let found = checks(&quiet, None, &FRAGS).await;
            assert!(
                found.iter().any(|check| check.check == "promiscuous" && check.state == State::Ok)
            );
            ip("link set dev left promisc off");
            assert!(!has().await);
            std::fs::remove_dir_all(folder).unwrap();
        });
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn something_pinned_makes_a_program_ours() {
        in_new_namespace(async {
            let (folder, config) = configuration("pinned", "[\"left\"]");
            ip("link add left type veth peer name right");
            put_foreign_xdp("left", Attached::Generic).await;
            assert!(
                checks(&config, None, &FRAGS).await[4]
                    .finding
                    .contains("belongs to other software")
            );
            std::fs::write(config.paths.pins.join("links"), "").unwrap();
            assert!(
                checks(&config, None, &FRAGS).await[4].finding.contains("but native is configured")
            );
            std::fs::remove_dir_all(folder).unwrap();
        });
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn missing_interfaces_are_reported() {
        in_new_namespace(async {
            let (folder, config) = configuration("none", "[]");
            assert_eq!(
                states(&checks(&config, None, &FRAGS).await),
                [("-", "interfaces", State::Warn)]
            );
            std::fs::remove_dir_all(folder).unwrap();
        });
    }
}
