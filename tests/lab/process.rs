//! Names and times of this process.

use std::sync::atomic::{AtomicU32, Ordering};

/// Returns `<pid>-<n>`: different for every call in every process.
pub(super) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Returns whether `name` is `<prefix><pid>-…` of a process that has ended.
pub(super) fn is_left_over(name: &str, prefix: &str) -> bool {
    let pid = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next());
    pid.and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
}

/// Reads CLOCK_MONOTONIC, in nanoseconds: the clock of [`Invite::sent_at`](super::Invite::sent_at).
///
/// # Panics
/// Never on Linux.
#[must_use]
pub fn now() -> u64 {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    let time = nix::time::clock_gettime(clock).expect("CLOCK_MONOTONIC");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}
