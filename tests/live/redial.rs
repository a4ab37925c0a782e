//! A blocked caller who calls again and again is let through, and a person gets a review.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use filter_common::abi::Grant;
use filter_common::number::{Digits, Number};
use palang_tests::lab::{GATE, Lab, TRUNK};
use serde_json::Value;

use crate::gate::{Gate, SEPARATE};
use crate::socket::{connect, request};

const CALLER: &str = "+6281234567890";
const DIGITS: &str = "6281234567890";
/// How soon a grant has to be reported.
const SOON: Duration = Duration::from_secs(5);

/// A console in the gate's namespace: says no to what is posted first, and takes all that comes
/// then.
struct Console {
    url: String,
    posted: Receiver<Value>,
}

impl Console {
    fn new(lab: &Lab) -> Console {
        let listener = lab.in_gate(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let url = format!("http://{}/grants?desk=1", listener.local_addr().unwrap());
        let (sender, posted) = channel();
        std::thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                let mut reader = BufReader::new(stream.unwrap());
                let (mut head, mut line) = (String::new(), String::new());
                while reader.read_line(&mut line).unwrap() > 2 {
                    head += &std::mem::take(&mut line).to_lowercase();
                }
                assert!(head.starts_with("post /grants?desk=1 http/1.1"), "{head}");
                let length = head.split("content-length: ").nth(1).unwrap();
                let mut body = vec![0; length.lines().next().unwrap().parse().unwrap()];
                reader.read_exact(&mut body).unwrap();
                let status = if index == 0 { "503 Later" } else { "204 No Content" };
                write!(reader.get_mut(), "HTTP/1.1 {status}\r\nConnection: close\r\n\r\n").unwrap();
                if index > 0 && sender.send(serde_json::from_slice(&body).unwrap()).is_err() {
                    return;
                }
            }
        });
        Console { url, posted }
    }

    fn config(&self, attempts: u8) -> String {
        let url = &self.url;
        format!("[redial]\nattempts = {attempts}\n[notify]\nwebhook = \"{url}\"")
    }
}

/// Lines of `GET /v1/events` from now on.
fn events(gate: &Gate<'_>) -> Receiver<Value> {
    let mut stream = connect(&gate.daemon);
    stream.set_read_timeout(None).unwrap();
    write!(stream, "GET /v1/events HTTP/1.1\r\nHost: palang\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines();
    // With the head it is known that the daemon listens for events.
    assert!(lines.next().unwrap().unwrap().contains("200 OK"));
    let (sender, events) = channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok).filter(|line| line.starts_with('{')) {
            if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                return;
            }
        }
    });
    events
}

fn check(gate: &Gate<'_>) -> Value {
    let output = gate.daemon.cli(&["check", CALLER, "-o", "json"]);
    let check: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(output.code, if check["verdict"] == "pass" { 0 } else { 10 }, "{output:?}");
    check
}

/// Returns the number of the next attempt, and of the attempt that passes.
fn next_attempt(gate: &Gate<'_>) -> (u64, u64) {
    let next = &check(gate)["next_attempt"];
    (next["attempt"].as_u64().unwrap(), next["of"].as_u64().unwrap())
}

fn reviews(gate: &Gate<'_>) -> Vec<Value> {
    gate.rows(&["review", "list"])
}

/// Waits until this number of reviews is listed.
fn wait_for_reviews(gate: &Gate<'_>, count: usize) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let reviews = reviews(gate);
        if reviews.len() >= count || begun.elapsed() > SOON {
            assert_eq!(reviews.len(), count, "{reviews:?}");
            return reviews;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn third_attempt_passes_and_is_listed_for_review() {
    let lab = Lab::new("redial");
    let console = Console::new(&lab);
    let gate = Gate::start(&lab, &console.config(3));
    gate.does(&["block", "add", CALLER, "--for", "1h", "--reason", "prank"]);
    let events = events(&gate);

    assert_eq!(next_attempt(&gate), (1, 3));
    assert!(!gate.passes(CALLER));
    assert_eq!(next_attempt(&gate), (1, 3), "within 5 s it is the same attempt");
    gate.age(CALLER, SEPARATE);
    assert_eq!(next_attempt(&gate), (2, 3));
    assert_eq!(check(&gate)["verdict"], "drop");
    assert!(!gate.passes(CALLER));
    gate.age(CALLER, SEPARATE);
    // A question opens no grant.
    for _ in 0..2 {
        assert_eq!(next_attempt(&gate), (3, 3));
        assert_eq!(check(&gate)["granted"], Value::Null);
    }
    assert_eq!(reviews(&gate), [Value::Null; 0]);
    let third = gate.call(CALLER);
    assert!(third.arrived_at.is_some(), "the third attempt passes");

    let told = console.posted.recv_timeout(SOON).expect("the webhook within 5 s");
    assert_eq!(told["event"], "redial-grant");
    assert_eq!(told["review"]["number"], DIGITS);
    assert_eq!(told["review"]["call_id"], third.call_id);
    assert_eq!(events.recv_timeout(SOON).expect("the event stream within 5 s"), told);
    let listed = wait_for_reviews(&gate, 1);
    assert_eq!(listed, [told["review"].clone()]);

    let now = check(&gate);
    assert_eq!((&now["verdict"], &now["reason"]), (&"pass".into(), &"redial-grant".into()));
    assert_eq!(now["granted"]["kind"], "redial");
    assert_eq!(now["granted"]["until"], listed[0]["until"]);
    assert_eq!(now["next_attempt"], Value::Null);
    let steps = gate.does(&["explain", CALLER])["steps"].clone();
    let decides = steps.as_array().unwrap().iter().find(|step| step["decides"] == true).unwrap();
    assert_eq!(decides["step"], "redial-grant");
    // The question of a SIP server.
    let mut stream = connect(&gate.daemon);
    let ask = format!(
        "GET /v1/check/{CALLER} HTTP/1.1\r\nHost: x\r\nAccept: text/plain\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\npass redial-grant\n"), "{answer}");

    // Another call, and the third sent again: no second entry.
    assert!(gate.passes(CALLER));
    let again = format!(
        "INVITE sip:112@{GATE} SIP/2.0\r\nVia: SIP/2.0/UDP {TRUNK};branch=z9hG4bK1\r\n\
         From: <sip:{CALLER}@{TRUNK}>;tag=1\r\nTo: <sip:112@{GATE}>\r\n\
         Call-ID: {}\r\nCSeq: 1 INVITE\r\n\r\n",
        third.call_id
    );
    lab.sender().send(5060, again.as_bytes()).unwrap();
    assert!(gate.passes("+6281200000001"), "something later, so that both were judged");
    let passed = || {
        let calls = gate.rows(&["calls", "--caller", CALLER, "--verdict", "pass"]);
        calls.iter().filter(|call| call["reason"] == "redial-grant").count()
    };
    let begun = Instant::now();
    while passed() < 2 && begun.elapsed() < SOON {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(passed(), 2, "a retransmission makes no record");
    assert_eq!(reviews(&gate).len(), 1);
    assert_eq!(gate.does(&["status"])["reviews"], 1);

    // The block is moved, and a caller who was let through stays so.
    gate.does(&["block", "add", CALLER, "--for", "2h", "--reason", "prank"]);
    assert_eq!(check(&gate)["reason"], "redial-grant");
    assert!(gate.passes(CALLER));

    gate.fails(2, &["review", "close", "1", "--note", " "]);
    gate.fails(4, &["review", "close", "2", "--note", "a real call"]);
    gate.does(&["review", "close", "1", "--note", "a real call", "--dry-run"]);
    assert_eq!(gate.does(&["status"])["reviews"], 1);
    let closed = gate.does(&["review", "close", "1", "--note", "a real call"]);
    assert_eq!(closed["review"]["note"], "a real call");
    assert_eq!(closed["in_force"]["reason"], "redial-grant");
    let again = gate.fails(5, &["review", "close", "1", "--note", "a prank"]);
    assert!(again.contains("a real call"), "{again}");
    assert_eq!(gate.does(&["status"])["reviews"], 0);
    assert_eq!(reviews(&gate), [Value::Null; 0]);
    assert_eq!(gate.rows(&["review", "list", "--all"]).len(), 1);
    assert_eq!(gate.last("redial grant").unwrap()["number"], DIGITS);
    assert_eq!(gate.last("review close").unwrap()["note"], "a real call");

    // The way back.
    gate.does(&["block", "add", CALLER, "--for", "2h", "--reason", "prank", "--no-redial"]);
    assert!(!gate.passes(CALLER));
    assert_eq!(gate.does(&["block", "show", CALLER])["no_redial"], true);
    assert!(console.posted.try_recv().is_err() && events.try_recv().is_err(), "told once");
    assert_eq!(gate.findings(), [""; 0]);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn third_attempt_without_the_daemon_passes_and_is_reviewed_later() {
    let lab = Lab::new("redial-alone");
    let console = Console::new(&lab);
    let mut gate = Gate::start(&lab, &console.config(3));
    gate.does(&["block", "add", "+62812*", "--for", "1h", "--reason", "prank"]);
    gate.daemon.kill();
    assert!(!gate.passes(CALLER));
    gate.age(CALLER, SEPARATE);
    assert!(!gate.passes(CALLER));
    gate.age(CALLER, SEPARATE);
    let third = gate.call(CALLER);
    assert!(third.arrived_at.is_some(), "the third attempt passes");
    assert!(gate.passes(CALLER));
    assert!(!gate.passes("+6281200000001"), "others of the prefix do not");

    gate.daemon.start_again();
    let told = console.posted.recv_timeout(SOON).expect("the webhook within 5 s");
    assert_eq!(told["review"]["call_id"], third.call_id, "of the call that opened it");
    let listed = wait_for_reviews(&gate, 1);
    assert_eq!(listed, [told["review"].clone()]);
    assert_eq!(check(&gate)["granted"]["until"], listed[0]["until"]);

    // Other maps, the same grant: the program cannot give it again.
    gate.daemon.configure(&format!("{}\n[limits]\nblocks = 10_000", console.config(3)));
    gate.daemon.restart();
    assert_eq!(check(&gate)["granted"]["kind"], "redial");
    assert!(gate.passes(CALLER));
    // A grant that comes later is listed: by then the daemon has looked at the first one again.
    let later = "+6281200000002";
    for _ in 0..2 {
        assert!(!gate.passes(later));
        gate.age(later, SEPARATE);
    }
    assert!(gate.passes(later));
    let reviews = wait_for_reviews(&gate, 2);
    assert!(reviews.contains(&listed[0]), "one grant is one entry: {reviews:?}");
    let posted = console.posted.recv_timeout(SOON).expect("the webhook within 5 s");
    assert_eq!(posted["review"]["number"], later[1..], "the first grant is posted once");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn ended_grants_make_room_for_new_ones() {
    let lab = Lab::new("redial-ended");
    let mut gate = Gate::start(&lab, "");
    gate.daemon.kill();
    let grant = |number: u64, until| {
        let number = Number::e164(Digits::parse(&number.to_string()).unwrap());
        Grant { number, until, rule: 1, epoch: 0, reserved: 0 }
    };
    let lasting = grant(6_281_100_000_000, u64::MAX);
    let maps = gate.maps();
    maps.carry_grant(lasting).unwrap();
    for number in 6_281_200_000_000..6_281_200_000_100 {
        maps.carry_grant(grant(number, 1)).unwrap();
    }
    gate.daemon.start_again();
    let begun = Instant::now();
    while gate.maps().grants().unwrap().len() > 1 {
        assert!(begun.elapsed() < SOON, "they stand there yet");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(gate.maps().grants().unwrap(), [lasting]);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn changed_setting_is_in_force_for_all_blocks_without_their_own() {
    let lab = Lab::new("redial-settings");
    let gate = Gate::start(&lab, "");
    let own = ["--redial", "8/1h/90s"];
    let add = ["block", "add", "+6281111111111", "--for", "1h", "--reason", "prank"];
    gate.does(&[&add[..], &own].concat());
    gate.does(&["block", "add", CALLER, "--for", "1h", "--reason", "prank"]);
    assert_eq!(check(&gate)["next_attempt"], Value::Null, "off");
    assert_eq!(gate.kernel_block("+6281111111111").unwrap().redial_attempts, 8);

    gate.daemon.configure("[redial]\nattempts = 2\nwindow = \"2m\"\ngrant = \"1m\"");
    gate.daemon.signal("HUP");
    let begun = Instant::now();
    let of = |gate: &Gate<'_>| {
        let block = gate.kernel_block(CALLER).unwrap();
        (block.redial_attempts, block.redial_window, block.redial_grant)
    };
    while of(&gate) != (2, 120, 60) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", of(&gate));
        std::thread::sleep(Duration::from_millis(20));
    }
    let block = gate.kernel_block("+6281111111111").unwrap();
    assert_eq!((block.redial_attempts, block.redial_window, block.redial_grant), (8, 3600, 90));
    assert_eq!(gate.does(&["status"])["drift"], 0, "nothing was repaired");
    assert_eq!(next_attempt(&gate), (1, 2));

    let bad = |redial: &str| {
        let body = format!(r#"{{"number":"0813","seconds":60,"reason":"x",{redial}}}"#);
        request(connect(&gate.daemon), "POST", "/v1/blocks", &body)
    };
    assert_eq!(bad(r#""redial":{"attempts":1,"window":60,"grant":60}"#).status, 400);
    assert_eq!(bad(r#""redial":{"attempts":2,"window":59,"grant":60}"#).status, 400);
    let both = bad(r#""redial":{"attempts":2,"window":60,"grant":60},"no_redial":true"#);
    assert_eq!(both.status, 400);

    // Out and in again: the file says all of it.
    gate.does(&["block", "add", CALLER, "--for", "1h", "--reason", "prank", "--no-redial"]);
    let file = gate.daemon.folder().join("blocks.csv");
    let file = file.to_str().unwrap();
    gate.does(&["block", "export", file]);
    for number in [CALLER, "+6281111111111"] {
        gate.does(&["block", "remove", number]);
    }
    gate.does(&["block", "import", file]);
    assert_eq!(gate.does(&["block", "show", CALLER])["no_redial"], true);
    let again = gate.does(&["block", "show", "+6281111111111"]);
    assert_eq!(again["redial"]["grant"], 90);
}
