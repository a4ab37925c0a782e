//! The life of an installed package on a machine with systemd, in the network of the lab. Real
//! calls meet it while it is installed, upgraded and removed. `cargo xtask lifecycle` makes the
//! packages and the root folder, and runs this.
#![expect(clippy::expect_used, reason = "a test panics where it fails")]

mod machine;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use machine::Machine;
use palang_tests::lab::{INTERFACE, Lab, Receiver, now};
use serde_json::{Value, json};

const BLOCKED: &str = "+6281200000001";
const INNOCENT: &str = "+6281200000002";
const CALLERS: [&str; 2] = [BLOCKED, INNOCENT];
/// INVITEs in a second while something happens to the package.
const PER_SECOND: u32 = 500;

const UNIT: &str = "palang.service";
/// systemd's measure of what a unit may do, in tenths.
const EXPOSURE_MAX: u32 = 25;
/// CAP_BPF and CAP_NET_ADMIN.
const CAPABILITIES: &str = "0000008000001000";

/// Returns a folder that `cargo xtask lifecycle` has made.
fn folder(variable: &str) -> PathBuf {
    let folder = std::env::var_os(variable);
    folder.unwrap_or_else(|| panic!("no {variable}: cargo xtask lifecycle")).into()
}

#[test]
fn package_installs_upgrades_removes_and_installs_again() {
    let lab = Lab::new("lifecycle");
    let packages = folder("PALANG_LIFECYCLE_PACKAGES");
    let machine = Machine::boot(&lab, &folder("PALANG_LIFECYCLE_ROOT"), &packages);
    let receiver = lab.receiver(5060);

    install(&machine, "1");
    attaches_nothing_by_itself(&lab, &machine);
    puts_back_what_fails(&machine);
    set_up(&machine);
    is_a_good_service(&machine);
    blocks(&lab, &machine, &receiver);
    is_upgraded_under_traffic(&lab, &machine, &receiver, || install(&machine, "2"));
    is_removed_under_traffic(&lab, &machine, &receiver, "palang.toml", || {
        machine.must("apt-get", &["remove", "--yes", "palang"]);
    });
    is_purged_but_for_the_audit(&machine);

    install(&machine, "2");
    attaches_nothing_by_itself(&lab, &machine);
    set_up(&machine);
    assert_eq!(machine.palang(&["status"])["blocks"], 0, "it starts clean");
    assert_eq!(refused(&lab, &receiver), 0);
    is_purged_with_the_audit(&machine);
    eprintln!("installed, set up, upgraded, removed, purged, installed again, purged");

    // Debian's rpm runs the same scripts as that of RHEL, in the same order.
    rpm(&machine, "--install");
    attaches_nothing_by_itself(&lab, &machine);
    set_up(&machine);
    is_a_good_service(&machine);
    blocks(&lab, &machine, &receiver);
    let upgrade = || rpm(&machine, "--upgrade");
    is_upgraded_under_traffic(&lab, &machine, &receiver, upgrade);
    // RPM puts a configuration aside that was changed.
    is_removed_under_traffic(&lab, &machine, &receiver, "palang.toml.rpmsave", || {
        machine.must("rpm", &["--erase", "--force-debian", "palang"]);
    });
    assert!(machine.has("/var/lib/palang/audit.ndjson"));
    eprintln!("as .rpm: installed, set up, upgraded, removed");
}

fn step(what: &str) {
    eprintln!("--- {what}");
}

fn install(machine: &Machine, which: &str) {
    step(&format!("install package {which}"));
    let file = format!("/packages/palang-{which}.deb");
    machine.must("apt-get", &["install", "--yes", "--no-install-recommends", &file]);
}

/// Installs the .rpm. Its dependencies are RHEL's; the same version once more counts as an upgrade.
fn rpm(machine: &Machine, how: &str) {
    step(&format!("rpm {how}"));
    let file = "/packages/palang.rpm";
    machine.must("rpm", &[how, "--nodeps", "--replacepkgs", "--force-debian", file]);
}

fn attaches_nothing_by_itself(lab: &Lab, machine: &Machine) {
    step("nothing is attached");
    assert_eq!(program(lab), None);
    assert_eq!(machine.show(UNIT, "ActiveState"), "inactive");
    for group in ["palang", "palang-operate", "palang-admin"] {
        machine.must("getent", &["group", group]);
    }
    machine.must("palang", &["config", "check"]);
}

fn puts_back_what_fails(machine: &Machine) {
    step("palang setup of a service that does not start");
    let config = || machine.must("cat", &["/etc/palang/palang.toml"]);
    let before = config();
    let folder = "/run/systemd/system/palang.service.d";
    let fails = format!(
        "mkdir {folder}; printf '[Service]\\nExecStartPre=/bin/false\\n' > {folder}/f.conf"
    );
    machine.must("sh", &["-c", &fails]);
    machine.must("systemctl", &["daemon-reload"]);
    let failed = machine.run("palang", &["setup", INTERFACE, "--yes", "--country-code", "62"]);
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    for wanted in ["journalctl", "rolled back: palang.service stopped", "palang.toml restored"] {
        assert!(failed.stderr.contains(wanted), "{wanted}: {}", failed.stderr);
    }
    assert!(!failed.stderr.contains("NOT rolled back"), "{}", failed.stderr);
    assert_eq!(config(), before);
    assert_eq!(machine.show(UNIT, "UnitFileState"), "disabled");
    assert!(!machine.has("/sys/fs/bpf/palang/off/gate0"));
    machine.must("rm", &["-r", folder]);
    machine.must("systemctl", &["daemon-reload"]);
    machine.must("systemctl", &["reset-failed", UNIT]);
}

fn set_up(machine: &Machine) {
    step("palang setup");
    let setup = ["setup", INTERFACE, "--yes", "--country-code", "62"];
    let done = machine.palang(&[&setup[..], &["--dry-run"]].concat());
    assert_eq!(done["dry_run"], true);
    assert_eq!(machine.show(UNIT, "ActiveState"), "inactive", "a dry run");
    let said = machine.must("palang", &setup);
    for wanted in ["in force: gate0: native", "mode observe", "palang detach gate0"] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    assert_eq!(machine.show(UNIT, "UnitFileState"), "enabled");
    let status = machine.palang(&["status"]);
    assert_eq!(status["daemon"], true);
    assert_eq!(status["mode"]["mode"], "observe");
    assert_eq!(status["interfaces"][0]["xdp"], "native");

    // Once more, with another port: systemd reloads the daemon. And once more: nothing to do.
    let again = [&setup[..], &["--port", "5060", "--port", "5062"]].concat();
    let plan = machine.palang(&again)["plan"].to_string();
    assert!(plan.contains("systemctl reload"), "{plan}");
    assert!(machine.must("palang", &["config", "show"]).contains("ports = [5060, 5062]"));
    assert_eq!(machine.palang(&again)["plan"], json!([]));
}

fn is_a_good_service(machine: &Machine) {
    step("the unit: ready, watchdog, reload, capabilities, exposure");
    assert_eq!(machine.show(UNIT, "Type"), "notify");
    assert_eq!(machine.show(UNIT, "SubState"), "running");
    assert_eq!(machine.show(UNIT, "WatchdogUSec"), "30s");
    assert_ne!(machine.show(UNIT, "WatchdogTimestampMonotonic"), "0");
    // Sent with each sign of life to the watchdog.
    eventually("the status", || machine.show(UNIT, "StatusText").contains("mode observe"));

    let pid = machine.show(UNIT, "MainPID");
    let status = machine.must("cat", &[&format!("/proc/{pid}/status")]);
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name}: {status}")).trim().to_owned()
    };
    assert_eq!(field("CapEff:"), CAPABILITIES);
    assert_eq!(field("CapPrm:"), CAPABILITIES);
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".into(), "2".into()));

    machine.must("systemctl", &["reload", UNIT]);
    let read = "the configuration was read again";
    eventually("the reload", || {
        machine.must("journalctl", &["--unit", UNIT, "--no-pager"]).contains(read)
    });
    assert_eq!(machine.show(UNIT, "MainPID"), pid, "the same process");

    let said = machine.must("journalctl", &["--unit", UNIT, "--no-pager"]);
    assert!(!said.contains("no Landlock"), "{said}");

    let security = machine.must("systemd-analyze", &["security", "--no-pager", UNIT]);
    let exposure = security.rsplit_once("Overall exposure level").expect("a level").1;
    let level = exposure.split([' ', ':']).find(|word| word.contains('.') && word.len() == 3);
    let level: u32 = level.expect("a number").replace('.', "").parse().expect("tenths");
    assert!(level <= EXPOSURE_MAX, "{exposure}");

    // Where the unit and the daemon let it, and not elsewhere.
    machine.must("palang", &["store", "backup", "/var/lib/palang/copy"]);
    let refused = machine.run("palang", &["store", "backup", "/var/tmp/copy"]);
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert!(refused.stderr.contains("[paths] backup"), "{}", refused.stderr);
}

fn blocks(lab: &Lab, machine: &Machine, receiver: &Receiver) {
    step("a blocked caller is refused");
    let block = ["block", "add", BLOCKED, "--for", "24h", "--reason", "prank", "--no-redial"];
    machine.palang(&block);
    assert_eq!(refused(lab, receiver), 0, "observe");
    machine.palang(&["mode", "enforce"]);
    assert_eq!(refused(lab, receiver), 50);
}

/// Returns how many of 50 INVITEs of the blocked caller are refused; the innocent one always gets through.
fn refused(lab: &Lab, receiver: &Receiver) -> usize {
    let record = lab.traffic(receiver, &CALLERS, 1_000, 100).finish();
    assert_eq!(record.delivered(INNOCENT, ..).len(), 50);
    record.refused(BLOCKED, ..).len()
}

fn is_upgraded_under_traffic(
    lab: &Lab,
    machine: &Machine,
    receiver: &Receiver,
    upgrade: impl Fn(),
) {
    step("upgrade under traffic");
    let before = (program(lab), machine.show(UNIT, "MainPID"));
    let traffic = lab.traffic(receiver, &CALLERS, PER_SECOND, usize::MAX);
    traffic.wait_for(200);
    upgrade();
    traffic.wait_for(200);
    let record = traffic.stop();
    assert!(program(lab).is_some());
    assert_ne!(program(lab), before.0, "the program of the new version");
    assert_ne!(machine.show(UNIT, "MainPID"), before.1, "the daemon of the new version");
    assert_eq!(machine.show(UNIT, "SubState"), "running");
    let innocent = record.sent(INNOCENT, ..).len();
    assert_eq!(record.delivered(INNOCENT, ..).len(), innocent, "no innocent call is lost");
    let passed = record.delivered(BLOCKED, ..);
    assert!(passed.is_empty(), "{} of the blocked caller's got through", passed.len());
    eprintln!("{innocent} calls of innocents, none lost; as many of the blocked, none passed");
    let status = machine.palang(&["status"]);
    assert_eq!((&status["mode"]["mode"], &status["blocks"]), (&json!("enforce"), &json!(1)));
}

fn is_removed_under_traffic(
    lab: &Lab,
    machine: &Machine,
    receiver: &Receiver,
    config: &str,
    remove: impl Fn(),
) {
    step("remove under traffic");
    let traffic = lab.traffic(receiver, &CALLERS, PER_SECOND, usize::MAX);
    traffic.wait_for(200);
    let begin = now();
    remove();
    let end = now();
    traffic.wait_for(200);
    let record = traffic.stop();
    let innocent = record.sent(INNOCENT, ..).len();
    assert_eq!(record.delivered(INNOCENT, ..).len(), innocent, "no innocent call is lost");
    assert!(record.delivered(BLOCKED, ..begin).is_empty(), "it was in force to the end");
    assert!(record.refused(BLOCKED, end..).is_empty(), "nothing is refused any more");
    eprintln!("{innocent} calls of innocents, none lost");

    step("nothing is left in the driver");
    assert_eq!(program(lab), None);
    let pins = machine.must("find", &["/sys/fs/bpf", "-mindepth", "1", "-name", "palang*"]);
    assert_eq!(pins, "");
    let filters = machine.must("tc", &["filter", "show", "dev", INTERFACE, "egress"]);
    assert_eq!(filters, "");
    assert_ne!(machine.run("systemctl", &["is-active", UNIT]).code, 0);
    assert!(!machine.has("/usr/bin/palang"));
    assert!(machine.has("/var/lib/palang/palang.db"), "a removal keeps the state");
    assert!(machine.has(&format!("/etc/palang/{config}")));
}

fn is_purged_but_for_the_audit(machine: &Machine) {
    step("purge");
    machine.must("apt-get", &["purge", "--yes", "palang"]);
    for gone in ["/var/lib/palang", "/etc/palang", "/run/palang"] {
        assert!(!machine.has(gone), "{gone}");
    }
    let kept = machine.must("sh", &["-c", "cat /var/lib/palang-audit/*-audit.ndjson"]);
    let rows: Vec<Value> =
        kept.lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
    assert!(kept.contains("block add"), "{kept}");
    assert!(rows.len() > 3, "{kept}");
    let mode = machine.must("stat", &["--format=%a", "/var/lib/palang-audit"]);
    assert_eq!(mode.trim(), "700");
}

fn is_purged_with_the_audit(machine: &Machine) {
    step("purge, the audit too");
    machine.must("touch", &["/etc/palang/purge-audit"]);
    machine.must("apt-get", &["purge", "--yes", "palang"]);
    for gone in ["/var/lib/palang", "/var/lib/palang-audit", "/etc/palang"] {
        assert!(!machine.has(gone), "{gone}");
    }
}

/// Returns the id of the XDP program on the gate's interface.
fn program(lab: &Lab) -> Option<u64> {
    let mut ip = lab.command_in_gate("ip");
    let links = palang_tests::lab::run::must(ip.args(["-json", "link", "show", INTERFACE]));
    let links: Value = serde_json::from_str(&links).expect("JSON of ip");
    links[0]["xdp"]["prog"]["id"].as_u64()
}

fn eventually(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !look() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
