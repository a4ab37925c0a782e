//! The commands that speak to the daemon, against an API that answers from a script: requests,
//! output, exit codes. The daemon itself is tested elsewhere.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

#[path = "../common/mod.rs"]
mod common;
mod imports;
mod plans;

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Path as Segment, Request};
use axum::http::StatusCode;
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use futures_util::stream;
use jiff::Timestamp;
use palang::api::wire::{
    AddAllow, AddBlock, Allow, AuditVerdict, BadRow, Block, Call, Change, Changed, Check, Health,
    ImportNews, ImportRow, IncidentEnded, Interface, Mode, Override, Persisted, Problem,
    ProblemKind, SetOverride, Status,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::common::assert_exit;

/// An API with some routes, on a socket of its own.
struct Api {
    folder: TempDir,
    _runtime: Runtime,
}

impl Api {
    fn new(routes: Router) -> Api {
        let folder = open_folder();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let entered = runtime.enter();
        let listener = tokio::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        runtime.spawn(async { axum::serve(listener, routes).await });
        drop(entered);
        Api { folder, _runtime: runtime }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        palang(&self.socket(), arguments).output().unwrap()
    }
}

/// Creates a temporary folder that every user may enter.
fn open_folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    folder
}

fn palang(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palang"));
    command.arg("--socket").arg(socket).args(arguments).stdin(Stdio::null());
    command
}

/// Runs the command as a user who is not root.
fn unprivileged(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = palang(&folder.join("socket"), arguments);
    if nix::unistd::geteuid().is_root() {
        // The build may be in a folder that only root may enter.
        let program = folder.join("palang");
        // `cp` writes the file: a process that another test forks would otherwise keep it open for
        // writing, and such a file does not run.
        let cp = Command::new("cp").arg(env!("CARGO_BIN_EXE_palang")).arg(&program).status();
        assert!(cp.unwrap().success());
        let given: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        command = Command::new(program);
        command.args(given).uid(65534).gid(65534);
    }
    command.output().unwrap()
}

fn block(number: &str) -> Block {
    Block {
        id: uuid::Uuid::nil(),
        rule: 7,
        number: number.into(),
        created: "2026-11-24T11:20:00Z".parse().unwrap(),
        expires: Some("2999-11-25T11:20:00Z".parse().unwrap()),
        reason: "prank, case 118".into(),
        author: "siti".into(),
        origin: "operator".into(),
        node: "edge1".into(),
        observe: false,
        redial: None,
        no_redial: false,
        refuse: None,
    }
}

fn check(number: &str, verdict: &str) -> Check {
    Check {
        number: number.into(),
        verdict: verdict.into(),
        policy_verdict: "drop".into(),
        reason: if verdict == "pass" { "observe" } else { "blocked-number" }.into(),
        rule: Some("block 6281234567890".into()),
        mode: if verdict == "pass" { "observe" } else { "enforce" }.into(),
        override_until: None,
        granted: None,
        next_attempt: None,
    }
}

fn interface(name: &str, xdp: Option<&str>) -> Interface {
    Interface {
        carrier: Some(true),
        replies_by_daemon: None,
        name: name.into(),
        index: Some(3),
        xdp: xdp.map(Into::into),
        program: xdp.map(|_| 42),
        problem: None,
    }
}

fn status() -> Status {
    Status {
        colour: Health::Green,
        findings: Vec::new(),
        daemon: true,
        version: "0.1.0".into(),
        since: None,
        mode: Mode {
            ended: None,
            mode: "observe".into(),
            until: None,
            persisted: Persisted::Yes,
            dry_run: false,
            order: 0,
        },
        r#override: Override {
            until: None,
            reason: None,
            author: None,
            persisted: Persisted::Yes,
            dry_run: false,
            order: 0,
        },
        interfaces: ["ens1", "ens2", "ens3"]
            .map(|name| interface(name, (name != "ens2").then_some("native")))
            .into(),
        blocks: Some(1),
        blocks_capacity: 1_000_000,
        allows: Some(0),
        packets: std::collections::BTreeMap::new(),
        refused_lost: 0,
        passed_lost: 0,
        attempts: None,
        drift: 0,
        reattached: 0,
        audit_head: None,
        reviews: None,
        replies: Vec::new(),
        asserted_others: std::collections::BTreeMap::new(),
        machine_redials: Vec::new(),
    }
}

fn lines<T: serde::Serialize>(rows: impl IntoIterator<Item = T>) -> String {
    rows.into_iter().map(|row| serde_json::to_string(&row).unwrap() + "\n").collect()
}

#[test]
fn problem_of_each_kind_has_its_exit_code() {
    let kinds = [
        ("usage", ProblemKind::Usage, StatusCode::BAD_REQUEST, 2),
        ("refused", ProblemKind::Refused, StatusCode::FORBIDDEN, 5),
        ("not-found", ProblemKind::NotFound, StatusCode::NOT_FOUND, 4),
        ("failed", ProblemKind::Failed, StatusCode::INTERNAL_SERVER_ERROR, 1),
        ("store", ProblemKind::Store, StatusCode::SERVICE_UNAVAILABLE, 1),
        ("full", ProblemKind::Full, StatusCode::INSUFFICIENT_STORAGE, 1),
    ];
    let answer = move |Segment(name): Segment<String>| async move {
        let (_, kind, status, _) = kinds.into_iter().find(|kind| kind.0 == name).unwrap();
        (status, Json(Problem { kind, message: format!("{name} is told") }))
    };
    let api = Api::new(Router::new().route("/v1/blocks/{number}", get(answer)));
    for (name, _, _, exit) in kinds {
        let (out, err) = assert_exit(&api.run(&["block", "show", name]), exit);
        assert_eq!((out.as_str(), err.as_str()), ("", &*format!("palang: {name} is told\n")));
    }
    let (_, err) = assert_exit(&api.run(&["mode"]), 1);
    assert!(err.contains("404 Not Found"), "{err}");
}

#[test]
fn status_exits_with_its_colour_if_asked() {
    for (colour, exit) in [(Health::Green, 0), (Health::Amber, 20), (Health::Red, 21)] {
        let answer = move || async move { Json(Status { colour, ..status() }) };
        let api = Api::new(Router::new().route("/v1/status", get(answer)));
        assert_exit(&api.run(&["status", "--exit-code"]), exit);
        assert_exit(&api.run(&["status"]), 0);
    }
}

#[test]
fn check_exits_with_the_verdict() {
    let answer = |Segment(number): Segment<String>| async move {
        let verdict = if number == "+62 811/1" { "pass" } else { "drop" };
        Json(check(&number, verdict))
    };
    let api = Api::new(Router::new().route("/v1/check/{number}", get(answer)));
    let (out, _) = assert_exit(&api.run(&["check", "+62 811/1"]), 0);
    assert!(out.starts_with("+62 811/1: not refused yet: mode is observe."), "{out}");
    let (out, err) = assert_exit(&api.run(&["check", "0812", "-o", "raw"]), 10);
    assert_eq!(out, "0812\tdrop\tdrop\tblocked-number\tblock 6281234567890\tenforce\t-\n");
    assert_eq!(err, "");
}

#[test]
fn command_without_a_daemon_names_the_socket_and_the_next_step() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("socket");
    let (_, err) = assert_exit(&palang(&socket, &["block", "list"]).output().unwrap(), 3);
    assert!(err.contains(socket.to_str().unwrap()), "{err}");
    assert!(err.contains("the socket does not exist"), "{err}");
    assert!(err.contains("systemctl status palang"), "{err}");
    drop(UnixListener::bind(&socket).unwrap());
    let (_, err) = assert_exit(&palang(&socket, &["mode"]).output().unwrap(), 3);
    assert!(err.contains("nothing listens on the socket"), "{err}");
}

#[test]
fn command_without_permission_for_the_socket_names_the_group() {
    let folder = open_folder();
    let socket = folder.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, Permissions::from_mode(0o000)).unwrap();
    let (_, err) = assert_exit(&unprivileged(folder.path(), &["override", "status"]), 5);
    assert!(err.contains("no permission for the socket"), "{err}");
    let gid = nix::unistd::getegid();
    let group = nix::unistd::Group::from_gid(gid).unwrap().unwrap().name;
    assert!(err.contains(&format!("root and the group {group} have it\n")), "{err}");
}

#[test]
fn override_off_with_a_hanging_daemon_ends_after_its_time_limit() {
    let folder = open_folder();
    let socket = folder.path().join("socket");
    // It is connected to, and never answers.
    let _listener = UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, Permissions::from_mode(0o777)).unwrap();
    let (_, err) = assert_exit(&unprivileged(folder.path(), &["override", "off"]), 3);
    assert!(err.contains("gave no answer in 3 s"), "{err}");
    assert!(err.contains("only root can change the kernel's maps directly"), "{err}");
}

#[test]
fn list_is_printed_as_it_arrives_and_its_reader_may_leave() {
    // A list without an end: only who does not wait for it sees a line.
    let answer = || async {
        let line = lines([block("6281234567890")]);
        Body::from_stream(stream::iter(std::iter::repeat_with(move || {
            Ok::<_, std::io::Error>(line.clone())
        })))
    };
    let api = Api::new(Router::new().route("/v1/blocks", get(answer)));
    for format in ["table", "json", "raw"] {
        let mut child = palang(&api.socket(), &["block", "list", "-o", format])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let word = if format == "table" { "number" } else { "6281234567890" };
        assert!(first.contains(word), "{first}");
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""), "{format}");
    }
}

#[test]
fn list_that_breaks_off_is_an_error_and_leaves_no_file() {
    let answer = || async {
        // Enough to be sent before the error ends it.
        let rows = std::iter::repeat_n(lines([block("6281234567890")]), 5000).map(Ok);
        let end = std::iter::once(Err(std::io::Error::other("the disk died")));
        Body::from_stream(stream::iter(rows.chain(end)))
    };
    let api = Api::new(Router::new().route("/v1/blocks", get(answer)));
    let (out, err) = assert_exit(&api.run(&["block", "list"]), 1);
    assert!(out.contains("6281234567890") && !out.contains(" blocks\n"), "{out}");
    assert!(err.contains("the daemon's answer is incomplete"), "{err}");
    let file = api.folder.path().join("blocks.csv");
    assert_exit(&api.run(&["block", "export", file.to_str().unwrap()]), 1);
    assert!(!file.exists());
}

#[test]
fn change_shows_what_is_in_force_and_whether_it_is_stored() {
    let answer = |Json(add): Json<AddBlock>| async move {
        assert_eq!((add.seconds, add.expires, add.permanent), (Some(86_400), None, false));
        assert_eq!((add.number.as_str(), add.reason.as_str()), ("0812-3456-7890", "prank"));
        assert!(add.observe && add.if_absent && add.dry_run);
        Json(Changed {
            change: Change::Added,
            now: block("6281234567890"),
            before: None,
            persisted: Persisted::No("the disk is full".into()),
            dry_run: false,
            order: 7,
            in_force: Some(check("6281234567890", "pass")),
            notes: Vec::new(),
        })
    };
    let api = Api::new(Router::new().route("/v1/blocks", post(answer)));
    let command =
        "block add 0812-3456-7890 --for 24h --reason prank --observe --if-absent --dry-run";
    let mut arguments: Vec<_> = command.split(' ').collect();
    let (out, err) = assert_exit(&api.run(&arguments), 0);
    let lines: Vec<_> = out.lines().collect();
    assert!(lines[0].starts_with("blocked 6281234567890 until 2999-11-2"), "{out}");
    assert_eq!(
        lines[1],
        "in force: not refused yet: mode is observe. In enforce this call would be refused (drop, block 6281234567890)"
    );
    assert!(err.starts_with("palang: NOT ON DISK: ") && err.contains("the disk is full"), "{err}");
    arguments.extend(["-o", "json"]);
    let (out, _) = assert_exit(&api.run(&arguments), 0);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["now"], serde_json::to_value(block("6281234567890")).unwrap());
}

#[test]
fn block_without_an_end_is_refused() {
    let socket = Path::new("/nowhere");
    for arguments in [
        &["block", "add", "0812", "--reason", "prank"][..],
        &["block", "add", "0812", "--reason", "prank", "--for", "1h", "--permanent"],
        &["block", "add", "0812", "--reason", "prank", "--for", "24"],
        &["block", "remove", " "],
        &["override", "on", "--reason", "flood"],
        &["mode", "observe", "--for", "1h"],
    ] {
        assert_exit(&palang(socket, arguments).output().unwrap(), 2);
    }
}

#[test]
fn override_and_prefix_show_what_is_in_force() {
    let set = |Json(set): Json<SetOverride>| async move {
        assert_eq!(set, SetOverride::default());
        Json(status().r#override)
    };
    let remove = |request: Request| async move {
        assert_eq!(request.uri().path(), "/v1/allows/%2B62811*");
        Json(Changed {
            change: Change::Removed,
            now: Allow {
                id: uuid::Uuid::nil(),
                rule: 7,
                number: "62811*".into(),
                created: Timestamp::UNIX_EPOCH,
                expires: None,
                comment: String::new(),
                author: "siti".into(),
                origin: "operator".into(),
                node: "edge1".into(),
                incident: None,
            },
            before: None,
            persisted: Persisted::Yes,
            dry_run: false,
            order: 7,
            in_force: None,
            notes: vec!["a block for 62811* is in force again".into()],
        })
    };
    let api = Api::new(
        Router::new()
            .route("/v1/override", put(set))
            .route("/v1/allows/{number}", delete(remove))
            .route("/v1/status", get(|| async { Json(status()) })),
    );
    let (out, _) = assert_exit(&api.run(&["override", "off"]), 0);
    assert_eq!(out, "override off\nin force: mode observe: no call is refused\n");
    let (out, _) = assert_exit(&api.run(&["allow", "remove", "+62811*"]), 0);
    assert_eq!(
        out,
        "removed the allow for 62811*, which was in force for good\n\
         in force: mode observe: no call is refused\n\
         note: a block for 62811* is in force again\n"
    );
}

#[test]
fn allows_of_an_incident_are_added_listed_and_removed_together() {
    fn allow(number: &str) -> Allow {
        Allow {
            id: uuid::Uuid::nil(),
            rule: 7,
            number: number.into(),
            created: Timestamp::UNIX_EPOCH,
            expires: None,
            comment: "fire".into(),
            author: "siti".into(),
            origin: "operator".into(),
            node: "edge1".into(),
            incident: Some("2026/118".into()),
        }
    }
    let add = |Json(add): Json<AddAllow>| async move {
        assert_eq!((add.seconds, add.incident.as_deref()), (Some(3600), Some("2026/118")));
        Json(Changed {
            change: Change::Added,
            now: allow("62811"),
            before: None,
            persisted: Persisted::Yes,
            dry_run: false,
            order: 7,
            in_force: Some(check("62811", "pass")),
            notes: Vec::new(),
        })
    };
    let list = |request: Request| async move {
        assert_eq!(request.uri().query(), Some("incident=2026%2F118"));
        lines([allow("62811"), allow("62812*")])
    };
    let end = |request: Request| async move {
        let dry_run = match request.uri().query() {
            Some("incident=2026%2F118") => false,
            Some("incident=2026%2F118&dry_run=true") => true,
            other => panic!("{other:?}"),
        };
        let removed = vec![allow("62811"), allow("62812*")];
        Json(IncidentEnded { incident: "2026/118".into(), removed, dry_run, order: 7 })
    };
    let api = Api::new(
        Router::new()
            .route("/v1/allows", post(add).get(list).delete(end))
            .route("/v1/status", get(|| async { Json(status()) })),
    );
    let add = ["allow", "add", "0811", "--for", "1h", "--incident", "2026/118"];
    let (out, _) = assert_exit(&api.run(&add), 0);
    assert!(out.starts_with("allowed 62811 for good, incident 2026/118: fire\n"), "{out}");
    let (out, _) = assert_exit(&api.run(&["allow", "list", "--incident", "2026/118"]), 0);
    assert!(
        out.contains("incident") && out.contains("2026/118") && out.contains("2 allows"),
        "{out}"
    );
    let raw = ["allow", "list", "--incident", "2026/118", "-o", "raw"];
    let (out, _) = assert_exit(&api.run(&raw), 0);
    assert!(out.lines().all(|line| line.ends_with("\t2026/118")), "{out}");
    let remove = ["allow", "remove", "--incident", "2026/118"];
    let (out, _) = assert_exit(&api.run(&remove), 0);
    assert_eq!(
        out,
        "removed 2 allows of incident 2026/118\n  62811, which was in force for good\n  \
         62812*, which was in force for good\nin force: mode observe: no call is refused\n"
    );
    let (out, _) = assert_exit(&api.run(&[&remove[..], &["--dry-run", "-o", "json"]].concat()), 0);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["dry_run"], &json["removed"][1]["number"]), (&json!(true), &json!("62812*")));
    // One or the other.
    assert_exit(&api.run(&["allow", "remove"]), 2);
    assert_exit(&api.run(&["allow", "remove", "0811", "--incident", "1"]), 2);
}

#[test]
fn list_cut_by_its_limit_says_so() {
    let answer = |request: Request| async move {
        let query = request.uri().query().unwrap();
        let limit: u64 = query.split("limit=").nth(1).unwrap().parse().unwrap();
        lines((0..limit.min(3)).map(|id| Call {
            id,
            time: Timestamp::UNIX_EPOCH,
            caller: None,
            trunk: None,
            source: "192.0.2.1:5060".into(),
            call_id: Some("a\u{1b}[2Jb".into()),
            identity: None,
            verdict: "pass".into(),
            policy_verdict: "pass".into(),
            reason: "no-user".into(),
            rule: 0,
            repeats: 0,
            attempts: 1,
            unread: None,
            reply: None,
        }))
    };
    let api = Api::new(Router::new().route("/v1/calls", get(answer)));
    let (out, err) = assert_exit(&api.run(&["calls", "--limit", "2", "-o", "raw"]), 0);
    assert_eq!(out.lines().count(), 2);
    assert!(err.starts_with("palang: there are more than 2 calls"), "{err}");
    let (out, err) = assert_exit(&api.run(&["calls", "--limit", "3"]), 0);
    assert!(out.ends_with("\n3 calls\n") && !out.contains('\u{1b}'), "{out}");
    assert_eq!(err, "");
}

#[test]
fn detach_without_a_name_detaches_every_interface() {
    let off = |Segment(name): Segment<String>| async move {
        if name == "ens3" {
            let message = "ens3: the link is held by another".into();
            let problem = Problem { kind: ProblemKind::Failed, message };
            return Err((StatusCode::INTERNAL_SERVER_ERROR, Json(problem)));
        }
        Ok(Json(interface(&name, None)))
    };
    let api = Api::new(
        Router::new()
            .route("/v1/status", get(|| async { Json(status()) }))
            .route("/v1/interfaces/{name}", delete(off)),
    );
    let (out, err) = assert_exit(&api.run(&["detach"]), 6);
    assert_eq!(out, "detached from ens1\nin force: ens1: no filter\n");
    assert_eq!(err, "palang: ens3: the link is held by another\n");
}

#[test]
fn verify_of_an_altered_audit_fails() {
    let answer = |request: Request| async move {
        let bad = request.uri().query().map(|query| {
            assert_eq!(query, "head=17%3Aab");
            17
        });
        Json(AuditVerdict { rows: 20, first_bad: bad, head: "20:cd".into() })
    };
    let api = Api::new(Router::new().route("/v1/audit/verify", get(answer)));
    let (out, _) = assert_exit(&api.run(&["audit", "verify"]), 0);
    assert_eq!(out, "20 rows: nothing was altered\nhead 20:cd\n");
    let (out, err) = assert_exit(&api.run(&["audit", "verify", "--head", "17:ab"]), 1);
    assert_eq!(out, "head 20:cd\n");
    assert_eq!(
        err,
        "palang: the audit was altered: the chain breaks at row 17; do not trust it from there on\n"
    );
}
