//! Lists the drivers with and without native XDP, by their ethtool name.

/// Drivers with native XDP, by their ethtool name, for kernels that do not report the features of each
/// interface (Linux 6.3 does).
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

/// Drivers without native XDP in these kernels.
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

/// Returns whether a driver has native XDP; `None` if it is in no list.
pub(crate) fn has_native_xdp(driver: &str) -> Option<bool> {
    if NATIVE.contains(&driver) {
        return Some(true);
    }
    NOT_NATIVE.contains(&driver).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_lists_do_not_contradict_each_other() {
        assert!(NATIVE.is_sorted() && NOT_NATIVE.is_sorted());
        assert!(NATIVE.iter().all(|name| !NOT_NATIVE.contains(name)));
        assert_eq!(has_native_xdp("ixgbe"), Some(true));
        assert_eq!(has_native_xdp("tg3"), Some(false));
        assert_eq!(has_native_xdp("palang_test"), None);
    }
}
