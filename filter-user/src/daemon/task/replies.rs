//! Keeps the keys of the tags in replies, and watches whether carriers acknowledge replies.

use std::sync::Arc;
use std::time::Duration;

use filter_common::abi::Keys;

use crate::api::wire::{Problem, ProblemKind};
use crate::daemon::reply_path::{Change, Counters, Window};
use crate::daemon::reply_sender::ReplySender;
use crate::daemon::state::Control;
use crate::datapath::{ReplyCounters, ReplyKeys};
use crate::store::Entry;
use crate::sys::clock;

/// Interval of the looks. An ACK needs less time.
const TICK: Duration = Duration::from_secs(5);
/// How long a key makes new tags, in ns.
const KEY_NS: u64 = 3_600_000_000_000;
/// How long the tags of a key are valid after its time, in ns.
const OLD_KEY_NS: u64 = 64_000_000_000;

/// Problem for the status: keys and counters cannot be read or written.
const FAILED: &str = "replies to refused calls are not watched";

/// Makes sure that there are keys: without them nothing is answered.
///
/// # Errors
/// [`Problem`] of the kind `Failed` if a system call fails.
pub fn ensure_keys(keys: &mut ReplyKeys) -> Result<(), Problem> {
    if !keys.get()?.are_set() {
        keys.begin([random()?, random()?])?;
    }
    Ok(())
}

/// Rotates the keys every hour, and notes in the audit when a carrier begins or ends to acknowledge no replies.
pub async fn run(
    control: Arc<Control>,
    mut keys: ReplyKeys,
    counters: Arc<ReplyCounters>,
    sender: Arc<ReplySender>,
) {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        control.chores.tried(FAILED, rotate(&mut keys));
        control.chores.tried(FAILED, look(&control, &counters, &sender).await);
        note_unanswered(&control, &sender).await;
    }
}

fn rotate(keys: &mut ReplyKeys) -> Result<(), Problem> {
    let now = clock::boot();
    if is_due(&keys.get()?, now) {
        keys.rotate(random()?, now + OLD_KEY_NS)?;
    }
    Ok(())
}

/// Returns whether the newest key has made tags for an hour. Then the other one is no longer valid.
fn is_due(keys: &Keys, now: u64) -> bool {
    now >= keys.older_until.saturating_sub(OLD_KEY_NS) + KEY_NS
}

fn random() -> Result<[u64; 2], Problem> {
    let number = || {
        getrandom::u64().map_err(|error| Problem {
            kind: ProblemKind::Failed,
            message: format!("the system has no randomness: {error}"),
        })
    };
    Ok([number()?, number()?])
}

/// Notes in the audit calls that came while no daemon ran.
async fn note_unanswered(control: &Control, sender: &ReplySender) {
    let calls = sender.take_unanswered();
    if calls > 0 {
        let entry = Entry::new(clock::now(), "daemon", "calls not answered").with("calls", calls);
        control.store_handle.write_behind(move |store| store.audit(entry.clone())).await;
    }
}

async fn look(
    control: &Arc<Control>,
    counters: &ReplyCounters,
    sender: &ReplySender,
) -> Result<(), Problem> {
    for (index, trunk) in (0..).zip(&control.config().policy.trunks) {
        let (name, path) = (trunk.name.as_str(), trunk.profile.reply_path);
        let by_daemon = counters.by_daemon(index)?.sent;
        let found = Counters { all: counters.of_both(index)?, by_daemon };
        if let Some(change) = control.replies.look(name, index, path, found) {
            note_change(control, name, change).await;
        }
        // At each look: the daemon may not have been able to send at the last one.
        if let Some(Window { calls, acks, .. }) = control.replies.lost_by_driver(name)
            && sender.can_send()
            && control.answer_by_daemon(name)?
        {
            tracing::warn!(trunk = name, "the daemon sends the replies from now on");
            let entry = Entry::new(clock::now(), "daemon", "replies moved to the daemon");
            let entry = entry.with("trunk", name).with("calls", calls).with("acks", acks);
            control.store_handle.write_behind(move |store| store.audit(entry.clone())).await;
        }
    }
    Ok(())
}

/// Notes in the log and in the audit that a carrier acknowledges the replies no more, or again.
async fn note_change(control: &Control, trunk: &str, change: Change) {
    let (action, Window { calls, acks, .. }) = match change {
        Change::Bad(window) => ("replies not acknowledged", window),
        Change::Good(window) => ("replies acknowledged again", window),
    };
    tracing::warn!(trunk, calls, acks, "{action}");
    let entry = Entry::new(clock::now(), "daemon", action)
        .with("trunk", trunk)
        .with("calls", calls)
        .with("acks", acks);
    control.store_handle.write_behind(move |store| store.audit(entry.clone())).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_due_after_an_hour() {
        let keys = Keys { older_until: 10 * KEY_NS + OLD_KEY_NS, ..Keys::default() };
        assert!(!is_due(&keys, 11 * KEY_NS - 1));
        assert!(is_due(&keys, 11 * KEY_NS));
        // Keys of the start have no older ones.
        assert!(!is_due(&Keys::default(), KEY_NS - 1));
    }

    #[test]
    fn two_keys_differ() {
        assert_ne!(random().unwrap(), random().unwrap());
    }
}
