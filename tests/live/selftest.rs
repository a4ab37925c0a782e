//! `palang selftest`: what it says of a gate in each state, and that it leaves all as it was.

use std::fs;
use std::process::Command;

use filter_common::abi::TRUNKS_MAX;
use filter_common::reason::Reason;
use palang_tests::lab::{Daemon, Lab, foreign_xdp, run};
use serde_json::{Value, json};

use crate::abi_upgrade;
use crate::gate::{Gate, eventually};

const BLOCKED: &str = "+6281200000001";

/// Runs the self-test of a gate, which has to end with this exit code.
fn selftest(daemon: &Daemon, code: i32) -> Value {
    let mut command = daemon.command(&["selftest", "-o", "json"]);
    let output = run::run(command.env("PALANG_CONFIG", daemon.config_file()));
    assert_eq!(output.code, code, "{output:?}");
    let found: Value = serde_json::from_str(&output.stdout).unwrap();
    let outcome = match code {
        0 => "armed",
        11 => "observing",
        12 => "overridden",
        13 => "broken",
        other => panic!("{other}"),
    };
    assert_eq!(found["outcome"], outcome, "{found}");
    found
}

/// Returns the first line of the text output.
fn first_line(daemon: &Daemon) -> String {
    let mut command = daemon.command(&["selftest"]);
    let output = run::run(command.env("PALANG_CONFIG", daemon.config_file()));
    output.stdout.lines().next().unwrap_or_default().to_owned()
}

fn problems(found: &Value) -> Vec<String> {
    let problems = found["problems"].as_array().unwrap().iter();
    problems.map(|problem| problem.as_str().unwrap().to_owned()).collect()
}

/// Returns the results of the calls over each trunk. Those in fragments must end like the others.
fn calls(found: &Value) -> Vec<String> {
    let trunks = found["trunks"].as_array().unwrap().iter();
    let fate = |call: &Value| match (&call["arrived"], call["reason"].as_str()) {
        (Value::Bool(true), Some(reason)) => format!("passes {reason}"),
        (Value::Bool(false), Some(reason)) => format!("refused {reason}"),
        _ => "-".to_owned(),
    };
    trunks
        .map(|tried| {
            let fates = ["blocked", "other", "allowed"].map(|name| fate(&tried[name]));
            for (fate_of, name) in fates.iter().zip(["blocked", "other"]) {
                assert_eq!(fate(&tried[format!("{name}_in_fragments")]), *fate_of, "{found}");
            }
            format!("{} {}", tried["trunk"].as_str().unwrap(), fates.join(", "))
        })
        .collect()
}

/// Returns everything that the kernel has of a gate: settings, entries, counters, program ids.
fn kernel_state(gate: &Gate) -> Vec<String> {
    let maps = gate.maps();
    let mut state = vec![format!("{:?}", maps.copy_without_blocks().unwrap())];
    // All that comes of SIP: the kernel itself may send something else at any time.
    let of_sip = |reason: &&Reason| **reason >= Reason::NotInvite;
    for trunk in 0..TRUNKS_MAX {
        for reason in Reason::ALL.iter().filter(of_sip) {
            let count = maps.count(trunk, *reason).unwrap();
            if count > 0 {
                state.push(format!("{count} {}", reason.name()));
            }
        }
    }
    let stats = maps.event_stats().unwrap();
    state.push(format!("{stats:?}"));
    let folders = palang::datapath::Pins::new(gate.daemon.pins()).map_folders();
    palang::datapath::walk_blocks(&folders[0], u64::MAX, |subject, block| {
        state.push(format!("{subject} {block:?}"));
        Ok(())
    })
    .unwrap();
    state.push(format!("{:?}", maps.grants().unwrap()));
    let mut links = gate.lab.command_in_gate("ip");
    state.push(run::must(links.args(["-o", "link"])));
    state
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn selftest_shows_whether_the_gate_enforces_observes_or_is_overridden() {
    let lab = Lab::new("selftest");
    let gate = Gate::start(&lab, "");
    gate.does(&["block", "add", BLOCKED, "--for", "24h", "--reason", "prank"]);
    gate.does(&["allow", "add", "0811-555-0100", "--comment", "hospital"]);
    // The counters say something before it, too.
    assert!(!gate.passes(BLOCKED));
    let before = kernel_state(&gate);

    let armed = selftest(&gate.daemon, 0);
    assert_eq!(problems(&armed), [""; 0]);
    let refused = "default refused blocked-number, passes not-blocked, passes allowed-number";
    assert_eq!(calls(&armed), [refused]);
    assert_eq!(armed["blocks"], 1);
    assert_eq!(armed["trunks"][0]["caller"], "09999999999910");
    let stand = &armed["interfaces"][0];
    assert_eq!((&stand["name"], &stand["xdp"]), (&json!("gate0"), &json!("native")));
    assert_eq!(stand["tag"], armed["tag"]);
    assert!(first_line(&gate.daemon).starts_with("ARMED "));
    assert_eq!(kernel_state(&gate), before, "it left something behind");

    gate.does(&["mode", "observe"]);
    let observing = selftest(&gate.daemon, 11);
    let observed = "default passes observe, passes not-blocked, passes allowed-number";
    assert_eq!(calls(&observing), [observed]);
    assert!(first_line(&gate.daemon).starts_with("OBSERVING "));

    gate.does(&["mode", "enforce"]);
    gate.does(&["override", "on", "--for", "1h", "--reason", "flood"]);
    let overridden = selftest(&gate.daemon, 12);
    assert_eq!(calls(&overridden), ["default passes override, passes override, passes override"]);
    assert!(first_line(&gate.daemon).starts_with("OVERRIDDEN "));
    gate.does(&["override", "off"]);
    selftest(&gate.daemon, 0);

    // None of it changed the gate's own state.
    assert!(!gate.passes(BLOCKED));
    assert!(gate.passes("+6281200000002"));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn selftest_tries_each_trunk_as_it_is_configured() {
    let lab = Lab::new("selftest-trunks");
    let trunks = r#"
        ports = [5080, 5060]
        [[trunk]]
        name = "telco"
        sources = ["10.112.0.1"]
        identity = "pai"
        [[trunk]]
        name = "mobile"
        sources = ["10.113.0.0/24", "2001:db8:5::/48"]
        formats = ["bare-national"]
        mode = "MODE"
        [[trunk]]
        name = "six"
        sources = ["2001:db8:6::/48"]
    "#;
    let gate = Gate::start(&lab, &trunks.replace("MODE", "enforce"));
    let armed = selftest(&gate.daemon, 0);
    let fates = "refused blocked-number, passes not-blocked, passes allowed-number";
    let expected = ["telco", "mobile", "six"].map(|name| format!("{name} {fates}"));
    assert_eq!(calls(&armed), expected);
    let of = |name: &str| {
        let trunks = armed["trunks"].as_array().unwrap().iter();
        trunks.map(|tried| tried[name].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of("source"), ["10.112.0.1", "10.113.0.1", "2001:db8:6::1"]);
    assert_eq!(of("caller"), ["09999999999910", "9999999999910", "09999999999910"]);

    gate.daemon.configure(&trunks.replace("MODE", "observe"));
    gate.daemon.signal("HUP");
    let observes = |found: &Value| found["trunks"][1]["outcome"] == "observing";
    eventually("the trunk observes", || {
        let mut command = gate.daemon.command(&["selftest", "-o", "json"]);
        let output = run::run(command.env("PALANG_CONFIG", gate.daemon.config_file()));
        observes(&serde_json::from_str(&output.stdout).unwrap())
    });
    let observing = selftest(&gate.daemon, 11);
    assert_eq!(observing["trunks"][0]["outcome"], "armed");
    assert_eq!(observing["trunks"][2]["outcome"], "armed");

    // A gate that allows everybody is no gate.
    gate.does(&["allow", "add", "+62*"]);
    gate.does(&["allow", "add", "+9*"]);
    let broken = selftest(&gate.daemon, 13);
    assert!(problems(&broken)[0].contains("allow 62* lets every test number through"), "{broken}");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn selftest_without_a_daemon_works_and_finds_a_missing_gate() {
    let lab = Lab::new("selftest-broken");
    let mut gate = Gate::start(&lab, "");
    gate.daemon.kill();
    selftest(&gate.daemon, 0);

    gate.does_by_hand(&["detach"]);
    let broken = selftest(&gate.daemon, 13);
    assert_eq!(problems(&broken), ["gate0: the filter was detached: palang attach gate0"]);
    assert!(first_line(&gate.daemon).starts_with("BROKEN "));
    assert!(!broken.to_string().contains("armed"), "{broken}");

    gate.daemon.start_again();
    gate.does(&["attach", "gate0"]);
    selftest(&gate.daemon, 0);

    // Somebody removed the pin, and another program took the place.
    gate.daemon.kill();
    fs::remove_file(gate.daemon.pins().join("links/gate0")).unwrap();
    eventually("the kernel takes it off", || {
        let mut show = lab.command_in_gate("ip");
        !run::must(show.args(["-o", "link", "show", "dev", "gate0"])).contains("prog/xdp")
    });
    let broken = selftest(&gate.daemon, 13);
    assert_eq!(problems(&broken), ["gate0: the filter is not on it"]);
    let strange = gate.daemon.pins().join("strange");
    let id = foreign_xdp::pin(&strange);
    foreign_xdp::attach(&lab, &strange);
    let broken = selftest(&gate.daemon, 13);
    let says = format!("gate0: program {id} does not use the maps in ");
    assert!(problems(&broken)[0].starts_with(&says), "{broken}");
    fs::remove_file(&strange).unwrap();

    fs::remove_dir_all(gate.daemon.pins()).unwrap();
    let broken = selftest(&gate.daemon, 13);
    assert!(problems(&broken)[0].starts_with("no filter is in force"), "{broken}");
    let refused = "default refused blocked-number, passes not-blocked, passes allowed-number";
    assert_eq!(calls(&broken), [refused], "the program of the binary was tried all the same");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn selftest_finds_a_second_look_that_is_missing_or_not_ours() {
    let lab = Lab::new("selftest-long");
    let mut gate = Gate::start(&lab, "");
    selftest(&gate.daemon, 0);
    gate.daemon.kill();
    let pin = gate.pins().second_look();
    let aside = gate.daemon.pins().join("aside");
    fs::rename(&pin, &aside).unwrap();
    let broken = selftest(&gate.daemon, 13);
    let [problem] = &problems(&broken)[..] else { panic!("{broken}") };
    assert!(problem.starts_with("the second look is not attached"), "{problem}");

    // One that judges by other maps.
    let other = palang::datapath::Pins::new(&gate.daemon.pins().join("other"));
    let mut filter = palang::datapath::Filter::load(&other, 1000).unwrap();
    filter.attach_second_look().unwrap();
    fs::rename(other.second_look(), &pin).unwrap();
    let broken = selftest(&gate.daemon, 13);
    let [problem] = &problems(&broken)[..] else { panic!("{broken}") };
    assert!(problem.starts_with("second look: program "), "{problem}");
    assert!(problem.contains(" does not use the maps in "), "{problem}");

    fs::rename(&aside, &pin).unwrap();
    selftest(&gate.daemon, 0);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn selftest_of_maps_with_another_layout_fails() {
    let lab = Lab::new("selftest-layout");
    let mut gate = Gate::start(&lab, "");
    let ours = palang_tests::lab::daemon::program();
    assert_eq!(gate.daemon.stop(), 0);
    gate.daemon.set_program(abi_upgrade::program());
    gate.daemon.start_again();
    selftest(&gate.daemon, 0);
    gate.daemon.set_program(&ours);
    let broken = selftest(&gate.daemon, 13);
    assert!(
        problems(&broken)[0].starts_with("the maps in force have a different layout"),
        "{broken}"
    );
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn selftest_of_a_user_without_permission_says_so() {
    let lab = Lab::new("selftest-rights");
    let gate = Gate::start(&lab, "");
    let nobody = ["setpriv", "--reuid", "65534", "--clear-groups"];
    let output = run::run(&mut gate.daemon.command_by(&nobody, &["selftest"]));
    assert_eq!(output.code, 5, "{output:?}");
    assert!(output.stderr.contains("sudo palang selftest"), "{output:?}");

    let without = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"];
    let mut command: Command = gate.daemon.command_by(&without, &["selftest"]);
    let output = run::run(command.env("PALANG_CONFIG", gate.daemon.config_file()));
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("CAP_SYS_ADMIN"), "{output:?}");
}
