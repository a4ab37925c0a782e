//! The real daemon in the gate's namespace.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use toml::{Table, Value};

use super::address::INTERFACE;
use super::network::Lab;
use super::pins;
use super::run::{Output, run};

/// Room for this number of blocks unless a test says otherwise.
const BLOCKS: i64 = 20_000;

/// How long a start or an end may take.
const LONGEST: Duration = Duration::from_secs(20);

/// `palang daemon` with its own configuration, store, socket and pins; dropped, all of it is
/// gone, the filter too. When a test panics, what the daemon said is shown.
pub struct Daemon<'a> {
    lab: &'a Lab,
    folder: TempDir,
    pins: PathBuf,
    program: PathBuf,
    env: Vec<(String, OsString)>,
    child: Option<Child>,
}

impl<'a> Daemon<'a> {
    /// Starts a daemon that answers. For `config_toml` see [`Daemon::configure`].
    ///
    /// # Panics
    /// When it does not answer within 20 s, with what it said.
    #[must_use]
    pub fn start(lab: &'a Lab, config_toml: &str) -> Daemon<'a> {
        let mut daemon = Daemon::prepare(lab, config_toml);
        daemon.start_again();
        daemon
    }

    /// Prepares a daemon that does not run yet.
    ///
    /// # Panics
    /// When there is no room for its files.
    #[must_use]
    pub fn prepare(lab: &'a Lab, config_toml: &str) -> Daemon<'a> {
        Daemon::prepare_program(lab, program(), config_toml)
    }

    /// Prepares a daemon of another program, of a release build for instance.
    ///
    /// # Panics
    /// When there is no room for its files.
    #[must_use]
    pub fn prepare_program(lab: &'a Lab, program: PathBuf, config_toml: &str) -> Daemon<'a> {
        let folder = tempfile::Builder::new().prefix("palang-test-").tempdir();
        let folder = folder.expect("a folder for the daemon's files");
        let pins = pins::folder();
        let daemon = Daemon { lab, folder, pins, program, env: Vec::new(), child: None };
        daemon.configure(config_toml);
        daemon
    }

    /// Takes another program from the next start and the next command on, as an upgrade does.
    pub fn set_program(&mut self, program: &Path) {
        program.clone_into(&mut self.program);
    }

    /// Gives it an environment variable from its next start on.
    pub fn env(&mut self, name: &str, value: impl Into<OsString>) {
        self.env.push((name.to_owned(), value.into()));
    }

    /// Writes the configuration: `config_toml`, completed where it lacks a setting.
    ///
    /// The defaults are this daemon's own paths (backups go to [`Daemon::folder`]), the interface
    /// `gate0`, room for 20,000 blocks and no redial grant. With a grant a caller who is refused
    /// for longer than 10 s would be let through. The mode is not in it: `palang mode enforce`.
    ///
    /// # Panics
    /// When it is not TOML; write such a thing to [`Daemon::config_file`].
    pub fn configure(&self, config_toml: &str) {
        let mut config: Table = config_toml.parse().expect("the configuration as TOML");
        let mut complete = |table: &str, key: &str, value: Value| {
            let table = config.entry(table).or_insert_with(|| Table::new().into());
            table.as_table_mut().expect("a table").entry(key).or_insert(value);
        };
        let text = |path: &Path| Value::from(path.display().to_string());
        complete("paths", "state", text(&self.state()));
        complete("paths", "runtime", text(&self.runtime()));
        complete("paths", "pins", text(&self.pins));
        complete("paths", "backup", text(self.folder.path()));
        complete("limits", "blocks", BLOCKS.into());
        complete("redial", "attempts", 0.into());
        config.entry("interfaces").or_insert_with(|| vec![INTERFACE].into());
        fs::write(self.config_file(), config.to_string()).expect("the configuration written");
    }

    /// Returns the path of the configuration.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("palang.toml")
    }

    /// Returns the folder of the store, `palang.db`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Returns the folder of the socket, `palang.sock`, and the lock.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Returns the folder of the pins.
    #[must_use]
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Returns the folder for files of the test, removed with the daemon.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the daemon's standard error up to now, over all its starts.
    ///
    /// # Panics
    /// When it was never started.
    #[must_use]
    pub fn stderr(&self) -> String {
        let bytes = fs::read(self.stderr_file()).expect("the daemon's stderr");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Returns its pid.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// Returns whether the process is there.
    ///
    /// # Panics
    /// When the kernel does not know.
    pub fn is_running(&mut self) -> bool {
        match &mut self.child {
            Some(child) => child.try_wait().expect("waitpid").is_none(),
            None => false,
        }
    }

    /// Starts the process, and does not wait until it answers.
    ///
    /// # Panics
    /// When it runs already, or cannot be run.
    pub fn spawn(&mut self) {
        self.spawn_by(&[], &[]);
    }

    /// Starts the process by another program, `setpriv` for instance, with these variables.
    ///
    /// # Panics
    /// When it runs already, or cannot be run.
    pub fn spawn_by(&mut self, wrapper: &[&str], variables: &[(&str, &str)]) {
        assert!(!self.is_running(), "the daemon runs already");
        let stderr = File::options().create(true).append(true).open(self.stderr_file());
        let mut command = self.wrapped(wrapper);
        command.env_remove("NOTIFY_SOCKET").envs(variables.iter().copied());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.args(["daemon", "--config"]).arg(self.config_file());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr.expect("a stderr file"));
        self.child = Some(command.spawn().expect("the daemon started"));
    }

    /// Starts it, with the same configuration, store and pins, and waits until it answers.
    ///
    /// # Panics
    /// When it runs already, or does not answer within 20 s, with what it said.
    pub fn start_again(&mut self) {
        self.spawn();
        self.wait_for_answer();
    }

    /// Waits until it answers.
    ///
    /// # Panics
    /// When it ends, or does not answer within 20 s, with what it said.
    pub fn wait_for_answer(&mut self) {
        let deadline = Instant::now() + LONGEST;
        while !self.answers() {
            assert!(self.is_running(), "the daemon ended at its start");
            assert!(Instant::now() < deadline, "the daemon does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns whether the daemon itself answers; without it, `palang status` reads the pinned
    /// maps.
    #[must_use]
    pub fn answers(&self) -> bool {
        if !self.runtime().join("palang.sock").exists() {
            return false;
        }
        let status: Result<serde_json::Value, _> =
            serde_json::from_str(&self.cli(&["status", "-o", "json"]).stdout);
        status.is_ok_and(|status| status["daemon"] == true)
    }

    /// Runs `palang ARGUMENTS` for this daemon, as root in the gate's namespace.
    ///
    /// # Panics
    /// When the program is not there.
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments))
    }

    /// Returns `palang ARGUMENTS` as a command, for a test that needs a stdin, another user, or no
    /// waiting.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_by(&[], arguments)
    }

    /// Returns `palang ARGUMENTS` run by another program, `setpriv` for instance.
    #[must_use]
    pub fn command_by(&self, wrapper: &[&str], arguments: &[&str]) -> Command {
        let mut command = self.wrapped(wrapper);
        command.arg("--socket").arg(self.runtime().join("palang.sock")).args(arguments);
        command
    }

    fn wrapped(&self, wrapper: &[&str]) -> Command {
        let Some((first, rest)) = wrapper.split_first() else {
            return self.lab.command_in_gate(&self.program);
        };
        let mut command = self.lab.command_in_gate(first);
        command.args(rest).arg(&self.program);
        command
    }

    /// Sends SIGKILL, and waits for the end.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        child.kill().expect("SIGKILL");
        child.wait().expect("waitpid");
    }

    /// Sends a signal, `HUP` for instance.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        super::run::must(Command::new("kill").args(["-s", name, &pid]));
        if name == "STOP" {
            // `kill` returns before the threads on other CPUs stop.
            let deadline = Instant::now() + Duration::from_secs(10);
            while !is_stopped(&pid) {
                assert!(Instant::now() < deadline, "{pid} does not stop");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Sends SIGTERM, waits for the end, and returns the exit code.
    ///
    /// # Panics
    /// When it does not run, or does not end within 20 s.
    pub fn stop(&mut self) -> i32 {
        self.signal("TERM");
        self.wait_for_end()
    }

    /// Waits until it ends by itself. Its exit code; -1 when a signal ended it.
    ///
    /// # Panics
    /// When it does not run, or does not end within 20 s.
    pub fn wait_for_end(&mut self) -> i32 {
        let child = self.child.as_mut().expect("the daemon runs");
        let deadline = Instant::now() + LONGEST;
        let status = loop {
            if let Some(status) = child.try_wait().expect("waitpid") {
                break status;
            }
            assert!(Instant::now() < deadline, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        self.child = None;
        status.code().unwrap_or(-1)
    }

    /// Calls [`Daemon::stop`], then [`Daemon::start_again`].
    ///
    /// # Panics
    /// When one of them does, or the daemon ended with an error.
    pub fn restart(&mut self) {
        assert_eq!(self.stop(), 0, "the daemon's exit code");
        self.start_again();
    }

    fn stderr_file(&self) -> PathBuf {
        self.folder.path().join("stderr")
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let said = fs::read(self.stderr_file()).unwrap_or_default();
            eprintln!("--- palang daemon ---\n{}---", String::from_utf8_lossy(&said));
        }
        pins::remove(&self.pins);
    }
}

/// Returns the program: `PALANG_BIN`, otherwise the one that cargo has built beside this test
/// program.
#[must_use]
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("PALANG_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("the path of this program");
    // target/<profile>/deps/<test>-<hash>
    let folder = test.parent().and_then(Path::parent).expect("a folder of cargo's");
    let program = folder.join("palang-under-test");
    assert!(program.exists(), "no {}: set PALANG_BIN, or run with cargo", program.display());
    program
}

/// Returns whether all threads of a process are stopped (proc_pid_stat(5): state T).
fn is_stopped(pid: &str) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    })
}
