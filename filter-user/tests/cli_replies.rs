//! `palang replay` shows and writes the replies to refused calls.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod common;

use std::process::{Command, Output};

use serde_json::Value;

use common::{temporary, text};

/// A scan whose first INVITE is of the caller 100.
const SCAN: &str = "/../tests/fixtures/pcaps/ipfixprobe__sip.pcap";

fn replay(options: &[&str]) -> Output {
    let capture = format!("{}{SCAN}", env!("CARGO_MANIFEST_DIR"));
    Command::new(env!("CARGO_BIN_EXE_palang"))
        .args(["replay", &capture])
        .args(options)
        .output()
        .unwrap()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn replies_of_a_trunk_are_shown_and_written() {
    let policy = "[[trunk]]\nname = \"carrier\"\nsources = [\"147.32.77.113\"]\nrefuse = \"486\"\n";
    let policy = temporary("replies.toml", policy);
    let policy = policy.to_str().unwrap();
    let file = temporary("replies.pcap", "");
    std::fs::remove_file(&file).unwrap();
    let options = ["--policy", policy, "--block", "100", "--write-replies", file.to_str().unwrap()];
    let lines = text(&replay(&[&options[..], &["-o", "json"]].concat()).stdout);
    let records: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    if records[0]["reply"].is_null() {
        // This kernel answers no call.
        assert!(!palang::datapath::Features::probe().unwrap().replies);
        return;
    }
    assert_eq!(records[0]["reply"], 486);
    let message = records[0]["reply_message"].as_str().unwrap();
    assert!(message.starts_with("SIP/2.0 486 Busy Here\r\n"), "{message}");
    let answered = records.iter().filter(|record| record["reply"] == 486).count();
    assert!(answered > 0);

    // tshark checks both checksums.
    let mut tshark = Command::new("tshark");
    tshark.args(["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-T", "fields"]);
    tshark.args(["-e", "sip.Status-Code", "-e", "ip.checksum.status", "-e", "udp.checksum.status"]);
    let read = tshark.args(["-e", "_ws.malformed", "-r"]).arg(&file).output().unwrap();
    let said = text(&read.stdout);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines, vec!["486\t1\t1\t"; answered], "{}", text(&read.stderr));

    let again = replay(&options);
    assert_eq!(again.status.code(), Some(2), "{}", text(&again.stderr));
    assert!(text(&again.stderr).contains("already exists"), "{}", text(&again.stderr));
    let silent = text(&replay(&["--block", "100", "--replies"]).stdout);
    assert!(silent.contains("no call got a reply: only trunks"), "{silent}");
    let table = replay(&[&options[..4], &["--replies"]].concat());
    let table = text(&table.stdout);
    assert!(table.contains("blocked-number, answered 486 (block 100)"), "{table}");
    assert!(table.contains("reply to frame 1:\n  SIP/2.0 486 Busy Here\n"), "{table}");
}
