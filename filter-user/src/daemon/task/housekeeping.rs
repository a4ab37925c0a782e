//! Removes ended decisions, notices a clock that was set, and adopts offline changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::SignedDuration;

use crate::daemon::reconcile;
use crate::daemon::state::Control;
use crate::daemon::task::reconcile_loop::NOTES;
use crate::store::Entry;
use crate::sys::clock;

/// Interval of these checks.
const TICK: Duration = Duration::from_secs(1);

/// How often the store's newest time moves on without any change.
const SEEN: Duration = Duration::from_secs(60);

/// Problem for the status: ended decisions cannot be removed.
const ENDED: &str = "blocks and allows that have ended stay in the store";

/// A wall clock that moved by more than this against boot time was set.
pub(crate) const STEP: SignedDuration = SignedDuration::from_secs(1);

/// Removes ended decisions. If there are many, it continues as fast as the disk can.
pub(crate) async fn remove_ended(control: Arc<Control>) {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        while control.chores.tried(ENDED, reconcile::sweep(&control).await) == Some(true) {}
    }
}

/// Notices a clock that was set, and changes that were made without the daemon.
pub(crate) async fn housekeeping(control: Arc<Control>) {
    let mut tick = tokio::time::interval(TICK);
    let mut seen = Instant::now();
    let mut offset = clock::offset();
    loop {
        tick.tick().await;
        let now = clock::offset();
        let step = now.saturating_sub(offset);
        if step.abs() > STEP {
            tracing::warn!(seconds = step.as_secs(), "the clock was set");
            let entry =
                Entry::new(clock::now(), "daemon", "clock step").with("seconds", step.as_secs());
            control.store_handle.write_behind(move |store| store.audit(entry.clone())).await;
            if let Err(problem) = reconcile::compare(&control).await {
                tracing::error!(problem = %problem.message, "cannot compare store and maps");
            }
        }
        offset = now;
        control.chores.tried(NOTES, reconcile::adopt_noted(&control).await);
        if seen.elapsed() > SEEN {
            seen = Instant::now();
            let _ = control.store_handle.write_through(|store| Ok(store.seen(clock::now())?)).await;
        }
    }
}
