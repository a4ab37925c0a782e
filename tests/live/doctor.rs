//! `palang doctor` against faults that are made on purpose: each is reported with its cure, and
//! the cure works.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use palang_tests::lab::{Daemon, Lab, daemon, foreign_xdp, run};
use serde_json::Value;

use crate::abi_upgrade;
use crate::gate::{Gate, eventually};

/// A check as it came out.
#[derive(Debug)]
struct Told {
    state: String,
    finding: String,
    mend: String,
}

impl Told {
    #[track_caller]
    fn is(&self, state: &str, says: &str) {
        assert!(
            self.state == state && self.finding.contains(says),
            "not {state} {says:?}: {self:?}"
        );
        assert_eq!(self.mend.is_empty(), state == "ok", "{self:?}");
    }
}

fn doctor(daemon: &Daemon) -> Command {
    let mut command = daemon.command(&["doctor", "-o", "json", "--config"]);
    command.arg(daemon.config_file());
    command
}

/// Returns one check of its report.
#[track_caller]
fn one(stdout: &str, check: &str) -> Told {
    let checks = stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut found = checks.filter(|told| told["check"] == check);
    let (Some(told), None) = (found.next(), found.next()) else {
        panic!("not one check {check}: {stdout}");
    };
    let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
    Told { state: text("state"), finding: text("finding"), mend: text("mend") }
}

#[track_caller]
fn look(daemon: &Daemon, check: &str) -> Told {
    one(&run::run(&mut doctor(daemon)).stdout, check)
}

/// Runs the command that a check names as its cure, as a person would type it.
fn mend(gate: &Gate, command: &str) {
    let folder = gate.daemon.folder().join("bin");
    let program = folder.join("palang");
    if !program.exists() {
        fs::create_dir_all(&folder).unwrap();
        symlink(daemon::program(), &program).unwrap();
    }
    let mut shell = gate.lab.command_in_gate("sh");
    let path = std::env::var("PATH").unwrap();
    shell.args(["-ec", command]).env("PATH", format!("{}:{path}", folder.display()));
    shell.env("PALANG_SOCKET", gate.daemon.runtime().join("palang.sock"));
    run::must(&mut shell);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn doctor_reports_a_filter_in_generic_mode() {
    let lab = Lab::new("doctor-generic");
    let mut gate = Gate::start(&lab, "xdp_mode = \"generic\"");
    look(&gate.daemon, "xdp").is("ok", "generic");
    gate.daemon.configure("");
    gate.daemon.restart();
    let told = look(&gate.daemon, "xdp");
    told.is("fail", "generic, but native is configured");
    mend(&gate, &told.mend);
    look(&gate.daemon, "xdp").is("ok", "native");
    let status = gate.does(&["status"]);
    assert_eq!(status["interfaces"][0]["xdp"], "native", "{status}");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn doctor_reports_callers_that_the_plan_does_not_read() {
    let lab = Lab::new("doctor-plans");
    let gate = Gate::start(&lab, "");
    look(&gate.daemon, "plans").is("ok", "no call");
    for _ in 0..6 {
        gate.call("0031201234567");
    }
    eventually("the calls are recorded", || gate.rows(&["calls"]).len() == 6);
    look(&gate.daemon, "plans")
        .is("warn", "trunk default: 6 of 6 callers of the last hour were not read");
    let config = gate.daemon.config_file().display().to_string();
    let checked = gate.does(&["plan", "check", "--since", "1h", "--config", &config]);
    assert_eq!(checked["records"], 6, "{checked}");
    assert_eq!(checked["trunks"][0]["unread"]["ambiguous-number"], 6, "{checked}");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn doctor_reports_unsuitable_offloads_and_mtu() {
    let lab = Lab::new("doctor-offloads");
    let gate = Gate::start(&lab, "");
    let ethtool = |arguments: &[&str]| run::must(lab.command_in_gate("ethtool").args(arguments));
    ethtool(&["-K", "gate0", "rxvlan", "on"]);
    let told = look(&gate.daemon, "rx-vlan-offload");
    told.is("warn", "on: ");
    mend(&gate, &told.mend);
    look(&gate.daemon, "rx-vlan-offload").is("ok", "off");
    look(&gate.daemon, "lro").is("ok", "off");
    look(&gate.daemon, "gro-hw").is("ok", "off");
    // As `ethtool` itself prints.
    let features = ethtool(&["-k", "gate0"]);
    assert!(features.contains("rx-vlan-offload: off"), "{features}");
    look(&gate.daemon, "queues").is("ok", "1 of 1");

    look(&gate.daemon, "link").is("ok", "up");
    run::must(lab.command_in_gate("ip").args(["link", "set", "dev", "gate0", "down"]));
    let told = look(&gate.daemon, "link");
    told.is("warn", "down");
    mend(&gate, &told.mend);
    look(&gate.daemon, "link").is("ok", "up");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn doctor_reports_few_queues_for_many_cpus() {
    let cpus = std::thread::available_parallelism().unwrap().get();
    assert!(cpus > 1, "this test needs two CPUs");
    let lab = Lab::new("doctor-queues");
    let gate = Gate::of(&lab, Daemon::prepare(&lab, "interfaces = [\"many\"]"));
    let queues = "numrxqueues 4 numtxqueues 4";
    for command in [
        format!("link add many {queues} type veth peer name other {queues}"),
        "link set many up".to_owned(),
        "link set other up".to_owned(),
    ] {
        run::must(lab.command_in_gate("ip").args(command.split(' ')));
    }
    run::must(lab.command_in_gate("ethtool").args(["-L", "many", "rx", "1"]));
    let told = look(&gate.daemon, "queues");
    told.is("warn", &format!("1 of 4: one CPU of {cpus}"));
    mend(&gate, &told.mend);
    look(&gate.daemon, "queues").is("ok", &format!("{} of 4", cpus.min(4)));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn doctor_reports_a_missing_or_read_only_bpf_file_system() {
    let lab = Lab::new("doctor-bpffs");
    let gate = Gate::of(&lab, Daemon::prepare(&lab, ""));
    let place = gate.daemon.folder().join("bpf");
    fs::create_dir_all(&place).unwrap();
    let pins = place.join("palang");
    gate.daemon.configure(&format!("[paths]\npins = {pins:?}"));

    let told = look(&gate.daemon, "bpffs");
    told.is("fail", "is not on a BPF file system");
    // Mounts of its own, which end with it; what is mounted there nobody else sees.
    let in_own_mounts = |script: &str| {
        let mut command = gate.daemon.command_by(&["unshare", "--mount", "sh", "-ec", script], &[]);
        command.args(["doctor", "-o", "json", "--config"]).arg(gate.daemon.config_file());
        run::run(&mut command).stdout
    };
    // $0 is the program.
    let mended = in_own_mounts(&format!("{}; exec \"$0\" \"$@\"", told.mend));
    one(&mended, "bpffs").is("ok", "bpf");

    let read_only = format!("mount -t bpf bpf {0}; mount -o remount,ro {0}", place.display());
    let told = one(&in_own_mounts(&format!("{read_only}; exec \"$0\" \"$@\"")), "bpffs");
    told.is("fail", "cannot write to");
    let mended = in_own_mounts(&format!("{read_only}; {}; exec \"$0\" \"$@\"", told.mend));
    one(&mended, "bpffs").is("ok", "bpf");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn doctor_reports_missing_capabilities() {
    let lab = Lab::new("doctor-caps");
    let daemon = Daemon::prepare(&lab, "");
    for (dropped, missing) in
        [("-bpf", "CAP_BPF"), ("-net_admin", "CAP_NET_ADMIN"), ("-perfmon", "CAP_PERFMON")]
    {
        let without = ["setpriv", "--bounding-set", dropped, "--inh-caps", dropped];
        let mut command = daemon.command_by(&without, &["doctor", "-o", "json", "--config"]);
        let output = run::run(command.arg(daemon.config_file()));
        let told = one(&output.stdout, "capabilities");
        told.is("fail", &format!("missing: {missing};"));
        assert_eq!((output.code, told.mend.as_str()), (1, "sudo palang doctor"));
    }
    look(&daemon, "capabilities").is("ok", "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON");

    // With none of them the kernel does not take the program, and that is said, too.
    let without = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"];
    let mut command = daemon.command_by(&without, &["doctor", "-o", "json", "--config"]);
    let output = run::run(command.arg(daemon.config_file()));
    one(&output.stdout, "program").is("fail", "no permission to load BPF programs");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn doctor_reports_a_dead_hanging_or_other_daemon() {
    let lab = Lab::new("doctor-engine");
    let mut gate = Gate::of(&lab, Daemon::prepare(&lab, ""));
    look(&gate.daemon, "engine").is("warn", "does not answer");
    look(&gate.daemon, "pins").is("warn", "no filter is in force");

    gate.daemon.start_again();
    look(&gate.daemon, "engine").is("ok", "answers");
    look(&gate.daemon, "pins").is("ok", "links gate0");
    look(&gate.daemon, "xdp").is("ok", "native");

    gate.daemon.kill();
    look(&gate.daemon, "engine").is("fail", "does not answer, but the filter stays in force");
    gate.daemon.start_again();
    gate.does(&["detach"]);
    let told = look(&gate.daemon, "pins");
    told.is("warn", "no interface has the filter");
    mend(&gate, &told.mend.replace("IFACE", "gate0"));
    look(&gate.daemon, "pins").is("ok", "links gate0");

    // Another version took over: this program is the older one.
    let ours = daemon::program();
    assert_eq!(gate.daemon.stop(), 0);
    gate.daemon.set_program(abi_upgrade::program());
    gate.daemon.start_again();
    gate.daemon.set_program(&ours);
    look(&gate.daemon, "engine").is("warn", "the daemon is version 9");
    look(&gate.daemon, "pins").is("warn", "a different layout");
    // As `systemctl restart palang` does.
    gate.daemon.restart();
    for check in ["engine", "pins", "xdp"] {
        look(&gate.daemon, check).is("ok", "");
    }
}

// As after an upgrade whose daemon was not started yet: what judges is not what this palang knows.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn doctor_reports_a_program_of_another_build() {
    let lab = Lab::new("doctor-build");
    let mut gate = Gate::start(&lab, "");
    look(&gate.daemon, "xdp").is("ok", "native");
    gate.daemon.kill();
    fs::remove_file(gate.daemon.pins().join("links/gate0")).unwrap();
    let folder = gate.map_folder();
    let maps = ["OVERRIDE", "GENERATION", "BLOCKED_NUMBERS"].map(|name| folder.join(name));
    let other = gate.daemon.pins().join("other");
    let id = foreign_xdp::pin_with(&other, &maps);
    foreign_xdp::attach(&lab, &other);
    let told = look(&gate.daemon, "xdp");
    told.is("warn", "from another build");
    assert_eq!(told.mend, "systemctl restart palang");

    let mut command = gate.daemon.command(&["selftest", "-o", "json"]);
    let output = run::run(command.env("PALANG_CONFIG", gate.daemon.config_file()));
    assert_eq!(output.code, 13, "{output:?}");
    let found: Value = serde_json::from_str(&output.stdout).unwrap();
    let problem = found["problems"][0].as_str().unwrap();
    assert!(
        problem.contains(&format!("program {id} in force is not the tested program")),
        "{problem}"
    );
}
