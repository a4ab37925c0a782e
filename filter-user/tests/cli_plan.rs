//! `palang plan` as a person meets it: output, messages, exit codes.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use etherparse::PacketBuilder;
use serde_json::Value;

use common::{temporary, text};

fn palang(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_palang")).arg("plan").args(arguments).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
}

const CONFIG: &str = "interfaces = []\n[default]\ncountry = \"ID\"\n[[trunk]]\nname = \"telkom\"\n\
    sources = [\"10.0.0.0/8\"]\nphone_contexts = { national = [\"national\", \"bare-national\"] }\n";

#[test]
fn plan_is_shown_with_an_example_of_each_format() {
    let output = palang(&["show", "--country", "us"]);
    let shown = text(&output.stdout);
    for line in ["preset US", "own-e164", "bare-national", "with +", "international prefix"] {
        assert!(shown.contains(line), "{shown} lacks {line}");
    }
    let config = temporary("show.toml", CONFIG.as_bytes());
    let shown = json(&palang(&["show", "-o", "json", "--config", config.to_str().unwrap()]));
    let plans = shown["plans"].as_array().unwrap();
    assert_eq!(plans.len(), 2);
    assert_eq!(plans[1]["plan"], "telkom");
    assert_eq!(plans[1]["settings"]["country"], "ID");
    assert_eq!(plans[1]["settings"]["phone_contexts"]["national"][0], "national");
    for plan in plans {
        for example in plan["examples"].as_array().unwrap() {
            assert!(example["number"].is_string(), "{example}");
        }
    }
    let all = text(&palang(&["show", "--all", "-o", "raw"]).stdout);
    assert!(all.lines().count() > 200 && all.contains("\nIT\t39\t-\t00\t"), "{all}");
}

#[test]
fn text_is_explained_and_the_exit_code_says_whether_it_is_read() {
    let config = temporary("explain.toml", CONFIG.as_bytes());
    let config = config.to_str().unwrap();
    let context = "tel:81234567890;phone-context=national";
    let read = palang(&["explain", context, "--trunk", "telkom", "--config", config]);
    assert!(read.status.success());
    assert!(text(&read.stdout).contains("is +6281234567890 (telkom)"), "{}", text(&read.stdout));
    let unread = palang(&["explain", context, "--config", config]);
    assert_eq!(unread.status.code(), Some(4));
    let printed = text(&unread.stdout);
    assert!(printed.contains("a call passes as ambiguous-number"), "{printed}");
    assert!(printed.contains("phone_contexts = { \"national\" = \"bare-national\" }"), "{printed}");
    let unread = palang(&["explain", "+390255501234", "--country", "IT", "-o", "json"]);
    assert_eq!(json(&unread)["number"], "390255501234");
    for wrong in [
        &["explain", "112", "--country", "XX"][..],
        &["explain", "112", "--trunk", "nix", "--config", config],
        &["explain", "112", "--config", "/nonexistent"],
        &["show", "--all", "--country", "ID"],
    ] {
        let output = palang(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}

/// Returns a capture (pcap, Ethernet) of an INVITE for each caller.
fn capture(callers: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0xA1B2_C3D4u32, 0x0004_0002, 0, 0, 65_535, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for (index, caller) in (0u32..).zip(callers) {
        let message = format!(
            "INVITE sip:112@x SIP/2.0\r\nFrom: <{caller}>;tag=a\r\nTo: <sip:112@x>\r\n\
             Call-ID: {index}@x\r\n\r\n"
        );
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(5060, 5060)
            .write(&mut frame, message.as_bytes())
            .unwrap();
        let len = frame.len() as u32;
        for word in [1_795_507_200 + index, 0, len, len] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(frame);
    }
    bytes
}

#[test]
fn check_of_a_capture_names_the_setting_that_reads_more() {
    let calls = ["sip:6505550000@x", "sip:16505550001@x", "sip:+16505550002@x", "sip:alice@x"];
    let calls = temporary("us.pcap", capture(&calls));
    let config = temporary(
        "us.toml",
        b"interfaces = []\n[default]\ncountry_code = \"1\"\ntrunk_prefix = \"1\"\nformats = [\"national\"]\n",
    );
    let (calls, config) = (calls.to_str().unwrap(), config.to_str().unwrap());
    let checked = json(&palang(&["check", calls, "--config", config, "-o", "json"]));
    let trunk = &checked["trunks"][0];
    assert_eq!((trunk["calls"].as_u64(), trunk["read"].as_u64()), (Some(4), Some(2)), "{trunk}");
    assert_eq!(trunk["unread"]["ambiguous-number"], 1);
    assert_eq!(trunk["unread"]["not-a-number"], 1);
    assert_eq!(trunk["examples"][0]["text"], "sip:6505550000@x");
    let settings = trunk["settings"].as_array().unwrap();
    let country = settings.iter().find(|other| other["setting"] == "country = \"US\"").unwrap();
    assert_eq!((country["possible"].as_u64(), country["changed"].as_u64()), (Some(3), Some(0)));
    let table = text(&palang(&["check", calls, "--country", "US"]).stdout);
    assert!(table.contains("callers read       3 of 4 (75 %)"), "{table}");
    assert!(!table.contains("setting that reads more"), "{table}");

    let mut broken = capture(&["sip:6505550000@x"]);
    broken.truncate(60);
    let broken = temporary("broken.pcap", &broken);
    let output = palang(&["check", calls, broken.to_str().unwrap(), "--country", "US"]);
    assert_eq!(output.status.code(), Some(6));
    assert!(text(&output.stderr).contains("broken.pcap"), "{}", text(&output.stderr));
}

#[test]
fn check_skips_foreign_frames_and_unwraps_tunnels_as_replay_does() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let tunnels = fixtures.join("tunnels/tunnels.pcap");
    let tunnels = tunnels.to_str().unwrap();
    let checked = |arguments: &[&str]| {
        json(&palang(&[&["check", tunnels, "--country", "ID", "-o", "json"], arguments].concat()))
    };
    let outer = checked(&[]);
    assert_eq!((&outer["trunks"][0]["calls"], &outer["tunnelled"]["GRE"]), (&1.into(), &4.into()));
    let inner = checked(&["--decap"]);
    assert_eq!(
        (&inner["trunks"][0]["calls"], &inner["trunks"][0]["read"]),
        (&22.into(), &22.into())
    );
    assert_eq!(inner.get("tunnelled"), None);
    let table = text(&palang(&["check", tunnels, "--country", "ID"]).stdout);
    assert!(table.contains("21 INVITEs in tunnels not judged"), "{table}");

    // A pcapng with USB (189) before Ethernet, as a capture on all interfaces has it.
    let block = |kind: u32, body: &[u8]| {
        let length = (12 + body.len() as u32).to_le_bytes();
        [&kind.to_le_bytes()[..], &length, body, &length].concat()
    };
    let section = [&0x1A2B_3C4D_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xFF; 8]].concat();
    let interface = |link: u16| [&link.to_le_bytes()[..], &[0; 6]].concat();
    let packet = |interface: u32, frame: &[u8]| {
        let len = (frame.len() as u32).to_le_bytes();
        let mut body = [&interface.to_le_bytes()[..], &[0; 8], &len, &len, frame].concat();
        body.resize(body.len().next_multiple_of(4), 0);
        block(6, &body)
    };
    let head = [block(0x0A0D_0D0A, &section), block(1, &interface(189)), block(1, &interface(1))];
    let call = capture(&["sip:+6281234567890@x"])[24 + 16..].to_vec();
    let mixed = [head.concat(), packet(0, &[0; 64]), packet(1, &call)].concat();
    let mixed = temporary("mixed.pcapng", &mixed);
    let output = palang(&["check", mixed.to_str().unwrap(), "--country", "ID", "-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let checked = json(&output);
    assert_eq!((&checked["foreign"]["189"], &checked["trunks"][0]["read"]), (&1.into(), &1.into()));
    let only = [head.concat(), packet(0, &[0; 64])].concat();
    let only = temporary("usb.pcapng", &only);
    let output = palang(&["check", only.to_str().unwrap(), "--country", "ID"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("link type 189"), "{}", text(&output.stderr));
}

#[test]
fn check_treats_every_packet_as_one_of_the_trunk_that_is_named() {
    let calls = temporary("assumed.pcap", capture(&["sip:+6281234567890@x"]));
    let config = CONFIG.replace("10.0.0.0/8", "203.0.113.7");
    let config = temporary("assumed.toml", config.as_bytes());
    let (calls, config) = (calls.to_str().unwrap(), config.to_str().unwrap());
    let checked = |arguments: &[&str]| {
        json(&palang(&[&["check", calls, "--config", config, "-o", "json"], arguments].concat()))
    };
    assert_eq!(checked(&[])["outside"], 1);
    let assumed = checked(&["--trunk", "telkom"]);
    assert_eq!(
        (&assumed["outside"], &assumed["trunks"][0]["trunk"]),
        (&0.into(), &"telkom".into())
    );
    let output = palang(&["check", calls, "--config", config, "--trunk", "east"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("default, telkom"), "{}", text(&output.stderr));
}

#[test]
fn advice_without_a_configuration_is_only_what_the_command_takes() {
    for (arguments, advises_country) in
        [(&["check", "--since", "1h"][..], false), (&["explain", "0812"], true)]
    {
        let output = palang(&[arguments, &["--config", "/nonexistent/palang.toml"]].concat());
        assert_eq!(output.status.code(), Some(2));
        let said = text(&output.stderr);
        assert!(said.contains("/nonexistent/palang.toml"), "{said}");
        assert_eq!(said.contains("--country"), advises_country, "{said}");
    }
}
