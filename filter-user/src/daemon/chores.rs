//! Remembers the problems of the daemon's own work: each is logged once, and in the status for as
//! long as it lasts.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::api::wire::Problem;

/// Problems of work that no client waits for.
#[derive(Debug, Default)]
pub struct Chores(Mutex<BTreeMap<&'static str, String>>);

impl Chores {
    /// Notes the result of a piece of work. `failed` says what its failure means, and identifies
    /// the work.
    pub fn note(&self, failed: &'static str, problem: Option<String>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => {
                let before = known.insert(failed, problem.clone());
                if before.as_ref() != Some(&problem) {
                    tracing::warn!(%problem, "{failed}");
                }
            }
            None => {
                if known.remove(failed).is_some() {
                    tracing::info!("solved: {failed}");
                }
            }
        }
    }

    /// Notes the result of an attempt, and returns its value if it succeeded.
    pub fn tried<T>(&self, failed: &'static str, done: Result<T, Problem>) -> Option<T> {
        match done {
            Ok(value) => {
                self.note(failed, None);
                Some(value)
            }
            Err(problem) => {
                self.note(failed, Some(problem.message));
                None
            }
        }
    }

    /// Returns the present problems, ordered by what failed.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(failed, problem)| format!("{failed}: {problem}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::ProblemKind;

    #[test]
    fn problem_remains_until_the_work_succeeds() {
        let chores = Chores::default();
        let problem = || Problem { kind: ProblemKind::Store, message: "no disk".to_owned() };
        assert_eq!(chores.tried::<()>("b stays", Err(problem())), None);
        chores.note("a stays", Some("no time".to_owned()));
        assert_eq!(chores.problems(), ["a stays: no time", "b stays: no disk"]);
        assert_eq!(chores.tried("b stays", Ok(7)), Some(7));
        chores.note("a stays", None);
        assert_eq!(chores.problems(), [""; 0]);
    }
}
