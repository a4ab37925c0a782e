//! The store is copied while it is used, and lives on elsewhere; its audit shows an altered row.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use palang::api::wire::{Allow, AuditVerdict, Block, Mode, Override};
use palang_tests::lab::{Daemon, Lab};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::socket::{ask, until};

const CALLER: &str = "+6281234567890";
const FRIEND: &str = "+6281200000007";

fn must(daemon: &Daemon<'_>, arguments: &[&str]) -> String {
    let output = daemon.cli(arguments);
    assert_eq!(output.code, 0, "{arguments:?}: {}", output.stderr);
    output.stdout
}

fn restore(daemon: &Daemon<'_>, copy: &Path, more: &[&str]) -> (i32, String, String) {
    let (copy, config) = (copy.display().to_string(), daemon.config_file().display().to_string());
    let output =
        daemon.cli(&[&["store", "restore", &copy, "--config", &config][..], more].concat());
    (output.code, output.stdout, output.stderr)
}

fn verify(daemon: &Daemon<'_>) -> AuditVerdict {
    ask(daemon, "GET", "/v1/audit/verify", "").json()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn backup_of_a_store_in_use_restores_the_same_gate_on_a_new_machine() {
    let old_lab = Lab::new("backup");
    let old = Daemon::start(&old_lab, "");
    must(&old, &["mode", "enforce"]);
    must(&old, &["block", "add", CALLER, "--for", "24h", "--reason", "prank, case 118"]);
    must(&old, &["block", "add", "+62431*", "--permanent", "--reason", "a test"]);
    must(&old, &["block", "add", "+62431555", "--for", "1h", "--reason", "a", "--observe"]);
    must(&old, &["allow", "add", FRIEND, "--comment", "the ambulance"]);
    must(&old, &["allow", "add", "+62811*", "--for", "2h"]);

    // Blocks are being added while it is copied.
    let copy = old.folder().join("copy.db");
    let rows: String = (1..=5_000)
        .map(|index| format!("+62813{index:08},2099-01-01T00:00:00Z,a list\n"))
        .collect();
    let file = old.folder().join("blocks.csv");
    fs::write(&file, format!("number,expires,reason\n{rows}")).expect("written");
    let mut import = old.command(&["block", "import"]);
    import.arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    let mut import = import.spawn().expect("the CLI");
    let mut added = 0;
    let mut copies = Vec::new();
    while import.try_wait().expect("waitpid").is_none() || added < 20 {
        added += 1;
        let number = format!("+62814{added:08}");
        must(&old, &["block", "add", &number, "--for", "1h", "--reason", "one by one"]);
        if added % 5 == 0 {
            let copy = copy.with_extension(added.to_string());
            must(&old, &["store", "backup", &copy.display().to_string()]);
            copies.push(copy);
        }
    }
    must(&old, &["override", "on", "--for", "1h", "--reason", "flood"]);
    must(&old, &["store", "backup", &copy.display().to_string()]);
    let wanted: (Vec<Block>, Vec<Allow>, Mode, AuditVerdict) = (
        ask(&old, "GET", "/v1/blocks", "").lines(),
        ask(&old, "GET", "/v1/allows", "").lines(),
        ask(&old, "GET", "/v1/mode", "").json(),
        verify(&old),
    );
    assert_eq!(wanted.0.len(), 3 + 5_000 + added);
    // Later changes are not in it.
    must(&old, &["block", "remove", CALLER]);
    must(&old, &["mode", "observe"]);
    let again = old.cli(&["store", "backup", &copy.display().to_string()]);
    assert_eq!(again.code, 1, "{}", again.stderr);
    assert!(again.stderr.contains("exists already"), "{}", again.stderr);

    // Another machine: no store, no pins, no folders.
    let lab = Lab::new("restore");
    let mut new = Daemon::prepare(&lab, "");
    let (code, told, error) = restore(&new, &copy, &["--dry-run"]);
    assert_eq!(code, 0, "{error}");
    assert!(told.contains("would restore"), "{told}");
    assert!(!new.state().exists() && !new.runtime().exists(), "a dry run changes nothing");
    let (code, told, error) = restore(&new, &copy, &[]);
    assert_eq!(code, 0, "{error}");
    assert!(told.contains(&format!("audit head {}", wanted.3.head)), "{told}");
    assert!(told.contains("2 allows"), "{told}");
    new.start_again();
    assert_eq!(ask(&new, "GET", "/v1/blocks", "").lines::<Block>(), wanted.0);
    assert_eq!(ask(&new, "GET", "/v1/allows", "").lines::<Allow>(), wanted.1);
    assert_eq!(ask(&new, "GET", "/v1/mode", "").json::<Mode>(), wanted.2);
    let over: Override = ask(&new, "GET", "/v1/override", "").json();
    assert_eq!(over.reason.as_deref(), Some("flood"), "the override goes on as well");
    must(&new, &["override", "off"]);
    let receiver = lab.receiver(5060);
    let callers = [CALLER, FRIEND, "+62431777", "+62431555", "+6281300000001"];
    let record = lab.traffic(&receiver, &callers, 5_000, 50).finish();
    let refused = callers.map(|caller| record.refused(caller, ..).len());
    assert_eq!(refused, [10, 0, 10, 0, 10]);

    // The chain of the audit goes on from where it was.
    let head = verify(&old).head;
    let verified = must(&new, &["audit", "verify", "--head", &wanted.3.head]);
    assert!(verified.contains("audit") || !verified.is_empty(), "{verified}");
    let of_old = new.cli(&["audit", "verify", "--head", &head]);
    assert_eq!(of_old.code, 1, "the old machine went on by itself: {}", of_old.stdout);
    assert_eq!(verify(&new).first_bad, None);

    // Each of the copies is a whole store of one moment.
    assert_eq!(new.stop(), 0);
    for copy in copies {
        let (code, _, error) = restore(&new, &copy, &["--replace"]);
        assert_eq!(code, 0, "{error}");
        new.start_again();
        assert_eq!(verify(&new).first_bad, None);
        let blocks = ask(&new, "GET", "/v1/blocks", "").lines::<Block>();
        let by_hand = blocks.iter().filter(|block| block.reason == "one by one").count();
        assert!(by_hand.is_multiple_of(5), "{by_hand} is no moment at which there was a copy");
        let imported = blocks.iter().filter(|block| block.reason == "a list").count();
        assert!(imported == 0 || imported == 5_000, "half an import: {imported}");
        assert_eq!(new.stop(), 0);
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn restore_without_replace_or_beside_a_daemon_is_refused() {
    let lab = Lab::new("in-use");
    let mut daemon = Daemon::start(&lab, "");
    must(&daemon, &["mode", "enforce"]);
    must(&daemon, &["block", "add", CALLER, "--for", "1h", "--reason", "a test"]);
    let copy = daemon.state().join("copy.db");
    must(&daemon, &["store", "backup", &copy.display().to_string()]);
    must(&daemon, &["block", "add", "+62431*", "--for", "1h", "--reason", "later"]);
    must(&daemon, &["allow", "add", FRIEND]);
    for more in [&["--replace"][..], &["--replace", "--dry-run"]] {
        let (code, told, error) = restore(&daemon, &copy, more);
        assert_eq!((code, &*told), (1, ""), "{error}");
        assert!(error.contains("a palang daemon holds") && error.contains("stop"), "{error}");
    }
    assert_eq!(daemon.stop(), 0);

    let store = daemon.state().join("palang.db");
    let before = fs::read(&store).expect("the store");
    let (code, _, error) = restore(&daemon, &copy, &[]);
    assert_eq!(code, 2);
    assert!(error.contains(&store.display().to_string()) && error.contains("--replace"), "{error}");
    let none = daemon.state().join("none.db");
    let bad = daemon.state().join("bad.db");
    fs::write(&bad, &fs::read(&copy).expect("the copy")[..8192]).expect("written");
    for (file, wanted) in [(&none, 1), (&bad, 2), (&daemon.config_file(), 2)] {
        let (code, _, error) = restore(&daemon, file, &["--replace"]);
        assert_eq!(code, wanted, "{error}");
        assert!(error.contains(&file.display().to_string()), "{error}");
    }
    let config = daemon.config_file().display().to_string();
    let nowhere = daemon.cli(&["store", "restore", &config, "--config", "/no/such.toml"]);
    assert_eq!(nowhere.code, 2);
    assert!(nowhere.stderr.contains("/no/such.toml"), "{}", nowhere.stderr);
    assert_eq!(fs::read(&store).expect("the store"), before, "nothing was touched");

    let (code, told, error) = restore(&daemon, &copy, &["--replace", "-o", "json"]);
    assert_eq!(code, 0, "{error}");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!((&told["blocks"], &told["allows"]), (&json!(1), &json!(0)));
    let aside = told["before"].as_str().expect("a name").to_owned();
    assert_eq!(fs::read(&aside).expect("the former store"), before);

    // The maps are those of before: what they let through stays, what they block follows the store.
    daemon.start_again();
    let blocks: Vec<Block> = ask(&daemon, "GET", "/v1/blocks", "").lines();
    assert_eq!(blocks.len(), 1);
    let allows: Vec<Allow> = ask(&daemon, "GET", "/v1/allows", "").lines();
    assert_eq!((allows.len(), &*allows[0].origin), (1, "direct"));
    let receiver = lab.receiver(5060);
    let record = lab.traffic(&receiver, &[CALLER, "+62431777"], 5_000, 20).finish();
    assert_eq!(record.refused(CALLER, ..).len(), 10);
    assert_eq!(record.refused("+62431777", ..).len(), 0);
    assert_eq!(verify(&daemon).first_bad, None);

    // And back.
    assert_eq!(daemon.stop(), 0);
    let (code, _, error) = restore(&daemon, Path::new(&aside), &["--replace"]);
    assert_eq!(code, 0, "{error}");
    daemon.start_again();
    assert_eq!(ask(&daemon, "GET", "/v1/blocks", "").lines::<Block>().len(), 2);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn audit_verify_names_the_first_altered_row() {
    let lab = Lab::new("altered");
    let mut daemon = Daemon::start(&lab, "");
    for index in 1..=6 {
        let number = format!("+6281200000{index:03}");
        must(&daemon, &["block", "add", &number, "--for", "1h", "--reason", "a test"]);
    }
    let good = verify(&daemon);
    assert_eq!((good.rows, good.first_bad), (6, None));
    must(&daemon, &["audit", "verify", "--head", &good.head]);
    assert_eq!(daemon.stop(), 0);
    let store = daemon.state().join("palang.db");
    // The last one to close it writes what is still in the -wal file into it.
    drop(Connection::open(&store).and_then(|conn| conn.execute("DELETE FROM calls", [])));
    assert!(!store.with_extension("db-wal").exists());
    let whole = fs::read(&store).expect("the store");
    let make_whole = || {
        for beside in ["db-wal", "db-shm"] {
            let _ = fs::remove_file(store.with_extension(beside));
        }
        fs::write(&store, &whole).expect("written");
    };

    for (statement, bad) in [
        ("UPDATE audit SET record = replace(record, 'a test', 'no test') WHERE seq = 3", 3),
        ("UPDATE audit SET record = replace(record, 'root', 'siti') WHERE seq IN (2, 5)", 2),
        ("UPDATE audit SET hash = zeroblob(32) WHERE seq = 4", 4),
        ("DELETE FROM audit WHERE seq = 5", 5),
        ("DELETE FROM audit WHERE seq = 1", 1),
        ("UPDATE audit SET seq = 40 WHERE seq = 4", 4),
        (
            "INSERT INTO audit (seq, record, hash) SELECT 7, record, hash FROM audit WHERE seq = 6",
            7,
        ),
    ] {
        make_whole();
        let conn = Connection::open(&store).expect("the store");
        conn.execute(statement, []).unwrap_or_else(|error| panic!("{statement}: {error}"));
        drop(conn);
        daemon.start_again();
        let told = daemon.cli(&["audit", "verify"]);
        assert_eq!(told.code, 1, "{statement}: {}", told.stdout);
        assert!(
            told.stderr.contains(&format!("chain breaks at row {bad};")),
            "{statement}: {}",
            told.stderr
        );
        let json = daemon.cli(&["audit", "verify", "-o", "json"]);
        assert_eq!(json.code, 1);
        let verdict: AuditVerdict = serde_json::from_str(&json.stdout).expect("JSON");
        assert_eq!(verdict.first_bad, Some(bad), "{statement}");
        // The gate goes on with an altered audit.
        let status = daemon.cli(&["status"]);
        assert_eq!(status.code, 0, "{}", status.stderr);
        assert_eq!(daemon.stop(), 0);
    }

    // Cut at its end, the chain looks whole: only a head that was noted elsewhere shows the cut.
    make_whole();
    let conn = Connection::open(&store).expect("the store");
    conn.execute("DELETE FROM audit WHERE seq = 6", []).expect("deleted");
    drop(conn);
    daemon.start_again();
    until("the head of before in the journal", || {
        daemon.stderr().contains(&format!("audit head head={}", good.head)).then_some(())
    });
    must(&daemon, &["audit", "verify"]);
    let told = daemon.cli(&["audit", "verify", "--head", &good.head]);
    assert_eq!(told.code, 1, "{}", told.stdout);
}
