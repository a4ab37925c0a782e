//! Keeps the companions of the first look attached while it is on an interface. An attempt that failed is tried
//! again, at longer and longer intervals.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::datapath::{Filter, Pins, second_look};

/// Time from the first failure to the next attempt.
const FIRST: Duration = Duration::from_secs(1);
/// Longest time between two attempts.
const LONGEST: Duration = Duration::from_secs(60);

/// A program that judges whole datagrams which the first look could not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Companion {
    /// The second look, at datagrams to sockets of this machine.
    SecondLook,
    /// The program for datagrams that this machine only forwards.
    Forwarded {
        /// Netfilter puts all fragments together for it.
        reassemble: bool,
    },
}

impl Companion {
    fn name(self) -> &'static str {
        match self {
            Companion::SecondLook => "the second look at whole datagrams",
            Companion::Forwarded { .. } => "the program for forwarded packets",
        }
    }

    fn is_attached(self, pins: &Pins) -> bool {
        match self {
            Companion::SecondLook => pins.has_second_look(),
            Companion::Forwarded { .. } => pins.has_forwarded(),
        }
    }

    fn refusal(self, filter: &Filter) -> Option<&str> {
        match self {
            Companion::SecondLook => filter.no_second_look(),
            Companion::Forwarded { .. } => filter.no_forwarded(),
        }
    }

    fn attach(self, filter: &mut Filter) -> Result<(), String> {
        match self {
            Companion::SecondLook => {
                filter.attach_second_look().map_err(|error| second_look::describe(&error))
            }
            Companion::Forwarded { reassemble } => {
                filter.attach_forwarded(reassemble).map_err(|error| error.to_string())
            }
        }
    }

    /// Logs why the program is not attached, and lets the first look leave nothing to a second look.
    fn report(self, problem: &str, filter: &Filter) {
        match self {
            Companion::SecondLook => tracing::error!(%problem, "{} is not attached", self.name()),
            Companion::Forwarded { .. } => {
                tracing::warn!(%problem, "{} is not attached", self.name())
            }
        }
        if self == Companion::SecondLook
            && let Err(error) = second_look::set(filter.folder(), false)
        {
            tracing::error!(%error, "cannot say that no second look follows");
        }
    }
}

/// A companion, as this daemon knows it.
#[derive(Debug, Default)]
pub struct Kept(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    /// The first look is on no interface.
    #[default]
    Off,
    /// This daemon has attached it in this way.
    On(Companion),
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
            State::Off | State::On(_) | State::Refused(_) => FIRST,
        };
        Failed { problem, wait, next: now + wait }
    }
}

impl Kept {
    /// Returns why the companion judges nothing; `None`: it does, or the first look is on no interface.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        match &*self.lock() {
            State::Off | State::On(_) => None,
            State::Refused(problem) => Some(problem.clone()),
            State::Failed(failed) => Some(format!("{}; the daemon tries again", failed.problem)),
        }
    }

    /// Attaches the companion if this daemon has not done so, or somebody detached it. The first look must be on an
    /// interface for it.
    pub fn reconcile(&self, companion: Companion, filter: &mut Filter, now: Instant) {
        let mut state = self.lock();
        if filter.pins().links().is_empty() {
            *state = State::Off;
            return;
        }
        match &*state {
            State::On(attached) if *attached == companion => {
                if companion.is_attached(filter.pins()) {
                    return;
                }
                tracing::warn!("{} was detached by hand; it is attached again", companion.name());
            }
            State::Refused(_) => return,
            State::Failed(failed) if now < failed.next => return,
            State::Failed(_) | State::Off | State::On(_) => {}
        }
        if let Some(problem) = companion.refusal(filter).map(ToOwned::to_owned) {
            companion.report(&problem, filter);
            *state = State::Refused(problem);
            return;
        }
        let Err(problem) = companion.attach(filter) else {
            tracing::info!("attached {}", companion.name());
            *state = State::On(companion);
            return;
        };
        let failed = Failed::after(&state, problem, now);
        if !matches!(&*state, State::Failed(before) if before.problem == failed.problem) {
            companion.report(&failed.problem, filter);
        }
        *state = State::Failed(failed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_come_at_longer_and_longer_intervals() {
        let now = Instant::now();
        let mut state = State::On(Companion::SecondLook);
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
