//! The program's own memory when it is full, and when two CPUs write it at once.

use std::cmp;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use filter_common::abi::{Block, Event, Verdict};
use filter_common::number::{Digits, Number};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use palang::datapath::Replay;
use palang::model::policy::{Policy, Subject};
use palang_tests::common::gates::{plan, reason};
use palang_tests::common::packet::{Layers, crlf};

use crate::{NOW, SECOND};

/// The prefix that is blocked here.
const PREFIX: &str = "62812";

/// Returns a policy by which this many attempts in an hour open a grant of half an hour, for each number of the prefix.
fn policy(attempts: u8) -> Policy {
    let mut policy = Policy::default();
    policy.block(Subject::Prefix(Digits::parse(PREFIX).unwrap()), 0, 0);
    let block = &mut policy.blocks[0].1;
    *block = Block { redial_attempts: attempts, redial_window: 3600, redial_grant: 1800, ..*block };
    policy
}

fn number(caller: usize) -> Number {
    Number::e164(Digits::parse(&format!("{PREFIX}{caller:08}")).unwrap())
}

fn call(caller: usize, call_id: usize) -> Vec<u8> {
    Layers::IPV4.frame(&crlf(&format!(
        "INVITE sip:112@psap.example SIP/2.0\nFrom: <sip:+{}@x>\nTo: <sip:112@x>\n\
         Call-ID: {call_id}\n\n",
        number(caller)
    )))
}

/// The gate in the kernel; the one on the host has no maps that could be full.
struct Kernel(Replay);

impl Kernel {
    fn new(attempts: u8, sizes: &[(&str, u32)]) -> Kernel {
        let loaded = Replay::load_as(&plan(), &policy(attempts), sizes);
        Kernel(loaded.unwrap_or_else(|error| panic!("{error}")))
    }

    fn judge(&mut self, frame: &[u8], seconds: u64) -> Event {
        let judged = self.0.judge(frame, NOW + seconds * SECOND).unwrap();
        assert_eq!(judged.dropped, judged.event.verdict == Verdict::Drop as u8);
        judged.event
    }

    /// Judges a new call of a caller, this many seconds after the start, and returns the name of its reason.
    fn calls(&mut self, caller: usize, seconds: u64) -> &'static str {
        let event = self.judge(&call(caller, seconds as usize), seconds);
        reason(&event).name()
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_grant_that_finds_no_room_lets_through_all_the_same() {
    const ROOM: usize = 64;
    let mut kernel = Kernel::new(2, &[("GRANTS", ROOM as u32)]);
    // Numbers that are granted until there is no room.
    for seconds in [0, 10] {
        for caller in 0..ROOM {
            let told = kernel.calls(caller, seconds);
            assert_eq!(told, if seconds == 0 { "blocked-prefix" } else { "redial-grant" });
        }
    }
    assert_eq!(kernel.0.maps().grants().unwrap().len(), ROOM);

    let late = ROOM;
    assert_eq!(kernel.calls(late, 20), "blocked-prefix");
    assert_eq!(kernel.calls(late, 30), "state-full");
    assert_eq!(kernel.0.maps().grant(number(late)).unwrap(), None);
    // And so does its retransmission, and every further call: it stays the one that opens a grant.
    let again = kernel.judge(&call(late, 30), 31);
    assert_eq!(again.verdict, Verdict::Pass as u8);
    for seconds in [40, 50, 60] {
        assert_eq!(kernel.calls(late, seconds), "state-full");
    }
    let event = kernel.judge(&call(late + 1, 1_000_000), 60);
    assert_eq!(event.verdict, Verdict::Drop as u8, "a first attempt is refused, full or not");
    // Nobody else's grant went.
    for caller in 0..ROOM {
        assert_eq!(kernel.calls(caller, 70), "redial-grant", "{caller}");
    }
    // Over, but still there: one that has its place opens it again, who has none still passes.
    for seconds in [2000, 2010] {
        kernel.calls(0, seconds);
    }
    assert_eq!(kernel.calls(0, 2020), "redial-grant");
    assert_eq!(kernel.calls(late, 2020), "state-full");

    // The daemon does this now and then: ended grants go, and a caller has a place now.
    let maps = kernel.0.maps();
    let forgotten = maps.forget_grants(&maps.grants().unwrap(), NOW + 2020 * SECOND).unwrap();
    assert_eq!(forgotten, ROOM - 1);
    assert_eq!(kernel.calls(0, 2030), "redial-grant", "this one was renewed");
    assert_eq!(kernel.calls(late, 2030), "redial-grant");
    assert!(kernel.0.maps().grant(number(late)).unwrap().is_some());
}

/// Uses small maps: in maps as delivered, a million attempts are not even half of the capacity.
/// `PALANG_CASES=245` makes a million attempts.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn attempts_without_end_push_no_grant_out() {
    // Eight times as many as there is room for, at least.
    const ROOM: usize = 512;
    let sizes = [("ATTEMPTS", ROOM as u32), ("REDIALS", ROOM as u32)];
    let mut kernel = Kernel::new(3, &sizes);
    let (granted, counted) = (0, 1);
    for seconds in [0, 60, 120] {
        kernel.calls(granted, seconds);
    }
    kernel.calls(counted, 120);
    let grant = kernel.0.maps().grant(number(granted)).unwrap();
    assert!(grant.is_some());
    assert!(kernel.0.maps().redial(number(counted)).unwrap().is_some());
    let more = std::env::var("PALANG_CASES").map_or(1, |more| more.parse().expect("a number"));
    for caller in 2..8 * ROOM * more {
        let event = kernel.judge(&call(caller, caller), 121);
        assert_eq!(reason(&event).name(), "blocked-prefix", "{caller}");
    }
    let redial = kernel.0.maps().redial(number(counted)).unwrap();
    assert_eq!(redial, None, "attempts were forgotten, else this test shows nothing");
    assert_eq!(kernel.0.maps().grant(number(granted)).unwrap(), grant);
    assert_eq!(kernel.calls(granted, 130), "redial-grant");
}

/// Pins this thread to one of the CPUs that this process may use, by `index`. If there is only one CPU,
/// all threads are on it.
pub fn stay_on_cpu(index: usize) {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let cpus: Vec<_> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap()).collect();
    let mut one = CpuSet::new();
    one.set(cpus[index % cpus.len()]).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
}

/// Checks the rules while two CPUs judge calls of the same numbers at the same time. Two calls at once are
/// one attempt in every order. So with `ATTEMPTS` = 3 no call passes in the first two rounds. In the
/// third at least one of each number passes and opens its grant, and then all pass. This shows that no
/// count and no grant was lost.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn two_cpus_at_once_lose_no_grant() {
    const CPUS: usize = 2;
    const ATTEMPTS: usize = 3;
    const ROUNDS: usize = ATTEMPTS + 2;
    const CALLERS: usize = 400;
    let mut kernel = Kernel::new(ATTEMPTS as u8, &[]);
    let frames = |cpu: usize, round: usize| -> Vec<Vec<u8>> {
        (0..CALLERS).map(|caller| call(caller, 1 + CPUS * round + cpu)).collect()
    };
    for round in 0..ROUNDS {
        // The time of all that follows in this round.
        let bystander = call(CALLERS, 0);
        kernel.judge(&bystander, 6 * round as u64);
        let arrived = AtomicUsize::new(0);
        let replay = &kernel.0;
        let dropped: Vec<Vec<bool>> = thread::scope(|scope| {
            let cpus: Vec<_> = (0..CPUS)
                .map(|cpu| {
                    let (arrived, frames) = (&arrived, frames(cpu, round));
                    scope.spawn(move || {
                        stay_on_cpu(cpu);
                        let judge = |(index, frame): (usize, &Vec<u8>)| {
                            // Both at the same number at the same time.
                            arrived.fetch_add(1, Ordering::SeqCst);
                            while arrived.load(Ordering::SeqCst) < CPUS * (index + 1) {
                                thread::yield_now();
                            }
                            replay.judge_at_once(frame).unwrap()
                        };
                        frames.iter().enumerate().map(judge).collect()
                    })
                })
                .collect();
            cpus.into_iter().map(|cpu| cpu.join().unwrap()).collect()
        });
        for caller in 0..CALLERS {
            let passed = dropped.iter().filter(|dropped| !dropped[caller]).count();
            let attempt = round + 1;
            let holds = match attempt.cmp(&ATTEMPTS) {
                cmp::Ordering::Less => passed == 0,
                cmp::Ordering::Equal => passed >= 1,
                cmp::Ordering::Greater => passed == CPUS,
            };
            assert!(holds, "attempt {attempt}: {passed} of {CPUS} calls of {caller} passed");
        }
        let grants = kernel.0.maps().grants().unwrap().len();
        assert_eq!(grants, if round + 1 < ATTEMPTS { 0 } else { CALLERS }, "round {round}");
    }
}
