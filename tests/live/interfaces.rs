//! Interfaces come and go, others use them, people take the filter off: it follows, and says so.

use std::fs;
use std::net::{SocketAddr, UdpSocket};

use palang::api::wire::{Health, Interface};
use palang_tests::lab::{Daemon, INTERFACE, Lab, Receiver, foreign_xdp, now, run};

use crate::api::{Api, SOON, eventually};

const BLOCKED: &str = "+6281200000001";
const INNOCENT: &str = "+6281200000002";
const CALLERS: [&str; 2] = [BLOCKED, INNOCENT];

/// The gate's second interface, its address, and that of its trunk.
const SECOND: &str = "gate1";
const SECOND_ADDRESS: &str = "10.113.0.2";
const SECOND_TRUNK: &str = "10.113.0.1";

/// Waits until the filter is on an interface.
fn attached(api: &Api, name: &str) -> Interface {
    eventually("the filter on the interface", || {
        let interface = api.interface(name);
        interface.xdp.is_some().then_some(interface)
    })
}

fn ip(lab: &Lab, arguments: &str) {
    run::must(lab.command_in_gate("ip").args(arguments.split(' ')));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn an_interface_without_ethernet_headers_is_refused_with_the_reason() {
    let lab = Lab::new("tunnel");
    ip(&lab, "tuntap add tun0 mode tun");
    ip(&lab, "link set tun0 up");
    let daemon = Daemon::start(&lab, "");
    let refused = daemon.cli(&["attach", "tun0"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("tun0 have no Ethernet header"), "{refused:?}");
    let links = run::must(lab.command_in_gate("ip").args(["link", "show", "tun0"]));
    assert!(!links.contains("xdp"), "{links}");
}

/// Creates another pair between trunk and gate.
fn add_second(lab: &Lab) {
    let queues = "numtxqueues 1 numrxqueues 1";
    ip(lab, &format!("link add gate1 {queues} type veth peer name trunk1 {queues}"));
    // Its other end goes to the process that is in the trunk's namespace just now.
    let mut sleeper = lab.command_in_trunk("sleep").arg("60").spawn().expect("sleep");
    let exe = format!("/proc/{}/exe", sleeper.id());
    eventually("sleep in the trunk's namespace", || {
        fs::read_link(&exe).is_ok_and(|exe| exe.ends_with("sleep")).then_some(())
    });
    ip(lab, &format!("link set trunk1 netns {}", sleeper.id()));
    sleeper.kill().expect("SIGKILL");
    sleeper.wait().expect("waitpid");
    ip(lab, &format!("addr add {SECOND_ADDRESS}/24 dev gate1"));
    ip(lab, "link set gate1 up");
    for arguments in [&format!("addr add {SECOND_TRUNK}/24 dev trunk1"), "link set trunk1 up"] {
        run::must(lab.command_in_trunk("ip").args(arguments.split(' ')));
    }
}

/// Returns whether an INVITE to the second interface arrives. An innocent one after it shows
/// when it would have.
fn passes_second(lab: &Lab, receiver: &Receiver, caller: &str) -> bool {
    let to: SocketAddr = format!("{SECOND_ADDRESS}:5060").parse().expect("an address");
    let socket = lab.in_trunk(|| UdpSocket::bind((SECOND_TRUNK, 0))).expect("a socket");
    let call_id = format!("second-{}", now());
    for (caller, call_id) in [(caller, call_id.clone()), (INNOCENT, call_id.clone() + "-after")] {
        let message = format!(
            "INVITE sip:112@{to} SIP/2.0\r\nFrom: <sip:{caller}@trunk>;tag=1\r\n\
             To: <sip:112@{to}>\r\nCall-ID: {call_id}\r\nCSeq: 1 INVITE\r\n\r\n"
        );
        socket.send_to(message.as_bytes(), to).expect("sent");
    }
    let after = receiver.wait_for(SOON, |one| one.call_id() == call_id.clone() + "-after");
    after.expect("the innocent one");
    receiver.arrivals().iter().any(|one| one.call_id() == call_id)
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn interface_created_again_gets_the_filter_again() {
    let lab = Lab::new("anew");
    let mut daemon = Daemon::start(&lab, "");
    let api = Api::of(&daemon);
    api.enforce();
    api.block(BLOCKED, 3600);
    let receiver = lab.receiver(5060);
    let traffic = lab.traffic(&receiver, &CALLERS, 2_000, 1_000_000);
    traffic.wait_for(100);
    let before = api.interface(INTERFACE);

    let made_anew = |count: u64, audited: usize| {
        let interface = attached(&api, INTERFACE);
        assert_eq!(interface.xdp.as_deref(), Some("native"));
        assert_eq!(interface.problem, None);
        assert_eq!(api.status().reattached, count);
        let wanted =
            |row: &&serde_json::Value| row["action"] == "reattach" && row["interface"] == INTERFACE;
        // Attached first, written down then.
        eventually("its audit row", || {
            (api.audit().iter().filter(wanted).count() == audited).then_some(())
        });
        let from = now();
        traffic.wait_for(100);
        (from, interface)
    };
    lab.delete_veth();
    eventually("that it is gone", || api.interface(INTERFACE).index.is_none().then_some(()));
    assert_eq!(api.status().colour, Health::Red);
    lab.create_veth();
    let first = made_anew(1, 1);
    assert_ne!(first.1.index, before.index);
    assert_eq!(first.1.program, before.program);

    let again = now();
    lab.delete_and_recreate_veth();
    eventually("another index", || (api.interface(INTERFACE).index > first.1.index).then_some(()));
    let second = made_anew(2, 2);

    // The pin leads nowhere when the daemon comes back.
    daemon.kill();
    let once_more = now();
    lab.delete_and_recreate_veth();
    daemon.start_again();
    let third = made_anew(0, 2);

    let record = traffic.stop();
    for (start, end) in [(first.0, again), (second.0, once_more), (third.0, u64::MAX)] {
        assert!(!record.refused(BLOCKED, start..end).is_empty());
        assert_eq!(record.delivered(BLOCKED, start..end).len(), 0);
        assert!(!record.delivered(INNOCENT, start..end).is_empty());
        assert_eq!(record.refused(INNOCENT, start..end).len(), 0);
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn foreign_program_on_the_interface_is_named_and_not_replaced() {
    for mode in ["xdpdrv", "xdpgeneric"] {
        let lab = Lab::new("strange");
        let mut daemon = Daemon::prepare(&lab, "");
        let pin = daemon.pins().join("strange");
        fs::create_dir_all(daemon.pins()).expect("a folder for the pin");
        let id = foreign_xdp::pin(&pin);
        ip(&lab, &format!("link set dev {INTERFACE} {mode} pinned {}", pin.display()));
        daemon.start_again();
        let api = Api::of(&daemon);

        let interface = api.interface(INTERFACE);
        assert_eq!((interface.xdp, interface.program), (None, Some(id)), "{mode}");
        let problem = interface.problem.expect("a problem");
        assert!(problem.contains(&format!("id {id}")), "{problem}");
        assert_eq!(api.status().colour, Health::Red);
        let said = daemon.cli(&["attach", INTERFACE]);
        assert_eq!(said.code, 1, "{}", said.stderr);
        assert!(said.stderr.contains(&format!("id {id}")), "{}", said.stderr);

        ip(&lab, &format!("link set dev {INTERFACE} {mode} off"));
        let interface = attached(&api, INTERFACE);
        assert_eq!((interface.xdp.as_deref(), interface.problem), (Some("native"), None));
        assert_ne!(interface.program, Some(id));

        // The fault of then is not the fault of now.
        lab.delete_veth();
        let problem = eventually("that it is gone", || {
            let interface = api.interface(INTERFACE);
            interface.index.is_none().then(|| interface.problem.expect("a problem"))
        });
        assert!(problem.contains("there is no interface"), "{problem}");
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn generic_mode_is_used_only_when_asked_for() {
    let lab = Lab::new("generic");
    // `lo` has no native XDP.
    let interfaces = "interfaces = [\"lo\", \"gate0\"]";
    let mut daemon = Daemon::start(&lab, interfaces);
    let api = Api::of(&daemon);
    let interface = api.interface("lo");
    assert_eq!((interface.xdp, interface.program), (None, None));
    let problem = interface.problem.expect("a problem");
    assert!(problem.contains("no native XDP"), "{problem}");
    assert_eq!(api.interface(INTERFACE).xdp.as_deref(), Some("native"));
    assert_eq!(daemon.cli(&["attach", "lo"]).code, 1);
    assert_eq!(daemon.cli(&["attach", "lo", "--mode", "native"]).code, 1);

    let told = api.attach("lo", Some("generic")).expect("generic works everywhere");
    assert_eq!((told.xdp.as_deref(), told.problem), (Some("generic"), None));
    let status = api.status();
    assert_eq!(status.colour, Health::Amber);
    assert!(status.findings[0].message.contains("generic"), "{:?}", status.findings);

    for (mode, on_veth) in [("native-or-generic", "native"), ("generic", "generic")] {
        run::must(&mut daemon.command(&["detach"]));
        daemon.stop();
        fs::remove_dir_all(daemon.pins()).expect("the pins");
        daemon.configure(&format!("{interfaces}\nxdp_mode = \"{mode}\""));
        daemon.start_again();
        assert_eq!(api.interface("lo").xdp.as_deref(), Some("generic"), "{mode}");
        assert_eq!(api.interface(INTERFACE).xdp.as_deref(), Some(on_veth), "{mode}");
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn detached_filter_stays_off_until_attach() {
    let lab = Lab::new("off");
    add_second(&lab);
    let mut daemon = Daemon::start(&lab, "interfaces = [\"gate0\", \"gate1\"]");
    let api = Api::of(&daemon);
    api.enforce();
    api.block(BLOCKED, 3600);
    let receiver = lab.receiver(5060);
    let traffic = lab.traffic(&receiver, &CALLERS, 2_000, 1_000_000);
    traffic.wait_for(100);
    assert!(!passes_second(&lab, &receiver, BLOCKED));

    let pin = daemon.pins().join("links").join(INTERFACE);
    // When it was off, and when it was on again.
    let mut spans = Vec::new();
    let hands: [&dyn Fn(); 3] = [
        &|| drop(api.detach(INTERFACE)),
        &|| drop(run::must(&mut daemon.command(&["detach", INTERFACE]))),
        &|| {
            fs::remove_file(&pin).expect("the pin");
            // The kernel takes its time.
            eventually("that it is off", || api.interface(INTERFACE).xdp.is_none().then_some(()));
        },
    ];
    for take_off in hands {
        take_off();
        let off = now();
        let problem = eventually("what is told of it", || api.interface(INTERFACE).problem);
        assert!(problem.contains("detached by hand"), "{problem}");
        // The other interface is made again: the task that attaches that one looks at this one, too.
        let before = api.status().reattached;
        ip(&lab, "link del gate1");
        add_second(&lab);
        eventually("the other one", || (api.status().reattached > before).then_some(()));
        assert!(!passes_second(&lab, &receiver, BLOCKED));
        assert_eq!(api.interface(INTERFACE).xdp, None);
        traffic.wait_for(100);
        let attaching = now();
        run::must(&mut daemon.command(&["attach", INTERFACE]));
        let on = now();
        assert_eq!(api.interface(INTERFACE).xdp.as_deref(), Some("native"));
        traffic.wait_for(100);
        spans.push((off, attaching, on, now()));
    }
    let audit = api.audit();
    let count = |action| {
        let wanted =
            |row: &&serde_json::Value| row["action"] == action && row["interface"] == INTERFACE;
        audit.iter().filter(wanted).count()
    };
    assert_eq!((count("detach"), count("attach"), count("reattach")), (3, 3, 0));

    // By hand, with no daemon; the next one does not put it back.
    daemon.kill();
    run::must(daemon.command(&["detach", SECOND]).env("PALANG_CONFIG", daemon.config_file()));
    assert!(passes_second(&lab, &receiver, BLOCKED));
    daemon.start_again();
    assert_eq!(api.interface(SECOND).xdp, None);
    assert!(passes_second(&lab, &receiver, BLOCKED));
    api.attach(SECOND, None).expect("attached");
    assert!(!passes_second(&lab, &receiver, BLOCKED));

    let record = traffic.stop();
    for (off, attaching, on, end) in spans {
        assert!(!record.delivered(BLOCKED, off..attaching).is_empty());
        assert_eq!(record.refused(BLOCKED, off..attaching).len(), 0);
        assert!(!record.refused(BLOCKED, on..end).is_empty());
        assert_eq!(record.delivered(BLOCKED, on..end).len(), 0);
    }
    assert_eq!(record.refused(INNOCENT, ..).len(), 0);
}

// A BPF file system takes no dot in the name of a pin, and VLAN interfaces have one.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn interface_with_a_dot_in_its_name_is_attached_and_amber_without_a_carrier() {
    const DOTTED: &str = "gate1.100";
    let lab = Lab::new("dotted");
    let queues = "numtxqueues 1 numrxqueues 1";
    ip(&lab, &format!("link add {DOTTED} {queues} type veth peer name far {queues}"));
    ip(&lab, &format!("link set {DOTTED} up"));
    ip(&lab, "link set far up");
    let mut daemon = Daemon::start(&lab, "[callback]\ngrace = \"1h\"");
    let api = Api::of(&daemon);
    run::must(&mut daemon.command(&["attach", DOTTED]));
    assert_eq!(attached(&api, DOTTED).xdp.as_deref(), Some("native"));
    let program = attached(&api, DOTTED).program;

    // The next daemon takes it over.
    daemon.kill();
    daemon.start_again();
    let again = attached(&api, DOTTED);
    assert_eq!((again.problem, again.carrier), (None, Some(true)));
    assert_ne!(again.program, program, "the new daemon's program");

    ip(&lab, "link set far down");
    eventually("amber", || {
        let status = api.status();
        let finding = format!("{DOTTED}: no carrier, so no call comes in by it");
        let found = status.findings.iter().find(|found| found.message.starts_with(&finding));
        found.map(|found| assert_eq!(found.colour, Health::Amber))
    });
    run::must(&mut daemon.command(&["detach", DOTTED]));
    daemon.stop();
    daemon.start_again();
    let links = run::must(lab.command_in_gate("ip").args(["link", "show", DOTTED]));
    assert!(!links.contains("xdp"), "{links}");
    assert!(daemon.pins().join("off/gate1%2E100").exists());
}
