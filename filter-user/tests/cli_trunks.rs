//! Walks `tests/fixtures/trunks/CASES.tsv`, row by row. A row that was right before stays right, and one that was
//! wrong has the right outcome. A row in doubt has the outcome that docs/reasons.md or docs/plans.md decides.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use common::temporary;

/// Rows whose `right` is in words: row, options of replay or lines of a policy, and outcome. The last text is on the
/// page that decides it.
const DECIDED: &[(&str, &str, &str, &str)] = &[
    ("ims-imsi-510", "", "drop blocked-number 510101234567890", "plans.md: an IMSI as caller"),
    (
        "ims-imsi-510",
        "policy: imsi_mcc = [\"510\"]",
        "pass not-a-number",
        "plans.md: an IMSI as caller",
    ),
    (
        "asterisk-phone-context-national",
        "",
        "pass ambiguous-number",
        "plans.md: `phone-context=national`",
    ),
    (
        "asterisk-phone-context-national",
        "policy: phone_contexts = { \"national\" = \"national\" }",
        "drop blocked-number 6281234567890",
        "plans.md: `phone-context=national`",
    ),
    (
        "metaswitch-pai-bare-national-default",
        "--country US",
        "drop blocked-number 16505550000",
        "plans.md: ten and eleven digits of the USA",
    ),
    (
        "telnyx-no-plus-trunk-prefix-1",
        "--country US",
        "drop blocked-number 16505550000",
        "plans.md: ten and eleven digits of the USA",
    ),
    (
        "nanp-ten-digits-national-only",
        "--country US",
        "drop blocked-number 16505550000",
        "plans.md: ten and eleven digits of the USA",
    ),
    (
        "singapore-bare-eight",
        "--country SG",
        "drop blocked-number 6583195881",
        "plans.md: eight digits of Singapore",
    ),
    (
        "nl-00-prefix-not-set",
        "",
        "pass ambiguous-number",
        "plans.md: `0031…` without `international_prefixes`",
    ),
    (
        "quoted-name-then-bare-uri",
        "",
        "pass bad-header",
        "reasons.md: a quoted name before a URI without angle brackets",
    ),
    ("double-double-quotes", "", "pass bad-header", "reasons.md: and `\"\"name\"\"`"),
    ("placeholder-anonymous", "--block-caller", "refused", "protected.md: +266696687"),
    (
        "ru-8-national-default",
        "--country RU",
        "drop blocked-number 79245551436",
        "plans.md: Russia with 8",
    ),
    ("us-cama-ani-pani", "", "pass not-a-number", "plans.md: `*ANI#*PANI#`"),
    (
        "to-without-cr",
        "",
        "drop blocked-number 6281234567890",
        "reasons.md: A line may end with LF alone",
    ),
    ("all-lf", "", "drop blocked-number 6281234567890", "reasons.md: A line may end with LF alone"),
    ("tel-with-host", "", "pass not-a-number", "plans.md: `tel:NUMBER@host`"),
    (
        "sos-ecscf-bare-national",
        "--country BR",
        "drop blocked-number 5573995550104",
        "plans.md: Brazil without 55",
    ),
    // The row wants the number of the caller, but it has `isub`, too.
    (
        "rn-and-cic-long-user",
        "",
        "pass extension",
        "reasons.md: are different numbers (RFC 3966 §4)",
    ),
    (
        "it-landline-plus",
        "--country IT",
        "drop blocked-number 390255501234",
        "plans.md: Italy with 0",
    ),
    (
        "ci-ten-digits",
        "--country CI",
        "drop blocked-number 2250789555234",
        "plans.md: 0 after the country code",
    ),
];

/// Rows that are not one message, and what covers them: row, file, and the name of the test or fixture in it.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    (
        "fmt-gz",
        "filter-user/src/replay/capture.rs",
        "compressed_captures_are_read_in_all_their_parts",
    ),
    (
        "fmt-mixed-links",
        "filter-user/tests/cli_replay.rs",
        "frames_of_other_interfaces_in_a_pcapng_are_skipped_and_counted",
    ),
    (
        "fmt-opb-time",
        "filter-user/src/replay/capture.rs",
        "obsolete_packet_block_has_its_time_in_either_byte_order",
    ),
    (
        "fmt-mirror",
        "filter-user/tests/cli_replay.rs",
        "packet_in_a_tunnel_is_judged_with_decap_and_counted_without",
    ),
    (
        "fmt-hep",
        "filter-user/src/replay/tunnel/tests.rs",
        "old_hep_is_read_however_an_agent_counts_its_header",
    ),
    ("fmt-link-types", "filter-user/src/replay/link.rs", "unknown_link_type_error_names_it"),
    (
        "fmt-read",
        "filter-user/src/replay/capture.rs",
        "pcap_of_every_byte_order_and_resolution_is_read",
    ),
    (
        "fmt-broken",
        "filter-user/src/replay/capture.rs",
        "truncated_pcapng_returns_its_complete_frames",
    ),
    ("replay-several", "filter-user/tests/cli_replay.rs", "one_bad_file_does_not_hide_the_others"),
    (
        "live-status",
        "tests/live/second_look.rs",
        "calls_that_cannot_be_read_turn_the_status_amber_and_are_listed",
    ),
    (
        "replay-own-config",
        "filter-user/tests/cli_replay.rs",
        "configuration_of_the_daemon_names_ports_and_identity",
    ),
    // Captures of others that are not in this repository: there are fixtures of the same kind.
    ("pcap-sngrep-aaa", "tests/fixtures/pcaps/MANIFEST.tsv", "ipfixprobe__sip.pcap"),
    ("pcap-goffinet-sip", "tests/fixtures/pcaps/MANIFEST.tsv", "goffinet__sip-proxy.pcap"),
    ("pcap-pkts", "tests/fixtures/trunks/README.md", "aboutsip/pkts"),
    ("pcap-akram-lte", "tests/fixtures/pcaps/MANIFEST.tsv", "open5gs__nonipsec_reg.pcapng"),
    ("bulk-sipp", "tests/oracles.rs", "froms_of_other_stacks"),
    // A measurement of 2026, and no test: no test may assert a duration.
    ("replay-big", "CONTRIBUTING.md", "No test asserts a duration"),
];

struct Row {
    id: String,
    settings: String,
    blocked: String,
    right: String,
    seen: String,
    state: String,
    note: String,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rows() -> Vec<Row> {
    let path = repository().join("tests/fixtures/trunks/CASES.tsv");
    let mut reader = csv::ReaderBuilder::new().delimiter(b'\t').from_path(path).unwrap();
    let row = |record: Result<csv::StringRecord, csv::Error>| {
        let record = record.unwrap();
        let field = |index: usize| record[index].to_owned();
        Row {
            id: field(0),
            settings: field(2),
            blocked: field(3),
            right: field(4),
            seen: field(5),
            state: field(6),
            note: field(7),
        }
    };
    reader.records().map(row).collect()
}

/// Returns the options of replay for the settings of a row. A policy gets a file of its own.
fn options(id: &str, settings: &str) -> Vec<String> {
    let Some(policy) = settings.strip_prefix("policy: ") else {
        // An empty trunk prefix is written as two blanks.
        return settings.split(' ').map(str::to_owned).collect();
    };
    let lines = policy.split(" · ").collect::<Vec<_>>().join("\n");
    let path = temporary(id, format!("[default]\n{lines}\n"));
    vec!["--policy".to_owned(), path.to_str().unwrap().to_owned()]
}

/// Returns the outcome of the only INVITE of a row: verdict, reason, and the number if it was refused.
fn replayed(id: &str, options: &[String], blocks: &[&str]) -> Result<String, String> {
    let capture = repository().join(format!("tests/fixtures/trunks/{id}.pcap"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_palang"));
    command.arg("replay").arg(&capture).args(options).args(["-o", "json"]);
    for block in blocks {
        command.args(["--block", block]);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    if output.status.code() != Some(0) {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let records: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let calls: Vec<_> = records.iter().filter(|record| record["method"] == "INVITE").collect();
    let [call] = calls[..] else { return Err(format!("{} INVITEs", calls.len())) };
    let field = |name: &str| call[name].as_str().unwrap_or("-").to_owned();
    let outcome = format!("{} {}", field("verdict"), field("reason"));
    Ok(if field("verdict") == "drop" { format!("{outcome} {}", field("caller")) } else { outcome })
}

/// Returns the numbers of a row's note that must not meet this call.
fn others(note: &str) -> Vec<&str> {
    let list = note.split("others tried, all pass: ").nth(1).unwrap_or_default();
    list.split(" · ").next().unwrap_or_default().split(", ").filter(|one| !one.is_empty()).collect()
}

/// Returns the outcome that a row demands in its own words; `None` if a person decides.
fn demanded(row: &Row) -> Option<String> {
    if row.state == "DOUBT" {
        return None;
    }
    let text = if row.state == "ok" { &row.seen } else { row.right.rsplit("→ ").next()? };
    let mut words = text.split(' ');
    match (words.next()?, words.next()?) {
        ("drop", "blocked-number") => Some(text.to_owned()),
        ("pass", reason) => Some(format!("pass {reason}")),
        _ => None,
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn each_message_of_a_real_trunk_has_the_outcome_that_its_row_demands() {
    let mut wrong = Vec::new();
    let mut walked = 0;
    for row in rows() {
        let Row { id, settings, .. } = &row;
        if ELSEWHERE.iter().any(|(other, ..)| other == id) {
            continue;
        }
        let blocked = Some(row.blocked.as_str()).filter(|blocked| *blocked != "-");
        let decided: Vec<_> = DECIDED.iter().filter(|(other, ..)| other == id).collect();
        let mut cases: Vec<(Vec<String>, String)> = Vec::new();
        for (_, setting, outcome, _) in &decided {
            let settings = if setting.is_empty() { settings.as_str() } else { *setting };
            if *setting == "--block-caller" {
                let refused = replayed(id, &options(id, &row.settings), &["+266696687"]);
                wrong.extend(
                    (!refused.is_ok_and(|outcome| outcome == "pass protected")).then(|| id.clone()),
                );
                continue;
            }
            cases.push((options(id, settings), (*outcome).to_owned()));
        }
        if decided.is_empty() {
            match demanded(&row) {
                Some(outcome) => cases.push((options(id, settings), outcome)),
                None => wrong.push(format!("{id}: no outcome is demanded or decided")),
            }
        }
        for (options, outcome) in cases {
            walked += 1;
            // With a `+`, a plan reads any number of another country.
            let block = blocked.map(|number| match number.len() {
                0..7 => number.to_owned(),
                _ => format!("+{}", number.trim_start_matches('+')),
            });
            let found = replayed(id, &options, &block.as_deref().into_iter().collect::<Vec<_>>());
            if found.as_ref() != Ok(&outcome) {
                wrong.push(format!("{id} {options:?}: {found:?}, not {outcome:?}"));
            }
            let others = others(&row.note);
            if !others.is_empty() {
                let found = replayed(id, &options, &others);
                if !found.as_ref().is_ok_and(|outcome| outcome.starts_with("pass ")) {
                    wrong.push(format!("{id} with blocks of {others:?}: {found:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(walked > 64, "only {walked} rows");
}

#[test]
fn each_decision_and_each_test_of_another_row_is_where_the_table_says() {
    let rows: BTreeMap<String, String> =
        rows().into_iter().map(|row| (row.id, row.state)).collect();
    for (id, _, _, decision) in DECIDED {
        assert_ne!(rows[*id], "ok", "{id}");
        let (page, text) = decision.split_once(": ").unwrap();
        let page = read(&format!("docs/{page}"));
        // A page may break its lines anywhere.
        let words = page.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(text), "{id}: {decision}");
    }
    for (id, file, test) in ELSEWHERE {
        assert!(rows.contains_key(*id), "{id}");
        assert!(read(file).contains(test), "{id}: {file} has no {test}");
    }
    for id in rows.keys() {
        let has_capture = repository().join(format!("tests/fixtures/trunks/{id}.pcap")).exists();
        let is_elsewhere = ELSEWHERE.iter().any(|(other, ..)| other == id);
        assert!(has_capture != is_elsewhere, "{id} is in no test, or in two");
    }
}

/// Returns the first identity of an attempt in the capture of a trunk.
fn attempt_identity(capture: &str, keys: &str) -> Option<String> {
    let policy = format!("[[trunk]]\nname = \"carrier\"\nsources = [\"0.0.0.0/0\"]\n{keys}");
    let policy = temporary(&format!("{capture}-identity.toml"), policy);
    let output = Command::new(env!("CARGO_BIN_EXE_palang"))
        .arg("replay")
        .arg(repository().join(format!("tests/fixtures/trunks/{capture}.pcap")))
        .args(["-o", "json", "--policy"])
        .arg(policy)
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let records = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.filter_map(|record| Some(record.get("attempt_identity")?.as_str()?.to_owned())).next()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn identity_of_an_attempt_is_shown_where_the_trunk_is_trusted_for_it() {
    const KEYS: &str = "attempt_identity = [\"emergency-call-id\", \"icid\", \"session-id\"]";
    let of = |capture: &str| attempt_identity(capture, KEYS).unwrap();
    let huawei = of("sos-ecscf-huawei");
    assert!(huawei.starts_with("icid ") && huawei.len() == 13, "{huawei}");
    // Of one call, in a frame and in fragments.
    let mavenir = of("sos-ecscf-mavenir");
    assert_eq!(mavenir, of("sos-ecscf-mavenir-mtu1500"));
    assert_ne!(mavenir, huawei);
    assert_eq!(attempt_identity("sos-ecscf-huawei", ""), None);
    assert_eq!(attempt_identity("sos-ecscf-huawei", "attempt_identity = [\"session-id\"]"), None);
}
