//! A store that is missing, older, another one, or deleted under the daemon. The maps keep what they
//! hold, and nothing is said to be stored that is not.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use palang::store::Reader;
use palang_tests::lab::{Daemon, Lab};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::gate::{Gate, eventually};
use crate::socket::ask;

const FIRST: &str = "+6281200000001";
const SECOND: &str = "+6281200000002";
const PREFIXED: &str = "+6281300000001";
const FREE: &str = "+6281200000009";
const ALLOWED: &str = "+6281400000001";
/// Nobody calls from it: its own redial setting would let him through.
const PERMANENT: &str = "+6281600000001";
const CALLERS: [&str; 5] = [FIRST, SECOND, PREFIXED, FREE, ALLOWED];
const PASSING: [&str; 2] = [FREE, ALLOWED];

/// Starts a gate that lets only [`PASSING`] through.
fn refusing(lab: &Lab) -> Gate<'_> {
    let gate = Gate::start(lab, "");
    let redial = ["--permanent", "--reason", "prank", "--redial", "3/10m/30m"];
    gate.does(&[&["block", "add", PERMANENT][..], &redial].concat());
    for number in [FIRST, SECOND, "+62813*", "+62814*"] {
        gate.does(&["block", "add", number, "--for", "24h", "--reason", "prank"]);
    }
    gate.does(&["allow", "add", ALLOWED, "--comment", "in need"]);
    assert_eq!(gate.passing(&CALLERS), PASSING);
    gate
}

fn store(gate: &Gate<'_>) -> PathBuf {
    gate.daemon.state().join("palang.db")
}

fn beside(store: &Path, ending: &str) -> PathBuf {
    store.with_extension(format!("db{ending}"))
}

/// Removes the store and what is beside it.
fn remove_store(gate: &Gate<'_>) {
    for ending in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(beside(&store(gate), ending));
    }
}

/// Returns the red finding of maps that do not follow the store.
fn held(gate: &Gate<'_>) -> Option<String> {
    gate.findings().into_iter().find(|told| told.contains("palang store adopt --from-maps"))
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_store_that_is_missing_at_the_start_empties_no_map() {
    let lab = Lab::new("store-missing");
    let mut gate = refusing(&lab);
    for end in ["stop", "kill"] {
        match end {
            "stop" => assert_eq!(gate.daemon.stop(), 0),
            _ => gate.daemon.kill(),
        }
        remove_store(&gate);
        // Also at a start after the one that made a new store.
        for start in ["the first", "the second"] {
            gate.daemon.start_again();
            assert_eq!(gate.passing(&CALLERS), PASSING, "{end}, {start}");
            let told = held(&gate).unwrap_or_else(|| panic!("{end}: {:?}", gate.findings()));
            assert!(told.starts_with("red: ") && told.contains("palang store restore"), "{told}");
            assert!(told.contains("blocks in the maps: 5, in the store: 0"), "{told}");
            assert_eq!(gate.does(&["mode"])["mode"], "enforce");
            assert_eq!(gate.daemon.stop(), 0);
        }
        gate.daemon.start_again();

        // The gate works meanwhile.
        gate.does(&["block", "add", FREE, "--for", "1h", "--reason", "prank"]);
        assert_eq!(gate.passing(&CALLERS), [ALLOWED]);
        gate.does(&["block", "remove", FREE]);
        gate.does(&["block", "remove", FIRST]);
        assert_eq!(gate.passing(&CALLERS), [FIRST, FREE, ALLOWED]);
        let said = gate.fails(5, &["allow", "remove", ALLOWED]);
        assert!(said.contains("only in the kernel's maps"), "{said}");
        gate.daemon.signal("USR1");
        gate.kill_and_start();
        assert!(held(&gate).is_some(), "newer blocks of the new store change nothing");
        assert_eq!(gate.passing(&CALLERS), [FIRST, FREE, ALLOWED]);

        let planned = gate.does(&["store", "adopt", "--from-maps", "--dry-run"]);
        let counts = ["blocks", "removed", "allows"].map(|name| planned[name].clone());
        assert_eq!(counts, [4, 0, 1].map(|count: u64| json!(count)));
        assert!(held(&gate).is_some());
        let done = gate.does(&["store", "adopt", "--from-maps"]);
        assert_eq!((&done["blocks"], &done["allows"]), (&planned["blocks"], &planned["allows"]));
        assert_eq!(gate.findings(), [""; 0]);
        assert_eq!(gate.does(&["mode"])["mode"], "enforce");
        let mut numbers: Vec<_> = gate
            .rows(&["block", "list"])
            .iter()
            .map(|block| {
                (block["number"].clone(), block["expires"].is_null(), block["redial"].clone())
            })
            .map(|row| json!(row))
            .collect();
        numbers.sort_by_key(Value::to_string);
        let own = json!({"attempts": 3, "window": 600, "grant": 1800});
        assert_eq!(
            numbers,
            [
                json!(("6281200000002", false, Value::Null)),
                json!(("62813*", false, Value::Null)),
                json!(("62814*", false, Value::Null)),
                json!(("6281600000001", true, own)),
            ]
        );
        let adopted = gate.last("store adopt").unwrap();
        assert_eq!((&adopted["author"], &adopted["from"]), (&json!("root"), &json!("maps")));
        gate.kill_and_start();
        assert_eq!(gate.findings(), [""; 0]);
        assert_eq!(gate.passing(&CALLERS), [FIRST, FREE, ALLOWED]);
        let said = gate.fails(5, &["store", "adopt", "--from-maps"]);
        assert!(said.contains("nothing to decide"), "{said}");
        gate.does(&["allow", "remove", ALLOWED]);
        gate.does(&["allow", "add", ALLOWED]);
        gate.does(&["block", "add", FIRST, "--for", "24h", "--reason", "prank"]);
        assert_eq!(gate.passing(&CALLERS), PASSING);
        gate.head();
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn new_store_is_taken_when_the_operator_asks_for_it() {
    let lab = Lab::new("store-new");
    let mut gate = refusing(&lab);
    assert_eq!(gate.daemon.stop(), 0);
    remove_store(&gate);
    gate.daemon.start_again();
    assert!(held(&gate).is_some());
    assert_eq!(gate.does(&["store", "adopt", "--from-store"])["blocks"], 0);
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    assert_eq!(gate.does(&["mode"])["mode"], "observe");
    assert_eq!(gate.rows(&["allow", "list"]).len(), 1, "what lets through stays");
    gate.does(&["mode", "enforce"]);
    gate.kill_and_start();
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    assert_eq!(held(&gate), None);

    // After a restart of the machine there is nothing in the maps to hold.
    gate.does(&["block", "add", FIRST, "--for", "24h", "--reason", "prank"]);
    gate.daemon.kill();
    remove_store(&gate);
    gate.daemon.start_again();
    assert!(held(&gate).is_some());
    gate.daemon.kill();
    fs::remove_dir_all(gate.daemon.pins()).unwrap();
    gate.daemon.start_again();
    assert_eq!(held(&gate), None);
    assert_eq!(gate.passing(&CALLERS), CALLERS);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn older_store_is_followed_only_when_the_operator_says_so() {
    let lab = Lab::new("store-older");
    let mut gate = refusing(&lab);
    let copy = gate.daemon.folder().join("copy.db");
    let file = copy.to_str().unwrap();
    gate.does(&["store", "backup", file]);
    // A store with fewer entries is no doubt: the maps have nothing that is newer than the store.
    gate.does(&["block", "remove", FIRST]);
    assert_eq!(gate.daemon.stop(), 0);
    remove_store(&gate);
    fs::copy(&copy, store(&gate)).unwrap();
    gate.daemon.start_again();
    assert_eq!(held(&gate), None);
    assert_eq!(gate.passing(&CALLERS), PASSING);

    gate.does(&["block", "add", FREE, "--for", "1h", "--reason", "later"]);
    assert_eq!(gate.passing(&CALLERS), [ALLOWED]);
    assert_eq!(gate.daemon.stop(), 0);
    remove_store(&gate);
    fs::copy(&copy, store(&gate)).unwrap();
    gate.daemon.start_again();
    let told = held(&gate).unwrap();
    assert!(told.contains("it is older"), "{told}");
    assert_eq!(gate.passing(&CALLERS), [ALLOWED]);

    // With the command that is for it.
    assert_eq!(gate.daemon.stop(), 0);
    let config = gate.daemon.config_file();
    gate.does(&["store", "restore", file, "--replace", "--config", config.to_str().unwrap()]);
    for start in ["the first", "the second"] {
        gate.daemon.start_again();
        assert_eq!(held(&gate), None, "{start}");
        assert_eq!(gate.passing(&CALLERS), PASSING, "{start}");
        gate.daemon.kill();
    }

    // Another store, with newer rules than the maps have.
    let other_lab = Lab::new("store-other");
    let other = Daemon::start(&other_lab, "");
    for index in 0..20 {
        let number = format!("+62815000000{index:02}");
        let add = ["block", "add", &number, "--for", "1h", "--reason", "elsewhere"];
        assert_eq!(other.cli(&add).code, 0);
    }
    let elsewhere = other.folder().join("copy.db");
    assert_eq!(other.cli(&["store", "backup", elsewhere.to_str().unwrap()]).code, 0);
    remove_store(&gate);
    fs::copy(&elsewhere, store(&gate)).unwrap();
    gate.daemon.start_again();
    let told = held(&gate).unwrap();
    assert!(told.contains("another one") && told.contains("in the store: 20"), "{told}");
    assert_eq!(gate.passing(&CALLERS), PASSING);
    assert!(gate.passes("+6281500000001"));
    let done = gate.does(&["store", "adopt", "--from-maps"]);
    assert_eq!((&done["blocks"], &done["removed"]), (&json!(5), &json!(20)));
    gate.kill_and_start();
    assert_eq!(gate.passing(&CALLERS), PASSING);
    assert_eq!(gate.rows(&["block", "list"]).len(), 5);
    assert_eq!(gate.findings(), [""; 0]);
    gate.head();
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn change_in_a_deleted_store_file_is_not_reported_as_stored() {
    let lab = Lab::new("store-deleted");
    let mut gate = refusing(&lab);
    remove_store(&gate);
    let allowed = gate.does(&["allow", "add", FIRST]);
    let told = allowed["persisted"]["no"].as_str().unwrap_or_else(|| panic!("{allowed}"));
    assert!(told.contains("palang.db") && told.contains("deleted or replaced"), "{told}");
    assert_eq!(gate.passing(&CALLERS), [FIRST, FREE, ALLOWED]);
    let removed = gate.does(&["block", "remove", SECOND]);
    assert!(removed["persisted"]["no"].is_string(), "{removed}");
    let said = gate.fails(1, &["block", "add", FREE, "--for", "1h", "--reason", "prank"]);
    assert!(said.contains("palang.db was deleted or replaced"), "{said}");
    assert_eq!(gate.kernel_block(FREE), None);
    let findings = gate.findings();
    assert!(findings.iter().any(|told| told.starts_with("red: the store")), "{findings:?}");
    for start in ["kill", "stop"] {
        match start {
            "kill" => gate.daemon.kill(),
            _ => assert_eq!(gate.daemon.stop(), 0),
        }
        gate.daemon.start_again();
        assert!(held(&gate).is_some(), "{start}: {:?}", gate.findings());
        assert_eq!(gate.passing(&CALLERS), [FIRST, SECOND, FREE, ALLOWED], "{start}");
    }
}

// An answered change is in the file, or in a log that somebody may delete.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn deleted_log_of_the_store_loses_no_answered_block() {
    let lab = Lab::new("log-deleted");
    let mut gate = refusing(&lab);
    let blocks = gate.rows(&["block", "list"]);
    fs::remove_file(beside(&store(&gate), "-wal")).unwrap();
    let add = ["block", "add", FREE, "--for", "1h", "--reason", "prank"];
    let added = gate.daemon.cli(&add);
    gate.kill_and_start();
    let mut after = gate.rows(&["block", "list"]);
    // A task in the background may have noticed it first and opened the store again.
    if added.code == 0 {
        let is_answered = |block: &Value| block["number"] == FREE[1..];
        assert!(after.iter().any(is_answered), "what was answered is stored");
        after.retain(|block| !is_answered(block));
    } else {
        let said = &added.stderr;
        assert!(said.contains("palang.db-wal was deleted or replaced"), "{added:?}");
    }
    assert_eq!(after, blocks);
    // The log may have had the records of the calls before, and the daemon says so.
    let mut findings = gate.findings();
    findings.retain(|told| !told.ends_with("refused attempts have no record"));
    assert_eq!(findings, [""; 0]);
    if added.code == 0 {
        gate.does(&["block", "remove", FREE]);
    }
    assert_eq!(gate.passing(&CALLERS), PASSING);
    gate.does(&add);
    gate.head();
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn invalid_offline_notes_do_not_stop_adoption() {
    let lab = Lab::new("odd-notes");
    let mut gate = refusing(&lab);
    gate.daemon.kill();
    let by_hand = |arguments: &[&str]| {
        let mut command = gate.daemon.command(arguments);
        command.env("PALANG_CONFIG", gate.daemon.config_file());
        palang_tests::lab::run::run(&mut command)
    };
    let long = "x".repeat(2000);
    for odd in [
        &["allow", "add", FIRST, "--incident", ""][..],
        &["allow", "add", FIRST, "--incident", &long],
        &["allow", "add", FIRST, "--comment", &long],
        &["override", "on", "--for", "1h", "--reason", &long],
    ] {
        let output = by_hand(odd);
        assert_eq!(output.code, 2, "{odd:?}: {output:?}");
    }
    assert_eq!(gate.passing(&CALLERS), PASSING, "nothing was changed");
    gate.does_by_hand(&["allow", "add", FIRST, "--comment", "in need", "--incident", " 118 "]);
    let notes = gate.daemon.state().join("direct.jsonl");
    let note = fs::read_to_string(&notes).unwrap();
    // As a version before this one has written it.
    let odd = note.replace("\"118\"", "\"\"").replace("81200000001", "81200000002");
    assert_ne!(odd, note);
    let mut file = fs::File::options().append(true).open(&notes).unwrap();
    file.write_all(format!("{odd}no note at all\n").as_bytes()).unwrap();
    drop(file);
    gate.does_by_hand(&["allow", "add", SECOND]);
    gate.does_by_hand(&["allow", "add", "+62813*", "--comment", "quake"]);

    gate.daemon.start_again();
    assert_eq!(gate.passing(&CALLERS), CALLERS);
    let mut told: Vec<_> = gate
        .rows(&["allow", "list"])
        .iter()
        .map(|allow| json!([allow["number"], allow["comment"], allow["incident"]]).to_string())
        .collect();
    told.sort();
    let expected = [
        r#"["6281200000001","in need","118"]"#,
        r#"["6281200000002","",null]"#,
        r#"["62813*","quake",null]"#,
        r#"["6281400000001","in need",null]"#,
    ];
    assert_eq!(told, expected);
    assert!(!notes.exists());
    let finding = || gate.findings().into_iter().find(|told| told.contains("direct.jsonl.odd-"));
    eventually("the finding", || finding().is_some());
    assert!(finding().unwrap().starts_with("amber: "), "{:?}", finding());
    let said = gate.daemon.stderr();
    assert!(
        said.contains("this note is not adopted") && said.contains("direct.jsonl line=2"),
        "{said}"
    );
    for file in fs::read_dir(gate.daemon.state()).unwrap().flatten() {
        if file.file_name().to_string_lossy().contains(".odd-") {
            fs::remove_file(file.path()).unwrap();
        }
    }
    eventually("no finding any more", || gate.findings().is_empty());
}

/// Seconds from now, as a file of blocks has it.
fn in_seconds(seconds: i64) -> String {
    (Timestamp::now() + SignedDuration::from_secs(seconds)).to_string()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn blocks_that_end_together_are_removed_and_make_room() {
    const ALL: usize = 20_000;
    let lab = Lab::new("mass-expiry");
    let gate = Gate::start(&lab, &format!("[limits]\nblocks = {ALL}"));
    let file = gate.daemon.folder().join("blocks.csv");
    let add =
        |number: &str| ["block", "add", number, "--for", "1h", "--reason", "x"].map(str::to_owned);
    // The end must come after the import and the refused block: a slow machine gets more time.
    let mut seconds = 20;
    let mut rounds = vec![(1, ALL), (0, 300)];
    while let Some((others, count)) = rounds.pop() {
        let end = in_seconds(if count == ALL { seconds } else { 5 });
        let rows: String =
            (0..count).map(|index| format!("62812{index:08},{end},a list\n")).collect();
        fs::write(&file, format!("number,expires,reason\n{rows}")).unwrap();
        let imported = gate.does(&["block", "import", file.to_str().unwrap()]);
        assert_eq!(imported["added"], count);
        if count == ALL {
            let add = add("+6281300000001");
            let add: Vec<_> = add.iter().map(String::as_str).collect();
            let refused = gate.daemon.cli(&add);
            if refused.code == 0 {
                assert!(gate.passes("+6281200000001"), "there is room in a full map");
                gate.does(&["block", "remove", "+6281300000001"]);
                eventually("the store is empty", || gate.does(&["status"])["blocks"] == 0);
                seconds *= 2;
                rounds.push((others, count));
                continue;
            }
            assert_eq!(refused.code, 1, "{refused:?}");
            assert!(refused.stderr.contains("full: 20000 of 20000"), "{refused:?}");
            // Full of what has ended is not full.
            eventually("they have ended", || gate.passes("+6281200000001"));
            gate.does(&add);
        }
        eventually("they are out of the store", || gate.does(&["status"])["blocks"] == others);
        eventually("and of the map", || gate.kernel_block("6281200000007").is_none());
        assert_eq!(gate.findings(), [""; 0]);
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn failure_of_a_background_task_is_in_the_status() {
    let lab = Lab::new("chores");
    let gate = refusing(&lab);
    let conn = Connection::open(store(&gate)).unwrap();
    gate.does(&["block", "add", FREE, "--for", "2s", "--reason", "prank"]);
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    let finding = || {
        let ended = "amber: blocks and allows that have ended stay in the store: ";
        gate.findings().into_iter().find(|told| told.starts_with(ended))
    };
    eventually("it is told", || finding().is_some_and(|told| told.contains("locked")));
    assert!(gate.daemon.stderr().contains("WARN blocks and allows that have ended stay"));
    conn.execute_batch("COMMIT").unwrap();
    eventually("it is over", || gate.findings().is_empty());
    eventually("it is out", || gate.rows(&["block", "list"]).len() == 5);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_store_that_is_too_large_loses_its_oldest_calls() {
    const CALLS: u64 = 400_000;
    let lab = Lab::new("too-large");
    let mut gate = refusing(&lab);
    assert_eq!(gate.daemon.stop(), 0);
    let now = Timestamp::now().as_millisecond();
    let conn = Connection::open(store(&gate)).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA synchronous = OFF;
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {CALLS})
         INSERT INTO calls (time, number, source, call_id, call_hash, identity, verdict,
             policy_verdict, reason, rule, repeats)
         SELECT {now} - i * 100, i, '192.0.2.1:5060', i || '@pbx.example.org', i, 1, 1, 1, 1, 1, 0 FROM n;
         PRAGMA wal_checkpoint(TRUNCATE)"
    ))
    .unwrap();
    drop(conn);
    let before = store(&gate).metadata().unwrap().len();
    assert!(before > 40 << 20, "{before}");
    let limit = 30 << 20;
    gate.daemon.configure(&format!("[retention]\nmax_bytes = {limit}"));
    gate.daemon.start_again();
    let used = || Reader::open(&store(&gate)).unwrap().size().unwrap().used;
    eventually("it is small enough", || used() <= limit);
    let conn = Connection::open(store(&gate)).unwrap();
    let newest = "SELECT max(call_hash), count(*) FROM calls
                  WHERE call_id LIKE '%@pbx.example.org'";
    let (oldest, count) = conn.query_row(newest, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let (oldest, count): (u64, u64) = (oldest, count);
    assert_eq!(oldest, count, "those that are left are the newest");
    assert!((1000..CALLS).contains(&count), "{count}");
    let finding = || gate.findings().into_iter().find(|told| told.contains("max_bytes"));
    let told = finding().unwrap();
    assert!(told.starts_with("amber: the store takes "), "{told}");
    assert_eq!(gate.rows(&["block", "list"]).len(), 5);
    gate.daemon.configure("[retention]\nmax_bytes = 100000000");
    gate.daemon.signal("HUP");
    eventually("nothing is to be said", || finding().is_none());
    // Blocks and their audit take more than there is room for, and stay.
    let rows: String =
        (0..6000).map(|index| format!("62815{index:08},2099-01-01T00:00:00Z,a list\n")).collect();
    let file = gate.daemon.folder().join("blocks.csv");
    fs::write(&file, format!("number,expires,reason\n{rows}")).unwrap();
    gate.does(&["block", "import", file.to_str().unwrap()]);
    gate.daemon.configure("[retention]\nmax_bytes = 1048576");
    gate.daemon.signal("HUP");
    eventually("no call is left", || gate.rows(&["calls"]).is_empty());
    let full = "larger than [retention] max_bytes: it takes";
    eventually("it is told", || gate.findings().iter().any(|told| told.contains(full)));
    assert_eq!(gate.rows(&["block", "list"]).len(), 6005);
    gate.head();
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn texts_of_every_command_and_route_have_a_bound() {
    let lab = Lab::new("words");
    let gate = refusing(&lab);
    let long = "x".repeat(1001);
    let review = "/v1/reviews/1";
    for (method, path, body) in [
        ("POST", "/v1/blocks".to_owned(), json!({"number": FREE, "seconds": 60, "reason": long})),
        ("POST", "/v1/allows".to_owned(), json!({"number": FREE, "comment": long})),
        ("PUT", "/v1/override".to_owned(), json!({"seconds": 60, "reason": long})),
        ("POST", "/v1/reports".to_owned(), json!({"number": FREE, "kind": "prank", "note": long})),
        ("POST", format!("{review}/close"), json!({"note": long})),
        ("POST", format!("{review}/free"), json!({"note": long})),
        ("POST", format!("{review}/extend"), json!({"seconds": 60, "note": long})),
        ("DELETE", format!("/v1/numbers/{}?reason={long}", &FREE[1..]), json!({})),
    ] {
        let answer = ask(&gate.daemon, method, &path, &body.to_string());
        assert_eq!(answer.status, 400, "{method} {path}: {}", answer.text());
        assert!(answer.text().contains("1001 bytes"), "{method} {path}: {}", answer.text());
    }
    let row = |field: &str, length: usize| {
        let mut row =
            json!({"line": 1, "number": FREE, "expires": "2099-01-01T00:00:00Z", "reason": "r"});
        row[field] = "x".repeat(length).into();
        format!("{row}\n")
    };
    for (field, length) in [("reason", 1001), ("author", 257), ("origin", 257)] {
        let answer = ask(&gate.daemon, "POST", "/v1/blocks/import", &row(field, length)).text();
        assert!(answer.contains(&format!("{field}: {length} bytes")), "{answer}");
    }
    assert_eq!(gate.rows(&["block", "list"]).len(), 5);
}
