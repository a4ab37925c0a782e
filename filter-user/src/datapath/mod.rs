//! The kernel side, from user space: load the program, fill its maps, run it. The only
//! place that knows Aya.

mod error;
mod raw;
mod write;

use aya::maps::{Array, PerCpuArray, RingBuf};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader};
use filter_common::abi::{Event, EventEntry, EventStats, TRUNKS_MAX};
use filter_common::reason::{REASON_NUMBERS, Reason};

pub use self::error::Error;
use self::raw::Raw;
use crate::object::OBJECT;
use crate::policy::{Policy, Subject};

/// Name of the program in the object, as `bpftool prog` shows it.
const PROGRAM: &str = "palang";
/// Shortest frame that the kernel takes for a test run: an Ethernet header.
const FRAME_MIN: usize = 14;
/// The largest IP packet behind Ethernet and two VLAN tags. What a longer frame has behind
/// that is of no packet, and the kernel has no room for it in a test run.
const FRAME_MAX: usize = 22 + 65_535;

/// The program on private maps, judging frames of captures with `BPF_PROG_TEST_RUN`.
/// It has nothing in common with a live filter, and ends with this value.
pub struct Replay {
    ebpf: Ebpf,
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
    /// Loads the program with a policy. Needs `CAP_BPF` and `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// Missing capabilities, a kernel without BPF, a program that the kernel's verifier
    /// refuses, a policy that does not fit the maps.
    pub fn load(policy: &Policy) -> Result<Replay, Error> {
        Replay::new(load(policy, true)?)
    }

    #[cfg(not(palang_log))]
    fn new(ebpf: Ebpf) -> Result<Replay, Error> {
        Ok(Replay { ebpf })
    }

    /// Built with `PALANG_EBPF_LOG=1`: what the program logs goes to standard error.
    #[cfg(palang_log)]
    fn new(mut ebpf: Ebpf) -> Result<Replay, Error> {
        let logger = env_logger::Builder::new().filter_level(log::LevelFilter::Debug).build();
        let log = aya_log::EbpfLogger::init_with_logger(&mut ebpf, logger)
            .map_err(|error| Error::Load(error.to_string()))?;
        Ok(Replay { ebpf, log })
    }

    /// Another policy on the same maps, and no memory of attempts and fragments.
    ///
    /// # Errors
    /// A policy with more entries than the maps were made for; a failing system call.
    pub fn replace(&mut self, policy: &Policy) -> Result<(), Error> {
        write::clear(&mut self.ebpf)?;
        write::policy(&mut self.ebpf, policy)
    }

    /// Nothing is refused before this time.
    ///
    /// # Errors
    /// A failing system call.
    pub fn set_override(&mut self, until: u64) -> Result<(), Error> {
        write::set_override(&mut self.ebpf, until)
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
        let frame = &frame[..frame.len().min(FRAME_MAX)];
        let mut clock: Array<_, u64> = write::map(&mut self.ebpf, "REPLAY_CLOCK")?;
        clock.set(0, time, 0).map_err(|error| Error::map("REPLAY_CLOCK", error))?;
        let result = program(&mut self.ebpf)?
            .test_run(TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() })
            .map_err(Error::run)?;
        #[cfg(palang_log)]
        self.log.flush();
        let events: Array<_, Raw<Event>> = read(&self.ebpf, "REPLAY_EVENT")?;
        let event = events.get(&0, 0).map_err(|error| Error::map("REPLAY_EVENT", error))?;
        Ok(Judged { event: event.0, dropped: result.return_value == XDP_DROP })
    }

    /// How many instructions the verifier walked; `None` before Linux 5.16.
    ///
    /// # Errors
    /// A failing system call.
    pub fn verified_instructions(&mut self) -> Result<Option<u32>, Error> {
        let info = program(&mut self.ebpf)?.info().map_err(Error::program)?;
        Ok(info.verified_instruction_count())
    }

    /// How many packets of a trunk got a reason, over all CPUs.
    ///
    /// # Errors
    /// A failing system call.
    pub fn count(&self, trunk: u32, reason: Reason) -> Result<u64, Error> {
        debug_assert!(trunk < TRUNKS_MAX);
        let counters: PerCpuArray<_, u64> = read(&self.ebpf, "COUNTERS")?;
        let index = trunk * REASON_NUMBERS + reason as u32;
        let values = counters.get(&index, 0).map_err(|error| Error::map("COUNTERS", error))?;
        Ok(values.iter().sum())
    }

    /// Events that were thinned out or lost, over all CPUs.
    ///
    /// # Errors
    /// A failing system call.
    pub fn event_stats(&self) -> Result<EventStats, Error> {
        let stats: PerCpuArray<_, Raw<EventStats>> = read(&self.ebpf, "EVENT_STATS")?;
        let values = stats.get(&0, 0).map_err(|error| Error::map("EVENT_STATS", error))?;
        Ok(values.iter().fold(EventStats::default(), |sum, Raw(value)| EventStats {
            refused_lost: sum.refused_lost + value.refused_lost,
            passed_lost: sum.passed_lost + value.passed_lost,
            passed_thinned: sum.passed_thinned + value.passed_thinned,
            ..EventStats::default()
        }))
    }

    /// Takes the events of refused and of passed attempts out of their rings.
    ///
    /// # Errors
    /// A failing system call.
    pub fn drain_events(&mut self) -> Result<(Vec<EventEntry>, Vec<EventEntry>), Error> {
        Ok((self.drain("EVENTS_REFUSED")?, self.drain("EVENTS_PASSED")?))
    }

    fn drain(&mut self, name: &'static str) -> Result<Vec<EventEntry>, Error> {
        let mut ring: RingBuf<_> = write::map(&mut self.ebpf, name)?;
        let mut events = Vec::new();
        while let Some(item) = ring.next() {
            events.push(raw::event(&item).ok_or(Error::Event(item.len()))?);
        }
        Ok(events)
    }
}

/// Loads the program with a policy, on maps of its own. Only in a replay is its time that
/// of the capture.
fn load(policy: &Policy, replay: bool) -> Result<Ebpf, Error> {
    let blocks = policy.blocks.len();
    let numbers =
        policy.blocks.iter().filter(|(subject, _)| matches!(subject, Subject::Number(_))).count();
    let cpus = nr_cpus().map_err(|(_, error)| Error::Cpus(error))? as u32;
    let attempts = 2 * numbers as u32 + 128 * cpus;
    let mut loader = EbpfLoader::new();
    // A constant for the verifier: a live filter has no code that reads another clock.
    let replay = u32::from(replay);
    loader
        .override_global("REPLAY", &replay, true)
        .map_max_entries("BLOCKED_NUMBERS", room(numbers))
        .map_max_entries("BLOCKED_PREFIXES", room(blocks - numbers))
        .map_max_entries("ALLOWED_NUMBERS", room(policy.allows.len()))
        .map_max_entries("ALLOWED_PREFIXES", room(policy.allows.len()))
        .map_max_entries("PROTECTED", room(policy.protected.len()))
        .map_max_entries("ATTEMPTS", attempts.max(65_536));
    let mut ebpf = loader.load(OBJECT).map_err(Error::load)?;
    write::policy(&mut ebpf, policy)?;
    program(&mut ebpf)?.load().map_err(Error::program)?;
    Ok(ebpf)
}

/// `XDP_DROP` (`enum xdp_action`, Linux `include/uapi/linux/bpf.h`).
const XDP_DROP: u32 = 1;

/// Capacity for so many entries, and for a policy that replaces this one.
fn room(entries: usize) -> u32 {
    (entries as u32).max(64)
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, Error> {
    let program = ebpf.program_mut(PROGRAM).ok_or(Error::Missing(PROGRAM))?;
    program.try_into().map_err(Error::program)
}

fn read<'a, M>(ebpf: &'a Ebpf, name: &'static str) -> Result<M, Error>
where
    M: TryFrom<&'a aya::maps::Map, Error = aya::maps::MapError>,
{
    let map = ebpf.map(name).ok_or(Error::Missing(name))?;
    M::try_from(map).map_err(|error| Error::map(name, error))
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
        let ebpf = load(&policy, replay).unwrap_or_else(|error| panic!("{error}"));
        let mut replay = Replay::new(ebpf).unwrap();
        let judged = replay.judge(&frame(), ended).unwrap();
        (judged.dropped, judged.event)
    }

    #[test]
    fn only_a_replay_takes_the_time_of_the_capture() {
        let (dropped, event) = refuses(true);
        assert!(!dropped);
        assert_eq!(event.reason, Reason::BlockExpired as u8);
        let (dropped, event) = refuses(false);
        assert!(dropped);
        assert_eq!(event, Event::default(), "a live filter writes no replay event");
    }

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
