//! The pcap file of replies to refused calls.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::PcapError;
use pcap_file::pcap::{PcapPacket, PcapWriter};

use crate::cli::command::replay::output::NO_REPLY;
use crate::exit::{Exit, Failure};
use crate::replay::record::Record;

/// Writes replies. The file is made for the first one.
pub struct Replies {
    path: PathBuf,
    writer: Option<PcapWriter<File>>,
}

impl Replies {
    /// Prepares a new file that only its owner can read.
    ///
    /// # Errors
    /// `Usage` if the file already exists.
    pub fn new(path: &Path) -> Result<Replies, Failure> {
        if path.symlink_metadata().is_ok() {
            let message = format!("{} already exists: name another file", path.display());
            return Err(Failure::new(Exit::Usage, message));
        }
        Ok(Replies { path: path.to_owned(), writer: None })
    }

    /// Writes the reply of a record, if it has one, with the time of the call.
    ///
    /// # Errors
    /// Returns the error of the file.
    pub fn put(&mut self, record: &Record) -> io::Result<()> {
        let Some(frame) = &record.reply_frame else { return Ok(()) };
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let mut options = OpenOptions::new();
                let file = options.write(true).create_new(true).mode(0o600).open(&self.path)?;
                self.writer.insert(PcapWriter::new(file).map_err(into_io)?)
            }
        };
        let time = Duration::from_nanos(record.nanoseconds);
        let packet = PcapPacket::new(time, frame.len() as u32, frame);
        writer.write_packet(&packet).map(drop).map_err(into_io)
    }

    /// Returns a note if there was no reply to write.
    pub fn note(&self) -> Option<String> {
        let path = self.path.display();
        self.writer.is_none().then(|| format!("{path} was not written: {NO_REPLY}"))
    }
}

fn into_io(error: PcapError) -> io::Error {
    if let PcapError::IoError(error) = error { error } else { io::Error::other(error) }
}
