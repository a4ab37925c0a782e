//! What XDP an interface can do, by its driver's own word: the generic netlink family `netdev`,
//! which Linux has since 6.3 (Documentation/netlink/specs/netdev.yaml).

use std::io;

use nix::libc::ENOENT;
use rtnetlink::packet_core::{DefaultNla, Emitable as _, NLM_F_REQUEST, NlasIterator};
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_GENERIC;

/// The family that tells the numbers of the others (linux/genetlink.h).
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
/// Lengths of the header of a netlink message and of a generic one behind it.
const HEADER: usize = 16;
const HEADERS: usize = HEADER + 4;

/// What an interface can do as it is set up now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// It runs XDP programs in the driver.
    pub native: bool,
    /// It gives them frames of more than one buffer.
    pub multi_buffer: bool,
}

/// What the interface of this index can do; `None` where the kernel does not tell.
///
/// # Errors
/// Those of the netlink socket, such as no interface of this index.
pub fn of(index: u32) -> io::Result<Option<Features>> {
    let name = DefaultNla::new(CONTROLLER_FAMILY_NAME, b"netdev\0".to_vec());
    let answer = match ask(CONTROLLER, CONTROLLER_GET_FAMILY, &name) {
        Err(error) if error.raw_os_error() == Some(ENOENT) => return Ok(None),
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

/// Attributes of the answer to one question.
fn ask(family: u16, command: u8, attribute: &DefaultNla) -> io::Result<Vec<u8>> {
    let length = HEADERS + attribute.buffer_len();
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence number and port: one question for each socket
    message.extend([command, 1, 0, 0]); // version 1
    message.resize(length, 0);
    attribute.emit(&mut message[HEADERS..]);

    let socket = Socket::new(NETLINK_GENERIC)?;
    socket.send(&message, 0)?;
    let (mut answer, _) = socket.recv_from_full()?;
    let short = || io::Error::other("a netlink answer of too few bytes");
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

/// The value of an attribute; `None` when it is not there or of another length.
fn attribute<const LENGTH: usize>(attributes: &[u8], kind: u16) -> Option<[u8; LENGTH]> {
    NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == kind)
        .and_then(|attribute| attribute.value().try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::by_name;
    use crate::test_netns::{in_new_namespace, ip};

    /// The kernels that tests run on are newer than 6.3, or say that they do not know.
    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn a_veth_can_and_a_loopback_cannot() {
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
            assert_eq!(of(4711).unwrap_err().raw_os_error(), Some(nix::libc::ENODEV));
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
    fn a_family_that_is_not_there_is_none() {
        let name = DefaultNla::new(CONTROLLER_FAMILY_NAME, b"palang\0".to_vec());
        let error = ask(CONTROLLER, CONTROLLER_GET_FAMILY, &name).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(ENOENT));
    }
}
