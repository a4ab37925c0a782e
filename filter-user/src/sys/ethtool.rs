//! Reads driver information of an interface (`SIOCETHTOOL`, linux/ethtool.h), in the network
//! namespace of the calling thread.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
/// The string set with the names of features.
const ETH_SS_FEATURES: u32 = 4;
/// Length of a name.
const ETH_GSTRING_LEN: usize = 32;
const GRO_HW: &str = "rx-gro-hw";
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
const ETH_FLAG_LRO: u32 = 1 << 15;

/// Changes that the card makes to frames before XDP sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// Removes the VLAN tag.
    pub rx_vlan: bool,
    /// Merges the segments of a TCP stream.
    pub lro: bool,
    /// Merges segments in a way that the kernel can undo (`rx-gro-hw`).
    pub gro_hw: bool,
}

/// Receive queues; one CPU at a time serves each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Number in use.
    pub now: u32,
    /// Number that the card has.
    pub most: u32,
    /// Whether they also send: `ethtool -L` calls those `combined`, others `rx`.
    pub combined: bool,
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

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `struct ethtool_sset_info` with room for one length.
#[repr(C)]
struct SetInfo {
    command: u32,
    reserved: u32,
    mask: u64,
    length: u32,
    padding: u32,
}

/// Returns the name of an interface's driver: `ixgbe`, `veth`; `None` if it has no name.
///
/// # Errors
/// Returns the error of the system call, such as `ENODEV` for an unknown interface.
pub fn driver(interface: &str) -> io::Result<Option<String>> {
    let mut info =
        DriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 32 * 4 + 12 + 5 * 4] };
    match ask(interface, &mut info) {
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => return Ok(None),
        asked => asked?,
    }
    let name = info.driver.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(Some(String::from_utf8_lossy(name).into_owned()).filter(|name| !name.is_empty()))
}

/// Returns the offloads of an interface.
///
/// # Errors
/// Returns the error of the system call, such as `ENODEV` for an unknown interface.
pub fn offloads(interface: &str) -> io::Result<Offloads> {
    let flags = flags(interface)?;
    Ok(Offloads {
        rx_vlan: flags & ETH_FLAG_RXVLAN != 0,
        lro: flags & ETH_FLAG_LRO != 0,
        gro_hw: is_active(interface, GRO_HW)?,
    })
}

/// Returns whether the card removes VLAN tags.
///
/// # Errors
/// Returns the error of the system call, such as `ENODEV` for an unknown interface.
pub fn removes_vlan_tags(interface: &str) -> io::Result<bool> {
    Ok(flags(interface)? & ETH_FLAG_RXVLAN != 0)
}

fn flags(interface: &str) -> io::Result<u32> {
    let mut flags = Value { command: ETHTOOL_GFLAGS, data: 0 };
    ask(interface, &mut flags)?;
    Ok(flags.data)
}

/// Returns the queues of an interface; `None` if its driver does not report them.
///
/// # Errors
/// Returns the error of the system call, such as `ENODEV` for an unknown interface.
pub fn queues(interface: &str) -> io::Result<Option<Queues>> {
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
    match ask(interface, &mut channels) {
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => return Ok(None),
        asked => asked?,
    }
    let combined = channels.max_combined > 0;
    Ok(Some(Queues {
        now: channels.rx + channels.combined,
        most: if combined { channels.max_combined } else { channels.max_rx },
        combined,
    }))
}

/// Checks whether a feature (`ethtool -k`) is on; `false` if the kernel does not know the name.
fn is_active(interface: &str, name: &str) -> io::Result<bool> {
    let mut info = SetInfo {
        command: ETHTOOL_GSSET_INFO,
        reserved: 0,
        mask: 1 << ETH_SS_FEATURES,
        length: 0,
        padding: 0,
    };
    ask(interface, &mut info)?;
    let count = if info.mask == 0 { 0 } else { info.length };
    // A header of three words, then the names.
    let mut names = vec![0u32; 3 + count as usize * (ETH_GSTRING_LEN / size_of::<u32>())];
    names[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count]);
    ask(interface, names.as_mut_slice())?;
    let names: Vec<u8> = names[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let is_it = |found: &[u8]| found.split(|byte| *byte == 0).next() == Some(name.as_bytes());
    let Some(bit) = names.chunks_exact(ETH_GSTRING_LEN).position(is_it) else { return Ok(false) };

    // A header of two words, then four words per 32 features: available, requested, active, never changed.
    let blocks = count.div_ceil(u32::BITS);
    let mut features = vec![0u32; 2 + 4 * blocks as usize];
    features[..2].copy_from_slice(&[ETHTOOL_GFEATURES, blocks]);
    ask(interface, features.as_mut_slice())?;
    let active = features.get(2 + 4 * (bit / u32::BITS as usize) + 2);
    Ok(active.is_some_and(|active| active >> (bit % u32::BITS as usize) & 1 != 0))
}

/// Sends an ethtool request. `T` belongs to the command in it: a struct, or words with room for
/// everything that their header requests.
#[expect(unsafe_code, reason = "nix has no ioctl whose request points to a second struct")]
fn ask<T: ?Sized>(interface: &str, question: &mut T) -> io::Result<()> {
    let name = interface.as_bytes();
    // The name must end with a zero byte.
    if name.len() >= libc::IFNAMSIZ {
        return Err(Errno::ENODEV.into());
    }
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: std::ptr::from_mut(question).cast() },
    };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name) {
        *slot = libc::c_char::from_ne_bytes([*byte]);
    }
    // SAFETY: the request and the struct that it points to outlive the call. The kernel writes no
    // more than that struct, whose size the command in it defines.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::test_netns::{in_new_namespace, ip};

    const ETHTOOL_SFLAGS: u32 = 0x26;

    #[test]
    fn structs_have_the_sizes_of_the_kernel() {
        assert_eq!(size_of::<DriverInfo>(), 196);
        assert_eq!(size_of::<Value>(), 8);
        assert_eq!(size_of::<Channels>(), 36);
        assert_eq!(size_of::<SetInfo>(), 24);
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn driver_name_is_read() {
        in_new_namespace(async {
            ip("link add left type veth peer name right");
            assert_eq!(driver("left").unwrap().as_deref(), Some("veth"));
            assert_eq!(driver("lo").unwrap(), None);
            for missing in ["middle", "", "a-name-too-long-"] {
                assert_eq!(
                    driver(missing).unwrap_err().raw_os_error(),
                    Some(Errno::ENODEV as i32),
                    "{missing}"
                );
            }
        });
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn queues_are_read_if_the_driver_reports_them() {
        in_new_namespace(async {
            ip("link add left numrxqueues 4 numtxqueues 4 type veth peer name right");
            let queues = |name| queues(name).unwrap();
            let left = queues("left").unwrap();
            assert_eq!((left.most, left.combined), (4, false));
            assert!((1..=4).contains(&left.now), "{left:?}");
            assert_eq!(queues("lo"), None);
        });
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn features_are_found_by_name() {
        in_new_namespace(async {
            ip("link add left type veth peer name right");
            // Compares with the flag of an older command.
            for (data, on) in [(ETH_FLAG_RXVLAN, true), (0, false)] {
                let mut flags = Value { command: ETHTOOL_SFLAGS, data };
                ask("left", &mut flags).unwrap();
                assert_eq!(is_active("left", "rx-vlan-hw-parse").unwrap(), on);
            }
            assert!(is_active("left", "highdma").unwrap());
            assert!(!is_active("left", GRO_HW).unwrap());
            assert!(!is_active("left", "no-such-feature").unwrap());
        });
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn vlan_offload_is_read() {
        in_new_namespace(async {
            ip("link add left type veth peer name right");
            let all_off = Offloads { rx_vlan: false, lro: false, gro_hw: false };
            assert_eq!(offloads("left").unwrap(), Offloads { rx_vlan: true, ..all_off });
            let mut off = Value { command: ETHTOOL_SFLAGS, data: 0 };
            ask("left", &mut off).unwrap();
            assert_eq!(offloads("left").unwrap(), all_off);
        });
    }
}
