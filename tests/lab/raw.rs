//! A raw socket in the trunk's namespace.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use super::network::Lab;

/// Length of an Ethernet header.
const ETHERNET_LEN: usize = 14;

/// Sends IPv4 packets as they are, fragments too.
pub struct Raw(OwnedFd);

impl Raw {
    /// Opens a socket in the trunk's namespace.
    ///
    /// # Panics
    /// When the kernel gives none.
    #[must_use]
    pub fn of(lab: &Lab) -> Raw {
        let open =
            || socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw);
        Raw(lab.in_trunk(open).expect("a raw socket"))
    }

    /// Sends the IPv4 packet of an Ethernet frame.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub fn send(&self, frame: &[u8], to: Ipv4Addr) {
        let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
        sendto(self.0.as_raw_fd(), &frame[ETHERNET_LEN..], &to, MsgFlags::empty()).expect("sent");
    }
}
