//! Keeps the second look attached while the first look is on an interface. An attempt that failed is tried
//! again, at longer and longer intervals.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::datapath::{Filter, second_look};

/// Time from the first failure to the next attempt.
const FIRST: Duration = Duration::from_secs(1);
/// Longest time between two attempts.
const LONGEST: Duration = Duration::from_secs(60);

/// The second look, as this daemon knows it.
#[derive(Debug, Default)]
pub struct SecondLook(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    /// The first look is on no interface.
    #[default]
    Off,
    /// This daemon has attached it.
    On,
    /// The kernel refused to load the program. Its answer does not change, and only the start of a daemon
    /// has the privileges to ask again.
    Refused(String),
    /// It could not be attached.
    Failed(Failed),
}

#[derive(Debug)]
struct Failed {
    problem: String,
    /// Time from the last attempt to the next one.
    wait: Duration,
    /// When the next attempt is due.
    next: Instant,
}

impl Failed {
    fn after(before: &State, problem: String, now: Instant) -> Failed {
        let wait = match before {
            State::Failed(failed) => (failed.wait * 2).min(LONGEST),
            State::Off | State::On | State::Refused(_) => FIRST,
        };
        Failed { problem, wait, next: now + wait }
    }
}

impl SecondLook {
    /// Returns why no second look judges datagrams in fragments; `None`: it does.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        match &*self.lock() {
            State::Off | State::On => None,
            State::Refused(problem) => Some(problem.clone()),
            State::Failed(failed) => Some(format!("{}; the daemon tries again", failed.problem)),
        }
    }

    /// Attaches the second look if this daemon has not done so, or somebody removed its pin. The first look
    /// must be on an interface for it.
    pub fn reconcile(&self, filter: &mut Filter, now: Instant) {
        let mut state = self.lock();
        if filter.pins().links().is_empty() {
            *state = State::Off;
            return;
        }
        match &*state {
            State::On if filter.pins().has_second_look() => return,
            State::On => {
                tracing::warn!("the pin of the second look was removed; it is attached again");
            }
            State::Refused(_) => return,
            State::Failed(failed) if now < failed.next => return,
            State::Failed(_) | State::Off => {}
        }
        if let Some(problem) = filter.no_second_look().map(ToOwned::to_owned) {
            report(&problem, filter);
            *state = State::Refused(problem);
            return;
        }
        let Err(error) = filter.attach_second_look() else {
            tracing::info!("attached the second look at whole datagrams");
            *state = State::On;
            return;
        };
        let failed = Failed::after(&state, second_look::describe(&error), now);
        if !matches!(&*state, State::Failed(before) if before.problem == failed.problem) {
            report(&failed.problem, filter);
        }
        *state = State::Failed(failed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs why no second look follows, and lets the first look leave nothing to it.
fn report(problem: &str, filter: &Filter) {
    tracing::error!(%problem, "no second look at whole datagrams");
    if let Err(error) = second_look::set(filter.folder(), false) {
        tracing::error!(%error, "cannot say that no second look follows");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_come_at_longer_and_longer_intervals() {
        let now = Instant::now();
        let mut state = State::On;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let failed = Failed::after(&state, "no file system".to_owned(), now);
            assert_eq!(failed.next, now + failed.wait);
            waits.push(failed.wait.as_secs());
            state = State::Failed(failed);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        let off = Failed::after(&State::Off, String::new(), now);
        assert_eq!(off.wait, FIRST, "it starts again");
    }
}
