//! Reads the XDP features of an interface's driver, over the generic netlink family `netdev` of Linux
//! 6.3 and later (Documentation/netlink/specs/netdev.yaml).

use std::io;

use nix::errno::Errno;
use rtnetlink::packet_core::{DefaultNla, Emitable as _, NLM_F_REQUEST, NlasIterator};
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_GENERIC;

/// The generic netlink controller, which returns the numbers of other families (linux/genetlink.h).
const CONTROLLER: u16 = 0x10;
const CONTROLLER_GET_FAMILY: u8 = 3;
const CONTROLLER_FAMILY_ID: u16 = 1;
const CONTROLLER_FAMILY_NAME: u16 = 2;

/// linux/netdev.h
const NETDEV_DEV_GET: u8 = 1;
const NETDEV_DEV_IFINDEX: u16 = 1;
const NETDEV_DEV_XDP_FEATURES: u16 = 3;
const XDP_ACT_BASIC: u64 = 1;
const XDP_ACT_RX_SG: u64 = 1 << 5;

const NLMSG_ERROR: u16 = 2;
/// Lengths in bytes of a netlink header, and of a netlink header with a generic netlink header.
const HEADER: usize = 16;
const HEADERS: usize = HEADER + 4;

/// XDP features of an interface in its present setup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Runs XDP programs in the driver.
    pub native: bool,
    /// Supports frames of more than one buffer.
    pub multi_buffer: bool,
}

/// Returns the features of the interface with this index; `None` if the kernel does not report them.
///
/// # Errors
/// Returns the error of the netlink socket, such as `ENODEV` for an unknown index.
pub fn of(index: u32) -> io::Result<Option<Features>> {
    let name = DefaultNla::new(CONTROLLER_FAMILY_NAME, b"netdev\0".to_vec());
    let answer = match ask(CONTROLLER, CONTROLLER_GET_FAMILY, &name) {
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => return Ok(None),
        answer => answer?,
    };
    let Some(family) = attribute(&answer, CONTROLLER_FAMILY_ID).map(u16::from_ne_bytes) else {
        return Ok(None);
    };
    let interface = DefaultNla::new(NETDEV_DEV_IFINDEX, index.to_ne_bytes().to_vec());
    let answer = ask(family, NETDEV_DEV_GET, &interface)?;
    Ok(attribute(&answer, NETDEV_DEV_XDP_FEATURES).map(u64::from_ne_bytes).map(|bits| Features {
        native: bits & XDP_ACT_BASIC != 0,
        multi_buffer: bits & XDP_ACT_RX_SG != 0,
    }))
}

/// Sends one request and returns the attributes of the answer.
fn ask(family: u16, command: u8, attribute: &DefaultNla) -> io::Result<Vec<u8>> {
    let length = HEADERS + attribute.buffer_len();
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence number and port: each socket is used for one request
    message.extend([command, 1, 0, 0]); // version 1
    message.resize(length, 0);
    attribute.emit(&mut message[HEADERS..]);

    let socket = Socket::new(NETLINK_GENERIC)?;
    socket.send(&message, 0)?;
    let (mut answer, _) = socket.recv_from_full()?;
    let short = || io::Error::other("the netlink answer is too short");
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).ok_or_else(short)?;
    if u16::from_ne_bytes(kind) == NLMSG_ERROR {
        let code = answer.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok());
        let code = i32::from_ne_bytes(code.ok_or_else(short)?);
        return Err(io::Error::from_raw_os_error(-code));
    }
    if answer.len() < HEADERS {
        return Err(short());
    }
    Ok(answer.split_off(HEADERS))
}

/// Returns the value of an attribute; `None` if it is missing or has another length.
fn attribute<const LENGTH: usize>(attributes: &[u8], kind: u16) -> Option<[u8; LENGTH]> {
    NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == kind)
        .and_then(|attribute| attribute.value().try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::by_name;
    use crate::sys::test_netns::{in_new_namespace, ip};

    /// Kernels before 6.3 report no features.
    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn veth_has_native_xdp_and_loopback_does_not() {
        in_new_namespace(async {
            ip("link add left type veth peer name right");
            let index = async |name| by_name(name).await.unwrap().unwrap().index;
            let (left, lo) = (of(index("left").await).unwrap(), of(index("lo").await).unwrap());
            if left.is_none() {
                assert_eq!(lo, None);
                return;
            }
            assert_eq!(left, Some(Features { native: true, multi_buffer: true }));
            assert_eq!(lo, Some(Features { native: false, multi_buffer: false }));
            assert_eq!(of(4711).unwrap_err().raw_os_error(), Some(Errno::ENODEV as i32));
        });
    }

    #[test]
    fn attributes_are_found_by_kind_and_length() {
        let attributes = [8, 0, 1, 0, 5, 0, 0, 0, 6, 0, 2, 0, 7, 0, 0, 0];
        assert_eq!(attribute(&attributes, 1).map(u32::from_ne_bytes), Some(5));
        assert_eq!(attribute(&attributes, 2).map(u16::from_ne_bytes), Some(7));
        assert_eq!(attribute(&attributes, 2).map(u32::from_ne_bytes), None);
        assert_eq!(attribute(&attributes, 3).map(u32::from_ne_bytes), None);
        assert_eq!(attribute(&attributes[..6], 1).map(u32::from_ne_bytes), None);
    }

    #[test]
    fn unknown_family_is_enoent() {
        let name = DefaultNla::new(CONTROLLER_FAMILY_NAME, b"palang\0".to_vec());
        let error = ask(CONTROLLER, CONTROLLER_GET_FAMILY, &name).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::ENOENT as i32));
    }
}
