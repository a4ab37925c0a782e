//! Replays captures: each frame runs through the real program in the kernel.

pub mod capture;
pub mod link;
pub mod message;
pub mod plan_check;
mod reassembly;
pub mod record;
pub mod summary;

use std::borrow::Cow;
use std::path::Path;

use filter_common::abi::Event;
use filter_common::reason::Reason;

use crate::datapath::{self, Judged};
use crate::model::policy::Policy;
use crate::replay::capture::{Capture, Frame};
use crate::replay::reassembly::Reassembly;
use crate::replay::record::Record;
use crate::replay::summary::Summary;

/// Replays one or more captures with common attempts and fragments.
pub struct Replay {
    kernel: datapath::Replay,
    reassembly: Reassembly,
    policy: Policy,
    /// Whether every frame is reported, not only INVITEs.
    all: bool,
    /// Counts so far.
    pub summary: Summary,
}

/// Reasons why a capture was not judged to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The capture is not readable.
    #[error(transparent)]
    Capture(#[from] capture::Error),
    /// A frame has a link type that is not supported.
    #[error("frame {frame}: {source}")]
    Link {
        /// Number of the frame.
        frame: u64,
        /// The link type.
        source: link::UnsupportedLink,
    },
    /// The kernel returned an error.
    #[error(transparent)]
    Kernel(#[from] datapath::Error),
    /// The output cannot be written; it may have been closed.
    #[error("cannot write the output: {0}")]
    Output(#[source] std::io::Error),
}

impl Replay {
    /// Loads the program with a policy on private maps.
    ///
    /// # Errors
    /// Returns the error of [`datapath::Replay::load`].
    pub fn new(policy: Policy, all: bool) -> Result<Replay, datapath::Error> {
        let mut kernel = datapath::Replay::load(&policy)?;
        match kernel.load_second_look() {
            // Without it such calls pass here as they do at a live gate: `headers-cut`.
            Ok(()) | Err(datapath::Error::Refused(_)) => {}
            Err(error) => return Err(error),
        }
        let reassembly = Reassembly::default();
        Ok(Replay { kernel, reassembly, policy, all, summary: Summary::default() })
    }

    /// Returns the ports that are read as SIP.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.policy.ports
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
        // A pcapng may also have frames of other interfaces. A capture with no other frames is not read.
        let mut foreign = None;
        let mut judged = false;
        for frame in Capture::open(path, progress)? {
            let frame = frame?;
            match self.frame(&file, &frame) {
                Ok(record) => {
                    judged = true;
                    let Some(record) = record else { continue };
                    self.summary.add(&record);
                    report(record).map_err(Error::Output)?;
                }
                Err(error @ Error::Link { .. }) => {
                    let kind = u32::from(frame.link).to_string();
                    *self.summary.foreign.entry(kind).or_default() += 1;
                    foreign.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        foreign.filter(|_| !judged).map_or(Ok(()), Err)
    }

    /// Judges a frame; `None` if it is not reported.
    fn frame(&mut self, file: &str, frame: &Frame) -> Result<Option<Record>, Error> {
        let ethernet = link::ethernet(frame.link, &frame.bytes)
            .map_err(|source| Error::Link { frame: frame.number, source })?;
        let (number, time) = (frame.number, frame.time);
        let first = self.kernel.judge(&ethernet, time)?;
        let (event, whole) = match self.second_look(first, &ethernet, time)? {
            Some((event, whole)) => (event, Some(whole)),
            None => (first.event, None),
        };
        let (packet, message) = message::read(whole.as_deref().unwrap_or(&ethernet));
        let record =
            Record::new(file, number, time, &packet, message.as_ref(), &event, &self.policy);
        self.summary.frames += 1;
        if frame.is_cut && record.reason == Reason::BadPacket.name() {
            self.summary.cut += 1;
        }
        // A TCP segment to another port is not SIP traffic that the user asked for.
        // A TCP segment to another port is not SIP traffic that the user asked for. A call in fragments is
        // reported with the one that makes it whole.
        let not_reported = [Reason::NotUdp.name(), Reason::SecondLook.name()];
        let is_invite = record.is_invite() && !not_reported.contains(&record.reason);
        if is_invite {
            self.summary.invites += 1;
            if record.reason == Reason::OtherPort.name() {
                *self.summary.other_ports.entry(packet.destination_port).or_default() += 1;
            }
        }
        Ok((is_invite || self.all).then_some(record))
    }

    /// Judges the datagram that a frame makes whole, as the host puts it together. Returns the event and the
    /// datagram; `None` if the first look leaves nothing to the second.
    fn second_look(
        &mut self,
        first: Judged,
        frame: &[u8],
        time: u64,
    ) -> Result<Option<(Event, Vec<u8>)>, Error> {
        if first.dropped {
            return Ok(None);
        }
        let is_left = first.event.reason == Reason::SecondLook as u8;
        let whole = match self.reassembly.add(frame, time) {
            Some(Cow::Borrowed(_)) if !is_left => return Ok(None),
            Some(whole) => whole.into_owned(),
            None => return Ok(None),
        };
        Ok(self.kernel.judge_again(&whole, time)?.map(|judged| (judged.event, whole)))
    }
}
