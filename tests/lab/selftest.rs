//! The lab reports the truth: the tests of the whole system rest on it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use palang_tests::lab::{INTERFACE, Lab, now, run};

const CALLERS: [&str; 4] = ["+6281200000001", "0812-0000-0002", "110", "+6281200000004"];

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn traffic_without_a_filter_arrives_in_order() {
    let lab = Lab::new("complete");
    let receiver = lab.receiver(5060);
    let before = now();
    let record = lab.traffic(&receiver, &CALLERS, 20_000, 20_000).finish();
    let after = now();

    assert_eq!(record.invites.len(), 20_000);
    assert_eq!((record.lost_by_lab, record.unsendable), (0, 0));
    let mut last = before;
    for (index, invite) in record.invites.iter().enumerate() {
        assert_eq!(invite.sequence, index);
        assert_eq!(&*invite.caller, CALLERS[index % CALLERS.len()]);
        let arrived_at = invite.arrived_at.expect("arrived");
        assert!(last <= invite.sent_at && invite.sent_at < arrived_at && arrived_at < after);
        assert!(invite.judged_by <= arrived_at);
        last = invite.sent_at;
    }
    let call_ids: HashSet<_> = record.invites.iter().map(|invite| &invite.call_id).collect();
    assert_eq!(call_ids.len(), 20_000);
    for caller in CALLERS {
        assert_eq!(record.delivered(caller, ..).len(), 5_000);
        assert_eq!(record.refused(caller, ..).len(), 0);
    }
}

// A filter of the kernel's own replaces the gate: it drops every INVITE, and no OPTIONS.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn lost_invite_is_reported_by_caller_and_time() {
    // Classic BPF: `ld [42]` (after Ethernet, IPv4 and UDP), is it "INVI", then TC_ACT_SHOT.
    const INVITE: &str = "4,32 0 0 42,21 0 1 1229870665,6 0 0 2,6 0 0 0";
    let lab = Lab::new("refused");
    let receiver = lab.receiver(5060);
    let tc = |arguments: &str| {
        run::must(lab.command_in_gate("tc").args(arguments.split(' ')));
    };
    tc("qdisc add dev gate0 clsact");
    let traffic = lab.traffic(&receiver, &CALLERS, 5_000, 1_000_000);
    traffic.wait_for(2_000);

    let blocking = now();
    let filter = ["filter", "add", "dev", "gate0", "ingress", "bpf", "da", "bytecode", INVITE];
    run::must(lab.command_in_gate("tc").args(filter));
    let blocked = now();
    traffic.wait_for(2_000);
    let freeing = now();
    tc("filter del dev gate0 ingress");
    let freed = now();
    traffic.wait_for(2_000);
    let record = traffic.stop();

    assert_eq!(record.lost_by_lab, 0, "what a filter drops is not the lab's loss");
    for caller in CALLERS {
        for (start, end) in [(0, blocking), (freed, u64::MAX)] {
            assert!(record.delivered(caller, start..=end).len() > 300);
            assert_eq!(record.refused(caller, start..=end).len(), 0);
        }
        assert!(record.refused(caller, blocked..freeing).len() > 300);
        assert_eq!(record.delivered(caller, blocked..freeing).len(), 0);
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn one_receiver_keeps_two_traffics_and_both_address_families_apart() {
    let lab = Lab::new("apart");
    let receiver = lab.receiver(5070);
    let first = lab.traffic(&receiver, &CALLERS[..1], 3_000, 3_000);
    let second = lab.traffic(&receiver, &CALLERS[1..2], 3_000, 3_000);
    lab.sender().send6(5070, b"over IPv6").expect("sent");
    let (first, second) = (first.finish(), second.finish());
    assert_eq!(first.delivered(CALLERS[0], ..).len(), 3_000);
    assert_eq!(second.delivered(CALLERS[1], ..).len(), 3_000);
    let six = receiver.wait_for(Duration::from_secs(10), |one| one.message == "over IPv6");
    assert!(six.is_some());
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn traffic_survives_the_interface() {
    let lab = Lab::new("interface");
    let receiver = lab.receiver(5060);
    let index = || lab.in_gate(|| if_nametoindex(INTERFACE)).expect("an interface");
    let traffic = lab.traffic(&receiver, &CALLERS, 2_000, 1_000_000);
    traffic.wait_for(200);
    let before = index();
    lab.delete_veth();
    std::thread::sleep(Duration::from_millis(20));
    lab.create_veth();
    let there_again = now();
    assert_ne!(before, index(), "the same interface");
    traffic.wait_for(400);
    lab.delete_and_recreate_veth();
    let and_again = now();
    traffic.wait_for(400);
    let record = traffic.stop();
    assert!(record.unsendable > 0);
    assert!(record.delivered(CALLERS[0], there_again..).len() > 100);
    assert!(record.delivered(CALLERS[0], and_again..).len() > 50);
    assert_eq!(record.refused(CALLERS[0], and_again..).len(), 0);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn dropped_lab_leaves_no_namespace_or_pin() {
    let prefix = format!("palang-{}-", std::process::id());
    let left = || {
        let entries = std::fs::read_dir("/run/netns").expect("/run/netns");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names
            .filter(|name| {
                let name = name.to_string_lossy();
                name.starts_with(&prefix) && name.contains("-leaves-nothing-")
            })
            .count()
    };
    let lab = Lab::new("leaves-nothing");
    let other = Lab::new("leaves-nothing");
    assert_eq!(left(), 4, "two labs side by side");
    let mut sleeper = lab.command_in_gate("sleep").arg("1000").spawn().expect("sleep");
    // Until nsenter has become sleep, it is not inside.
    let exe = PathBuf::from(format!("/proc/{}/exe", sleeper.id()));
    while !std::fs::read_link(&exe).is_ok_and(|exe| exe.ends_with("sleep")) {
        std::thread::yield_now();
    }
    drop(lab);
    assert_eq!(left(), 2);
    let status = sleeper.try_wait().expect("waitpid");
    assert!(status.is_some_and(|status| !status.success()), "the lab's process goes on");
    drop(other);
    assert_eq!(left(), 0);
}
