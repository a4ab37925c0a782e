//! What the driver of an interface says of itself (`SIOCETHTOOL`, linux/ethtool.h), in the
//! network namespace of the calling thread.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
const ETH_FLAG_LRO: u32 = 1 << 15;

/// What the card does to frames before XDP sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// It takes the VLAN tag away.
    pub rx_vlan: bool,
    /// It puts the segments of a TCP stream together.
    pub lro: bool,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 32 * 4 + 12 + 5 * 4],
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Name of the driver of an interface: `ixgbe`, `veth`; `None` where it has no name.
///
/// # Errors
/// Those of the system call, such as no interface of this name.
pub fn driver(interface: &str) -> io::Result<Option<String>> {
    let mut info =
        DriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 32 * 4 + 12 + 5 * 4] };
    match ask(interface, &mut info) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(None),
        asked => asked?,
    }
    let name = info.driver.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(Some(String::from_utf8_lossy(name).into_owned()).filter(|name| !name.is_empty()))
}

/// What an interface does to frames.
///
/// # Errors
/// Those of the system call, such as no interface of this name.
pub fn offloads(interface: &str) -> io::Result<Offloads> {
    let mut flags = Value { command: ETHTOOL_GFLAGS, data: 0 };
    ask(interface, &mut flags)?;
    Ok(Offloads { rx_vlan: flags.data & ETH_FLAG_RXVLAN != 0, lro: flags.data & ETH_FLAG_LRO != 0 })
}

/// `T` is the struct that belongs to the command in it.
fn ask<T>(interface: &str, question: &mut T) -> io::Result<()> {
    let name = interface.as_bytes();
    // The last byte stays zero.
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: std::ptr::from_mut(question).cast() },
    };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name) {
        *slot = byte.cast_signed();
    }
    // SAFETY: the request and the struct that it points to outlive the call, and the kernel
    // writes no more than that struct, whose size goes with the command in it.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_netns::{in_new_namespace, ip};

    const ETHTOOL_SFLAGS: u32 = 0x26;

    #[test]
    fn the_structs_are_the_kernels() {
        assert_eq!(size_of::<DriverInfo>(), 196);
        assert_eq!(size_of::<Value>(), 8);
    }

    #[test]
    fn a_driver_says_its_name() {
        in_new_namespace(async {
            ip("link add left type veth peer name right");
            assert_eq!(driver("left").unwrap().as_deref(), Some("veth"));
            assert_eq!(driver("lo").unwrap(), None);
            for nobody in ["middle", "", "a-name-too-long-"] {
                assert_eq!(
                    driver(nobody).unwrap_err().raw_os_error(),
                    Some(libc::ENODEV),
                    "{nobody}"
                );
            }
        });
    }

    #[test]
    fn vlan_offload_is_seen() {
        in_new_namespace(async {
            ip("link add left type veth peer name right");
            assert_eq!(offloads("left").unwrap(), Offloads { rx_vlan: true, lro: false });
            let mut off = Value { command: ETHTOOL_SFLAGS, data: 0 };
            ask("left", &mut off).unwrap();
            assert_eq!(offloads("left").unwrap(), Offloads { rx_vlan: false, lro: false });
        });
    }
}
