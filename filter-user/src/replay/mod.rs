//! Captures in, verdicts out: each frame runs through the real program in the kernel.

pub mod capture;
pub mod link;
pub mod message;
pub mod record;
pub mod summary;

use std::path::Path;

use filter_common::reason::Reason;

use self::capture::{Capture, Frame};
use self::record::Record;
use self::summary::Summary;
use crate::datapath;
use crate::policy::Policy;

/// A replay over one or more captures, with one memory of attempts and fragments.
pub struct Replay {
    kernel: datapath::Replay,
    policy: Policy,
    /// Whether every frame is told, and not only INVITEs.
    all: bool,
    /// Counts so far.
    pub summary: Summary,
}

/// Why a capture was not judged to its end.
#[derive(Debug)]
pub enum Error {
    /// The capture: what is wrong with it.
    Capture(String),
    /// The kernel.
    Kernel(datapath::Error),
    /// The output, which may have been closed.
    Output(std::io::Error),
}

impl Replay {
    /// Loads the program with a policy, on private maps.
    ///
    /// # Errors
    /// Those of [`datapath::Replay::load`].
    pub fn new(policy: Policy, all: bool) -> Result<Replay, datapath::Error> {
        let kernel = datapath::Replay::load(&policy)?;
        Ok(Replay { kernel, policy, all, summary: Summary::default() })
    }

    /// The ports that SIP is read on.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.policy.ports
    }

    /// Judges a capture, and tells of its frames one by one. `progress` hears of bytes read.
    ///
    /// # Errors
    /// See [`Error`]; what stands before the error was judged and told.
    pub fn capture(
        &mut self,
        path: &Path,
        progress: impl Fn(u64) + 'static,
        mut tell: impl FnMut(Record) -> std::io::Result<()>,
    ) -> Result<(), Error> {
        let file = path.display().to_string();
        for frame in Capture::open(path, progress).map_err(Error::Capture)? {
            let frame = frame.map_err(Error::Capture)?;
            if let Some(record) = self.frame(&file, &frame)? {
                self.summary.add(&record);
                tell(record).map_err(Error::Output)?;
            }
        }
        Ok(())
    }

    /// Judges a frame; `None` when nothing is to be told of it.
    fn frame(&mut self, file: &str, frame: &Frame) -> Result<Option<Record>, Error> {
        let ethernet = link::ethernet(frame.link, &frame.bytes)
            .map_err(|error| Error::Capture(format!("frame {}: {error}", frame.number)))?;
        let event = self.kernel.judge(&ethernet, frame.time).map_err(Error::Kernel)?.event;
        let (packet, message) = message::read(&ethernet);
        let (number, time) = (frame.number, frame.time);
        let record =
            Record::new(file, number, time, &packet, message.as_ref(), &event, &self.policy);
        self.summary.frames += 1;
        if frame.is_cut && record.reason == Reason::BadPacket.name() {
            self.summary.cut += 1;
        }
        // A TCP segment to another port is no SIP that anybody asked about.
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
