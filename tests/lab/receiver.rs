//! A UDP socket in the gate's namespace, and the thread that reads it.

use std::io::IoSliceMut;
use std::net::{Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};

use super::message;
use super::namespace::Namespace;
use super::network::Lab;
use super::process::now;

/// The buffer of the socket in the kernel, in bytes.
const BUFFER: usize = 64 << 20;

/// A datagram that arrived.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When it was read, at the latest; a time of [`now`].
    pub at: u64,
    /// The SIP message; what is not UTF-8 is replaced.
    pub message: String,
}

impl Arrival {
    /// Returns its Call-ID; empty where it has none.
    #[must_use]
    pub fn call_id(&self) -> &str {
        message::header(&self.message, "Call-ID").unwrap_or_default()
    }

    /// Returns the user part of its From header; empty where it has none.
    #[must_use]
    pub fn from_user(&self) -> &str {
        message::from_user(&self.message).unwrap_or_default()
    }
}

/// Keeps every datagram that arrives on a port of the gate.
pub struct Receiver {
    port: u16,
    pub(super) inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
}

/// The datagrams that the thread has read.
#[derive(Default)]
pub(super) struct Inbox {
    arrivals: Mutex<Vec<Arrival>>,
    news: Condvar,
    overflow: AtomicU32,
    stop: AtomicBool,
}

impl Lab {
    /// Opens a UDP socket on `port` of the gate, read by a thread of its own.
    ///
    /// # Panics
    /// When the kernel gives none.
    #[must_use]
    pub fn receiver(&self, port: u16) -> Receiver {
        Receiver::new(&self.gate, port)
    }
}

impl Receiver {
    fn new(gate: &Namespace, port: u16) -> Receiver {
        // `[::]` takes IPv4 as well.
        let socket = gate
            .inside(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)))
            .unwrap_or_else(|error| panic!("UDP port {port} of the gate: {error}"));
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).expect("SO_RCVBUFFORCE");
        setsockopt(&socket, sockopt::RxqOvfl, &1).expect("SO_RXQ_OVFL");
        // So that the thread sees that it is to stop.
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("SO_RCVTIMEO");
        let inbox = Arc::new(Inbox::default());
        let thread = std::thread::spawn({
            let inbox = Arc::clone(&inbox);
            move || inbox.fill(&socket)
        });
        Receiver { port, inbox, thread: Some(thread) }
    }

    /// Returns its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the datagrams that have arrived up to now.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.inbox.lock().clone()
    }

    /// Waits for a datagram that is as wanted, from those that have arrived already on; None
    /// when no such datagram comes within `longest`.
    #[must_use]
    pub fn wait_for(
        &self,
        longest: Duration,
        wanted: impl Fn(&Arrival) -> bool,
    ) -> Option<Arrival> {
        self.inbox.wait_from(&mut 0, longest, wanted)
    }
}

impl Inbox {
    /// Datagrams that the socket had no room for.
    pub fn overflow(&self) -> u64 {
        self.overflow.load(Ordering::Relaxed).into()
    }

    /// Waits for a datagram that is as wanted, from arrival number `seen` on, which is then the
    /// number after it.
    pub fn wait_from(
        &self,
        seen: &mut usize,
        longest: Duration,
        wanted: impl Fn(&Arrival) -> bool,
    ) -> Option<Arrival> {
        let deadline = Instant::now() + longest;
        let mut arrivals = self.lock();
        loop {
            while let Some(arrival) = arrivals.get(*seen) {
                *seen += 1;
                if wanted(arrival) {
                    return Some(arrival.clone());
                }
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            (arrivals, _) = self.news.wait_timeout(arrivals, left).expect("not poisoned");
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.arrivals.lock().expect("the receiver's thread did not panic")
    }

    fn fill(&self, socket: &UdpSocket) {
        let mut datagram = vec![0; 65536];
        let mut control = nix::cmsg_space!(u32);
        while !self.stop.load(Ordering::Relaxed) {
            let mut parts = [IoSliceMut::new(&mut datagram)];
            let received = recvmsg::<()>(
                socket.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::empty(),
            );
            let length = match received {
                Ok(received) => {
                    for message in received.cmsgs().expect("room for one control message") {
                        if let ControlMessageOwned::RxqOvfl(count) = message {
                            self.overflow.store(count, Ordering::Relaxed);
                        }
                    }
                    received.bytes
                }
                Err(Errno::EAGAIN | Errno::EINTR) => continue,
                Err(error) => panic!("receiver: {error}"),
            };
            let message = String::from_utf8_lossy(&datagram[..length]).into_owned();
            self.lock().push(Arrival { at: now(), message });
            self.news.notify_all();
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.inbox.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic poisons the inbox, which each reader of it has seen.
            let _ = thread.join();
        }
    }
}
