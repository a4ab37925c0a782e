//! Call records: from the kernel's rings into the store.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use filter_common::abi::{self, AttemptKey, EventEntry, Verdict};
use filter_common::number::Number;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{broadcast, oneshot};

use super::auto_rate::Counter;
use super::control::Control;
use super::evidence::Evidence;
use super::reviews::Reviews;
use crate::clock;
use crate::datapath::{Error, Events, EvidenceRing, Pins};
use crate::store::{CallRow, EvidenceRow, Room, Unplaced};

/// How often the rings are looked at, and records are stored so that they outlive us. Each ring
/// holds 5,000 events.
const LOOK: Duration = Duration::from_millis(100);
/// How often records go to disk, so that they outlive the machine.
const COMMIT: Duration = Duration::from_secs(1);
/// Events that are taken out of a ring at once.
const BATCH: usize = 8192;
/// Records that wait for a disk that takes none, about 200 bytes each.
const WAITING_MAX: usize = 100_000;
/// Frames that wait for their call to be stored, about 2 KiB each.
const FRAMES_MAX: usize = 2000;
/// How long the call of a frame is looked for: its event may be lost.
const LOOKED_FOR: SignedDuration = SignedDuration::from_secs(5);
/// When an attempt is over, and it is known how often it was sent.
const OVER: Duration = Duration::from_secs(70);

/// Records that were lost because the disk took none.
#[derive(Debug, Default)]
pub struct Lost {
    /// Refused attempts.
    pub refused: AtomicU64,
    /// Passed attempts.
    pub passed: AtomicU64,
}

struct Recorder {
    control: Arc<Control>,
    waiting: Vec<CallRow>,
    keys: Vec<AttemptKey>,
    open: VecDeque<(Instant, u64, AttemptKey)>,
    lost: Arc<Lost>,
    reviews: Reviews,
    live: broadcast::Sender<CallRow>,
    rate: Counter,
    evidence: Arc<Evidence>,
    /// Frames of refused attempts that wait for their call.
    frames: Vec<Unplaced>,
    /// Whether all that was stored is on disk.
    on_disk: bool,
}

/// What the kernel tells.
pub struct Rings {
    /// Attempts.
    pub events: Events,
    /// Frames of refused ones.
    pub frames: EvidenceRing,
    /// Attempts from the rings of maps that judge no more.
    pub left_behind: Vec<EventEntry>,
}

/// Who hears of each attempt.
pub struct Listeners {
    /// The review list.
    pub reviews: Reviews,
    /// Those who look at calls live.
    pub live: broadcast::Sender<CallRow>,
    /// What blocks numbers that call too often.
    pub rate: Counter,
}

/// Takes events out of the rings and writes call records, first those that were left behind,
/// until there is nobody any more who could tell it to `stop`.
pub async fn run(
    control: Arc<Control>,
    Rings { mut events, mut frames, left_behind }: Rings,
    lost: Arc<Lost>,
    Listeners { reviews, live, rate }: Listeners,
    evidence: Arc<Evidence>,
    mut stop: oneshot::Receiver<Infallible>,
) {
    let mut recorder = Recorder {
        control,
        waiting: Vec::new(),
        keys: Vec::new(),
        open: VecDeque::new(),
        lost,
        reviews,
        live,
        rate,
        evidence,
        frames: Vec::new(),
        on_disk: true,
    };
    recorder.take(&left_behind);
    let mut look = tokio::time::interval(LOOK);
    let mut committed = Instant::now();
    loop {
        let stopped = tokio::select! {
            _ = look.tick() => false,
            _ = &mut stop => true,
        };
        // Frames first: the event of each is then taken out already, or is taken out now.
        match frames.drain() {
            Ok(frames) => recorder.take_frames(&frames),
            Err(error) => tracing::error!("{error}"),
        }
        match events.drain(BATCH) {
            Ok(entries) => recorder.take(&entries),
            Err(error) => tracing::error!("{error}"),
        }
        if stopped {
            recorder.commit(true).await;
            return recorder.commit_frames().await;
        }
        if committed.elapsed() >= COMMIT {
            recorder.commit(true).await;
            recorder.commit_frames().await;
            recorder.count_repeats().await;
            committed = Instant::now();
        } else if recorder.control.keeper.problem().is_none() {
            recorder.commit(false).await;
            recorder.commit_frames().await;
        }
    }
}

/// The events in the rings of maps that judge no more, after an upgrade. Those of another version
/// cannot be read, and are lost.
pub fn left_behind(folder: &Path, lost: &Lost) -> Result<Vec<EventEntry>, Error> {
    let mut events = Events::open(folder)?;
    if Pins::is_of_this_version(folder) {
        return events.drain(usize::MAX);
    }
    let (refused, passed) = events.discard();
    lost.refused.fetch_add(refused, Ordering::Relaxed);
    lost.passed.fetch_add(passed, Ordering::Relaxed);
    Ok(Vec::new())
}

impl Recorder {
    fn take(&mut self, entries: &[EventEntry]) {
        let config = self.control.config();
        for entry in entries {
            let event = &entry.event;
            self.reviews.take(&self.control, entry);
            self.rate.take(&config, event);
            let outside = config.policy.settings.trunks_configured != 0 && event.trunk == 0;
            let trunk = config.policy.trunks.get(usize::from(event.trunk)).filter(|_| !outside);
            let call_id = entry.call_id();
            let row = CallRow {
                time: clock::wall(event.time),
                number: (event.number != Number::NONE).then_some(event.number),
                trunk: trunk.map(|trunk| trunk.name.clone()),
                source: address(event.source, event.source_port),
                call_id: (!call_id.is_empty())
                    .then(|| String::from_utf8_lossy(call_id).into_owned()),
                call_hash: event.call_id,
                identity: event.identity,
                verdict: event.verdict,
                would: event.would,
                reason: event.reason,
                rule: event.rule,
                repeats: 0,
            };
            self.control.busiest.take(&row, event.time);
            // Nobody may listen.
            if self.live.receiver_count() > 0 {
                let _ = self.live.send(row.clone());
            }
            if self.waiting.len() >= WAITING_MAX {
                let refused = event.verdict != Verdict::Pass as u8;
                let lost = if refused { &self.lost.refused } else { &self.lost.passed };
                lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            self.waiting.push(row);
            self.keys.push(AttemptKey { number: event.number, call_id: event.call_id });
        }
    }

    fn take_frames(&mut self, frames: &[abi::Evidence]) {
        let stored = self.control.config().evidence.is_some();
        for frame in frames {
            self.evidence.tell(frame);
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

    /// Stores frames beside their calls, which were stored before.
    async fn commit_frames(&mut self) {
        let Some(kept) = self.control.config().evidence else {
            self.frames.clear();
            return;
        };
        if self.frames.is_empty() {
            return;
        }
        let frames = self.frames.clone();
        let room = Room { frames: kept.max_calls.into(), bytes: kept.max_bytes };
        let put = self.control.keeper.write(move |store| Ok(store.put_evidence(frames, room)?));
        // Else they wait, until there is no room for more.
        let Ok(mut unplaced) = put.await else { return };
        self.on_disk = false;
        // Calls that wait for a disk may be those of the frames.
        if self.waiting.is_empty() {
            let (all, since) = (unplaced.len(), clock::now() - LOOKED_FOR);
            unplaced.retain(|(_, _, row)| row.time >= since);
            self.evidence.lose(all - unplaced.len());
        }
        self.frames = unplaced;
    }

    async fn commit(&mut self, on_disk: bool) {
        if self.waiting.is_empty() && (self.on_disk || !on_disk) {
            return;
        }
        let rows = std::mem::take(&mut self.waiting);
        let (sender, back) = std::sync::mpsc::channel();
        let done = self
            .control
            .keeper
            .write(move |store| {
                let done = match (on_disk, rows.is_empty()) {
                    (false, _) => store.put_calls_soon(&rows),
                    (true, false) => store.put_calls(&rows),
                    // Any change takes those before it to disk.
                    (true, true) => store.seen(clock::now()).map(|()| Vec::new()),
                };
                // Not lost when the disk takes none: they wait.
                let _ = sender.send(rows);
                Ok(done?)
            })
            .await;
        match done {
            Ok(ids) => {
                self.on_disk = on_disk;
                let due = Instant::now() + OVER;
                let attempts = ids.into_iter().zip(self.keys.drain(..));
                self.open.extend(
                    attempts
                        .filter(|(_, key)| key.number != Number::NONE)
                        .map(|(id, key)| (due, id, key)),
                );
            }
            Err(_) => {
                if let Ok(rows) = back.try_recv() {
                    self.waiting = rows;
                } else {
                    self.keys.clear();
                }
            }
        }
    }

    /// Notes how often the attempts that are over were sent again.
    async fn count_repeats(&mut self) {
        let mut counted = Vec::new();
        while let Some((due, id, key)) = self.open.front().copied()
            && due <= Instant::now()
        {
            self.open.pop_front();
            if let Ok(Some(attempt)) = self.control.maps.attempt(key)
                && attempt.repeats > 0
            {
                counted.push((id, attempt.repeats));
            }
        }
        if counted.is_empty() {
            return;
        }
        let done = self.control.keeper.write(move |store| Ok(store.set_repeats(&counted)?)).await;
        if let Err(problem) = done {
            tracing::warn!("repeats of calls are not counted: {}", problem.message);
        }
    }
}

/// Takes records out that are older than they are kept for, and INVITEs, which go earlier. Where
/// INVITEs are kept no longer, those that were go with their records.
pub async fn prune(control: &Arc<Control>) {
    let (now, config) = (Timestamp::now(), control.config());
    let done = control.keeper.write(move |store| {
        store.prune_calls(now - config.calls_kept)?;
        if let Some(evidence) = config.evidence {
            store.prune_evidence(now - evidence.kept)?;
        }
        Ok(())
    });
    if let Err(problem) = done.await {
        tracing::warn!("old call records stay: {}", problem.message);
    }
}

fn address(address: [u8; 16], port: u16) -> String {
    let address = Ipv6Addr::from(address);
    let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
    SocketAddr::new(address, port).to_string()
}
