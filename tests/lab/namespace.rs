//! One network namespace.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, setns};

use super::process::{is_left_over, now};
use super::run::{must, run};

/// Where `ip netns` keeps them.
const FOLDER: &str = "/run/netns";

/// A network namespace; dropped, it is gone with every process in it.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes it, with `lo` up.
    pub fn new(name: String) -> Namespace {
        must(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Namespace { name };
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// Returns a command that runs `program` inside. Not with `ip netns exec`, which hides bpffs
    /// under a new /sys.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={FOLDER}/{}", self.name)).arg(program);
        command
    }

    /// Runs `ip` inside, which must succeed.
    pub fn ip(&self, arguments: &[&str]) -> String {
        must(Command::new("ip").args(["-n", &self.name]).args(arguments))
    }

    /// Packets that `interface` dropped in `direction` (`rx` or `tx`); 0 without that interface.
    pub fn dropped(&self, interface: &str, direction: &str) -> u64 {
        let arguments = ["-n", &self.name, "-j", "-s", "link", "show", interface];
        let output = run(Command::new("ip").args(arguments));
        if output.code != 0 {
            return 0;
        }
        let links: serde_json::Value = serde_json::from_str(&output.stdout).expect("JSON of ip");
        let dropped = &links[0]["stats64"][direction]["dropped"];
        dropped.as_u64().unwrap_or_else(|| panic!("ip shows no drops: {links}"))
    }

    /// Runs a function on a thread inside: the thread that calls stays where it is.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = self.path();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let file = File::open(&path)
                    .unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
                setns(&file, CloneFlags::CLONE_NEWNET)
                    .unwrap_or_else(|error| panic!("cannot enter {}: {error}", path.display()));
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes a namespace and ends what runs in it. Says what went wrong, and never panics: it may
/// run while a test unwinds.
fn remove(name: &str) {
    let deadline = now() + 5_000_000_000;
    loop {
        let Ok(pids) = Command::new("ip").args(["netns", "pids", name]).output() else { break };
        let pids: Vec<String> =
            String::from_utf8_lossy(&pids.stdout).split_whitespace().map(str::to_owned).collect();
        if pids.is_empty() || now() > deadline {
            break;
        }
        // Some may have ended since; their parents may not have noticed yet.
        let _ = Command::new("kill").arg("-KILL").args(&pids).output();
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    match Command::new("timeout").args(["10", "ip", "netns", "del", name]).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => eprintln!("lab: {name}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => eprintln!("lab: cannot remove {name}: {error}"),
    }
}

/// Removes the namespaces of test processes that were killed.
pub fn sweep() {
    let Ok(entries) = fs::read_dir(FOLDER) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_left_over(&name, "palang-") {
            remove(&name);
        }
    }
}
