//! The self-test's own network: a veth pair in a private namespace, with the filter in the driver of
//! one end. It disappears with the thread that made it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use filter_common::abi::Event;
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::bringup::selftest::call;
use crate::bringup::selftest::error::Error;
use crate::datapath::Trial;
use crate::sys::netlink;

/// The end with the filter, and the end in place of a trunk.
const NEAR: &str = "near";
const FAR: &str = "far";
/// Locally administered addresses (IEEE 802).
const NEAR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x01, 0x12];
const FAR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x02, 0x12];
/// Addresses for documentation (RFC 5737, RFC 3849). No trunk uses them; even if one did, this
/// network is private.
pub const NEAR_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 112);
/// The IPv6 address of the near end.
pub const NEAR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x112, 0, 0, 0, 0, 0x112);
/// Source address if no trunks are configured.
pub const ANYBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 112);

/// Longest time that a packet may take over a veth pair on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest time after one packet was lost: there may be many trunks.
const PATIENCE_LOST: Duration = Duration::from_millis(500);
/// Read timeout of a socket.
const MOMENT: Duration = Duration::from_millis(2);
const LARGEST: usize = 4096;

/// Runs `work` on a thread in a new network namespace.
///
/// # Errors
/// [`Error::Permission`] or [`Error::Namespace`] if the namespace cannot be made, [`Error::Panic`] if
/// the thread panics; otherwise the error of `work`.
pub fn in_own_namespace<T: Send>(
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|error| {
                if error == Errno::EPERM { Error::Permission } else { Error::Namespace(error) }
            })?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err(Error::Panic))
    })
}

/// The outcome of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether it arrived at a socket after the filter.
    pub arrived: bool,
    /// The event of the filter, if it sent one.
    pub event: Option<Event>,
}

/// A veth pair, the filter on it, and a socket on each side.
pub struct Veth {
    trial: Trial,
    far: OwnedFd,
    sockets: Vec<UdpSocket>,
    port: u16,
    sent: u32,
    patience: Duration,
}

impl Veth {
    /// Makes the pair in the namespace of this thread. `port` is the SIP port.
    ///
    /// # Errors
    /// [`Error::Runtime`], [`Error::VethPair`], [`Error::Datapath`], [`Error::PacketSocket`] or
    /// [`Error::Port`], by the step that failed.
    pub fn new(mut trial: Trial, port: u16, with_ipv6: bool) -> Result<Veth, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        let index = runtime.block_on(pair(with_ipv6)).map_err(Error::VethPair)?;
        trial.attach(NEAR)?;
        let far = packet_socket(index).map_err(Error::PacketSocket)?;
        let addresses: [IpAddr; 2] = [NEAR_V4.into(), NEAR_V6.into()];
        let sockets = addresses.into_iter().filter(|address| with_ipv6 || address.is_ipv4());
        let sockets: io::Result<Vec<_>> = sockets
            .map(|address| {
                let socket = UdpSocket::bind((address, port))?;
                socket.set_read_timeout(Some(MOMENT))?;
                Ok(socket)
            })
            .collect();
        let sockets = sockets.map_err(|source| Error::Port { port, source })?;
        Ok(Veth { trial, far, sockets, port, sent: 0, patience: PATIENCE })
    }

    /// Returns the filter and its maps.
    pub fn trial(&mut self) -> &mut Trial {
        &mut self.trial
    }

    /// Sends an INVITE with this much filling and then a message that always passes. Returns the outcome of the INVITE when the
    /// second message has arrived and the filter has sent its event.
    ///
    /// # Errors
    /// [`Error::NothingArrives`] if the second message does not arrive: the outcome is then unknown.
    /// Otherwise the error of sending or of reading the events.
    pub fn call(
        &mut self,
        caller: &call::Caller,
        asserted: bool,
        source: IpAddr,
        filling: usize,
    ) -> Result<Seen, Error> {
        self.sent += 1;
        let call_id = format!("{}-{}@selftest.invalid", std::process::id(), self.sent);
        let marker = format!("after-{call_id}");
        self.send(source, &call::invite(caller, asserted, &call_id, filling))?;
        self.send(source, &call::options(&marker))?;
        let deadline = Instant::now() + self.patience;
        let (mut seen, mut marker_arrived) = (Seen::default(), false);
        loop {
            for text in self.received() {
                seen.arrived |= text.contains(&format!("\r\nCall-ID: {call_id}\r\n"));
                marker_arrived |= text.contains(&format!("\r\nCall-ID: {marker}\r\n"));
            }
            let events = self.trial.events()?;
            let ours = events.iter().find(|entry| entry.call_id() == call_id.as_bytes());
            seen.event = seen.event.or(ours.map(|entry| entry.event));
            let passed = seen.event.is_some_and(|event| event.verdict == 0);
            // A packet that passed may reach its socket later than the second message.
            if marker_arrived && seen.event.is_some() && (seen.arrived || !passed) {
                return Ok(seen);
            }
            if Instant::now() > deadline {
                break;
            }
        }
        self.patience = PATIENCE_LOST;
        if marker_arrived { Ok(seen) } else { Err(Error::NothingArrives) }
    }

    fn send(&self, source: IpAddr, message: &str) -> Result<(), Error> {
        let destination = if source.is_ipv4() { NEAR_V4.into() } else { NEAR_V6.into() };
        let macs = (FAR_MAC, NEAR_MAC);
        let frames = call::frames(macs, source, destination, self.port, message, self.sent);
        for frame in frames.ok_or(Error::Frame)? {
            let length = frame.len();
            match nix::unistd::write(&self.far, &frame).map_err(Error::Send)? {
                sent if sent == length => {}
                sent => return Err(Error::SentInPart { sent, length }),
            }
        }
        Ok(())
    }

    fn received(&self) -> Vec<String> {
        let mut texts = Vec::new();
        let mut bytes = [0; LARGEST];
        for socket in &self.sockets {
            // Nothing arrived within the timeout, or the socket has an error and yields nothing more.
            while let Ok((length, _)) = socket.recv_from(&mut bytes) {
                texts.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
            }
        }
        texts
    }
}

/// Makes the pair and returns the index of the far end.
async fn pair(with_ipv6: bool) -> io::Result<u32> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let made = make(&handle, with_ipv6).await.map_err(io::Error::other);
    connection.abort();
    made?;
    let far = netlink::by_name(FAR).await?;
    far.map(|link| link.index).ok_or_else(|| io::Error::other("the interface is missing"))
}

async fn make(
    handle: &Handle,
    with_ipv6: bool,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let pair = LinkVeth::new(NEAR, FAR).address(NEAR_MAC.to_vec()).build();
    handle.link().add(pair).execute().await?;
    for name in [NEAR, FAR] {
        let up: LinkMessage = LinkUnspec::new_with_name(name).up().build();
        handle.link().set(up).execute().await?;
    }
    let near = netlink::by_name(NEAR).await?.ok_or("the interface is missing")?.index;
    handle.address().add(near, NEAR_V4.into(), 32).execute().await?;
    if with_ipv6 {
        let mut add = handle.address().add(near, NEAR_V6.into(), 128);
        // Without duplicate address detection, which would take a second.
        add.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        add.execute().await?;
    }
    // All sources are routed here: otherwise the kernel's reverse path filter drops the calls.
    let everybody = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(near).build();
    handle.route().add(everybody).execute().await?;
    Ok(())
}

/// Opens a socket that sends whole frames out of an interface (packet(7)).
#[expect(unsafe_code, reason = "nix binds no packet socket to an interface by its index")]
fn packet_socket(index: u32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: a system call with three integers. Protocol 0 receives nothing.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this file descriptor for us.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zeroes are a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index.cast_signed();
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel reads the struct of the given length, which outlives the call.
    match unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}
