//! Sends whole IP packets by raw sockets (raw(7), CAP_NET_RAW): the kernel finds their route, their neighbour and the
//! VLAN tag.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn,
    SockaddrIn6, SockaddrLike, sendmsg, socket,
};

/// Lengths of headers (RFC 791 §3.1, RFC 8200 §3 and §4.5).
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const FRAGMENT_LEN: usize = 8;
/// The protocol number of a fragment header.
const FRAGMENT: u8 = 44;
/// Lengths of packets that a smaller MTU accepts: each IPv6 link (RFC 8200 §5), and each IPv4 host (RFC 791 §3.1).
const SMALLER: [usize; 2] = [1280, 576];

/// Sockets that send IP packets with their own headers. They receive nothing (`IPPROTO_RAW`).
#[derive(Debug)]
pub struct RawIp {
    ipv4: OwnedFd,
    /// `None` on a kernel without IPv6.
    ipv6: Option<OwnedFd>,
}

impl RawIp {
    /// Opens the sockets.
    ///
    /// # Errors
    /// Returns the error of the system call: `EPERM` without CAP_NET_RAW.
    pub fn open() -> io::Result<RawIp> {
        let open = |family| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            socket(family, SockType::Raw, flags, SockProtocol::Raw)
        };
        let ipv4 = open(AddressFamily::Inet)?;
        let ipv6 = match open(AddressFamily::Inet6) {
            Err(Errno::EAFNOSUPPORT) => None,
            opened => Some(opened?),
        };
        Ok(RawIp { ipv4, ipv6 })
    }

    /// Sends an IP packet. A link-local destination is on the interface with this index. A packet that is longer than the
    /// MTU leaves in fragments.
    ///
    /// # Errors
    /// Returns the error of the system call, such as `ENETUNREACH` without a route.
    pub fn send(&self, packet: &[u8], interface: u32) -> io::Result<()> {
        let mut sent = self.send_one(packet, interface);
        for len in SMALLER {
            if sent != Err(Errno::EMSGSIZE) || packet.len() <= len {
                break;
            }
            let id = getrandom::u32().unwrap_or_default();
            let parts = fragments(packet, len, id);
            sent = parts.iter().try_for_each(|part| self.send_one(part, interface));
        }
        Ok(sent?)
    }

    fn send_one(&self, packet: &[u8], interface: u32) -> Result<(), Errno> {
        let malformed = Errno::EINVAL;
        match packet.first().ok_or(malformed)? >> 4 {
            4 => {
                let (source, to) = (address(packet, 12), address(packet, 16));
                let (source, to): ([u8; 4], [u8; 4]) =
                    (source.ok_or(malformed)?, to.ok_or(malformed)?);
                let to = SockaddrIn::from(std::net::SocketAddrV4::new(Ipv4Addr::from(to), 0));
                // The route may depend on the source.
                let source = libc::in_addr { s_addr: u32::from_ne_bytes(source) };
                let info =
                    libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: source };
                send(&self.ipv4, packet, &[ControlMessage::Ipv4PacketInfo(&info)], &to)
            }
            6 => {
                let socket = self.ipv6.as_ref().ok_or(Errno::EAFNOSUPPORT)?;
                let (source, to) = (address(packet, 8), address(packet, 24));
                let (source, to): ([u8; 16], [u8; 16]) =
                    (source.ok_or(malformed)?, to.ok_or(malformed)?);
                let to = Ipv6Addr::from(to);
                let scope = if to.is_unicast_link_local() { interface } else { 0 };
                let to = SockaddrIn6::from(std::net::SocketAddrV6::new(to, 0, 0, scope));
                let source = libc::in6_addr { s6_addr: source };
                let info = libc::in6_pktinfo { ipi6_addr: source, ipi6_ifindex: scope };
                match send(socket, packet, &[ControlMessage::Ipv6PacketInfo(&info)], &to) {
                    // The source is an address of another machine that this one forwards for.
                    Err(Errno::EINVAL) => send(socket, packet, &[], &to),
                    sent => sent,
                }
            }
            _ => Err(malformed),
        }
    }
}

fn address<const LEN: usize>(packet: &[u8], at: usize) -> Option<[u8; LEN]> {
    packet.get(at..at + LEN)?.try_into().ok()
}

fn send(
    socket: &OwnedFd,
    packet: &[u8],
    control: &[ControlMessage<'_>],
    to: &impl SockaddrLike,
) -> Result<(), Errno> {
    let bytes = [IoSlice::new(packet)];
    sendmsg(socket.as_raw_fd(), &bytes, control, MsgFlags::empty(), Some(to)).map(drop)
}

/// Cuts a packet without options and extension headers into fragments of at most `max` bytes.
fn fragments(packet: &[u8], max: usize, id: u32) -> Vec<Vec<u8>> {
    let is_ipv4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let header_len = if is_ipv4 { IPV4_LEN } else { IPV6_LEN };
    let Some((header, payload)) = packet.split_at_checked(header_len) else { return Vec::new() };
    let room = if is_ipv4 { max - IPV4_LEN } else { max - IPV6_LEN - FRAGMENT_LEN };
    // All but the last have a multiple of eight bytes.
    let parts = payload.chunks(room / 8 * 8);
    let count = parts.len();
    let mut offset = 0;
    let mut made = Vec::new();
    for (index, part) in parts.enumerate() {
        let more = u16::from(index + 1 < count);
        let mut fragment = header.to_vec();
        if is_ipv4 {
            // Length and checksum are written by the kernel. An identification of 0 would be, too.
            fragment[4..6].copy_from_slice(&(id as u16 | 1).to_be_bytes());
            fragment[6..8].copy_from_slice(&((more << 13) | (offset / 8)).to_be_bytes());
        } else {
            let len = (FRAGMENT_LEN + part.len()) as u16;
            fragment[4..6].copy_from_slice(&len.to_be_bytes());
            fragment.extend([fragment[6], 0]);
            fragment.extend((offset | more).to_be_bytes());
            fragment.extend(id.to_be_bytes());
            fragment[6] = FRAGMENT;
        }
        fragment.extend(part);
        offset += part.len() as u16;
        made.push(fragment);
    }
    made
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::time::Duration;

    use etherparse::PacketBuilder;

    use super::*;
    use crate::sys::test_netns::{in_new_namespace, ip};

    fn packet(ipv6: bool, payload: &[u8], port: u16) -> Vec<u8> {
        let mut packet = Vec::new();
        let built = if ipv6 {
            let one = Ipv6Addr::LOCALHOST.octets();
            PacketBuilder::ipv6(one, one, 64).udp(5060, port).write(&mut packet, payload)
        } else {
            let one = Ipv4Addr::LOCALHOST.octets();
            PacketBuilder::ipv4(one, one, 64).udp(5060, port).write(&mut packet, payload)
        };
        built.unwrap();
        packet
    }

    #[test]
    fn fragments_have_all_bytes_in_multiples_of_eight() {
        for ipv6 in [false, true] {
            let whole = packet(ipv6, &[7; 3000], 9);
            let header = if ipv6 { IPV6_LEN } else { IPV4_LEN };
            let parts = fragments(&whole, 1280, 77);
            assert_eq!(parts.len(), 3);
            let extra = if ipv6 { FRAGMENT_LEN } else { 0 };
            let joined: Vec<u8> =
                parts.iter().flat_map(|part| part[header + extra..].to_vec()).collect();
            assert_eq!(joined, whole[header..]);
            assert!(parts.iter().all(|part| part.len() <= 1280));
            assert!(parts[..2].iter().all(|part| (part.len() - header - extra) % 8 == 0));
        }
    }

    // Also with a source that is no address of this machine, and a packet that is longer than the MTU.
    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn packets_arrive_with_the_source_of_their_header() {
        in_new_namespace(async {
            ip("link set lo mtu 1400 up");
            let raw = RawIp::open().unwrap();
            let hosts: [(bool, SocketAddr); 2] =
                [(false, "127.0.0.1:0".parse().unwrap()), (true, "[::1]:0".parse().unwrap())];
            for (ipv6, host) in hosts {
                let receiver = UdpSocket::bind(host).unwrap();
                receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let port = receiver.local_addr().unwrap().port();
                for len in [10, 1300, 1390, 3000] {
                    let payload = vec![b'a'; len];
                    raw.send(&packet(ipv6, &payload, port), 0).unwrap();
                    let mut room = [0; 4096];
                    let (received, from) = receiver.recv_from(&mut room).unwrap();
                    assert_eq!((received, from.port()), (len, 5060), "IPv6 {ipv6}");
                }
            }
            assert!(raw.send(&[0x45; 8], 0).is_err() && raw.send(&[], 0).is_err());
        });
    }

    #[test]
    fn sockets_need_a_capability() {
        let refused = std::thread::spawn(|| {
            caps::clear(None, caps::CapSet::Effective).unwrap();
            RawIp::open().err().and_then(|error| error.raw_os_error())
        });
        assert_eq!(refused.join().unwrap(), Some(Errno::EPERM as i32));
    }
}
