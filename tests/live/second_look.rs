//! Calls whose headers do not fit one frame: the host puts them together, and the second look judges them.

use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use palang_tests::common::packet::fragments;
use palang_tests::common::planted::write_palang;
use palang_tests::lab::daemon::program;
use palang_tests::lab::{Daemon, GATE, INTERFACE, Lab, Raw, Sender, TRUNK, now, run};
use serde_json::Value;

use crate::gate::{Gate, eventually};

const BLOCKED: &str = "+6281200000001";
const INNOCENT: &str = "+6281200000002";

/// Returns an INVITE whose headers are about this long, and its Call-ID.
fn long(caller: &str, headers: usize) -> (String, String) {
    let call_id = format!("{}-{headers}", now());
    let message = format!(
        "INVITE sip:112@psap.example SIP/2.0\r\nX-Long: {}\r\nFrom: <sip:{caller}@x>;tag=1\r\n\
         To: <sip:112@psap.example>\r\nCall-ID: {call_id}\r\nCSeq: 1 INVITE\r\n\r\nv=0\r\n",
        "x".repeat(headers)
    );
    (message, call_id)
}

/// A telephone that sends long INVITEs.
struct Telephone<'a> {
    gate: &'a Gate<'a>,
    sender: Sender,
}

impl Telephone<'_> {
    fn of<'a>(gate: &'a Gate<'a>) -> Telephone<'a> {
        Telephone { gate, sender: gate.lab.sender() }
    }

    /// Sends an INVITE, then a mark that is let through in any case. Returns whether the INVITE arrived, and
    /// its Call-ID.
    fn call(&self, caller: &str, headers: usize, ipv6: bool) -> (bool, String) {
        let (message, call_id) = long(caller, headers);
        let send = |text: &str| match ipv6 {
            false => self.sender.send(5060, text.as_bytes()),
            true => self.sender.send6(5060, text.as_bytes()),
        };
        send(&message).unwrap();
        let mark = format!("mark-{}", now());
        send(&format!("OPTIONS sip:112@x SIP/2.0\r\nCall-ID: {mark}\r\n\r\n")).unwrap();
        let receiver = self.gate.receiver();
        let marked = receiver.wait_for(Duration::from_secs(5), |arrival| arrival.call_id() == mark);
        assert!(marked.is_some(), "the way from trunk to gate is cut");
        let arrived = receiver.arrivals().iter().any(|arrival| arrival.call_id() == call_id);
        (arrived, call_id)
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn long_calls_in_fragments_are_judged_whole_and_recorded() {
    let lab = Lab::new("long");
    let gate = Gate::start(&lab, "");
    gate.does(&["block", "add", BLOCKED, "--for", "1h", "--reason", "prank"]);
    let telephone = Telephone::of(&gate);
    let mut refused = Vec::new();
    for ipv6 in [false, true] {
        for headers in [100, 1_500, 2_400, 8_000, 15_000] {
            let (arrived, call_id) = telephone.call(BLOCKED, headers, ipv6);
            assert!(!arrived, "blocked, {headers} bytes, IPv6 {ipv6}");
            refused.push(call_id);
            let (arrived, _) = telephone.call(INNOCENT, headers, ipv6);
            assert!(arrived, "innocent, {headers} bytes, IPv6 {ipv6}");
        }
    }
    assert_eq!(gate.findings(), [""; 0]);
    // A record may count several refusals of one caller.
    eventually("each refused call is in a record", || {
        let calls = gate.rows(&["calls", "--caller", BLOCKED]);
        let known = |call: &Value| refused.iter().any(|call_id| call["call_id"] == **call_id);
        assert!(calls.iter().all(|call| call["reason"] == "blocked-number" && known(call)));
        let attempts = calls.iter().filter_map(|call| call["attempts"].as_u64());
        attempts.sum::<u64>() == refused.len() as u64
    });

    // Longer headers than an offset can name are not read.
    let (arrived, _) = telephone.call(BLOCKED, 30_000, false);
    assert!(arrived);
    let status = gate.does(&["status"]);
    assert_eq!(status["packets"]["headers-cut"], 1, "{}", status["packets"]);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn second_look_outlives_the_daemon_and_leaves_with_the_filter() {
    let lab = Lab::new("long-life");
    let mut gate = Gate::start(&lab, "");
    gate.does(&["block", "add", BLOCKED, "--for", "1h", "--reason", "prank"]);
    let passes = |gate: &Gate, caller| Telephone::of(gate).call(caller, 2_400, false).0;
    assert!(!passes(&gate, BLOCKED));
    gate.daemon.kill();
    assert!(!passes(&gate, BLOCKED), "the daemon is dead");
    assert!(passes(&gate, INNOCENT), "the daemon is dead");
    gate.daemon.start_again();
    assert!(!passes(&gate, BLOCKED), "another daemon");

    gate.does(&["override", "on", "--for", "1h", "--reason", "fire"]);
    assert!(passes(&gate, BLOCKED), "override");
    gate.does(&["override", "off"]);
    gate.does(&["detach", INTERFACE]);
    assert!(passes(&gate, BLOCKED), "detached");
    assert!(!gate.pins().has_second_look());
    gate.does(&["attach", INTERFACE]);
    eventually("the second look is attached again", || gate.pins().has_second_look());
    assert!(!passes(&gate, BLOCKED), "attached again");

    // By hand.
    std::fs::remove_file(gate.pins().second_look()).unwrap();
    eventually("it comes back", || gate.pins().has_second_look());
    eventually("and judges", || !passes(&gate, BLOCKED));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn calls_that_cannot_be_read_turn_the_status_amber_and_are_listed() {
    let lab = Lab::new("unread");
    let gate = Gate::start(&lab, "");
    // No number of any country begins with 0 after the prefix of this one.
    for _ in 0..6 {
        assert!(gate.passes("00812345678"));
        assert!(gate.passes(INNOCENT));
        assert!(gate.passes("alice"), "no number, but nothing to set");
    }
    let findings = gate.findings();
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    let start =
        "amber: trunk default: 6 of 18 calls in the last hour passed unread (ambiguous-number 6)";
    assert!(finding.starts_with(start), "{finding}");
    eventually("each unread call has a record", || {
        let unread = gate.rows(&["calls", "--unread", "--trunk", "default"]);
        let reasons = |name: &str| unread.iter().filter(|call| call["reason"] == name).count();
        reasons("ambiguous-number") == 6 && reasons("not-a-number") == 6 && unread.len() == 12
    });
}

/// Returns the finding that there is no second look, if there is one.
fn missing(gate: &Gate) -> Option<String> {
    gate.findings().into_iter().find(|finding| finding.contains("pass unread, as `headers-cut`"))
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn second_look_that_cannot_be_attached_is_tried_again() {
    let lab = Lab::new("again");
    let mut daemon = Daemon::prepare(&lab, "");
    // In mounts of its own: the control groups are mounted only later.
    let without =
        ["unshare", "--mount", "sh", "-c", "umount -l -a -t cgroup2 && exec \"$@\"", "sh"];
    daemon.spawn_by(&without, &[]);
    daemon.wait_for_answer();
    let gate = Gate::of(&lab, daemon);
    gate.does(&["mode", "enforce"]);
    gate.does(&["block", "add", BLOCKED, "--for", "1h", "--reason", "prank"]);
    eventually("status names the reason", || {
        let why = "no file system of the type cgroup2 is mounted; the daemon tries again";
        missing(&gate).is_some_and(|finding| finding.contains(why))
    });
    let passes = |gate: &Gate| Telephone::of(gate).call(BLOCKED, 2_400, false).0;
    assert!(passes(&gate), "nothing reads it");

    let folder = gate.daemon.folder().join("cgroup");
    std::fs::create_dir(&folder).unwrap();
    let mut mount = std::process::Command::new("nsenter");
    mount.args(["--mount", "--target", &gate.daemon.pid().to_string()]);
    run::must(mount.args(["mount", "-t", "cgroup2", "none"]).arg(&folder));
    eventually("the daemon attaches it", || missing(&gate).is_none());
    assert!(!passes(&gate));
    let said = gate.daemon.stderr();
    assert_eq!(said.matches("whole datagrams is not attached").count(), 1, "{said}");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn kernel_that_refuses_the_second_look_is_named_as_the_reason() {
    let lab = Lab::new("refused");
    let mut daemon = Daemon::prepare(&lab, "");
    let planted = daemon.folder().join("palang-planted");
    write_palang(&program(), &planted, &["palang_second_look"]);
    daemon.set_program(&planted);
    daemon.start_again();
    let gate = Gate::of(&lab, daemon);
    eventually("status names the kernel", || missing(&gate).is_some());
    let finding = missing(&gate).unwrap();
    assert!(finding.contains("refuses the second look ("), "{finding}");
    assert!(!finding.contains("tries again"), "{finding}");
}

/// Calls of a round of the test below.
const ROUND: usize = 1_000;

/// Returns the number of rounds: four, or as many as `cargo xtask fragments` wants.
fn rounds() -> usize {
    let calls = std::env::var("PALANG_FRAGMENTED_CALLS").ok();
    calls.and_then(|calls| calls.parse::<usize>().ok()).map_or(4, |calls| calls.div_ceil(ROUND))
}

/// How long the gate remembers a refused fragment, and a little more.
const IDS_AGAIN: Duration = Duration::from_millis(2_100);

// Finding A4: the rest of a refused datagram must not be put together with a later datagram.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn fragments_out_of_order_with_ids_used_again_lose_no_innocent() {
    let lab = Lab::new("reordered");
    let gate = Gate::start(&lab, "");
    gate.does(&["block", "add", BLOCKED, "--for", "1h", "--reason", "prank"]);
    // By default Linux forgets a fragment after 64 others of its source, as few as 30 calls here.
    let keep = ["-qw", "net.ipv4.ipfrag_max_dist=0"];
    run::must(lab.command_in_gate("sysctl").args(keep));
    let (raw, telephone) = (Raw::of(&lab), Telephone::of(&gate));
    let mut sent = 0;
    let mut call_ids = [Vec::new(), Vec::new()];
    // Per id, not per round: a round that is held up in its middle comes nearer to the next one.
    let mut last_used = vec![None::<Instant>; ROUND];
    for round in 0..rounds() {
        for id in 0..ROUND as u32 {
            let last = last_used[id as usize].map_or(IDS_AGAIN, |last| last.elapsed());
            std::thread::sleep(IDS_AGAIN.saturating_sub(last));
            // An id that was a blocked caller's is an innocent one's in the next round.
            let who = (id as usize + round) % 2;
            let caller = [BLOCKED, INNOCENT][who];
            let headers = if id % 4 < 2 { 900 } else { 1_600 };
            let (mut message, call_id) = long(caller, headers);
            // The last fragments of two datagrams differ, so a mixture has a wrong checksum.
            message += &call_id.repeat(100)[..2_000 - message.len()];
            call_ids[who].push(call_id);
            let mut frame = Vec::new();
            PacketBuilder::ethernet2([2; 6], [4; 6])
                .ipv4(TRUNK.octets(), GATE.octets(), 64)
                .udp(5060, 5060)
                .write(&mut frame, message.as_bytes())
                .unwrap();
            let mut parts = fragments(&frame, id + 1, &[1_480]);
            // One in twenty comes the other way round. Of one in thirty the first fragment comes twice. The last
            // one does not: after a whole datagram it would spoil the next one without any gate.
            if id % 20 < 2 {
                parts.reverse();
            } else if id % 30 < 2 {
                parts.insert(1, parts[0].clone());
            }
            parts.iter().for_each(|part| raw.send(part, GATE));
            last_used[id as usize] = Some(Instant::now());
            sent += 1;
            if sent % 20 == 0 {
                let (arrived, _) = telephone.call(INNOCENT, 20, false);
                assert!(arrived);
            }
        }
    }
    let arrivals = gate.receiver().arrivals();
    let arrived: std::collections::HashSet<_> =
        arrivals.iter().map(|arrival| arrival.call_id()).collect();
    let passed = call_ids.map(|ids| ids.iter().filter(|id| arrived.contains(id.as_str())).count());
    let each = rounds() * ROUND / 2;
    assert_eq!(passed, [0, each], "blocked and innocent calls that arrived, of {each} each");
}
