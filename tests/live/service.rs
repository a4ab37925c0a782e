//! Under a service manager: ready, watchdog, reload, end.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use palang::api::wire::{ConfigInForce, Status};
use palang_tests::lab::{Daemon, Lab};

use crate::socket::{LONGEST, ask, connect, until};

const CALLER: &str = "+6281234567890";

/// Replaces systemd: takes the daemon's messages (sd_notify(3)).
pub struct Manager {
    pub socket: UnixDatagram,
    pub path: String,
}

impl Manager {
    pub fn new(daemon: &Daemon<'_>) -> Manager {
        let path = daemon.folder().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(LONGEST)).expect("SO_RCVTIMEO");
        Manager { socket, path: path.display().to_string() }
    }

    /// Returns the lines of the next datagram with such a line.
    fn wait_for(&self, wanted: &str) -> Vec<String> {
        let mut datagram = [0; 4096];
        let deadline = Instant::now() + LONGEST;
        loop {
            assert!(Instant::now() < deadline, "waited in vain: {wanted}");
            let length = self.socket.recv(&mut datagram).expect(wanted);
            let text = str::from_utf8(&datagram[..length]).expect("UTF-8");
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            if lines.iter().any(|line| line.starts_with(wanted)) {
                return lines;
            }
        }
    }
}

fn status(daemon: &Daemon<'_>) -> Status {
    ask(daemon, "GET", "/v1/status", "").json()
}

fn enforce(daemon: &Daemon<'_>) {
    let answer = ask(daemon, "PUT", "/v1/mode", r#"{"mode":"enforce"}"#);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn block(daemon: &Daemon<'_>, number: &str) {
    let body = format!(r#"{{"number":"{number}","seconds":3600,"reason":"a test"}}"#);
    let answer = ask(daemon, "POST", "/v1/blocks", &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn daemon_that_reports_ready_answers_and_notifies_the_watchdog() {
    let lab = Lab::new("notify");
    let mut daemon = Daemon::prepare(&lab, "");
    let manager = Manager::new(&daemon);
    let variables = [("NOTIFY_SOCKET", manager.path.as_str()), ("WATCHDOG_USEC", "600000")];
    daemon.spawn_by(&[], &variables);

    manager.wait_for("READY=1");
    // At once, without another try: ready is ready.
    let told = status(&daemon);
    assert!(told.daemon && told.interfaces[0].xdp.is_some(), "{told:?}");
    enforce(&daemon);
    block(&daemon, CALLER);

    for _ in 0..3 {
        let lines = manager.wait_for("WATCHDOG=1");
        assert!(lines.iter().any(|line| line.starts_with("STATUS=")), "{lines:?}");
    }
    until("the status text", || {
        let lines = manager.wait_for("STATUS=");
        lines.iter().any(|line| line == "STATUS=1 blocks, mode enforce").then_some(())
    });

    // A fault is reported there, too.
    let answer = ask(&daemon, "PUT", "/v1/override", r#"{"seconds":600,"reason":"a test"}"#);
    assert_eq!(answer.status, 200, "{}", answer.text());
    until("the finding as status text", || {
        let lines = manager.wait_for("STATUS=");
        lines.iter().any(|line| line.starts_with("STATUS=override: ")).then_some(())
    });

    daemon.signal("TERM");
    manager.wait_for("STOPPING=1");
    assert_eq!(daemon.wait_for_end(), 0);
}

// Stopped with SIGSTOP it is as dead as a process can be that is still there.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn daemon_that_hangs_does_not_notify_the_watchdog() {
    let lab = Lab::new("watchdog");
    let mut daemon = Daemon::prepare(&lab, "");
    let manager = Manager::new(&daemon);
    daemon.spawn_by(&[], &[("NOTIFY_SOCKET", &manager.path), ("WATCHDOG_USEC", "300000")]);
    manager.wait_for("WATCHDOG=1");
    daemon.signal("STOP");
    // Also with requests under way.
    manager.socket.set_read_timeout(Some(Duration::from_millis(500))).expect("SO_RCVTIMEO");
    while manager.socket.recv(&mut [0; 4096]).is_ok() {}
    daemon.signal("CONT");
    manager.socket.set_read_timeout(Some(LONGEST)).expect("SO_RCVTIMEO");
    manager.wait_for("WATCHDOG=1");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_reload_puts_ports_and_protected_numbers_into_force() {
    let lab = Lab::new("reload");
    let mut daemon = Daemon::start(&lab, "ports = [5060]");
    enforce(&daemon);
    block(&daemon, CALLER);
    block(&daemon, "+6281200000002");
    let old = lab.receiver(5060);
    let new = lab.receiver(5070);
    let refused = |receiver, caller: &str| {
        let record = lab.traffic(receiver, &[caller], 5_000, 100).finish();
        let refused = record.refused(caller, ..).len();
        assert!(refused == 0 || refused == 100, "{refused} of 100");
        refused == 100
    };
    assert!(refused(&old, CALLER) && !refused(&new, CALLER));

    let reloaded = |count: usize| {
        until("the reload", || {
            let read = daemon.stderr().matches("the configuration was read again").count();
            (read == count).then_some(())
        });
    };
    daemon.configure("ports = [5070]");
    daemon.signal("HUP");
    reloaded(1);
    assert!(!refused(&old, CALLER) && refused(&new, CALLER));

    // A number that is blocked is protected from now on: protected wins.
    daemon.configure(&format!("ports = [5060, 5070]\nprotected = [\"{CALLER}\"]"));
    daemon.signal("HUP");
    reloaded(2);
    assert!(!refused(&old, CALLER) && !refused(&new, CALLER));
    assert!(refused(&old, "+6281200000002"), "blocks and mode stay");
    let body = format!(r#"{{"number":"{CALLER}","seconds":60,"reason":"a test"}}"#);
    let answer = ask(&daemon, "POST", "/v1/blocks", &body);
    assert_eq!(answer.status, 403, "{}", answer.text());

    daemon.configure("ports = [5060, 5070]");
    daemon.signal("HUP");
    reloaded(3);
    assert!(refused(&old, CALLER), "no longer protected");
    let audit = ask(&daemon, "GET", "/v1/audit", "").text();
    assert_eq!(audit.matches(r#"\"action\":\"reload\""#).count(), 3, "{audit}");
    assert_eq!(daemon.stop(), 0);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_broken_configuration_keeps_the_old_one() {
    let lab = Lab::new("broken");
    let daemon = Daemon::start(&lab, "ports = [5060]\nprotected = [\"112\"]");
    enforce(&daemon);
    block(&daemon, CALLER);
    let receiver = lab.receiver(5060);
    let good = fs::read_to_string(daemon.config_file()).expect("the configuration");
    let config = || ask(&daemon, "GET", "/v1/config", "").json::<ConfigInForce>();
    let in_force = |why: &str| {
        let text = config().text;
        assert_eq!(text, good, "{why}");
        let record = lab.traffic(&receiver, &[CALLER], 5_000, 100).finish();
        assert_eq!(record.refused(CALLER, ..).len(), 100, "{why}");
    };
    let hang_up = |wanted: &str| {
        daemon.signal("HUP");
        let problem = until(wanted, || config().problem.filter(|found| found.contains(wanted)));
        let told = status(&daemon);
        let found = told.findings.iter().find(|finding| finding.message.contains(wanted));
        let found = found.unwrap_or_else(|| panic!("{wanted}: {:?}", told.findings));
        assert!(found.message.contains("old one is in force"), "{}", found.message);
        in_force(wanted);
        problem
    };

    let place = |line: usize, column: usize| {
        format!("{}:{line}:{column}: ", daemon.config_file().display())
    };
    for (text, at, wanted) in [
        ("interfaces = [\"gate0\"]\nprots = [5070]", place(2, 1), "unknown field `prots`"),
        ("interfaces = [\"gate0\"]\nports = [", place(2, 10), "TOML"),
        ("", place(1, 1), "missing field `interfaces`"),
        ("interfaces = [\"gate0\"]\nprotected = [\"fire\"]", place(2, 14), "\"fire\""),
    ] {
        fs::write(daemon.config_file(), text).expect("written");
        let problem = hang_up(if wanted == "TOML" { &at } else { wanted });
        assert!(problem.starts_with(&at), "{problem}");
    }
    fs::remove_file(daemon.config_file()).expect("removed");
    hang_up("cannot read");

    // A setting that only a restart changes is named, and no other line of the file comes into force.
    for (text, wanted) in [
        ("ports = [5070]\n[limits]\nblocks = 30000", "limits.blocks: 20000 → 30000"),
        ("ports = [5070]\n[api]\ngroup = \"daemon\"", "api.group: palang → daemon"),
        ("ports = [5070]\n[api]\ncheck_listen = \"127.0.0.1:9112\"", "api.check_listen: none"),
        ("ports = [5070]\n[paths]\nstate = \"/nowhere\"", "paths.state: "),
        ("ports = [5070]\n[paths]\nruntime = \"/nowhere\"", "paths.runtime: "),
        ("ports = [5070]\n[paths]\npins = \"/nowhere\"", "paths.pins: "),
    ] {
        daemon.configure(text);
        let problem = hang_up(wanted);
        assert!(problem.contains("restart"), "{problem}");
    }

    fs::write(daemon.config_file(), &good).expect("written");
    daemon.signal("HUP");
    until("no problem any more", || config().problem.is_none().then_some(()));
    let findings = status(&daemon).findings;
    assert!(!findings.iter().any(|one| one.message.contains("old one")), "{findings:?}");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn daemon_with_clients_ends_at_once_and_with_success() {
    let lab = Lab::new("end");
    let mut daemon = Daemon::start(&lab, "");
    enforce(&daemon);
    block(&daemon, CALLER);
    let receiver = lab.receiver(5060);
    for signal in ["TERM", "INT"] {
        let idle = connect(&daemon);
        daemon.signal(signal);
        assert_eq!(daemon.wait_for_end(), 0, "{signal}");
        let record = lab.traffic(&receiver, &[CALLER, "110"], 5_000, 100).finish();
        assert_eq!(record.refused(CALLER, ..).len(), 50, "{signal}");
        assert_eq!(record.delivered("110", ..).len(), 50, "{signal}");
        daemon.start_again();
        assert!(status(&daemon).findings.is_empty(), "{:?}", status(&daemon).findings);
        drop(idle);
    }
}
