//! Reads a file line by line, and knows the line.

use std::cell::Cell;
use std::io::{self, BufRead, Read};

/// Counts the lines that a reader has passed.
#[derive(Default)]
pub(super) struct Place {
    /// Line ends that were passed.
    pub(super) ends: Cell<u64>,
    /// Whether a line was started and not finished.
    within: Cell<bool>,
}

impl Place {
    /// Returns the line of the last byte read, from 1.
    pub(super) fn line(&self) -> u64 {
        self.ends.get() + u64::from(self.within.get())
    }
}

/// Returns one line per read, so that a buffering reader never runs past the end of a line.
pub(super) struct Lines<'a, R> {
    pub(super) reader: R,
    pub(super) place: &'a Place,
}

impl<R: BufRead> Read for Lines<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.reader.fill_buf()?;
        let bytes = &bytes[..bytes.len().min(buffer.len())];
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(bytes.len(), |end| end + 1);
        buffer[..length].copy_from_slice(&bytes[..length]);
        self.reader.consume(length);
        if let Some(last) = buffer[..length].last() {
            self.place.within.set(*last != b'\n');
            self.place.ends.set(self.place.ends.get() + u64::from(*last == b'\n'));
        }
        Ok(length)
    }
}
