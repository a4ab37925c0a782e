//! Keeps counts of the last hour, one a minute.

use std::collections::VecDeque;

/// Counts that are kept.
pub(crate) const MINUTES: usize = 60;

/// Counts of each minute of the last hour.
pub struct LastHour<C>(VecDeque<C>);

impl<C> Default for LastHour<C> {
    fn default() -> LastHour<C> {
        LastHour(VecDeque::new())
    }
}

impl<C> LastHour<C> {
    /// Adds the counts of this minute.
    pub fn keep(&mut self, newest: C) {
        if self.0.len() > MINUTES {
            self.0.pop_front();
        }
        self.0.push_back(newest);
    }

    /// Returns the counts of an hour ago, or of the start; `None` before the first ones.
    pub fn oldest(&self) -> Option<&C> {
        self.0.front()
    }
}
