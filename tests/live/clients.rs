//! Eight clients change four numbers, the mode, the override and the configuration at once. Another
//! program locks the store now and then. Afterwards maps, store, audit and the last answer of each
//! key agree. No number that was answered as let through was refused for a moment.
//!
//! `PALANG_TEST_ROUNDS` says how many rounds (1,000 for a long run), `PALANG_TEST_KILLS` how many
//! times the daemon is killed (200).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use filter_common::abi::{MODE_ENFORCE, TOMBSTONE};
use palang::datapath::Maps;
use palang::model::policy::Subject;
use palang::sys::clock;
use palang_tests::lab::{Daemon, Lab};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::gate::{Gate, eventually, subject};
use crate::socket::{ask, try_ask};

/// Rounds and kills unless the environment says otherwise.
const ROUNDS: usize = 150;
const KILLS: usize = 12;
/// Longest that clients work before a kill, in milliseconds.
const BUSY: u64 = 300;
const CLIENTS: usize = 8;
const NUMBERS: [&str; 4] = ["+6281200000001", "+6281200000002", "+6281200000003", "+6281200000004"];
/// Time between two looks at the maps.
const LOOK: Duration = Duration::from_millis(1);
/// Longest that another program locks the store, in milliseconds.
const LOCKED: u64 = 60;
/// Rounds between two looks at the whole audit.
const AUDITED: usize = 25;

/// Random numbers; seeded, so that a run that fails can be repeated as far as threads allow.
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// The subject of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Mode,
    Override,
    Block(usize),
    Allow(usize),
}

/// An act of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Block,
    Unblock,
    Allow,
    Disallow,
    Enforce,
    Observe,
    OverrideOn,
    OverrideOff,
    Import,
    Reload,
}

/// A change that was answered.
#[derive(Clone, Debug)]
struct Done {
    key: Key,
    /// It lets through.
    opens: bool,
    sent: u64,
    answered: u64,
    /// Its place in the order of the daemon.
    order: u64,
}

/// The state of the maps at one moment: whether each key refuses, and the rule of a block. A
/// missing override or allow refuses.
#[derive(Clone, Copy, Debug)]
struct Look {
    begun: u64,
    ended: u64,
    enforces: bool,
    overridden: bool,
    blocked: [Option<u64>; NUMBERS.len()],
    allowed: [bool; NUMBERS.len()],
}

fn look(maps: &Maps, subjects: &[Subject]) -> Look {
    let begun = clock::boot();
    let is_live = |expires: u64| expires != TOMBSTONE && (expires == 0 || begun < expires);
    let settings = maps.settings().unwrap();
    let overridden = begun < maps.pass_maps().override_until().unwrap();
    let mut blocked = [None; NUMBERS.len()];
    let mut allowed = [false; NUMBERS.len()];
    for (index, subject) in subjects.iter().enumerate() {
        let block = maps.block(*subject).unwrap();
        blocked[index] = block.filter(|block| is_live(block.expires)).map(|block| block.rule);
        let allow = maps.pass_maps().allow(*subject).unwrap();
        allowed[index] = allow.is_some_and(|allow| is_live(allow.expires));
    }
    let until = settings.enforce_until;
    Look {
        begun,
        ended: clock::boot(),
        enforces: settings.mode == MODE_ENFORCE && (until == 0 || begun < until),
        overridden,
        blocked,
        allowed,
    }
}

/// Returns a configuration with this second port.
fn config(port: u16) -> String {
    format!("ports = [5060, {port}]\n[limits]\nblocks = 1000\n")
}

/// Returns the key of a change with a place in the order, and whether it lets through.
fn about(act: Act, number: usize) -> Option<(Key, bool)> {
    Some(match act {
        Act::Block => (Key::Block(number), false),
        Act::Unblock => (Key::Block(number), true),
        Act::Allow => (Key::Allow(number), true),
        Act::Disallow => (Key::Allow(number), false),
        Act::Enforce => (Key::Mode, false),
        Act::Observe => (Key::Mode, true),
        Act::OverrideOn => (Key::Override, true),
        Act::OverrideOff => (Key::Override, false),
        Act::Import | Act::Reload => return None,
    })
}

/// Returns the request for a change: method, path, body. A reload has none.
fn request(act: Act, number: usize, mark: &str) -> (&'static str, String, String) {
    let text = NUMBERS[number];
    // Overrides whose ends are nearer than 2 s are the same for the store.
    let seconds =
        3600 + 3 * mark.bytes().fold(7, |hash, byte| (hash * 31 + u64::from(byte)) % 9973);
    match act {
        Act::Block => {
            let body = json!({"number": text, "seconds": seconds, "reason": mark});
            ("POST", "/v1/blocks".to_owned(), body.to_string())
        }
        Act::Unblock => ("DELETE", format!("/v1/blocks/{text}"), String::new()),
        Act::Allow => {
            let comment = if mark.len().is_multiple_of(2) { "" } else { mark };
            let body = json!({"number": text, "comment": comment});
            ("POST", "/v1/allows".to_owned(), body.to_string())
        }
        Act::Disallow => ("DELETE", format!("/v1/allows/{text}"), String::new()),
        Act::Enforce => ("PUT", "/v1/mode".to_owned(), json!({"mode": "enforce"}).to_string()),
        Act::Observe => ("PUT", "/v1/mode".to_owned(), json!({"mode": "observe"}).to_string()),
        Act::OverrideOn => {
            let body = json!({"seconds": seconds, "reason": mark});
            ("PUT", "/v1/override".to_owned(), body.to_string())
        }
        Act::OverrideOff => ("PUT", "/v1/override".to_owned(), json!({"seconds": 0}).to_string()),
        Act::Import => {
            let end = "2099-01-01T00:00:00Z";
            let row = |line: usize, number: &str| {
                let row = json!({"line": line, "number": number, "expires": end, "reason": mark});
                format!("{row}\n")
            };
            let next = NUMBERS[(number + 1) % NUMBERS.len()];
            ("POST", "/v1/blocks/import".to_owned(), row(1, text) + &row(2, next))
        }
        Act::Reload => ("GET", "/v1/mode".to_owned(), String::new()),
    }
}

/// Makes one client's change, and returns the answer, where it changed something. `superseded` counts those
/// that a later one has overtaken.
fn act(
    daemon: &Daemon,
    act: Act,
    number: usize,
    mark: &str,
    superseded: &AtomicU64,
) -> Option<Done> {
    if act == Act::Reload {
        daemon.signal("HUP");
        return None;
    }
    let (method, path, body) = request(act, number, mark);
    let sent = clock::boot();
    let answer = ask(daemon, method, &path, &body);
    let answered = clock::boot();
    match answer.status {
        200 => {}
        409 => {
            superseded.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        // The change is in force already, or a way out prevents it.
        403 | 404 => return None,
        // Nothing was done. The lock of the other program lasted too long, or too many imports of
        // this user are under way.
        429 | 503 => return None,
        other => panic!("{act:?}: {other}: {}", answer.text()),
    }
    let Some((key, opens)) = about(act, number) else {
        let last: Value = answer.lines().pop().expect("an end of the import");
        let refused = &last["refused"]["problem"]["kind"];
        assert!(last["done"].is_object() || *refused == "refused" || *refused == "store", "{last}");
        superseded.fetch_add(last["done"]["superseded"].as_u64().unwrap_or(0), Ordering::Relaxed);
        return None;
    };
    // None: it was so already.
    let order = answer.json::<Value>()["order"].as_u64()?;
    Some(Done { key, opens, sent, answered, order })
}

/// Waits until the store's thread has done all that it was asked for.
fn settled(daemon: &Daemon) {
    eventually("the store's thread answers", || {
        let answer = ask(daemon, "DELETE", "/v1/numbers/110?dry_run=true&reason=a", "");
        [200, 403, 404].contains(&answer.status)
    });
}

fn state(store: &Connection, key: &str) -> Value {
    let sql = "SELECT value FROM state WHERE key = ?1";
    let value: Option<String> = store.query_row(sql, [key], |row| row.get(0)).ok();
    value.map_or(Value::Null, |value| serde_json::from_str(&value).unwrap())
}

/// Rules of the stored blocks (0) or allows (1) of these numbers.
fn stored(store: &Connection, kind: u8) -> Vec<Option<u64>> {
    let sql = "SELECT rule FROM decisions WHERE kind = ?1 AND prefix = 0 AND subject = ?2";
    let rule = |number: &&str| {
        let raw = subject(number).raw().0.cast_signed();
        store.query_row(sql, (kind, raw), |row| row.get(0)).ok()
    };
    NUMBERS.iter().map(rule).collect()
}

/// Returns the last records of the audit for blocks and allows.
fn audited(gate: &Gate) -> HashMap<(String, bool), (String, u64)> {
    let mut last = HashMap::new();
    for row in gate.audit() {
        let (Some(number), Some(action)) = (row["number"].as_str(), row["action"].as_str()) else {
            continue;
        };
        let rule = row["rule"].as_u64().unwrap_or(0);
        let is_block = action.starts_with("block");
        last.insert((number.to_owned(), is_block), (action.to_owned(), rule));
    }
    last
}

/// Returns what is out of sync between kernel and store.
fn disagreements(maps: &Maps, store: &Connection) -> Vec<String> {
    let mut found = Vec::new();
    let mut same = |what: String, kernel: Value, other: Value| {
        if kernel != other {
            found.push(format!("{what}: the kernel has {kernel}, the store {other}"));
        }
    };
    let settings = maps.settings().unwrap();
    let mode = state(store, "mode");
    same("mode".into(), (settings.mode == MODE_ENFORCE).into(), mode["enforce"].clone());
    let until = maps.pass_maps().override_until().unwrap();
    let stored_until = state(store, "override")["deadline"].as_u64().unwrap_or(0);
    same("override".into(), until.into(), stored_until.into());
    let (blocks, allows) = (stored(store, 0), stored(store, 1));
    for (index, number) in NUMBERS.iter().enumerate() {
        let block = maps.block(subject(number)).unwrap().map(|block| (block.rule, block.expires));
        let rule = block.filter(|(_, expires)| *expires != TOMBSTONE).map(|(rule, _)| rule);
        same(format!("block {number}"), json!(rule), json!(blocks[index]));
        let halves = maps.pass_maps().allow_halves(subject(number)).unwrap();
        let [hash, trie] = [halves.hash, halves.trie].map(|half| half.map(|allow| allow.rule));
        same(format!("allow {number}, hash"), json!(hash), json!(allows[index]));
        same(format!("allow {number}, trie"), json!(trie), json!(allows[index]));
    }
    found
}

/// Returns whether the last answer of each key is what the kernel has.
fn last_answers(done: &[Done], look: &Look) -> Vec<String> {
    let mut last: HashMap<Key, &Done> = HashMap::new();
    for one in done {
        let known = last.entry(one.key).or_insert(one);
        if known.order < one.order {
            *known = one;
        }
    }
    let wrong = |(key, last): (&Key, &&Done)| {
        let refuses = match key {
            Key::Mode => look.enforces,
            Key::Override => !look.overridden,
            // An import may have blocked it since; its place in the order is the block's rule.
            Key::Block(number) => match look.blocked[*number] {
                Some(rule) if last.opens => rule < last.order,
                Some(rule) => return (rule < last.order).then(|| format!("{last:?}: rule {rule}")),
                None => false,
            },
            Key::Allow(number) => !look.allowed[*number],
        };
        (refuses == last.opens).then(|| format!("{last:?} was the last; the maps: {look:?}"))
    };
    last.iter().filter_map(wrong).collect()
}

/// Looks that show a refusal of a key that was answered as let through before. No change with a
/// later place in the order had been asked to end that.
fn undone(looks: &[Look], done: &[Done]) -> Vec<String> {
    let mut keys: Vec<Key> = done.iter().map(|done| done.key).collect();
    keys.sort_by_key(|key| format!("{key:?}"));
    keys.dedup();
    let mut wrong = Vec::new();
    for key in keys {
        let of_key =
            |opens: bool| done.iter().filter(move |done| done.key == key && done.opens == opens);
        let mut opened: Vec<_> = of_key(true).map(|one| (one.answered, one.order)).collect();
        let mut ended: Vec<_> = of_key(false).map(|one| (one.sent, one.order)).collect();
        opened.sort_unstable();
        ended.sort_unstable();
        let newest = |list: &[(u64, u64)], next: &mut usize, newest: &mut u64, time: u64| {
            while *next < list.len() && list[*next].0 <= time {
                *newest = (*newest).max(list[*next].1);
                *next += 1;
            }
        };
        let (mut at_opened, mut at_ended, mut last_opened, mut last_ended) = (0, 0, 0, 0);
        for look in looks {
            newest(&opened, &mut at_opened, &mut last_opened, look.begun);
            newest(&ended, &mut at_ended, &mut last_ended, look.ended);
            let is_wrong = match key {
                Key::Mode => look.enforces && last_ended < last_opened,
                Key::Override => !look.overridden && last_ended < last_opened,
                Key::Allow(number) => !look.allowed[number] && last_ended < last_opened,
                // The rule of a block is its place, also that of an import.
                Key::Block(number) => look.blocked[number].is_some_and(|rule| rule < last_opened),
            };
            if is_wrong {
                wrong.push(format!("{key:?} was let through at place {last_opened}: {look:?}"));
                break;
            }
        }
    }
    wrong
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn changes_of_eight_clients_at_once_leave_store_maps_and_audit_in_sync() {
    let rounds = std::env::var("PALANG_TEST_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    let lab = Lab::new("clients");
    let gate = Gate::start(&lab, &config(5070));
    let (daemon, maps) = (&gate.daemon, gate.maps());
    let path = daemon.state().join("palang.db");
    let reader = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let subjects = NUMBERS.map(subject);
    let (ready, finished) = (Barrier::new(CLIENTS + 1), Barrier::new(CLIENTS + 1));
    let over = AtomicBool::new(false);
    let (all, superseded) = (Mutex::new(Vec::new()), AtomicU64::new(0));
    let begun = Instant::now();
    let (looks, wrong) = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut looks = Vec::new();
            let mut next = Instant::now();
            while !over.load(Ordering::Relaxed) {
                looks.push(look(&maps, &subjects));
                next += LOOK;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            looks
        });
        scope.spawn(|| {
            let store = Connection::open(&path).unwrap();
            store.busy_timeout(Duration::from_secs(5)).unwrap();
            let mut random = Random(0x10c4);
            while !over.load(Ordering::Relaxed) {
                let how = if random.below(2) == 0 { "BEGIN IMMEDIATE" } else { "BEGIN EXCLUSIVE" };
                if store.execute_batch(how).is_ok() {
                    thread::sleep(Duration::from_millis(random.below(LOCKED)));
                    store.execute_batch("ROLLBACK").unwrap();
                }
                thread::sleep(Duration::from_millis(random.below(LOCKED)));
            }
        });
        for client in 0..CLIENTS {
            let (ready, finished, over) = (&ready, &finished, &over);
            let (all, superseded) = (&all, &superseded);
            scope.spawn(move || {
                let mut random = Random(0x5eed + client as u64 * 7919);
                for round in 0.. {
                    ready.wait();
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let chosen = match random.below(if client == 0 { 20 } else { 18 }) {
                        0..4 => Act::Block,
                        4..7 => Act::Unblock,
                        7..9 => Act::Allow,
                        9..11 => Act::Disallow,
                        11 => Act::Enforce,
                        12 => Act::Observe,
                        13 => Act::OverrideOn,
                        14 => Act::OverrideOff,
                        15..18 => Act::Import,
                        _ => Act::Reload,
                    };
                    let number = random.below(NUMBERS.len() as u64) as usize;
                    thread::sleep(Duration::from_micros(random.below(20_000)));
                    let mark = format!("round {round}, {client}");
                    let done = act(daemon, chosen, number, &mark, superseded);
                    all.lock().unwrap().extend(done);
                    finished.wait();
                }
            });
        }
        let mut wrong = Vec::new();
        for round in 0..rounds {
            // A client that reloads in this round finds this.
            let port = 5070 + (round % 7) as u16;
            daemon.configure(&config(port));
            ready.wait();
            finished.wait();
            daemon.signal("HUP");
            eventually("the reload", || maps.copy_without_blocks().unwrap().ports == [5060, port]);
            settled(daemon);
            let mut found = disagreements(&maps, &reader);
            let ports = maps.copy_without_blocks().unwrap().ports;
            if ports != [5060, port] {
                found.push(format!("ports {ports:?}, configured {port}"));
            }
            let drift = gate.does(&["status"])["drift"].as_u64().unwrap();
            if drift > 0 {
                found.push(format!("{drift} differences were repaired"));
            }
            let last = last_answers(&all.lock().unwrap(), &look(&maps, &subjects));
            wrong
                .extend(found.into_iter().chain(last).map(|what| format!("round {round}: {what}")));
            if round % AUDITED == AUDITED - 1 || round == rounds - 1 {
                let (blocks, allows) = (stored(&reader, 0), stored(&reader, 1));
                let audited = audited(&gate);
                for (index, number) in NUMBERS.iter().enumerate() {
                    for (is_block, rule) in [(true, blocks[index]), (false, allows[index])] {
                        let last = audited.get(&(number[1..].to_owned(), is_block));
                        let is_there = last.filter(|(action, _)| !action.ends_with("remove"));
                        if is_there.map(|(_, rule)| *rule) != rule {
                            wrong.push(format!(
                                "round {round}: {number}: the audit ends with {last:?}, the store \
                                 has rule {rule:?}"
                            ));
                        }
                    }
                }
            }
        }
        over.store(true, Ordering::Relaxed);
        ready.wait();
        (watcher.join().unwrap(), wrong)
    });
    let done = all.into_inner().unwrap();
    let took = begun.elapsed();
    let undone = undone(&looks, &done);
    let refused = looks.iter().filter(|look| look.blocked[0].is_some()).count();
    println!(
        "{rounds} rounds in {took:?}: {} changes were answered and {superseded:?} were superseded, \
         the maps were looked at {} times ({:.0} a second), {refused} of them with the first number \
         blocked",
        done.len(),
        looks.len(),
        looks.len() as f64 / took.as_secs_f64()
    );
    assert!(
        wrong.is_empty() && undone.is_empty(),
        "{} in {rounds} rounds:\n{}\nundone for a moment:\n{}",
        wrong.len(),
        wrong.join("\n"),
        undone.join("\n")
    );
    assert!(daemon.cli(&["audit", "verify"]).code == 0);
}

/// Returns whether a key lets through.
fn is_open(key: Key, look: &Look) -> bool {
    match key {
        Key::Mode => !look.enforces,
        Key::Override => look.overridden,
        Key::Block(number) => look.blocked[number].is_none(),
        Key::Allow(number) => look.allowed[number],
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn change_that_was_answered_outlives_a_kill_at_any_moment() {
    let kills = std::env::var("PALANG_TEST_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let lab = Lab::new("kills");
    let mut gate = Gate::start(&lab, "[limits]\nblocks = 1000\n");
    let maps = gate.maps();
    let subjects = NUMBERS.map(subject);
    let path = gate.daemon.state().join("palang.db");
    let reader = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut random = Random(0x6b11);
    let (mut wrong, mut answers) = (Vec::new(), 0);
    for kill in 0..kills {
        let before = look(&maps, &subjects);
        // Answered changes, and those that nobody answered.
        let (all, open) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for client in 0..CLIENTS as u64 {
                let mut random = Random(random.below(u64::MAX) ^ client << 32 | 1);
                let (daemon, all, open) = (&gate.daemon, &all, &open);
                scope.spawn(move || {
                    loop {
                        let chosen = match random.below(16) {
                            0..4 => Act::Block,
                            4..7 => Act::Unblock,
                            7..10 => Act::Allow,
                            10..12 => Act::Disallow,
                            12 => Act::Enforce,
                            13 => Act::Observe,
                            14 => Act::OverrideOn,
                            _ => Act::OverrideOff,
                        };
                        let number = random.below(NUMBERS.len() as u64) as usize;
                        let (key, opens) = about(chosen, number).unwrap();
                        let mark = format!("kill {kill}, {client}, {}", random.below(1000));
                        let (method, path, body) = request(chosen, number, &mark);
                        let sent = clock::boot();
                        let Some(answer) = try_ask(daemon, method, &path, &body) else {
                            open.lock().unwrap().push((key, opens));
                            return;
                        };
                        let answered = clock::boot();
                        assert!([200, 403, 404, 409].contains(&answer.status), "{}", answer.text());
                        let order = answer.json::<Value>()["order"].as_u64();
                        if let Some(order) = order.filter(|_| answer.status == 200) {
                            let done = Done { key, opens, sent, answered, order };
                            all.lock().unwrap().push(done);
                        }
                    }
                });
            }
            thread::sleep(Duration::from_millis(random.below(BUSY)));
            gate.daemon.signal("KILL");
        });
        gate.daemon.wait_for_end();
        let (all, open) = (all.into_inner().unwrap(), open.into_inner().unwrap());
        answers += all.len();
        // By the maps alone, and by the next daemon.
        for after in ["the kill", "the start"] {
            let now = look(&maps, &subjects);
            let numbers = (0..NUMBERS.len()).flat_map(|at| [Key::Block(at), Key::Allow(at)]);
            for key in [Key::Mode, Key::Override].into_iter().chain(numbers) {
                let last = all.iter().filter(|one| one.key == key).max_by_key(|one| one.order);
                let expected = last.map_or(is_open(key, &before), |last| last.opens);
                let may_differ = open.contains(&(key, !expected));
                if is_open(key, &now) != expected && !may_differ {
                    wrong.push(format!("kill {kill}, after {after}: {last:?}; the maps: {now:?}"));
                }
            }
            if after == "the kill" {
                gate.daemon.start_again();
                settled(&gate.daemon);
            }
        }
        let found = disagreements(&maps, &reader);
        wrong.extend(found.into_iter().map(|what| format!("kill {kill}: {what}")));
    }
    println!("{kills} kills, {answers} changes were answered");
    assert!(wrong.is_empty(), "{} in {kills} kills:\n{}", wrong.len(), wrong.join("\n"));
    assert!(gate.daemon.cli(&["audit", "verify"]).code == 0);
}
