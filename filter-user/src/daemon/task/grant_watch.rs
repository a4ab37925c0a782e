//! Records the redial grants of the kernel on the review list, and notifies the listeners.
//!
//! The filter's ring has a grant with the call that opened it. The event can be lost, so the map
//! of grants is read regularly: one grant is one entry, however often it is seen.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use filter_common::abi::{EventEntry, Grant};
use filter_common::number::Number;
use filter_common::reason::Reason;
use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc};

use crate::api::wire;
use crate::daemon::convert::review_of;
use crate::daemon::state::Control;
use crate::daemon::task::webhook::{Hook, post_all};
use crate::daemon::tasks::Tasks;
use crate::model::policy::Subject;
use crate::store::{Entry, Review};
use crate::sys::clock;

/// Interval of the reads of the map of grants.
pub(crate) const LOOK: Duration = Duration::from_secs(60);
/// Grants that wait for a disk that takes none, and notifications for a console that hangs.
pub(crate) const WAITING: usize = 1024;
/// Grants whose end is remembered.
const KNOWN: usize = 10_000;

/// Author of what the kernel did.
const KERNEL: &str = "kernel";
/// Kind of a review about a redial grant.
pub const REDIAL_GRANT: &str = "redial-grant";

/// A call that a grant let through, or a grant in the map.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) time: Timestamp,
    pub(crate) number: Number,
    pub(crate) rule: u64,
    pub(crate) call_id: Option<String>,
    pub(crate) until: Timestamp,
}

/// Receives grants, and notifies the listeners.
#[derive(Clone, Debug)]
pub struct Reviews {
    pub(crate) seen: mpsc::Sender<Seen>,
    pub(crate) news: broadcast::Sender<wire::Event>,
    pub(crate) hook: Arc<Hook>,
}

impl Reviews {
    /// Starts to record grants and to notify the listeners.
    #[must_use]
    pub fn start(control: &Arc<Control>, tasks: &Tasks) -> Reviews {
        let (seen, coming) = mpsc::channel(WAITING);
        let (news, _) = broadcast::channel(WAITING);
        let reviews = Reviews { seen, news, hook: Arc::default() };
        let (posts, to_post) = mpsc::channel(WAITING);
        let keeping = keep(Arc::clone(control), coming, reviews.clone(), posts);
        tasks.spawn("reviews", keeping);
        let posting = post_all(Arc::clone(control), to_post, Arc::clone(&reviews.hook));
        tasks.spawn("webhook", posting);
        reviews
    }

    /// Notes the kernel's decision on a call.
    pub fn take(&self, control: &Control, entry: &EventEntry) {
        let event = &entry.event;
        if event.reason != Reason::RedialGrant as u8 {
            return;
        }
        let call_id = entry.call_id();
        let seen = Seen {
            time: clock::wall(event.time),
            number: event.number,
            rule: event.rule,
            call_id: (!call_id.is_empty()).then(|| String::from_utf8_lossy(call_id).into_owned()),
            until: clock::wall(end(control, event.number, event.time)),
        };
        // Without room, the map of grants has it later.
        let _ = self.seen.try_send(seen);
    }

    /// Returns the notifications from now on.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<wire::Event> {
        self.news.subscribe()
    }

    /// Returns the problem of the webhook; `None`: the last notification was taken.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let problem = self.hook.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let count = self.hook.undelivered.load(Ordering::Relaxed);
        Some(format!("webhook: {count} notifications were not delivered; the last one: {problem}"))
    }
}

/// Returns the end of the grant that let a call through, in boot time. The map has only the newest
/// grant of a number, and the event may be an old one.
pub(crate) fn end(control: &Control, number: Number, time: u64) -> u64 {
    let latest = time + length(control, number);
    let grant = control.maps.grant(number).ok().flatten();
    match grant.map(|grant| grant.until).filter(|until| *until > time) {
        Some(until) => until.min(latest),
        None => latest,
    }
}

/// Returns the length of a grant of this number, in nanoseconds.
pub(crate) fn length(control: &Control, number: Number) -> u64 {
    let subject = Subject::Number(number);
    let own = control.maps.block(subject).ok().flatten();
    let block = own.or_else(|| control.maps.blocked_prefix(&subject.key()).ok().flatten());
    let seconds = block.map_or(0, |block| block.redial_grant);
    let seconds = if seconds == 0 { control.config().redial.grant } else { seconds };
    u64::from(seconds) * 1_000_000_000
}

/// Records incoming grants.
pub(crate) async fn keep(
    control: Arc<Control>,
    mut coming: mpsc::Receiver<Seen>,
    reviews: Reviews,
    posts: mpsc::Sender<wire::Event>,
) {
    let mut known: HashMap<Number, Timestamp> = HashMap::new();
    let mut look = tokio::time::interval(LOOK);
    // Calls that wait in the ring since a time without a daemon have more details than the map.
    look.reset_after(Duration::from_secs(2));
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            seen = coming.recv() => match seen {
                Some(seen) => batch.push(seen),
                None => return,
            },
            _ = look.tick() => match control.maps.grants() {
                Ok(grants) => {
                    batch = running(&control, &grants);
                    forget(&control, &grants);
                }
                Err(error) => tracing::error!(%error, "cannot read the map of grants"),
            },
        }
        for seen in batch {
            if known.get(&seen.number).is_some_and(|until| *until > seen.time) {
                continue;
            }
            if known.len() >= KNOWN {
                // The store recognises duplicates as well.
                known.clear();
            }
            known.insert(seen.number, seen.until);
            let Some(event) = record(&control, seen).await else { continue };
            let _ = reviews.news.send(event.clone());
            if control.config().webhook.is_some() && posts.try_send(event).is_err() {
                reviews.hook.undelivered.fetch_add(1, Ordering::Relaxed);
                reviews.hook.note(Some("too many wait for it".to_owned()));
            }
        }
    }
}

/// Returns the running grants of the kernel.
fn running(control: &Control, grants: &[Grant]) -> Vec<Seen> {
    let now = clock::boot();
    let running = grants.iter().filter(|grant| grant.until > now);
    running
        .map(|grant| Seen {
            time: clock::wall(grant.until.saturating_sub(length(control, grant.number)).min(now)),
            number: grant.number,
            rule: grant.rule,
            call_id: None,
            until: clock::wall(grant.until),
        })
        .collect()
}

/// Makes room in the kernel's map: the kernel does not remove ended grants.
pub(crate) fn forget(control: &Control, grants: &[Grant]) {
    let ended = clock::boot().saturating_sub(LOOK.as_nanos() as u64);
    match control.maps.forget_grants(grants, ended) {
        Ok(0) => {}
        Ok(forgotten) => tracing::debug!(grants = forgotten, "removed ended grants from the map"),
        Err(error) => tracing::error!(%error, "cannot remove ended grants from the map"),
    }
}

/// Records a grant. Returns the notification, unless the grant is an old one.
pub(crate) async fn record(control: &Control, seen: Seen) -> Option<wire::Event> {
    let review = Review {
        time: seen.time,
        number: seen.number,
        kind: REDIAL_GRANT.to_owned(),
        rule: seen.rule,
        call_id: seen.call_id,
        until: seen.until,
        closed: None,
    };
    let entry = Entry::new(clock::now(), KERNEL, "redial grant")
        .with("granted", review.time.to_string())
        .with("until", review.until.to_string())
        .with("call_id", review.call_id.clone());
    let stored = Arc::new(Mutex::new(None));
    let (found, wanted) = (Arc::clone(&stored), review.clone());
    // The grant is in force; a person must learn of it even if the disk fails.
    control
        .store_handle
        .write_behind(move |store| {
            let id = store.open_review(&wanted, entry.clone())?;
            *found.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
            Ok(())
        })
        .await;
    let stored = *stored.lock().unwrap_or_else(PoisonError::into_inner);
    match stored {
        Some(None) => None,
        Some(id) => Some(event_of(id, review)),
        None => Some(event_of(None, review)),
    }
}

fn event_of(id: Option<u64>, review: Review) -> wire::Event {
    tracing::warn!(id, rule = review.rule, "a redial grant let a blocked caller through");
    wire::Event::RedialGrant { review: review_of(id, review) }
}
