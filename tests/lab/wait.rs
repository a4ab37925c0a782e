//! Waiting for something that comes soon.

use std::time::{Duration, Instant};

/// How long [`eventually`] waits.
const LONGEST: Duration = Duration::from_secs(30);

/// Waits until something is so, at most 30 s.
///
/// # Panics
/// When it is not so by then.
pub fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    eventually_within(LONGEST, what, is_so);
}

/// Waits until something is so, at most this long.
///
/// # Panics
/// When it is not so by then.
pub fn eventually_within(longest: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + longest;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {} s: {what}", longest.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
}
