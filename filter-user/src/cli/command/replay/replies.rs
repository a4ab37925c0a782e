//! The pcap file of replies to refused calls.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use pcap_file::PcapError;
use pcap_file::pcap::{PcapPacket, PcapWriter};

use crate::exit::{Exit, Failure};
use crate::replay::record::Record;

/// Writes replies.
pub struct Replies(PcapWriter<File>);

impl Replies {
    /// Creates a new file that only its owner can read.
    ///
    /// # Errors
    /// `Usage` if the file already exists, `Failed` if it cannot be written.
    pub fn create(path: &Path) -> Result<Replies, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(Exit::Failed, format!("{}: {error}", path.display()))
        };
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                let message = format!("{} already exists: name another file", path.display());
                Failure::new(Exit::Usage, message)
            }
            _ => failed(&error),
        })?;
        PcapWriter::new(file).map(Replies).map_err(|error| failed(&error))
    }

    /// Writes the reply of a record, if it has one, with the time of the call.
    ///
    /// # Errors
    /// Returns the error of the file.
    pub fn put(&mut self, record: &Record) -> io::Result<()> {
        let Some(frame) = &record.reply_frame else { return Ok(()) };
        let packet =
            PcapPacket::new(Duration::from_nanos(record.nanoseconds), frame.len() as u32, frame);
        self.0.write_packet(&packet).map(drop).map_err(|error| match error {
            PcapError::IoError(error) => error,
            error => io::Error::other(error),
        })
    }
}
