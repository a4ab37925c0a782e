//! `palang top` in a terminal, over real traffic: what it shows, and what is left when it ends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use palang::api::wire::Top;
use palang_tests::lab::{Daemon, Lab};
use tempfile::TempDir;

use crate::gate::{Gate, eventually};
use crate::socket::connect;

const BLOCKED: [&str; 2] = ["+6281234567890", "+6281234567891"];
const FREE: &str = "+6281234567892";
/// The first blocked one calls most.
const CALLERS: [&str; 4] = [BLOCKED[0], FREE, BLOCKED[0], BLOCKED[1]];
const CONFIG: &str = r#"
ports = [5060, 5070]
[redial]
attempts = 0
[[trunk]]
name = "telkom"
sources = ["10.112.0.1", "fd00:112::1"]
"#;
/// The capabilities that the packaged unit leaves to the daemon.
const UNIT: [&str; 3] =
    ["setpriv", "--inh-caps=-all", "--bounding-set=-all,+bpf,+net_admin,+perfmon,+chown,+net_raw"];
/// Root, who may not measure.
const NO_ADMIN: [&str; 2] = ["setpriv", "--bounding-set=-sys_admin"];

/// Lets one test run after the other: the kernel measures for all when one of them wants it.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A terminal of 80×24; dropped, it is gone with what runs in it.
struct Terminal {
    /// Where tmux has its socket.
    folder: TempDir,
}

impl Terminal {
    /// Runs a command there, prints its exit code and the state of the terminal afterwards, and waits.
    fn run(command: &Command) -> Terminal {
        let folder = tempfile::Builder::new().prefix("palang-test-").tempdir().unwrap();
        let terminal = Terminal { folder };
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        let line = format!("{}; echo ended $?; stty -a; exec sleep 600", words.join(" "));
        terminal.tmux(&["new-session", "-d", "-x", "80", "-y", "24", &line]);
        terminal
    }

    fn command(&self) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.arg("-S").arg(self.folder.path().join("tmux")).args(["-f", "/dev/null"]);
        tmux
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = self.command().args(arguments).output();
        let output = output.expect("tmux: cargo xtask setup installs it");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Waits until the screen is so, and returns it.
    #[track_caller]
    fn shows(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        eventually(what, || {
            let screen = self.screen();
            if screen != last {
                println!("--- {what} ---\n{screen}");
            }
            last = screen;
            is_so(&last)
        });
        last
    }

    /// Returns the pid of `palang`, the only child of the shell.
    fn pid(&self) -> String {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"));
        children.unwrap().trim().to_owned()
    }

    fn signal(&self, name: &str) {
        let kill = Command::new("kill").args(["-s", name, &self.pid()]).status().unwrap();
        assert!(kill.success());
    }

    /// Waits until it has ended with this exit code and the terminal is as it was.
    fn ends(&self, code: i32) {
        let screen = self.shows("the end", |screen| screen.contains("extproc"));
        assert!(screen.contains(&format!("ended {code}")), "{screen}");
        for is_on in ["icanon", "echo", "isig", "opost"] {
            assert!(screen.split_whitespace().any(|word| word == is_on), "{is_on}: {screen}");
        }
        assert!(!screen.contains("palang top"), "{screen}");
        assert_eq!(self.tmux(&["display-message", "-p", "#{cursor_flag}"]).trim(), "1");
        assert_eq!(self.tmux(&["display-message", "-p", "#{alternate_on}"]).trim(), "0");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.command().arg("kill-server").output();
    }
}

/// Returns a line of the daemon's answer to `palang top`.
fn told(daemon: &Daemon<'_>) -> Top {
    let mut stream = connect(daemon);
    stream.write_all(b"GET /v1/top HTTP/1.1\r\nHost: palang\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    serde_json::from_str(&lines.find(|line| line.starts_with('{')).unwrap()).unwrap()
}

/// Returns whether the kernel measures the program now.
fn is_measured(gate: &Gate<'_>) -> bool {
    let before = told(&gate.daemon).run_count;
    assert!(gate.passes(FREE));
    told(&gate.daemon).run_count > before
}

/// Returns the number after a word at the beginning of a line.
fn figure(screen: &str, name: &str) -> f64 {
    let line = screen.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let number = line.split_whitespace().next().unwrap_or_default().replace(',', "");
    number.parse().unwrap_or_default()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn top_shows_real_traffic() {
    let _alone = alone();
    let lab = Lab::new("top");
    let mut daemon = Daemon::prepare(&lab, CONFIG);
    daemon.spawn_by(&UNIT, &[]);
    daemon.wait_for_answer();
    let gate = Gate::of(&lab, daemon);
    gate.does(&["mode", "enforce"]);
    for number in BLOCKED {
        gate.does(&["block", "add", number, "--for", "1h", "--reason", "prank"]);
    }
    assert!(!is_measured(&gate), "nobody wants it");

    let terminal = Terminal::run(&gate.daemon.command(&["top"]));
    terminal
        .shows("a quiet gate", |screen| screen.contains("ENFORCE  blocked callers are refused"));
    let receiver = lab.receiver(5070);
    let traffic = lab.traffic(&receiver, &CALLERS, 200, 60_000);
    let screen = terminal.shows("calls", |screen| {
        figure(screen, "attempts/s") > 0.0
            && figure(screen, "ns per packet") > 0.0
            && screen.lines().any(|line| line.starts_with("6281234567891"))
    });
    for text in ["gate0           native     attached", "telkom", "blocked-number", "q quits"] {
        assert!(screen.contains(text), "{text}: {screen}");
    }
    assert!(is_measured(&gate));
    traffic.wait_for(5_000);
    let record = traffic.stop();
    let refused = BLOCKED.map(|caller| record.refused(caller, ..).len());
    assert!(refused[0] > refused[1], "{refused:?}");
    let screen = terminal.shows("what was sent", |screen| {
        let told = BLOCKED.map(|caller| figure(screen, caller.trim_start_matches('+')) as usize);
        told == refused
    });
    let place = |caller: &str| screen.find(caller.trim_start_matches('+'));
    assert!(place(BLOCKED[0]) < place(BLOCKED[1]), "most first: {screen}");
    assert_eq!(place(FREE), None, "{screen}");
    terminal.key("q");
    terminal.ends(0);
    assert!(!is_measured(&gate), "nobody wants it any more");
    drop(terminal);

    // However it ends, also when it can do nothing about it.
    for (way, code) in [("TERM", Some(0)), ("KILL", None)] {
        let terminal = Terminal::run(&gate.daemon.command(&["top"]));
        terminal.shows("the screen", |screen| screen.contains("ENFORCE"));
        eventually("the kernel measures", || is_measured(&gate));
        terminal.signal(way);
        match code {
            Some(code) => terminal.ends(code),
            None => {
                terminal.shows("the end", |screen| screen.contains("ended 137"));
            }
        }
        assert!(!is_measured(&gate), "{way}");
    }

    // The connection that somebody looks by is cut.
    let terminal = Terminal::run(&gate.daemon.command(&["top"]));
    terminal.shows("the screen", |screen| screen.contains("ENFORCE"));
    let process = format!("/proc/{}", terminal.pid());
    drop(terminal);
    eventually("it ends with its terminal", || !std::path::Path::new(&process).exists());
    assert!(!is_measured(&gate), "without a terminal");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn top_goes_on_when_the_daemon_ends_and_starts_again() {
    let _alone = alone();
    let lab = Lab::new("top-death");
    let mut gate = Gate::start(&lab, "[redial]\nattempts = 0");
    gate.does(&["block", "add", BLOCKED[0], "--for", "1h", "--reason", "prank"]);
    assert!(!gate.passes(BLOCKED[0]));
    let terminal = Terminal::run(&gate.daemon.command(&["top"]));
    let refused = |screen: &str| screen.lines().any(|line| line.starts_with("6281234567890"));
    terminal.shows("who is refused", |screen| screen.contains("ENFORCE") && refused(screen));
    gate.daemon.signal("STOP");
    terminal.shows("that it hangs", |screen| screen.contains("DAEMON SILENT") && refused(screen));
    gate.daemon.signal("CONT");
    terminal.shows("that it is back", |screen| screen.contains("ENFORCE"));
    gate.daemon.kill();
    terminal.shows("that it is gone", |screen| screen.contains("NO DAEMON") && refused(screen));
    gate.daemon.start_again();
    gate.does(&["mode", "observe"]);
    terminal.shows("another state", |screen| screen.contains("OBSERVE  no call is refused"));
    gate.does(&["override", "on", "--for", "1h", "--reason", "flood"]);
    terminal.shows("the override", |screen| screen.contains("OVERRIDE  no call is refused until"));
    gate.does(&["detach"]);
    terminal.shows("no filter", |screen| screen.contains("NOT ATTACHED  every call passes"));
    terminal.tmux(&["resize-window", "-x", "70", "-y", "20"]);
    terminal.shows("no room", |screen| screen.contains("too small: this terminal is 70x20"));
    terminal.tmux(&["resize-window", "-x", "80", "-y", "24"]);
    terminal.key("C-c");
    terminal.ends(0);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn top_without_permission_to_measure_shows_the_rest() {
    let _alone = alone();
    let lab = Lab::new("top-plain");
    let gate = Gate::start(&lab, "");
    let command = gate.daemon.command_by(&NO_ADMIN, &["top"]);
    let terminal = Terminal::run(&command);
    assert!(gate.passes(FREE));
    terminal.shows("attempts", |screen| {
        screen.contains("needs root: sudo palang top")
            && screen.lines().any(|line| line.starts_with("default") && line.ends_with(" 1"))
    });
    assert!(!is_measured(&gate));
    terminal.key("Escape");
    terminal.ends(0);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn top_without_a_terminal_or_a_daemon_says_what_to_do() {
    let lab = Lab::new("top-nothing");
    let mut gate = Gate::start(&lab, "");
    let said = gate.fails(2, &["top"]);
    assert!(said.contains("palang monitor") && said.contains("palang status"), "{said}");
    gate.daemon.kill();
    let terminal = Terminal::run(&gate.daemon.command(&["top"]));
    let screen = terminal.shows("why not", |screen| screen.contains("ended 3"));
    assert!(screen.contains("cannot reach the daemon"), "{screen}");
}
