//! A pcapng file of INVITEs of refused attempts. It is complete after each INVITE and never exceeds
//! the given size.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use filter_common::abi::EVIDENCE_MAX;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{PcapNgBlock as _, PcapNgWriter};
use pcap_file::{DataLink, PcapError};

use crate::api::wire::Evidence;
use crate::cli::output::{clean, counted};
use crate::exit::{Exit, Failure};

/// Timestamps are in nanoseconds: 10 to the power of minus 9 (draft-ietf-opsawg-pcapng §4.2).
const NANOSECONDS: u8 = 9;
/// Bytes of the section header and the interface description that this file writes.
const HEADER: u64 = 28 + 32;
/// Bytes of an enhanced packet block without its data (draft-ietf-opsawg-pcapng §4.3).
const PACKET: u64 = 32;

/// Writes one capture file.
pub struct Capture {
    writer: PcapNgWriter<File>,
    path: PathBuf,
    max_bytes: u64,
    max_count: u64,
    bytes: u64,
    count: u64,
    /// Whether a limit was reached: nothing more is written.
    is_full: bool,
}

impl Capture {
    /// Creates a new file that only its owner can read.
    ///
    /// # Errors
    /// `Usage` if the file already exists, as it may be evidence; `Failed` if it cannot be written.
    pub fn create(path: &Path, max_bytes: u64, max_count: u64) -> Result<Capture, Failure> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                let message = format!("{} already exists: name another file", path.display());
                return Failure::new(Exit::Usage, message);
            }
            Failure::new(Exit::Failed, format!("{}: {error}", path.display()))
        })?;
        let begin = || {
            let mut writer = PcapNgWriter::new(file)?;
            let interface = InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: EVIDENCE_MAX as u32,
                options: vec![InterfaceDescriptionOption::IfTsResol(NANOSECONDS)],
            };
            writer.write_block(&interface.into_block())?;
            Ok(writer)
        };
        let writer = begin().map_err(|error| failed(path, &error))?;
        let path = path.to_owned();
        Ok(Capture { writer, path, max_bytes, max_count, bytes: HEADER, count: 0, is_full: false })
    }

    /// Writes an INVITE, unless the file would exceed its limits; then it says so once.
    ///
    /// # Errors
    /// `Failed` if the file cannot be written or the daemon sent something that is not base64.
    pub fn put(&mut self, evidence: &Evidence) -> Result<(), Failure> {
        if self.is_full {
            return Ok(());
        }
        let Some(bytes) = evidence.bytes() else {
            return Err(Failure::new(Exit::Failed, "the daemon sent an INVITE that is not base64"));
        };
        let size = PACKET + (bytes.len() as u64).next_multiple_of(4);
        if self.count >= self.max_count || self.bytes + size > self.max_bytes {
            self.is_full = true;
            eprintln!(
                "palang: {}: the limit of --max-count or --max-bytes is reached after {}; no more INVITEs are written",
                clean(&self.path.display().to_string()),
                counted(self.count, "INVITE")
            );
            return Ok(());
        }
        let packet = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::from_nanos(
                u64::try_from(evidence.time.as_nanosecond()).unwrap_or_default(),
            ),
            original_len: evidence.frame_len,
            data: Cow::Owned(bytes),
            options: Vec::new(),
        };
        self.writer
            .write_block(&packet.into_block())
            .map_err(|error| failed(&self.path, &error))?;
        self.bytes += size;
        self.count += 1;
        Ok(())
    }

    /// Prints the number of INVITEs and removes a file without any.
    pub fn finish(self) {
        let path = self.path.display().to_string();
        if self.count > 0 {
            eprintln!("palang: {} in {}", counted(self.count, "INVITE"), clean(&path));
        } else if fs::remove_file(&self.path).is_ok() {
            eprintln!("palang: no INVITE arrived, so {} was not kept", clean(&path));
        }
    }
}

fn failed(path: &Path, error: &PcapError) -> Failure {
    Failure::new(Exit::Failed, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::replay::capture::Capture as Reader;

    fn evidence(frame: &[u8]) -> Evidence {
        Evidence::new(
            0,
            Timestamp::from_nanosecond(1_234_567_890_123_456_789).unwrap(),
            3000,
            frame,
        )
    }

    #[test]
    fn capture_file_reads_back_and_keeps_its_limits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("refused.pcapng");
        let frame: Vec<u8> = (0..=250).collect();
        let mut file = Capture::create(&path, u64::MAX, 2).unwrap();
        for _ in 0..3 {
            file.put(&evidence(&frame)).unwrap();
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), file.bytes, "counted to the byte");
        let read: Vec<_> = Reader::open(&path, |_| ()).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!((read[1].time, read[1].is_cut), (1_234_567_890_123_456_789, true));
        assert_eq!(read[1].bytes, frame);

        let again = Capture::create(&path, u64::MAX, 2).err().unwrap();
        assert_eq!(again.exit, Exit::Usage);

        let path = folder.path().join("small.pcapng");
        let mut file = Capture::create(&path, 1000, u64::MAX).unwrap();
        for _ in 0..10 {
            file.put(&evidence(&frame)).unwrap();
        }
        assert_eq!(Reader::open(&path, |_| ()).unwrap().count(), 3);
        assert!(std::fs::metadata(&path).unwrap().len() <= 1000);
        file.finish();
        assert!(path.exists());

        let path = folder.path().join("none.pcapng");
        Capture::create(&path, 1000, 10).unwrap().finish();
        assert!(!path.exists());
    }
}
