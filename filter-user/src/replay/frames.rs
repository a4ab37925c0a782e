//! Makes of each captured frame the Ethernet frame that the program judges.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::replay::capture::{Capture, Frame};
use crate::replay::error::Error;
use crate::replay::link::UnsupportedLink;
use crate::replay::reassembly::Reassembly;
use crate::replay::tunnel::Inner;
use crate::replay::{link, message, tunnel};

/// Tunnels in fragments in tunnels that are followed.
const ROUNDS_MAX: usize = 4;

/// Reads captures and counts what is not judged.
#[derive(Default)]
pub struct Frames {
    /// Whether the packet in a tunnel is judged instead of the tunnel's own.
    decap: bool,
    /// Outer packets that wait for fragments.
    outer: Reassembly,
    /// The frames that were not judged so far.
    pub skipped: Skipped,
}

/// Frames and calls that were not judged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Frames of link types that are not supported, by link type.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub foreign: BTreeMap<String, u64>,
    /// INVITEs in tunnels that were not unwrapped, by tunnel: `--decap` was not given.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tunnelled: BTreeMap<String, u64>,
}

impl Frames {
    /// Creates a reader. `decap`: judge the packet in a tunnel.
    #[must_use]
    pub fn new(decap: bool) -> Frames {
        Frames { decap, ..Frames::default() }
    }

    /// Reads a capture. Passes each frame to `judge`, the Ethernet frame that is to be judged for it, and
    /// the tunnels that were removed. `progress` receives the number of bytes of each read.
    ///
    /// # Errors
    /// [`Error::Capture`] if the capture cannot be read, [`Error::Link`] if all its frames have link types
    /// that are not supported. Returns the errors of `judge`.
    pub fn capture(
        &mut self,
        path: &Path,
        progress: impl Fn(u64) + 'static,
        mut judge: impl FnMut(&Frame, &[u8], Option<&Inner>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // A pcapng may also have frames of other interfaces. A capture with no other frames is not read.
        let mut foreign = None;
        let mut judged = false;
        for frame in Capture::open(path, progress)? {
            let frame = frame?;
            match link::ethernet(frame.link, &frame.bytes) {
                Ok(ethernet) => {
                    judged = true;
                    let inner = self.unwrap(&ethernet, frame.time);
                    match inner {
                        Some(inner) => judge(&frame, &inner.frame, Some(&inner))?,
                        None => judge(&frame, &ethernet, None)?,
                    }
                }
                Err(source) => {
                    self.count_foreign(&frame);
                    foreign.get_or_insert((frame.number, source));
                }
            }
        }
        let unread = |(frame, source): (u64, UnsupportedLink)| Error::Link { frame, source };
        foreign.filter(|_| !judged).map_or(Ok(()), |first| Err(unread(first)))
    }

    fn count_foreign(&mut self, frame: &Frame) {
        let kind = u32::from(frame.link).to_string();
        *self.skipped.foreign.entry(kind).or_default() += 1;
    }

    /// Returns the packet in a tunnel, if it is to be judged; counts it if it is an INVITE and is not.
    fn unwrap(&mut self, ethernet: &[u8], time: u64) -> Option<Inner> {
        let inner = self.inner(ethernet, time)?;
        if self.decap {
            return Some(inner);
        }
        let (_, message) = message::read(&inner.frame);
        if message.is_some_and(|message| message.method == "INVITE") {
            *self.skipped.tunnelled.entry(inner.names()).or_default() += 1;
        }
        None
    }

    /// Returns the innermost packet. Tunnels often fragment, because their headers make packets longer.
    fn inner(&mut self, ethernet: &[u8], time: u64) -> Option<Inner> {
        let mut found = tunnel::inner(ethernet);
        for _ in 0..ROUNDS_MAX {
            let current = found.as_ref().map_or(ethernet, |inner| &inner.frame);
            let channel = found.as_ref().map_or(0, |inner| inner.channel);
            let Some(Cow::Owned(whole)) = self.outer.add_any(current, time, channel) else { break };
            let Some(next) = tunnel::inner(&whole) else { break };
            let mut tunnels = found.map(|inner| inner.tunnels).unwrap_or_default();
            tunnels.extend(next.tunnels);
            let channel = tunnel::mixed(channel, next.channel);
            found = Some(Inner { frame: next.frame, tunnels, channel });
        }
        found
    }
}
