//! One CPU writes lists while another judges calls. A caller who is allowed or protected all the time is
//! never refused, and a block that is over refuses nobody.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use filter_common::abi::{Allow, Block, TOMBSTONE, Verdict};
use filter_common::number::{Digits, Number};
use filter_common::reason::Reason;
use palang::datapath::{Maps, Replay};
use palang::model::policy::{Policy, Subject};
use palang_tests::common::gates::plan;
use palang_tests::common::packet::{Layers, crlf};

use crate::NOW;
use crate::state::stay_on_cpu;

/// Calls of a test.
const CALLS: usize = 20_000;

/// Returns how often each call is judged: `PALANG_CASES=500` makes ten million.
fn times() -> u32 {
    std::env::var("PALANG_CASES").map_or(1, |times| times.parse().expect("a number"))
}

/// How long a test waits for what it has to see.
const PATIENCE: Duration = Duration::from_secs(60);

/// The numbers that call.
const CALLERS: usize = 4;

fn prefix(digits: &str) -> Subject {
    Subject::Prefix(Digits::parse(digits).unwrap())
}

/// Returns the number `628125550000` plus `index`.
fn number(index: usize) -> Number {
    Number::e164(Digits::parse(&format!("62812555{index:04}")).unwrap())
}

fn call(caller: usize, call_id: usize) -> Vec<u8> {
    Layers::IPV4.frame(&crlf(&format!(
        "INVITE sip:112@psap.example SIP/2.0\nFrom: <sip:+{}@x>\nTo: <sip:112@x>\n\
         Call-ID: {call_id}\n\n",
        number(caller)
    )))
}

fn block(subject: Subject, expires: u64) -> Block {
    let action = Verdict::Drop as u8;
    Block { number: subject.raw(), expires, rule: 900, action, ..Block::default() }
}

/// Returns the loaded program, after one call that sets its time to [`NOW`].
fn gate(policy: &Policy, sizes: &[(&str, u32)]) -> Replay {
    let loaded = Replay::load_as(&plan(), policy, sizes);
    let mut replay = loaded.unwrap_or_else(|error| panic!("{error}"));
    replay.judge(&call(9999, 0), NOW).unwrap();
    replay
}

/// Returns how many of [`CALLS`] calls of [`CALLERS`] in turn are found blocked on one CPU. Meanwhile
/// another CPU does `write` again and again, with the number of its turn. A call counts if it is refused,
/// or passes only because the attempt had passed before.
fn refused_while(replay: &Replay, write: impl Fn(&Maps, usize) + Sync) -> u64 {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            stay_on_cpu(0);
            let mut turn = 0;
            while !done.load(Ordering::Relaxed) {
                write(replay.maps(), turn);
                turn += 1;
            }
            turn
        });
        stay_on_cpu(1);
        let before = blocked(replay);
        let judged: Result<Vec<bool>, _> = (0..CALLS)
            .map(|id| replay.judge_repeatedly(&call(id % CALLERS, id + 1), times()))
            .collect();
        done.store(true, Ordering::Relaxed);
        let turns = writer.join().unwrap();
        assert!(turns > 100, "the lists were written {turns} times: this shows nothing");
        judged.unwrap();
        blocked(replay) - before
    })
}

fn blocked(replay: &Replay) -> u64 {
    let reasons = [Reason::BlockedNumber, Reason::BlockedPrefix, Reason::AttemptPassed];
    reasons.into_iter().map(|reason| replay.count(0, reason).unwrap()).sum()
}

/// Returns a policy that blocks all callers, after a check that the program refuses a call by it. The check
/// is made once for all tests: to load a program takes an emulated processor seconds.
fn all_blocked() -> Policy {
    static CHECKED: LazyLock<Policy> = LazyLock::new(|| {
        let mut policy = Policy::default();
        policy.block(prefix("62812"), 0, 0);
        let replay = gate(&policy, &[]);
        assert!(replay.judge_at_once(&call(0, 1)).unwrap(), "without an allow they are refused");
        policy
    });
    CHECKED.clone()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn an_allow_that_gets_another_end_lets_through_all_the_while() {
    let mut policy = all_blocked();
    for caller in 0..CALLERS {
        policy.allow(Subject::Number(number(caller)), 0);
    }
    // As many as there is room for, so that several are in one bucket of the hash.
    let replay = gate(&policy, &[("ALLOWED_NUMBERS", CALLERS as u32)]);
    let refused = refused_while(&replay, |maps, _| {
        for (subject, allow) in &policy.allows {
            maps.pass_maps().set_allow(*subject, *allow).unwrap();
        }
    });
    assert_eq!(refused, 0, "of {CALLS} calls of allowed numbers");
}

/// Adds and removes others whose elements are in the same buckets, and are used again at once.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn an_allow_lets_through_while_others_come_and_go() {
    let mut policy = all_blocked();
    for caller in 0..CALLERS {
        policy.allow(Subject::Number(number(caller)), 0);
    }
    let room = 2 * CALLERS as u32;
    let replay = gate(&policy, &[("ALLOWED_NUMBERS", room), ("ALLOWED_PREFIXES", room)]);
    let refused = refused_while(&replay, |maps, turn| {
        let other = Subject::Number(number(100 + turn % 1000));
        maps.pass_maps()
            .set_allow(other, Allow { number: other.raw(), expires: 0, rule: 901 })
            .unwrap();
        maps.pass_maps().remove_allow(other).unwrap();
    });
    assert_eq!(refused, 0, "of {CALLS} calls of allowed numbers");
}

/// Prefixes around an entry of a trie that stays: the same again, longer ones, and a shorter one. One has
/// a node that parts from it above it, another one below it.
const AROUND: [&str; 6] = ["628125550000", "628125550", "6281255", "62812556", "6281255500", "628"];

/// Makes one write of those that a daemon does, a different one each turn. The entry `STAYS` is replaced
/// and never removed.
fn write_around(stays: Subject, turn: usize, set: impl Fn(Subject), remove: impl Fn(Subject)) {
    let other = prefix(AROUND[turn / 3 % AROUND.len()]);
    match turn % 3 {
        0 => set(other),
        1 => set(stays),
        _ => remove(other),
    }
}

const STAYS: &str = "62812555";

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn an_allowed_prefix_lets_through_while_the_trie_is_written() {
    let mut policy = all_blocked();
    policy.allow(prefix(STAYS), 0);
    let replay = gate(&policy, &[]);
    let refused = refused_while(&replay, |maps, turn| {
        // Half of the others are over: then the shorter one has to be found after them.
        let allow = |subject: Subject| {
            let over = subject != prefix(STAYS) && turn % 2 == 0;
            Allow { number: subject.raw(), expires: if over { TOMBSTONE } else { 0 }, rule: 901 }
        };
        let set = |subject| maps.pass_maps().set_allow(subject, allow(subject)).unwrap();
        let remove =
            |subject| assert!(maps.pass_maps().remove_allow(subject).unwrap(), "{subject}");
        write_around(prefix(STAYS), turn, set, remove);
    });
    assert_eq!(refused, 0, "of {CALLS} calls of an allowed prefix");
}

/// Checks the base of the other tests: a write that does leave a gap is seen.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn an_allowed_prefix_that_is_taken_out_and_put_back_is_missed() {
    let mut policy = all_blocked();
    policy.allow(prefix(STAYS), 0);
    let (stays, allow) = policy.allows[0];
    let replay = gate(&policy, &[]);
    let refused = refused_while(&replay, |maps, _| {
        maps.pass_maps().remove_allow(stays).unwrap();
        maps.pass_maps().set_allow(stays, allow).unwrap();
    });
    assert!(refused > 0, "of {CALLS} calls none fell into the gap");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_protected_prefix_lets_through_while_the_trie_is_written() {
    // As the daemon writes it when its configuration is read again: the whole list each time.
    let lists: Vec<Policy> = (0..=AROUND.len())
        .map(|more| {
            let mut policy = all_blocked();
            policy.protect(prefix(STAYS));
            AROUND[..more].iter().for_each(|other| policy.protect(prefix(other)));
            policy
        })
        .collect();
    let replay = gate(&lists[0], &[]);
    let refused = refused_while(&replay, |maps, turn| {
        maps.set_protected(&lists[turn * 3 % lists.len()].protected).unwrap();
    });
    assert_eq!(refused, 0, "of {CALLS} calls of protected numbers");
}

/// Uses the smallest possible map of blocks. The element of a removed block belongs to another number at
/// once, mostly in the same bucket.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_block_that_is_over_refuses_nobody_while_others_come_and_go() {
    let replay = gate(&Policy::default(), &[("BLOCKED_NUMBERS", 2)]);
    let refused = refused_while(&replay, |maps, turn| {
        let over = Subject::Number(number(turn % CALLERS));
        let live = Subject::Number(number(100 + turn % 7));
        maps.set_block(over, block(over, TOMBSTONE)).unwrap();
        maps.remove_block(over).unwrap();
        maps.set_block(live, block(live, 0)).unwrap();
        maps.remove_block(live).unwrap();
    });
    assert_eq!(refused, 0, "of {CALLS} calls of numbers whose block is over");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_prefix_block_that_is_over_refuses_nobody_while_the_trie_is_written() {
    let over = prefix(STAYS);
    let mut policy = Policy::default();
    policy.blocks.push((over, block(over, TOMBSTONE)));
    let replay = gate(&policy, &[]);
    // None of them covers a caller.
    let live = ["628125551", "628125550009", "62812556", "62813", "62812"];
    let covering = prefix("62812");
    let refused = refused_while(&replay, |maps, turn| {
        let other = prefix(live[turn / 3 % live.len()]);
        // This one covers them all, and so is always over.
        let expires = if other == covering { TOMBSTONE } else { 0 };
        match turn % 3 {
            0 => maps.set_block(other, block(other, expires)).unwrap(),
            1 => maps.set_block(over, block(over, TOMBSTONE)).unwrap(),
            _ => assert!(maps.remove_block(other).unwrap(), "{other}"),
        }
    });
    assert_eq!(refused, 0, "of {CALLS} calls of a prefix whose block is over");
}

/// Writes as `palang block add` and `palang block remove` do, by number and by prefix. Once the removal has
/// written the map, every call passes until the number is blocked again.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn an_unblocked_number_passes_from_the_moment_that_the_map_says_so() {
    for subject in [Subject::Number(number(0)), prefix(STAYS)] {
        let replay = gate(&Policy::default(), &[("BLOCKED_NUMBERS", 2)]);
        // Odd: unblocked.
        let (phase, done) = (AtomicU64::new(1), AtomicBool::new(false));
        let calls = AtomicU64::new(0);
        let other = Subject::Number(number(100));
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                stay_on_cpu(0);
                let maps = replay.maps();
                while !done.load(Ordering::SeqCst) {
                    phase.fetch_add(1, Ordering::SeqCst);
                    maps.set_block(subject, block(subject, 0)).unwrap();
                    // Until a call has met it.
                    let begun = calls.load(Ordering::SeqCst);
                    while calls.load(Ordering::SeqCst) < begun + 2 && !done.load(Ordering::SeqCst) {
                        std::hint::spin_loop();
                    }
                    maps.set_block(subject, block(subject, TOMBSTONE)).unwrap();
                    phase.fetch_add(1, Ordering::SeqCst);
                    maps.remove_block(subject).unwrap();
                    // In the place that it has left.
                    for _ in 0..20 {
                        maps.set_block(other, block(other, 0)).unwrap();
                        maps.remove_block(other).unwrap();
                    }
                }
            });
            stay_on_cpu(1);
            let (mut unblocked, mut refused, mut wrong) = (0, 0, 0);
            let (mut id, begun) = (0, Instant::now());
            // An emulated processor may stop for thousands of calls.
            while id < CALLS || (unblocked == 0 || refused == 0) && begun.elapsed() < PATIENCE {
                let before = phase.load(Ordering::SeqCst);
                let dropped = replay.judge_at_once(&call(0, id + 1)).unwrap();
                calls.fetch_add(1, Ordering::SeqCst);
                let is_unblocked = before % 2 == 1 && phase.load(Ordering::SeqCst) == before;
                unblocked += usize::from(is_unblocked);
                refused += usize::from(dropped);
                wrong += usize::from(is_unblocked && dropped);
                id += 1;
            }
            done.store(true, Ordering::SeqCst);
            writer.join().unwrap();
            assert_eq!(wrong, 0, "of {unblocked} calls while {subject} was unblocked");
            assert!(unblocked > 0 && refused > 0, "{unblocked} unblocked, {refused} refused");
        });
    }
}
