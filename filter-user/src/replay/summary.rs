//! Counts of a replay.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::replay::frames::Skipped;
use crate::replay::record::Record;

/// Counts over all captures of a replay. Verdicts and reasons are those of the reported frames:
/// INVITEs, or all frames.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Frames in the captures.
    pub frames: u64,
    /// Frames in which an INVITE begins.
    pub invites: u64,
    /// By verdict.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// By reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Frames and calls that were not judged.
    #[serde(flatten)]
    pub skipped: Skipped,
    /// INVITEs to UDP ports that are not SIP ports, by port.
    #[serde(skip)]
    pub other_ports: BTreeMap<u16, u64>,
    /// Packets that pass because they were captured only in part (snap length).
    #[serde(skip)]
    pub cut: u64,
}

impl Summary {
    /// Counts a reported record.
    pub fn add(&mut self, record: &Record) {
        *self.verdicts.entry(record.verdict).or_default() += 1;
        *self.reasons.entry(record.reason).or_default() += 1;
    }
}
