//! `docs/kamailio-check.cfg` in a real Kamailio: calls over TCP meet the daemon's policy, and
//! nothing that goes wrong loses one.

#![expect(clippy::expect_used, reason = "a test panics where it fails")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use palang_tests::lab::{Daemon, Lab};

const SIP: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 5060);
const CHECK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9112);
const REFUSED: u16 = 603;
/// The answer of these tests' configuration to a call that goes on.
const GOES_ON: u16 = 299;

const BLOCKED: &str = "+6281200000001";
const FREE: &str = "+6281200000002";

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_blocked_caller_is_refused_and_another_goes_on() {
    let lab = Lab::new("kamailio");
    let check = CheckServer::start(&lab, blocked());
    let kamailio = Kamailio::start(&lab);

    assert_eq!(kamailio.call(&from(BLOCKED)), REFUSED);
    let asked = "GET /v1/check/%2B6281200000001 text/plain";
    assert_eq!(check.take_requests(), [asked]);
    assert_eq!(kamailio.call(&from(FREE)), GOES_ON);
    assert_eq!(check.take_requests(), ["GET /v1/check/%2B6281200000002 text/plain"]);
    assert_eq!(kamailio.call(&format!("<tel:{BLOCKED}>;tag=1")), REFUSED);
    assert_eq!(check.take_requests(), [asked]);
    assert_eq!(kamailio.call(&format!("\"{FREE}\" <sips:{BLOCKED}@a>;tag=1")), REFUSED);
    assert_eq!(check.take_requests(), [asked]);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn request_that_is_not_asked_about_goes_on() {
    let lab = Lab::new("kamailio");
    let check = CheckServer::start(&lab, blocked());
    let kamailio = Kamailio::start(&lab);

    let invite = request("INVITE", &from(BLOCKED), "<sip:112@a>");
    assert_eq!(kamailio.send_udp(&invite), GOES_ON, "over UDP the gate has judged it");
    let in_dialog = request("INVITE", &from(BLOCKED), "<sip:112@a>;tag=2");
    assert_eq!(kamailio.send_tcp(&in_dialog), GOES_ON);
    for method in ["OPTIONS", "BYE", "UPDATE", "REGISTER", "invite"] {
        let request = request(method, &from(BLOCKED), "<sip:112@a>");
        assert_eq!(kamailio.send_tcp(&request), GOES_ON, "{method}");
    }
    assert_eq!(check.take_requests(), [""; 0]);
}

// One worker of Kamailio reads all of them: a number must not stay from the message before.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn call_of_an_unusual_caller_is_asked_about_or_goes_on() {
    let lab = Lab::new("kamailio");
    let check = CheckServer::start(&lab, blocked());
    let kamailio = Kamailio::start(&lab);

    let long = "1".repeat(300);
    let asked: [(&str, &str, u16); 7] = [
        ("%2B6281200000001", "%2B6281200000001", REFUSED),
        ("%2b62%381200000001", "%2B6281200000001", REFUSED),
        ("+6281200000001;x", "%2B6281200000001", REFUSED),
        ("+6281200000001;x=%20;y", "%2B6281200000001", REFUSED),
        ("+6281200000001:secret", "%2B6281200000001", REFUSED),
        ("0812-(0000).0001", "0812-%280000%29.0001", GOES_ON),
        (&long, &long, GOES_ON),
    ];
    for (user, number, status) in asked {
        assert_eq!(kamailio.call(&from(user)), status, "{user}");
        let asked = format!("GET /v1/check/{number} text/plain");
        assert_eq!(check.take_requests(), [asked], "{user}");
    }

    let too_long = "%22".repeat(300);
    let not_asked = [
        "+6281200000001;phone-context=a",
        "6281200000001;Phone-Context=+1",
        "+6281200000001%3Bx",
        "%2B6281200000001%20",
        "%20%2B6281200000001",
        "+62+81200000001",
        "%2525",
        "%",
        "%zz",
        "%00",
        "%0A6281200000001",
        "6281200000001%0D%0A",
        "6281200000001%C3%A9",
        "6281200000001é",
        "..",
        ".",
        "+",
        "%2B..",
        "%2E%2E%2Fblocks",
        "../../blocks",
        "/6281200000001",
        "6281200000001/..",
        "6281200000001?x=1",
        "6281200000001%23",
        "a%22b",
        "%27%3B",
        "a'b",
        "$var(x)",
        "$(fU{s.len})",
        "%24fU",
        "anonymous",
        "*",
        "",
        &too_long,
    ];
    for user in not_asked {
        // So that a number is there that could stay.
        assert_eq!(kamailio.call(&from(BLOCKED)), REFUSED);
        assert_eq!(check.take_requests().len(), 1);
        assert_eq!(kamailio.call(&from(user)), GOES_ON, "{user}");
        assert_eq!(check.take_requests(), [""; 0], "{user}");
    }
    for header in ["<sip:a.example>;tag=1", "\"+6281200000001\" <sip:a.example>;tag=1", "<urn:x>"] {
        assert_eq!(kamailio.call(header), GOES_ON, "{header}");
    }
    assert_eq!(check.take_requests(), [""; 0]);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn unknown_answer_to_a_check_refuses_no_call() {
    let lab = Lab::new("kamailio");
    let answers = [
        ("200 OK", "drop", REFUSED),
        ("200 OK", "drop blocked-prefix 62812*\n", REFUSED),
        ("200 OK", "drop blocked-number\r\nmore", REFUSED),
        ("200 OK", "", GOES_ON),
        ("200 OK", "\n", GOES_ON),
        ("200 OK", "pass not-blocked", GOES_ON),
        ("200 OK", "pass\ndrop", GOES_ON),
        ("200 OK", "dropped", GOES_ON),
        ("200 OK", " drop", GOES_ON),
        ("200 OK", "reply", GOES_ON),
        ("200 OK", "{\"verdict\":\"drop\"}", GOES_ON),
        ("404 Not Found", "drop", GOES_ON),
        ("400 Bad Request", "drop", GOES_ON),
        ("500 Internal Server Error", "drop", GOES_ON),
        ("302 Found\r\nLocation: /v1/check/%2B6281200000001", "drop", GOES_ON),
        ("204 No Content", "", GOES_ON),
    ];
    let number = |index: usize| format!("08120000{index:04}");
    let table = answers.iter().enumerate().map(|(index, (status, body, _))| {
        (number(index), Answer::Say((*status).to_owned(), (*body).to_owned()))
    });
    let check = CheckServer::start(&lab, table.collect());
    let kamailio = Kamailio::start(&lab);
    for (index, (status, body, expected)) in answers.into_iter().enumerate() {
        assert_eq!(kamailio.call(&from(&number(index))), expected, "{status}: {body:?}");
        assert_eq!(check.take_requests().len(), 1, "{status}: {body:?}");
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn calls_without_an_answer_of_the_daemon_go_on() {
    let lab = Lab::new("kamailio");
    let kamailio = Kamailio::start(&lab);
    assert_eq!(kamailio.call(&from(BLOCKED)), GOES_ON, "nobody listens");

    let check = CheckServer::start(&lab, blocked());
    check.wait_until_refused(&kamailio, "the daemon is back");
    for answer in [Answer::Nothing, Answer::Close, Answer::Garbage] {
        check.answer(BLOCKED, answer.clone());
        assert_eq!(kamailio.call(&from(BLOCKED)), GOES_ON, "{answer:?}");
        // Another caller, whose answer there would be: nobody is asked for a while.
        check.take_requests();
        check.answer(FREE, Answer::drop());
        assert_eq!(kamailio.call(&from(FREE)), GOES_ON, "after {answer:?}");
        assert_eq!(check.take_requests(), [""; 0], "after {answer:?}");
        check.answer(BLOCKED, Answer::drop());
        check.wait_until_refused(&kamailio, "the daemon answers again");
    }
}

// No stand-in: the daemon, its store and the kernel's maps.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn the_daemon_is_asked_about_calls_over_tcp() {
    let lab = Lab::new("kamailio");
    let check = format!("[api]\ncheck_listen = \"{}:{}\"", CHECK.0, CHECK.1);
    let mut daemon = Daemon::start(&lab, &check);
    let does = |daemon: &Daemon<'_>, arguments: &[&str]| {
        let output = daemon.cli(arguments);
        assert_eq!(output.code, 0, "{arguments:?}: {}", output.stderr);
    };
    let kamailio = Kamailio::start(&lab);
    let block = ["block", "add", BLOCKED, "--for", "1h", "--reason", "a test"];
    does(&daemon, &block);
    assert_eq!(kamailio.call(&from(BLOCKED)), GOES_ON, "mode observe");
    does(&daemon, &["mode", "enforce"]);
    assert_eq!(kamailio.call(&from(BLOCKED)), REFUSED);
    assert_eq!(kamailio.call(&from("0812-0000-0001")), REFUSED, "as the trunk writes it");
    assert_eq!(kamailio.call(&from(FREE)), GOES_ON);
    assert_eq!(kamailio.call(&from("anonymous")), GOES_ON);
    assert_eq!(kamailio.call(&from("110")), GOES_ON);

    does(&daemon, &["override", "on", "--for", "1h", "--reason", "a test"]);
    assert_eq!(kamailio.call(&from(BLOCKED)), GOES_ON);
    does(&daemon, &["override", "off"]);
    does(&daemon, &["block", "add", "+62431*", "--for", "1h", "--reason", "a test"]);
    assert_eq!(kamailio.call(&from("+62431777")), REFUSED);
    does(&daemon, &["allow", "add", "+62431777"]);
    assert_eq!(kamailio.call(&from("+62431777")), GOES_ON);
    does(&daemon, &["block", "remove", BLOCKED]);
    assert_eq!(kamailio.call(&from(BLOCKED)), GOES_ON);
    does(&daemon, &block);
    assert_eq!(kamailio.call(&from(BLOCKED)), REFUSED);

    daemon.kill();
    assert_eq!(kamailio.call(&from(BLOCKED)), GOES_ON, "killed");
    assert_eq!(kamailio.call(&from(FREE)), GOES_ON);
    daemon.start_again();
    let deadline = Instant::now() + Duration::from_secs(30);
    while kamailio.call(&from(BLOCKED)) != REFUSED {
        assert!(Instant::now() < deadline, "the daemon is back, and it is not asked");
        // The interval of tries.
        std::thread::sleep(Duration::from_millis(100));
    }
    // Hung rather than dead.
    daemon.signal("STOP");
    assert_eq!(kamailio.call(&from(BLOCKED)), GOES_ON, "hung");
    daemon.signal("CONT");
}

fn blocked() -> HashMap<String, Answer> {
    HashMap::from([("%2B6281200000001".to_owned(), Answer::drop())])
}

/// Returns the value of a From header with that user.
fn from(user: &str) -> String {
    format!("\"A caller\" <sip:{user}@a.example>;tag=1")
}

fn request(method: &str, from: &str, to: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!(
        "{method} sip:112@127.0.0.1 SIP/2.0\r\n\
         Via: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bK{number}\r\n\
         Max-Forwards: 70\r\n\
         From: {from}\r\n\
         To: {to}\r\n\
         Call-ID: {number}\r\n\
         CSeq: 1 {method}\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

/// A Kamailio that answers 299 to each request that `route(PALANG)` lets go on.
struct Kamailio<'a> {
    lab: &'a Lab,
    folder: tempfile::TempDir,
    child: Child,
}

impl<'a> Kamailio<'a> {
    fn start(lab: &'a Lab) -> Kamailio<'a> {
        let folder = tempfile::tempdir().expect("a folder");
        let snippet = palang_tests::folder().join("../docs/kamailio-check.cfg");
        let config = format!(
            r#"#!KAMAILIO
log_stderror=yes
children=1
tcp_children=1
listen=tcp:127.0.0.1:5060
listen=udp:127.0.0.1:5060
loadmodule "tm.so"
loadmodule "pv.so"
loadmodule "sl.so"
loadmodule "xlog.so"
#!define PALANG_PAUSE 2
include_file "{}"
request_route {{
    route(PALANG);
    sl_send_reply("{GOES_ON}", "Goes on");
}}
"#,
            snippet.display()
        );
        let file = folder.path().join("kamailio.cfg");
        fs::write(&file, config).expect("the configuration");
        let stderr = File::create(folder.path().join("stderr")).expect("a stderr file");
        let mut command = lab.command_in_gate("kamailio");
        command.args(["-DD", "-E", "-m", "16", "-M", "4", "-f"]).arg(&file);
        command.arg("-Y").arg(folder.path());
        // libcurl would ask a proxy.
        for proxy in ["http_proxy", "all_proxy", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn();
        let mut kamailio = Kamailio { lab, folder, child: child.expect("kamailio started") };
        let deadline = Instant::now() + Duration::from_secs(20);
        while lab.in_gate(|| TcpStream::connect(SIP)).is_err() {
            let ended = kamailio.child.try_wait().expect("waitpid");
            assert!(ended.is_none() && Instant::now() < deadline, "kamailio does not listen");
            // The interval of tries.
            std::thread::sleep(Duration::from_millis(20));
        }
        kamailio
    }

    /// Sends an INVITE over TCP, and returns the status of the answer.
    fn call(&self, from: &str) -> u16 {
        self.send_tcp(&request("INVITE", from, "<sip:112@a.example>"))
    }

    fn send_tcp(&self, request: &str) -> u16 {
        let mut stream = self.lab.in_gate(|| TcpStream::connect(SIP)).expect("kamailio listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("SO_RCVTIMEO");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut line = String::new();
        let read = BufReader::new(stream).read_line(&mut line);
        read.unwrap_or_else(|error| panic!("no answer to {request}: {error}"));
        status(&line)
    }

    fn send_udp(&self, request: &str) -> u16 {
        let socket = self.lab.in_gate(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
        let socket = socket.expect("a UDP socket");
        let port = socket.local_addr().expect("its address").port();
        let via = format!("UDP 127.0.0.1:{port};");
        let request = request.replace("TCP 127.0.0.1:9;", &via);
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("SO_RCVTIMEO");
        socket.send_to(request.as_bytes(), SIP).expect("sent");
        let mut answer = [0; 2048];
        let length = socket.recv(&mut answer).expect("an answer");
        status(&String::from_utf8_lossy(&answer[..length]))
    }
}

impl Drop for Kamailio<'_> {
    fn drop(&mut self) {
        // Its main process; the lab ends the others.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = fs::read(self.folder.path().join("stderr")).unwrap_or_default();
            eprintln!("--- kamailio ---\n{}---", String::from_utf8_lossy(&said));
        }
    }
}

/// Status code of an answer's first line.
fn status(answer: &str) -> u16 {
    let code = answer.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)?.parse().ok());
    code.unwrap_or_else(|| panic!("no SIP answer: {answer:?}"))
}

/// The reaction of the check endpoint to a question for a number.
#[derive(Clone, Debug)]
enum Answer {
    /// A status line (and headers), and a body.
    Say(String, String),
    /// It reads, and stays silent.
    Nothing,
    /// It reads, and closes.
    Close,
    /// No HTTP.
    Garbage,
}

impl Answer {
    fn drop() -> Answer {
        Answer::Say("200 OK".to_owned(), "drop blocked-number\n".to_owned())
    }
}

/// Replaces the daemon's check endpoint: answers by a table, `pass` for other numbers, and
/// keeps what it was asked.
struct CheckServer {
    shared: Arc<CheckState>,
}

#[derive(Default)]
struct CheckState {
    /// By the last part of the path, in upper case.
    answers: Mutex<HashMap<String, Answer>>,
    /// `METHOD PATH ACCEPT` of each request.
    requests: Mutex<Vec<String>>,
}

impl CheckServer {
    fn start(lab: &Lab, answers: HashMap<String, Answer>) -> CheckServer {
        let listener = lab.in_gate(|| TcpListener::bind(CHECK)).expect("port 9112");
        let shared = Arc::new(CheckState { answers: Mutex::new(answers), ..CheckState::default() });
        let state = Arc::clone(&shared);
        // Ends with the test program.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                std::thread::spawn(move || state.serve(stream));
            }
        });
        CheckServer { shared }
    }

    /// Returns the questions since the last call.
    fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.requests.lock().expect("not poisoned"))
    }

    fn answer(&self, number: &str, answer: Answer) {
        let number = number.replace('+', "%2B");
        self.shared.answers.lock().expect("not poisoned").insert(number, answer);
    }

    /// Waits until Kamailio asks again.
    fn wait_until_refused(&self, kamailio: &Kamailio<'_>, why: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while kamailio.call(&from(BLOCKED)) != REFUSED {
            assert!(Instant::now() < deadline, "{why}, and it is not asked");
            // The interval of tries.
            std::thread::sleep(Duration::from_millis(100));
        }
        self.take_requests();
    }
}

impl CheckState {
    fn serve(&self, mut stream: TcpStream) {
        let mut lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
        let mut next = || lines.next().and_then(Result::ok).unwrap_or_default();
        let start = next();
        let mut accept = String::new();
        loop {
            let line = next();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("Accept: ") {
                accept += value;
            }
        }
        let start = start.strip_suffix(" HTTP/1.1").unwrap_or("not HTTP/1.1");
        // Kamailio writes hexadecimal digits in lower case.
        let (folder, number) = start.rsplit_once('/').unwrap_or_default();
        let number = number.to_uppercase();
        let request = format!("{folder}/{number} {accept}");
        self.requests.lock().expect("not poisoned").push(request);
        let answer = self.answers.lock().expect("not poisoned").get(&number).cloned();
        let pass = Answer::Say("200 OK".to_owned(), "pass not-blocked\n".to_owned());
        let text = match answer.unwrap_or(pass) {
            Answer::Say(status, body) => {
                let length = body.len();
                format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}")
            }
            Answer::Garbage => "drop drop drop\r\n\r\n".to_owned(),
            Answer::Close => return,
            Answer::Nothing => {
                // Until the other side gives up.
                let _ = stream.read(&mut [0]);
                return;
            }
        };
        // A client that gave up does not hear it.
        let _ = stream.write_all(text.as_bytes());
    }
}
