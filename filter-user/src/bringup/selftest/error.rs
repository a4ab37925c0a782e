//! Reasons why the self-test cannot run.

use std::io;

use nix::errno::Errno;

use crate::datapath;

/// An error of the self-test. Its text includes the cause.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program or a map cannot be used.
    #[error(transparent)]
    Datapath(#[from] datapath::Error),
    /// The process may not make a network namespace.
    #[error(
        "cannot make a network namespace: no permission (CAP_SYS_ADMIN); run sudo palang selftest"
    )]
    Permission,
    /// The kernel makes no network namespace.
    #[error("cannot make a network namespace: {0}; is CONFIG_NET_NS=y?")]
    Namespace(#[source] Errno),
    /// The thread of the test panicked.
    #[error("the self-test's thread panicked")]
    Panic,
    /// No asynchronous runtime.
    #[error("cannot start a runtime: {0}")]
    Runtime(#[source] io::Error),
    /// No veth pair.
    #[error("cannot make a veth pair: {0}")]
    VethPair(#[source] io::Error),
    /// No packet socket.
    #[error("cannot open a packet socket (CAP_NET_RAW): {0}")]
    PacketSocket(#[source] io::Error),
    /// The SIP port cannot be bound.
    #[error("cannot open UDP port {port}: {source}")]
    Port {
        /// The port.
        port: u16,
        /// The error of the system call.
        source: io::Error,
    },
    /// A message does not fit a frame.
    #[error("cannot build a frame of the message")]
    Frame,
    /// A frame was sent in part.
    #[error("only {sent} bytes of {length} were sent")]
    SentInPart {
        /// Bytes that were sent.
        sent: usize,
        /// Bytes of the frame.
        length: usize,
    },
    /// A frame was not sent.
    #[error("cannot send: {0}")]
    Send(#[source] Errno),
    /// The message that always passes did not arrive.
    #[error("no message arrives after the filter, not even OPTIONS")]
    NothingArrives,
}
