//! `palang config` and `palang doctor` as a person meets them: output, messages, exit codes.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod common;

use std::process::{Command, Output};

use serde_json::Value;

use common::{temporary, text};

fn palang(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_palang")).args(arguments).output().unwrap()
}

#[test]
fn config_check_shows_what_a_configuration_means() {
    let file = temporary(
        "meaning.toml",
        "interfaces = [\"eth0\", \"eth1\"]\nprotected = [\"112\", \"+62431*\"]\n\
         [[trunk]]\nname = \"telkom\"\nsources = [\"10.1.0.0/16\"]\nmode = \"observe\"\n\
         [retention]\ncalls = \"36h\"\n[api]\ncheck_listen = \"127.0.0.1:9112\"\n",
    );
    let output = palang(&["config", "check", file.to_str().unwrap()]);
    let told = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(told.starts_with(&format!("ok: {}\n", file.display())), "{told}");
    for line in [
        "reads SIP on UDP port 5060 of eth0, eth1",
        "attaches native: in the driver, or not at all",
        "country code of the numbers: 62; trunks: telkom",
        "answers refused calls: telkom 600",
        "never refused: 112, +62431*, numbers of fewer than 5 digits, placeholders of withheld numbers",
        "never in force: blocks against prefixes of fewer than 5 digits",
        "room for 1000000 blocked numbers",
        "call records are kept for 36h, while the store takes at most 10 GiB, or 20 % of the free space \
         where that is less",
        "refusals with a record of their own in a second: 5 of a number, 100 of a trunk",
        "/run/palang/palang.sock is for group palang",
        "anyone on this machine may check numbers at 127.0.0.1:9112",
        "only observes, in every mode: telkom",
    ] {
        assert!(told.contains(&format!("\n  {line}\n")), "{told:?} lacks {line:?}");
    }
}

#[test]
fn config_without_a_file_is_the_one_of_the_environment() {
    let file = temporary("environment.toml", "interfaces = [\"eth7\"]\n");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_palang"));
        command.args(arguments).env("PALANG_CONFIG", &file).output().unwrap()
    };
    for command in ["check", "show"] {
        let output = run(&["config", command]);
        assert!(output.status.success() && text(&output.stdout).contains("eth7"), "{output:?}");
    }
    // A file that is named comes first.
    let output = run(&["config", "check", "/does/not/exist.toml"]);
    assert!(text(&output.stderr).contains("cannot read /does/not/exist.toml: "));
}

#[test]
fn config_check_of_a_wrong_configuration_is_exit_2() {
    let file = temporary("wrong.toml", "interfaces = []\nmode = \"enforce\"\n");
    for command in ["check", "show"] {
        let output = palang(&["config", command, file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        let error = text(&output.stderr);
        assert!(error.contains("wrong.toml:2:1: mode is not part of the configuration"), "{error}");
    }
    let output = palang(&["config", "check", "/does/not/exist.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("cannot read /does/not/exist.toml: "));
}

#[test]
fn config_show_fills_in_omitted_keys() {
    let file = temporary("short.toml", "interfaces = [] # nothing yet\n");
    let show = |format| {
        let output = palang(&["config", "show", file.to_str().unwrap(), "-o", format]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(show("raw"), "interfaces = [] # nothing yet\n");
    let json: Value = serde_json::from_str(&show("json")).unwrap();
    let toml: Value = toml::from_str(&show("table")).unwrap();
    assert_eq!(json, toml);
    assert_eq!(json["limits"]["blocks"], 1_000_000);
    assert_eq!(json["retention"]["calls"], "90d");
    assert_eq!(json["default"]["formats"], serde_json::json!(["e164", "national"]));
    assert_eq!(json["roles"]["operate"], serde_json::json!(["palang-operate"]));
    // The output is a configuration, and its own output is equal.
    let again = temporary("again.toml", show("table"));
    let output = palang(&["config", "show", again.to_str().unwrap()]);
    assert_eq!(text(&output.stdout), show("table"));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn doctor_shows_the_same_in_its_three_formats() {
    let file = temporary("doctor.toml", "interfaces = [\"lo\", \"no-such-one\"]\n");
    let doctor = |format| palang(&["doctor", "--config", file.to_str().unwrap(), "-o", format]);
    let json: Vec<Value> = text(&doctor("json").stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let raw = text(&doctor("raw").stdout);
    assert_eq!(raw.lines().count(), json.len());
    for (line, check) in raw.lines().zip(&json) {
        let fields: Vec<_> = line.split('\t').collect();
        let word = |name: &str| check[name].as_str().unwrap_or("-").to_owned();
        assert_eq!(fields[..3], [word("state"), word("check"), word("interface")]);
        assert_eq!(fields[4], word("mend"));
        assert_eq!(check["mend"].is_null(), check["state"] == "ok");
    }
    let state = |check: &str, interface: Value| {
        let of = |found: &&Value| found["check"] == check && found["interface"] == interface;
        json.iter().find(of).unwrap()["state"].as_str().unwrap().to_owned()
    };
    for check in ["config", "kernel", "btf", "capabilities", "program", "bpffs"] {
        assert_eq!(state(check, Value::Null), "ok", "{check}");
    }
    assert_eq!(state("link", "lo".into()), "ok");
    assert_eq!(state("link", "no-such-one".into()), "fail");

    let table = doctor("table");
    assert_eq!(table.status.code(), Some(1));
    let fails = json.iter().filter(|check| check["state"] == "fail").count();
    let error = text(&table.stderr);
    assert!(error.contains(&format!("{fails} check")) && error.contains("failed"), "{error}");
    let table = text(&table.stdout);
    assert!(table.contains("no-such-one link"), "{table}");
    assert!(table.contains(&format!("warn, {fails} fail\n")), "{table}");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn doctor_goes_on_without_a_configuration() {
    let output = palang(&["doctor", "--config", "/does/not/exist.toml", "-o", "raw"]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stdout);
    assert!(told.starts_with("fail\tconfig\t-\tcannot read /does/not/exist.toml: "), "{told}");
    assert!(told.contains("\nok\tprogram\t"), "{told}");
}
