//! One order for all changes. A change that waits for the disk undoes no change that was accepted
//! after it, in the maps, in the store and in the audit.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use filter_common::abi::{MODE_OBSERVE, TOMBSTONE};
use palang::datapath::Maps;
use palang_tests::lab::{Daemon, Lab, TRUNK};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::gate::{Gate, eventually, subject};
use crate::preload;
use crate::socket::{Answer, Sent, ask};
use crate::threads;

/// Blocked only to make others wait.
const QUEUED: &str = "+6289900000001";

/// Why a change waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It writes the store, which another program has locked.
    ForALock,
    /// It has written the store, and the disk does not answer.
    ForTheDisk,
    /// It has not begun: another change waits for the disk.
    InTheQueue,
}

const WAITS: [Wait; 3] = [Wait::ForALock, Wait::ForTheDisk, Wait::InTheQueue];

/// A request.
struct Request {
    method: &'static str,
    path: String,
    body: String,
}

fn request(method: &'static str, path: impl Into<String>, body: &Value) -> Request {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Request { method, path: path.into(), body }
}

impl Request {
    fn ask(&self, daemon: &Daemon) -> Answer {
        ask(daemon, self.method, &self.path, &self.body)
    }

    /// Sends it to a daemon whose store waits. It is accepted then, and not answered.
    fn is_waiting(&self, daemon: &Daemon) -> Sent {
        let mut sent = Sent::new(daemon, self.method, &self.path, &self.body);
        threads::wait_until_store_waits(daemon);
        assert!(!sent.is_answered(), "{} {}: it does not wait", self.method, self.path);
        sent
    }

    fn is_done(&self, daemon: &Daemon) -> Value {
        let answer = self.ask(daemon);
        assert_eq!(answer.status, 200, "{} {}: {}", self.method, self.path, answer.text());
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }
}

fn block(number: &str, seconds: u64) -> Request {
    request(
        "POST",
        "/v1/blocks",
        &json!({"number": number, "seconds": seconds, "reason": "a test"}),
    )
}

fn unblock(number: &str) -> Request {
    request("DELETE", format!("/v1/blocks/{number}"), &Value::Null)
}

fn allow(number: &str, incident: Option<&str>) -> Request {
    request("POST", "/v1/allows", &json!({"number": number, "incident": incident}))
}

fn disallow(number: &str) -> Request {
    request("DELETE", format!("/v1/allows/{number}"), &Value::Null)
}

fn mode(mode: &str) -> Request {
    request("PUT", "/v1/mode", &json!({"mode": mode}))
}

/// A daemon whose disk can be made to wait.
struct Slow<'a> {
    gate: Gate<'a>,
    hangs: PathBuf,
}

impl<'a> Slow<'a> {
    fn start(lab: &'a Lab) -> Slow<'a> {
        let trunks =
            format!("[[trunk]]\nname = \"telkom\"\nsources = [\"{TRUNK}\"]\ntrusts_from = true\n");
        let mut daemon = Daemon::prepare(lab, &trunks);
        let hangs = preload::hanging_disk(&mut daemon);
        daemon.start_again();
        let gate = Gate::of(lab, daemon);
        mode("enforce").is_done(&gate.daemon);
        Slow { gate, hangs }
    }

    /// Waits until the store's thread has done all that it was asked for.
    fn settled(&self) {
        // A question that only this thread answers.
        let answer = ask(&self.gate.daemon, "DELETE", "/v1/numbers/110?dry_run=true&reason=a", "");
        assert!([200, 403, 404].contains(&answer.status), "{}", answer.text());
    }

    /// Asks for `older` while the disk makes it wait, then for `later`, and lets the disk go on.
    /// `later` has to be in force from its answer on. Returns both answers.
    fn overtaken(
        &self,
        wait: Wait,
        older: &Request,
        later: &Request,
        is_in_force: impl Fn(&Maps) -> bool,
    ) -> (Answer, Value) {
        let (daemon, maps) = (&self.gate.daemon, self.gate.maps());
        let store = Connection::open(daemon.state().join("palang.db")).unwrap();
        match wait {
            Wait::ForALock => store.execute_batch("BEGIN IMMEDIATE").unwrap(),
            Wait::ForTheDisk | Wait::InTheQueue => fs::write(&self.hangs, "").unwrap(),
        }
        let first = (wait == Wait::InTheQueue)
            .then(|| block(QUEUED, 3600 + u64::from(rand())).is_waiting(daemon));
        let waits = older.is_waiting(daemon);
        let later = later.is_done(daemon);
        thread::scope(|scope| {
            let waits = scope.spawn(|| waits.answer());
            let holds = || assert!(is_in_force(&maps), "{wait:?}: it was undone");
            // For a while, nothing undoes it.
            for _ in 0..100 {
                holds();
                thread::sleep(Duration::from_millis(1));
            }
            match wait {
                Wait::ForALock => store.execute_batch("ROLLBACK").unwrap(),
                Wait::ForTheDisk | Wait::InTheQueue => fs::remove_file(&self.hangs).unwrap(),
            }
            while !waits.is_finished() {
                holds();
            }
            let older = waits.join().unwrap();
            if let Some(first) = first {
                assert_eq!(first.answer().status, 200);
            }
            self.settled();
            holds();
            (older, later)
        })
    }

    /// Checks every way of waiting. `prepare` makes both requests for a number that no other
    /// one was made for. `is_stored` asks the store as `is_in_force` asks the maps, and
    /// `is_refused` looks at `older`'s answer. `recorded` is what the audit has of both.
    fn never_undoes(
        &mut self,
        prepare: impl Fn(&Gate, &str) -> (Request, Request),
        is_in_force: impl Fn(&Maps, &str) -> bool,
        is_stored: impl Fn(&Gate, &str) -> bool,
        is_refused: impl Fn(&Answer) -> bool,
        recorded: &[&str],
    ) {
        let numbers = ["+6281200000001", "+6281200000002", "+6281200000003"];
        for (number, wait) in numbers.iter().zip(WAITS) {
            let (older, later) = prepare(&self.gate, number);
            let before = self.gate.audit().len();
            let (older, _) = self.overtaken(wait, &older, &later, |maps| is_in_force(maps, number));
            let audit = self.gate.audit();
            let about = audit[before..].iter().filter(|row| row["number"] != QUEUED[1..]);
            let done: Vec<_> = about.map(|row| row["action"].as_str().unwrap()).collect();
            assert!(is_refused(&older), "{wait:?}: {} {done:?}", older.text());
            assert!(is_stored(&self.gate, number), "{wait:?}: {done:?}");
            match wait {
                Wait::InTheQueue => assert_eq!(done, recorded),
                // It was being written when it was overtaken. The later change ends it there, too.
                Wait::ForALock | Wait::ForTheDisk => {
                    assert!(done.len() >= recorded.len(), "{done:?}")
                }
            }
        }
        // And it is what the store makes of the maps.
        self.gate.kill_and_start();
        for (number, wait) in numbers.iter().zip(WAITS) {
            assert!(is_in_force(&self.gate.maps(), number), "{wait:?}: after a start");
            assert!(is_stored(&self.gate, number), "{wait:?}: after a start");
        }
        assert!(self.gate.daemon.cli(&["audit", "verify"]).code == 0);
    }
}

/// Returns a number that differs each time.
fn rand() -> u16 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.subsec_micros() as u16
}

fn is_superseded(answer: &Answer) -> bool {
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    answer.status == 409 && problem["kind"] == "superseded"
}

fn is_unblocked(maps: &Maps, number: &str) -> bool {
    maps.block(subject(number)).unwrap().is_none_or(|block| block.expires == TOMBSTONE)
}

fn no_block_is_stored(gate: &Gate, number: &str) -> bool {
    ask(&gate.daemon, "GET", &format!("/v1/blocks/{number}"), "").status == 404
}

fn is_allowed(maps: &Maps, number: &str) -> bool {
    maps.pass_maps().allow(subject(number)).unwrap().is_some()
}

fn an_allow_is_stored(gate: &Gate, number: &str) -> bool {
    let allows = gate.rows(&["allow", "list"]);
    allows.iter().any(|allow| allow["number"] == number.trim_start_matches('+'))
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn mode_observe_is_not_undone_by_an_older_enforce() {
    let lab = Lab::new("order-mode");
    Slow::start(&lab).never_undoes(
        |gate, _| {
            mode("enforce").is_done(&gate.daemon);
            (mode("enforce"), mode("observe"))
        },
        |maps, _| maps.settings().unwrap().mode == MODE_OBSERVE,
        |gate, _| {
            let path = gate.daemon.state().join("palang.db");
            let sql = "SELECT value FROM state WHERE key = 'mode'";
            let store = Connection::open(path).unwrap();
            let value: String = store.query_row(sql, [], |row| row.get(0)).unwrap();
            value.contains("\"enforce\":false")
        },
        is_superseded,
        &["mode observe"],
    );
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn an_unblock_is_not_undone_by_an_older_block() {
    let lab = Lab::new("order-move");
    Slow::start(&lab).never_undoes(
        |gate, number| {
            block(number, 3600).is_done(&gate.daemon);
            (block(number, 7200), unblock(number))
        },
        is_unblocked,
        no_block_is_stored,
        is_superseded,
        &["block remove"],
    );
}

// There is nothing to unblock yet, and there never will be.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn block_that_waits_is_superseded_by_an_unblock() {
    let lab = Lab::new("order-add");
    Slow::start(&lab).never_undoes(
        |_, number| (block(number, 3600), unblock(number)),
        is_unblocked,
        no_block_is_stored,
        is_superseded,
        &[],
    );
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn an_unblock_is_not_undone_by_an_older_import() {
    let lab = Lab::new("order-import");
    for is_there in [true, false] {
        Slow::start(&lab).never_undoes(
            |gate, number| {
                if is_there {
                    block(number, 3600).is_done(&gate.daemon);
                }
                let end = "2099-01-01T00:00:00Z";
                let row = |line: u32, number: &str| {
                    let row =
                        json!({"line": line, "number": number, "expires": end, "reason": "a list"});
                    format!("{row}\n")
                };
                let body = row(1, number) + &row(2, &number.replace("62812", "62813"));
                let import = Request { method: "POST", path: "/v1/blocks/import".into(), body };
                (import, unblock(number))
            },
            is_unblocked,
            |gate, number| {
                let other = number.replace("62812", "62813");
                let is_other = gate.kernel_block(&other).is_some();
                is_other && no_block_is_stored(gate, number) && !no_block_is_stored(gate, &other)
            },
            |answer| {
                let last: Value = answer.lines().pop().unwrap();
                let done = &last["done"];
                assert_eq!(done["superseded"], 1, "{last}");
                done["added"] == 1 && done["updated"] == 0
            },
            if is_there { &["block add", "block remove"] } else { &["block add"] },
        );
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn an_allow_is_not_undone_by_an_older_removal() {
    let lab = Lab::new("order-allow");
    Slow::start(&lab).never_undoes(
        |gate, number| {
            allow(number, None).is_done(&gate.daemon);
            // The very same once more: it is no news, unless a removal waits.
            (disallow(number), allow(number, None))
        },
        is_allowed,
        an_allow_is_stored,
        is_superseded,
        &["allow move"],
    );
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn an_allow_is_not_undone_by_the_end_of_an_incident_before_it() {
    let lab = Lab::new("order-incident");
    Slow::start(&lab).never_undoes(
        |gate, number| {
            let incident = format!("2026-{}", &number[1..]);
            allow(number, Some(&incident)).is_done(&gate.daemon);
            let end = request("DELETE", format!("/v1/allows?incident={incident}"), &Value::Null);
            (end, allow(number, Some(&incident)))
        },
        is_allowed,
        an_allow_is_stored,
        is_superseded,
        &["allow move"],
    );
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn an_unblock_is_not_undone_by_an_older_extension() {
    let lab = Lab::new("order-extend");
    Slow::start(&lab).never_undoes(
        |gate, number| {
            block(number, 3600).is_done(&gate.daemon);
            let report = json!({"number": number, "kind": "prank"});
            let told = request("POST", "/v1/reports", &report).is_done(&gate.daemon);
            let path = format!("/v1/reviews/{}/extend", told["review"]);
            (request("POST", path, &json!({"seconds": 7200, "note": "a test"})), unblock(number))
        },
        is_unblocked,
        no_block_is_stored,
        is_superseded,
        &["block remove"],
    );
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn an_unblock_is_not_undone_by_an_older_report() {
    let lab = Lab::new("order-report");
    Slow::start(&lab).never_undoes(
        |gate, number| {
            let report = |call_id: &str| {
                let body = json!({"number": number, "kind": "prank", "call_id": call_id});
                request("POST", "/v1/reports", &body)
            };
            let call = || {
                let call = gate.call(number);
                eventually("the record of a call", || {
                    !gate.rows(&["calls", "--call-id", &call.call_id]).is_empty()
                });
                call.call_id
            };
            report(&call()).is_done(&gate.daemon);
            (report(&call()), unblock(number))
        },
        is_unblocked,
        no_block_is_stored,
        |answer| {
            // The report counts, and blocks nobody.
            let told: Value = answer.json();
            assert_eq!((answer.status, &told["report"]["strike"]), (200, &true.into()), "{told}");
            told["block"].is_null() && told["problem"]["kind"] == "superseded"
        },
        &["report"],
    );
}

// A block is in the store, and an unblock that was accepted after it is in the map. Neither is at
// both places when the daemon is killed.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn unblock_accepted_after_a_stored_block_outlives_a_kill() {
    let lab = Lab::new("order-kill");
    let mut slow = Slow::start(&lab);
    let (moved, added) = ("+6281200000001", "+6281200000002");
    block(moved, 3600).is_done(&slow.gate.daemon);
    for number in [moved, added] {
        fs::write(&slow.hangs, "").unwrap();
        let daemon = &slow.gate.daemon;
        let mut waits = block(number, 7200).is_waiting(daemon);
        let answer = unblock(number).is_done(daemon);
        assert_eq!(answer["persisted"], "pending", "{answer}");
        // It is killed before it answers.
        assert!(!waits.is_answered());
        daemon.signal("KILL");
        slow.gate.daemon.wait_for_end();
        fs::remove_file(&slow.hangs).unwrap();
        slow.gate.daemon.start_again();
        assert!(is_unblocked(&slow.gate.maps(), number), "{number}");
        eventually("the store knows", || no_block_is_stored(&slow.gate, number));
        eventually("the map forgets", || slow.gate.kernel_block(number).is_none());
        assert!(slow.gate.passes(number));
    }
}

// Root's hand on the maps has no place in the order, but what it did while a removal waited is
// later than the removal.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn an_allow_by_hand_is_not_undone_by_an_older_removal() {
    let lab = Lab::new("order-by-hand");
    let slow = Slow::start(&lab);
    let number = "+6281200000001";
    allow(number, None).is_done(&slow.gate.daemon);
    fs::write(&slow.hangs, "").unwrap();
    let daemon = &slow.gate.daemon;
    let waits = disallow(number).is_waiting(daemon);
    let there = slow.gate.kernel_allow(number).unwrap();
    let by_hand = filter_common::abi::Allow { rule: filter_common::abi::RULE_DIRECT, ..there };
    slow.gate.maps().pass_maps().set_allow(subject(number), by_hand).unwrap();
    fs::remove_file(&slow.hangs).unwrap();
    let older = waits.answer();
    assert!(is_superseded(&older), "{}", older.text());
    assert!(is_allowed(&slow.gate.maps(), number));
    slow.gate.daemon.signal("USR1");
    eventually("it is adopted", || an_allow_is_stored(&slow.gate, number));
    assert!(is_allowed(&slow.gate.maps(), number));
}

// A reload writes ports and trunks, and the mode with them.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn reload_and_mode_change_at_once_undo_neither() {
    let lab = Lab::new("order-reload");
    // Many entries: a reload takes a while.
    let protected: Vec<_> = (0..3000).map(|index| format!("+62431{index:07}")).collect();
    let config = |port: u16| format!("ports = [5060, {port}]\nprotected = {protected:?}\n");
    let gate = Gate::start(&lab, &config(5070));
    let daemon = &gate.daemon;
    let reloads = || gate.audit().iter().filter(|row| row["action"] == "reload").count();
    let maps = gate.maps();
    for round in 0..30 {
        mode("enforce").is_done(daemon);
        let port = 5071 + round % 2;
        daemon.configure(&config(port));
        let before = reloads();
        daemon.signal("HUP");
        // Another moment of the reload each time.
        thread::sleep(Duration::from_millis(u64::from(round)));
        mode("observe").is_done(daemon);
        // For a while, the reload undoes nothing.
        for _ in 0..50 {
            assert_eq!(maps.settings().unwrap().mode, MODE_OBSERVE, "round {round}");
            thread::sleep(Duration::from_millis(1));
        }
        eventually("the reload", || reloads() > before);
        assert_eq!(maps.settings().unwrap().mode, MODE_OBSERVE, "round {round}");
        let ports = maps.copy_without_blocks().unwrap().ports;
        assert_eq!(ports, [5060, port], "round {round}");
    }
}
