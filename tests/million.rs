//! The promises for a million blocks and a million calls, kept by the daemon in its own sandbox.
//! The test does import, export, erase, verify, backup, comparison, mass expiry and retention.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test panics where it fails")]

#[path = "live/socket.rs"]
#[expect(dead_code, reason = "shared with the live tests")]
mod socket;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use filter_common::number::{Digits, Number};
use jiff::Timestamp;
use palang::datapath::{Pins, walk_blocks};
use palang::store::Store;
use palang_tests::lab::{Daemon, Lab};
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::socket::ask;

/// Rows of each table without [`ROWS`]: more than SQLite holds in memory by itself, in a minute.
const ROWS_IN_CI: u64 = 100_000;
/// Names the number of rows: `PALANG_TEST_ROWS=1000000 cargo test -p palang-tests --test million`.
const ROWS: &str = "PALANG_TEST_ROWS";
/// A number that is not blocked, with many calls and audit rows.
const BUSY: &str = "6281999999999";
const OF_ONE: u64 = 5_000;
/// Longest that anything of it may take, in a debug build on a machine with other work.
const LONGEST: Duration = Duration::from_secs(600);
/// Longest that a block may take while much goes on. A step of a release build may take 100 ms, and
/// many steps may be in front of it here.
const BLOCK_LONGEST: Duration = Duration::from_secs(2);
/// The daemon's memory: a million decisions of an import are in it, and 64 MiB of pages.
const MEMORY_MIB: u64 = 1536;

/// Returns the number of rows of each table; a multiple of [`OF_ONE`].
fn rows() -> u64 {
    std::env::var(ROWS).map_or(ROWS_IN_CI, |rows| rows.parse().expect("a number of rows"))
}

fn number(index: u64) -> String {
    format!("62812{index:08}")
}

fn raw(digits: &str) -> i64 {
    Number::e164(Digits::parse(digits).unwrap()).0.cast_signed()
}

/// Fills a new store: blocks and their audit rows, calls, and those of [`BUSY`].
fn fill(store: &Path) {
    fs::create_dir_all(store.parent().unwrap()).unwrap();
    let busy = {
        let store = Store::open(store).unwrap();
        store.reader().pseudonyms().unwrap().pseudonym(BUSY)
    };
    let mut conn = Connection::open(store).unwrap();
    conn.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -200000").unwrap();
    let now = Timestamp::now().as_millisecond();
    let tx = conn.transaction().unwrap();
    let mut block = tx
        .prepare(
            "INSERT INTO decisions (rule, id, kind, prefix, subject, created, expires, reason,
                 author, origin, node, flags)
             VALUES (?1, randomblob(16), 0, 0, ?2, ?3, ?4, 'a list', 'siti', 'import', 'edge', 0)",
        )
        .unwrap();
    let mut audit =
        tx.prepare("INSERT INTO audit (seq, record, hash, plain) VALUES (?1, ?2, ?3, ?4)").unwrap();
    let mut call = tx
        .prepare(
            "INSERT INTO calls (time, number, trunk, source, call_id, call_hash, identity, verdict,
                 policy_verdict, reason, rule, repeats)
             VALUES (?1, ?2, 'telco', '192.0.2.1:5060', ?3, ?4, 1, 1, 1, 1, ?4, 0)",
        )
        .unwrap();
    let (mut hash, mut record) = ([0; 32], String::new());
    let all = rows();
    for index in 1..=all {
        let subject = raw(&number(index));
        block.execute(params![index, subject, now, now + 86_400_000]).unwrap();
        let is_busy = index.is_multiple_of(all / OF_ONE);
        let about = if is_busy { format!("\"{busy}\"") } else { "null".to_owned() };
        record.clear();
        write!(
            record,
            r#"{{"action":"block add","author":"siti","number":{about},"rule":{index},"time":"2027-01-15T08:00:02.000Z"}}"#
        )
        .unwrap();
        hash = Sha256::new().chain_update(hash).chain_update(&record).finalize().into();
        audit.execute(params![index, record, hash, is_busy.then_some(BUSY)]).unwrap();
        let caller = if is_busy { raw(BUSY) } else { subject };
        call.execute(params![now - 60_000, caller, format!("{index}@pbx"), index]).unwrap();
    }
    drop((block, audit, call));
    tx.commit().unwrap();
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
}

/// The daemon, and how long what it does takes.
struct Large<'a> {
    daemon: Daemon<'a>,
    begun: Instant,
}

impl Large<'_> {
    fn told(&mut self, what: &str) {
        eprintln!("{what}: {:.1} s", self.begun.elapsed().as_secs_f64());
        self.begun = Instant::now();
    }

    fn does(&mut self, arguments: &[&str]) -> Value {
        let output = self.daemon.cli(&[arguments, &["-o", "json"]].concat());
        assert_eq!(output.code, 0, "{arguments:?}: {}", output.stderr);
        self.told(&arguments[..2].join(" "));
        output.stdout.lines().next().map_or(Value::Null, |line| serde_json::from_str(line).unwrap())
    }

    /// Starts it, and waits for as long as a million blocks take.
    fn start(&mut self) {
        self.begun = Instant::now();
        self.daemon.spawn();
        self.wait("the start", |large| large.daemon.answers());
    }

    fn wait(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + LONGEST;
        while !is_so(self) {
            assert!(self.daemon.is_running(), "the daemon has ended: {what}");
            assert!(Instant::now() < deadline, "not within {LONGEST:?}: {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
        self.told(what);
    }

    /// Adds a block and ends it; how long adding took.
    fn block(&self) -> Duration {
        let begun = Instant::now();
        let body = json!({"number": "+6281888888888", "seconds": 3600, "reason": "a test"});
        let answer = ask(&self.daemon, "POST", "/v1/blocks", &body.to_string());
        let took = begun.elapsed();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = ask(&self.daemon, "DELETE", "/v1/blocks/+6281888888888", "");
        assert_eq!(answer.status, 200, "{}", answer.text());
        took
    }

    fn status(&self) -> Value {
        ask(&self.daemon, "GET", "/v1/status", "").json()
    }

    fn in_maps(&self) -> u64 {
        let folders = Pins::new(self.daemon.pins()).map_folders();
        let mut count = 0;
        walk_blocks(&folders[0], u64::MAX, |_, _| {
            count += 1;
            Ok(())
        })
        .unwrap();
        count
    }

    /// Waits until something is so, and blocks meanwhile.
    fn wait_and_block(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let mut took = Vec::new();
        self.wait(what, |large| {
            took.push(large.block());
            is_so(large)
        });
        took.sort();
        let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
        eprintln!("{} blocks meanwhile: median {median:?}, longest {longest:?}", took.len());
        assert!(longest < BLOCK_LONGEST, "{what}: a block waited {longest:?}");
    }

    /// Returns the most memory that the daemon had, in MiB.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }
}

fn store(daemon: &Daemon<'_>) -> PathBuf {
    daemon.state().join("palang.db")
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn daemon_in_its_sandbox_with_a_million_blocks_and_calls_works() {
    let (all, more) = (rows(), rows() / 10);
    let lab = Lab::new("million");
    let daemon = Daemon::prepare(&lab, "[limits]\nblocks = 2000000");
    let mut large = Large { daemon, begun: Instant::now() };
    let path = store(&large.daemon);
    fill(&path);
    large.told("a store with a million blocks, audit rows and calls");
    large.start();
    assert_eq!(large.status()["blocks"], all);
    assert_eq!(large.in_maps(), all);
    large.told("counting the maps");

    // An import into what is there; then the same again.
    let rows: String = (1..=more)
        .map(|index| format!("62813{index:08},2099-01-01T00:00:00Z,another list\n"))
        .collect();
    let file = large.daemon.folder().join("blocks.csv");
    fs::write(&file, format!("number,expires,reason\n{rows}")).unwrap();
    let file = file.to_str().unwrap().to_owned();
    assert_eq!(large.does(&["block", "import", &file])["added"], more);
    assert_eq!(large.does(&["block", "import", &file])["unchanged"], more);
    fs::remove_file(&file).unwrap();
    large.does(&["block", "export", &file]);
    let exported = fs::read_to_string(&file).unwrap();
    assert_eq!(exported.lines().count() as u64, 1 + all + more);

    // One number among them.
    let held = large.does(&["export", "--number", &format!("+{BUSY}")]);
    let count = |list: &str| held[list].as_array().unwrap().len() as u64;
    assert_eq!((count("calls"), count("audit")), (OF_ONE, OF_ONE));
    let erase = ["erase", "--number", &format!("+{BUSY}"), "--reason", "asked for"];
    let erased = large.does(&erase);
    assert_eq!((&erased["calls"], &erased["audit_rows"]), (&json!(OF_ONE), &json!(OF_ONE)));

    // All of it.
    let verified = large.does(&["audit", "verify"]);
    assert_eq!(verified["first_bad"], Value::Null);
    assert_eq!(verified["rows"], all + more + 1);
    let copy = large.daemon.folder().join("copy.db");
    large.does(&["store", "backup", copy.to_str().unwrap()]);
    let compared = large.daemon.stderr().matches("store and maps were compared").count();
    large.daemon.signal("USR1");
    large.wait("a comparison", |large| {
        large.daemon.stderr().matches("store and maps were compared").count() > compared
    });
    let status = large.status();
    assert_eq!((&status["drift"], &status["findings"]), (&json!(0), &json!([])));
    eprintln!("memory: {} MiB", large.memory());
    assert!(large.memory() < MEMORY_MIB, "{} MiB", large.memory());

    // A million end together, and a million calls are too old.
    assert_eq!(large.daemon.stop(), 0);
    let config = large.daemon.config_file();
    let config = config.to_str().unwrap();
    let restored =
        large.does(&["store", "restore", copy.to_str().unwrap(), "--replace", "--config", config]);
    assert_eq!(restored["blocks"], all + more);
    let conn = Connection::open(&path).unwrap();
    let end = Timestamp::now().as_millisecond() + 20_000;
    let old = end - 100 * 86_400_000;
    conn.execute_batch(&format!(
        "PRAGMA synchronous = OFF;
         UPDATE decisions SET expires = {end} WHERE rule <= {all};
         UPDATE calls SET time = {old}"
    ))
    .unwrap();
    drop(conn);
    let before = path.metadata().unwrap().len();
    // As after a restart of the machine: that blocks end earlier now is nobody's error.
    fs::remove_dir_all(large.daemon.pins()).unwrap();
    large.told("a million ends");
    large.start();
    large.wait_and_block("all that has ended is out of the store", |large| {
        large.status()["blocks"] == more
    });
    assert_eq!(large.in_maps(), more);
    large.wait_and_block("the file is smaller", |_| {
        path.metadata().unwrap().len() < before / 2 + (64 << 20)
    });
    let calls = large.daemon.cli(&["calls", "-o", "json"]);
    assert_eq!((calls.code, calls.stdout.lines().count()), (0, 0), "{}", calls.stderr);
    let log = path.with_extension("db-wal").metadata().unwrap().len();
    assert!(log < 80 << 20, "the log has {log} bytes");
    let status = large.status();
    assert_eq!((&status["drift"], &status["findings"]), (&json!(0), &json!([])));
    assert_eq!(large.does(&["audit", "verify"])["first_bad"], Value::Null);
    eprintln!("memory: {} MiB", large.memory());
    assert!(large.memory() < MEMORY_MIB, "{} MiB", large.memory());
}
