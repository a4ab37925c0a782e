//! INVITEs without end, and what became of each.
//!
//! An INVITE that does not arrive must be the gate's doing. So never more than a few INVITEs are on the
//! way. After every [`WINDOW`] of them comes an OPTIONS (a mark), which every gate lets through.
//! The sender goes on when the mark before has arrived. No queue on the way is as short as that.

use std::collections::HashMap;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::message;
use super::network::Lab;
use super::process::{now, unique};
use super::receiver::{Inbox, Receiver};
use super::sender::Sender;

/// INVITEs between two marks. A veth pair's queue has 256 places: room for two traffics.
const WINDOW: usize = 48;

/// How long the sender waits for a mark before it goes on without. A mark that is later means that
/// the way from trunk to gate is cut.
const MARK: Duration = Duration::from_secs(2);

/// How long it waits before it sends another mark: one may be lost with a veth pair.
const MARK_AGAIN: Duration = Duration::from_millis(100);

/// How long the last mark may take.
const LAST_MARK: Duration = Duration::from_secs(20);

/// An INVITE that was sent.
#[derive(Clone, Debug)]
pub struct Invite {
    /// Its number among all of this traffic, from 0.
    pub sequence: usize,
    /// Its From user.
    pub caller: Arc<str>,
    /// Its Call-ID: `<traffic>-<sequence>-<sent_at>`.
    pub call_id: String,
    /// Immediately before it was sent; a time of [`now`].
    pub sent_at: u64,
    /// When the receiver had it, at the latest; None: never.
    pub arrived_at: Option<u64>,
    /// When it had met the gate, at the latest: something that was sent later had arrived.
    pub judged_by: u64,
}

/// The INVITEs that a traffic sent, and those that arrived.
pub struct Record {
    /// In the order in which they were sent.
    pub invites: Vec<Invite>,
    /// Packets that the lab itself lost, without those on the way when a veth pair was deleted.
    pub lost_by_lab: u64,
    /// INVITEs that the kernel did not take, because there was no interface; not in `invites`.
    pub unsendable: usize,
    callers: Vec<Arc<str>>,
}

impl Record {
    /// Returns the INVITEs of a caller that surely met the gate `during` that time. They were sent
    /// after its start, and had been judged by its end. `..` is all of them.
    ///
    /// # Panics
    /// When the traffic had no such caller.
    pub fn sent(&self, caller: &str, during: impl RangeBounds<u64>) -> Vec<&Invite> {
        assert!(self.callers.iter().any(|one| &**one == caller), "no traffic from {caller}");
        let (start, end) = (during.start_bound().cloned(), during.end_bound().cloned());
        let within = |invite: &&Invite| {
            (start, Bound::Unbounded).contains(&invite.sent_at)
                && (Bound::Unbounded, end).contains(&invite.judged_by)
        };
        self.invites.iter().filter(|invite| &*invite.caller == caller).filter(within).collect()
    }

    /// Returns the INVITEs of [`Record::sent`] that arrived.
    ///
    /// # Panics
    /// When the traffic had no such caller.
    pub fn delivered(&self, caller: &str, during: impl RangeBounds<u64>) -> Vec<&Invite> {
        let mut invites = self.sent(caller, during);
        invites.retain(|invite| invite.arrived_at.is_some());
        invites
    }

    /// Returns the INVITEs of [`Record::sent`] that did not arrive, because the gate stopped them.
    ///
    /// # Panics
    /// When the traffic had no such caller, or the lab itself lost packets.
    pub fn refused(&self, caller: &str, during: impl RangeBounds<u64>) -> Vec<&Invite> {
        assert_eq!(self.lost_by_lab, 0, "the lab lost packets; what the gate did is not known");
        let mut invites = self.sent(caller, during);
        invites.retain(|invite| invite.arrived_at.is_none());
        invites
    }
}

/// INVITEs that are being sent; dropped, no more are.
pub struct Traffic<'a> {
    lab: &'a Lab,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Sent>>,
    lost_before: u64,
}

/// The state that the sending thread and the test share.
struct Shared {
    id: String,
    port: u16,
    callers: Vec<Arc<str>>,
    inbox: Arc<Inbox>,
    count: AtomicUsize,
    stop: AtomicBool,
}

/// The result of the sending thread.
#[derive(Default)]
struct Sent {
    invites: Vec<Invite>,
    unsendable: usize,
    /// For each mark that arrived: how many INVITEs had been sent before it, and when it arrived.
    marks: Vec<(usize, u64)>,
}

impl Lab {
    /// Sends INVITEs of all `callers` in turn to the receiver's port, `per_second` of them, and
    /// `at_most` this number. Each caller is a From user, as it is written into the message.
    ///
    /// # Panics
    /// When the kernel gives no socket.
    #[must_use]
    pub fn traffic<'a>(
        &'a self,
        receiver: &'a Receiver,
        callers: &[&str],
        per_second: u32,
        at_most: usize,
    ) -> Traffic<'a> {
        Traffic::start(self, receiver, callers, per_second, at_most)
    }
}

impl<'a> Traffic<'a> {
    fn start(
        lab: &'a Lab,
        receiver: &Receiver,
        callers: &[&str],
        per_second: u32,
        at_most: usize,
    ) -> Traffic<'a> {
        let shared = Arc::new(Shared {
            id: unique(),
            port: receiver.port(),
            callers: callers.iter().map(|&caller| caller.into()).collect(),
            inbox: Arc::clone(&receiver.inbox),
            count: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let lost_before = lab.lost_by_veth() + receiver.inbox.overflow();
        let interval = Duration::from_secs(1) / per_second;
        let thread = std::thread::spawn({
            let (shared, sender) = (Arc::clone(&shared), lab.sender());
            move || shared.send(&sender, interval, at_most)
        });
        Traffic { lab, shared, thread: Some(thread), lost_before }
    }

    /// Returns how many INVITEs have been sent up to now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.count.load(Ordering::Relaxed)
    }

    /// Waits until `more` INVITEs have been sent from now on.
    ///
    /// # Panics
    /// When the traffic ends before, or that takes longer than a minute.
    pub fn wait_for(&self, more: usize) {
        let (wanted, deadline) = (self.count() + more, Instant::now() + Duration::from_secs(60));
        while self.count() < wanted {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!ended || self.count() >= wanted, "the traffic ended at {}", self.count());
            assert!(Instant::now() < deadline, "no {more} INVITEs sent within a minute");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Stops sending, and waits until nothing is on the way any more.
    ///
    /// # Panics
    /// When the way from trunk to gate is cut, or something arrived that was not sent so.
    #[must_use]
    pub fn stop(self) -> Record {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits until all INVITEs have been sent, and nothing is on the way any more.
    ///
    /// # Panics
    /// When the way from trunk to gate is cut, or something arrived that was not sent so.
    #[must_use]
    pub fn finish(mut self) -> Record {
        let thread = self.thread.take().expect("taken only here");
        let Sent { mut invites, unsendable, mut marks } =
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let lost = self.lab.lost_by_veth() + self.shared.inbox.overflow();

        let mut arrived = self.shared.arrived();
        let mut judged_by = u64::MAX;
        for (index, invite) in invites.iter_mut().enumerate().rev() {
            while let Some((_, at)) = marks.pop_if(|(before, _)| *before > index) {
                judged_by = at;
            }
            if let Some((at, from)) = arrived.remove(&invite.call_id) {
                assert_eq!(from, *invite.caller, "{} arrived from another", invite.call_id);
                assert!(at <= judged_by, "{} overtook another message", invite.call_id);
                invite.arrived_at = Some(at);
                judged_by = at;
            }
            invite.judged_by = judged_by;
        }
        assert!(arrived.is_empty(), "arrived, and not sent: {arrived:?}");
        Record {
            invites,
            // A new veth pair counts from 0.
            lost_by_lab: lost.saturating_sub(self.lost_before),
            unsendable,
            callers: self.shared.callers.clone(),
        }
    }
}

impl Drop for Traffic<'_> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// Returns arrival time and From user of this traffic's INVITEs that arrived, by Call-ID.
    fn arrived(&self) -> HashMap<String, (u64, String)> {
        let prefix = format!("{}-", self.id);
        let mut arrived = HashMap::new();
        for arrival in self.inbox.lock().iter() {
            let call_id = arrival.call_id();
            if call_id.starts_with(&prefix) {
                let what = (arrival.at, arrival.from_user().to_owned());
                let twice = arrived.insert(call_id.to_owned(), what);
                assert!(twice.is_none(), "{call_id} arrived twice");
            }
        }
        arrived
    }

    /// Runs the sending thread.
    fn send(&self, sender: &Sender, interval: Duration, at_most: usize) -> Sent {
        stay_on_this_cpu();
        let mut sent = Sent::default();
        let mut marks = Marks { shared: self, sender, seen: 0, next: 0 };
        let mut on_the_way = None;
        let mut due = Instant::now();
        for sequence in 0..at_most {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            if let Some(early) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(early);
            }
            due += interval;

            let caller = &self.callers[sequence % self.callers.len()];
            // Of all that comes from here on only `send` has an effect outside.
            let sent_at = now();
            let call_id = format!("{}-{sequence}-{sent_at}", self.id);
            let message = message::invite(caller, &call_id);
            if sender.send(self.port, message.as_bytes()).is_err() {
                sent.unsendable += 1;
                continue;
            }
            self.count.fetch_add(1, Ordering::Relaxed);
            sent.invites.push(Invite {
                sequence,
                caller: Arc::clone(caller),
                call_id,
                sent_at,
                arrived_at: None,
                judged_by: u64::MAX,
            });
            if sent.invites.len() % WINDOW == 0 {
                let before = sent.invites.len();
                let mark = marks.send().map(|number| (before, number));
                if let Some((before, number)) = std::mem::replace(&mut on_the_way, mark) {
                    sent.marks.extend(marks.wait(number, MARK).map(|at| (before, at)));
                }
            }
        }
        let at = marks.last();
        sent.marks.push((sent.invites.len(), at));
        sent
    }
}

/// The OPTIONS that show how far the gate is.
struct Marks<'a> {
    shared: &'a Shared,
    sender: &'a Sender,
    /// Arrivals that were looked through.
    seen: usize,
    next: usize,
}

impl Marks<'_> {
    /// Sends one; its number, or None where there is no interface.
    fn send(&mut self) -> Option<usize> {
        let number = self.next;
        self.next += 1;
        let message = message::options(&format!("mark-{}-{number}", self.shared.id));
        self.sender.send(self.shared.port, message.as_bytes()).ok()?;
        Some(number)
    }

    /// Waits for it, or one after it, and sends another now and then; when it arrived. None where
    /// there is no interface, or none arrives within `longest`.
    fn wait(&mut self, number: usize, longest: Duration) -> Option<u64> {
        let prefix = format!("mark-{}-", self.shared.id);
        let is_it = |call_id: &str| {
            let one = call_id.strip_prefix(&prefix).and_then(|one| one.parse::<usize>().ok());
            one.is_some_and(|one| one >= number)
        };
        let deadline = Instant::now() + longest;
        while Instant::now() < deadline {
            let inbox = &self.shared.inbox;
            let found = inbox.wait_from(&mut self.seen, MARK_AGAIN, |one| is_it(one.call_id()));
            if let Some(mark) = found {
                return Some(mark.at);
            }
            self.send()?;
        }
        None
    }

    /// Sends until one arrives; when it did.
    fn last(&mut self) -> u64 {
        let deadline = Instant::now() + LAST_MARK;
        while Instant::now() < deadline {
            match self.send().and_then(|number| self.wait(number, LAST_MARK)) {
                Some(at) => return at,
                None => std::thread::sleep(MARK_AGAIN),
            }
        }
        panic!("the way from trunk to gate is cut: no OPTIONS arrives");
    }
}

/// Packets wait in a queue of the CPU that sent them: on one CPU, none overtakes another.
fn stay_on_this_cpu() {
    let cpu = nix::sched::sched_getcpu().expect("the number of this CPU");
    let mut cpus = CpuSet::new();
    cpus.set(cpu).expect("a CPU number that fits the set");
    sched_setaffinity(Pid::from_raw(0), &cpus).expect("this thread on one CPU");
}
