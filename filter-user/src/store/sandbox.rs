//! Every statement of the store, in the sandbox of the daemon, which has no folder for temporary
//! files.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::thread;
use std::time::Duration;

use filter_common::number::Number;
use rusqlite::Connection;
use rusqlite::trace::{TraceEvent, TraceEventCodes};

use crate::api::wire::RedirectTested;
use crate::config::file::parse;
use crate::model::ladder::ReportKind;
use crate::store::schema::{STEPS, migrate_by};
use crate::store::tests::*;
use crate::store::*;
use crate::sys::landlock;

/// Rows of each table. A statement about all of them does not fit into the memory of SQLite. SQLite has
/// room for 16 pages for a statement's journal, 250 for a sorter, 500 for a temporary table.
const MANY: u64 = 20_000;
/// A number with many calls and many audit rows.
const BUSY_NUMBER: &str = "6281299999999";
const CALLS_OF_ONE: u64 = 5_000;
/// Each is a transaction of its own.
const REPORTS: u64 = 500;

/// Methods that ask SQLite no question, or are called by all tests.
const NO_STATEMENT: [&str; 3] = ["open", "end_when", "reader"];

/// Statements that sort in memory, and what bounds their rows.
const SORTED: [(&str, &str); 3] = [
    ("AND number IN (?, ?) ORDER BY seq", "the audit rows of one number"),
    ("FROM reviews WHERE number = ?1 ORDER BY id", "the reviews of one number"),
    ("why_not IS NULL ORDER BY id DESC LIMIT 1", "only the first is kept"),
];

thread_local! {
    static ASKED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// Runs `act` in the daemon's sandbox.
fn in_the_sandbox<T: Send>(home: &Home, act: impl FnOnce() -> T + Send) -> T {
    let folder = home.folder.path().to_owned();
    let open = landlock::Open { read: Vec::new(), write: vec![folder], tcp_ports: Vec::new() };
    thread::scope(|scope| {
        let closed = scope.spawn(|| {
            landlock::close(&open).unwrap();
            for folder in ["/var/tmp", "/tmp", "."] {
                let error = tempfile::tempfile_in(folder).unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{folder}");
            }
            act()
        });
        closed.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Creates a home in memory: these tests make thousands of transactions, and do not test a disk.
fn quick_home() -> Home {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("palang.db");
    Home { folder, path }
}

fn raw(digits: &str) -> Number {
    number(digits).raw()
}

fn call(at: u64, number: Number) -> CallRow {
    CallRow {
        time: time(at.cast_signed()),
        number: Some(number),
        trunk: Some("telco".to_owned()),
        source: "192.0.2.1:5060".to_owned(),
        call_id: Some(format!("{at}@pbx")),
        call_hash: at,
        identity: 1,
        verdict: 1,
        policy_verdict: 1,
        reason: 255,
        rule: at,
        repeats: 0,
        count: 1,
        unread: None,
        reply: None,
    }
}

fn report(at: u64, number: Number) -> Report {
    Report {
        time: time(at.cast_signed()),
        number,
        kind: ReportKind::Prank,
        call_id: Some(format!("{at}@pbx")),
        call_hash: Some(at),
        call: Some(ReportedCall {
            id: at,
            time: time(at.cast_signed()),
            trunk: None,
            reason: 255,
            rule: 1,
        }),
        why_not: None,
        author: "siti".to_owned(),
        note: "laughter".to_owned(),
    }
}

fn review(at: u64, number: Number, kind: &str) -> Review {
    Review {
        time: time(at.cast_signed()),
        number,
        kind: kind.to_owned(),
        rule: 1,
        call_id: None,
        until: time(at.cast_signed() + 60),
        closed: None,
    }
}

fn caller(index: u64) -> String {
    (6_281_200_000_000 + index * 7919 % 1_000_000_007).to_string()
}

fn go_on<T>(_: T) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Calls every method of the store, each about as much as there is.
fn everything(home: &Home) {
    let mut store = home.store();
    let asked = |event: TraceEvent<'_>| {
        if let TraceEvent::Stmt(statement, _) = event {
            ASKED.with_borrow_mut(|asked| asked.insert(statement.sql().into_owned()));
        }
    };
    store.reader.conn.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(asked)).unwrap();

    // Blocks and allows.
    let ends = |rule: u64| Decision {
        expires: Some(time(rule.cast_signed())),
        incident: rule.is_multiple_of(2).then(|| "2027-1".to_owned()),
        ..block(rule, number(&caller(rule)))
    };
    assert_eq!(store.put((1..=MANY).map(ends), |_, _| entry()).unwrap(), MANY);
    store.put((1..=MANY).map(ends), |_, _| entry()).unwrap();
    let allow = Decision { kind: Kind::Allow, ..ends(MANY + 1) };
    store.put_telling(&allow, Some(entry()), |_, _| entry()).unwrap();
    assert_eq!(store.reader().find(Kind::Block, number(&caller(7))).unwrap().unwrap().rule, 7);
    assert_eq!(store.reader().by_rule(7).unwrap().unwrap().rule, 7);
    store.reader().for_each(Kind::Block, go_on).unwrap();
    store.reader().for_each_after(Kind::Allow, None, go_on).unwrap();
    assert_eq!(store.reader().of_incident(Kind::Block, "2027-1").unwrap().len() as u64, MANY / 2);
    assert!(store.reader().has_expired(time(9)).unwrap());
    assert_eq!(store.reader().count(Kind::Block).unwrap(), MANY);
    assert_eq!(store.reader().count_of(Kind::Block, false).unwrap(), MANY);
    assert_eq!(store.reader().max_rule().unwrap(), MANY + 1);
    assert!(store.remove(Kind::Allow, allow.subject, entry()).unwrap().is_some());

    // Calls and INVITEs: those of many callers, among them many of one.
    let one = raw(BUSY_NUMBER);
    let calls = |from: u64| {
        let step = MANY / CALLS_OF_ONE;
        let of = move |at: u64| if at.is_multiple_of(step) { one } else { raw(&caller(at)) };
        (from..from + MANY).map(|at| call(at, of(at))).collect::<Vec<_>>()
    };
    let ids = store.put_calls(&calls(1)).unwrap();
    let more = ids.iter().map(|id| (*id, 2)).collect();
    let thinned = [("alpha".to_owned(), 7)].into();
    let records = Records { rows: calls(MANY + 1), more, thinned };
    let account = store.reader().account().unwrap().unwrap_or_default();
    for (records, waits_for_disk) in [(records, true), (Records::default(), false)] {
        let stored = store.put_records(&records, &account, waits_for_disk).unwrap();
        assert!(stored.gone.is_empty(), "{:?}", stored.gone);
    }
    let repeats: Vec<_> = ids.iter().map(|id| (*id, 3)).collect();
    store.set_repeats(&repeats).unwrap();
    store.reader().calls(&CallFilter::default(), go_on).unwrap();
    let since = Some(time(5));
    let of_one = CallFilter { since, number: Some(one), ..CallFilter::default() };
    store.reader().calls(&of_one, go_on).unwrap();
    store
        .reader()
        .calls(&CallFilter { since, call_hash: Some(9), ..CallFilter::default() }, go_on)
        .unwrap();
    assert!(store.reader().call(7).unwrap().is_some());
    let frame = |at: u64| EvidenceRow {
        time: time(at.cast_signed()),
        frame_len: 1000,
        frame: vec![b'x'; 1000],
    };
    let frames = calls(1)
        .into_iter()
        .map(|call| (call.number.unwrap(), call.call_hash, frame(call.call_hash)));
    let room = |frames| Room { frames, bytes: 1 << 30 };
    assert_eq!(store.put_evidence(frames.collect(), room(MANY)).unwrap(), []);
    assert_eq!(store.reader().evidence_size().unwrap().frames, MANY);
    store.put_evidence(Vec::new(), room(MANY / 2)).unwrap();
    assert!(store.reader().evidence(MANY).unwrap().is_some());

    // Reports and reviews.
    for at in 1..=REPORTS {
        store.add_report(&report(at, one), Some(&review(at, one, "report")), entry()).unwrap();
        let number = raw(&caller(at));
        let id = store.open_review(&review(at, number, "redial-grant"), entry()).unwrap().unwrap();
        let closed =
            Closed { time: time(2), by: "siti".to_owned(), note: "ambulance sent".to_owned() };
        store.close_review(id, &closed, entry()).unwrap();
    }
    store.reader().reports(&ReportFilter::default(), go_on).unwrap();
    store
        .reader()
        .reports(&ReportFilter { since, number: Some(one), ..ReportFilter::default() }, go_on)
        .unwrap();
    store.reader().strikes(one, time(0)).unwrap();
    store.reader().strike_of_call(one, 9).unwrap();
    store.reader().reviews(true, 0, go_on).unwrap();
    store.reader().reviews(false, 0, go_on).unwrap();
    assert!(store.reader().review(1).unwrap().is_some());
    assert!(store.reader().open_reviews().unwrap() > 0);

    // The audit.
    for _ in 0..REPORTS {
        let mut about_one = entry();
        about_one.number = Some(BUSY_NUMBER.to_owned());
        store.audit(about_one).unwrap();
    }
    let head = store.reader().audit_head().unwrap();
    assert!(store.reader().audit_has(head).unwrap());
    let prefix = filter_common::number::Digits::parse("62812").unwrap();
    store.reader().callers_of(prefix, jiff::Timestamp::UNIX_EPOCH).unwrap();
    for (since, number) in [
        (None, None),
        (since, None),
        (None, Some(BUSY_NUMBER.to_owned())),
        (since, Some(BUSY_NUMBER.to_owned())),
    ] {
        store.reader().audit_rows(3, &AuditFilter { since, number }, go_on).unwrap();
    }
    assert!(store.reader().last_audit(7).unwrap().is_some());
    assert!(!store.reader().was_removed(7).unwrap());
    assert_eq!(store.reader().verify_audit(Some(head)).unwrap().first_bad, None);
    store.reader().pseudonyms().unwrap();
    store.reader().identity().unwrap();

    // Single values.
    store.set_state("mode", &"observe", Some(entry())).unwrap();
    assert_eq!(store.reader().state("mode").unwrap(), Some("observe".to_owned()));
    let tested = RedirectTested {
        trunk: "a".to_owned(),
        contact: "sip:a@192.0.2.9".to_owned(),
        sources: vec!["::ffff:10.0.0.1/128".to_owned()],
        passed: true,
        why: "heard".to_owned(),
        time: time(9),
        author: "root".to_owned(),
    };
    let text = |contact: &str| {
        format!(
            "interfaces = []\n[[trunk]]\nname = \"a\"\nsources = [\"10.0.0.1\"]\nrefuse = \"302\"\nredirect = \"{contact}\""
        )
    };
    let untested = |store: &Store, contact: &str| {
        let config = parse(&text(contact)).unwrap_or_else(|_| panic!("a configuration"));
        let found = store.reader().untested_redirects(&config).unwrap();
        found.into_iter().map(|(_, why)| why).collect::<String>()
    };
    assert_eq!(untested(&store, &tested.contact), "it was not tested");
    store.set_redirect_tested(&tested, entry()).unwrap();
    assert_eq!(store.reader().redirect_tested("a").unwrap().as_ref(), Some(&tested));
    assert_eq!(untested(&store, &tested.contact), "");
    assert!(untested(&store, "sip:b@192.0.2.9").contains("another contact was tested, sip:a@"));
    let elsewhere =
        RedirectTested { sources: vec!["::ffff:10.0.0.2/128".to_owned()], ..tested.clone() };
    store.set_redirect_tested(&elsewhere, entry()).unwrap();
    assert_eq!(untested(&store, &tested.contact), "it was tested with other sources");
    let failed = RedirectTested { passed: false, ..tested };
    store.set_redirect_tested(&failed, entry()).unwrap();
    assert!(untested(&store, &failed.contact).ends_with(" failed: heard"));
    store.seen(time(9)).unwrap();
    assert!(store.reader().newest().unwrap().is_some());

    // Copies.
    let copy = home.folder.path().join("copy");
    store.reader().backup(&copy).unwrap();
    store.reader().check().unwrap();
    check_restore(&copy, &home.folder.path().join("other"), false).unwrap();
    restore(&copy, &home.folder.path().join("other"), false).unwrap();

    // The end of it all.
    assert_eq!(store.reader().person(one).unwrap().reports.len() as u64, REPORTS);
    assert_eq!(store.reader().counts(one).unwrap().calls, 2 * CALLS_OF_ONE);
    let erased = store.erase(one, entry()).unwrap();
    assert_eq!((erased.calls, erased.reports), (2 * CALLS_OF_ONE, REPORTS));
    assert!(store.clear_log().unwrap());
    while !store.remove_expired(time(MANY.cast_signed()), 1000).unwrap().is_empty() {}
    assert_eq!(store.reader().count(Kind::Block).unwrap(), 0);
    let far = time(1_000_000);
    let long = Duration::MAX;
    store.prune_calls(time(MANY.cast_signed()), long).unwrap();
    store.prune_evidence(far, long).unwrap();
    store.prune_calls(far, long).unwrap();
    store.prune_reports(far, long).unwrap();
    store.prune_reviews(far, long).unwrap();
    assert!(store.reader().size().unwrap().free > 1 << 20);
    assert!(store.give_back(0, long).unwrap().is_done);
    assert_eq!(store.reader().size().unwrap().free, 0);
    bring_in_log(&home.path).unwrap();
    store.check_place().unwrap();
    assert_eq!(store.reader().evidence_size().unwrap().frames, 0);
    store.stop_writing("the test is over");
}

#[test]
fn no_statement_needs_a_temporary_file_or_sorts_all_there_is() {
    let home = quick_home();
    in_the_sandbox(&home, || {
        everything(&home);
        let conn = Reader::open(&home.path).unwrap().conn;
        let asked = ASKED.take();
        assert!(asked.len() > 40, "{asked:?}");
        let mut sorted = BTreeSet::new();
        for sql in asked.iter().filter(|sql| !sql.starts_with("--")) {
            let Ok(mut plan) = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")) else {
                continue;
            };
            let mut steps = plan.raw_query();
            while let Some(step) = steps.next().unwrap() {
                let step: String = step.get(3).unwrap();
                if step.contains("TEMP B-TREE") {
                    let is_known = |(part, _): &&(&str, &str)| sql.contains(part);
                    let known = SORTED.iter().find(is_known);
                    let known = known.unwrap_or_else(|| panic!("{sql}: {step}"));
                    sorted.insert(known.0);
                }
            }
        }
        assert_eq!(sorted.len(), SORTED.len(), "no longer sorted: {sorted:?}");
    });
}

#[test]
fn a_file_that_may_not_be_opened_is_named_with_the_cause() {
    let home = quick_home();
    let other = quick_home();
    drop(other.store());
    in_the_sandbox(&home, || {
        for error in [Store::open(&other.path).unwrap_err(), Reader::open(&other.path).unwrap_err()]
        {
            let message = error.message();
            assert!(message.starts_with(other.path.to_str().unwrap()), "{message}");
            assert!(message.contains("cannot be opened: Permission denied"), "{message}");
        }
    });
}

/// Creates a store of an older version, with many rows in the tables that it has.
fn of_version(home: &Home, version: usize) {
    let mut conn = Connection::open(&home.path).unwrap();
    conn.pragma_update(None, "synchronous", "OFF").unwrap();
    migrate_by(&mut conn, &STEPS[..version]).unwrap();
    let is_renamed = STEPS[..version].iter().any(|step| step.contains("RENAME COLUMN would"));
    let policy_verdict = if is_renamed { "policy_verdict" } else { "would" };
    let rows = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY})"
    );
    conn.execute_batch(&format!(
        "BEGIN;
         {rows} INSERT INTO decisions (rule, id, kind, prefix, subject, created, expires, reason,
             author, origin, node, flags)
         SELECT i, randomblob(16), 0, 0, i, 1, 2, 'prank', 'budi', 'operator', 'edge1', 0 FROM n;
         {rows} INSERT INTO calls (time, number, source, call_hash, identity, verdict,
             {policy_verdict}, reason, rule, repeats)
         SELECT i, i, '192.0.2.1:5060', i, 1, 0, 0, 1, 0, 0 FROM n;
         COMMIT"
    ))
    .unwrap();
    let mut head = Head::default();
    let tx = conn.unchecked_transaction().unwrap();
    for rule in 1..=MANY {
        let record = format!(r#"{{"number":"{}","rule":{rule}}}"#, caller(rule));
        head = head.next(record.as_bytes());
        let row = (head.seq, record, head.hash);
        tx.execute("INSERT INTO audit (seq, record, hash) VALUES (?1, ?2, ?3)", row).unwrap();
    }
    tx.commit().unwrap();
}

#[test]
fn every_older_version_is_brought_on() {
    for version in 1..=STEPS.len() {
        let home = quick_home();
        of_version(&home, version);
        in_the_sandbox(&home, || {
            let store = home.store();
            assert_eq!(store.reader().count(Kind::Block).unwrap(), MANY, "version {version}");
            assert_eq!(
                store.reader().verify_audit(None).unwrap().first_bad,
                None,
                "version {version}"
            );
        });
    }
}

/// Returns the sources of the store without tests and without `connection.rs`.
fn sources() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let others = ["tests.rs", "sandbox.rs", "connection.rs"];
    files
        .filter(|file| !others.iter().any(|other| file.ends_with(other)))
        .map(|file| fs::read_to_string(file).unwrap())
        .map(|source| source.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned())
        .collect()
}

/// Names of the public methods of the store, by the sources.
fn methods() -> BTreeSet<String> {
    let mut methods = BTreeSet::new();
    for source in sources() {
        for block in ["impl Store {", "impl Reader {"] {
            for methods_of in source.split(block).skip(1) {
                let methods_of = methods_of.split("\n}\n").next().unwrap();
                let names = methods_of.split("    pub fn ").skip(1);
                methods.extend(names.map(|rest| rest.split(['(', '<']).next().unwrap().to_owned()));
            }
        }
    }
    methods
}

#[test]
fn every_method_is_called_in_the_sandbox() {
    let (_, calls) = include_str!("sandbox.rs").split_once("fn everything(").unwrap();
    let calls: String = calls.split_whitespace().collect();
    let methods = methods();
    assert!(methods.len() > 40, "{methods:?}");
    for method in methods.iter().filter(|method| !NO_STATEMENT.contains(&method.as_str())) {
        let is_called = ["store.", "store.reader()."]
            .iter()
            .any(|before| calls.contains(&format!("{before}{method}(")));
        assert!(is_called, "{method} is not called in `everything`");
    }
}

#[test]
fn every_connection_is_opened_in_one_place() {
    for source in sources() {
        assert!(!source.contains("Connection::open"), "{source}");
    }
}
