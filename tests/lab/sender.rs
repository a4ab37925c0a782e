//! A UDP socket in the trunk's namespace.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};

use super::address::{GATE, GATE6};
use super::namespace::Namespace;
use super::network::Lab;

/// Sends from the trunk to the gate.
pub struct Sender {
    socket: UdpSocket,
}

impl Lab {
    /// Opens a UDP socket of the trunk.
    ///
    /// # Panics
    /// When the kernel gives none.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender::new(&self.trunk)
    }
}

impl Sender {
    fn new(trunk: &Namespace) -> Sender {
        // `[::]` sends IPv4 as well.
        let socket = trunk.inside(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)));
        Sender { socket: socket.expect("a UDP socket in the trunk's namespace") }
    }

    /// Sends one datagram to `port` of the gate, over IPv4.
    ///
    /// # Errors
    /// Returns the error of the kernel: there may be no interface.
    pub fn send(&self, port: u16, message: &[u8]) -> io::Result<()> {
        self.send_to((GATE.to_ipv6_mapped(), port).into(), message)
    }

    /// Sends one datagram to `port` of the gate, over IPv6.
    ///
    /// # Errors
    /// Returns the error of the kernel: there may be no interface.
    pub fn send6(&self, port: u16, message: &[u8]) -> io::Result<()> {
        self.send_to((GATE6, port).into(), message)
    }

    fn send_to(&self, address: SocketAddr, message: &[u8]) -> io::Result<()> {
        self.socket.send_to(message, address).map(drop)
    }
}
