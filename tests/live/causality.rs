//! An answer shows what is in force: no INVITE sent after it meets an older state.

use std::collections::BTreeMap;

use palang_tests::lab::{Daemon, Lab, Record, Traffic, now, run};

use crate::api::Api;

/// The one who is blocked and freed again, and those who never are.
const X: &str = "+6281234567890";
const INNOCENT: [&str; 3] = ["0812-0000-0001", "+62811200002", "110"];
const CALLERS: [&str; 4] = [X, INNOCENT[0], INNOCENT[1], INNOCENT[2]];

/// Times between which X surely was refused, or surely was not; each starts after the answer to
/// a command and ends before the next command.
#[derive(Default)]
struct Spans(Vec<(u64, u64, bool)>);

impl Spans {
    /// Notes that from the end of this command on X is `refused`, and waits until X has sent some
    /// INVITEs since.
    fn change<T>(&mut self, traffic: &Traffic, refused: bool, command: impl FnOnce() -> T) -> T {
        if let Some(last) = self.0.last_mut() {
            last.1 = now();
        }
        let answer = command();
        self.0.push((now(), u64::MAX, refused));
        traffic.wait_for(4 * CALLERS.len());
        answer
    }

    /// Compares with what became of X's INVITEs. How many surely met the gate within a span:
    /// refused ones, and others.
    fn compare(&self, record: &Record) -> (usize, usize) {
        let spans = self.0.iter().map(|(start, end, refused)| (*start, (*end, *refused)));
        let spans: BTreeMap<_, _> = spans.collect();
        let (mut refused, mut passed) = (0, 0);
        for invite in record.sent(X, ..) {
            let Some((start, (end, wanted))) = spans.range(..=invite.sent_at).next_back() else {
                continue;
            };
            if invite.judged_by > *end {
                continue;
            }
            let found = invite.arrived_at.is_none();
            assert_eq!(found, *wanted, "sent {} ns after the answer", invite.sent_at - start);
            if found { refused += 1 } else { passed += 1 }
        }
        (refused, passed)
    }
}

/// Returns how many INVITEs the others sent.
fn nobody_innocent_is_lost(record: &Record) -> usize {
    INNOCENT
        .iter()
        .map(|caller| {
            assert_eq!(record.refused(caller, ..).len(), 0, "{caller}");
            record.delivered(caller, ..).len()
        })
        .sum()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn block_is_in_force_from_its_answer_until_its_removal() {
    const ROUNDS: usize = 1000;
    let lab = Lab::new("rounds");
    let daemon = Daemon::start(&lab, "");
    let api = Api::of(&daemon);
    api.enforce();
    let receiver = lab.receiver(5060);
    let traffic = lab.traffic(&receiver, &CALLERS, 12_000, 2_000_000);
    let mut spans = Spans::default();
    for _ in 0..ROUNDS {
        spans.change(&traffic, true, || api.block(X, 3600));
        spans.change(&traffic, false, || api.unblock(X));
    }
    while traffic.count() < 140_000 {
        traffic.wait_for(100);
    }
    let record = traffic.stop();
    let (refused, passed) = spans.compare(&record);
    assert!(refused > ROUNDS && passed > ROUNDS, "{refused} refused, {passed} passed");
    let innocent = nobody_innocent_is_lost(&record);
    assert!(innocent >= 100_000, "only {innocent}");
    assert_eq!(api.status().drift, 0);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn block_by_the_cli_or_for_a_prefix_is_in_force_from_its_answer_on() {
    const ROUNDS: usize = 20;
    let lab = Lab::new("cli");
    let daemon = Daemon::start(&lab, "");
    let cli = |arguments: &[&str]| run::must(&mut daemon.command(arguments));
    cli(&["mode", "enforce"]);
    let receiver = lab.receiver(5060);
    let traffic = lab.traffic(&receiver, &CALLERS, 2_000, 1_000_000);
    let mut spans = Spans::default();
    for round in 0..ROUNDS {
        // X as its subscribers write it, and a prefix of it.
        let number = if round % 2 == 0 { "0812-3456-7890" } else { "+62812345*" };
        spans.change(&traffic, true, || {
            cli(&["block", "add", number, "--for", "1h", "--reason", "a test"])
        });
        spans.change(&traffic, false, || cli(&["block", "remove", number]));
    }
    let record = traffic.stop();
    let (refused, passed) = spans.compare(&record);
    assert!(refused > ROUNDS && passed > ROUNDS, "{refused} refused, {passed} passed");
    nobody_innocent_is_lost(&record);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn allow_override_and_observe_let_a_blocked_number_pass_while_in_force() {
    const ROUNDS: usize = 50;
    let lab = Lab::new("over");
    let daemon = Daemon::start(&lab, "");
    let api = Api::of(&daemon);
    api.enforce();
    let receiver = lab.receiver(5060);
    let traffic = lab.traffic(&receiver, &CALLERS, 4_000, 1_000_000);
    let mut spans = Spans::default();
    spans.change(&traffic, true, || api.block(X, 3600));
    for round in 0..ROUNDS {
        let number = if round % 2 == 0 { X } else { "+628123*" };
        spans.change(&traffic, false, || api.allow(number));
        spans.change(&traffic, true, || api.disallow(number));
        spans.change(&traffic, false, || api.set_override(3600));
        spans.change(&traffic, true, || api.set_override(0));
        spans.change(&traffic, false, || api.observe());
        spans.change(&traffic, true, || api.enforce());
    }
    let record = traffic.stop();
    let (refused, passed) = spans.compare(&record);
    assert!(refused > 3 * ROUNDS && passed > 3 * ROUNDS, "{refused} refused, {passed} passed");
    nobody_innocent_is_lost(&record);
}
