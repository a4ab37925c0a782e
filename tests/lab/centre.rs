//! A SIP server on a machine of its own: the gate forwards the packets to it.
//!
//! ```text
//!  namespace trunk          namespace gate                        namespace centre
//!  trunk0 10.112.0.1 ══════ gate0 10.112.0.2, inner0 10.113.0.1 ══ centre0 10.113.0.2 ── Wire
//! ```
//! The frames are counted on the wire: at a socket, the second look of this kernel would judge a call once more.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};

use super::address::{GATE, GATE6};
use super::namespace::Namespace;
use super::network::Lab;
use super::run;

/// IPv4 address of the SIP server.
pub const CENTRE: Ipv4Addr = Ipv4Addr::new(10, 113, 0, 2);
/// IPv6 address of the SIP server.
pub const CENTRE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x113, 0, 0, 0, 0, 0, 2);

/// The buffer of the socket in the kernel, in bytes.
const BUFFER: usize = 64 << 20;

/// The namespace of the SIP server.
pub struct Centre {
    namespace: Namespace,
}

impl Lab {
    /// Builds the centre, and lets the gate forward packets.
    ///
    /// # Panics
    /// When it cannot be built.
    #[must_use]
    pub fn centre(&self) -> Centre {
        let namespace = Namespace::new(self.gate.name().replace("-gate", "-centre"));
        let peer = ["peer", "name", "centre0", "netns", namespace.name()];
        self.gate.ip(&[&["link", "add", "inner0", "type", "veth"], &peer[..]].concat());
        let (v4, v6) = (format!("{CENTRE}/24"), format!("{CENTRE6}/64"));
        for (place, interface, addresses) in [
            (&self.gate, "inner0", ["10.113.0.1/24", "fd00:113::1/64"]),
            (&namespace, "centre0", [&v4, &v6]),
        ] {
            run::run(place.command("ethtool").args(["-K", interface, "tx", "off", "rx", "off"]));
            for address in addresses {
                place.ip(&["addr", "add", address, "dev", interface, "nodad"]);
            }
            place.ip(&["link", "set", interface, "up"]);
        }
        namespace.ip(&["route", "add", "default", "via", "10.113.0.1"]);
        namespace.ip(&["-6", "route", "add", "default", "via", "fd00:113::1"]);
        self.trunk.ip(&["route", "add", "10.113.0.0/24", "via", &GATE.to_string()]);
        self.trunk.ip(&["-6", "route", "add", "fd00:113::/64", "via", &GATE6.to_string()]);
        self.forward(true);
        Centre { namespace }
    }

    /// Lets the gate forward packets, or not.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn forward(&self, on: bool) {
        for setting in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            let setting = format!("{setting}={}", u8::from(on));
            run::must(self.gate.command("sysctl").args(["-qw", &setting]));
        }
    }
}

impl Centre {
    /// Opens a socket that gets every frame of `centre0`.
    ///
    /// # Panics
    /// When the kernel gives none.
    #[must_use]
    pub fn wire(&self) -> Wire {
        let all = SockProtocol::EthAll;
        let open = || {
            socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_NONBLOCK, all)
                .expect("a packet socket")
        };
        let socket = self.namespace.inside(open);
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).expect("SO_RCVBUFFORCE");
        Wire(socket)
    }
}

/// The frames that arrive at the centre.
pub struct Wire(OwnedFd);

impl Wire {
    /// Waits for a frame with this text, at most 5 s. Returns the number of IP packets with another text that came
    /// before it.
    ///
    /// # Panics
    /// When it does not come.
    #[must_use]
    pub fn packets_before(&self, mark: &str, text: &str) -> usize {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut count = 0;
        let mut room = vec![0; 1 << 16];
        loop {
            match recv(self.0.as_raw_fd(), &mut room, MsgFlags::empty()) {
                Ok(len) if has(&room[..len], mark) => return count,
                Ok(len) => count += usize::from(has(&room[..len], text)),
                Err(_) => {
                    assert!(Instant::now() < deadline, "the way from trunk to centre is cut");
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }
}

fn has(packet: &[u8], text: &str) -> bool {
    packet.windows(text.len()).any(|window| window == text.as_bytes())
}
