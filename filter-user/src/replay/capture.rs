//! Frames of a capture file: pcap or pcapng, from a file or from standard input.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError, TsResolution};

const SECOND_NS: u128 = 1_000_000_000;
/// First four bytes of a pcapng section (draft-ietf-opsawg-pcapng §4.1).
const PCAPNG_MAGIC: [u8; 4] = [0x0A, 0x0D, 0x0D, 0x0A];

/// A frame as it was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Number in its file, from 1.
    pub number: u64,
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Link type of its interface.
    pub link: DataLink,
    /// Its bytes, as far as they were captured.
    pub bytes: Vec<u8>,
}

/// An open capture: an iterator of frames, that ends with an error where the file is cut.
pub struct Capture {
    format: Format,
    number: u64,
}

enum Format {
    Pcap(PcapReader<Box<dyn Read>>),
    PcapNg(PcapNgReader<Box<dyn Read>>),
}

impl Capture {
    /// Opens a file, `-` for standard input. `count` is told of every read of so many bytes.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn open(path: &Path, count: impl Fn(u64) + 'static) -> Result<Capture, String> {
        let source: Box<dyn Read> = if path.as_os_str() == "-" {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path).map_err(|error| format!("cannot be opened: {error}"))?)
        };
        let mut reader = BufReader::new(Counted { source, count });
        let start = reader.fill_buf().map_err(|error| format!("cannot be read: {error}"))?;
        if start.is_empty() {
            return Err("is empty".to_owned());
        }
        let is_pcapng = start.starts_with(&PCAPNG_MAGIC);
        let reader: Box<dyn Read> = Box::new(reader);
        let format = if is_pcapng {
            PcapNgReader::new(reader).map(Format::PcapNg)
        } else {
            PcapReader::new(reader).map(Format::Pcap)
        };
        let format = format.map_err(|_| "is neither a pcap nor a pcapng capture".to_owned())?;
        Ok(Capture { format, number: 0 })
    }

    fn frame(&mut self, time: u128, link: DataLink, bytes: Vec<u8>) -> Frame {
        self.number += 1;
        Frame { number: self.number, time: u64::try_from(time).unwrap_or(u64::MAX), link, bytes }
    }

    fn error(&self, error: &PcapError) -> String {
        let frames = self.number;
        match error {
            PcapError::IoError(io) if io.kind() == io::ErrorKind::UnexpectedEof => {
                format!("is cut off behind frame {frames}")
            }
            PcapError::IoError(io) => format!("cannot be read behind frame {frames}: {io}"),
            PcapError::IncompleteBuffer
            | PcapError::InvalidField(_)
            | PcapError::Utf8Error(_)
            | PcapError::FromUtf8Error(_)
            | PcapError::InvalidInterfaceId(_) => {
                format!("is broken behind frame {frames}: {error}")
            }
        }
    }
}

impl Iterator for Capture {
    type Item = Result<Frame, String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let read = match &mut self.format {
                Format::Pcap(reader) => pcap(reader)?,
                Format::PcapNg(reader) => match pcapng(reader)? {
                    Ok(None) => continue,
                    Ok(Some(frame)) => Ok(frame),
                    Err(error) => Err(error),
                },
            };
            return Some(match read {
                Ok((time, link, bytes)) => Ok(self.frame(time, link, bytes)),
                Err(error) => Err(self.error(&error)),
            });
        }
    }
}

type Read3 = (u128, DataLink, Vec<u8>);

fn pcap(reader: &mut PcapReader<Box<dyn Read>>) -> Option<Result<Read3, PcapError>> {
    let header = reader.header();
    // Raw: captures exist whose frames are longer than the length that their header names.
    Some(reader.next_raw_packet()?.map(|packet| {
        let fraction = match header.ts_resolution {
            TsResolution::MicroSecond => u128::from(packet.ts_frac) * 1000,
            TsResolution::NanoSecond => u128::from(packet.ts_frac),
        };
        let time = u128::from(packet.ts_sec) * SECOND_NS + fraction;
        (time, header.datalink, packet.data.into_owned())
    }))
}

/// The next block; `None` in it when it holds no frame.
fn pcapng(reader: &mut PcapNgReader<Box<dyn Read>>) -> Option<Result<Option<Read3>, PcapError>> {
    let (ticks, interface, bytes) = match reader.next_block()? {
        // The crate takes the ticks for nanoseconds, whatever the interface says.
        Ok(Block::EnhancedPacket(packet)) => {
            (packet.timestamp.as_nanos(), packet.interface_id, packet.data.into_owned())
        }
        Ok(Block::Packet(packet)) => {
            (packet.timestamp.into(), packet.interface_id.into(), packet.data.into_owned())
        }
        Ok(Block::SimplePacket(packet)) => (0, 0, packet.data.into_owned()),
        Ok(_) => return Some(Ok(None)),
        Err(error) => return Some(Err(error)),
    };
    let Some(description) = reader.interfaces().get(interface as usize) else {
        return Some(Err(PcapError::InvalidInterfaceId(interface)));
    };
    let (mut resolution, mut offset) = (6, 0);
    for option in &description.options {
        if let InterfaceDescriptionOption::IfTsResol(value) = option {
            resolution = *value;
        } else if let InterfaceDescriptionOption::IfTsOffset(value) = option {
            offset = u128::from(*value);
        }
    }
    let time = nanoseconds(ticks, resolution) + offset * SECOND_NS;
    Some(Ok(Some((time, description.linktype, bytes))))
}

/// Ticks of `if_tsresol`: a negative power of 10, or of 2 when the top bit is set.
fn nanoseconds(ticks: u128, resolution: u8) -> u128 {
    let power = u32::from(resolution & 0x7F);
    if resolution & 0x80 != 0 {
        return (ticks * SECOND_NS) >> power.min(127);
    }
    if power <= 9 { ticks * 10u128.pow(9 - power) } else { ticks / 10u128.pow(power.min(38) - 9) }
}

/// Tells how many bytes were read.
struct Counted<R, F> {
    source: R,
    count: F,
}

impl<R: Read, F: Fn(u64)> Read for Counted<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        (self.count)(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_nanoseconds() {
        assert_eq!(nanoseconds(1_500_000, 6), 1_500_000_000);
        assert_eq!(nanoseconds(1_500_000_000, 9), 1_500_000_000);
        assert_eq!(nanoseconds(1_500_000_000_000, 12), 1_500_000_000);
        assert_eq!(nanoseconds(3 << 19, 0x80 | 20), 1_500_000_000);
    }
}
