//! A SIP server on a machine of its own: the gate forwards the packets to it.
//!
//! ```text
//!  namespace trunk          namespace gate                        namespace centre
//!  trunk0 10.112.0.1 ══════ gate0 10.112.0.2, inner0 10.113.0.1 ══ centre0 10.113.0.2 ── Receiver
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

use super::address::{GATE, GATE6};
use super::namespace::Namespace;
use super::network::Lab;
use super::receiver::Receiver;
use super::run;

/// IPv4 address of the SIP server.
pub const CENTRE: Ipv4Addr = Ipv4Addr::new(10, 113, 0, 2);
/// IPv6 address of the SIP server.
pub const CENTRE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x113, 0, 0, 0, 0, 0, 2);

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
    /// Opens a UDP socket on a port of the SIP server, read by a thread of its own.
    ///
    /// # Panics
    /// When the kernel gives none.
    #[must_use]
    pub fn receiver(&self, port: u16) -> Receiver {
        Receiver::new(&self.namespace, port)
    }
}
