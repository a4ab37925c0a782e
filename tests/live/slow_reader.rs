//! A kernel that refuses the full program: the slim one takes its place, says so, and leaves it again
//! without a gap. The kernel is real, the program that it refuses is planted in a copy of `palang`.

use std::path::{Path, PathBuf};

use filter_common::sip::message::Reader;
use palang::api::wire::Health;
use palang::datapath::Program;
use palang_tests::common::planted::write_palang;
use palang_tests::lab::{Daemon, INTERFACE, Lab, daemon, run};
use serde_json::Value;

use crate::api::Api;

const BLOCKED: &str = "+6281200000001";
const INNOCENT: &str = "+6281200000002";
const CALLERS: [&str; 2] = [BLOCKED, INNOCENT];
const SLOW: &str = "slow reader on this kernel";

/// Builds a `palang` whose programs with these readers the kernel refuses.
fn planted(folder: &Path, readers: &[Reader]) -> PathBuf {
    let programs = Program::ALL.into_iter().filter(|program| readers.contains(&program.reader));
    let names: Vec<_> = programs.map(Program::name).collect();
    let to = folder.join(format!("palang-{}-planted", readers.len()));
    write_palang(&daemon::program(), &to, &names);
    to
}

fn program_id(api: &Api) -> u32 {
    let interface = api.interface(INTERFACE);
    assert_eq!((interface.xdp.as_deref(), interface.problem), (Some("native"), None));
    interface.program.expect("a program")
}

/// Returns the finding about the reader, with its colour.
fn finding(api: &Api) -> Option<(Health, String)> {
    let findings = api.status().findings.into_iter();
    let mut slow = findings.filter(|finding| finding.message.contains(SLOW));
    slow.next().map(|finding| (finding.colour, finding.message))
}

fn json(daemon: &Daemon, arguments: &[&str]) -> Vec<Value> {
    let mut command = daemon.command(arguments);
    command.env("PALANG_CONFIG", daemon.config_file());
    let lines = run::run(&mut command).stdout;
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn small_program_under_traffic_replaces_the_refused_one_and_is_replaced() {
    let lab = Lab::new("slow");
    let mut daemon = Daemon::prepare(&lab, "");
    let refused = planted(daemon.folder(), &[Reader::Full]);
    daemon.set_program(&refused);
    daemon.start_again();
    let api = Api::of(&daemon);
    api.enforce();
    api.block(BLOCKED, 3600);
    let receiver = lab.receiver(5060);
    let traffic = lab.traffic(&receiver, &CALLERS, 4_000, 1_000_000);
    let some = || traffic.wait_for(40 * CALLERS.len());
    some();
    let slim = program_id(&api);
    let (colour, message) = finding(&api).expect("a finding");
    assert_eq!((colour, api.status().colour), (Health::Amber, Health::Amber));
    for part in ["Linux", "instructions", "boot the previous kernel", "palang doctor"] {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
    assert!(daemon.stderr().contains(SLOW), "{}", daemon.stderr());

    let config = daemon.config_file().display().to_string();
    let checks = json(&daemon, &["doctor", "-o", "json", "--config", &config]);
    let check = |name: &str| checks.iter().find(|check| check["check"] == name).expect("a check");
    assert_eq!(check("program")["state"], "warn");
    assert!(check("program")["finding"].to_string().contains(SLOW), "{}", check("program"));
    assert_eq!(check("kernel")["state"], "ok");
    assert_eq!(
        check("xdp")["state"],
        "ok",
        "the program on the interface is the one of this palang"
    );
    let found = json(&daemon, &["selftest", "-o", "json"]).remove(0);
    assert_eq!(found["outcome"], "armed", "{found}");
    assert!(found["notes"].to_string().contains(SLOW), "{found}");

    // A new version that the kernel takes, then that one again.
    assert_eq!(daemon.stop(), 0);
    let status = json(&daemon, &["status", "-o", "json"]).remove(0);
    assert!(status["findings"].to_string().contains(SLOW), "without a daemon: {status}");
    daemon.set_program(&daemon::program());
    daemon.start_again();
    some();
    let full = program_id(&api);
    assert_ne!(full, slim);
    assert_eq!((finding(&api), api.status().reattached), (None, 0));
    daemon.set_program(&refused);
    daemon.restart();
    some();
    assert_ne!(program_id(&api), full);
    assert!(finding(&api).is_some());

    let record = traffic.stop();
    assert!(!record.delivered(INNOCENT, ..).is_empty());
    assert_eq!(record.refused(INNOCENT, ..).len(), 0);
    assert!(!record.refused(BLOCKED, ..).is_empty());
    assert_eq!(record.delivered(BLOCKED, ..).len(), 0, "no packet met no program");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn start_with_both_programs_refused_ends_and_leaves_the_filter() {
    let lab = Lab::new("refused");
    let mut daemon = Daemon::start(&lab, "");
    let api = Api::of(&daemon);
    api.enforce();
    api.block(BLOCKED, 3600);
    let program = program_id(&api);
    let receiver = lab.receiver(5060);
    let traffic = lab.traffic(&receiver, &CALLERS, 4_000, 1_000_000);
    assert_eq!(daemon.stop(), 0);
    let refused = planted(daemon.folder(), &[Reader::Full, Reader::Slim]);
    daemon.set_program(&refused);
    daemon.spawn();
    // An exit code, after which systemd starts nothing again (Restart=on-abnormal).
    assert_eq!(daemon.wait_for_end(), 1);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let said = daemon.stderr();
    for part in [release.trim(), "refuses it", "instructions", "boot the previous kernel"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    traffic.wait_for(40 * CALLERS.len());
    daemon.set_program(&daemon::program());
    let status = json(&daemon, &["status", "-o", "json"]).remove(0);
    assert_eq!(status["interfaces"][0]["program"], program, "{status}");
    let record = traffic.stop();
    assert_eq!(record.refused(INNOCENT, ..).len(), 0);
    assert_eq!(record.delivered(BLOCKED, ..).len(), 0);
}
