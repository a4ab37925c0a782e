//! Privileges that the running daemon has given up, and those that it keeps.

use std::fs;

use palang::api::wire::{ConfigInForce, Status};
use palang_tests::lab::{Daemon, Lab};
use serde_json::json;

use crate::socket::{ask, until};

/// CAP_BPF and CAP_NET_ADMIN.
const LEFT: &str = "0000008000001000";
const LADDER: &str = "fades = \"20d\"\n";

fn problem(daemon: &Daemon<'_>) -> Option<String> {
    ask(daemon, "GET", "/v1/config", "").json::<ConfigInForce>().problem
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn threads_of_the_daemon_have_only_the_capabilities_for_attaching() {
    let lab = Lab::new("capeff");
    let daemon = Daemon::start(&lab, "");
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("threads");
    let mut threads = 0;
    for task in tasks.flatten() {
        let status = fs::read_to_string(task.path().join("status")).expect("a status");
        let field = |name: &str| {
            let found = status.lines().find_map(|line| line.strip_prefix(name));
            found.unwrap_or_else(|| panic!("{name} in {status}")).trim().to_owned()
        };
        assert_ne!(field("Name:"), "loader", "it has loaded");
        for set in ["CapPrm:", "CapEff:"] {
            assert_eq!(field(set), LEFT, "{set} of {}", field("Name:"));
        }
        assert_eq!(field("CapInh:"), "0000000000000000");
        assert_eq!(field("NoNewPrivs:"), "1");
        threads += 1;
    }
    assert!(threads > 2, "{threads} threads");

    // Enough for an interface that comes, and for the program that was not wanted at the start.
    lab.delete_and_recreate_veth();
    let status = || ask(&daemon, "GET", "/v1/status", "").json::<Status>();
    until("attached again", || (status().reattached == 1).then_some(()));
    daemon.configure("[callback]\ngrace = \"60m\"");
    daemon.signal("HUP");
    until("the program for what leaves", || {
        daemon.pins().join("links-egress/gate0").exists().then_some(())
    });
    assert_eq!(problem(&daemon), None);
    assert!(status().findings.is_empty(), "{:?}", status().findings);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn backup_outside_the_configured_folder_is_refused() {
    let lab = Lab::new("closed-backup");
    let daemon = Daemon::prepare(&lab, "");
    let folder = daemon.folder().join("backup");
    let elsewhere = daemon.folder().join("elsewhere");
    for folder in [&folder, &elsewhere] {
        fs::create_dir(folder).expect("a folder");
    }
    let mut daemon = daemon;
    daemon.configure("[paths]\nbackup = \"/nowhere\"");
    daemon.start_again();
    let back_up = |daemon: &Daemon<'_>, file: &std::path::Path| {
        daemon.cli(&["store", "backup", &file.display().to_string()])
    };
    let done = back_up(&daemon, &daemon.state().join("copy"));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let refused = back_up(&daemon, &folder.join("copy"));
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert!(refused.stderr.contains("backups are written below"), "{}", refused.stderr);

    daemon.configure(&format!("[paths]\nbackup = \"{}\"", folder.display()));
    daemon.restart();
    let done = back_up(&daemon, &folder.join("copy"));
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(fs::metadata(folder.join("copy")).expect("the copy").len() > 0);
    // No way around it by a link that leads out.
    std::os::unix::fs::symlink(&elsewhere, folder.join("out")).expect("a link");
    for file in [elsewhere.join("copy"), folder.join("out/copy"), folder.join("../copy")] {
        let refused = back_up(&daemon, &file);
        assert_eq!(refused.code, 5, "{}: {}", file.display(), refused.stderr);
        assert!(!file.exists());
    }
}

// A file that everybody may read, and root all the more, is closed to the daemon.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn file_outside_the_folders_of_the_daemon_cannot_be_read() {
    let lab = Lab::new("closed-files");
    let daemon = Daemon::start(&lab, "");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let ladder = |folder: &std::path::Path| {
        let file = folder.join("ladder.toml");
        fs::write(&file, LADDER).expect("written");
        daemon.configure(&format!("ladder = \"{}\"", file.display()));
        daemon.signal("HUP");
    };
    let reloads = || {
        let audit = ask(&daemon, "GET", "/v1/audit", "").text();
        audit.matches(r#"\"action\":\"reload\""#).count()
    };
    ladder(elsewhere.path());
    let told = until("the problem", || problem(&daemon));
    assert!(told.contains("Permission denied"), "{told}");
    assert!(told.contains("configured when it started"), "{told}");
    assert_eq!(reloads(), 0);
    ladder(daemon.folder());
    until("the reload", || (reloads() == 1).then_some(()));
    assert_eq!(problem(&daemon), None);

    // A folder that is named at the start is open.
    let mut daemon = daemon;
    let file = elsewhere.path().join("ladder.toml");
    daemon.configure(&format!("ladder = \"{}\"", file.display()));
    daemon.restart();
    daemon.signal("HUP");
    let audit = || ask(&daemon, "GET", "/v1/audit", "").text();
    until("the reload", || {
        (audit().matches(r#"\"action\":\"reload\""#).count() == 2).then_some(())
    });
    let answer = ask(&daemon, "PUT", "/v1/mode", &json!({ "mode": "enforce" }).to_string());
    assert_eq!(answer.status, 200, "{}", answer.text());
}
