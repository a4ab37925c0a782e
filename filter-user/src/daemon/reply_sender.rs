//! Sends the replies to refused calls that the driver cannot send.
//!
//! One thread waits for the ring, makes and sends the replies, and renews the heartbeat. Without the heartbeat the kernel
//! hands no call over, and `without_daemon` of the trunk decides.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use filter_common::abi::TRUNKS_MAX;
use filter_common::answer::code::Code;
use filter_common::contact::Contact;
use filter_common::handed_over::{DaemonReplies, HANDED_REPEATED, HandedOver, may_be_by_daemon};
use filter_common::reason::Reason;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use tokio::sync::oneshot;

use crate::config::Config;
use crate::daemon::reply_turns::Turns;
use crate::datapath::{
    DaemonReplyCounters, Error, Heartbeat, Maps, ReplyCounters, ReplyKeys, ReplyQueue,
};
use crate::model::late_answer::{self, NoReply};
use crate::sys::clock;
use crate::sys::raw_ip::RawIp;

/// How long a daemon that does not renew the heartbeat is taken for alive, in ns.
const HEARTBEAT_NS: u64 = 3_000_000_000;
/// Interval of the heartbeat, in ms.
const BEAT: u16 = 1_000;
/// An older entry gets no reply: the call may pass meanwhile, and a refused one comes again. In ns.
const TOO_LATE_NS: u64 = 3_000_000_000;
/// Entries that are answered before the thread looks at other work.
const AT_ONCE: usize = 1_000;
/// Offset of "do not fragment" in an IPv4 header. The kernel writes its checksum.
const IPV4_FLAGS: usize = 6;
/// A reply that was sent shows for this long that replies leave.
const ONE_ADDRESS: Duration = Duration::from_secs(30);
/// How long no heartbeat is renewed after the kernel forbade to send.
const FORBIDDEN: Duration = Duration::from_secs(30);
/// Interval of the looks for calls without a daemon.
const REPORTS: Duration = Duration::from_secs(5);
/// How long calls without a daemon are in the status.
const LOUD: Duration = Duration::from_secs(3600);
/// How long an error of sending is in the status.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Whether the daemon can send replies. The status shows it.
#[derive(Debug, Default)]
pub struct ReplySender {
    /// Why the sockets could not be opened.
    closed: Option<String>,
    is_open: bool,
    failed: Mutex<Option<(Instant, String)>>,
    unanswered: Mutex<Option<(Instant, Unanswered)>>,
}

/// Calls that the daemon should have answered while it did not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unanswered {
    /// All of them.
    pub calls: u64,
    /// Those for the audit, which has no row about them yet.
    unwritten: u64,
}

/// Returns whether a configuration has a trunk whose replies the daemon may have to send.
#[must_use]
pub fn is_needed(config: &Config) -> bool {
    let mut profiles = config.policy.trunks.iter().map(|trunk| &trunk.profile);
    profiles.any(may_be_by_daemon)
}

/// Opens the sockets if a configuration needs them. The process has CAP_NET_RAW only before it gives up capabilities.
#[must_use]
pub fn open(config: &Config) -> (ReplySender, Option<RawIp>) {
    if !is_needed(config) {
        return (ReplySender::default(), None);
    }
    match RawIp::open() {
        Ok(raw) => (ReplySender { is_open: true, ..ReplySender::default() }, Some(raw)),
        Err(error) => {
            let closed = Some(format!("no raw socket: {error} (CAP_NET_RAW)"));
            (ReplySender { closed, ..ReplySender::default() }, None)
        }
    }
}

impl ReplySender {
    /// Returns why the daemon sends no reply, or not each one; `None`: it does, or this configuration needs none.
    #[must_use]
    pub fn problem(&self, config: &Config) -> Option<String> {
        if !is_needed(config) {
            return None;
        }
        if !self.is_open {
            let why =
                self.closed.as_deref().unwrap_or("no trunk needed it when the daemon started");
            return Some(format!(
                "the daemon sends no reply to a refused call: {why}. without_daemon decides about calls that it should \
                 answer. Restart it: systemctl restart palang (docs/carriers.md)"
            ));
        }
        let unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, Unanswered { calls, .. })) =
            unanswered.filter(|(when, _)| when.elapsed() < LOUD)
        {
            let (calls, them) = match calls {
                1 => ("1 call of a blocked caller".to_owned(), "it"),
                calls => (format!("{calls} calls of blocked callers"), "them"),
            };
            return Some(format!(
                "{calls} passed or ended in silence, because no daemon ran or could send: seen within the last hour, without \
                 repeats. without_daemon decides about {them} (docs/carriers.md)"
            ));
        }
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, error) = failed.as_ref().filter(|(when, _)| when.elapsed() < REMEMBERED)?;
        Some(format!("a reply to a refused call could not be sent: {error} (docs/carriers.md)"))
    }

    /// Returns whether the daemon can send replies now: its sockets are open, and no rule of the machine forbids them.
    #[must_use]
    pub fn can_send(&self) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let fails = failed.as_ref().is_some_and(|(when, _)| when.elapsed() < FORBIDDEN);
        self.is_open && !fails
    }

    /// Returns the number of calls without a daemon that the audit has no row about, and takes them for written.
    #[must_use]
    pub fn take_unanswered(&self) -> u64 {
        let mut unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        unanswered.as_mut().map_or(0, |(_, found)| std::mem::take(&mut found.unwritten))
    }

    fn note_unanswered(&self, calls: u64) {
        tracing::warn!(calls, "blocked calls were not answered, because no daemon ran");
        let mut unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        let known = unanswered.filter(|(when, _)| when.elapsed() < LOUD);
        let known = known.map(|(_, known)| known).unwrap_or_default();
        let (calls, unwritten) = (known.calls + calls, known.unwritten + calls);
        *unanswered = Some((Instant::now(), Unanswered { calls, unwritten }));
    }

    fn note(&self, error: &io::Error) {
        let text = error.to_string();
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.as_ref().is_none_or(|(_, before)| *before != text) {
            tracing::error!(%error, "cannot send a reply to a refused call");
        }
        *failed = Some((Instant::now(), text));
    }
}

/// The running thread; dropped, it ends, and no call is handed over any more.
pub struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts the thread on the maps of a folder. The returned receiver ends with it.
///
/// # Errors
/// [`Error::Pin`] or [`Error::Layout`] if a map cannot be opened, [`Error::Load`] if no thread starts.
pub fn start(
    folder: &Path,
    raw: RawIp,
    sender: Arc<ReplySender>,
) -> Result<(Running, oneshot::Receiver<()>), Error> {
    let mut work = Work {
        queue: ReplyQueue::open(folder)?,
        turns: Turns::default(),
        heartbeat: Heartbeat::open(folder)?,
        keys: ReplyKeys::open(folder)?,
        counters: DaemonReplyCounters::open(folder)?,
        kernel: ReplyCounters::open(folder)?,
        maps: Maps::open(folder)?,
        raw,
        sender,
        started: clock::boot(),
        forbidden: None,
        sent: None,
        reported: None,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let (ended, end) = oneshot::channel();
    let stopped = Arc::clone(&stop);
    let thread = thread::Builder::new().name("replies".into()).spawn(move || {
        // Dropped when the thread ends, also by a panic.
        let _ended = ended;
        // Before the first heartbeat, so that the status shows them from the start.
        work.report_unanswered();
        while !stopped.load(Ordering::Relaxed) {
            work.beat();
            work.wait();
            work.send_some();
            work.report_unanswered();
        }
        // At once, and not only when it is too old.
        let _ = work.heartbeat.set(0);
    });
    let thread = Some(thread.map_err(|error| Error::Load(error.into()))?);
    Ok((Running { stop, thread }, end))
}

struct Work {
    queue: ReplyQueue,
    turns: Turns,
    heartbeat: Heartbeat,
    keys: ReplyKeys,
    counters: DaemonReplyCounters,
    kernel: ReplyCounters,
    maps: Maps,
    raw: RawIp,
    sender: Arc<ReplySender>,
    /// Start of the thread, in ns of boot time. Entries of an earlier daemon get no reply.
    started: u64,
    /// When the kernel forbade to send.
    forbidden: Option<Instant>,
    /// When a reply was sent.
    sent: Option<Instant>,
    /// When calls without a daemon were looked for.
    reported: Option<Instant>,
}

impl Work {
    fn beat(&mut self) {
        let is_forbidden = self.forbidden.is_some_and(|when| when.elapsed() < FORBIDDEN);
        let until = if is_forbidden { 0 } else { clock::boot() + HEARTBEAT_NS };
        if let Err(error) = self.heartbeat.set(until) {
            tracing::error!(%error, "cannot write the heartbeat of the replies");
        }
    }

    /// Reports calls that came while no daemon ran, once each.
    fn report_unanswered(&mut self) {
        if self.reported.is_some_and(|when| when.elapsed() < REPORTS) {
            return;
        }
        self.reported = Some(Instant::now());
        let mut new = 0;
        for trunk in 0..TRUNKS_MAX {
            new += self.unanswered(trunk).unwrap_or_else(|error| {
                tracing::error!(%error, "cannot count calls without a daemon");
                0
            });
        }
        if new > 0 {
            self.sender.note_unanswered(new);
        }
    }

    /// Returns the number of calls of a trunk that are not reported yet, and takes them for reported.
    fn unanswered(&mut self, trunk: u32) -> Result<u64, Error> {
        let passed = self.maps.count(trunk, Reason::WithoutDaemon)?;
        let calls = passed + self.kernel.get(trunk)?.without_daemon;
        let counters = self.counters.get(trunk)?;
        let new = calls.saturating_sub(counters.reported);
        if new > 0 {
            self.counters.set(trunk, DaemonReplies { reported: calls, ..counters })?;
        }
        Ok(new)
    }

    /// Waits for the ring until the next heartbeat is due, unless a call waits.
    fn wait(&self) {
        if !self.turns.is_empty() {
            return;
        }
        let mut ring = [PollFd::new(self.queue.as_fd(), PollFlags::POLLIN)];
        // A signal only shortens the wait.
        let _ = poll(&mut ring, BEAT);
    }

    /// Sends the replies that wait, a number of them at most.
    fn send_some(&mut self) {
        let mut last_beat = Instant::now();
        for _ in 0..AT_ONCE {
            self.collect();
            let Some((head, frame)) = self.turns.take() else { break };
            self.send(&head, &frame);
            if last_beat.elapsed() > Duration::from_millis(BEAT.into()) {
                self.beat();
                last_beat = Instant::now();
            }
        }
    }

    /// Empties the ring, so that it has room for the calls of all trunks.
    fn collect(&mut self) {
        for _ in 0..AT_ONCE {
            let Some(call) = self.queue.take() else { break };
            if let Err((head, _)) = self.turns.add(call) {
                self.count(&head, |_, counters| counters.failed += 1);
            }
        }
    }

    /// Sends one reply, and counts it.
    fn send(&mut self, head: &HandedOver, frame: &[u8]) {
        self.count(head, |work, counters| work.answer(head, frame, counters));
    }

    /// Changes the counters of the trunk of a call.
    fn count(&mut self, head: &HandedOver, change: impl FnOnce(&mut Work, &mut DaemonReplies)) {
        let trunk = u32::from(head.trunk) & (TRUNKS_MAX - 1);
        let mut counters = match self.counters.get(trunk) {
            Ok(counters) => counters,
            Err(error) => return tracing::error!(%error, "cannot count replies"),
        };
        change(self, &mut counters);
        if let Err(error) = self.counters.set(trunk, counters) {
            tracing::error!(%error, "cannot count replies");
        }
    }

    fn answer(&mut self, head: &HandedOver, frame: &[u8], counters: &mut DaemonReplies) {
        if head.time < self.started || clock::boot().saturating_sub(head.time) > TOO_LATE_NS {
            counters.late += 1;
            return;
        }
        // A redirection of the second look needs the contact; others do not ask for it.
        let contact = if head.code == Code::MovedTemporarily as u8 {
            self.maps.profile(u32::from(head.trunk)).map(|profile| profile.contact)
        } else {
            Ok(Contact::default())
        };
        let keys = contact.and_then(|contact| Ok((self.keys.get()?, contact)));
        let reply = match keys.map(|(keys, to)| late_answer::packet(head, frame, &keys, &to)) {
            Ok(Ok(packet)) => packet,
            Ok(Err(NoReply::Damaged)) => return counters.damaged += 1,
            Ok(Err(NoReply::Impossible)) => return counters.impossible += 1,
            Err(error) => {
                self.sender.note(&io::Error::other(error));
                return counters.failed += 1;
            }
        };
        match self.raw.send(&without_df(reply), head.interface) {
            Ok(()) => {
                self.sent = Some(Instant::now());
                counters.sent += 1;
                counters.repeated += u64::from(head.flags & HANDED_REPEATED != 0);
            }
            Err(error) => {
                // A rule of the machine. If it lets other replies leave, it is about one address.
                let leaves = self.sent.is_some_and(|when| when.elapsed() < ONE_ADDRESS);
                if error.raw_os_error() == Some(Errno::EPERM as i32) && !leaves {
                    self.forbidden = Some(Instant::now());
                    self.beat();
                }
                self.sender.note(&error);
                counters.failed += 1;
            }
        }
    }
}

/// Returns a packet that routers may fragment: the way back may have another MTU.
fn without_df(mut packet: Vec<u8>) -> Vec<u8> {
    if packet.first().is_some_and(|first| first >> 4 == 4)
        && let Some(flags) = packet.get_mut(IPV4_FLAGS)
    {
        *flags = 0;
    }
    packet
}
