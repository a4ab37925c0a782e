//! A trunk and a gate in two network namespaces with a veth pair between them.
//!
//! ```text
//!  namespace trunk                    namespace gate
//!  Sender ── trunk0 10.112.0.1 ═════ gate0 10.112.0.2 ── XDP ── Receiver, Kamailio, palang
//! ```
//! Needs root and the programs `ip`, `ethtool`, `nsenter` and `timeout`.

pub mod daemon;
pub mod flood;
pub mod message;
mod namespace;
mod receiver;
pub mod run;
mod sender;
mod traffic;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

pub use daemon::Daemon;
pub use flood::{Callers, Flood};
pub use receiver::{Arrival, Receiver};
pub use sender::Sender;
pub use traffic::{Invite, Record, Traffic};

use namespace::Namespace;

/// Address of `trunk0`.
pub const TRUNK: Ipv4Addr = Ipv4Addr::new(10, 112, 0, 1);
/// Address of `gate0`.
pub const GATE: Ipv4Addr = Ipv4Addr::new(10, 112, 0, 2);
/// IPv6 address of `trunk0`.
pub const TRUNK6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x112, 0, 0, 0, 0, 0, 1);
/// IPv6 address of `gate0`.
pub const GATE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x112, 0, 0, 0, 0, 0, 2);
/// The interface that a gate stands on.
pub const INTERFACE: &str = "gate0";

/// The trunk's end of the pair.
pub const TRUNK_INTERFACE: &str = "trunk0";
/// Hardware addresses of `trunk0` and `gate0`.
pub const MACS: [&str; 2] = ["02:00:00:00:01:12", "02:00:00:00:02:12"];

/// Two namespaces and the veth pair between them; dropped, they are gone with every process in
/// them. Any number of labs stand side by side.
pub struct Lab {
    trunk: Namespace,
    gate: Namespace,
}

impl Lab {
    /// A lab with namespaces `palang-<pid>-<n>-<name>-gate` and `…-trunk`.
    ///
    /// # Panics
    /// When it cannot be built, which names the command that failed.
    #[must_use]
    pub fn new(name: &str) -> Lab {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(|| {
            namespace::sweep();
            daemon::sweep();
        });
        let prefix = format!("palang-{}-{name}", unique());
        let lab = Lab {
            trunk: Namespace::new(format!("{prefix}-trunk")),
            gate: Namespace::new(format!("{prefix}-gate")),
        };
        lab.create_veth();
        lab
    }

    /// The gate's network namespace, as a file.
    #[must_use]
    pub fn gate_namespace(&self) -> std::path::PathBuf {
        self.gate.path()
    }

    /// A command that runs `program` in the gate's namespace, with the pid of the command.
    #[must_use]
    pub fn command_in_gate(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.gate.command(program)
    }

    /// A command that runs `program` in the trunk's namespace, with the pid of the command.
    #[must_use]
    pub fn command_in_trunk(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.trunk.command(program)
    }

    /// A UDP socket of the trunk.
    ///
    /// # Panics
    /// When the kernel gives none.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender::new(&self.trunk)
    }

    /// A UDP socket on `port` of the gate, read by a thread of its own.
    ///
    /// # Panics
    /// When the kernel gives none.
    #[must_use]
    pub fn receiver(&self, port: u16) -> Receiver {
        Receiver::new(&self.gate, port)
    }

    /// INVITEs of all `callers` in turn (each a From user, as it is written into the message), to
    /// the receiver's port, `per_second` of them and `at_most` so many.
    ///
    /// # Panics
    /// When the kernel gives no socket.
    #[must_use]
    pub fn traffic<'a>(
        &'a self,
        receiver: &'a Receiver,
        callers: &[&str],
        per_second: u32,
        at_most: usize,
    ) -> Traffic<'a> {
        Traffic::start(self, receiver, callers, per_second, at_most)
    }

    /// INVITEs to port 5060 of the gate, as fast as one thread sends them.
    ///
    /// # Panics
    /// When the kernel gives no socket.
    #[must_use]
    pub fn flood(&self, callers: Callers) -> Flood<'_> {
        Flood::start(self, &self.trunk, callers)
    }

    /// Runs a function on a thread inside the gate's namespace; sockets that it makes stay there.
    ///
    /// # Panics
    /// When the namespace cannot be entered or the function panics.
    pub fn in_gate<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.gate.inside(work)
    }

    /// Runs a function on a thread inside the trunk's namespace; sockets that it makes stay there.
    ///
    /// # Panics
    /// When the namespace cannot be entered or the function panics.
    pub fn in_trunk<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.trunk.inside(work)
    }

    /// Takes the veth pair away, and with it whatever was attached to it.
    ///
    /// # Panics
    /// When there is none.
    pub fn delete_veth(&self) {
        self.trunk.ip(&["link", "del", TRUNK_INTERFACE]);
    }

    /// The veth pair, with the same names and addresses each time.
    ///
    /// # Panics
    /// When there is one already.
    pub fn create_veth(&self) {
        // One queue: what was sent first is judged first.
        let queues = ["numtxqueues", "1", "numrxqueues", "1"];
        let mut add = vec!["link", "add", TRUNK_INTERFACE, "address", MACS[0]];
        add.extend(queues);
        add.extend(["type", "veth", "peer", "name", INTERFACE, "address", MACS[1]]);
        add.extend(queues);
        add.extend(["netns", self.gate.name()]);
        self.trunk.ip(&add);
        let (trunk, gate): ([IpAddr; 2], [IpAddr; 2]) =
            ([TRUNK.into(), TRUNK6.into()], [GATE.into(), GATE6.into()]);
        // The gate first: what a trunk that is up sends to a gate that is not is lost.
        let ends = [
            (&self.gate, INTERFACE, gate, trunk, MACS[0]),
            (&self.trunk, TRUNK_INTERFACE, trunk, gate, MACS[1]),
        ];
        for (namespace, interface, own, neighbours, mac) in ends {
            let mut offload = namespace.command("ethtool");
            // GRO, because with it a packet waits in the same queue with XDP and without: none
            // overtakes another while a program comes or goes. A driver that cannot is fine; then
            // it does not.
            run::run(offload.args(["-K", interface, "tx", "off", "rx", "off", "gro", "on"]));
            for address in own {
                let prefix = if address.is_ipv4() { 24 } else { 64 };
                let address = format!("{address}/{prefix}");
                // `nodad`: an IPv6 address is usable at once.
                namespace.ip(&["addr", "add", &address, "dev", interface, "nodad"]);
            }
            namespace.ip(&["link", "set", interface, "up"]);
            // Nothing waits because a neighbour is not known yet.
            for address in neighbours {
                let address = address.to_string();
                namespace.ip(&["neigh", "replace", &address, "lladdr", mac, "dev", interface]);
            }
        }
    }

    /// The veth pair deleted and made anew: another interface with the same name.
    ///
    /// # Panics
    /// When `ip` fails.
    pub fn delete_and_recreate_veth(&self) {
        self.delete_veth();
        self.create_veth();
    }

    /// Packets from trunk to gate that the veth pair itself lost; what an XDP program drops is
    /// not among them. 0 while there is no veth pair.
    fn lost_by_veth(&self) -> u64 {
        let trunk = self.trunk.dropped(TRUNK_INTERFACE, "tx");
        let gate = self.gate.dropped(INTERFACE, "rx");
        trunk + gate
    }
}

/// `<pid>-<n>`: different for every call in every process.
fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Whether `name` is `<prefix><pid>-…` of a process that has ended.
fn is_left_over(name: &str, prefix: &str) -> bool {
    let pid = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next());
    pid.and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
}

/// CLOCK_MONOTONIC, in nanoseconds: the clock of [`Invite::sent_at`].
///
/// # Panics
/// Never on Linux.
#[must_use]
pub fn now() -> u64 {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    let time = nix::time::clock_gettime(clock).expect("CLOCK_MONOTONIC");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}
