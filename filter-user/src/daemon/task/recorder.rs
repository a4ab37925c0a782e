//! Moves call records from the kernel's rings into the store.
//!
//! The recorder never waits for the store: while that writes, it takes events from the rings and
//! keeps them in its [`Queue`].

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use filter_common::abi::{self, AttemptKey, EventEntry, Verdict};
use filter_common::answer::code::Code;
use filter_common::number::Number;
use tokio::sync::{broadcast, oneshot};

use crate::api::wire::Problem;
use crate::config::Config;
use crate::daemon::accounts::{Accounts, Left, Now};
use crate::daemon::evidence::Evidence;
use crate::daemon::state::Control;
use crate::daemon::task::asserted::Asserted;
use crate::daemon::task::auto_rate::Counter;
use crate::daemon::task::flood::{Flood, Place};
use crate::daemon::task::grant_watch::Reviews;
use crate::daemon::task::machine_redials::MachineRedials;
use crate::daemon::task::queue::Queue;
use crate::datapath::{self, Error, Events, EvidenceRing, Pins, Positions};
use crate::model::per_ring::{PerRing, is_in_ring_of_refusals};
use crate::store::{Account, CallRow, EvidenceRow, Room, Store, Stored, Unplaced};
use crate::sys::clock;

/// How often the rings are looked at, and records are stored so that they outlive us. Each ring
/// holds 5,000 events.
const LOOK: Duration = Duration::from_millis(100);
/// Interval of looks while many events come.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Number of events in a look that counts as many: a quarter of a ring.
const MANY: usize = 1300;
/// How often records go to disk, so that they outlive the machine.
const COMMIT: Duration = Duration::from_secs(1);
/// Events that are taken from a ring at once.
const BATCH: usize = 8192;
/// Frames that wait for their call to be stored, about 2 KiB each.
const FRAMES_MAX: usize = 2000;
/// When an attempt is over, and it is known how often it was sent.
const OVER: Duration = Duration::from_secs(70);
/// How long the start waits for the store.
const PATIENCE: Duration = Duration::from_secs(1);

struct Recorder {
    control: Arc<Control>,
    queue: Queue,
    flood: Flood,
    accounts: Arc<Accounts>,
    /// The account that the store has; `None`: the store could not be read yet.
    account: Option<Account>,
    /// Rings from before an upgrade.
    left: Arc<[Left]>,
    /// When a refusal was last thinned.
    thinned_at: Option<Instant>,
    open: VecDeque<(Instant, u64, AttemptKey)>,
    /// How often calls were sent again, not stored yet.
    repeats: Vec<(u64, u32)>,
    reviews: Reviews,
    live: broadcast::Sender<CallRow>,
    rate: Counter,
    asserted: Asserted,
    machines: MachineRedials,
    evidence: Arc<Evidence>,
    /// Frames of refused attempts that wait for their call.
    frames: Vec<Unplaced>,
    /// Whether all that was stored is on disk.
    on_disk: bool,
    /// When something was last given to the store, and to the disk.
    stored: Instant,
    committed: Instant,
}

/// The rings of the kernel.
pub struct Rings {
    /// Attempts.
    pub events: Events,
    /// Frames of refused ones.
    pub frames: EvidenceRing,
    /// Attempts from the rings of maps that judge no more, and these rings.
    pub left_behind: (Vec<EventEntry>, Vec<Left>),
}

/// The answer of the store to a job. Each part of a job is a transaction of its own.
struct Done {
    records: Stored,
    frames: Option<Placed>,
    /// How many repeats were stored.
    repeats: usize,
    on_disk: bool,
}

/// Frames that the store has looked at.
struct Placed {
    count: usize,
    /// Those whose call is not stored.
    unplaced: Vec<Unplaced>,
    /// Whether all calls up to these frames are stored.
    has_all: bool,
}

type Job = Pin<Box<dyn Future<Output = Result<Done, Problem>> + Send>>;

/// The listeners to attempts.
pub struct Listeners {
    /// The review list.
    pub reviews: Reviews,
    /// Live readers of calls.
    pub live: broadcast::Sender<CallRow>,
    /// Counter of numbers that call too often.
    pub rate: Counter,
    /// Counter of calls whose asserted caller is not read.
    pub asserted: Asserted,
    /// Watch for carriers that call again by machine.
    pub machines: MachineRedials,
}

/// Takes events from the rings and writes call records, first those that were left behind. Ends
/// when the sender of `stop` is dropped.
pub async fn run(
    control: Arc<Control>,
    Rings { mut events, mut frames, left_behind: (left_behind, left) }: Rings,
    accounts: Arc<Accounts>,
    Listeners { reviews, live, rate, asserted, machines }: Listeners,
    evidence: Arc<Evidence>,
    mut stop: oneshot::Receiver<Infallible>,
) {
    let mut recorder = Recorder {
        control,
        queue: Queue::default(),
        flood: Flood::default(),
        accounts,
        account: None,
        left: left.into(),
        thinned_at: None,
        open: VecDeque::new(),
        repeats: Vec::new(),
        reviews,
        live,
        rate,
        asserted,
        machines,
        evidence,
        frames: Vec::new(),
        on_disk: true,
        stored: Instant::now(),
        committed: Instant::now(),
    };
    recorder.take(&left_behind);
    // The account is stored before an event is taken from the rings: a later kill is visible.
    let mut job = Some(recorder.job_with(false, None));
    if let Ok(done) = tokio::time::timeout(PATIENCE, finished(&mut job)).await {
        job = None;
        recorder.finish(done);
    }
    let mut next = Instant::now();
    loop {
        let stopped = tokio::select! {
            () = tokio::time::sleep_until(next.into()) => false,
            done = finished(&mut job) => {
                job = None;
                recorder.finish(done);
                continue;
            }
            _ = &mut stop => true,
        };
        let taken = recorder.look(&mut events, &mut frames);
        recorder.publish();
        if stopped {
            return recorder.end(job).await;
        }
        if job.is_none() {
            job = recorder.job();
        }
        next = Instant::now() + if taken > MANY { LOOK_AGAIN } else { LOOK };
    }
}

/// Waits for the answer of the store to a job; without a job it never ends.
async fn finished(job: &mut Option<Job>) -> Result<Done, Problem> {
    match job {
        Some(job) => job.await,
        None => std::future::pending().await,
    }
}

/// Returns the events in the rings of maps that judge no more, after an upgrade. Those of another
/// version cannot be read, and are lost.
///
/// # Errors
/// Returns an error if a ring is missing.
pub fn left_behind(folder: &Path) -> Result<(Vec<EventEntry>, Left), Error> {
    let positions = Positions::open(folder)?;
    let mut events = Events::open(folder)?;
    let mut entries = Vec::new();
    let mut drained = PerRing::default();
    if Pins::is_of_this_version(folder) {
        entries = events.drain(usize::MAX)?;
        for EventEntry { event, .. } in &entries {
            drained.add(is_in_ring_of_refusals(event.verdict, event.reason), 1);
        }
    } else {
        (drained.refused, drained.passed) = events.discard();
    }
    let unsent = match datapath::event_stats(folder) {
        Ok(stats) => PerRing {
            refused: stats.refused_lost,
            passed: stats.passed_lost + stats.passed_thinned,
        },
        Err(error) => {
            tracing::warn!(%error, "events that the kernel lost before the upgrade are not counted");
            PerRing::default()
        }
    };
    let rings = positions.rings().to_owned();
    Ok((entries, Left { rings, taken_bytes: positions.taken(1), drained, unsent }))
}

impl Recorder {
    /// Takes all events from the rings; returns their number.
    fn look(&mut self, events: &mut Events, frames: &mut EvidenceRing) -> usize {
        // Frames come first: the event of each is then taken already, or is taken now.
        match frames.drain() {
            Ok(frames) => self.take_frames(&frames),
            Err(error) => tracing::error!(%error, "cannot read the ring of INVITEs"),
        }
        match events.drain(BATCH) {
            Ok(entries) => {
                self.take(&entries);
                entries.len()
            }
            Err(error) => {
                tracing::error!(%error, "cannot read the ring of events");
                0
            }
        }
    }

    fn take(&mut self, entries: &[EventEntry]) {
        let config = self.control.config();
        for entry in entries {
            let event = &entry.event;
            self.reviews.take(&self.control, entry);
            self.rate.take(&config, event);
            let outside = config.policy.settings.trunks_configured != 0 && event.trunk == 0;
            let trunk = config.policy.trunks.get(usize::from(event.trunk)).filter(|_| !outside);
            if let Some(trunk) = trunk {
                self.asserted.take(entry, trunk);
                self.machines.take(event, trunk);
            }
            let text = |bytes: &[u8]| {
                (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned())
            };
            let row = CallRow {
                time: clock::wall(event.time),
                number: (event.number != Number::NONE).then_some(event.number),
                trunk: trunk.map(|trunk| trunk.name.clone()),
                source: address(event.source, event.source_port),
                call_id: text(entry.call_id()),
                call_hash: event.call_id,
                identity: event.identity,
                verdict: event.verdict,
                policy_verdict: event.policy_verdict,
                reason: event.reason,
                rule: event.rule,
                repeats: 0,
                count: 1,
                unread: text(entry.unread()),
                reply: Code::from_number(event.reply).map(Code::status),
            };
            self.control.busiest.take(&row, event.time);
            // There may be no listener.
            if self.live.receiver_count() > 0 {
                let _ = self.live.send(row.clone());
            }
            self.record(&config, entry, row);
        }
    }

    /// Gives an attempt a record, counts it in another one, or thins it. Without room it is lost.
    fn record(&mut self, config: &Config, entry: &EventEntry, row: CallRow) {
        let event = &entry.event;
        let is_refusal = row.is_in_ring_of_refusals();
        let has_room = self.queue.has_room(is_refusal);
        let key = AttemptKey { number: event.number, call_id: event.call_id };
        if event.verdict == Verdict::Pass as u8 {
            if has_room {
                self.queue.push(row, key);
            }
            return;
        }
        if self.flood.go_on(event) {
            self.queue.close();
        }
        let mut place = self.flood.place(config.records, event, has_room);
        if let Place::In(record) = place
            && !self.queue.count(record)
        {
            // The number was erased meanwhile.
            self.flood.forget(event);
            place = self.flood.place(config.records, event, has_room);
        }
        match place {
            Place::Own => {
                let record = self.queue.push(row, key);
                self.flood.put(event, record);
            }
            Place::Thinned if has_room => {
                let trunk = config.policy.trunks.get(usize::from(event.trunk));
                self.queue.thin(trunk.map_or("unknown", |trunk| &trunk.name));
                self.thinned_at = Some(Instant::now());
            }
            Place::Thinned | Place::In(_) => {}
        }
    }

    fn take_frames(&mut self, frames: &[abi::Evidence]) {
        let stored = self.control.config().evidence.is_some();
        for frame in frames {
            self.evidence.publish(frame);
            if !stored {
                continue;
            }
            if self.frames.len() >= FRAMES_MAX {
                self.evidence.lose(1);
                continue;
            }
            let row = EvidenceRow {
                time: clock::wall(frame.time),
                frame_len: frame.frame_len,
                frame: frame.frame().to_vec(),
            };
            self.frames.push((frame.number, frame.call_id, row));
        }
    }

    /// Returns the job for the store that is due now.
    fn job(&mut self) -> Option<Job> {
        let waits_for_disk = self.committed.elapsed() >= COMMIT;
        // Not at each look while many events come, and once a second where the store takes nothing.
        let may_be_soon = self.stored.elapsed() >= LOOK - LOOK_AGAIN
            && self.control.store_handle.problem().is_none();
        if !waits_for_disk && !may_be_soon {
            return None;
        }
        if waits_for_disk {
            self.count_repeats();
        }
        let room = self.room_for_frames();
        let waits = !self.queue.has_no_rows() || (waits_for_disk && !self.queue.is_empty());
        let is_due = waits_for_disk && (!self.on_disk || !self.repeats.is_empty());
        if !waits && !is_due && self.frames.is_empty() {
            return None;
        }
        Some(self.job_with(waits_for_disk, room))
    }

    /// Returns how many frames are kept; `None`: frames are not kept.
    fn room_for_frames(&mut self) -> Option<Room> {
        let Some(kept) = self.control.config().evidence else {
            self.frames.clear();
            return None;
        };
        Some(Room { frames: kept.max_calls.into(), bytes: kept.max_bytes })
    }

    /// Gives the store a copy of the records that wait, and of frames where there is room for them.
    fn job_with(&mut self, waits_for_disk: bool, room: Option<Room>) -> Job {
        self.stored = Instant::now();
        if waits_for_disk {
            self.committed = self.stored;
        }
        let records = self.queue.hand_out(waits_for_disk);
        let has_all = self.queue.has_handed_out_all();
        let repeats = if waits_for_disk { self.repeats.clone() } else { Vec::new() };
        let frames = room.filter(|_| !self.frames.is_empty());
        let frames = frames.map(|room| (self.frames.clone(), room));
        let (account, left) = (self.account.clone(), Arc::clone(&self.left));
        let (store_handle, accounts) =
            (self.control.store_handle.clone(), Arc::clone(&self.accounts));
        let write = move |store: &mut Store| {
            let account = match account {
                Some(account) => account,
                None => accounts.go_on(store.reader().account()?, &left),
            };
            let records = store.put_records(&records, &account, waits_for_disk)?;
            let place = |(frames, room): (Vec<Unplaced>, _)| {
                let count = frames.len();
                let unplaced = store.put_evidence(frames, room).ok()?;
                Some(Placed { count, unplaced, has_all })
            };
            let frames = frames.and_then(place);
            let is_counted = !repeats.is_empty() && store.set_repeats(&repeats).is_ok();
            let repeats = if is_counted { repeats.len() } else { 0 };
            Ok(Done { records, frames, repeats, on_disk: waits_for_disk })
        };
        Box::pin(async move { store_handle.write_through(write).await })
    }

    /// Takes note of the answer of the store to a job.
    fn finish(&mut self, done: Result<Done, Problem>) {
        let Ok(Done { records, frames, repeats, on_disk }) = done else {
            return self.queue.failed();
        };
        self.on_disk = on_disk && frames.is_none();
        let due = Instant::now() + OVER;
        let new = self.queue.stored(&records);
        let odd = records.ids.iter().filter(|id| id.is_none()).count();
        if odd > 0 {
            tracing::error!(
                attempts = odd,
                "attempts without a record: the store refuses their content"
            );
        }
        self.account = Some(records.account);
        let attempts = new.into_iter().filter(|(_, key)| key.number != Number::NONE);
        self.open.extend(attempts.map(|(id, key)| (due, id, key)));
        self.repeats.drain(..repeats);
        if let Some(Placed { count, mut unplaced, has_all }) = frames {
            if has_all {
                // Their calls have no record of their own, and get none any more.
                self.evidence.lose(unplaced.len());
                unplaced.clear();
            }
            self.frames.splice(..count, unplaced);
        }
    }

    /// Looks how often the attempts that are over were sent again.
    fn count_repeats(&mut self) {
        while let Some((due, id, key)) = self.open.front().copied()
            && due <= Instant::now()
        {
            self.open.pop_front();
            if let Ok(Some(attempt)) = self.control.maps.attempt(key)
                && attempt.repeats > 0
            {
                self.repeats.push((id, attempt.repeats));
            }
        }
    }

    /// Publishes how many attempts have a record now.
    fn publish(&self) {
        self.accounts.set(Now {
            account: self.account.clone().unwrap_or_else(|| self.accounts.go_on(None, &self.left)),
            waiting: self.queue.waiting(),
            thinned: self.queue.thinned().clone(),
            thinned_at: self.thinned_at,
            taken: self.accounts.taken(),
        });
    }

    /// Writes the rest, as far as the store takes it.
    async fn end(mut self, job: Option<Job>) {
        if let Some(job) = job {
            self.finish(job.await);
        }
        loop {
            let room = self.room_for_frames();
            let done = self.job_with(true, room).await;
            let failed = done.is_err();
            self.finish(done);
            if failed || self.queue.is_empty() {
                return;
            }
        }
    }
}

fn address(address: [u8; 16], port: u16) -> String {
    let address = Ipv6Addr::from(address);
    let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
    SocketAddr::new(address, port).to_string()
}
