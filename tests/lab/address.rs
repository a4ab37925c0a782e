//! Addresses and interfaces of the lab.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Address of `trunk0`.
pub const TRUNK: Ipv4Addr = Ipv4Addr::new(10, 112, 0, 1);
/// Address of `gate0`.
pub const GATE: Ipv4Addr = Ipv4Addr::new(10, 112, 0, 2);
/// IPv6 address of `trunk0`.
pub const TRUNK6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x112, 0, 0, 0, 0, 0, 1);
/// IPv6 address of `gate0`.
pub const GATE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x112, 0, 0, 0, 0, 0, 2);
/// The interface of a gate.
pub const INTERFACE: &str = "gate0";

/// The trunk's end of the pair.
pub const TRUNK_INTERFACE: &str = "trunk0";
/// Hardware addresses of `trunk0` and `gate0`.
pub const MACS: [&str; 2] = ["02:00:00:00:01:12", "02:00:00:00:02:12"];
