//! The program on maps of its own, judging frames of captures with `BPF_PROG_TEST_RUN`.

use aya::maps::{Array, MapData, RingBuf};
use aya::programs::{TestRun as _, TestRunOptions};
use filter_common::abi::{Event, EventEntry, EventStats, Evidence};
use filter_common::number::Number;
use filter_common::reason::Reason;

use crate::datapath::attempts;
use crate::datapath::error::Error;
use crate::datapath::evidence::{EvidenceRing, EvidenceSwitch};
use crate::datapath::load::{Gate, Plan, Program};
use crate::datapath::maps::Maps;
use crate::datapath::maps::layout::typed;
use crate::datapath::object::OBJECT;
use crate::datapath::raw;
use crate::datapath::raw::Raw;
use crate::model::host_gate::READABLE;
use crate::model::policy::{Policy, Subject};

/// Shortest frame that the kernel takes for a test run: an Ethernet header.
const FRAME_MIN: usize = 14;
/// The largest IP packet behind Ethernet and two VLAN tags. What a longer frame has behind
/// that is of no packet, and the kernel has no room for it in a test run.
const FRAME_MAX: usize = 22 + 65_535;

/// `XDP_DROP` (`enum xdp_action`, Linux `include/uapi/linux/bpf.h`).
const XDP_DROP: u32 = 1;

/// `TC_ACT_UNSPEC` (Linux `include/uapi/linux/pkt_cls.h`): as if the program were not there.
const TC_ACT_UNSPEC: u32 = u32::MAX;

/// The program on private maps. It has nothing in common with a live filter, and ends with
/// this value.
pub struct Replay {
    gate: Gate,
    maps: Maps,
    clock: Array<MapData, u64>,
    frame_len: Array<MapData, u32>,
    event: Array<MapData, Raw<Event>>,
    refused: RingBuf<MapData>,
    passed: RingBuf<MapData>,
    evidence: EvidenceSwitch,
    frames: EvidenceRing,
    #[cfg(palang_log)]
    log: aya_log::EbpfLogger<env_logger::Logger>,
}

/// What the kernel did with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What the program found out.
    pub event: Event,
    /// Whether the action was `XDP_DROP`.
    pub dropped: bool,
}

impl Replay {
    /// Loads the program with a policy: the one with the slim reader where the kernel refuses the
    /// full one. Needs `CAP_BPF` and `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// Missing capabilities, a kernel without BPF or one that refuses both programs, a policy that
    /// does not fit the maps.
    pub fn load(policy: &Policy) -> Result<Replay, Error> {
        Replay::load_as(&Plan::of_this_kernel()?, policy, &[])
    }

    /// The same by another plan, and with other sizes of some maps, `("GRANTS", 64)`: to see what a
    /// full one does.
    ///
    /// # Errors
    /// As for [`Replay::load`].
    pub fn load_as(plan: &Plan, policy: &Policy, sizes: &[(&str, u32)]) -> Result<Replay, Error> {
        load(OBJECT, plan, policy, true, sizes)
    }

    /// The same from another object than that of this binary: to see what becomes of a program that
    /// the kernel refuses.
    ///
    /// # Errors
    /// As for [`Replay::load`].
    pub fn load_object(object: &[u8], plan: &Plan, policy: &Policy) -> Result<Replay, Error> {
        load(object, plan, policy, true, &[])
    }

    /// Which program of the object it is.
    #[must_use]
    pub fn program(&self) -> Program {
        self.gate.program()
    }

    /// What to say where this kernel refuses the full reader; `None`: it takes it.
    #[must_use]
    pub fn slow_reader(&self) -> Option<String> {
        self.gate.slow_reader()
    }

    /// Its maps, for what user space does with those of a live filter.
    #[must_use]
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Another policy on the same maps, and no memory of attempts and fragments.
    ///
    /// # Errors
    /// A policy with more entries than the maps were made for; a failing system call.
    pub fn replace(&mut self, policy: &Policy) -> Result<(), Error> {
        self.maps.clear()?;
        self.maps.fill(policy)
    }

    /// Another policy about the same subjects, as a live filter gets it: what the program
    /// remembers stays.
    ///
    /// # Errors
    /// A failing system call.
    pub fn change(&mut self, policy: &Policy) -> Result<(), Error> {
        self.maps.fill(policy)
    }

    /// Nothing is refused before this time.
    ///
    /// # Errors
    /// A failing system call.
    pub fn set_override(&mut self, until: u64) -> Result<(), Error> {
        self.maps.set_override(until)
    }

    /// Judges an Ethernet frame as if it had arrived at `time`, in nanoseconds.
    ///
    /// # Errors
    /// A failing system call. A frame shorter than an Ethernet header is judged as
    /// `not-ip` without the kernel, which does not take it.
    pub fn judge(&mut self, frame: &[u8], time: u64) -> Result<Judged, Error> {
        if frame.len() < FRAME_MIN {
            let event = Event { reason: Reason::NotIp as u8, ..Event::default() };
            return Ok(Judged { event, dropped: false });
        }
        let mut frame = &frame[..frame.len().min(FRAME_MAX)];
        if !self.gate.program().frags {
            // The kernel takes one buffer for such a program; the rest of the frame is not read anyway.
            let len = frame.len() as u32;
            self.frame_len.set(0, len, 0).map_err(|error| Error::map("REPLAY_LEN", error))?;
            frame = &frame[..frame.len().min(READABLE)];
        }
        self.clock.set(0, time, 0).map_err(|error| Error::map("REPLAY_CLOCK", error))?;
        let result = self
            .gate
            .xdp_to_run()?
            .test_run(TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() })
            .map_err(Error::run)?;
        #[cfg(palang_log)]
        self.log.flush();
        let event = self.event.get(&0, 0).map_err(|error| Error::map("REPLAY_EVENT", error))?;
        Ok(Judged { event: event.0, dropped: result.return_value == XDP_DROP })
    }

    /// Judges a frame at the time of the last one, on the CPU of the caller, of whom there may be
    /// several at once: whether the action was `XDP_DROP`.
    ///
    /// # Errors
    /// A failing system call.
    pub fn judge_at_once(&self, frame: &[u8]) -> Result<bool, Error> {
        self.judge_repeatedly(frame, 1)
    }

    /// The same so many times without leaving the kernel, as often as a flood comes: whether the
    /// last action was `XDP_DROP`. What the others were, [`Replay::count`] tells.
    ///
    /// # Errors
    /// A failing system call.
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

    /// Gives the program for packets that leave a frame at a time in nanoseconds: the number that
    /// it calls, which is [`Number::NONE`] where it calls none.
    ///
    /// # Errors
    /// A failing system call; a frame that the program did anything to.
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
            return Err(Error::Run("the program for packets that leave stopped one".to_owned()));
        }
        let event = self.event.get(&0, 0).map_err(|error| Error::map("REPLAY_EVENT", error))?;
        Ok(event.0.number)
    }

    /// Loads the program for packets that leave; [`Replay::send`] does it, too.
    ///
    /// # Errors
    /// A program that the verifier refuses.
    pub fn load_egress(&mut self) -> Result<(), Error> {
        self.gate.egress().map(drop)
    }

    /// The program's tag: a hash of its instructions, the same wherever the same object was loaded.
    ///
    /// # Errors
    /// A failing system call.
    pub fn tag(&mut self) -> Result<u64, Error> {
        Ok(self.gate.xdp()?.info().map_err(Error::program)?.tag())
    }

    pub(crate) fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    /// How many instructions the verifier walked; `None` before Linux 5.16.
    ///
    /// # Errors
    /// A failing system call.
    pub fn verified_instructions(&mut self) -> Result<Option<u32>, Error> {
        let info = self.gate.xdp()?.info().map_err(Error::program)?;
        Ok(info.verified_instruction_count())
    }

    /// How many packets of a trunk got a reason, over all CPUs.
    ///
    /// # Errors
    /// A failing system call.
    pub fn count(&self, trunk: u32, reason: Reason) -> Result<u64, Error> {
        self.maps.count(trunk, reason)
    }

    /// Events that were thinned out or lost, over all CPUs.
    ///
    /// # Errors
    /// A failing system call.
    pub fn event_stats(&self) -> Result<EventStats, Error> {
        self.maps.event_stats()
    }

    /// Takes the events of refused and of passed attempts out of their rings.
    ///
    /// # Errors
    /// A failing system call.
    pub fn drain_events(&mut self) -> Result<(Vec<EventEntry>, Vec<EventEntry>), Error> {
        Ok((raw::drain(&mut self.refused, usize::MAX)?, raw::drain(&mut self.passed, usize::MAX)?))
    }

    /// The switch of frames of refused attempts, which is off.
    #[must_use]
    pub fn evidence(&self) -> &EvidenceSwitch {
        &self.evidence
    }

    /// Takes the frames of refused attempts out of their ring.
    ///
    /// # Errors
    /// A failing system call.
    pub fn drain_evidence(&mut self) -> Result<Vec<Evidence>, Error> {
        self.frames.drain()
    }
}

/// Loads a program of the object with a policy, on maps of its own. Only in a replay is its time that
/// of the capture.
pub(crate) fn load(
    object: &[u8],
    plan: &Plan,
    policy: &Policy,
    replay: bool,
    sizes: &[(&str, u32)],
) -> Result<Replay, Error> {
    let blocks = policy.blocks.len();
    let numbers =
        policy.blocks.iter().filter(|(subject, _)| matches!(subject, Subject::Number(_))).count();
    let attempts = attempts(numbers as u32)?;
    // A constant for the verifier: a live filter has no code that reads another clock.
    let replay = if replay { &1u32 } else { &0u32 };
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
    Ok(Replay {
        maps,
        clock: typed(&mut take, "REPLAY_CLOCK")?,
        frame_len: typed(&mut take, "REPLAY_LEN")?,
        event: typed(&mut take, "REPLAY_EVENT")?,
        refused: typed(&mut take, "EVENTS_REFUSED")?,
        passed: typed(&mut take, "EVENTS_PASSED")?,
        evidence: EvidenceSwitch::new(&mut take)?,
        frames: EvidenceRing::new(&mut take)?,
        #[cfg(palang_log)]
        log,
        gate,
    })
}

/// Built with `PALANG_EBPF_LOG=1`: what the program logs goes to standard error.
#[cfg(palang_log)]
fn logger(ebpf: &mut aya::Ebpf) -> Result<aya_log::EbpfLogger<env_logger::Logger>, Error> {
    let logger = env_logger::Builder::new().filter_level(log::LevelFilter::Debug).build();
    aya_log::EbpfLogger::init_with_logger(ebpf, logger)
        .map_err(|error| Error::Load(error.to_string()))
}

/// Capacity for so many entries, and for a policy that replaces this one.
fn room(entries: usize) -> u32 {
    (entries as u32).max(64)
}

#[cfg(test)]
mod tests {
    use filter_common::number::{Digits, Number};

    use super::*;

    /// An INVITE of 6281234567890 over IPv4.
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

    /// Whether a block that ended at the capture's time, but not at the kernel's, refuses.
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
    fn only_a_replay_takes_the_time_of_the_capture() {
        let (dropped, event) = refuses(true);
        assert!(!dropped);
        assert_eq!(event.reason, Reason::BlockExpired as u8);
        let (dropped, event) = refuses(false);
        assert!(dropped);
        assert_eq!(event, Event::default(), "a live filter writes no replay event");
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn a_policy_that_does_not_fit_is_refused() {
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
