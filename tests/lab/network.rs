//! The two network namespaces and the veth pair between them.

use std::net::IpAddr;
use std::process::Command;
use std::sync::Once;

use super::address::{GATE, GATE6, INTERFACE, MACS, TRUNK, TRUNK_INTERFACE, TRUNK6};
use super::namespace::{self, Namespace};
use super::pins;
use super::process::unique;
use super::run;

/// Two namespaces and the veth pair between them; dropped, they are gone with every process in
/// them. Any number of labs exist side by side.
pub struct Lab {
    pub(super) trunk: Namespace,
    pub(super) gate: Namespace,
}

impl Lab {
    /// Builds a lab with namespaces `palang-<pid>-<n>-<name>-gate` and `…-trunk`.
    ///
    /// # Panics
    /// When it cannot be built, which names the command that failed.
    #[must_use]
    pub fn new(name: &str) -> Lab {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(|| {
            namespace::sweep();
            pins::sweep();
        });
        let prefix = format!("palang-{}-{name}", unique());
        let lab = Lab {
            trunk: Namespace::new(format!("{prefix}-trunk")),
            gate: Namespace::new(format!("{prefix}-gate")),
        };
        lab.create_veth();
        lab
    }

    /// Returns the file of the gate's network namespace.
    #[must_use]
    pub fn gate_namespace(&self) -> std::path::PathBuf {
        self.gate.path()
    }

    /// Returns a command that runs `program` in the gate's namespace, with the pid of the command.
    #[must_use]
    pub fn command_in_gate(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.gate.command(program)
    }

    /// Returns a command that runs `program` in the trunk's namespace, with the pid of the command.
    #[must_use]
    pub fn command_in_trunk(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.trunk.command(program)
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

    /// Deletes the veth pair, and with it the programs that were attached to it.
    ///
    /// # Panics
    /// When there is no pair.
    pub fn delete_veth(&self) {
        self.trunk.ip(&["link", "del", TRUNK_INTERFACE]);
    }

    /// Creates the veth pair, with the same names and addresses each time.
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

    /// Deletes the veth pair and creates it again: another interface with the same name.
    ///
    /// # Panics
    /// When `ip` fails.
    pub fn delete_and_recreate_veth(&self) {
        self.delete_veth();
        self.create_veth();
    }

    /// Packets from trunk to gate that the veth pair itself lost; what an XDP program drops is
    /// not among them. 0 while there is no veth pair.
    pub(super) fn lost_by_veth(&self) -> u64 {
        let trunk = self.trunk.dropped(TRUNK_INTERFACE, "tx");
        let gate = self.gate.dropped(INTERFACE, "rx");
        trunk + gate
    }
}
