//! Reads frames of a capture: pcap or pcapng, from a file or from standard input, also compressed.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};

const SECOND_NS: u128 = 1_000_000_000;
/// First four bytes of a pcapng section (draft-ietf-opsawg-pcapng §4.1).
const PCAPNG_MAGIC: [u8; 4] = [0x0A, 0x0D, 0x0D, 0x0A];
/// First four bytes of a pcap in microseconds and in nanoseconds, most significant byte first
/// (draft-ietf-opsawg-pcap §4).
const PCAP_MAGICS: [[u8; 4]; 2] = [[0xA1, 0xB2, 0xC3, 0xD4], [0xA1, 0xB2, 0x3C, 0x4D]];
/// First four bytes of a pcap with longer record headers, as an old libpcap on Linux wrote it.
const MODIFIED_MAGIC: [u8; 4] = [0xA1, 0xB2, 0xCD, 0x34];
/// First bytes of a file that gzip (RFC 1952 §2.3.1), zstd (RFC 8878 §3.1.1) or xz compressed.
const GZIP_MAGIC: [u8; 2] = [0x1F, 0x8B];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
const XZ_MAGIC: [u8; 6] = [0xFD, 0x37, 0x7A, 0x58, 0x5A, 0x00];
/// Advice for a capture format that is not supported.
const REWRITE: &str = "rewrite it with Wireshark's `editcap -F pcap OLD NEW`";

/// Reasons why a capture cannot be read to its end. Each text continues the name of the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened.
    #[error("cannot be opened: {0}")]
    Open(#[source] io::Error),
    /// The file has no byte.
    #[error("is empty")]
    Empty,
    /// The file is a pcap with longer record headers.
    #[error(
        "is a pcap of the old kind \"modified\", which is not supported: {advice}",
        advice = REWRITE
    )]
    Modified,
    /// The file has another format.
    #[error("is neither a pcap nor a pcapng capture")]
    NotACapture,
    /// The file ends within a frame.
    #[error("is cut off {0}")]
    CutOff(Place),
    /// The file cannot be read.
    #[error("cannot be read {place}: {source}")]
    Read {
        /// Place of the error.
        place: Place,
        /// The error of the system call.
        source: io::Error,
    },
    /// The file does not follow its format.
    #[error("is broken {place} ({source}): {advice}", advice = REWRITE)]
    Broken {
        /// Place of the error.
        place: Place,
        /// The error of the format.
        source: PcapError,
    },
}

/// A place in a capture: after N frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub u64);

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => f.write_str("before its first frame"),
            frames => write!(f, "after frame {frames}"),
        }
    }
}

/// A captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Number in the file, from 1.
    pub number: u64,
    /// Capture time, nanoseconds since 1970.
    pub time: u64,
    /// Link type of the interface.
    pub link: DataLink,
    /// The captured bytes.
    pub bytes: Vec<u8>,
    /// Whether the frame was longer than what was captured (snap length).
    pub is_cut: bool,
}

/// Iterates over the frames of an open capture. A truncated file ends with an error.
pub struct Capture {
    format: Format,
    number: u64,
    /// Whether an error was returned. The crate would return it again forever.
    is_broken: bool,
}

enum Format {
    Pcap(PcapReader<Box<dyn Read>>),
    PcapNg(PcapNgReader<Box<dyn Read>>),
}

impl Capture {
    /// Opens a file; `-` is standard input. `count` receives the number of bytes of each read.
    ///
    /// # Errors
    /// [`Error`] if the file cannot be opened or read, or is not a supported capture.
    pub fn open(path: &Path, count: impl Fn(u64) + 'static) -> Result<Capture, Error> {
        let source: Box<dyn Read> = if path.as_os_str() == "-" {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path).map_err(Error::Open)?)
        };
        let unread = |source| Error::Read { place: Place(0), source };
        let reader = uncompressed(Box::new(Counted { source, count })).map_err(unread)?;
        let (magic, reader) = peek::<4>(reader).map_err(unread)?;
        let kind = kind(&magic)?;
        let format = match kind {
            Kind::Pcap => PcapReader::new(reader).map(Format::Pcap),
            Kind::PcapNg => PcapNgReader::new(reader).map(Format::PcapNg),
        };
        Ok(Capture {
            format: format.map_err(|error| broken(error, 0))?,
            number: 0,
            is_broken: false,
        })
    }

    fn frame(&mut self, read: Captured) -> Frame {
        self.number += 1;
        Frame {
            number: self.number,
            time: u64::try_from(read.time.max(0)).unwrap_or(u64::MAX),
            link: read.link,
            is_cut: (read.bytes.len() as u64) < u64::from(read.original_len),
            bytes: read.bytes,
        }
    }
}

/// Reads the first bytes, `N` at most. Returns them, and a reader that begins with them again.
fn peek<const N: u64>(mut reader: Box<dyn Read>) -> io::Result<(Vec<u8>, Box<dyn Read>)> {
    let mut first = Vec::new();
    reader.by_ref().take(N).read_to_end(&mut first)?;
    // The readers of this file read large blocks, so no buffer is needed.
    Ok((first.clone(), Box::new(Cursor::new(first).chain(reader))))
}

/// Returns a reader of the capture in a file, which may be compressed by gzip, zstd or xz.
fn uncompressed(reader: Box<dyn Read>) -> io::Result<Box<dyn Read>> {
    let (magic, reader) = peek::<6>(reader)?;
    Ok(if magic.starts_with(&GZIP_MAGIC) {
        Box::new(MultiGzDecoder::new(reader))
    } else if magic.starts_with(&ZSTD_MAGIC) {
        Box::new(zstd::Decoder::new(reader)?)
    } else if magic == XZ_MAGIC {
        Box::new(XzReader::new(reader, true))
    } else {
        reader
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pcap,
    PcapNg,
}

/// Returns the format of a file that begins with these bytes.
fn kind(magic: &[u8]) -> Result<Kind, Error> {
    let reversed: Vec<u8> = magic.iter().rev().copied().collect();
    let is = |known: [u8; 4]| magic == known || reversed == known;
    if magic.is_empty() {
        Err(Error::Empty)
    } else if magic == PCAPNG_MAGIC {
        Ok(Kind::PcapNg)
    } else if PCAP_MAGICS.into_iter().any(is) {
        Ok(Kind::Pcap)
    } else if is(MODIFIED_MAGIC) {
        Err(Error::Modified)
    } else {
        Err(Error::NotACapture)
    }
}

/// Converts an error after a number of frames.
fn broken(error: PcapError, frames: u64) -> Error {
    let place = Place(frames);
    match error {
        PcapError::IoError(io) if io.kind() == io::ErrorKind::UnexpectedEof => Error::CutOff(place),
        PcapError::IoError(source) => Error::Read { place, source },
        source @ (PcapError::IncompleteBuffer
        | PcapError::InvalidField(_)
        | PcapError::Utf8Error(_)
        | PcapError::FromUtf8Error(_)
        | PcapError::InvalidInterfaceId(_)) => Error::Broken { place, source },
    }
}

impl Iterator for Capture {
    type Item = Result<Frame, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_broken {
            let read = match &mut self.format {
                Format::Pcap(reader) => pcap(reader)?,
                Format::PcapNg(reader) => match pcapng(reader)? {
                    Ok(None) => continue,
                    Ok(Some(frame)) => Ok(frame),
                    Err(error) => Err(error),
                },
            };
            return Some(match read {
                Ok(read) => Ok(self.frame(read)),
                Err(error) => {
                    self.is_broken = true;
                    Err(broken(error, self.number))
                }
            });
        }
        None
    }
}

/// A frame as stored in the file. Its time may be before 1970.
struct Captured {
    time: i128,
    link: DataLink,
    bytes: Vec<u8>,
    original_len: u32,
}

fn pcap(reader: &mut PcapReader<Box<dyn Read>>) -> Option<Result<Captured, PcapError>> {
    let header = reader.header();
    // Raw, because some captures have frames longer than the length in their header.
    Some(reader.next_raw_packet()?.map(|packet| {
        let fraction = match header.ts_resolution {
            TsResolution::MicroSecond => u128::from(packet.ts_frac) * 1000,
            TsResolution::NanoSecond => u128::from(packet.ts_frac),
        };
        Captured {
            time: (u128::from(packet.ts_sec) * SECOND_NS + fraction) as i128,
            link: header.datalink,
            original_len: packet.orig_len,
            bytes: packet.data.into_owned(),
        }
    }))
}

/// Reads the next block; `Ok(None)` if it has no frame.
fn pcapng(reader: &mut PcapNgReader<Box<dyn Read>>) -> Option<Result<Option<Captured>, PcapError>> {
    // A block may begin a section with the other byte order, but that block has no frame.
    let endianness = reader.section().endianness;
    let (ticks, interface, original_len, bytes) = match reader.next_block()? {
        // The crate treats the ticks as nanoseconds, regardless of the interface.
        Ok(Block::EnhancedPacket(packet)) => (
            packet.timestamp.as_nanos(),
            packet.interface_id,
            packet.original_len,
            packet.data.into_owned(),
        ),
        // The time is two words, the upper one first. The crate reads them as one number.
        Ok(Block::Packet(packet)) => (
            upper_word_first(packet.timestamp, endianness).into(),
            packet.interface_id.into(),
            packet.original_len,
            packet.data.into_owned(),
        ),
        Ok(Block::SimplePacket(packet)) => {
            let mut bytes = packet.data.into_owned();
            // The crate leaves the padding at the end.
            bytes.truncate(packet.original_len as usize);
            (0, 0, packet.original_len, bytes)
        }
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
            // Signed, although the crate has an unsigned type (draft-ietf-opsawg-pcapng §4.2).
            offset = i128::from(*value as i64);
        }
    }
    let time = nanoseconds(ticks, resolution) as i128 + offset * SECOND_NS as i128;
    Some(Ok(Some(Captured { time, link: description.linktype, bytes, original_len })))
}

/// Returns the time of an obsolete Packet Block, from the number as which its eight bytes were read
/// (draft-ietf-opsawg-pcapng, appendix A).
fn upper_word_first(read: u64, endianness: Endianness) -> u64 {
    match endianness {
        Endianness::Big => read,
        Endianness::Little => read.rotate_left(32),
    }
}

/// Converts ticks of `if_tsresol`: a negative power of 10, or of 2 if the top bit is set.
fn nanoseconds(ticks: u128, resolution: u8) -> u128 {
    let power = u32::from(resolution & 0x7F);
    if resolution & 0x80 != 0 {
        return (ticks * SECOND_NS) >> power.min(127);
    }
    if power <= 9 { ticks * 10u128.pow(9 - power) } else { ticks / 10u128.pow(power.min(38) - 9) }
}

/// Reports the number of bytes read.
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

    fn capture(file: &[u8], name: &str) -> Result<Vec<Result<Frame, Error>>, Error> {
        let path = std::env::temp_dir().join(format!("palang-{}-{name}", std::process::id()));
        std::fs::write(&path, file).unwrap();
        let frames = Capture::open(&path, |_| {}).map(Iterator::collect);
        std::fs::remove_file(path).unwrap();
        frames
    }

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let length = (12 + body.len() as u32).to_le_bytes();
        [&kind.to_le_bytes()[..], &length, body, &length].concat()
    }

    /// Returns a pcapng section with one interface and these options, up to its packets.
    fn section(options: &[u8]) -> Vec<u8> {
        let mut section = vec![0x4D, 0x3C, 0x2B, 0x1A, 1, 0, 0, 0];
        section.extend([0xFF; 8]);
        let interface = [&[1, 0, 0, 0, 0, 0, 0, 0], options].concat();
        [block(0x0A0D_0D0A, &section), block(1, &interface)].concat()
    }

    /// Returns an enhanced packet of four captured bytes and this original length.
    fn packet(ticks: u64, original_len: u32) -> Vec<u8> {
        let mut body = vec![0; 4];
        body.extend(((ticks >> 32) as u32).to_le_bytes());
        body.extend((ticks as u32).to_le_bytes());
        body.extend(4u32.to_le_bytes());
        body.extend(original_len.to_le_bytes());
        body.extend([9; 4]);
        block(6, &body)
    }

    #[test]
    fn pcapng_times_are_those_of_the_interface() {
        let second = 1_700_000_000u64;
        let ends = [0u8; 4];
        for (name, options, ticks, expected) in [
            ("default", vec![], second * 1_000_000, second),
            (
                "nano",
                [&[9, 0, 1, 0, 9, 0, 0, 0], &ends[..]].concat(),
                second * SECOND_NS as u64,
                second,
            ),
            ("binary", [&[9, 0, 1, 0, 0x94, 0, 0, 0], &ends[..]].concat(), second << 20, second),
            (
                "offset",
                [&[14, 0, 8, 0][..], &(-3600i64).to_le_bytes(), &ends].concat(),
                second * 1_000_000,
                second - 3600,
            ),
            (
                "before 1970",
                [&[14, 0, 8, 0][..], &i64::MIN.to_le_bytes(), &ends].concat(),
                second * 1_000_000,
                0,
            ),
        ] {
            let file = [section(&options), packet(ticks, 4)].concat();
            let frames = capture(&file, name).unwrap();
            assert_eq!(frames.len(), 1, "{name}");
            assert_eq!(frames[0].as_ref().unwrap().time, expected * SECOND_NS as u64, "{name}");
        }
    }

    #[test]
    fn obsolete_packet_block_has_its_time_in_either_byte_order() {
        let ticks = 1_700_000_000_123_456u64;
        let words = [(ticks >> 32) as u32, ticks as u32, 4, 4, 0x0909_0909];
        let section = [0x1A2B_3C4D, 0x0001_0000, u32::MAX, u32::MAX];
        for little in [true, false] {
            let word = |word: u32| if little { word.to_le_bytes() } else { word.to_be_bytes() };
            let block = |kind: u32, body: Vec<u8>| {
                let length = word(12 + body.len() as u32);
                [&word(kind)[..], &length, &body, &length].concat()
            };
            let half = |half: u16| if little { half.to_le_bytes() } else { half.to_be_bytes() };
            // The version is two halves.
            let mut head: Vec<u8> = section.into_iter().flat_map(word).collect();
            head[4..8].copy_from_slice(&[half(1), half(0)].concat());
            let interface = [half(1), half(0), [0; 2], [0; 2]].concat();
            let packet = [vec![0; 4], words.into_iter().flat_map(word).collect()].concat();
            let file = [block(0x0A0D_0D0A, head), block(1, interface), block(2, packet)].concat();
            let frames = capture(&file, &format!("obsolete-{little}")).unwrap();
            let frame = frames[0].as_ref().unwrap();
            assert_eq!((frame.time, &frame.bytes[..]), (ticks * 1000, &[9; 4][..]), "{little}");
        }
    }

    #[test]
    fn truncated_pcapng_returns_its_complete_frames() {
        let file = [section(&[]), packet(1, 4), packet(2, 100), packet(3, 4)].concat();
        for missing in [1, 4, 20, 35] {
            let frames = capture(&file[..file.len() - missing], "cut-ng").unwrap();
            assert_eq!(frames.len(), 3, "{missing}");
            let error = frames[2].as_ref().unwrap_err().to_string();
            assert_eq!(error, "is cut off after frame 2");
            let cut: Vec<_> = frames[..2].iter().map(|f| f.as_ref().unwrap().is_cut).collect();
            assert_eq!(cut, [false, true]);
        }
    }

    #[test]
    fn simple_packet_has_no_padding() {
        let file = [section(&[]), block(3, &[2, 0, 0, 0, 7, 7, 0, 0])].concat();
        let frames = capture(&file, "simple").unwrap();
        assert_eq!(frames[0].as_ref().unwrap().bytes, [7, 7]);
    }

    #[test]
    fn pcap_of_every_byte_order_and_resolution_is_read() {
        for (magic, expected) in
            [([0xA1, 0xB2, 0xC3, 0xD4], 1_000_002_000), ([0xA1, 0xB2, 0x3C, 0x4D], 1_000_000_002)]
        {
            for little in [false, true] {
                let field = |value: u32| {
                    if little { value.to_le_bytes() } else { value.to_be_bytes() }
                };
                let mut file = magic.to_vec();
                if little {
                    file.reverse();
                }
                for value in [0, 0, 0, 65_535, 1, 1, 2, 3, 3] {
                    file.extend(field(value));
                }
                file.extend([5; 3]);
                let frames = capture(&file, "kinds").unwrap();
                assert_eq!(frames.len(), 1);
                let frame = frames[0].as_ref().unwrap();
                assert_eq!((frame.time, &frame.bytes[..]), (expected, &[5; 3][..]));
                assert_eq!(
                    capture(&file[..23], "header").err().unwrap().to_string(),
                    "is cut off before its first frame"
                );
            }
        }
        let modified = capture(&[0x34, 0xCD, 0xB2, 0xA1, 2, 0, 4, 0], "modified").err().unwrap();
        let modified = modified.to_string();
        assert!(modified.contains("editcap"), "{modified}");
    }

    #[test]
    fn compressed_captures_are_read_in_all_their_parts() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/pcaps");
        let plain = std::fs::read(folder.join("ipfixprobe__sip.pcap")).unwrap();
        let expected = capture(&plain, "plain").unwrap().len();
        for program in ["gzip", "zstd", "xz"] {
            // Two parts, as from a rotated log that was put together.
            let file: Vec<u8> = plain
                .chunks(plain.len() / 2 + 1)
                .flat_map(|part| {
                    let mut child = std::process::Command::new(program)
                        .arg("-c")
                        .stdin(std::process::Stdio::piped())
                        .stdout(std::process::Stdio::piped())
                        .spawn()
                        .unwrap_or_else(|error| panic!("{program}: {error}"));
                    let mut input = child.stdin.take().unwrap();
                    let part = part.to_vec();
                    let writer =
                        std::thread::spawn(move || io::Write::write_all(&mut input, &part));
                    let output = child.wait_with_output().unwrap();
                    writer.join().unwrap().unwrap();
                    output.stdout
                })
                .collect();
            let frames = capture(&file, program).unwrap();
            assert_eq!(frames.len(), expected, "{program}");
            assert!(frames.iter().all(Result::is_ok), "{program}");
            let frames = capture(&file[..file.len() - 20], program).unwrap();
            assert!(frames.last().unwrap().is_err(), "{program}: a cut file is no end");
        }
    }

    #[test]
    fn ticks_become_nanoseconds() {
        assert_eq!(nanoseconds(1_500_000, 6), 1_500_000_000);
        assert_eq!(nanoseconds(1_500_000_000, 9), 1_500_000_000);
        assert_eq!(nanoseconds(1_500_000_000_000, 12), 1_500_000_000);
        assert_eq!(nanoseconds(3 << 19, 0x80 | 20), 1_500_000_000);
    }
}
