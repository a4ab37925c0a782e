//! Permissions: other users of the machine on the daemon's socket.
//!
//! The users are those that every Linux has; nothing of the machine is changed.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::{Group, User};
use palang::api::wire::{AuditRow, Block, Call};
use palang_tests::lab::run::{Output, copy_program, run};
use palang_tests::lab::{Daemon, Lab};

use crate::socket::{ask, connect, request, until};
use crate::users::{GROUP, OPERATOR, READER, as_user};

/// May report calls, and read.
const REPORTER: &str = "games";
const ADMIN: &str = "mail";
/// In the socket's group, and without a role.
const NOBODY: &str = "lp";
/// May not even open the socket.
const STRANGER: &str = "nobody";

const NUMBER: &str = "+6281234567890";

fn user(name: &str) -> User {
    User::from_name(name).expect("the users").unwrap_or_else(|| panic!("there is no user {name}"))
}

fn group_of(name: &str) -> String {
    let group = Group::from_gid(user(name).gid).expect("the groups");
    group.unwrap_or_else(|| panic!("{name} has no group")).name
}

/// A daemon, and a CLI that everybody may run.
struct House<'a> {
    daemon: Daemon<'a>,
    program: PathBuf,
}

impl<'a> House<'a> {
    fn new(lab: &'a Lab) -> House<'a> {
        let config = format!(
            "[api]\ngroup = {GROUP:?}\n[roles]\nread = [{:?}]\nreport = [{:?}]\noperate = [{:?}]\n\
             admin = [{:?}]",
            group_of(READER),
            group_of(REPORTER),
            group_of(OPERATOR),
            group_of(ADMIN),
        );
        let daemon = Daemon::start(lab, &config);
        let program = daemon.folder().join("palang");
        let built = daemon.command_by(&["setpriv"], &[]);
        // nsenter's namespace, setpriv, the program.
        let built = built.get_args().nth(2).expect("the program").to_owned();
        copy_program(built.as_ref(), &program);
        for path in [daemon.folder(), &daemon.runtime()] {
            fs::set_permissions(path, Permissions::from_mode(0o755)).expect("chmod");
        }
        House { daemon, program }
    }

    /// Runs `palang ARGUMENTS` as another user.
    fn by(&self, name: &str, arguments: &[&str]) -> Output {
        let user = user(name);
        let group = Group::from_name(GROUP).expect("the groups").expect(GROUP).gid;
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid));
        command.arg(match name {
            STRANGER => "--clear-groups".to_owned(),
            _ => format!("--groups={group}"),
        });
        command.arg(&self.program);
        command.arg("--socket").arg(self.daemon.runtime().join("palang.sock")).args(arguments);
        run(&mut command)
    }

    fn may(&self, name: &str, arguments: &[&str]) -> String {
        let output = self.by(name, arguments);
        assert_eq!(output.code, 0, "{name}: {arguments:?}: {}", output.stderr);
        output.stdout
    }

    /// Asserts exit code 5, with these words.
    fn may_not(&self, name: &str, arguments: &[&str], words: &[&str]) {
        let output = self.by(name, arguments);
        assert_eq!(output.code, 5, "{name}: {arguments:?}: {}{}", output.stdout, output.stderr);
        for word in words {
            assert!(output.stderr.contains(word), "{name}: {arguments:?}: {}", output.stderr);
        }
        assert_eq!(output.stdout, "", "{name}: {arguments:?}");
    }
}

const BLOCK: [&str; 8] =
    ["block", "add", NUMBER, "--for", "1h", "--reason", "prank, case 118", "--output=json"];
const REPORT: [&str; 6] = ["report", "add", NUMBER, "--kind", "prank", "--call-id=x"];
const ERASE: [&str; 5] = ["erase", "--number", NUMBER, "--reason", "a letter"];
const EVERYTHING: [&[&str]; 17] = [
    &["status"],
    &["block", "list"],
    &["block", "show", NUMBER],
    &["allow", "list"],
    &["override", "status"],
    &["mode"],
    &["check", NUMBER],
    &["explain", NUMBER],
    &["calls"],
    &["calls", "show", "1"],
    &["calls", "export"],
    &["report", "list"],
    &["review", "list"],
    &["audit", "list"],
    &["audit", "verify"],
    &["export", "--number", NUMBER],
    &["config", "show"],
];

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn user_outside_the_group_is_refused_with_the_name_of_the_group() {
    let lab = Lab::new("stranger");
    let house = House::new(&lab);
    let socket = house.daemon.runtime().join("palang.sock").metadata().expect("the socket");
    assert_eq!(socket.mode() & 0o777, 0o660);
    let sys = Group::from_name(GROUP).expect("the groups").expect(GROUP);
    assert_eq!((socket.uid(), socket.gid()), (0, sys.gid.as_raw()));
    for arguments in EVERYTHING.iter().filter(|arguments| arguments[0] != "config") {
        house.may_not(STRANGER, arguments, &["permission", &format!("the group {GROUP}")]);
    }
    house.may_not(STRANGER, &BLOCK, &[GROUP]);
    house.may_not(STRANGER, &["override", "on", "--for", "1h", "--reason", "a test"], &[GROUP]);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn user_without_a_role_is_refused_on_the_socket() {
    let lab = Lab::new("no-role");
    let house = House::new(&lab);
    for arguments in EVERYTHING.iter().filter(|arguments| arguments[0] != "config") {
        house.may_not(NOBODY, arguments, &["lp", "needs the role", "[roles]"]);
    }
    house.may_not(NOBODY, &BLOCK, &["role operate"]);
    house.may_not(NOBODY, &REPORT, &["role report"]);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn reporter_reports_and_changes_no_block_or_allow() {
    let lab = Lab::new("reporter");
    let house = House::new(&lab);
    let json = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&house.may(REPORTER, &[arguments, &["-o", "json"]].concat()))
            .expect("JSON")
    };
    let told = json(&REPORT);
    assert_eq!(told["report"]["author"], REPORTER);
    assert_eq!((&told["report"]["strike"], &told["review"]), (&false.into(), &1.into()));
    // Its number is seen by nobody who does not say it.
    for list in ["report", "review"] {
        assert_eq!(json(&[list, "list"])["number"], "6281*******90", "{list}");
    }
    let number = json(&["report", "list", NUMBER])["number"].clone();
    assert_eq!(number, "6281*******90");
    house.may_not(READER, &REPORT, &["daemon needs the role report"]);
    for arguments in [
        &BLOCK[..],
        &["review", "close", "1", "--note", "a test"],
        &["review", "extend", "1", "--for", "7d"],
        &["review", "free", "1", "--note", "a test"],
        &["allow", "add", NUMBER],
        &["explain", NUMBER],
    ] {
        house.may_not(REPORTER, arguments, &["games needs the role operate"]);
    }
    assert!(house.may(OPERATOR, &["report", "list", "-o", "raw"]).contains("\t6281234567890\t"));
    house.may(OPERATOR, &REPORT);
    house.may(OPERATOR, &["review", "close", "1", "--note", "a test"]);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn reader_sees_masked_numbers_and_changes_nothing() {
    let lab = Lab::new("reader");
    let house = House::new(&lab);
    house.may(OPERATOR, &BLOCK);
    house.may(ADMIN, &["block", "add", "+62431*", "--for", "1h", "--reason", "a test"]);
    house.may(OPERATOR, &["allow", "add", "0811-2345-6789"]);
    house.may(OPERATOR, &REPORT);
    let receiver = lab.receiver(5060);
    let record = lab.traffic(&receiver, &[NUMBER], 5_000, 1).finish();
    assert_eq!(record.invites.len(), 1);

    let all = house.may(READER, &["block", "list", "-o", "json"]);
    let numbers: Vec<_> = all
        .lines()
        .map(|line| serde_json::from_str::<Block>(line).expect("a block").number)
        .collect();
    assert_eq!(numbers, ["6281*******90", "6*****"]);
    let call = until("the call's record", || {
        let calls = house.may(READER, &["calls", "-o", "json"]);
        calls.lines().next().map(|line| serde_json::from_str::<Call>(line).expect("a call"))
    });
    assert_eq!(call.caller.as_deref(), Some("6281*******90"));
    for arguments in EVERYTHING {
        let is_whole = ["explain", "audit", "export"].contains(&arguments[0])
            && arguments[1] != "verify"
            || arguments.starts_with(&["calls", "show"]);
        if is_whole {
            house.may_not(READER, arguments, &["daemon needs the role operate"]);
            continue;
        }
        // A user who may ask for each number finds the masked ones.
        if arguments[0] == "check" || arguments.starts_with(&["block", "show"]) {
            house.may_not(READER, arguments, &["daemon needs the role report"]);
            continue;
        }
        if arguments[0] == "config" {
            continue;
        }
        for format in ["table", "json", "raw"] {
            let output = house.by(READER, &[arguments, &["-o", format]].concat());
            assert_eq!(output.code, 0, "{arguments:?}: {}", output.stderr);
            assert!(!output.stdout.contains("7890"), "{arguments:?}: {}", output.stdout);
            assert!(!output.stdout.contains("62811234567"), "{arguments:?}: {}", output.stdout);
        }
    }
    for arguments in [["calls", "--caller", NUMBER], ["report", "list", NUMBER]] {
        house.may_not(READER, &arguments, &["daemon needs the role report"]);
    }
    for arguments in [&["check", NUMBER][..], &["block", "show", NUMBER]] {
        let output = house.by(REPORTER, arguments);
        assert!([0, 10].contains(&output.code), "{arguments:?}: {}", output.stderr);
    }
    let written = std::env::temp_dir().join(format!("palang-test-{}.pcapng", std::process::id()));
    let write = ["monitor", "--write", written.to_str().expect("a path of letters")];
    house.may_not(READER, &write, &["daemon needs the role operate"]);
    assert!(!written.exists(), "nothing came of it");
    let before = house.may(OPERATOR, &["audit", "list", "-o", "json"]);
    let backup = house.daemon.state().join("copy.db").display().to_string();
    for arguments in [
        &BLOCK[..],
        &["block", "add", "+62812*", "--for", "1h", "--reason", "a test", "--dry-run"],
        &["block", "remove", NUMBER],
        &["allow", "add", NUMBER],
        &["allow", "remove", "0811-2345-6789"],
        &["override", "on", "--for", "1h", "--reason", "a test"],
        &["override", "off"],
    ] {
        house.may_not(READER, arguments, &["daemon needs the role operate"]);
    }
    for arguments in [
        &["mode", "observe"][..],
        &["mode", "enforce", "--for", "1h"],
        &["attach", "gate0"],
        &["detach", "gate0"],
        &["store", "backup", &backup],
        &ERASE,
    ] {
        house.may_not(READER, arguments, &["daemon needs the role admin"]);
    }
    assert_eq!(house.may(OPERATOR, &["audit", "list", "-o", "json"]), before);
}

// The configuration has numbers, too, and its comments may have.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn reader_sees_a_configuration_with_masked_numbers() {
    let lab = Lab::new("masked-config");
    let house = House::new(&lab);
    let protected =
        "protected = [\"+6281234567890\", { number = \"+62431555123\", name = \"RSUP\" }]";
    let roles = fs::read_to_string(house.daemon.config_file()).expect("the configuration");
    let text = format!("# not 0812-9999-1111\n{protected}\n{roles}");
    fs::write(house.daemon.config_file(), &text).expect("written");
    house.daemon.signal("HUP");
    let config = |user: &str| -> palang::api::wire::ConfigInForce {
        let mut stream = as_user(user, || connect(&house.daemon));
        request(&mut stream, "GET", "/v1/config", "").json()
    };
    until("the reload", || (config(OPERATOR).text == text).then_some(()));
    assert!(!config(OPERATOR).masked);
    for user in [READER, REPORTER] {
        let shown = config(user);
        assert!(shown.masked);
        for hidden in ["1234567890", "555123", "9999"] {
            assert!(!shown.text.contains(hidden), "{user}: {}", shown.text);
        }
        for there in ["+6281*******90", "RSUP", "gate0"] {
            assert!(shown.text.contains(there), "{user}: {}", shown.text);
        }
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn operator_blocks_for_a_time_and_may_do_no_more() {
    let lab = Lab::new("operator");
    let house = House::new(&lab);
    house.may(OPERATOR, &BLOCK);
    let shown = house.may(OPERATOR, &["block", "list", "-o", "raw"]);
    assert!(shown.starts_with("6281234567890\t"), "{shown}");
    house.may(OPERATOR, &["explain", NUMBER]);
    let held = house.may(OPERATOR, &["export", "--number", NUMBER, "-o", "json"]);
    assert!(held.contains("\"number\":\"6281234567890\""), "{held}");
    house.may_not(OPERATOR, &ERASE, &["bin needs the role admin"]);
    house.may(OPERATOR, &["allow", "add", "0811-2345-6789", "--for", "1h"]);
    house.may(OPERATOR, &["allow", "remove", "0811-2345-6789"]);
    house.may(OPERATOR, &["override", "on", "--for", "1h", "--reason", "flood"]);
    house.may(OPERATOR, &["override", "off"]);
    let add = |number, end: &[&'static str]| {
        [&["block", "add", number], end, &["--reason", "a test"]].concat()
    };
    for (number, end, why) in [
        (NUMBER, &["--permanent"][..], "a permanent block needs the role admin"),
        (NUMBER, &["--for", "31d"], "a block of more than 30d needs the role admin"),
        (
            NUMBER,
            &["--until", "9999-12-30T00:00:00Z"],
            "a block of more than 30d needs the role admin",
        ),
        ("+6281234*", &["--for", "1h"], "a prefix of fewer than 8 digits needs the role admin"),
    ] {
        house.may_not(OPERATOR, &add(number, end), &[why]);
    }
    house.may(OPERATOR, &add("+62812345*", &["--for", "30d"]));
    house.may(OPERATOR, &["block", "remove", "+62812345*"]);
    house.may_not(OPERATOR, &["mode", "enforce"], &["bin needs the role admin"]);
    house.may_not(OPERATOR, &["detach", "gate0"], &["bin needs the role admin"]);
    // Nor through a file.
    let file = house.daemon.folder().join("permanent.csv");
    let rows = format!(
        "number,expires,reason\n{NUMBER},permanent,a list\n0812-0000-0001,2999-01-01T00:00:00Z,a list\n\
         +6281299*,,a list\n"
    );
    fs::write(&file, rows).expect("written");
    let file = file.display().to_string();
    let output = house.by(OPERATOR, &["block", "import", &file, "--for", "1d"]);
    assert_eq!(output.code, 5, "{}{}", output.stdout, output.stderr);
    for why in ["line 2: a permanent block", "line 3: a block of more", "line 4: a prefix of fewer"]
    {
        assert!(output.stderr.contains(why), "{}", output.stderr);
    }
    let block: Block = ask(&house.daemon, "GET", "/v1/blocks/+6281234567890", "").json();
    assert!(block.expires.is_some());
    assert_eq!((&*block.author, &*block.reason), ("bin", "prank, case 118"));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn admin_may_do_all_and_the_audit_names_everybody() {
    let lab = Lab::new("admin");
    let house = House::new(&lab);
    house.may(OPERATOR, &BLOCK);
    let file = house.daemon.folder().join("blocks.csv");
    let rows = "number,expires,reason,author,origin\n0812-0000-0001,permanent,a list,siti,case 7\n";
    fs::write(&file, rows).expect("written");
    house.may(ADMIN, &["block", "import", &file.display().to_string()]);
    house.may(ADMIN, &["block", "add", NUMBER, "--permanent", "--reason", "every night"]);
    house.may(ADMIN, &["mode", "enforce", "--for", "1h"]);
    house.may(ADMIN, &["detach", "gate0"]);
    house.may(ADMIN, &["attach", "gate0"]);
    let copy = house.daemon.state().join("copy.db");
    house.may(ADMIN, &["store", "backup", &copy.display().to_string()]);
    assert!(copy.exists());
    house.may_not(ADMIN, &ERASE, &["palang block remove 6281234567890"]);
    house.may(ADMIN, &["block", "remove", NUMBER]);
    house.may(ADMIN, &ERASE);
    let root = house.daemon.cli(&["mode", "observe"]);
    assert_eq!(root.code, 0, "{}", root.stderr);

    let rows = house.may(ADMIN, &["audit", "list", "-o", "json"]);
    let authors: Vec<_> = rows
        .lines()
        .map(|line| {
            let row: AuditRow = serde_json::from_str(line).expect("a row");
            let record: serde_json::Value = serde_json::from_str(&row.record).expect("JSON");
            let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
            format!("{} {}", text("author"), text("action"))
        })
        .collect();
    assert_eq!(
        authors,
        [
            "bin block add",
            "mail block add",
            "mail block move",
            "mail mode enforce",
            "mail detach",
            "mail attach",
            "mail block remove",
            "mail erase",
            "root mode observe",
        ]
    );
    // The author of a block and the user who imported it differ.
    let block: Block = ask(&house.daemon, "GET", "/v1/blocks/+6281200000001", "").json();
    assert_eq!((&*block.author, &*block.origin), ("siti", "case 7"));
}
