//! A trunk that floods and a gate that is measured, on the two ends of a veth pair.
//!
//! ```text
//!  CPU 0                               CPU 1
//!  flood, honest callers ═ trunk0 ═ gate0 ═ NAPI thread ─ XDP ─ network stack ─ Kamailio
//! ```
//! The receive path of `gate0` is a kernel thread, so that what a packet costs can be read as the
//! thread's time on the CPU.

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

/// Who sends runs here.
pub const SENDER_CPU: usize = 0;
/// Who receives runs here.
pub const RECEIVER_CPU: usize = 1;

/// The veth pair, and the thread that receives.
pub struct Bench {
    /// The two namespaces.
    pub lab: Lab,
    napi: u32,
    interrupted: Arc<AtomicBool>,
}

/// What the kernel has counted up to a moment.
#[derive(Clone, Copy)]
pub struct Counts {
    at: Instant,
    /// Packets that the receiving thread took.
    pub packets: u64,
    /// Datagrams that a program read from its socket.
    pub read: u64,
    /// Datagrams that came as far as UDP, whatever became of them.
    pub udp: u64,
    /// Datagrams that the gate sent.
    pub sent: u64,
    /// Datagrams that found the socket's buffer full.
    pub overflow: u64,
    /// Nanoseconds on the CPU of the receiving thread.
    pub napi: u64,
    /// The same of the programs that were named.
    pub programs: u64,
}

impl Counts {
    /// What came since `before`, and in how many seconds.
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
    /// Makes the pair and its thread. All of it is gone when this is dropped.
    pub fn new() -> Result<Bench> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        ensure!(cpus >= 2, "one CPU sends and another receives: this machine has only {cpus}");
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        let before = napi_threads()?;
        let lab = Lab::new("bench");
        // Of the namespace's own sysfs, which stands in no other.
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

    /// Fails when the user wants to end it.
    pub fn go_on(&self) -> Result<()> {
        ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted; all is removed");
        Ok(())
    }

    /// Waits, and fails when the user wants to end it.
    pub fn wait(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.go_on()?;
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
        self.go_on()
    }

    /// What the gate's kernel has counted up to now, and the time that `programs` took.
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

/// Runs a command that has to succeed; what it printed.
pub fn must(command: &mut Command) -> Result<String> {
    let output = run(command);
    ensure!(output.code == 0, "{command:?}: {}", output.stderr.trim());
    Ok(output.stdout)
}

/// Packets received by the gate's interface, of /proc/net/dev.
fn received(device: &str) -> Result<u64> {
    let prefix = format!("{INTERFACE}:");
    let line = device.lines().find_map(|line| line.trim().strip_prefix(&prefix));
    let packets = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    packets.with_context(|| format!("no {INTERFACE} in /proc/net/dev: {device}"))
}

/// A counter of /proc/net/snmp: a line of names, then a line of numbers.
fn udp_counter(snmp: &str, name: &str) -> Result<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let names = lines.next().unwrap_or_default().split(' ');
    let numbers = lines.next().unwrap_or_default().split(' ');
    let found = names.zip(numbers).find(|(one, _)| *one == name);
    let number = found.and_then(|(_, number)| number.parse().ok());
    number.with_context(|| format!("no {name} of Udp in /proc/net/snmp"))
}

/// The kernel threads that receive for interfaces of this name, in any namespace.
fn napi_threads() -> Result<HashSet<u32>> {
    // The kernel cuts names to 15 characters.
    let prefix = format!("napi/{INTERFACE}-");
    let mut threads = HashSet::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that has ended meanwhile is none.
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with(&prefix) {
            threads.insert(pid);
        }
    }
    Ok(threads)
}

/// Makes sure that a program is there, if need be by Debian's package. `false`: it is not.
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
    // Where there is no apt, there is no such program either.
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
