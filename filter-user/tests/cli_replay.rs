//! `palang replay` as a person meets it: output, messages, exit codes.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod common;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use common::{temporary, text};

/// Nine INVITEs of 100, three of them to port 5060.
const SCAN: &str = "ipfixprobe__sip.pcap";
/// Three INVITEs of 2502.
const CALL: &str = "wswiki__SIP_DTMF2.cap";

fn capture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/pcaps").join(name)
}

fn replay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_palang")).arg("replay").args(arguments).output().unwrap()
}

fn replay_of(name: &str, arguments: &[&str]) -> Output {
    let path = capture(name);
    let mut all = vec![path.to_str().unwrap()];
    all.extend_from_slice(arguments);
    replay(&all)
}

#[track_caller]
fn assert_fails(output: &Output, exit: i32, message: &str) {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{error}");
    assert!(error.contains(message), "{error:?} lacks {message:?}");
}

/// Records and summary of a JSON replay.
fn json(output: &Output) -> (Vec<Value>, Value) {
    let mut lines: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = lines.pop().unwrap()["summary"].clone();
    assert!(summary.is_object());
    (lines, summary)
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn json_is_a_contract() {
    let output = replay_of(SCAN, &["-o", "json", "--block", "100"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let (records, summary) = json(&output);
    let first = serde_json::json!({
        "file": capture(SCAN).to_str().unwrap(), "frame": 1, "time": records[0]["time"],
        "src": "147.32.77.113:5060", "dst": "195.113.172.38:5060", "method": "INVITE", "reply": null,
        "call_id": records[0]["call_id"], "initial": true, "transport": "udp", "tunnel": null,
        "trunk": "default", "to_tag": false, "caller": "100", "identity": "from", "reply_message": null,
        "attempt_identity": null,
        "verdict": "drop", "policy_verdict": null, "rule": "block 100", "reason": "blocked-number",
    });
    assert_eq!(records[0], first);
    assert!(records[0]["call_id"].as_str().unwrap().len() > 5);
    assert!(records[0]["time"].as_str().unwrap().ends_with('Z'));
    assert_eq!(summary["frames"], 50);
    assert_eq!(summary["invites"], 9);
    assert_eq!(summary["verdicts"], serde_json::json!({"drop": 3, "pass": 6}));
    assert_eq!(summary["reasons"], serde_json::json!({"blocked-number": 3, "other-port": 6}));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn who_is_not_blocked_is_not_refused() {
    let output = replay_of(CALL, &["-o", "json", "--block", "250", "--block", "25020"]);
    let (records, _) = json(&output);
    assert_eq!(records.len(), 3);
    assert!(records.iter().all(|record| record["verdict"] == "pass"));
    let output = replay_of(CALL, &["-o", "json", "--block", "2502", "--allow", "2502"]);
    assert!(json(&output).0.iter().all(|record| record["reason"] == "allowed-number"));
}

/// INVITEs in two fragments: file, plan and caller (`tests/fixtures/trunks/README.md`).
const FRAGMENTED: [(&str, [&str; 3], &str); 4] = [
    ("ims-nni-long.pcap", ["62", "0", "00"], "6281234567890"),
    ("pkts-fragmented.pcap", ["62", "0", "00"], "6281234567890"),
    ("sos-ecscf-mavenir-mtu1500.pcap", ["55", "0", "00"], "5573995550104"),
    ("stir-two-identities.pcap", ["61", "0", "0011"], "61755502157"),
];

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn fragments_are_put_together_and_judged_as_one_call() {
    for (name, [country, trunk, international], caller) in FRAGMENTED {
        let name = format!("../trunks/{name}");
        let records = |block: &str| {
            let plan = ["--country-code", country, "--trunk-prefix", trunk];
            let more = ["--international-prefix", international, "--block", block, "-o", "json"];
            let output = replay_of(&name, &[plan.as_slice(), &more].concat());
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            json(&output)
        };
        let (refused, summary) = records(&format!("+{caller}"));
        assert_eq!(refused.len(), 1, "{name}: {refused:?}");
        let shown =
            ["caller", "verdict", "reason", "initial"].map(|field| refused[0][field].clone());
        assert_eq!(
            shown,
            [caller.into(), "drop".into(), "blocked-number".into(), Value::from(true)]
        );
        assert_eq!((&refused[0]["frame"], &summary["frames"]), (&2.into(), &2.into()), "{name}");
        assert_eq!(summary["invites"], 1, "{name}");
        let (passed, _) = records("+6281111111111");
        assert_eq!(
            (&passed[0]["reason"], &passed[0]["caller"]),
            (&"not-blocked".into(), &caller.into())
        );
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn configuration_of_the_daemon_names_ports_and_identity() {
    let config = temporary("palang.toml", b"interfaces = [\"eth0\"]\nports = [5061]\n");
    let config = config.to_str().unwrap();
    let output = replay_of(SCAN, &["-o", "json", "--config", config, "--block", "100"]);
    let (records, _) = json(&output);
    let ports = |verdict: &str| -> Vec<_> {
        let of = records.iter().filter(|record| record["verdict"] == verdict);
        of.map(|record| record["dst"].as_str().unwrap().rsplit(':').next().unwrap()).collect()
    };
    assert_eq!(ports("drop"), [""; 0], "no INVITE goes to this port");
    assert_eq!(ports("pass").len(), 9);
    let output = replay_of(SCAN, &["--config", config, "--policy", config]);
    assert_fails(&output, 2, "cannot be used with");

    let output = replay_of(SCAN, &["-o", "json", "--identity", "pai", "--format", "bare-national"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn frames_of_other_interfaces_in_a_pcapng_are_skipped_and_counted() {
    let block = |kind: u32, body: &[u8]| {
        let length = (12 + body.len() as u32).to_le_bytes();
        [&kind.to_le_bytes()[..], &length, body, &length].concat()
    };
    let section = [&0x1A2B_3C4D_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xFF; 8]].concat();
    let interface = |link: u16| [&link.to_le_bytes()[..], &[0, 0, 0, 0, 0, 0]].concat();
    let packet = |interface: u32, frame: &[u8]| {
        let len = (frame.len() as u32).to_le_bytes();
        let mut body = [&interface.to_le_bytes()[..], &[0; 8], &len, &len, frame].concat();
        body.resize(body.len().next_multiple_of(4), 0);
        block(6, &body)
    };
    // Ethernet and USB (`LINKTYPE_USB_LINUX`, 189).
    let head = [block(0x0A0D_0D0A, &section), block(1, &interface(1)), block(1, &interface(189))];
    let frames = [packet(1, &[0; 64]), packet(0, &invite("SIP/2.0")), packet(1, &[0; 64])];
    let mixed = temporary("mixed.pcapng", [head.concat(), frames.concat()].concat());
    let output = replay(&[mixed.to_str().unwrap(), "-o", "json"]);
    let (records, summary) = json(&output);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!((records.len(), &summary["foreign"]), (1, &serde_json::json!({"189": 2})));
    let table = replay(&[mixed.to_str().unwrap()]);
    assert!(text(&table.stdout).contains("2 frames of link type 189 not judged"), "{table:?}");

    let only = [head.concat(), packet(1, &[0; 64])].concat();
    let only = temporary("usb.pcapng", &only);
    assert_fails(&replay(&[only.to_str().unwrap()]), 1, "link type 189");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn packet_in_a_tunnel_is_judged_with_decap_and_counted_without() {
    let name = "../tunnels/tunnels.pcap";
    let output = replay_of(name, &["--decap", "--block", "+6281234567890", "-o", "json"]);
    let (records, summary) = json(&output);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(summary["verdicts"], serde_json::json!({"drop": 22}), "{records:?}");
    assert_eq!(records[11]["tunnel"], "VXLAN");
    assert!(summary.get("tunnelled").is_none());

    let output = replay_of(name, &["--block", "+6281234567890", "-o", "json"]);
    let (records, summary) = json(&output);
    assert_eq!((records.len(), &summary["tunnelled"]["GTP-U"]), (1, &1.into()));
    let table = text(&replay_of(name, &[]).stdout);
    assert!(table.contains("21 INVITEs in tunnels not judged"), "{table}");
    assert!(table.contains("add --decap"), "{table}");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn every_packet_is_judged_as_one_of_the_trunk_that_is_named() {
    let config = "interfaces = [\"eth0\"]\n[limits]\nshortest_number = 4\n[[trunk]]\nname = \"east\"\nsources = [\"203.0.113.7\"]\n\
        [[trunk]]\nname = \"short\"\nsources = [\"203.0.113.8\"]\nformats = [\"own-e164\"]\nshort_number_digits = 2\n";
    let config = temporary("assumed.toml", config.as_bytes());
    let judged = |arguments: &[&str]| {
        let config = ["--config", config.to_str().unwrap(), "--port", "5060", "-o", "json"];
        let (records, _) = json(&replay_of(CALL, &[arguments, &config].concat()));
        let of = |name: &str| records[0][name].as_str().unwrap_or("-").to_owned();
        (of("trunk"), of("reason"))
    };
    let pair = |trunk: &str, reason: &str| (trunk.to_owned(), reason.to_owned());
    assert_eq!(judged(&[]), pair("-", "unknown-trunk"));
    assert_eq!(judged(&["--trunk", "east"]), pair("east", "not-blocked"));
    assert_eq!(judged(&["--trunk", "east", "--block", "2502"]), pair("east", "blocked-number"));
    assert_eq!(judged(&["--trunk", "short"]), pair("short", "ambiguous-number"));
    assert_eq!(judged(&["--trunk", "default"]), pair("default", "not-blocked"));
    let config = config.to_str().unwrap();
    let output = replay_of(CALL, &["--config", config, "--trunk", "west"]);
    assert_fails(&output, 2, "write one of default, east, short");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn observing_tells_what_it_would() {
    let output = replay_of(CALL, &["-o", "json", "--block", "2502", "--mode", "observe"]);
    for record in json(&output).0 {
        assert_eq!(
            (&record["verdict"], &record["policy_verdict"]),
            (&"pass".into(), &"drop".into())
        );
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn all_tells_of_every_frame() {
    let (records, summary) = json(&replay_of(SCAN, &["-o", "json", "--all"]));
    assert_eq!(records.len(), 50);
    assert_eq!(summary["invites"], 9);
    assert!(records.iter().any(|record| record["reason"] == "not-udp"));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn the_table_ends_with_what_to_do() {
    let output = replay_of(SCAN, &["--block", "100"]);
    let table = text(&output.stdout);
    assert!(table.contains("blocked-number (block 100)"), "{table}");
    assert!(table.contains("9 INVITEs in 50 frames: 3 drop, 6 pass"), "{table}");
    assert!(table.contains("6 INVITEs went to UDP ports"), "{table}");
    // `--port` replaces what was read before: the advice must not lose 5060.
    assert!(table.contains("add --port 5061") && table.contains(" --port 5060"), "{table}");
    assert!(table.contains("--allow NUMBER"), "{table}");
    let raw = text(&replay_of(SCAN, &["-o", "raw"]).stdout);
    assert_eq!(raw.lines().count(), 9);
    assert!(raw.lines().all(|line| line.split('\t').count() == 10), "{raw}");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn standard_input_is_a_capture_too() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_palang"))
        .args(["replay", "-", "-o", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&std::fs::read(capture(CALL)).unwrap()).unwrap();
    let (records, _) = json(&child.wait_with_output().unwrap());
    assert_eq!(records.len(), 3);
    assert_eq!(records[0]["file"], "-");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn every_link_type_gives_the_same_verdicts() {
    let ethernet = std::fs::read(capture(CALL)).unwrap();
    assert_eq!(ethernet[20], 1, "Ethernet");
    // Link type, and the header in place of the 14 bytes of Ethernet.
    let mut cooked = [0u8; 16];
    cooked[14] = 8;
    let mut cooked2 = [0u8; 20];
    cooked2[0] = 8;
    let links: [(u32, &[u8]); 6] = [
        (113, &cooked),
        (276, &cooked2),
        (101, &[]),
        (0, &[2, 0, 0, 0]),
        (0, &[0, 0, 0, 2]),
        (12, &[]),
    ];
    for (link, header) in links {
        let mut file = ethernet[..20].to_vec();
        file.extend(link.to_le_bytes());
        let mut at = 24;
        while at < ethernet.len() {
            let length = u32::from_le_bytes(ethernet[at + 8..at + 12].try_into().unwrap()) as usize;
            let frame = &ethernet[at + 16..at + 16 + length];
            if frame[12..14] == [8, 0] {
                let length = ((length - 14 + header.len()) as u32).to_le_bytes();
                file.extend_from_slice(&ethernet[at..at + 8]);
                file.extend(length);
                file.extend(length);
                file.extend_from_slice(header);
                file.extend_from_slice(&frame[14..]);
            }
            at += 16 + length;
        }
        let path = temporary(
            &format!("link-{link}-{}", header.len() + usize::from(header.last() == Some(&2))),
            &file,
        );
        let output = replay(&[path.to_str().unwrap(), "--block", "2502", "-o", "json"]);
        std::fs::remove_file(path).unwrap();
        let (records, _) = json(&output);
        assert_eq!(records.len(), 3, "link type {link}");
        assert!(records.iter().all(|record| record["verdict"] == "drop"), "link type {link}");
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_cut_capture_is_judged_up_to_the_cut() {
    let whole = std::fs::read(capture(SCAN)).unwrap();
    let path = temporary("cut.pcap", &whole[..2_000]);
    let output = replay(&[path.to_str().unwrap(), "-o", "json"]);
    std::fs::remove_file(path).unwrap();
    assert_fails(&output, 6, "is cut off after frame");
    let (records, summary) = json(&output);
    assert!(!records.is_empty() && summary["frames"].as_u64().unwrap() < 50);
    let path = temporary("header.pcap", &whole[..20]);
    assert_fails(&replay(&[path.to_str().unwrap()]), 1, "is cut off before its first frame");
    std::fs::remove_file(path).unwrap();
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn one_bad_file_does_not_hide_the_others() {
    let good = capture(CALL);
    let output = replay(&["/does/not/exist.pcap", good.to_str().unwrap(), "-o", "json"]);
    assert_fails(&output, 6, "/does/not/exist.pcap: cannot be opened");
    assert_eq!(json(&output).0.len(), 3);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn what_is_no_capture_is_told() {
    assert_fails(&replay(&["/does/not/exist.pcap"]), 1, "cannot be opened");
    for (name, content, message) in [
        ("empty", &b""[..], "is empty"),
        ("text", &b"INVITE sip:112@x SIP/2.0\r\n\r\n"[..], "neither a pcap nor a pcapng"),
    ] {
        let path = temporary(name, content);
        assert_fails(&replay(&[path.to_str().unwrap()]), 1, message);
        std::fs::remove_file(path).unwrap();
    }
    // 802.11, which no edge server has.
    let mut other = std::fs::read(capture(CALL)).unwrap();
    other[20] = 105;
    let path = temporary("wlan.pcap", &other);
    assert_fails(&replay(&[path.to_str().unwrap()]), 1, "link type 105 (IEEE802_11)");
    std::fs::remove_file(path).unwrap();
    // Old record headers, which the crate does not know.
    assert_fails(&replay_of("gpl/ptavi-a__invite.pcap", &[]), 1, "\"modified\"");
}

/// Creates an INVITE of 6281234567890 whose request line ends with this version.
fn invite(version: &str) -> Vec<u8> {
    let message = format!(
        "INVITE sip:112@x {version}\r\nFrom: <sip:+6281234567890@x>\r\nTo: <sip:112@x>\r\n\
         Call-ID: 1\r\n\r\n"
    );
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(5060, 5060)
        .write(&mut frame, message.as_bytes())
        .unwrap();
    frame
}

/// Creates a pcap of one frame, of which `captured` bytes are in the file.
fn one_frame(name: &str, frame: &[u8], captured: usize) -> PathBuf {
    let mut file = vec![0xD4, 0xC3, 0xB2, 0xA1, 2, 0, 4, 0];
    for value in [0, 0, 65_535, 1, 1_700_000_000, 0, captured as u32, frame.len() as u32] {
        file.extend(value.to_le_bytes());
    }
    file.extend_from_slice(&frame[..captured]);
    temporary(name, &file)
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn what_is_refused_is_told_however_it_is_written() {
    for version in ["SIP/2.0", "sip/2.0"] {
        let frame = invite(version);
        let path = one_frame("version.pcap", &frame, frame.len());
        let output = replay(&[path.to_str().unwrap(), "--block", "081234567890", "-o", "json"]);
        std::fs::remove_file(path).unwrap();
        let (records, summary) = json(&output);
        assert_eq!(records[0]["verdict"], "drop", "{version}");
        assert_eq!(summary["verdicts"], serde_json::json!({"drop": 1}), "{version}");
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_call_that_cannot_be_judged_is_told_all_the_same() {
    let mut frame = invite("SIP/2.0");
    let path = one_frame("snap.pcap", &frame, 96);
    let table = text(&replay(&[path.to_str().unwrap(), "--block", "081234567890"]).stdout);
    std::fs::remove_file(path).unwrap();
    assert!(table.contains("10.0.0.1:5060") && table.contains("bad-packet"), "{table}");
    assert!(table.contains("1 packet was captured only in part"), "{table}");

    frame[39] += 4; // UDP length
    let path = one_frame("mismatch.pcap", &frame, frame.len());
    let output = replay(&[path.to_str().unwrap(), "--block", "081234567890", "-o", "json"]);
    std::fs::remove_file(path).unwrap();
    let (records, _) = json(&output);
    assert_eq!(records[0]["reason"], "length-mismatch");
    assert_eq!(records[0]["src"], "10.0.0.1:5060");
    assert_eq!(records[0]["call_id"], "1");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn nothing_read_is_told_with_what_to_do() {
    let table = text(&replay_of("goffinet__rtp-protocol.pcap", &["--port", "9"]).stdout);
    assert!(table.contains("INVITE"), "{table}");
    let mut frame = invite("SIP/2.0");
    frame[42] = b'X';
    let path = one_frame("none.pcap", &frame, frame.len());
    let table = text(&replay(&[path.to_str().unwrap()]).stdout);
    std::fs::remove_file(path).unwrap();
    assert!(table.contains("0 INVITEs in 1 frame: nothing to judge"), "{table}");
    assert!(table.contains("--all shows"), "{table}");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn of_two_rules_about_one_number_none_wins_unseen() {
    let twice = replay_of(CALL, &["--block", "2502", "--block", "2502", "-o", "json"]);
    let (records, _) = json(&twice);
    assert!(records.iter().all(|record| record["verdict"] == "drop"));
    for rule in ["observe = true\npermanent = true", "expires = 2030-01-01T00:00:00Z"] {
        let policy = format!("[[block]]\nnumber = \"2502\"\n{rule}\n");
        let path = temporary("twice.toml", policy.as_bytes());
        let output = replay_of(CALL, &["--policy", path.to_str().unwrap(), "--block", "2502"]);
        std::fs::remove_file(path).unwrap();
        assert_fails(&output, 2, "--block: the policy file has a different block for 2502");
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_wrong_argument_is_not_blamed_on_the_policy_file() {
    let path = temporary("blame.toml", b"mode = \"enforce\"\n");
    let output = replay_of(CALL, &["--policy", path.to_str().unwrap(), "--country-code", "x"]);
    std::fs::remove_file(path).unwrap();
    assert_fails(&output, 2, "palang: --country-code: \"x\"");
    let prefixes: Vec<String> = (10..27).map(|i| format!("--international-prefix=0{i}")).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    assert_fails(&replay_of(CALL, &prefixes), 2, "--international-prefix: more than 16");
}

#[test]
fn wrong_arguments_are_usage_errors() {
    assert_fails(&replay(&[]), 2, "CAPTURE");
    assert_fails(&replay_of(CALL, &["--block", "alice"]), 2, "--block: \"alice\" is not a number");
    assert_fails(
        &replay_of(CALL, &["--allow", "00812"]),
        2,
        "--allow: \"00812\" is ambiguous or not a valid number",
    );
    assert_fails(&replay_of(CALL, &["--block", "+*"]), 2, "is not a prefix");
    assert_fails(&replay_of(CALL, &["--port", "0"]), 2, "0");
    assert_fails(&replay_of(CALL, &["--country-code", "x"]), 2, "--country-code");
    assert_fails(&replay_of(CALL, &["--mode", "drop"]), 2, "enforce");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_wrong_policy_is_refused_whole_with_line_and_reason() {
    for (policy, place, message) in [
        ("mode = \"enforce\"\nblocks = []\n", ":2:1:", "unknown field `blocks`"),
        ("[[block]]\nnumber = \"0811\"\n", ":1:", "every block needs an end"),
        (
            "[[block]]\nnumber = \"0811\"\npermanent = true\nexpires = 2030-01-01T00:00:00Z\n",
            ":1:",
            "not both",
        ),
        ("[[block]]\nnumber = \"x\"\npermanent = true\n", ":2:10:", "is not a number"),
        ("[[block]]\nnumber = \"0811*\"\npermanent = true\n", ":2:10:", "write a prefix as"),
        ("[[allow]]\nprefix = \"0811\"\n", ":2:10:", "a prefix must end with *"),
        (
            "[[allow]]\nnumber = \"0811\"\n\n[[allow]]\nnumber = \"+62811\"\n",
            ":4:",
            "already in line 1",
        ),
        (
            "[[block]]\nnumber = \"0811\"\nexpires = \"tomorrow\"\n",
            ":3:11:",
            "not a time with a zone",
        ),
        (
            "[[block]]\nnumber = \"0811\"\npermanent = true\naction = \"reply\"\n",
            ":4:10:",
            "not supported by this version",
        ),
        (
            "[[trunk]]\nname = \"a\"\nsources = [\"10.0.0.300\"]\n",
            ":3:12:",
            "not an address or prefix",
        ),
        ("[[trunk]]\nname = \"default\"\nsources = [\"10.0.0.1\"]\n", ":2:8:", "already used"),
        ("[default]\nformats = [\"subscriber\"]\n", ":2:11:", "needs an area_code"),
        ("ports = []\n", ":1:9:", "at least one"),
        ("ports = [70000]\n", ":1:", "70000"),
        ("mode = \n", ":1:", ""),
    ] {
        let path = temporary("policy.toml", policy.as_bytes());
        let output = replay_of(CALL, &["--policy", path.to_str().unwrap()]);
        assert_fails(&output, 2, &format!("policy.toml{place}"));
        assert_fails(&output, 2, message);
        assert!(output.stdout.is_empty(), "nothing is judged");
    }
    assert_fails(&replay_of(CALL, &["--policy", "/does/not/exist.toml"]), 2, "cannot read");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_policy_file_decides_and_the_command_line_adds() {
    let policy = "mode = \"observe\"\n[default]\ntrunk_prefix = \"0\"\n\n[[trunk]]\nname = \"dect\"\n\
        sources = [\"192.168.105.110\"]\n\n[[block]]\nnumber = \"2502\"\nexpires = 2030-01-01T00:00:00+07:00\n";
    let path = temporary("trunks.toml", policy.as_bytes());
    let output =
        replay_of(CALL, &["--policy", path.to_str().unwrap(), "--mode", "enforce", "-o", "json"]);
    std::fs::remove_file(path).unwrap();
    let (records, _) = json(&output);
    let told: Vec<_> = records
        .iter()
        .map(|record| (record["trunk"].as_str(), record["reason"].as_str().unwrap()))
        .collect();
    let refused = (Some("dect"), "blocked-number");
    assert_eq!(told, [refused, refused, (None, "unknown-trunk")]);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn without_rights_it_says_which_are_missing() {
    // A folder that the user nobody may enter, unlike perhaps those of the build.
    let folder = std::env::temp_dir().join(format!("palang-nobody-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.join("palang");
    std::fs::copy(env!("CARGO_BIN_EXE_palang"), &program).unwrap();
    std::fs::copy(capture(CALL), folder.join(CALL)).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .arg("replay")
        .arg(folder.join(CALL))
        .output()
        .unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_fails(&output, 5, "CAP_BPF");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn frames_of_any_length_are_judged() {
    let mut file = std::fs::read(capture(CALL)).unwrap()[..24].to_vec();
    let lengths = [0u32, 1, 13, 14, 15, 60, 3_520, 3_521, 9_000, 65_557, 65_558, 262_144];
    for length in lengths {
        file.extend([0; 8]);
        file.extend(length.to_le_bytes());
        file.extend(length.to_le_bytes());
        file.extend(std::iter::repeat_n(0x45, length as usize));
    }
    let path = temporary("lengths.pcap", &file);
    let output = replay(&[path.to_str().unwrap(), "--all", "-o", "json"]);
    std::fs::remove_file(path).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(json(&output).0.len(), lengths.len());
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_closed_pipe_is_no_error() {
    let output = Command::new("sh")
        .arg("-c")
        .arg(r#""$0" replay "$1" --all -o json | head -n 1"#)
        .arg(env!("CARGO_BIN_EXE_palang"))
        .arg(capture(CALL))
        .output()
        .unwrap();
    assert_eq!(text(&output.stderr), "");
    assert_eq!(text(&output.stdout).lines().count(), 1);
}
