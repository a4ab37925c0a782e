//! A trunk and a gate in two network namespaces with a veth pair between them.
//!
//! ```text
//!  namespace trunk                    namespace gate
//!  Sender ── trunk0 10.112.0.1 ═════ gate0 10.112.0.2 ── XDP ── Receiver, Kamailio, palang
//! ```
//! Needs root and the programs `ip`, `ethtool`, `nsenter` and `timeout`.

mod address;
pub mod bpf;
pub mod carrier;
pub mod centre;
pub mod daemon;
pub mod flood;
pub mod foreign_xdp;
pub mod message;
mod namespace;
mod network;
mod pins;
mod process;
mod raw;
mod receiver;
pub mod run;
mod sender;
mod traffic;
mod wait;

pub use address::{GATE, GATE6, INTERFACE, MACS, TRUNK, TRUNK_INTERFACE, TRUNK6};
pub use daemon::Daemon;
pub use flood::{Callers, Flood};
pub use network::Lab;
pub use process::now;
pub use raw::Raw;
pub use receiver::{Arrival, Receiver};
pub use sender::Sender;
pub use traffic::{Invite, Record, Traffic};
pub use wait::{eventually, eventually_within};
