//! Frames for another machine: judged only where the configuration says that they are forwarded.

use palang_tests::lab::{GATE, INTERFACE, Lab, TRUNK_INTERFACE, message, run};

use crate::gate::{Gate, eventually};

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn frames_for_another_machine_are_judged_only_where_they_are_forwarded() {
    let lab = Lab::new("forwarded");
    let gate = Gate::start(&lab, "forwarded = false");
    let blocked = "+6281200000001";
    gate.does(&["block", "add", blocked, "--for", "1h", "--reason", "prank"]);
    let count = |reason: &str| gate.does(&["status"])["packets"][reason].as_u64().unwrap_or(0);
    assert!(!gate.passes(blocked), "the gate's own address");
    assert_eq!((count("blocked-number"), count("other-machine")), (1, 0));
    let neighbour = |address: &str| {
        let gate = GATE.to_string();
        let mut command = lab.command_in_trunk("ip");
        command.args(["neigh", "replace", &gate, "lladdr", address, "dev", TRUNK_INTERFACE]);
        assert_eq!(run::run(&mut command).code, 0);
    };
    let sender = lab.sender();
    let send = |name: &str| {
        for index in 0..6 {
            let invite = message::invite(blocked, &format!("{index}@{name}"));
            sender.send(5060, invite.as_bytes()).unwrap();
        }
    };
    neighbour("02:00:00:00:09:99");
    send("other");
    eventually("they are counted", || count("other-machine") == 6);
    assert_eq!(count("blocked-number"), 1);
    let findings = gate.findings();
    assert!(
        findings[0].starts_with("amber: 6 INVITEs in the last hour passed with other-machine"),
        "{findings:?}"
    );

    // Another interface of this machine gets the address.
    let mut command = lab.command_in_gate("ip");
    command.args(["link", "add", "link", INTERFACE, "vrrp", "address", "02:00:00:00:09:99"]);
    command.args(["type", "macvlan"]);
    assert_eq!(run::run(&mut command).code, 0);
    eventually("the address is known", || {
        send("macvlan");
        count("blocked-number") > 1
    });
    neighbour("02:00:00:00:09:98");
    gate.daemon.configure("");
    gate.daemon.signal("HUP");
    eventually("all frames are judged", || {
        let before = (count("blocked-number"), count("other-machine"));
        send("all");
        (count("blocked-number"), count("other-machine")) == (before.0 + 6, before.1)
    });
}
