//! The worst that other clients can do: ways out, status and blocks are answered within a second.
//!
//! The clients connect as other users of the machine do, from this process: the kernel notes who
//! connects when it happens (`SO_PEERCRED`, unix(7)).

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use palang::api::wire::{AuditVerdict, Block};
use palang::store::Store;
use palang_tests::lab::{Daemon, Lab};
use rusqlite::Connection;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::gate::{eventually, eventually_within};
use crate::routes::rows;
use crate::service::Manager;
use crate::socket::{Answer, LONGEST, ask, connect, exchange, request, until};
use crate::threads;
use crate::users::{GROUP, OPERATOR, READER, as_user};

const CHECK: &str = "127.0.0.1:9112";
const METRICS: &str = "127.0.0.1:9113";

/// One scene at a time: two would take the processors from each other.
static ALONE: Mutex<()> = Mutex::new(());

/// The promise, on a machine that has nothing more to do.
const AT_MOST: Duration = Duration::from_secs(1);
/// An answer takes at most this many times the slowest answer of the undisturbed daemon, or
/// [`AT_MOST`] if that is longer.
const SLOWER: u32 = 20;
/// Within this time the watchdog has to hear of the daemon.
const WATCHDOG: Duration = Duration::from_secs(6);
/// File descriptors that a process has unless somebody gives it more.
const FILES: usize = 1024;
/// Longer than any timeout of the daemon for a client that sends no whole request.
const TIMEOUTS: Duration = Duration::from_secs(25);

/// A daemon with the file descriptors of a shell, under a watchdog.
struct Scene<'a> {
    _alone: MutexGuard<'static, ()>,
    lab: &'a Lab,
    daemon: Daemon<'a>,
    manager: Manager,
    /// Longest that an answer may take.
    longest: Duration,
    /// Rounds that were answered.
    rounds: AtomicU32,
    /// How often the watchdog heard of the daemon.
    heard: AtomicU32,
}

impl<'a> Scene<'a> {
    /// Starts a daemon that answers, whose audit has this number of rows.
    fn start(lab: &'a Lab, rows: u64) -> Scene<'a> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let config = format!(
            "[api]\ngroup = {GROUP:?}\ncheck_listen = {CHECK:?}\n[metrics]\nlisten = {METRICS:?}\n\
             [roles]\nread = [{READER:?}]\noperate = [{OPERATOR:?}]\nadmin = []"
        );
        let mut daemon = Daemon::prepare(lab, &config);
        fs::create_dir_all(daemon.state()).expect("a folder");
        fill_audit(&daemon, rows);
        let manager = Manager::new(&daemon);
        let limit = format!("--nofile={FILES}:{FILES}");
        let seconds = WATCHDOG.as_micros().to_string();
        let variables = [("NOTIFY_SOCKET", manager.path.as_str()), ("WATCHDOG_USEC", &seconds)];
        daemon.spawn_by(&["prlimit", &limit], &variables);
        daemon.wait_for_answer();
        for path in [daemon.folder(), &daemon.runtime()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
        }
        let mut scene = Scene {
            _alone: alone,
            lab,
            daemon,
            manager,
            longest: LONGEST,
            rounds: AtomicU32::new(0),
            heard: AtomicU32::new(0),
        };
        let quiet = ["root", OPERATOR].map(|user| scene.round(user, 0).0);
        scene.longest = AT_MOST.max(quiet[0].max(quiet[1]) * SLOWER);
        scene
    }

    /// Connections of a user, in the order in which they were made.
    fn connect(&self, user: &str, count: usize) -> Vec<UnixStream> {
        as_user(user, || (0..count).map(|_| connect(&self.daemon)).collect())
    }

    /// Connections of a user that have sent these bytes, which need no answer for that.
    fn send(&self, user: &str, count: usize, bytes: &[u8]) -> Vec<UnixStream> {
        let mut streams = Vec::new();
        for mut stream in self.connect(user, count) {
            // A connection above the limit may have been cut off already.
            let _ = stream.write_all(bytes);
            streams.push(stream);
        }
        streams
    }

    /// Sends one request of a user, which is answered.
    fn ask(&self, user: &str, method: &str, path: &str, body: &str) -> Answer {
        let stream = self.connect(user, 1).remove(0);
        request(stream, method, path, body)
    }

    /// Connections to a loopback port.
    fn connect_tcp(&self, address: &str, count: usize) -> Vec<TcpStream> {
        let connect = || {
            let address = address.parse().expect("an address");
            TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()
        };
        self.lab.in_gate(|| (0..count).filter_map(|_| connect()).collect())
    }

    /// Makes all requests that have to work, as the operator and as root, while `hogs` does its worst.
    ///
    /// It makes five rounds at least. Each request is answered in time, and the watchdog hears of the
    /// daemon.
    fn answers_during(&self, what: &str, hogs: impl FnOnce() + Send) {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let hogs = scope.spawn(|| {
                // Also where it panics.
                let _end = End(&done);
                hogs();
            });
            let watchdog = scope.spawn(|| self.longest_silence(&done));
            let mut slowest = (Duration::ZERO, String::new());
            let mut round = 0;
            while round < 5 || !done.load(Ordering::Relaxed) {
                for user in ["root", OPERATOR] {
                    slowest = slowest.max(self.round(user, round));
                }
                round += 1;
                self.rounds.fetch_add(1, Ordering::Relaxed);
            }
            hogs.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            println!("{what}: {round} rounds, the slowest answer: {slowest:?}");
            let silence = watchdog.join().expect("the watchdog's thread");
            assert!(silence < WATCHDOG, "{what}: the watchdog heard nothing for {silence:?}");
        });
    }

    /// Waits until 20 more rounds are answered, and the watchdog has heard of the daemon once more.
    fn wait_for_rounds(&self) {
        let now = || (self.rounds.load(Ordering::Relaxed), self.heard.load(Ordering::Relaxed));
        let before = now();
        eventually_within(Duration::from_secs(120), "further answers", || {
            let now = now();
            now.0 >= before.0 + 20 && now.1 > before.1
        });
    }

    /// Asks for each thing that has to work; what took longest.
    fn round(&self, user: &str, round: u32) -> (Duration, String) {
        let number = format!("+62814{round:08}");
        let block = json!({ "number": number, "seconds": 600, "reason": "a test" }).to_string();
        let allow = json!({ "number": "+6281500000001", "seconds": 600 + round }).to_string();
        let on = r#"{"seconds":600,"reason":"a test"}"#;
        let number = number.replace('+', "%2B");
        let mut slowest = (Duration::ZERO, String::new());
        for (method, path, body) in [
            ("GET", "/v1/status", ""),
            ("PUT", "/v1/override", on),
            ("GET", "/v1/override", ""),
            ("PUT", "/v1/override", r#"{"seconds":0}"#),
            ("POST", "/v1/allows", &allow),
            ("POST", "/v1/blocks", &block),
            ("DELETE", &format!("/v1/blocks/{number}"), ""),
        ] {
            let begun = Instant::now();
            let answer = self.ask(user, method, path, body);
            let took = begun.elapsed();
            let name = format!("{method} {path} by {user}");
            assert_eq!(answer.status, 200, "{name}: {}", answer.text());
            assert!(took < self.longest, "{name} took {took:?} of {:?}", self.longest);
            slowest = slowest.max((took, name));
        }
        slowest
    }

    fn longest_silence(&self, done: &AtomicBool) -> Duration {
        let socket = &self.manager.socket;
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("SO_RCVTIMEO");
        let mut heard = Instant::now();
        let mut silence = Duration::ZERO;
        while !done.load(Ordering::Relaxed) {
            let mut datagram = [0; 4096];
            if let Ok(length) = socket.recv(&mut datagram)
                && String::from_utf8_lossy(&datagram[..length]).contains("WATCHDOG=1")
            {
                heard = Instant::now();
                self.heard.fetch_add(1, Ordering::Relaxed);
            }
            silence = silence.max(heard.elapsed());
        }
        silence
    }

    fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.daemon.pid())).expect("its files").count()
    }
}

/// Notes the end of a thread.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Lets this process open as many files as it may.
fn open_many() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    assert!(most > 4_500, "this test needs 4,500 file descriptors, and may have {most}");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("setrlimit");
}

/// Makes a store whose audit has this number of rows, without as many changes.
fn fill_audit(daemon: &Daemon<'_>, rows: u64) {
    let path = daemon.state().join("palang.db");
    drop(Store::open(&path).expect("a new store"));
    let mut conn = rusqlite::Connection::open(&path).expect("the store");
    let tx = conn.transaction().expect("a transaction");
    let mut hash = [0; 32];
    for seq in 1..=rows {
        let record = format!(
            r#"{{"action":"attach","author":"root","number":null,"rule":null,"time":"2026-01-01T00:00:00.000Z","row":{seq}}}"#
        );
        hash = Sha256::new().chain_update(hash).chain_update(&record).finalize().into();
        let values = rusqlite::params![seq, record, hash];
        tx.prepare_cached("INSERT INTO audit (seq, record, hash) VALUES (?1, ?2, ?3)")
            .and_then(|mut statement| statement.execute(values))
            .expect("a row");
    }
    tx.commit().expect("committed");
}

/// Reads until the daemon closes the connection; what it said.
fn rest(stream: &mut UnixStream) -> Vec<u8> {
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    said
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn hundreds_of_verifications_delay_no_other_request() {
    open_many();
    let lab = Lab::new("verify");
    let scene = Scene::start(&lab, 100_000);
    let verify = get("/v1/audit/verify");
    scene.answers_during("700 × audit verify", || {
        for _ in 0..7 {
            drop(scene.send(READER, 100, &verify));
        }
        // And those who wait for it, as many as there can be.
        let waiting = scene.send(READER, 100, &verify);
        scene.wait_for_rounds();
        drop(waiting);
    });
    // A verification that nobody waits for has ended: another client's turn comes.
    until("a verification", || {
        let answer = scene.ask(OPERATOR, "GET", "/v1/audit/verify", "");
        assert!([200, 429, 503].contains(&answer.status), "{}", answer.text());
        (answer.status == 200).then(|| answer.json::<AuditVerdict>()).map(|verdict| {
            assert_eq!(verdict.first_bad, None);
        })
    });
}

// A verification of that many rows takes seconds. Begun again and again, and never waited for, it
// costs a moment each time.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn verification_ends_when_its_client_hangs_up() {
    open_many();
    let lab = Lab::new("hang-up");
    let scene = Scene::start(&lab, 200_000);
    let before = cpu_time(&scene.daemon);
    let whole = scene.ask(OPERATOR, "GET", "/v1/audit/verify", "");
    assert_eq!(whole.status, 200, "{}", whole.text());
    let whole = cpu_time(&scene.daemon) - before;
    let before = cpu_time(&scene.daemon);
    const TIMES: u32 = 40;
    for _ in 0..TIMES {
        let used = cpu_time(&scene.daemon);
        let stream = scene.send(READER, 1, &get("/v1/audit/verify"));
        // It runs: nothing but a verification takes the daemon more than a tick of the processor.
        until("a verification", || (cpu_time(&scene.daemon) >= used + 2 * TICK).then_some(()));
        drop(stream);
        // Its turn is over before the next one comes.
        until("a free slot", || {
            let answer = scene.ask(READER, "GET", "/v1/audit/verify?head=none", "");
            (answer.status == 400).then_some(())
        });
    }
    // Should any still run, its time counts.
    threads::wait_until_idle(&scene.daemon);
    let cost = cpu_time(&scene.daemon) - before;
    println!("one whole: {whole:?}; {TIMES} that were hung up: {cost:?}");
    assert!(cost < 2 * whole, "{cost:?} for {TIMES}, {whole:?} for a whole one");
}

/// The unit of processor time in proc(5): USER_HZ is 100 on every architecture of ours.
const TICK: Duration = Duration::from_millis(10);

/// Returns the processor time of a process.
fn cpu_time(daemon: &Daemon<'_>) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).expect("its stat");
    // After the name: state is field 3, utime 14, stime 15 (proc(5)).
    let (_, rest) = stat.rsplit_once(") ").expect("a name");
    let ticks: u64 =
        rest.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum();
    TICK * u32::try_from(ticks).expect("less than a year")
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn lists_of_slow_readers_delay_no_other_request() {
    open_many();
    const COUNT: u32 = 6_000;
    let lab = Lab::new("slow-lists");
    let scene = Scene::start(&lab, 0);
    assert_eq!(scene.ask("root", "POST", "/v1/blocks/import", &rows(COUNT)).status, 200);
    let mut hogs = Vec::new();
    scene.answers_during("slow lists", || {
        hogs = scene.send(READER, 64, &get("/v1/blocks"));
        hogs.extend(scene.send(READER, 64, &get("/v1/calls/live")));
        hogs.extend(scene.send(OPERATOR, 200, &get("/v1/audit")));
        scene.wait_for_rounds();
        // Somebody else's list is whole.
        let list: Vec<Block> = scene.ask("root", "GET", "/v1/blocks", "").lines();
        assert!(list.len() >= COUNT as usize, "{}", list.len());
    });
    for round in 0..300 {
        scene.round_of_changes(round);
    }
    // The list that was begun and not read holds no old state of the store: all of the log can be
    // brought into the file.
    let store = Connection::open(scene.daemon.state().join("palang.db")).expect("the store");
    eventually("the whole log is brought in", || {
        let counts = store.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        counts.is_ok_and(|(in_log, brought_in)| in_log == brought_in)
    });
    // The first list is still whole, although its reader comes late.
    let first = &mut hogs[0];
    first.set_read_timeout(Some(Duration::from_secs(5))).expect("SO_RCVTIMEO");
    let mut said = Vec::new();
    let _ = first.read_to_end(&mut said);
    let said = String::from_utf8_lossy(&said);
    for index in [1, COUNT] {
        assert!(said.contains(&format!("{:02}\"", index % 100)), "{} bytes", said.len());
    }
    assert!(said.ends_with("0\r\n\r\n"), "cut after {} bytes", said.len());
}

impl Scene<'_> {
    fn round_of_changes(&self, round: u32) {
        let seconds = 1_000 + round;
        let body = json!({ "number": "+6281600000001", "seconds": seconds, "reason": "a test" });
        let answer = ask(&self.daemon, "POST", "/v1/blocks", &body.to_string());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn idle_connections_delay_no_other_request_and_are_closed() {
    open_many();
    let lab = Lab::new("idle");
    let scene = Scene::start(&lab, 0);
    let before = scene.open_files();
    scene.answers_during("3,000 half-open connections", || {
        let mut hogs = scene.connect(READER, 1_500);
        hogs.extend(scene.send(READER, 1_500, b"GET /v1/sta"));
        assert!(scene.open_files() < FILES / 2, "{} files", scene.open_files());
        // They are closed, not only outnumbered.
        for hog in &hogs {
            hog.set_nonblocking(true).expect("O_NONBLOCK");
        }
        until_closed(&mut hogs, |_| ());
    });
    until("its files are closed", || (scene.open_files() < before + 30).then_some(()));

    for address in [CHECK, METRICS] {
        scene.answers_during(&format!("idle connections to {address}"), || {
            let hogs = scene.connect_tcp(address, FILES + 100);
            assert!(scene.open_files() < FILES * 3 / 4, "{} files", scene.open_files());
            // The SIP server's question is answered all the same.
            for _ in 0..20 {
                let stream = scene.connect_tcp(CHECK, 1).remove(0);
                stream.set_read_timeout(Some(LONGEST)).expect("SO_RCVTIMEO");
                let begun = Instant::now();
                assert_eq!(request(stream, "GET", "/v1/check/0812345678", "").status, 200);
                assert!(begun.elapsed() < AT_MOST, "{:?}", begun.elapsed());
            }
            drop(hogs);
        });
    }
    let said = scene.daemon.stderr();
    assert!(!said.contains("Too many open files"), "{said}");
}

/// Waits until the daemon has closed all of these, and does `keep` with each twice a second.
fn until_closed(hogs: &mut [UnixStream], mut keep: impl FnMut(&mut UnixStream)) {
    let begun = Instant::now();
    loop {
        hogs.iter_mut().for_each(&mut keep);
        let open = hogs.iter().filter(|hog| !is_closed(hog)).count();
        if open == 0 {
            return;
        }
        assert!(begun.elapsed() < TIMEOUTS, "{open} connections are open");
        thread::sleep(Duration::from_millis(500));
    }
}

/// Returns whether the other side has closed a connection that does not block.
fn is_closed(mut stream: &UnixStream) -> bool {
    let mut bytes = [0; 1024];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn unfinished_bodies_delay_no_other_request_and_change_nothing() {
    open_many();
    let lab = Lab::new("slowloris");
    let scene = Scene::start(&lab, 0);
    let half = |method: &str, path: &str, type_: &str| {
        let begin = "{\"line\":1,\"number\":\"0812345678\"";
        format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {type_}\r\nContent-Length: 90000\r\n\r\n{begin}"
        )
    };
    scene.answers_during("slow bodies", || {
        let mut hogs = Vec::new();
        // Also by those who are waited for: their own halves do not keep them out.
        for user in [READER, OPERATOR, "root"] {
            hogs.extend(scene.send(
                user,
                100,
                half("PUT", "/v1/override", "application/json").as_bytes(),
            ));
            hogs.extend(scene.send(
                user,
                100,
                half("POST", "/v1/blocks", "application/json").as_bytes(),
            ));
        }
        let long = half("POST", "/v1/blocks/import", "application/x-ndjson");
        let imports = scene.send(OPERATOR, 100, long.as_bytes());
        for hog in &hogs {
            let _ = hog.set_nonblocking(true);
        }
        until_closed(&mut hogs, |hog| {
            let _ = hog.write(b" ");
        });
        drop(imports);
    });
    // The daemon needs a moment to notice that all of them left; until then it has no room for one more.
    eventually("it serves again", || scene.daemon.cli(&["block", "list"]).code == 0);
    let blocks: Vec<Block> = ask(&scene.daemon, "GET", "/v1/blocks", "").lines();
    assert!(blocks.is_empty(), "half a request did something: {blocks:?}");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn verification_above_the_limit_is_refused_at_once_with_advice() {
    open_many();
    let lab = Lab::new("too-much");
    let scene = Scene::start(&lab, 100_000);
    let hogs = scene.send(READER, 40, &get("/v1/audit/verify"));
    let begun = Instant::now();
    let mut refused = 0;
    for mut hog in hogs {
        hog.set_read_timeout(Some(Duration::from_millis(500))).expect("SO_RCVTIMEO");
        let said = String::from_utf8_lossy(&rest(&mut hog)).into_owned();
        if said.starts_with("HTTP/1.1 429") {
            refused += 1;
            assert!(said.contains(r#""kind":"busy""#), "{said}");
            assert!(said.contains("nothing was done") && said.contains("again"), "{said}");
        }
        if refused > 0 && begun.elapsed() > Duration::from_secs(3) {
            break;
        }
    }
    assert!(refused > 0, "nobody was refused");
    // The CLI says the same, in words.
    let busy = b"GET /v1/audit/verify HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let _hogs = scene.send("root", 40, busy);
    let told = scene.daemon.cli(&["audit", "verify"]);
    if told.code != 0 {
        assert!(told.stderr.contains("nothing was done"), "{}", told.stderr);
    }
    let status = exchange(
        scene.connect(READER, 1).remove(0),
        b"GET /v1/status HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(status.status, 200, "{}", status.text());
}
