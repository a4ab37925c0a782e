//! Shows when the daemon has nothing to do but wait, by the states of its threads (proc(5)).

use std::collections::BTreeMap;
use std::fs;

use nix::libc;
use palang_tests::lab::Daemon;

use crate::gate::eventually;

/// Name of the thread that writes the store.
const STORE: &str = "store";

/// State of a thread.
#[derive(Debug, PartialEq, Eq)]
struct Thread {
    name: String,
    /// `S` is asleep: it has nothing to do.
    state: String,
    /// How often it began to run.
    switches: u64,
}

/// Waits until no thread of the daemon has anything to do.
pub fn wait_until_idle(daemon: &Daemon<'_>) {
    eventually("the daemon is idle", || is_idle(daemon, |_| true));
}

/// Waits until the store's thread waits for the disk or a lock, and no other thread has anything to
/// do. Every request that was sent before is then accepted: its bytes would wake a thread.
pub fn wait_until_store_waits(daemon: &Daemon<'_>) {
    eventually("the store's thread waits, and the daemon is idle", || {
        is_idle(daemon, |thread| thread.name != STORE) && store_sleeps(daemon)
    });
}

/// Returns whether there was a moment at which all `counted` threads were asleep: none of them has
/// run from one look to the next.
fn is_idle(daemon: &Daemon<'_>, counted: impl Fn(&Thread) -> bool) -> bool {
    let look = || {
        let mut threads = threads(daemon);
        threads.retain(|_, thread| counted(thread));
        threads
    };
    let before = look();
    before.values().all(|thread| thread.state == "S") && look() == before
}

/// Returns whether the store's thread sleeps for a time, as it does only between two tries. Without a
/// change to write, it waits for one with futex(2).
fn store_sleeps(daemon: &Daemon<'_>) -> bool {
    let threads = threads(daemon);
    let (id, _) =
        threads.iter().find(|(_, thread)| thread.name == STORE).expect("a store's thread");
    let call = fs::read_to_string(format!("/proc/{}/task/{id}/syscall", daemon.pid()));
    let call = call.expect("the system call of a thread");
    let number = call.split(' ').next().and_then(|number| number.parse().ok());
    number.is_some_and(|number| [libc::SYS_nanosleep, libc::SYS_clock_nanosleep].contains(&number))
}

/// Returns the threads of the daemon, by their ids.
fn threads(daemon: &Daemon<'_>) -> BTreeMap<u32, Thread> {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("its threads");
    let thread = |task: fs::DirEntry| {
        let id = task.file_name().to_str()?.parse().ok()?;
        // A thread that has ended meanwhile is no thread of the daemon.
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        Some((id, of_status(&status)))
    };
    tasks.flatten().filter_map(thread).collect()
}

fn of_status(status: &str) -> Thread {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("no {name} in {status}"))
    };
    let count = |name: &str| field(name).parse::<u64>().expect("a count");
    Thread {
        name: field("Name").to_owned(),
        state: field("State")[..1].to_owned(),
        switches: count("voluntary_ctxt_switches") + count("nonvoluntary_ctxt_switches"),
    }
}
