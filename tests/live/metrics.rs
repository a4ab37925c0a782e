//! Metrics for Prometheus: they count exactly the calls that were sent, and show no caller's number.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use palang_tests::lab::{Lab, TRUNK, message};
use serde_json::Value;

use crate::gate::{Gate, eventually};
use crate::socket::{Answer, request};

const BLOCKED: &str = "+6281234567890";
const FREE: &str = "+6281234567891";
const CONFIG: &str = "[redial]\nattempts = 0\n[metrics]\nlisten = \"127.0.0.1:9113\"";

fn ask(lab: &Lab, port: u16, path: &str) -> Answer {
    let stream = lab.in_gate(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port))).unwrap();
    request(stream, "GET", path, "")
}

pub fn scrape(lab: &Lab) -> String {
    let answer = ask(lab, 9113, "/metrics");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

/// Returns the value of one series, as it is written.
#[track_caller]
pub fn value(metrics: &str, series: &str) -> u64 {
    let line = metrics.lines().find(|line| line.starts_with(&format!("{series} ")));
    let line = line.unwrap_or_else(|| panic!("no {series} in\n{metrics}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

fn shipped(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/prometheus").join(file)
}

/// Ends with the test.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn counters_match_the_calls_that_were_sent() {
    let lab = Lab::new("metrics");
    let gate = Gate::start(&lab, CONFIG);
    gate.does(&["block", "add", BLOCKED, "--for", "1h", "--reason", "prank"]);
    for _ in 0..3 {
        assert!(!gate.passes(BLOCKED));
    }
    for _ in 0..4 {
        assert!(gate.passes(FREE));
    }
    let sender = lab.sender();
    for index in 0..5 {
        let unread = message::invite(FREE, &format!("{index}@unread")).replace("From:", "Form:");
        sender.send(5060, unread.as_bytes()).unwrap();
    }
    let invites =
        |verdict| format!("palang_invites_total{{trunk=\"default\",verdict=\"{verdict}\"}}");
    let packets = |reason| format!("palang_packets_total{{trunk=\"default\",reason=\"{reason}\"}}");
    eventually("all of them are counted", || value(&scrape(&lab), &packets("from-missing")) == 5);
    let metrics = scrape(&lab);
    for (series, expected) in [
        (invites("refused"), 3),
        (invites("passed"), 4),
        (invites("unread"), 5),
        (packets("blocked-number"), 3),
        (packets("not-blocked"), 4),
        (packets("from-missing"), 5),
        ("palang_blocks".to_owned(), 1),
        ("palang_enforcing".to_owned(), 1),
        ("palang_override_active".to_owned(), 0),
        // Amber: calls were not read.
        ("palang_status".to_owned(), 1),
        ("palang_changes_unsaved".to_owned(), 0),
        ("palang_config_last_reload_successful".to_owned(), 1),
        ("palang_events_lost_total{verdict=\"refused\"}".to_owned(), 0),
        ("palang_evidence_total{outcome=\"kept\"}".to_owned(), 0),
        ("palang_evidence_stored".to_owned(), 0),
    ] {
        assert_eq!(value(&metrics, &series), expected, "{series} in\n{metrics}");
    }
    eventually("as many records as attempts", || gate.rows(&["calls"]).len() == 3 + 4 + 5);
    for (filter, expected) in [
        (&["--verdict", "drop"][..], 3),
        (&["--reason", "not-blocked"], 4),
        (&["--reason", "from-missing"], 5),
        (&["--trunk", "default"], 12),
        (&["--trunk", "default", "--reason", "blocked-number", "--verdict", "pass"], 0),
        (&["--trunk", "telkom"], 0),
    ] {
        assert_eq!(gate.rows(&[&["calls"], filter].concat()).len(), expected, "{filter:?}");
    }
    assert!(metrics.contains("mode=\"native\"} 1"), "{metrics}");
    let commits = || value(&scrape(&lab), "palang_store_commit_seconds_count");
    let before = commits();
    gate.does(&["allow", "add", FREE, "--for", "1h"]);
    assert!(commits() > before, "a change is one commit more");
    assert!(metrics.ends_with("# EOF\n"));
    for personal in ["812345", "unread", "10.", "192."] {
        let labels = metrics.lines().filter(|line| !line.starts_with('#'));
        let found: Vec<_> = labels.filter(|line| line.contains(personal)).collect();
        let harmless = |line: &&&str| line.contains("verdict=\"unread\"");
        assert!(found.iter().all(|line| harmless(&line)), "{found:?}");
    }

    gate.does(&["override", "on", "--for", "10m", "--reason", "test"]);
    assert_eq!(value(&scrape(&lab), "palang_override_active"), 1);
    gate.does(&["mode", "observe"]);
    assert_eq!(value(&scrape(&lab), "palang_enforcing"), 0);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn metrics_are_accepted_by_promtool_and_prometheus() {
    let lab = Lab::new("prometheus");
    let gate = Gate::start(&lab, CONFIG);
    assert!(gate.passes(FREE));

    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: cargo xtask setup installs it");
    // `promtool check metrics` reads the older text format: without an end mark, and a counter is
    // described by its whole name.
    let mut metrics = scrape(&lab).replace("# EOF\n", "");
    for counter in [
        "packets",
        "invites",
        "events_lost",
        "drift",
        "reattached",
        "evidence",
        "attempts",
        "attempts_recorded",
        "refusals_thinned",
        "asserted_others",
    ] {
        for kind in ["HELP", "TYPE"] {
            let name = format!("# {kind} palang_{counter} ");
            assert!(metrics.contains(&name), "{metrics}");
            metrics = metrics.replace(&name, &format!("# {kind} palang_{counter}_total "));
        }
    }
    check.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let checked = check.wait_with_output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    let folder = gate.daemon.folder().join("prometheus");
    std::fs::create_dir_all(&folder).unwrap();
    let config = folder.join("prometheus.yml");
    let rules = shipped("palang.rules.yml");
    let text = format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{rules:?}]\n\
         scrape_configs:\n  - job_name: palang\n    static_configs: [{{ targets: [\"127.0.0.1:9113\"] }}]\n"
    );
    std::fs::write(&config, text).unwrap();
    let child = lab
        .command_in_gate("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg("--web.listen-address=127.0.0.1:9090")
        .stderr(std::fs::File::create(folder.join("log")).unwrap())
        .spawn()
        .expect("prometheus: cargo xtask setup installs it");
    let _prometheus = Prometheus(child);
    let query = |query: &str| -> Option<Value> {
        let stream = lab.in_gate(|| TcpStream::connect((Ipv4Addr::LOCALHOST, 9090))).ok()?;
        let answer = request(stream, "GET", &format!("/api/v1/query?query={query}"), "");
        (answer.status == 200).then(|| answer.json::<Value>()["data"]["result"].clone())
    };
    let is = |result: Option<Value>, expected: &str| {
        result.is_some_and(|result| result[0]["value"][1] == expected)
    };
    eventually("prometheus scrapes the daemon", || is(query("up"), "1"));
    eventually("it knows the call that passed", || {
        is(query("palang_invites_total%7Bverdict=%22passed%22%7D"), "1")
    });
    // A detached filter is reported within two scrapes, and the alert begins to count.
    gate.does(&["detach"]);
    eventually("it knows that the filter is off", || {
        query("ALERTS%7Balertname=%22PalangDetached%22%7D")
            .is_some_and(|alerts| alerts.as_array().is_some_and(|alerts| !alerts.is_empty()))
    });
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn daemon_is_ready_when_its_interfaces_have_the_filter() {
    let lab = Lab::new("ready");
    let mut gate = Gate::start(&lab, CONFIG);
    assert_eq!(ask(&lab, 9113, "/healthz").text(), "ok\n");
    assert_eq!(ask(&lab, 9113, "/readyz").text(), "ready\n");
    gate.does(&["detach"]);
    let answer = ask(&lab, 9113, "/readyz");
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("detached by hand"), "{}", answer.text());
    assert_eq!(ask(&lab, 9113, "/healthz").status, 200);
    assert_eq!(ask(&lab, 9113, "/v1/blocks").status, 404);
    gate.daemon.kill();
    assert!(lab.in_gate(|| TcpStream::connect((Ipv4Addr::LOCALHOST, 9113))).is_err());
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn alert_fires_on_its_condition_and_has_its_page() {
    let test = Command::new("promtool")
        .args(["test", "rules"])
        .arg(shipped("palang.rules.test.yml"))
        .output()
        .expect("promtool: cargo xtask setup installs it");
    assert!(test.status.success(), "{}", String::from_utf8_lossy(&test.stdout));
    let read = |path: &str| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path))
            .unwrap()
    };
    let (rules, tests) = (
        read("packaging/prometheus/palang.rules.yml"),
        read("packaging/prometheus/palang.rules.test.yml"),
    );
    let runbook = read("docs/runbook.md");
    let alerts: Vec<_> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10);
    for alert in alerts {
        assert!(runbook.contains(&format!("\n## {alert}\n")), "no page for {alert}");
        assert!(tests.contains(&format!("alertname: {alert}\n")), "no test for {alert}");
    }
    // The answer has what was asked for.
    let lab = Lab::new("dashboard");
    let trunk = format!("[[trunk]]\nname = \"carrier\"\nsources = [\"{TRUNK}\"]");
    let gate = Gate::start(&lab, &format!("{CONFIG}\n{trunk}"));
    assert!(gate.passes(FREE));
    let metrics = scrape(&lab);
    let dashboard = read("packaging/grafana/palang.json");
    serde_json::from_str::<Value>(&dashboard).unwrap();
    for text in [&rules, &dashboard] {
        for (at, _) in text.match_indices("palang_") {
            let name: String =
                text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            assert!(metrics.contains(&format!("\n{name}")), "{name} is not told");
        }
    }
}
