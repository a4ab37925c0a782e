//! A trunk that floods and a gate that is measured, on the two ends of a veth pair.
//!
//! ```text
//!  CPU 0                               CPU 1
//!  flood, honest callers ═ trunk0 ═ gate0 ═ NAPI thread ─ XDP ─ network stack ─ Kamailio
//! ```
//! A kernel thread runs the receive path of `gate0`, so the CPU time of the thread is the cost of the
//! packets.

pub mod cpu;
pub mod flood;
pub mod gate;
pub mod honest;
pub mod invites;
pub mod kamailio;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use palang_tests::lab::run::run;
use palang_tests::lab::{INTERFACE, Lab};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// CPU of the senders.
pub const SENDER_CPU: usize = 0;
/// CPU of the receivers.
pub const RECEIVER_CPU: usize = 1;

/// The veth pair and the receiving thread.
pub struct Bench {
    /// The two namespaces.
    pub lab: Lab,
    napi: u32,
    interrupted: Arc<AtomicBool>,
}

/// Counters of the kernel at one moment.
#[derive(Clone, Copy)]
pub struct Counts {
    at: Instant,
    /// Packets that the receiving thread processed.
    pub packets: u64,
    /// Datagrams that a program read from its socket.
    pub read: u64,
    /// Datagrams that reached UDP, with any outcome.
    pub udp: u64,
    /// Datagrams that the gate sent.
    pub sent: u64,
    /// Datagrams for which the socket's buffer was full.
    pub overflow: u64,
    /// CPU nanoseconds of the receiving thread.
    pub napi: u64,
    /// CPU nanoseconds of the named programs.
    pub programs: u64,
}

impl Counts {
    /// Returns the changes since `before`, and the seconds between.
    pub fn since(&self, before: &Counts) -> (Counts, f64) {
        let difference = Counts {
            at: self.at,
            packets: self.packets - before.packets,
            read: self.read - before.read,
            udp: self.udp - before.udp,
            sent: self.sent - before.sent,
            overflow: self.overflow - before.overflow,
            napi: self.napi - before.napi,
            programs: self.programs.saturating_sub(before.programs),
        };
        (difference, (self.at - before.at).as_secs_f64())
    }
}

impl Bench {
    /// Creates the pair and its thread. Everything is removed when this is dropped.
    pub fn new() -> Result<Bench> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        ensure!(
            cpus >= 2,
            "two CPUs are needed, one to send and one to receive: this machine has {cpus}"
        );
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        let before = napi_threads()?;
        let lab = Lab::new("bench");
        // In the sysfs of the namespace, because no other one has the interface.
        let threaded =
            format!("mount -t sysfs sysfs /sys && echo 1 > /sys/class/net/{INTERFACE}/threaded");
        let mut command = lab.command_in_gate("unshare");
        must(command.args(["--mount", "sh", "-c", &threaded]))?;
        let mut new = napi_threads()?;
        new.retain(|thread| !before.contains(thread));
        let [napi] = *Vec::from_iter(new) else {
            bail!("{INTERFACE} has no NAPI thread of its own: does `ethtool -K … gro on` work?");
        };
        cpu::pin(napi, RECEIVER_CPU)?;
        Ok(Bench { lab, napi, interrupted })
    }

    /// Fails if the user has interrupted the run.
    pub fn go_on(&self) -> Result<()> {
        ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted; all is removed");
        Ok(())
    }

    /// Waits, and fails if the user interrupts the run.
    pub fn wait(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.go_on()?;
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
        self.go_on()
    }

    /// Returns the present counters of the gate's kernel and the time of `programs`.
    pub fn counts(&self, programs: &[u32]) -> Result<Counts> {
        self.lab.in_gate(|| {
            let at = Instant::now();
            let programs = programs.iter().map(|&pid| cpu::time(pid)).sum::<Result<u64>>()?;
            let napi = cpu::time(self.napi)?;
            let device = fs::read_to_string("/proc/thread-self/net/dev")?;
            let snmp = fs::read_to_string("/proc/thread-self/net/snmp")?;
            let udp = |name| udp_counter(&snmp, name);
            Ok(Counts {
                at,
                packets: received(&device)?,
                read: udp("InDatagrams")?,
                udp: udp("InDatagrams")? + udp("NoPorts")? + udp("InErrors")?,
                sent: udp("OutDatagrams")?,
                overflow: udp("RcvbufErrors")?,
                napi,
                programs,
            })
        })
    }
}

/// Runs a command that must succeed and returns its output.
pub fn must(command: &mut Command) -> Result<String> {
    let output = run(command);
    ensure!(output.code == 0, "{command:?}: {}", output.stderr.trim());
    Ok(output.stdout)
}

/// Returns the packets received by the gate's interface, from /proc/net/dev.
fn received(device: &str) -> Result<u64> {
    let prefix = format!("{INTERFACE}:");
    let line = device.lines().find_map(|line| line.trim().strip_prefix(&prefix));
    let packets = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    packets.with_context(|| format!("no {INTERFACE} in /proc/net/dev: {device}"))
}

/// Returns a counter of /proc/net/snmp: a line of names, then a line of numbers.
fn udp_counter(snmp: &str, name: &str) -> Result<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let names = lines.next().unwrap_or_default().split(' ');
    let numbers = lines.next().unwrap_or_default().split(' ');
    let found = names.zip(numbers).find(|(one, _)| *one == name);
    let number = found.and_then(|(_, number)| number.parse().ok());
    number.with_context(|| format!("no {name} of Udp in /proc/net/snmp"))
}

/// Returns the kernel threads that receive for interfaces with this name, in any namespace.
fn napi_threads() -> Result<HashSet<u32>> {
    // The kernel cuts names to 15 characters.
    let prefix = format!("napi/{INTERFACE}-");
    let mut threads = HashSet::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A thread that has ended by now is skipped.
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with(&prefix) {
            threads.insert(pid);
        }
    }
    Ok(threads)
}

/// Ensures that a program is installed, if necessary from its Debian package. `false` if it is missing.
pub fn is_installed(program: &str, package: &str) -> bool {
    let is_there = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<_> = std::env::split_paths(&path).collect();
        folders.extend(["/usr/sbin", "/sbin"].map(|folder| Path::new(folder).to_owned()));
        folders.iter().any(|folder| folder.join(program).is_file())
    };
    if is_there() {
        return true;
    }
    eprintln!("{program} is not installed: apt-get install {package}");
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "-q", package]).env("DEBIAN_FRONTEND", "noninteractive");
    // Without apt, the program cannot be installed.
    install.output().is_ok_and(|output| output.status.success()) && is_there()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_their_names() {
        let snmp = "Ip: Forwarding InReceives\nIp: 1 2\nUdp: InDatagrams NoPorts\nUdp: 7 8\nUdpLite: InDatagrams\nUdpLite: 9\n";
        assert_eq!(udp_counter(snmp, "InDatagrams").ok(), Some(7));
        assert_eq!(udp_counter(snmp, "NoPorts").ok(), Some(8));
        assert!(udp_counter(snmp, "InErrors").is_err());
    }

    #[test]
    fn packets_of_the_right_interface_are_read() {
        let device = "face |bytes packets\n    lo: 5 6 0\n gate0: 900 12 0 0\n";
        assert_eq!(received(device).ok(), Some(12));
        assert!(received("    lo: 5 6 0\n").is_err());
    }
}
