//! Faults around the daemon: it prints the message that a person needs, and loses nothing.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;

use palang::api::wire::{Block, Health, ImportNews, Problem, ProblemKind, Status};
use palang_tests::lab::{Daemon, GATE, Lab, Receiver, run};
use serde_json::{Value, json};

use crate::socket::{Answer, ask, connect, exchange, until};

pub const CALLER: &str = "+6281234567890";
pub const INNOCENT: &str = "+6281200000009";
/// Room in the maps unless a test's configuration says otherwise.
pub const BLOCKS: u32 = 20_000;

pub fn status(daemon: &Daemon<'_>) -> Status {
    ask(daemon, "GET", "/v1/status", "").json()
}

/// Sends a request that has to succeed.
pub fn done(daemon: &Daemon<'_>, method: &str, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = ask(daemon, method, path, &body);
    assert_eq!(answer.status, 200, "{method} {path} {body}: {}", answer.text());
    answer
}

pub fn block(daemon: &Daemon<'_>, number: &str) -> Answer {
    let body = json!({ "number": number, "seconds": 3600, "reason": "a test" });
    ask(daemon, "POST", "/v1/blocks", &body.to_string())
}

/// Starts a daemon in enforce that refuses [`CALLER`].
pub fn refusing(lab: &Lab) -> Daemon<'_> {
    let daemon = Daemon::start(lab, "");
    done(&daemon, "PUT", "/v1/mode", &json!({ "mode": "enforce" }));
    assert_eq!(block(&daemon, CALLER).status, 200);
    daemon
}

pub fn blocks(daemon: &Daemon<'_>) -> Vec<Block> {
    ask(daemon, "GET", "/v1/blocks", "").lines()
}

pub fn import(daemon: &Daemon<'_>, numbers: impl Iterator<Item = String>) -> ImportNews {
    let row = |(line, number): (usize, String)| {
        let row = json!({
            "line": line + 1, "number": number, "expires": "2099-01-01T00:00:00Z", "reason": "a list",
        });
        format!("{row}\n")
    };
    let body: String = numbers.enumerate().map(row).collect();
    let answer = ask(daemon, "POST", "/v1/blocks/import", &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.lines().pop().expect("a last line")
}

/// Returns whether the gate refuses every INVITE of [`CALLER`]; it must lose none of another's.
pub fn refuses(lab: &Lab, receiver: &Receiver) -> bool {
    let record = lab.traffic(receiver, &[CALLER, INNOCENT], 5_000, 100).finish();
    assert_eq!(record.refused(INNOCENT, ..).len(), 0, "an innocent one was lost");
    match record.refused(CALLER, ..).len() {
        0 => false,
        50 => true,
        some => panic!("{some} of 50 were refused"),
    }
}

pub fn number(index: u32) -> String {
    format!("+62813{index:08}")
}

// ---- processes ------------------------------------------------------------------------------

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn second_daemon_is_refused_and_the_first_goes_on() {
    let lab = Lab::new("two");
    let daemon = refusing(&lab);
    let config = daemon.config_file().display().to_string();
    let second = daemon.cli(&["daemon", "--config", &config]);
    assert_eq!(second.code, 1, "{}", second.stderr);
    assert!(second.stderr.contains("a palang daemon holds"), "{}", second.stderr);
    let lock = daemon.runtime().join("daemon.lock").display().to_string();
    assert!(second.stderr.contains(&lock), "{}", second.stderr);
    // Nor one with files of its own, and the same pins.
    let other = Daemon::prepare(&lab, &format!("[paths]\npins = \"{}\"", daemon.pins().display()));
    let config = other.config_file().display().to_string();
    let third = daemon.cli(&["daemon", "--config", &config]);
    assert_eq!(third.code, 1, "{}", third.stderr);
    let pins = daemon.pins().display().to_string();
    assert!(third.stderr.contains(&format!("a palang daemon holds {pins}")), "{}", third.stderr);
    assert!(status(&daemon).findings.is_empty());
    assert!(refuses(&lab, &lab.receiver(5060)));
}

/// Capabilities as `setpriv` wants them; all that the unit gives.
/// `tests/live/reply_path.rs` shows that the last one is needed.
const UNIT: [&str; 5] = ["bpf", "net_admin", "perfmon", "chown", "net_raw"];

fn only(capabilities: &[&str]) -> Vec<String> {
    let set = capabilities.iter().fold("-all".to_owned(), |set, one| set + ",+" + one);
    let options = [format!("--bounding-set={set}"), format!("--inh-caps={set}")];
    ["setpriv".to_owned()].into_iter().chain(options).collect()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn capabilities_of_the_unit_are_sufficient_and_each_is_needed() {
    let lab = Lab::new("powers");
    let mut daemon = Daemon::prepare(&lab, "[api]\ngroup = \"daemon\"");
    let receiver = lab.receiver(5060);
    let spawn = |daemon: &mut Daemon<'_>, capabilities: &[&str]| {
        let wrapper = only(capabilities);
        let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
        daemon.spawn_by(&wrapper, &[]);
    };
    // Without chown it works, but for root alone.
    for missing in &UNIT[..3] {
        let missing = *missing;
        let rest: Vec<_> = UNIT.into_iter().filter(|one| *one != missing).collect();
        let said = fs::read_to_string(daemon.folder().join("stderr")).unwrap_or_default().len();
        spawn(&mut daemon, &rest);
        assert_eq!(daemon.wait_for_end(), 5, "{missing}: {}", daemon.stderr());
        let said = daemon.stderr()[said..].to_owned();
        let name = format!("CAP_{}", missing.to_uppercase());
        assert!(said.contains(&name), "{missing}: {said}");
        assert!(!said.contains("verifier"), "{said}");
        assert!(!refuses(&lab, &receiver));
    }
    let unit = include_str!("../../packaging/palang.service");
    let set = UNIT.map(|one| format!("CAP_{}", one.to_uppercase()));
    let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let mut line: Vec<_> = line.expect("a bounding set").split(' ').collect();
    line.sort_unstable();
    let mut set = set.to_vec();
    set.sort();
    assert_eq!(line, set);
    // No exit code makes systemd start it again and again.
    assert!(unit.lines().any(|line| line == "Restart=on-abnormal"));
    // A part of it that broke is no error of the configuration.
    let again = format!("RestartForceExitStatus={} 101", palang::exit::Exit::Internal as u8);
    assert!(unit.lines().any(|line| line == again), "{again}");

    spawn(&mut daemon, &UNIT[..3]);
    daemon.wait_for_answer();
    assert!(daemon.stderr().contains("only root can use"), "{}", daemon.stderr());
    assert!(daemon.stderr().contains("CAP_CHOWN"), "{}", daemon.stderr());
    let socket = daemon.runtime().join("palang.sock");
    let mode = || fs::metadata(&socket).expect("the socket").permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    assert_eq!(daemon.stop(), 0);

    spawn(&mut daemon, &UNIT);
    daemon.wait_for_answer();
    assert_eq!(mode(), 0o660);
    done(&daemon, "PUT", "/v1/mode", &json!({ "mode": "enforce" }));
    assert_eq!(block(&daemon, CALLER).status, 200);
    assert!(refuses(&lab, &receiver));
    assert!(status(&daemon).findings.is_empty(), "{:?}", status(&daemon).findings);
    lab.delete_and_recreate_veth();
    until("attached again", || (status(&daemon).reattached == 1).then_some(()));
    assert!(refuses(&lab, &receiver));
    assert_eq!(daemon.stop(), 0);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn start_by_another_user_names_what_is_missing() {
    let lab = Lab::new("user");
    let mut daemon = refusing(&lab);
    assert_eq!(daemon.stop(), 0);
    let folder = daemon.folder().to_owned();
    // Where such a user can read everything, only the powers are missing.
    for path in [&folder, &daemon.runtime(), &daemon.state()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("chmod");
    }
    for entry in fs::read_dir(daemon.state()).expect("the state's folder").flatten() {
        fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o666)).expect("chmod");
    }
    let lock = daemon.runtime().join("daemon.lock");
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o666)).expect("chmod");
    // The program may be in a folder that is root's own.
    let program = folder.join("palang");
    let built = daemon.command_by(&["setpriv"], &[]);
    let built = built.get_args().nth(2).expect("the program").to_owned();
    run::copy_program(built.as_ref(), &program);
    let mut command = lab.command_in_gate("setpriv");
    command.args(["--reuid=1", "--regid=1", "--clear-groups"]).arg(&program);
    command.args(["daemon", "--config"]).arg(daemon.config_file());
    let told = run::run(&mut command);
    assert_eq!(told.code, 5, "{}", told.stderr);
    assert!(told.stderr.contains("run as root"), "{}", told.stderr);
    assert!(refuses(&lab, &lab.receiver(5060)));
}

// ---- the socket -----------------------------------------------------------------------------

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn file_at_the_place_of_the_socket_is_replaced_or_named() {
    let lab = Lab::new("stale");
    let mut daemon = refusing(&lab);
    daemon.kill();
    let socket = daemon.runtime().join("palang.sock");
    assert!(socket.exists(), "a kill leaves it");
    let told = daemon.cli(&["block", "list"]);
    assert_eq!(told.code, 3, "{}", told.stderr);
    assert!(told.stderr.contains("the daemon does not run"), "{}", told.stderr);
    daemon.start_again();
    assert!(status(&daemon).findings.is_empty());

    assert_eq!(daemon.stop(), 0);
    let _ = fs::remove_file(&socket);
    fs::write(&socket, "a file").expect("written");
    daemon.start_again();

    assert_eq!(daemon.stop(), 0);
    let _ = fs::remove_file(&socket);
    // Nobody removes a folder unseen.
    fs::create_dir(&socket).expect("a folder");
    daemon.spawn();
    assert_eq!(daemon.wait_for_end(), 1);
    assert!(daemon.stderr().contains(&socket.display().to_string()), "{}", daemon.stderr());
    fs::remove_dir(&socket).expect("still there");
    daemon.start_again();
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn deleted_socket_changes_no_verdict() {
    let lab = Lab::new("deleted");
    let mut daemon = refusing(&lab);
    let receiver = lab.receiver(5060);
    fs::remove_file(daemon.runtime().join("palang.sock")).expect("removed");
    assert!(refuses(&lab, &receiver));
    let told = daemon.cli(&["block", "list"]);
    assert_eq!(told.code, 3);
    assert!(told.stderr.contains("the socket does not exist"), "{}", told.stderr);
    // Root's own way is open, and the daemon, which lives, learns of it.
    let config = daemon.config_file();
    let hand = |arguments: &[&str]| {
        let mut command = daemon.command(arguments);
        run::must(command.env("PALANG_CONFIG", &config))
    };
    hand(&["override", "on", "--for", "10m", "--reason", "no socket"]);
    assert!(!refuses(&lab, &receiver));
    daemon.signal("USR1");
    until("adopted", || daemon.stderr().contains("adopted the override").then_some(()));
    hand(&["override", "off"]);
    assert!(refuses(&lab, &receiver));
    daemon.restart();
    assert!(refuses(&lab, &receiver));
    let audit = ask(&daemon, "GET", "/v1/audit", "").text();
    assert!(audit.contains("no socket"), "{audit}");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn malformed_requests_are_refused_and_the_daemon_goes_on() {
    let lab = Lab::new("malformed");
    let mut daemon = refusing(&lab);
    let receiver = lab.receiver(5060);
    let traffic = lab.traffic(&receiver, &[CALLER, INNOCENT], 2_000, 1_000_000);
    let before = (blocks(&daemon), status(&daemon).audit_head);

    let long = "1".repeat(3 << 20);
    let unending = format!(r#"{{"number":"{long}"#);
    let deep = "[".repeat(100_000);
    let wrong: Vec<(&str, &str, &str)> = vec![
        ("POST", "/v1/blocks", ""),
        ("POST", "/v1/blocks", "{"),
        ("POST", "/v1/blocks", "[]"),
        ("POST", "/v1/blocks", "null"),
        ("POST", "/v1/blocks", "\0\0\0"),
        ("POST", "/v1/blocks", "\"number\""),
        ("POST", "/v1/blocks", &deep),
        ("POST", "/v1/blocks", &unending),
        ("POST", "/v1/blocks", r#"{"number":"1","seconds":60}"#),
        ("POST", "/v1/blocks", r#"{"number":"1","seconds":60,"reason":"a","colour":"red"}"#),
        ("POST", "/v1/blocks", r#"{"number":112345678,"seconds":60,"reason":"a"}"#),
        ("POST", "/v1/blocks", r#"{"number":"0812345678","seconds":"60","reason":"a"}"#),
        ("POST", "/v1/blocks", r#"{"number":"0812345678","seconds":-1,"reason":"a"}"#),
        ("POST", "/v1/blocks", r#"{"number":"0812345678","seconds":0,"reason":"a"}"#),
        ("POST", "/v1/blocks", r#"{"number":"0812345678","seconds":1e30,"reason":"a"}"#),
        (
            "POST",
            "/v1/blocks",
            r#"{"number":"0812345678","seconds":18446744073709551615,"reason":"a"}"#,
        ),
        ("POST", "/v1/blocks", r#"{"number":"0812345678","seconds":60,"reason":"  "}"#),
        ("POST", "/v1/blocks", r#"{"number":"0812345678","reason":"a"}"#),
        (
            "POST",
            "/v1/blocks",
            r#"{"number":"0812345678","seconds":60,"permanent":true,"reason":"a"}"#,
        ),
        ("POST", "/v1/blocks", r#"{"number":"0812345678","expires":"tomorrow","reason":"a"}"#),
        (
            "POST",
            "/v1/blocks",
            r#"{"number":"0812345678","expires":"1999-01-01T00:00:00Z","reason":"a"}"#,
        ),
        ("POST", "/v1/blocks", r#"{"number":"0812-CALL-NOW","seconds":60,"reason":"a"}"#),
        ("POST", "/v1/blocks", r#"{"number":"","seconds":60,"reason":"a"}"#),
        ("POST", "/v1/blocks", r#"{"number":"*","seconds":60,"reason":"a"}"#),
        ("POST", "/v1/allows", r#"{"number":"+62*1"}"#),
        ("POST", "/v1/allows", r#"{"number":"0812345678","seconds":1,"expires":null,"x":1}"#),
        ("PUT", "/v1/override", r#"{"seconds":604801,"reason":"a"}"#),
        ("PUT", "/v1/override", r#"{"seconds":60}"#),
        ("PUT", "/v1/override", r#"{"reason":"a"}"#),
        ("PUT", "/v1/override", "{}"),
        ("PUT", "/v1/mode", "{}"),
        ("PUT", "/v1/mode", r#"{"mode":"Enforce"}"#),
        ("PUT", "/v1/mode", r#"{"mode":"observe","seconds":60}"#),
        ("PUT", "/v1/mode", r#"{"mode":"enforce","seconds":0}"#),
        ("DELETE", "/v1/blocks/%00", ""),
        ("DELETE", "/v1/blocks/%FF", ""),
        ("DELETE", "/v1/blocks/x?dry_run=perhaps", ""),
        ("DELETE", "/v1/blocks/0812345678?dryrun=true", ""),
        ("GET", "/v1/calls?limit=-1", ""),
        ("GET", "/v1/calls?verdict=maybe", ""),
        ("GET", "/v1/calls?reason=maybe", ""),
        ("GET", "/v1/calls?since=yesterday", ""),
        ("GET", "/v1/calls?since=2026-01-01T00:00:00Z&since=2026-01-01T00:00:00Z", ""),
        ("GET", "/v1/calls?caller=62812*", ""),
        ("GET", "/v1/audit?number=nobody", ""),
        ("GET", "/v1/audit/verify?head=0", ""),
        ("GET", "/v1/check/62812*", ""),
        ("GET", "/v1/check/hello", ""),
        ("GET", "/v1/explain/62812*", ""),
        ("POST", "/v1/interfaces/gate0", r#"{"mode":"skb"}"#),
        ("POST", "/v1/store/backup", r#"{"path":"relative.db"}"#),
        ("POST", "/v1/store/backup", r#"{"path":7}"#),
        ("POST", "/v1/blocks/import?skip_bad=2", "{}"),
    ];
    for (method, path, body) in wrong {
        let answer = ask(&daemon, method, path, body);
        let shown = &body[..body.len().min(100)];
        assert_eq!(answer.status, 400, "{method} {path} {shown}: {}", answer.text());
        let problem: Problem = answer.json();
        assert_eq!(problem.kind, ProblemKind::Usage, "{method} {path} {shown}");
        assert!(problem.message.len() < 500, "{method} {path}: {}", problem.message.len());
    }
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/v1"),
        ("GET", "/v1/blocks/"),
        ("GET", "/v2/status"),
        ("DELETE", "/v1/blocks"),
        ("PATCH", "/v1/status"),
        ("GET", "/v1/../etc/passwd"),
        ("GET", "/v1/interfaces/gate0"),
        // Numbers that nothing can have.
        ("GET", "/v1/calls/18446744073709551615"),
        ("GET", "/v1/calls/9223372036854775808"),
    ] {
        let answer = ask(&daemon, method, path, "");
        let problem: Problem = answer.json();
        assert_eq!((answer.status, problem.kind), (404, ProblemKind::NotFound), "{method} {path}");
    }
    for (path, body) in [
        ("close", r#"{"note":"a test"}"#),
        ("extend", r#"{"seconds":60}"#),
        ("free", r#"{"note":"a test"}"#),
    ] {
        for id in [7, i64::MAX as u64 + 1, u64::MAX] {
            let answer = ask(&daemon, "POST", &format!("/v1/reviews/{id}/{path}"), body);
            assert_eq!(answer.status, 404, "{id} {path}: {}", answer.text());
        }
    }
    // No HTTP at all, or not what this server speaks.
    for bytes in [
        &b"\0\xff\xfe garbage \r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET /v1/status SIP/2.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/blocks HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnot hex\r\n",
        b"GET /v1/status HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ] {
        let mut stream = connect(&daemon);
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.contains(" 200 "), "{:?}: {answer}", String::from_utf8_lossy(bytes));
    }
    let header = format!("GET /v1/status HTTP/1.1\r\nX: {long}\r\n\r\n");
    assert_eq!(exchange(connect(&daemon), header.as_bytes()).status, 431);

    // Rows of an import: bad ones are named by line, nothing is imported.
    let line = format!("{{\"number\":\"{long}\"}}\n");
    let two = format!("{}\n{line}", json!({ "line": 1, "number": number(1), "reason": "a" }));
    for body in [&line, &long, &two] {
        let answer = ask(&daemon, "POST", "/v1/blocks/import", body);
        let problem: Problem = answer.json();
        assert_eq!(answer.status, 400, "{}", problem.message);
        assert!(problem.message.contains("longer than"), "{}", problem.message);
    }
    let rows = [
        "{",
        "null",
        r#"{"line":1}"#,
        r#"{"line":"one","number":"0812345678","reason":"a"}"#,
        r#"{"line":1,"number":"0812345678","reason":"a","more":true}"#,
        "\u{fffd}",
        r#"{"line":7,"number":"0812345678","expires":"2999-01-01T00:00:00Z","reason":"a","refuse":"503"}"#,
    ];
    let answer = ask(&daemon, "POST", "/v1/blocks/import", &rows.join("\n"));
    let ImportNews::Refused { bad, .. } = answer.lines().pop().expect("a last line") else {
        panic!("bad rows were taken: {}", answer.text());
    };
    let lines: Vec<_> = bad.iter().map(|row| row.line).collect();
    assert_eq!(lines, [1, 2, 3, 4, 5, 6, 7]);
    assert!(bad[6].message.starts_with("refuse: 503 is not offered"), "{:?}", bad[6]);

    // Half a request holds nobody up, however many there are; half an import imports nothing.
    let halves: Vec<_> = (0..200)
        .map(|index| {
            let mut stream = connect(&daemon);
            let half: &[u8] = match index % 4 {
                0 => b"",
                1 => b"POST /v1/blo",
                2 => b"POST /v1/blocks HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{\"number\":",
                _ => b"POST /v1/blocks/import HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n\
                       {\"line\":1,\"number\":\"0812345678\",\"reason\":\"a\",\"expires\":null}\n",
            };
            stream.write_all(half).expect("sent");
            stream
        })
        .collect();
    done(
        &daemon,
        "PUT",
        "/v1/override",
        &json!({ "seconds": 60, "reason": "a test", "dry_run": true }),
    );
    drop(halves);

    assert_eq!((blocks(&daemon), status(&daemon).audit_head), before, "nothing was changed");
    assert!(status(&daemon).findings.is_empty(), "{:?}", status(&daemon).findings);
    assert!(!daemon.stderr().contains("panicked"), "{}", daemon.stderr());
    let record = traffic.stop();
    assert_eq!(record.delivered(CALLER, ..).len(), 0);
    assert_eq!(record.refused(INNOCENT, ..).len(), 0);
    assert!(daemon.is_running());
}

// All wrong rows are named and none is taken; a wrong file does not fill memory, and its error is clear.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn import_of_a_wrong_file_is_refused_with_a_reason() {
    let lab = Lab::new("wrong-file");
    let daemon = Daemon::start(&lab, "protected = [\"+62812*\"]\n[limits]\nblocks = 10000");
    let file = daemon.folder().join("blocks.csv");
    let head = "number,expires,reason\n";
    for skip in [false, true] {
        let row = |index: u32| format!("+62812{index:08},2099-01-01T00:00:00Z,a list\n");
        fs::write(&file, head.to_owned() + &(0..40_000).map(row).collect::<String>()).unwrap();
        let path = file.display().to_string();
        let mut arguments = vec!["block", "import", &path];
        arguments.extend(skip.then_some("--skip-bad"));
        let told = daemon.cli(&arguments);
        assert_eq!(told.code, 2, "{}", told.stdout);
        let said = told.stderr.lines().next().unwrap_or_default();
        assert!(said.starts_with("line 2: 6281200000000 is never blocked"), "{said}");
        let last = told.stderr.lines().last().unwrap();
        assert!(last.contains("is this the right file"), "{last}");
        let rows: usize = last.split(' ').find_map(|word| word.parse().ok()).expect("a count");
        assert_eq!(told.stderr.lines().count(), rows + 1, "each is named that is counted");
    }
    let rows: String = (0..12_000).map(|index| number(index) + ",permanent,a list\n").collect();
    fs::write(&file, head.to_owned() + &rows).unwrap();
    let told = daemon.cli(&["block", "import", &file.display().to_string()]);
    assert_eq!(told.code, 1, "{}", told.stdout);
    assert!(told.stderr.contains("10000 blocked numbers"), "{}", told.stderr);
    assert!(blocks(&daemon).is_empty());
}

// ---- what the driver cannot judge -----------------------------------------------------------

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn sip_over_tcp_arrives_and_is_counted_and_reported() {
    let lab = Lab::new("tcp");
    let daemon = refusing(&lab);
    assert_eq!(status(&daemon).colour, Health::Green);
    let listener = lab.in_gate(|| TcpListener::bind((GATE, 5060))).expect("TCP port 5060");
    let mut call = lab.in_trunk(|| TcpStream::connect((GATE, 5060))).expect("connected");
    let message = format!("INVITE sip:112@{GATE} SIP/2.0\r\nFrom: <sip:{CALLER}@a>;tag=1\r\n\r\n");
    call.write_all(message.as_bytes()).expect("sent");
    drop(call);
    let (mut arrived, mut text) = (listener.accept().expect("accepted").0, String::new());
    arrived.read_to_string(&mut text).expect("read");
    assert_eq!(text, message, "also of a blocked caller");

    let told = status(&daemon);
    assert!(told.packets["sip-over-tcp"] >= 3, "{:?}", told.packets);
    assert_eq!(told.colour, Health::Amber);
    assert!(told.findings[0].message.contains("docs/kamailio.md"), "{:?}", told.findings);
    let people = daemon.cli(&["status"]).stdout;
    assert!(people.starts_with("AMBER") && people.contains("SIP over TCP"), "{people}");
}
