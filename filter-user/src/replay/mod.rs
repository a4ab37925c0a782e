//! Replays captures: each frame runs through the real program in the kernel.

pub mod capture;
pub mod error;
pub mod frames;
pub mod link;
pub mod message;
pub mod plan_check;
mod reassembly;
pub mod record;
pub mod summary;
pub mod tunnel;

use std::borrow::Cow;
use std::path::Path;

use filter_common::abi::Event;
use filter_common::reason::Reason;

use crate::datapath::{self, Judged};
use crate::model::policy::Policy;
use crate::replay::capture::Frame;
pub use crate::replay::error::Error;
use crate::replay::frames::Frames;
use crate::replay::reassembly::Reassembly;
use crate::replay::record::Record;
use crate::replay::summary::Summary;
use crate::replay::tunnel::Inner;

/// Replays one or more captures with common attempts and fragments.
pub struct Replay {
    judge: Judge,
    frames: Frames,
    /// Counts so far.
    pub summary: Summary,
}

/// The program with a policy, which judges the frames.
struct Judge {
    kernel: datapath::Replay,
    reassembly: Reassembly,
    policy: Policy,
    /// Whether every frame is reported, not only INVITEs.
    all: bool,
}

impl Replay {
    /// Loads the program with a policy on private maps. `all`: report every frame, not only INVITEs. `decap`:
    /// judge the packet in a tunnel instead of the tunnel's own.
    ///
    /// # Errors
    /// Returns the error of [`datapath::Replay::load`].
    pub fn new(policy: Policy, all: bool, decap: bool) -> Result<Replay, datapath::Error> {
        let mut kernel = datapath::Replay::load(&policy)?;
        match kernel.load_second_look() {
            // Without it such calls pass here as they do at a live gate: `headers-cut`.
            Ok(()) | Err(datapath::Error::Refused(_)) => {}
            Err(error) => return Err(error),
        }
        let judge = Judge { kernel, reassembly: Reassembly::default(), policy, all };
        Ok(Replay { judge, frames: Frames::new(decap), summary: Summary::default() })
    }

    /// Returns the ports that are read as SIP.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.judge.policy.ports
    }

    /// Judges a capture and passes the records of its frames to `report` one by one. `progress` receives
    /// the number of bytes of each read.
    ///
    /// # Errors
    /// See [`Error`]. The frames before the error were judged and reported.
    pub fn capture(
        &mut self,
        path: &Path,
        progress: impl Fn(u64) + 'static,
        mut report: impl FnMut(Record) -> std::io::Result<()>,
    ) -> Result<(), Error> {
        let file = path.display().to_string();
        let Replay { judge, frames, summary } = self;
        let result = frames.capture(path, progress, |frame, ethernet, tunnel| {
            let channel = tunnel.map_or(0, |inner| inner.channel);
            let record = judge.frame(&file, frame, (ethernet, channel), summary)?;
            let Some(mut record) = record else { return Ok(()) };
            record.tunnel = tunnel.map(Inner::names);
            summary.add(&record);
            report(record).map_err(Error::Output)
        });
        summary.skipped.clone_from(&frames.skipped);
        result
    }
}

impl Judge {
    /// Judges a frame, with the channel of its tunnels; `None` if it is not reported.
    fn frame(
        &mut self,
        file: &str,
        frame: &Frame,
        (ethernet, channel): (&[u8], u64),
        summary: &mut Summary,
    ) -> Result<Option<Record>, Error> {
        let (number, time) = (frame.number, frame.time);
        let first = self.kernel.judge(ethernet, time)?;
        let (event, whole) = match self.second_look(&first, (ethernet, channel), time)? {
            Some((event, whole)) => (event, Some(whole)),
            None => (first.event, None),
        };
        let reply = first.reply;
        let (packet, message) = message::read(whole.as_deref().unwrap_or(ethernet));
        let record =
            Record::new(file, number, time, &packet, message.as_ref(), &event, &self.policy)
                .with_reply(reply);
        summary.frames += 1;
        if frame.is_cut && record.reason == Reason::BadPacket.name() {
            summary.cut += 1;
        }
        // A TCP segment to another port is not SIP traffic that the user asked for. A call in fragments is
        // reported with the one that makes it whole.
        let not_reported = [Reason::NotUdp.name(), Reason::SecondLook.name()];
        let is_invite = record.is_invite() && !not_reported.contains(&record.reason);
        if is_invite {
            summary.invites += 1;
            if record.reason == Reason::OtherPort.name() {
                *summary.other_ports.entry(packet.destination_port).or_default() += 1;
            }
        }
        Ok((is_invite || self.all).then_some(record))
    }

    /// Judges the datagram that a frame makes whole, as the host puts it together. Returns the event and the
    /// datagram; `None` if the first look leaves nothing to the second.
    fn second_look(
        &mut self,
        first: &Judged,
        (frame, channel): (&[u8], u64),
        time: u64,
    ) -> Result<Option<(Event, Vec<u8>)>, Error> {
        if first.dropped {
            return Ok(None);
        }
        let is_left = first.event.reason == Reason::SecondLook as u8;
        let whole = match self.reassembly.add(frame, time, channel) {
            Some(Cow::Borrowed(_)) if !is_left => return Ok(None),
            Some(whole) => whole.into_owned(),
            None => return Ok(None),
        };
        Ok(self.kernel.judge_again(&whole, time)?.map(|judged| (judged.event, whole)))
    }
}
