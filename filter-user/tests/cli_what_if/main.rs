//! `palang what-if` as a user sees it: counts, output, messages, exit codes; the daemon's side is
//! an API that answers from a script.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

#[path = "../common/mod.rs"]
mod common;
mod records;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use axum::extract::Request;
use axum::routing::get;
use axum::{Json, Router};
use jiff::{SignedDuration, Timestamp};
use palang::api::wire::{Allow, Block, Call, ConfigInForce, Mode, Persisted, Report, ReportKind};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::common::assert_exit;

/// Nine INVITEs of 100, each a call of its own, three of them to port 5060.
const SCAN: &str = "ipfixprobe__sip.pcap";

const BLOCKED: &str = "6281234567890";

/// A folder with files, and an API on a socket in it.
struct Home {
    folder: TempDir,
    _runtime: Option<Runtime>,
}

impl Home {
    /// Creates a home without a daemon.
    fn new() -> Home {
        Home { folder: TempDir::new().unwrap(), _runtime: None }
    }

    fn with(routes: Router) -> Home {
        let folder = TempDir::new().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let entered = runtime.enter();
        let listener = tokio::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        runtime.spawn(async { axum::serve(listener, routes).await });
        drop(entered);
        Home { folder, _runtime: Some(runtime) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_palang"));
        command.arg("--socket").arg(self.path("socket")).arg("what-if").args(arguments);
        command.env("TZ", "UTC").stdin(Stdio::null()).output().unwrap()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> (Value, String) {
        let output = self.run(&[arguments, &["-o", "json"]].concat());
        let (out, err) = assert_exit(&output, 0);
        assert_eq!(out.lines().count(), 1, "{out}");
        (serde_json::from_str(&out).unwrap(), err)
    }
}

fn capture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/pcaps").join(name);
    path.to_str().unwrap().to_owned()
}

/// Creates a pcap of INVITEs: second, number, Call-ID.
fn pcap(calls: &[(u32, &str, &str)]) -> Vec<u8> {
    let mut file = vec![0xD4, 0xC3, 0xB2, 0xA1, 2, 0, 4, 0];
    for value in [0u32, 0, 65_535, 1] {
        file.extend(value.to_le_bytes());
    }
    for (second, number, call_id) in calls {
        let message = format!(
            "INVITE sip:112@x SIP/2.0\r\nFrom: <sip:+{number}@x>\r\nTo: <sip:112@x>\r\n\
             Call-ID: {call_id}\r\n\r\n"
        );
        let mut frame = Vec::new();
        etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(5060, 5060)
            .write(&mut frame, message.as_bytes())
            .unwrap();
        let length = frame.len() as u32;
        for value in [1_700_000_000 + second, 0, length, length] {
            file.extend(value.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

fn blocks(numbers: &[&str]) -> String {
    numbers
        .iter()
        .map(|number| format!("[[block]]\nnumber = \"{number}\"\npermanent = true\n"))
        .collect()
}

fn difference(refused: u64, passed: u64, granted: u64, no_longer: u64) -> Value {
    json!({"newly_refused": refused, "newly_passed": passed, "newly_granted": granted,
        "no_longer_granted": no_longer})
}

#[test]
fn json_is_a_contract() {
    let home = Home::new();
    let all_ports =
        home.file("all.toml", format!("ports = [5060, 5061, 5062, 13434]\n{}", blocks(&["100"])));
    let old = home.file("old.toml", "");
    // Three of the nine calls go to 5060, and the old policy reads no other port.
    let (told, err) = home.json(&[&capture(SCAN), "--policy", &all_ports, "--against", &old]);
    assert_eq!(
        told,
        json!({
            "frames": 50, "calls": 9,
            "policy": {"refused": 9, "granted": 0, "passed": {}},
            "compared_with": {"kind": "file", "name": "old.toml"},
            "baseline": {"refused": 0, "granted": 0, "passed": {"not-blocked": 3, "other-port": 6}},
            "difference": difference(9, 0, 0, 0),
            "numbers": [{"number": "100", "refused": 9, "granted": 0, "baseline_refused": 0,
                "baseline_granted": 0, "difference": difference(9, 0, 0, 0)}],
        })
    );
    assert_eq!(err, "");
    // The other way round.
    let (told, _) = home.json(&[&capture(SCAN), "--policy", &old, "--against", &all_ports]);
    assert_eq!(told["difference"], difference(0, 9, 0, 0));
    let output =
        home.run(&[&capture(SCAN), "--policy", &all_ports, "--against", &old, "-o", "raw"]);
    assert_eq!(assert_exit(&output, 0).0, "100\t9\t0\t0\t0\t9\t0\t0\t0\n");
}

#[test]
fn table_has_both_policies_and_their_difference() {
    let home = Home::new();
    let (new, old) = (home.file("new.toml", blocks(&["100"])), home.file("old.toml", ""));
    let (out, _) =
        assert_exit(&home.run(&[&capture(SCAN), "--policy", &new, "--against", &old]), 0);
    let words = |label: &str| {
        let line = out.lines().find(|line| line.trim_start().starts_with(label)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(out.starts_with("3 calls in 50 frames\n"), "{out}");
    assert_eq!(words("policy"), ["policy", "old.toml", "difference"]);
    assert_eq!(words("calls "), ["calls", "3", "3", "0"]);
    assert_eq!(words("refused "), ["refused", "3", "0", "+3"]);
    assert_eq!(words("passed: not-blocked"), ["passed:", "not-blocked", "0", "3", "-3"]);
    assert_eq!(words("100"), ["100", "3", "0", "0", "0", "3", "newly", "refused"]);
}

#[test]
fn blocked_number_that_calls_again_is_granted() {
    let home = Home::new();
    let calls = pcap(&[
        (0, BLOCKED, "a"),
        (1, BLOCKED, "a"), // sent again: no other call
        (3, "6281100000000", "x"),
        (10, BLOCKED, "b"),
        (20, BLOCKED, "c"), // the third attempt
        (21, BLOCKED, "c"),
        (200, BLOCKED, "d"), // within the grant
    ]);
    let calls = home.file("calls.pcap", calls);
    let new = home.file("new.toml", format!("[redial]\nattempts = 3\n{}", blocks(&[BLOCKED])));
    let old = home.file("old.toml", format!("[redial]\nattempts = 0\n{}", blocks(&[BLOCKED])));
    let (told, _) = home.json(&[&calls, "--policy", &new, "--against", &old]);
    assert_eq!(told["calls"], 5);
    assert_eq!(
        told["policy"],
        json!({"refused": 2, "granted": 2, "passed": {"not-blocked": 1, "redial-grant": 2}})
    );
    assert_eq!(told["baseline"], json!({"refused": 4, "granted": 0, "passed": {"not-blocked": 1}}));
    assert_eq!(told["difference"], difference(0, 2, 2, 0));
    assert_eq!(told["numbers"].as_array().unwrap().len(), 1, "who is not blocked changes nothing");
    // Without the table nobody is let in, as before there was one.
    let none = home.file("none.toml", blocks(&[BLOCKED]));
    let (told, _) = home.json(&[&calls, "--policy", &none, "--against", &old]);
    assert_eq!(told["difference"], difference(0, 0, 0, 0));
    // A block's own setting beats that of the file.
    for (own, granted) in [("redial = \"2/10m/30m\"\n", 3), ("no_redial = true\n", 0)] {
        let own = home.file("own.toml", format!("[redial]\n{}{own}", blocks(&[BLOCKED])));
        let (told, _) = home.json(&[&calls, "--policy", &own, "--against", &old]);
        assert_eq!(told["policy"]["granted"], granted);
    }
    // Fewer attempts, and a window that is too short for the same ones.
    let two = home.file("two.toml", format!("[redial]\nattempts = 2\n{}", blocks(&[BLOCKED])));
    let (told, _) = home.json(&[&calls, "--policy", &two, "--against", &new]);
    assert_eq!((&told["policy"]["refused"], &told["policy"]["granted"]), (&json!(1), &json!(3)));
    assert_eq!(told["difference"], difference(0, 1, 1, 0));
    let late =
        home.file("late.pcap", pcap(&[(0, BLOCKED, "a"), (30, BLOCKED, "b"), (90, BLOCKED, "c")]));
    let minute = "[redial]\nattempts = 3\nwindow = \"1m\"\n";
    let short = home.file("short.toml", format!("{minute}{}", blocks(&[BLOCKED])));
    let (told, _) = home.json(&[&late, "--policy", &short, "--against", &new]);
    assert_eq!(told["difference"], difference(1, 0, 0, 1));
}

/// Checks that the kernel program judges a policy file as `what-if` does.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn replay_and_what_if_give_the_same_verdicts() {
    let home = Home::new();
    let calls: Vec<_> = (0..12).map(|n| (20 * n, n.to_string())).collect();
    let calls: Vec<_> = calls.iter().map(|(second, id)| (*second, BLOCKED, id.as_str())).collect();
    let calls = home.file("calls.pcap", pcap(&calls));
    let redial = "[redial]\nattempts = 4\nwindow = \"2m\"\ngrant = \"1m\"\n";
    let policy = home.file("new.toml", format!("{redial}{}", blocks(&[BLOCKED])));
    let (told, _) = home.json(&[&calls, "--policy", &policy, "--against", &policy]);
    // Seconds 0, 20, 40 are refused, 60 opens a grant until 120; 120, 140, 160 are refused, 180
    // opens the next one.
    assert_eq!(told["policy"]["refused"], 6);
    assert_eq!(told["policy"]["passed"], json!({"redial-grant": 6}));
    let replay = Command::new(env!("CARGO_BIN_EXE_palang"))
        .args(["replay", &calls, "--policy", &policy, "-o", "json"])
        .output()
        .unwrap();
    let (out, _) = assert_exit(&replay, 0);
    let summary: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(summary["summary"]["reasons"], json!({"blocked-number": 6, "redial-grant": 6}));
}

#[test]
fn policy_compared_with_itself_has_no_difference() {
    let home = Home::new();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/demo-policy.toml");
    let demo = demo.to_str().unwrap();
    for name in [SCAN, "wswiki__SIP_DTMF2.cap", "torture-4475.public.udp4.pcap"] {
        let (told, _) = home.json(&[&capture(name), "--policy", demo, "--against", demo]);
        assert_eq!(told["difference"], difference(0, 0, 0, 0), "{name}");
        assert_eq!(told["policy"], told["baseline"], "{name}");
        assert_eq!(told["numbers"], json!([]), "{name}");
        assert!(told["calls"].as_u64().unwrap() > 0, "{name}");
    }
}

#[test]
fn policy_without_a_baseline_is_judged_alone() {
    let home = Home::new();
    let new = home.file("new.toml", format!("ladder = \"ladder.toml\"\n{}", blocks(&["100"])));
    home.file("ladder.toml", "");
    let (told, err) = home.json(&[&capture(SCAN), "--policy", &new]);
    assert!(err.contains("no comparison") && err.contains("--against FILE"), "{err}");
    assert!(err.contains("the ladder has no effect: see --since"), "{err}");
    assert_eq!(told["policy"]["refused"], 3);
    for field in ["compared_with", "baseline", "difference"] {
        assert_eq!(told[field], Value::Null, "{field}");
    }
    assert_eq!(
        told["numbers"],
        json!([{"number": "100", "refused": 3, "granted": 0, "baseline_refused": null,
            "baseline_granted": null, "difference": null}])
    );
    let (out, _) = assert_exit(&home.run(&[&capture(SCAN), "--policy", &new]), 0);
    assert!(!out.contains("difference") && out.contains("numbers that are refused"), "{out}");
    let output = home.run(&[&capture(SCAN), "--policy", &new, "-o", "raw"]);
    assert_eq!(assert_exit(&output, 0).0, "100\t3\t0\t-\t-\t-\t-\t-\t-\n");
}

#[test]
fn table_shows_twenty_numbers_and_how_many_more_there_are() {
    let home = Home::new();
    let numbers: Vec<String> = (0..23).map(|index| format!("62812345678{index:02}")).collect();
    let calls: Vec<_> =
        numbers.iter().map(|number| (0, number.as_str(), number.as_str())).collect();
    let calls = home.file("calls.pcap", pcap(&calls));
    let new = home.file("new.toml", "[[block]]\nprefix = \"62812*\"\npermanent = true\n");
    let old = home.file("old.toml", "");
    let arguments = [&*calls, "--policy", &new, "--against", &old];
    let rows = |out: &str| out.lines().filter(|line| line.trim_start().starts_with("6281")).count();
    let (out, _) = assert_exit(&home.run(&arguments), 0);
    assert_eq!(rows(&out), 20);
    assert!(out.ends_with("\nand 3 more numbers (--all shows them)\n"), "{out}");
    let (out, _) = assert_exit(&home.run(&[&arguments[..], &["--all"]].concat()), 0);
    assert!(rows(&out) == 23 && !out.contains("more number"), "{out}");
    let (out, _) = assert_exit(&home.run(&[&arguments[..], &["-o", "raw"]].concat()), 0);
    assert_eq!(out.lines().count(), 23);
}

#[test]
fn wrong_policy_is_refused_whole_with_its_place() {
    let home = Home::new();
    let good = home.file("good.toml", "");
    home.file("steep.toml", "[[rung]]\nstrikes = 0\n");
    for (policy, place, message) in [
        ("[redial]\nattempts = 1\n", "new.toml:2:12: ", "attempts: 2 to 8, or 0"),
        ("[redial]\nwindow = \"59s\"\n", "new.toml:2:10: ", "window: \"59s\" is not 1m to 24h"),
        ("[redial]\ngrant = \"1 month\"\n", "new.toml:2:9: ", "grant: \"1 month\" is not"),
        ("[redial]\nwait = 3\n", "new.toml:2:1: ", "unknown field `wait`"),
        ("ladder = \"\"\n", "new.toml:1:10: ", "ladder: name a file"),
        ("ladder = \"steep.toml\"\n", "steep.toml:2:11: ", "strikes: 0.01 to 100"),
        ("ladder = \"none.toml\"\n", "none.toml: ", "cannot read"),
        ("[[block]]\nnumber = \"0811\"\n", "new.toml:1:1: ", "every block needs an end"),
        (
            "[[block]]\nnumber = \"0811\"\npermanent = true\nredial = \"3/10m\"\n",
            "new.toml:4:10: ",
            "such as 3/10m/30m",
        ),
        (
            "[[block]]\nnumber = \"0811\"\npermanent = true\nredial = \"3/10m/30m\"\nno_redial = true\n",
            "new.toml:4:10: ",
            "not both",
        ),
    ] {
        let new = home.file("new.toml", policy);
        for sides in [[&new, &good], [&good, &new]] {
            let output = home.run(&[
                &capture(SCAN),
                "--policy",
                sides[0],
                "--against",
                sides[1],
                "-o",
                "json",
            ]);
            let (out, err) = assert_exit(&output, 2);
            assert_eq!(out, "", "nothing is judged");
            assert!(err.contains(place) && err.contains(message), "{err}");
        }
    }
}

#[test]
fn wrong_arguments_are_usage_errors() {
    let home = Home::new();
    let (new, calls) = (home.file("new.toml", ""), capture(SCAN));
    let plot = home.path("calls.png");
    for (arguments, message) in [
        (&["--policy", &new][..], "CAPTURE"),
        (&[&calls], "--policy"),
        (&[&calls, "--policy", &new, "--since", "7d"], "--since"),
        (&[&calls, "--policy", &new, "--until", "7d"], "--until"),
        (&[&calls, "--policy", &new, "--plot", plot.to_str().unwrap()], "PNG is not supported"),
        (&[&calls, "--policy", &new, "--plot", "calls"], "write FILE.svg"),
    ] {
        let (out, err) = assert_exit(&home.run(arguments), 2);
        assert!(out.is_empty() && err.contains(message), "{err}");
    }
    assert!(!plot.exists());
}

#[test]
fn capture_that_is_cut_or_missing_is_reported() {
    let home = Home::new();
    let ports = home.file("ports.toml", "ports = [9]\n");
    let none = home.run(&[&capture(SCAN), "--policy", &ports, "--against", &ports]);
    let nothing = "no calls in 50 frames on the policy's UDP ports: nothing to judge\n";
    assert_eq!(assert_exit(&none, 0).0, nothing);
    let policy = home.file("new.toml", blocks(&["100"]));
    let whole = std::fs::read(capture(SCAN)).unwrap();
    let cut = home.file("cut.pcap", &whole[..2_000]);
    let judge = |captures: &[&str]| {
        home.run(&[captures, &["--policy", &policy, "--against", &policy, "-o", "json"]].concat())
    };
    let (out, err) = assert_exit(&judge(&[&cut]), 6);
    assert!(err.contains("is cut off after frame"), "{err}");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert!((1..50).contains(&told["frames"].as_u64().unwrap()), "{told}");
    let (out, err) = assert_exit(&judge(&["/does/not/exist.pcap"]), 1);
    assert!(out.is_empty() && err.contains("cannot be opened"), "{err}");
    let (out, _) = assert_exit(&judge(&["/does/not/exist.pcap", &capture(SCAN)]), 6);
    assert!(out.contains("\"calls\":3"), "{out}");
}

#[test]
fn plot_is_written_as_svg() {
    let home = Home::new();
    let (new, old) = (home.file("new.toml", blocks(&["100"])), home.file("old.toml", ""));
    let plot = home.path("calls.svg");
    let path = plot.to_str().unwrap();
    let output = home.run(&[&capture(SCAN), "--policy", &new, "--against", &old, "--plot", path]);
    assert_exit(&output, 0);
    let picture = std::fs::read_to_string(&plot).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("refused, old.toml"), "{picture}");
    let nowhere = ["--plot", "/does/not/exist/calls.svg"];
    let output = home.run(&[&[&*capture(SCAN), "--policy", &new][..], &nowhere].concat());
    assert!(assert_exit(&output, 1).1.contains("cannot write"));
}

fn lines<T: serde::Serialize>(rows: impl IntoIterator<Item = T>) -> String {
    rows.into_iter().map(|row| serde_json::to_string(&row).unwrap() + "\n").collect()
}

fn block(number: &str) -> Block {
    Block {
        id: uuid::Uuid::nil(),
        rule: 7,
        number: number.into(),
        created: Timestamp::UNIX_EPOCH,
        expires: None,
        reason: "prank".into(),
        author: "siti".into(),
        origin: "operator".into(),
        node: "edge1".into(),
        observe: false,
        redial: None,
        no_redial: false,
        refuse: None,
    }
}

fn allow(number: &str) -> Allow {
    Allow {
        id: uuid::Uuid::nil(),
        rule: 8,
        number: number.into(),
        created: Timestamp::UNIX_EPOCH,
        expires: None,
        comment: String::new(),
        author: "siti".into(),
        origin: "operator".into(),
        node: "edge1".into(),
        incident: None,
    }
}

/// Creates a daemon with a configuration, a mode and blocks, that allows 62813*.
fn daemon(mode: &'static str, blocked: Vec<Block>) -> Router {
    daemon_with(mode, blocked, "interfaces = []\n[redial]\nattempts = 2\n", false)
}

/// Creates such a daemon with a configuration that may be masked.
fn daemon_with(mode: &'static str, blocked: Vec<Block>, text: &str, masked: bool) -> Router {
    let config = ConfigInForce {
        path: "/etc/palang/palang.toml".into(),
        text: text.into(),
        masked,
        problem: None,
    };
    let mode = Mode {
        ended: None,
        mode: mode.into(),
        until: None,
        persisted: Persisted::Yes,
        dry_run: false,
        order: 0,
    };
    let blocked = lines(blocked);
    Router::new()
        .route("/v1/config", get(|| async { Json(config) }))
        .route("/v1/mode", get(|| async { Json(mode) }))
        .route("/v1/allows", get(|| async { lines([allow("62813*")]) }))
        .route("/v1/blocks", get(|| async { blocked }))
}

#[test]
fn policy_without_against_is_compared_with_the_one_in_force() {
    let redial = Some("3/10m/30m".parse().unwrap());
    let blocked = || {
        vec![
            block(BLOCKED),
            block("62813*"),
            Block { no_redial: true, ..block("6281100000000") },
            Block { redial, ..block("14155550100") },
        ]
    };
    let home = Home::with(daemon("enforce", blocked()));
    let mut calls = Vec::new();
    for (second, ids) in [(0, ["a", "b", "c", "d"]), (10, ["e", "f", "g", "h"])] {
        for (number, id) in
            [BLOCKED, "6281300000000", "6281100000000", "14155550100"].iter().zip(ids)
        {
            calls.push((second, *number, id));
        }
    }
    let calls = home.file("calls.pcap", pcap(&calls));
    let new = home.file("new.toml", "");
    let (told, err) = home.json(&[&calls, "--policy", &new]);
    assert_eq!(err, "");
    assert_eq!(told["compared_with"], json!({"kind": "in-force", "name": "in force"}));
    // The first number is let in at its second attempt, as configured. One number is allowed. The
    // third has no redial, and the fourth needs a third attempt.
    assert_eq!(
        told["baseline"],
        json!({"refused": 5, "granted": 1, "passed": {"allowed-prefix": 2, "redial-grant": 1}})
    );
    assert_eq!(told["policy"], json!({"refused": 0, "granted": 0, "passed": {"not-blocked": 8}}));
    assert_eq!(told["difference"], difference(0, 5, 0, 1));
    // In mode observe the policy in force refuses nothing.
    let home = Home::with(daemon("observe", blocked()));
    let calls = home.file("calls.pcap", std::fs::read(calls).unwrap());
    let new = home.file("new.toml", "");
    let (told, err) = home.json(&[&calls, "--policy", &new]);
    assert!(err.contains("its mode is observe"), "{err}");
    assert_eq!(told["baseline"]["refused"], 0);
    assert_eq!(told["baseline"]["passed"]["observe"], 5);
}

#[test]
fn a_masked_configuration_is_compared_with_nothing() {
    let text = "interfaces = []\nprotected = [\"+6243*****23\"]\n";
    let home = Home::with(daemon_with("enforce", Vec::new(), text, true));
    let new = home.file("new.toml", "");
    let (told, err) = home.json(&[&capture(SCAN), "--policy", &new]);
    assert!(err.contains("masks the numbers: this needs the role operate"), "{err}");
    assert_eq!(told["baseline"], Value::Null);
}

#[test]
fn masked_blocks_are_compared_with_nothing() {
    let home = Home::with(daemon("enforce", vec![block("6281*******90")]));
    let new = home.file("new.toml", "");
    let (told, err) = home.json(&[&capture(SCAN), "--policy", &new]);
    assert!(err.contains("no comparison") && err.contains("the role operate"), "{err}");
    assert_eq!(told["baseline"], Value::Null);
}
