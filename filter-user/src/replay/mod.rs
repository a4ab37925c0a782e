//! Replays captures: each frame runs through the real program in the kernel.

pub mod capture;
pub mod link;
pub mod message;
pub mod plan_check;
pub mod record;
pub mod summary;

use std::path::Path;

use filter_common::reason::Reason;

use crate::datapath;
use crate::model::policy::Policy;
use crate::replay::capture::{Capture, Frame};
use crate::replay::record::Record;
use crate::replay::summary::Summary;

/// Replays one or more captures with common attempts and fragments.
pub struct Replay {
    kernel: datapath::Replay,
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
        let kernel = datapath::Replay::load(&policy)?;
        Ok(Replay { kernel, policy, all, summary: Summary::default() })
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
        for frame in Capture::open(path, progress)? {
            let frame = frame?;
            if let Some(record) = self.frame(&file, &frame)? {
                self.summary.add(&record);
                report(record).map_err(Error::Output)?;
            }
        }
        Ok(())
    }

    /// Judges a frame; `None` if it is not reported.
    fn frame(&mut self, file: &str, frame: &Frame) -> Result<Option<Record>, Error> {
        let ethernet = link::ethernet(frame.link, &frame.bytes)
            .map_err(|source| Error::Link { frame: frame.number, source })?;
        let event = self.kernel.judge(&ethernet, frame.time)?.event;
        let (packet, message) = message::read(&ethernet);
        let (number, time) = (frame.number, frame.time);
        let record =
            Record::new(file, number, time, &packet, message.as_ref(), &event, &self.policy);
        self.summary.frames += 1;
        if frame.is_cut && record.reason == Reason::BadPacket.name() {
            self.summary.cut += 1;
        }
        // A TCP segment to another port is not SIP traffic that the user asked for.
        let is_invite = record.is_invite() && record.reason != Reason::NotUdp.name();
        if is_invite {
            self.summary.invites += 1;
            if record.reason == Reason::OtherPort.name() {
                *self.summary.other_ports.entry(packet.destination_port).or_default() += 1;
            }
        }
        Ok((is_invite || self.all).then_some(record))
    }
}
