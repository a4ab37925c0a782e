//! The promise, over random days: a caller with a way out is let through, and nobody is refused but by
//! a live block. The rule is written once more here, without the code of the gate.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use filter_common::abi::{BLOCK_NO_REDIAL, BLOCK_OBSERVE, Block, TOMBSTONE, Verdict};
use filter_common::number::{Digits, Number};
use palang::model::policy::{Policy, Subject};
use palang_tests::common::gates::{Gates, reason};
use palang_tests::common::packet::{Layers, crlf};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use crate::{NOW, SECOND};

/// Everybody who calls.
const NUMBERS: [&str; 4] = ["6281200000001", "6281200000002", "6281277777777", "6281300000001"];
/// The subjects of lists: the numbers, and prefixes of some of them.
const SUBJECTS: [&str; 7] =
    [NUMBERS[0], NUMBERS[1], NUMBERS[2], NUMBERS[3], "62812", "6281", "6281200*"];
/// Seconds of call-back grace.
const GRACE: u64 = 300;

fn digits(text: &str) -> Digits {
    Digits::parse(text.trim_end_matches('*')).unwrap()
}

fn subject(index: usize) -> Subject {
    if index < NUMBERS.len() {
        Subject::Number(Number::e164(digits(SUBJECTS[index])))
    } else {
        Subject::Prefix(digits(SUBJECTS[index]))
    }
}

/// Returns whether what a list says of a subject is about a number.
fn is_about(subject: Subject, number: usize) -> bool {
    match subject {
        Subject::Number(listed) => listed.to_string() == NUMBERS[number],
        Subject::Prefix(prefix) => NUMBERS[number].starts_with(&prefix.to_string()),
    }
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    /// A block; one that is there already is moved.
    Block {
        subject: usize,
        redial: (u8, u32, u32),
        flags: u8,
        seconds: u64,
    },
    /// A block that is removed from the map, or lifted in it.
    Unblock {
        subject: usize,
        lifted: bool,
    },
    /// A granted call was a prank: another epoch, and twice as many attempts.
    Report {
        subject: usize,
    },
    Allow {
        subject: usize,
        seconds: u64,
    },
    Disallow {
        subject: usize,
    },
    Override {
        seconds: u64,
    },
    Protect {
        subject: usize,
    },
    Unprotect,
    /// The centre calls a number.
    Callback {
        number: usize,
    },
    /// A number calls: a new call, or one of its calls again.
    Attempt {
        number: usize,
        again: Option<usize>,
    },
    Clock {
        seconds: u64,
    },
    /// The daemon starts again, and writes all that it knows.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let subject = || 0..SUBJECTS.len();
    let number = || 0..NUMBERS.len();
    // 0: without end.
    let seconds = || select(vec![0, 0, 1, 30, 90, 600]);
    let clock = select(vec![1, 4, 5, 6, 20, 40, 63, 64, 100, 300, 700]);
    let redial = (1..=4u8, select(vec![60, 600, 3600]), select(vec![60, 600, 1800]));
    let flags = select(vec![0, 0, 0, 0, BLOCK_OBSERVE, BLOCK_NO_REDIAL]);
    let again = prop::option::weighted(0.4, 0..3usize);
    prop_oneof![
        10 => (subject(), redial, flags, seconds()).prop_map(|(subject, redial, flags, seconds)| {
            Step::Block { subject, redial, flags, seconds }
        }),
        2 => (subject(), any::<bool>())
            .prop_map(|(subject, lifted)| Step::Unblock { subject, lifted }),
        4 => subject().prop_map(|subject| Step::Report { subject }),
        1 => (subject(), seconds()).prop_map(|(subject, seconds)| Step::Allow { subject, seconds }),
        2 => subject().prop_map(|subject| Step::Disallow { subject }),
        3 => select(vec![0, 1, 4, 20]).prop_map(|seconds| Step::Override { seconds }),
        1 => subject().prop_map(|subject| Step::Protect { subject }),
        3 => Just(Step::Unprotect),
        1 => number().prop_map(|number| Step::Callback { number }),
        24 => (number(), again).prop_map(|(number, again)| Step::Attempt { number, again }),
        16 => clock.prop_map(|seconds| Step::Clock { seconds }),
        1 => Just(Step::Restart),
    ]
}

/// The state that the promise rests on, as a person would keep it in mind.
#[derive(Default)]
struct Mind {
    /// When each number was called last.
    called: HashMap<usize, u64>,
    /// When each call came first, and whether it passed.
    first: HashMap<(usize, usize), (u64, bool)>,
    /// When a number's attempts came that count, and the epoch that they count for.
    counted: HashMap<usize, (u32, Vec<u64>)>,
    /// End and epoch of each number's grant.
    granted: HashMap<usize, (u64, u32)>,
}

fn is_live(expires: u64, now: u64) -> bool {
    expires == 0 || now < expires
}

/// Returns the block that decides on a number: its own, or that of the longest prefix.
fn block(policy: &Policy, number: usize, now: u64) -> Option<Block> {
    let live = policy
        .blocks
        .iter()
        .filter(|(subject, block)| is_about(*subject, number) && is_live(block.expires, now));
    let length = |subject: Subject| match subject {
        Subject::Number(_) => u32::MAX,
        Subject::Prefix(prefix) => prefix.len(),
    };
    live.max_by_key(|(subject, _)| length(*subject)).map(|(_, block)| *block)
}

impl Mind {
    /// Returns why a call has to pass; `None`: it is refused.
    fn way_out(
        &mut self,
        policy: &Policy,
        number: usize,
        call: usize,
        now: u64,
    ) -> Option<&'static str> {
        let first = self.first.get(&(number, call)).copied();
        let first = first.filter(|(first, _)| now - first < 64 * SECOND);
        let passes = self.first_way_out(policy, number, first, now);
        if first.is_none() {
            self.first.insert((number, call), (now, passes.is_some()));
        }
        passes
    }

    fn first_way_out(
        &mut self,
        policy: &Policy,
        number: usize,
        first: Option<(u64, bool)>,
        now: u64,
    ) -> Option<&'static str> {
        if policy.protected.iter().any(|protected| is_about(protected.subject, number)) {
            return Some("protected");
        }
        let about = |(subject, _): &&(Subject, _)| is_about(*subject, number);
        if policy.allows.iter().filter(about).any(|(_, allow)| is_live(allow.expires, now)) {
            return Some("allow");
        }
        let Some(block) = block(policy, number, now) else {
            return Some("no live block");
        };
        if self.called.get(&number).is_some_and(|called| now < called + GRACE * SECOND) {
            return Some("grace");
        }
        // An attempt counts whether it is refused or not.
        let grant = first.is_none() && self.redials(number, &block, now);
        if now < policy.override_until {
            Some("override")
        } else if block.flags & BLOCK_OBSERVE != 0 {
            Some("observe")
        } else if grant {
            Some("grant")
        } else if first.is_some_and(|(_, passed)| passed) {
            Some("passed before")
        } else {
            None
        }
    }

    /// Returns whether a new attempt is let through because of the attempts before.
    fn redials(&mut self, number: usize, block: &Block, now: u64) -> bool {
        if block.flags & BLOCK_NO_REDIAL != 0 {
            return false;
        }
        if let Some((until, epoch)) = self.granted.get(&number)
            && now < *until
            && *epoch == block.epoch
        {
            return true;
        }
        let (epoch, times) = self.counted.entry(number).or_default();
        let begun = times.first().copied();
        let window = u64::from(block.redial_window) * SECOND;
        if *epoch != block.epoch || begun.is_some_and(|begun| now - begun >= window) {
            times.clear();
        }
        *epoch = block.epoch;
        if times.last().is_some_and(|last| now - last < 5 * SECOND) {
            return false;
        }
        times.push(now);
        if times.len() < usize::from(block.redial_attempts) {
            return false;
        }
        times.clear();
        let until = now + u64::from(block.redial_grant) * SECOND;
        self.granted.insert(number, (until, block.epoch));
        true
    }
}

/// A day: the gates, what was decided, and what that means.
struct Day<'a> {
    gates: &'a mut Gates,
    policy: Policy,
    mind: Mind,
    now: u64,
    /// How many calls each number has made.
    calls: [usize; NUMBERS.len()],
}

fn nothing() -> Policy {
    let mut policy = Policy::default();
    policy.settings.callback_grace = GRACE as u32;
    policy
}

impl Day<'_> {
    fn end(&self, seconds: u64) -> u64 {
        if seconds == 0 { 0 } else { self.now + seconds * SECOND }
    }

    fn decided(&mut self) {
        self.gates.change_lists(&self.policy);
    }

    /// Carries out a step. For a call, returns its outcome: why it passed, or that it was refused.
    fn step(&mut self, step: &Step) -> Result<Option<&'static str>, TestCaseError> {
        match *step {
            Step::Block { subject: index, redial, flags, seconds } => {
                let subject = subject(index);
                let before = self.policy.blocks.iter().find(|(other, _)| *other == subject);
                let epoch = before.map_or(0, |(_, block)| block.epoch);
                self.policy.blocks.retain(|(other, _)| *other != subject);
                let end = self.end(seconds);
                self.policy.block(subject, end, flags);
                let block = &mut self.policy.blocks.last_mut().unwrap().1;
                block.epoch = epoch;
                (block.redial_attempts, block.redial_window, block.redial_grant) = redial;
                self.decided();
            }
            Step::Unblock { subject: index, lifted } => {
                let blocks = &mut self.policy.blocks;
                if lifted {
                    let lifted = blocks.iter_mut().filter(|(other, _)| *other == subject(index));
                    lifted.for_each(|(_, block)| block.expires = TOMBSTONE);
                } else {
                    blocks.retain(|(other, _)| *other != subject(index));
                }
                self.decided();
            }
            Step::Report { subject: index } => {
                let blocks = self.policy.blocks.iter_mut();
                for (_, block) in blocks.filter(|(other, _)| *other == subject(index)) {
                    block.epoch += 1;
                    block.redial_attempts = (2 * block.redial_attempts).min(8);
                }
                self.decided();
            }
            Step::Allow { subject: index, seconds } => {
                self.policy.allows.retain(|(other, _)| *other != subject(index));
                let end = self.end(seconds);
                self.policy.allow(subject(index), end);
                self.decided();
            }
            Step::Disallow { subject: index } => {
                self.policy.allows.retain(|(other, _)| *other != subject(index));
                self.decided();
            }
            Step::Override { seconds } => {
                self.policy.override_until =
                    if seconds == 0 { TOMBSTONE } else { self.now + seconds * SECOND };
                self.gates.set_override(self.policy.override_until);
            }
            Step::Protect { subject: index } => {
                let protected = &mut self.policy.protected;
                protected.retain(|other| other.subject != subject(index));
                self.policy.protect(subject(index));
                self.decided();
            }
            Step::Unprotect => {
                self.policy.protected.clear();
                self.decided();
            }
            Step::Callback { number } => {
                let called = self.gates.send(&callback(NUMBERS[number]), self.now);
                prop_assert_eq!(called.to_string(), NUMBERS[number]);
                self.mind.called.insert(number, self.now);
            }
            Step::Attempt { number, again } => {
                let calls = &mut self.calls[number];
                let call = match again {
                    Some(back) if back < *calls => *calls - back,
                    Some(_) | None => {
                        *calls += 1;
                        *calls
                    }
                };
                let event = self.gates.judge(&invite(NUMBERS[number], call), self.now);
                let way_out = self.mind.way_out(&self.policy, number, call, self.now);
                let refused = event.verdict != Verdict::Pass as u8;
                prop_assert!(
                    refused == way_out.is_none(),
                    "{} {}, but of the promise: {}",
                    NUMBERS[number],
                    if refused { "was refused" } else { "passed" },
                    way_out.unwrap_or("nothing lets it through")
                );
                return Ok(Some(way_out.unwrap_or("refused")));
            }
            Step::Clock { seconds } => self.now += seconds * SECOND,
            Step::Restart => self.gates.change(&self.policy),
        }
        Ok(None)
    }
}

fn invite(number: &str, call: usize) -> Vec<u8> {
    Layers::IPV4.frame(&crlf(&format!(
        "INVITE sip:112@psap.example SIP/2.0\nFrom: <sip:+{number}@x>\nTo: <sip:112@x>\n\
         Call-ID: {call}\n\n"
    )))
}

fn callback(number: &str) -> Vec<u8> {
    Layers::IPV4.frame(&crlf(&format!(
        "INVITE sip:+{number}@x SIP/2.0\nFrom: <sip:112@x>;tag=1\nTo: <sip:+{number}@x>\n\
         Call-ID: out\n\n"
    )))
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn whoever_has_a_way_out_is_let_through_and_nobody_is_refused_without_a_block() {
    let more = std::env::var("PALANG_CASES").map_or(1, |more| more.parse().expect("a number"));
    let config = Config { cases: 32 * more, failure_persistence: None, ..Config::default() };
    let gates = RefCell::new(Gates::new(&nothing()));
    let outcomes = RefCell::new(HashMap::<&str, usize>::new());
    let begins = Cell::new(NOW);
    let outcome = TestRunner::new(config).run(&prop::collection::vec(step(), 40..100), |steps| {
        // Far from the day before: the memory that an LRU map loses is not known.
        begins.set(begins.get() + 1_000_000 * SECOND);
        let mut gates = gates.borrow_mut();
        gates.replace(&nothing());
        let mut day = Day {
            gates: &mut gates,
            policy: nothing(),
            mind: Mind::default(),
            now: begins.get(),
            calls: [0; NUMBERS.len()],
        };
        for step in &steps {
            if let Some(outcome) = day.step(step)? {
                *outcomes.borrow_mut().entry(outcome).or_default() += 1;
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let outcomes = outcomes.into_inner();
    for outcome in [
        "refused",
        "no live block",
        "protected",
        "allow",
        "grace",
        "override",
        "observe",
        "grant",
        "passed before",
    ] {
        assert!(outcomes.contains_key(outcome), "no call was: {outcome}: {outcomes:?}");
    }
}

/// Returns a policy with a block against the first number and a grant at the second attempt.
fn blocked() -> Policy {
    let mut policy = nothing();
    policy.block(subject(0), 0, 0);
    let block = &mut policy.blocks[0].1;
    (block.redial_attempts, block.redial_window, block.redial_grant) = (2, 600, 1800);
    policy
}

/// Judges a call of the first number, this many seconds after the start, and returns the name of its reason.
fn judged(gates: &mut Gates, call: usize, seconds: u64) -> &'static str {
    let event = gates.judge(&invite(NUMBERS[0], call), NOW + seconds * SECOND);
    let name = reason(&event).name();
    assert_eq!(event.verdict == Verdict::Drop as u8, name.starts_with("blocked-"), "{name}");
    name
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn for_64_seconds_a_new_block_changes_nothing_for_an_attempt_that_passed() {
    for index in [0, 4] {
        let mut gates = Gates::new(&nothing());
        assert_eq!(judged(&mut gates, 1, 0), "not-blocked");
        let mut policy = nothing();
        policy.block(subject(index), 0, 0);
        gates.change(&policy);
        for seconds in [1, 2, 4, 32, 63] {
            assert_eq!(judged(&mut gates, 1, seconds), "attempt-passed");
        }
        // Another attempt, and the same after its time, are refused.
        assert!(judged(&mut gates, 2, 2).starts_with("blocked-"));
        assert!(judged(&mut gates, 1, 64).starts_with("blocked-"));
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn for_64_seconds_a_grant_changes_nothing_for_an_attempt_that_was_refused() {
    let mut gates = Gates::new(&blocked());
    assert_eq!(judged(&mut gates, 1, 0), "blocked-number");
    assert_eq!(judged(&mut gates, 2, 10), "redial-grant");
    for seconds in [11, 32, 63] {
        assert_eq!(judged(&mut gates, 1, seconds), "blocked-number");
    }
    assert_eq!(judged(&mut gates, 1, 64), "redial-grant");
    // Nor does its end for one that passed.
    assert_eq!(judged(&mut gates, 3, 1809), "redial-grant");
    assert_eq!(judged(&mut gates, 3, 1811), "attempt-passed");
    assert_eq!(judged(&mut gates, 4, 1811), "blocked-number");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn whatever_lets_through_does_so_from_the_next_retransmission_on() {
    type Way = (&'static str, fn(&mut Policy));
    let ways: [Way; 7] = [
        ("allowed-number", |policy| policy.allow(subject(0), 0)),
        ("allowed-prefix", |policy| policy.allow(subject(5), 0)),
        ("protected", |policy| policy.protect(subject(0))),
        ("protected", |policy| policy.protect(subject(4))),
        ("override", |policy| policy.override_until = NOW + 100 * SECOND),
        ("block-expired", |policy| policy.blocks[0].1.expires = TOMBSTONE),
        ("not-blocked", |policy| policy.blocks.clear()),
    ];
    let mut gates = Gates::new(&blocked());
    for (expected, open) in ways {
        gates.replace(&blocked());
        assert_eq!(judged(&mut gates, 1, 0), "blocked-number");
        assert_eq!(judged(&mut gates, 1, 1), "blocked-number");
        let mut policy = blocked();
        open(&mut policy);
        gates.change_lists(&policy);
        assert_eq!(judged(&mut gates, 1, 2), expected);
        // Closed again, the first verdict holds.
        gates.change_lists(&blocked());
        assert_eq!(judged(&mut gates, 1, 3), "blocked-number", "{expected}");
    }
    gates.replace(&blocked());
    assert_eq!(judged(&mut gates, 1, 0), "blocked-number");
    gates.send(&callback(NUMBERS[0]), NOW + SECOND);
    assert_eq!(judged(&mut gates, 1, 2), "callback-grace");
}
