//! Blocks a number that calls too often for a while, if its trunk vouches for it.
//!
//! Only calls count on which no other rule decided. Calls of numbers that are blocked, allowed,
//! called back or under an override do not count. The counts are in memory only; a restart of the
//! daemon resets them, and blocks nobody.

use std::collections::HashMap;
use std::sync::Arc;

use filter_common::abi::{Event, SEPARATE};
use filter_common::number::Number;
use filter_common::reason::Reason;
use jiff::SignedDuration;
use tokio::sync::mpsc;

use crate::api::wire::{Problem, ProblemKind};
use crate::config::{AutoRate, Config};
use crate::daemon::order::Key;
use crate::daemon::state::Control;
use crate::daemon::tasks::Tasks;
use crate::model::policy::Subject;
use crate::model::redial::short;
use crate::store::{Decision, Kind, Store};
use crate::sys::clock;

/// Origin of these blocks.
pub const AUTO_RATE: &str = "auto-rate";
/// Author of these blocks.
const DAEMON: &str = "daemon";
/// Numbers that are counted at once.
const NUMBERS: usize = 100_000;
/// Numbers that wait to be blocked.
const WAITING: usize = 1024;

/// Counts attempts.
#[derive(Debug)]
pub struct Counter {
    /// When the separate attempts of a number came, in boot time, oldest first.
    attempts: HashMap<Number, Vec<u64>>,
    too_many: mpsc::Sender<Number>,
}

impl Counter {
    /// Creates a counter, and starts the task that blocks the numbers that it finds.
    pub fn start(control: &Arc<Control>, tasks: &Tasks) -> Counter {
        let (too_many, found) = mpsc::channel(WAITING);
        tasks.spawn("blocks of who calls too often", block_all(Arc::clone(control), found));
        Counter { attempts: HashMap::new(), too_many }
    }

    /// Counts a call.
    pub fn take(&mut self, config: &Config, event: &Event) {
        if config.auto_rate.attempts == 0 || !counts(config, event) {
            return;
        }
        let trunk = config.policy.trunks.get(usize::from(event.trunk));
        let separate = trunk.map_or(SEPARATE, |trunk| trunk.profile.separate);
        if self.count(config.auto_rate, event.number, event.time, separate) {
            // Without room, the number is found again with its next calls.
            let _ = self.too_many.try_send(event.number);
        }
    }

    /// Counts an attempt; attempts are separate when they are `separate` seconds apart. Returns whether there are too many now; the count then starts again.
    fn count(&mut self, rate: AutoRate, number: Number, time: u64, separate: u32) -> bool {
        let separate = u64::from(separate) * 1_000_000_000;
        let since = time.saturating_sub(u64::from(rate.window) * 1_000_000_000);
        if self.attempts.len() >= NUMBERS && !self.attempts.contains_key(&number) {
            self.attempts.retain(|_, times| times.last().is_some_and(|last| *last > since));
            if self.attempts.len() >= NUMBERS {
                // A forgotten number is not blocked.
                self.attempts.clear();
            }
        }
        let times = self.attempts.entry(number).or_default();
        times.retain(|time| *time > since);
        if times.last().is_none_or(|last| time >= last.saturating_add(separate)) {
            times.push(time);
        }
        let too_many = times.len() > usize::from(rate.attempts);
        if too_many || times.is_empty() {
            self.attempts.remove(&number);
        }
        too_many
    }
}

/// Returns whether a call counts.
fn counts(config: &Config, event: &Event) -> bool {
    // The first trunk is the profile `default`, which is not a trunk.
    let trunk = config.policy.trunks.get(usize::from(event.trunk)).filter(|_| event.trunk != 0);
    let age = clock::boot().saturating_sub(event.time);
    event.reason == Reason::NotBlocked as u8
        && event.number != Number::NONE
        && trunk.is_some_and(|trunk| trunk.vouches_for(event.identity))
        // Events that waited for a daemon are not current calls.
        && age < u64::from(config.auto_rate.window) * 1_000_000_000
}

async fn block_all(control: Arc<Control>, mut found: mpsc::Receiver<Number>) {
    while let Some(number) = found.recv().await {
        let rate = control.config().auto_rate;
        if rate.attempts == 0 {
            continue;
        }
        let worker = Arc::clone(&control);
        let block = move |store: &mut Store, place| block(&worker, store, rate, number, place);
        let done = control.order.queue(Key::Block(Subject::Number(number)), block).await;
        match done {
            Ok(rule) => tracing::warn!(rule, "auto-rate: number blocked"),
            Err(problem) if problem.kind == ProblemKind::Refused => {
                tracing::info!(
                    "auto-rate: number not blocked: protected, allowed or already blocked"
                );
            }
            Err(problem) if problem.kind == ProblemKind::Superseded => {
                tracing::info!(problem = %problem.message, "auto-rate: number not blocked");
            }
            Err(problem) => {
                tracing::error!(problem = %problem.message, "auto-rate: number not blocked");
            }
        }
    }
}

/// Blocks a number. Returns its rule, which is its place in the order. Runs on the store's thread.
fn block(
    control: &Control,
    store: &mut Store,
    rate: AutoRate,
    number: Number,
    place: u64,
) -> Result<u64, Problem> {
    let subject = Subject::Number(number);
    control.refuse_protected_now(subject)?;
    let now = clock::now();
    let before = store.reader().find(Kind::Block, subject)?;
    if before.as_ref().is_some_and(|before| before.expires.is_none_or(|end| end > now)) {
        let message = "it is blocked already".to_owned();
        return Err(Problem { kind: ProblemKind::Refused, message });
    }
    if before.is_none() {
        control.make_room(store, subject, 1)?;
    }
    let AutoRate { attempts, window, block } = rate;
    let decision = Decision {
        id: before.as_ref().map_or_else(uuid::Uuid::now_v7, |before| before.id),
        rule: place,
        kind: Kind::Block,
        subject,
        created: now,
        expires: Some(now + SignedDuration::from_secs(block.into())),
        reason: format!("more than {attempts} attempts within {}", short(window)),
        author: DAEMON.to_owned(),
        origin: AUTO_RATE.to_owned(),
        node: control.node().to_owned(),
        flags: 0,
        redial: None,
        epoch: before.as_ref().map_or(0, |before| before.epoch),
        incident: None,
    };
    control.write_block(store, DAEMON, &decision, before.as_ref(), None)?;
    Ok(decision.rule)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const RATE: AutoRate = AutoRate { attempts: 3, window: 60, block: 60 };

    fn counter() -> Counter {
        Counter { attempts: HashMap::new(), too_many: mpsc::channel(1).0 }
    }

    /// Counts attempts at these seconds, and returns for each whether they are too many.
    fn counted(seconds: &[u64]) -> Vec<bool> {
        counted_apart(SEPARATE, seconds)
    }

    fn counted_apart(separate: u32, seconds: &[u64]) -> Vec<bool> {
        let mut counter = counter();
        let mut count =
            |second: &u64| counter.count(RATE, Number(7), (1000 + second) * SECOND, separate);
        seconds.iter().map(&mut count).collect()
    }

    #[test]
    fn attempts_above_the_limit_within_the_window_are_too_many() {
        assert_eq!(counted(&[0, 10, 20, 30]), [false, false, false, true]);
        assert_eq!(counted(&[0, 4, 5, 9, 10, 14]), [false; 6], "within 5 s they are one");
        assert_eq!(counted(&[0, 10, 20, 60, 70, 80]), [false; 6], "the window moves on");
        // Second legs of a carrier whose machine tries again after 12 s.
        assert_eq!(counted_apart(15, &[0, 12, 20, 32, 40, 52]), [false; 6]);
        assert_eq!(counted(&[0, 10, 20, 59]), [false, false, false, true]);
        assert_eq!(
            counted(&[0, 10, 20, 30, 40, 50, 55])[4..],
            [false; 3],
            "the count starts again"
        );
        assert_eq!(counted(&[30, 20, 10, 0]), [false; 4], "late ones count no second time");
    }

    #[test]
    fn counter_has_bounded_memory() {
        let mut counter = counter();
        for number in 0..NUMBERS as u64 + 10 {
            assert!(!counter.count(RATE, Number(number + 1), 1000 * SECOND, SEPARATE));
            assert!(counter.attempts.len() <= NUMBERS);
        }
        assert_eq!(counter.attempts.len(), 10);
    }

    proptest! {
        /// Compares the counter with a simple count.
        #[test]
        fn as_counted_by_hand(gaps in prop::collection::vec(0u64..40, 0..40)) {
            let mut second = 0;
            let seconds: Vec<_> = gaps.iter().map(|gap| { second += gap; second }).collect();
            let mut separate: Vec<u64> = Vec::new();
            let mut expected = Vec::new();
            for second in &seconds {
                separate.retain(|before| before + u64::from(RATE.window) > *second);
                if separate.last().is_none_or(|last| second - last >= 5) {
                    separate.push(*second);
                }
                expected.push(separate.len() > 3);
                if separate.len() > 3 {
                    separate.clear();
                }
            }
            prop_assert_eq!(counted(&seconds), expected);
        }
    }
}
