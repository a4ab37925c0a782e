//! Runs the program with private maps on the frames of captures, by `BPF_PROG_TEST_RUN`.

use std::time::Duration;

use aya::maps::{Array, MapData, RingBuf};
use aya::programs::{TestRun as _, TestRunOptions};
use filter_common::abi::Keys;
use filter_common::abi::{EVENT_BY_DAEMON, Event, EventEntry, EventStats, Evidence, ReplyStats};
use filter_common::number::Number;
use filter_common::reason::Reason;

use crate::datapath::error::Error;
use crate::datapath::evidence::{EvidenceRing, EvidenceSwitch};
use crate::datapath::load::{Gate, Plan, Program};
use crate::datapath::maps::Maps;
use crate::datapath::maps::layout::{attempts_capacity, typed};
use crate::datapath::object::OBJECT;
use crate::datapath::own_addresses::OwnAddresses;
use crate::datapath::raw;
use crate::datapath::raw::Raw;
use crate::datapath::replies::ReplyCounters;
use crate::datapath::reply_queue::{DaemonPaths, Heartbeat, ReplyQueue};
use crate::model::host_gate::{READABLE, READABLE_AGAIN, REPLAY_KEYS};
use crate::model::late_answer;
use crate::model::policy::{Policy, Subject};

/// Shortest frame that the kernel takes for a test run: an Ethernet header.
const FRAME_MIN: usize = 14;
/// The largest IP packet after Ethernet and two VLAN tags. Further bytes of a longer frame belong to no
/// packet, and the kernel has no room for them in a test run.
const FRAME_MAX: usize = 22 + 65_535;

/// `XDP_DROP` (`enum xdp_action`, Linux `include/uapi/linux/bpf.h`).
const XDP_DROP: u32 = 1;

/// `XDP_TX` (the same).
const XDP_TX: u32 = 3;

/// `SK_DROP` (`enum sk_action`, Linux `include/uapi/linux/bpf.h`).
const SK_DROP: u32 = 0;

/// `TC_ACT_UNSPEC` (Linux `include/uapi/linux/pkt_cls.h`): as if the program were not there.
const TC_ACT_UNSPEC: u32 = u32::MAX;

/// The program with private maps. It shares nothing with a live filter, and ends with this value.
pub struct Replay {
    gate: Gate,
    maps: Maps,
    clock: Array<MapData, u64>,
    frame_len: Array<MapData, u32>,
    event: Array<MapData, Raw<Event>>,
    second_look: Array<MapData, u32>,
    refused: RingBuf<MapData>,
    passed: RingBuf<MapData>,
    own_addresses: OwnAddresses,
    evidence: EvidenceSwitch,
    frames: EvidenceRing,
    replies: ReplyCounters,
    handed_over: ReplyQueue,
    heartbeat: Heartbeat,
    daemon_paths: DaemonPaths,
    /// Room for the frame that a run leaves.
    out: Vec<u8>,
    #[cfg(palang_log)]
    log: aya_log::EbpfLogger<env_logger::Logger>,
}

/// The result for a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The event of the program.
    pub event: Event,
    /// Whether the frame does not go on: the action was `XDP_DROP`, or `XDP_TX` with a reply in its place.
    pub dropped: bool,
    /// The frame of the reply.
    pub reply: Option<Vec<u8>>,
}

impl Replay {
    /// Loads the program with a policy. If the kernel refuses the program with the full reader, loads
    /// the one with the slim reader. Needs `CAP_BPF` and `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// [`Error::Permission`] without the capabilities, [`Error::Load`] on a kernel without BPF,
    /// [`Error::Refused`] if the kernel refuses both programs. [`Error::Full`] or
    /// [`Error::TooManyTrunks`] for a policy that does not fit the maps.
    pub fn load(policy: &Policy) -> Result<Replay, Error> {
        Replay::load_as(&Plan::of_this_kernel()?, policy, &[])
    }

    /// Loads the program by another plan, and with other sizes of some maps: `("GRANTS", 64)` tests a
    /// full map.
    ///
    /// # Errors
    /// Returns the errors of [`Replay::load`].
    pub fn load_as(plan: &Plan, policy: &Policy, sizes: &[(&str, u32)]) -> Result<Replay, Error> {
        load(OBJECT, plan, policy, true, sizes)
    }

    /// Loads the program from another object than that of this binary, to test a program that the
    /// kernel refuses.
    ///
    /// # Errors
    /// Returns the errors of [`Replay::load`].
    pub fn load_object(object: &[u8], plan: &Plan, policy: &Policy) -> Result<Replay, Error> {
        load(object, plan, policy, true, &[])
    }

    /// Returns the program of the object that the kernel accepted.
    #[must_use]
    pub fn program(&self) -> Program {
        self.gate.program()
    }

    /// Returns the warning for a kernel that refuses the full reader; `None` if it accepts it.
    #[must_use]
    pub fn slow_reader(&self) -> Option<String> {
        self.gate.slow_reader()
    }

    /// Returns the private maps, to use them like those of a live filter.
    #[must_use]
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Replaces the policy in the maps, and removes all attempts and fragments.
    ///
    /// # Errors
    /// [`Error::Full`] for a policy with more entries than the maps hold, [`Error::Map`] if a system
    /// call fails.
    pub fn replace(&mut self, policy: &Policy) -> Result<(), Error> {
        self.maps.clear()?;
        self.maps.fill(policy)
    }

    /// Replaces the policy by another one about the same subjects, as in a live filter: the program's
    /// memory of attempts stays.
    ///
    /// # Errors
    /// [`Error::Map`] if a system call fails.
    pub fn change(&mut self, policy: &Policy) -> Result<(), Error> {
        self.maps.fill(policy)
    }

    /// Sets the end of the override, in nanoseconds: no call is refused before it.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn set_override(&mut self, until: u64) -> Result<(), Error> {
        self.maps.pass_maps().set_override(until)
    }

    /// Lets the program judge frames for these addresses only; `None`: all frames.
    ///
    /// # Errors
    /// [`Error::Map`] if a system call fails.
    pub fn set_own_addresses(&mut self, own: Option<&[[u8; 6]]>) -> Result<(), Error> {
        let own = own.unwrap_or_default();
        self.own_addresses.set(own, !own.is_empty())
    }

    /// Judges an Ethernet frame as if it had arrived at `time`, in nanoseconds. The kernel accepts no
    /// frame that is shorter than an Ethernet header: such a frame is `not-ip` without the kernel.
    ///
    /// # Errors
    /// [`Error::Run`] or [`Error::Map`] if a system call fails.
    pub fn judge(&mut self, frame: &[u8], time: u64) -> Result<Judged, Error> {
        self.judge_and_time(frame, time).map(|(judged, _)| judged)
    }

    /// Judges a frame like [`Replay::judge`], and returns the time that the kernel measured.
    ///
    /// # Errors
    /// Returns the errors of [`Replay::judge`].
    pub fn judge_and_time(&mut self, frame: &[u8], time: u64) -> Result<(Judged, Duration), Error> {
        if frame.len() < FRAME_MIN {
            let event = Event { reason: Reason::NotIp as u8, ..Event::default() };
            return Ok((Judged { event, dropped: false, reply: None }, Duration::ZERO));
        }
        let mut frame = &frame[..frame.len().min(FRAME_MAX)];
        if !self.gate.program().frags {
            // The kernel accepts one buffer for such a program, which does not read the rest of the frame.
            let len = frame.len() as u32;
            self.frame_len.set(0, len, 0).map_err(|error| Error::map("REPLAY_LEN", error))?;
            frame = &frame[..frame.len().min(READABLE)];
        }
        self.clock.set(0, time, 0).map_err(|error| Error::map("REPLAY_CLOCK", error))?;
        let result = self
            .gate
            .xdp_to_run()?
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut self.out[..frame.len()]),
                ..TestRunOptions::default()
            })
            .map_err(Error::run)?;
        #[cfg(palang_log)]
        self.log.flush();
        let event = self.event.get(&0, 0).map_err(|error| Error::map("REPLAY_EVENT", error))?;
        let is_reply = result.return_value == XDP_TX;
        let reply = is_reply.then(|| self.out[..result.data_size_out as usize].to_vec());
        let reply = reply.or_else(|| self.reply_of_daemon(&event.0));
        let dropped = is_reply || result.return_value == XDP_DROP;
        Ok((Judged { event: event.0, dropped, reply }, result.duration))
    }

    /// Judges a frame at the time of the last one, on the CPU of the calling thread. Several threads may
    /// call it at once. Returns whether the action was `XDP_DROP`.
    ///
    /// # Errors
    /// [`Error::Run`] if the system call fails.
    pub fn judge_at_once(&self, frame: &[u8]) -> Result<bool, Error> {
        self.judge_repeatedly(frame, 1)
    }

    /// Judges a frame N times without leaving the kernel, at the rate of a flood. Returns whether the
    /// last action was `XDP_DROP`; [`Replay::count`] returns the reasons of the others.
    ///
    /// # Errors
    /// [`Error::Run`] if the system call fails.
    pub fn judge_repeatedly(&self, frame: &[u8], times: u32) -> Result<bool, Error> {
        let result = self
            .gate
            .xdp_to_run()?
            .test_run(TestRunOptions {
                data_in: Some(frame),
                repeat: times,
                ..TestRunOptions::default()
            })
            .map_err(Error::run)?;
        Ok(result.return_value == XDP_DROP)
    }

    /// Runs the program for packets that leave on a frame, at a time in nanoseconds. Returns the number
    /// that the frame calls, or [`Number::NONE`] for a frame that is not a call.
    ///
    /// # Errors
    /// [`Error::Run`] if the program stopped or changed the frame, or a system call fails.
    pub fn send(&mut self, frame: &[u8], time: u64) -> Result<Number, Error> {
        self.clock.set(0, time, 0).map_err(|error| Error::map("REPLAY_CLOCK", error))?;
        let mut out = vec![0; frame.len() + 64];
        let result = self
            .gate
            .egress()?
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ..TestRunOptions::default()
            })
            .map_err(Error::run)?;
        if result.return_value != TC_ACT_UNSPEC || out.get(..frame.len()) != Some(frame) {
            return Err(Error::Run("the program for packets that leave stopped one".into()));
        }
        let event = self.event.get(&0, 0).map_err(|error| Error::map("REPLAY_EVENT", error))?;
        Ok(event.0.number)
    }

    /// Loads the program for packets that leave; [`Replay::send`] also loads it.
    ///
    /// # Errors
    /// [`Error::Refused`] if the kernel refuses the program.
    pub fn load_egress(&mut self) -> Result<(), Error> {
        self.gate.egress().map(drop)
    }

    /// Loads the second look, and lets the first look leave to it what it cannot read.
    ///
    /// # Errors
    /// [`Error::Refused`] if the kernel refuses the program, [`Error::Map`] if a system call fails.
    pub fn load_second_look(&mut self) -> Result<(), Error> {
        self.gate.second_look()?;
        self.second_look.set(0, 1, 0).map_err(|error| Error::map("SECOND_LOOK", error))
    }

    /// Judges a datagram that the host has put together, as an Ethernet frame, as if it had arrived at `time`,
    /// in nanoseconds. Follows [`Replay::load_second_look`]. Returns `None` if the first look did not note
    /// it.
    ///
    /// # Errors
    /// [`Error::Run`] or [`Error::Map`] if a system call fails.
    pub fn judge_again(&mut self, frame: &[u8], time: u64) -> Result<Option<Judged>, Error> {
        let map = |name| move |error| Error::map(name, error);
        let len = frame.len() as u32;
        self.frame_len.set(0, len, 0).map_err(map("REPLAY_LEN"))?;
        let frame = &frame[..frame.len().min(READABLE_AGAIN)];
        self.clock.set(0, time, 0).map_err(map("REPLAY_CLOCK"))?;
        self.event.set(0, Raw(Event::default()), 0).map_err(map("REPLAY_EVENT"))?;
        let result = self
            .gate
            .second_look()?
            .test_run(TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() })
            .map_err(Error::run)?;
        let event = self.event.get(&0, 0).map_err(map("REPLAY_EVENT"))?.0;
        let dropped = result.return_value == SK_DROP;
        let reply = self.reply_of_daemon(&event);
        let judged = Judged { event, dropped, reply };
        Ok((event.reason != 0).then_some(judged))
    }

    /// Returns the reply to a call that the program has handed over.
    fn reply_of_daemon(&mut self, event: &Event) -> Option<Vec<u8>> {
        if event.reply == 0 || event.flags & EVENT_BY_DAEMON == 0 {
            return None;
        }
        let (head, frame) = self.handed_over.take()?;
        let contact = self.maps.profile(head.trunk.into()).ok()?.contact;
        late_answer::reply(&head, &frame, &REPLAY_KEYS, &contact).ok()
    }

    /// Lets the daemon answer the calls of trunks that leave it open, or the driver again.
    ///
    /// # Errors
    /// [`Error::Map`] if a system call fails.
    pub fn set_answered_by_daemon(&mut self, by_daemon: bool) -> Result<(), Error> {
        // A test run has the loopback interface.
        self.daemon_paths.set(if by_daemon { &[1] } else { &[] })
    }

    /// Sets whether a daemon runs; it does in a new replay.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn set_daemon(&mut self, runs: bool) -> Result<(), Error> {
        self.heartbeat.set(if runs { u64::MAX } else { 0 })
    }

    /// Returns the program's tag: a hash of its instructions, equal for each load of one object.
    ///
    /// # Errors
    /// [`Error::Load`] if the system call fails.
    pub fn tag(&mut self) -> Result<u64, Error> {
        Ok(self.gate.xdp()?.info().map_err(Error::program)?.tag())
    }

    pub(crate) fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    /// Returns the number of instructions that the verifier walked; `None` before Linux 5.16.
    ///
    /// # Errors
    /// [`Error::Load`] if the system call fails.
    pub fn verified_instructions(&mut self) -> Result<Option<u32>, Error> {
        let info = self.gate.xdp()?.info().map_err(Error::program)?;
        Ok(info.verified_instruction_count())
    }

    /// Returns the number of packets of a trunk with a reason, over all CPUs.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn count(&self, trunk: u32, reason: Reason) -> Result<u64, Error> {
        self.maps.count(trunk, reason)
    }

    /// Returns why this kernel answers no refused call; `None` if it does.
    #[must_use]
    pub fn no_replies(&self) -> Option<&str> {
        self.gate.no_replies()
    }

    /// Returns the replies to refused calls of a trunk, over all CPUs.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn reply_stats(&self, trunk: u32) -> Result<ReplyStats, Error> {
        self.replies.get(trunk)
    }

    /// Returns the numbers of events that were thinned out or lost, over all CPUs.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn event_stats(&self) -> Result<EventStats, Error> {
        self.maps.event_stats()
    }

    /// Removes the events of refused and of passed attempts from their rings and returns them.
    ///
    /// # Errors
    /// [`Error::Event`] for an event of another layout.
    pub fn drain_events(&mut self) -> Result<(Vec<EventEntry>, Vec<EventEntry>), Error> {
        Ok((raw::drain(&mut self.refused, usize::MAX)?, raw::drain(&mut self.passed, usize::MAX)?))
    }

    /// Returns the switch for frames of refused attempts, which is off.
    #[must_use]
    pub fn evidence(&self) -> &EvidenceSwitch {
        &self.evidence
    }

    /// Removes the frames of refused attempts from their ring and returns them.
    ///
    /// # Errors
    /// [`Error::Event`] for a frame of another layout.
    pub fn drain_evidence(&mut self) -> Result<Vec<Evidence>, Error> {
        self.frames.drain()
    }
}

/// Loads a program of the object with a policy and private maps. Only a replay uses the time of the
/// capture.
pub(crate) fn load(
    object: &[u8],
    plan: &Plan,
    policy: &Policy,
    is_replay: bool,
    sizes: &[(&str, u32)],
) -> Result<Replay, Error> {
    let blocks = policy.blocks.len();
    let numbers =
        policy.blocks.iter().filter(|(subject, _)| matches!(subject, Subject::Number(_))).count();
    let attempts = attempts_capacity(numbers as u32)?;
    // A constant for the verifier, which removes the code that reads another clock from a live filter.
    let replay = if is_replay { &1u32 } else { &0u32 };
    let mut gate = Gate::load(object, plan, |loader| {
        loader
            .override_global("REPLAY", replay, true)
            .map_max_entries("BLOCKED_NUMBERS", room(numbers))
            .map_max_entries("BLOCKED_PREFIXES", room(blocks - numbers))
            .map_max_entries("ALLOWED_NUMBERS", room(policy.allows.len()))
            .map_max_entries("ALLOWED_PREFIXES", room(policy.allows.len()))
            .map_max_entries("PROTECTED", room(policy.protected.len()))
            .map_max_entries("ATTEMPTS", attempts)
            .map_max_entries("REDIALS", attempts);
        for (map, entries) in sizes {
            loader.map_max_entries(map, *entries);
        }
    })?;
    #[cfg(palang_log)]
    let log = logger(&mut gate.ebpf)?;
    let mut take = |name| gate.ebpf.take_map(name).ok_or(Error::Missing(name));
    let maps = Maps::new(&mut take)?;
    maps.fill(policy)?;
    if is_replay {
        let mut keys: Array<MapData, Raw<Keys>> = typed(&mut take, "REPLY_KEYS")?;
        keys.set(0, Raw(REPLAY_KEYS), 0).map_err(|error| Error::map("REPLY_KEYS", error))?;
    }
    let mut heartbeat = Heartbeat::new(&mut take)?;
    // A replay shows the replies of a gate with a daemon.
    heartbeat.set(u64::MAX)?;
    Ok(Replay {
        maps,
        clock: typed(&mut take, "REPLAY_CLOCK")?,
        frame_len: typed(&mut take, "REPLAY_LEN")?,
        event: typed(&mut take, "REPLAY_EVENT")?,
        second_look: typed(&mut take, "SECOND_LOOK")?,
        refused: typed(&mut take, "EVENTS_REFUSED")?,
        passed: typed(&mut take, "EVENTS_PASSED")?,
        own_addresses: OwnAddresses::new(&mut take)?,
        evidence: EvidenceSwitch::new(&mut take)?,
        frames: EvidenceRing::new(&mut take)?,
        replies: ReplyCounters::new(&mut take)?,
        handed_over: ReplyQueue::new(&mut take)?,
        heartbeat,
        daemon_paths: DaemonPaths::new(&mut take)?,
        out: vec![0; FRAME_MAX],
        #[cfg(palang_log)]
        log,
        gate,
    })
}

/// Writes the program's log to standard error, in a build with `PALANG_EBPF_LOG=1`.
#[cfg(palang_log)]
fn logger(ebpf: &mut aya::Ebpf) -> Result<aya_log::EbpfLogger<env_logger::Logger>, Error> {
    let logger = env_logger::Builder::new().filter_level(log::LevelFilter::Debug).build();
    aya_log::EbpfLogger::init_with_logger(ebpf, logger).map_err(|error| Error::Load(error.into()))
}

/// Returns the capacity for N entries, or for the policy that replaces this one.
fn room(entries: usize) -> u32 {
    (entries as u32).max(64)
}

#[cfg(test)]
mod tests {
    use filter_common::number::{Digits, Number};

    use super::*;

    /// Builds an INVITE of 6281234567890 over IPv4.
    fn frame() -> Vec<u8> {
        let message = b"INVITE sip:112@x SIP/2.0\r\nFrom: <sip:+6281234567890@x>\r\n\
            To: <sip:112@x>\r\nCall-ID: 1\r\n\r\n";
        let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(5060, 5060);
        let mut frame = Vec::new();
        builder.write(&mut frame, message).unwrap();
        frame
    }

    /// Returns whether a block refuses that ended by the capture's time, but not by the kernel's.
    fn refuses(replay: bool) -> (bool, Event) {
        let ended = u64::MAX / 2;
        let mut policy = Policy::default();
        let digits = Digits::parse("6281234567890").unwrap();
        policy.block(Subject::Number(Number::e164(digits)), ended, 0);
        let mut replay = load(OBJECT, &Plan::of_this_kernel().unwrap(), &policy, replay, &[])
            .unwrap_or_else(|error| panic!("{error}"));
        let judged = replay.judge(&frame(), ended).unwrap();
        (judged.dropped, judged.event)
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn time_of_the_capture_is_used_in_a_replay_only() {
        let (dropped, event) = refuses(true);
        assert!(!dropped);
        assert_eq!(event.reason, Reason::BlockExpired as u8);
        let (dropped, event) = refuses(false);
        assert!(dropped);
        assert_eq!(event, Event::default(), "a live filter writes no replay event");
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn policy_that_does_not_fit_is_refused() {
        let mut replay = Replay::load(&Policy::default()).unwrap();
        let mut policy = Policy::default();
        for number in 0..1000 {
            let digits = Digits::parse(&format!("62812{number:06}")).unwrap();
            policy.block(Subject::Number(Number::e164(digits)), 0, 0);
        }
        let error = replay.replace(&policy).expect_err("64 fit").to_string();
        assert!(error.contains("BLOCKED_NUMBERS"), "{error}");
    }
}
