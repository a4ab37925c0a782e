//! The steps of `palang setup` that are done, and how each is undone.

use crate::exit::Failure;

/// The action that undoes a step.
pub(crate) type How = Box<dyn FnOnce() -> Result<(), Failure>>;

/// The actions that undo the steps done so far, newest last.
pub(crate) struct Undo(pub(crate) Vec<(String, How)>);

impl Undo {
    pub(crate) fn push(
        &mut self,
        what: String,
        how: impl FnOnce() -> Result<(), Failure> + 'static,
    ) {
        self.0.push((what, Box::new(how)));
    }

    /// Undoes every step and describes the result.
    pub(crate) fn all(self) -> String {
        if self.0.is_empty() {
            return "nothing was changed".to_owned();
        }
        let lines = self.0.into_iter().rev().map(|(what, how)| match how() {
            Ok(()) => format!("rolled back: {what}"),
            Err(failure) => format!("NOT rolled back: {what}: {}", failure.message),
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}
