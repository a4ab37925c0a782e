//! A Debian of its own: its processes, systemd as the first of them, and its files. It has the network
//! namespace of the lab's gate, so that the lab's calls reach it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use palang_tests::lab::Lab;
use palang_tests::lab::run::{self, Output};

/// How long systemd may take to start everything, and to end it.
const LONGEST: Duration = Duration::from_secs(120);
/// System calls that a container may not make by default, and a machine may.
const SYSTEM_CALLS: &str =
    "bpf perf_event_open @keyring landlock_create_ruleset landlock_add_rule landlock_restrict_self";

/// The machine; dropped, it is gone with all that was changed in it.
pub struct Machine {
    container: Child,
    /// The first process, as we see it.
    init: u32,
    log: PathBuf,
}

impl Machine {
    /// Starts one from a root folder that is not changed. `packages` is its `/packages`.
    ///
    /// # Panics
    /// When systemd does not come up, with what it said.
    pub fn boot(lab: &Lab, root: &Path, packages: &Path) -> Machine {
        let log = packages.join("machine.log");
        let output = fs::File::create(&log).expect("a log");
        let container = Command::new("systemd-nspawn")
            .args(["--boot", "--quiet", "--register=no", "--keep-unit", "--capability=all"])
            .args(["--volatile=overlay", "--console=pipe", "--hostname=edge"])
            .arg(format!("--system-call-filter={SYSTEM_CALLS}"))
            .arg(format!("--network-namespace-path={}", lab.gate_namespace().display()))
            .arg(format!("--bind-ro={}:/packages", packages.display()))
            .arg(format!("--directory={}", root.display()))
            .stdin(Stdio::null())
            .stderr(output.try_clone().expect("the log"))
            .stdout(output)
            .spawn()
            .expect("systemd-nspawn of Debian's systemd-container");
        let mut machine = Machine { container, init: 0, log };
        machine.init = machine.until("systemd", Machine::find_init);
        let up = ["is-system-running", "--wait"];
        machine.until("all units", |machine| {
            let state = run::run(&mut machine.command("systemctl", &up)).stdout;
            assert!(!state.starts_with("degraded"), "{}", machine.failed_units());
            state.starts_with("running").then_some(())
        });
        // As systemd does on a machine that is no container.
        machine.must("mount", &["-t", "bpf", "-o", "mode=700", "bpf", "/sys/fs/bpf"]);
        machine
    }

    /// Finds a child of the container's program that has made itself the first of its processes.
    fn find_init(&self) -> Option<u32> {
        let pid = self.container.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_ascii_whitespace().filter_map(|child| child.parse().ok()).find(|child| {
            let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
            let pids = status.lines().find(|line| line.starts_with("NSpid:"));
            let comm = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
            pids.is_some_and(|line| line.ends_with("\t1")) && comm.trim_end() == "systemd"
        })
    }

    fn until<T>(&self, what: &str, mut look: impl FnMut(&Machine) -> Option<T>) -> T {
        let deadline = Instant::now() + LONGEST;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            let said = || fs::read_to_string(&self.log).unwrap_or_default();
            assert!(Instant::now() < deadline, "waited in vain for {what}: {}", said());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Returns a command that runs a program in the machine.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.init));
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--wdns=/"]);
        command.args(["--", "env", "--ignore-environment", "LC_ALL=C.UTF-8"]);
        command.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive"]);
        command.arg(program).args(arguments);
        command
    }

    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        run::run(&mut self.command(program, arguments))
    }

    /// Runs a program that has to succeed; what it printed.
    pub fn must(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(program, arguments);
        let (said, error) = (&output.stdout, &output.stderr);
        let journal = || self.run("journalctl", &["-n", "40", "--no-pager"]).stdout;
        assert!(
            output.code == 0,
            "{program} {arguments:?}: exit {}: {said}{error}\n{}",
            output.code,
            journal()
        );
        output.stdout
    }

    /// Runs `palang ARGUMENTS -o json`.
    pub fn palang(&self, arguments: &[&str]) -> serde_json::Value {
        let said = self.must("palang", &[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {said}"))
    }

    /// Returns a property of a unit, as `systemctl show` prints it.
    pub fn show(&self, unit: &str, property: &str) -> String {
        let property = format!("--property={property}");
        self.must("systemctl", &["show", "--value", &property, unit]).trim().to_owned()
    }

    /// Returns whether a file exists.
    pub fn has(&self, path: &str) -> bool {
        self.run("test", &["-e", path]).code == 0
    }

    fn failed_units(&self) -> String {
        self.run("systemctl", &["--failed", "--no-pager"]).stdout
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Everything in it ends with its first process.
        if self.init != 0 {
            let _ = Command::new("kill").args(["-KILL", &self.init.to_string()]).status();
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while matches!(self.container.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.container.kill();
        let _ = self.container.wait();
    }
}
