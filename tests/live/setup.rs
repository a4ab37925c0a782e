//! `palang setup`: what it does with a daemon that runs, what it refuses, and what it puts back.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use palang::api::wire::Status;
use palang_tests::lab::run::{self, Output};
use palang_tests::lab::{Daemon, Lab, foreign_xdp};
use serde_json::Value;

use crate::socket::{ask, until};

/// A group that is on every machine.
const GROUP: &str =
    "[api]\ngroup = \"root\" # ours\n[roles]\nread = []\noperate = []\nadmin = []\n";

/// Starts a daemon without interfaces, whose configuration has a comment that has to stay.
fn prepared<'a>(lab: &'a Lab) -> Daemon<'a> {
    let daemon = Daemon::prepare(lab, &format!("interfaces = []\n{GROUP}"));
    let text = fs::read_to_string(daemon.config_file()).expect("the configuration");
    fs::write(daemon.config_file(), format!("# ours, do not touch\n{text}")).expect("written");
    daemon
}

fn setup(daemon: &Daemon<'_>, arguments: &[&str]) -> Output {
    let config = daemon.config_file().display().to_string();
    daemon.cli(&[&["setup", "--config", &config][..], arguments].concat())
}

fn text(daemon: &Daemon<'_>) -> String {
    fs::read_to_string(daemon.config_file()).expect("the configuration")
}

fn status(daemon: &Daemon<'_>) -> Status {
    ask(daemon, "GET", "/v1/status", "").json()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn setup_of_a_daemon_without_interfaces_attaches_and_observes() {
    let lab = Lab::new("setup");
    let mut daemon = prepared(&lab);
    daemon.start_again();
    let before = text(&daemon);
    let arguments = ["gate0", "--country-code", "62", "--port", "5060", "--port", "5070"];

    let dry = setup(&daemon, &[&arguments[..], &["--dry-run"]].concat());
    assert_eq!(dry.code, 0, "{}", dry.stderr);
    for wanted in
        ["plan:", "1. change ", "SIGHUP", "attach the filter to gate0", "nothing was changed"]
    {
        assert!(dry.stdout.contains(wanted), "{wanted}: {}", dry.stdout);
    }
    assert!(dry.stdout.contains("UDP port 5060, 5070 of gate0"), "{}", dry.stdout);
    assert_eq!(text(&daemon), before);
    assert!(status(&daemon).interfaces.is_empty());

    // Nobody can be asked.
    let unasked = setup(&daemon, &arguments);
    assert_eq!(unasked.code, 2, "{}", unasked.stderr);
    assert!(unasked.stderr.contains("--yes"), "{}", unasked.stderr);
    assert_eq!(text(&daemon), before);

    let done = setup(&daemon, &[&arguments[..], &["--yes"]].concat());
    assert_eq!(done.code, 0, "{}\n{}", done.stdout, done.stderr);
    for wanted in ["in force: gate0: native", "mode observe", "palang detach gate0", "override on"]
    {
        assert!(done.stdout.contains(wanted), "{wanted}: {}", done.stdout);
    }
    let after = text(&daemon);
    assert!(after.starts_with("# ours, do not touch\n"), "{after}");
    for wanted in ["interfaces = [\"gate0\"]", "ports = [5060, 5070]", "country_code = \"62\""] {
        assert!(after.contains(wanted), "{wanted}: {after}");
    }
    let now = status(&daemon);
    assert_eq!(now.mode.mode, "observe");
    assert_eq!(now.interfaces[0].xdp.as_deref(), Some("native"));
    assert!(now.findings.is_empty(), "{:?}", now.findings);

    // Once more: nothing to do, and it says so.
    let again = setup(&daemon, &[&arguments[..], &["--yes", "-o", "json"]].concat());
    assert_eq!(again.code, 0, "{}", again.stderr);
    let again: Value = serde_json::from_str(&again.stdout).expect("JSON");
    assert_eq!(again["plan"], serde_json::json!([]));
    assert_eq!(again["xdp"], "native");
    assert_eq!(text(&daemon), after);
}

/// Returns the path of a capture with a call from 192.0.2.1, and more in tunnels.
fn tunnels() -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    folder.join("fixtures/tunnels/tunnels.pcap").display().to_string()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn setup_with_options_for_each_question_asks_nothing() {
    let lab = Lab::new("setup-flags");
    let mut daemon = prepared(&lab);
    daemon.start_again();
    let capture = tunnels();
    let trunk = "name=east,source=192.0.2.0/24,format=own-e164";
    let options = ["gate0", "--yes", "--country", "id", "--identity", "from", "--trunk", trunk];
    let done = setup(&daemon, &[&options[..], &["--capture", &capture, "-o", "json"]].concat());
    assert_eq!(done.code, 0, "{}", done.stderr);
    let summary: Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!((&summary["country"], &summary["trunks"][0]), (&"ID".into(), &"east".into()));
    let checked = &summary["checked"]["trunks"][0];
    assert_eq!((&checked["trunk"], &checked["read"]), (&"east".into(), &1.into()), "{summary}");
    let after = text(&daemon);
    assert!(after.starts_with("# ours, do not touch\n"), "{after}");
    for wanted in ["country = \"ID\"", "[[trunk]]", "formats = [\"own-e164\"]"] {
        assert!(after.contains(wanted), "{wanted}: {after}");
    }
    // Once more: nothing to do, and the file stays.
    let again = setup(&daemon, &[&options[..], &["-o", "json"]].concat());
    let again: Value = serde_json::from_str(&again.stdout).expect("JSON");
    assert_eq!(again["plan"], serde_json::json!([]));
    assert_eq!(text(&daemon), after);

    let missing = setup(&daemon, &[&options[..], &["--capture", "/nowhere.pcap"]].concat());
    assert_eq!(missing.code, 1, "{}", missing.stderr);
    assert!(missing.stderr.contains("/nowhere.pcap: cannot be opened"), "{}", missing.stderr);
}

// A person at a terminal is asked, for the country too, and No is the default.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn setup_at_a_terminal_asks_for_each_setting() {
    let lab = Lab::new("setup-tty");
    let mut daemon = prepared(&lab);
    daemon.start_again();
    let before = text(&daemon);
    let at_terminal = |typed: &str| {
        let config = daemon.config_file().display().to_string();
        let built = daemon.command(&["setup", "gate0", "--config", &config]);
        let words: Vec<_> = std::iter::once(built.get_program())
            .chain(built.get_args())
            .map(|word| format!("'{}'", word.to_string_lossy()))
            .collect();
        let mut script = std::process::Command::new("script");
        script.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
        script.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().expect("script of util-linux");
        child.stdin.take().expect("stdin").write_all(typed.as_bytes()).expect("typed");
        let output = child.wait_with_output().expect("its end");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code().unwrap_or(-1), said)
    };
    // Country, trunks, identity, formats, capture.
    let (code, said) = at_terminal("\n\n\n\n\n\n");
    assert_eq!(code, 5, "{said}");
    for wanted in ["[ID]", "preset ID: country code 62", "[every source is one]", "[y/N]"] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    assert_eq!(text(&daemon), before);
    // Wrong answers are asked again.
    let capture = tunnels();
    let trunk =
        "XX\nMY\n192.0.2.300\n192.0.2.0/24, 2001:db8::/32\neast\npai\nany\nown-e164 national\n";
    let (code, said) = at_terminal(&format!("{trunk}\n{capture}\ny\n"));
    assert_eq!(code, 0, "{said}");
    for wanted in [
        "has no preset",
        "is not an address",
        "is no format",
        "the plans on the captures",
        "no more",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    let after = text(&daemon);
    for wanted in [
        "country = \"MY\"",
        "name = \"east\"",
        "sources = [\"192.0.2.0/24\", \"2001:db8::/32\"]",
        "identity = \"pai\"",
        "formats = [\"own-e164\", \"national\"]",
    ] {
        assert!(after.contains(wanted), "{wanted}: {after}");
    }
    assert!(status(&daemon).interfaces[0].xdp.is_some());
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn setup_with_an_obstacle_names_it_and_changes_nothing() {
    let lab = Lab::new("setup-no");
    let mut daemon = prepared(&lab);
    daemon.start_again();
    let before = text(&daemon);
    let yes = ["--yes", "--country-code", "62"];
    let refused = |name: &str, arguments: &[&str], code: i32, wanted: &[&str]| {
        let output = setup(&daemon, &[&[name][..], arguments].concat());
        assert_eq!(output.code, code, "{}{}", output.stdout, output.stderr);
        for wanted in wanted {
            assert!(output.stderr.contains(wanted), "{wanted}: {}", output.stderr);
        }
    };
    refused("nowhere0", &yes, 4, &["no interface nowhere0", "gate0"]);
    refused("gate0", &["--yes"], 2, &["--country-code"]);
    refused("gate0", &["--yes", "--country-code", "+62"], 2, &["options", "1 to 3 digits"]);
    refused("gate0", &[&yes[..], &["--port", "0"]].concat(), 2, &["ports"]);
    assert_eq!(text(&daemon), before);

    // Somebody's own XDP program.
    let pin = daemon.pins().join("strange");
    let id = foreign_xdp::pin(&pin);
    let ip = |arguments: &[&str]| run::must(lab.command_in_gate("ip").args(arguments));
    ip(&["link", "set", "dev", "gate0", "xdpdrv", "pinned", &pin.display().to_string()]);
    refused("gate0", &yes, 5, &["another XDP program", &format!("id {id}")]);
    ip(&["link", "set", "dev", "gate0", "xdpdrv", "off"]);
    fs::remove_file(&pin).expect("unpinned");

    // A gate that refuses calls would do so on the new interface at once.
    let mode = |mode: &str| {
        let answer = ask(&daemon, "PUT", "/v1/mode", &format!(r#"{{"mode":"{mode}"}}"#));
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    mode("enforce");
    refused("gate0", &yes, 5, &["palang mode observe"]);
    mode("observe");

    // Not root.
    let config = daemon.config_file().display().to_string();
    let arguments = ["setup", "gate0", "--config", &config, "--yes"];
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let output = run::run(&mut daemon.command_by(&user, &arguments));
    assert_eq!(output.code, 5, "{}", output.stderr);
    assert!(output.stderr.contains("sudo palang setup gate0"), "{}", output.stderr);
    assert_eq!(text(&daemon), before);

    // A configuration that somebody set up, or broke.
    let edited = |text: &str, wanted: &[&str]| {
        fs::write(daemon.config_file(), text).expect("written");
        refused("gate0", &yes, 2, wanted);
        assert_eq!(fs::read_to_string(daemon.config_file()).expect("read"), text);
    };
    let other = before.replacen("interfaces = []", "interfaces = [\"eth7\"]", 1);
    edited(&other, &["already set up for eth7", "systemctl reload"]);
    edited(&format!("prots = [5060]\n{before}"), &["unknown field `prots`"]);
    assert!(status(&daemon).interfaces.is_empty());

    // A check that fails: the group of the socket.
    edited_check(&daemon, &before);
}

fn edited_check(daemon: &Daemon<'_>, before: &str) {
    let text = before.replacen("\"root\"", "\"palang-nobody-has-it\"", 1);
    assert_ne!(text, before);
    fs::write(daemon.config_file(), &text).expect("written");
    let output = setup(daemon, &["gate0", "--yes", "--country-code", "62"]);
    assert_eq!(output.code, 1, "{}", output.stderr);
    for wanted in ["palang-nobody-has-it", "groupadd", "nothing was changed"] {
        assert!(output.stderr.contains(wanted), "{wanted}: {}", output.stderr);
    }
    assert_eq!(fs::read_to_string(daemon.config_file()).expect("read"), text);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn setup_that_fails_half_way_is_undone() {
    let lab = Lab::new("setup-undo");
    let mut daemon = prepared(&lab);
    daemon.start_again();
    // Edited since the daemon has read it, in a way that only a restart puts in force.
    let edited = text(&daemon).replacen("blocks = 20000", "blocks = 30000", 1);
    assert_ne!(edited, text(&daemon));
    fs::write(daemon.config_file(), &edited).expect("written");
    let output = setup(&daemon, &["gate0", "--yes", "--country-code", "62"]);
    assert_eq!(output.code, 1, "{}", output.stderr);
    for wanted in ["limits.blocks", "rolled back: ", "restored"] {
        assert!(output.stderr.contains(wanted), "{wanted}: {}", output.stderr);
    }
    assert_eq!(text(&daemon), edited);
    assert!(status(&daemon).interfaces.is_empty());

    // The daemon takes the configuration, and cannot attach: a folder is where the pin has to be.
    fs::write(daemon.config_file(), edited.replacen("blocks = 30000", "blocks = 20000", 1))
        .expect("written");
    daemon.restart();
    let before = text(&daemon);
    let links = daemon.pins().join("links");
    fs::create_dir_all(links.join("gate0")).expect("a folder in the way");
    let output = setup(&daemon, &["gate0", "--yes", "--country-code", "62"]);
    assert_ne!(output.code, 0, "{}", output.stdout);
    assert!(output.stderr.contains("rolled back: "), "{}", output.stderr);
    assert!(!output.stderr.contains("NOT rolled back"), "{}", output.stderr);
    assert_eq!(text(&daemon), before);
    fs::remove_dir(links.join("gate0")).expect("out of the way");
    let done = setup(&daemon, &["gate0", "--yes", "--country-code", "62"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    until("attached", || status(&daemon).interfaces[0].xdp.is_some().then_some(()));
}

// Here systemd does not start it: the file is written, and it says how to go on.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn setup_without_a_daemon_says_how_to_start_one() {
    let lab = Lab::new("setup-alone");
    let mut daemon = prepared(&lab);
    let arguments = ["gate0", "--yes", "--country-code", "62"];
    let output = setup(&daemon, &arguments);
    assert_eq!(output.code, 6, "{}", output.stderr);
    assert!(output.stderr.contains("palang daemon --config"), "{}", output.stderr);
    daemon.start_again();
    let done = setup(&daemon, &arguments);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout.contains("in force: gate0: native"), "{}", done.stdout);
}
