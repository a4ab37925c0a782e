//! The walk over a request: copies the header fields that a reply repeats, and leaves gaps in them.
//!
//! Nothing here branches on a byte, so the kernel's verifier walks each byte once. A byte is always
//! written; whether the next one overwrites it is arithmetic.

use super::outer::ROOM;
use super::steps::{FIELD_COUNT, Field, GAP_COUNT, Gap, Step};
use crate::bytes::{Bytes, OFFSET_MAX};
use crate::sip::fields::FieldOffsets;

/// Bytes from the Request-URI on that are read: all that an Ethernet frame of 1,500 bytes can hold.
pub const WALK_MAX: usize = 1472;

/// Returns the number of bytes that are read for a reply in this room.
const fn longest(room: usize) -> usize {
    if room == ROOM { WALK_MAX } else { OFFSET_MAX }
}

/// Work on one request. All of it is zero before [`Walk::begin`]. Too much for the kernel's stack: the
/// kernel program has it in a map.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Walk {
    /// Where the next byte is written.
    pub at: usize,
    /// Where the copy of the present header field begins.
    line: usize,
    /// Lengths of the gaps, by [`Gap`].
    gaps: [usize; GAP_COUNT],
    /// Where each gap begins in the reply; 0: it has none.
    starts: [usize; GAP_COUNT],
    /// The offsets of each [`Field`] in the request, counted from the Request-URI.
    fields: [FieldOffsets; FIELD_COUNT],
    /// Bits of [`Gap`] and of [`Field`] that are still open: those of the topmost `Via` close.
    open_gaps: usize,
    open_fields: usize,
}

impl Walk {
    /// Begins a walk that writes from `at` on, and leaves gaps of these lengths.
    #[inline(always)]
    pub fn begin(&mut self, at: usize, rport: usize, received: usize, tag: usize) {
        self.at = at;
        self.line = at;
        self.gaps[Gap::Rport as usize] = rport;
        self.gaps[Gap::RportEnd as usize] = rport;
        self.gaps[Gap::ViaEnd as usize] = received;
        self.gaps[Gap::To as usize] = tag;
        self.open_gaps = GAP_COUNT - 1;
        self.open_fields = FIELD_COUNT - 1;
    }

    /// Walks from the Request-URI at `start` to the empty line, `len` bytes at most. Returns whether it was
    /// reached.
    #[inline(never)]
    pub fn run<B: Bytes, const SIZE: usize>(
        &mut self,
        bytes: &B,
        start: usize,
        len: usize,
        reply: &mut [u8; SIZE],
    ) -> bool {
        let (start, len) = (bytes.hide_range(start), bytes.hide_range(len));
        let mut step = Step::START;
        let mut offset = 0;
        // Eight bytes a look: one bounds check for the verifier and the processor.
        while offset < const { longest(SIZE) } && offset + 8 <= len {
            let Some(word) = bytes.word(start + offset) else {
                break;
            };
            macro_rules! steps {
                ($($k:literal)*) => {
                    $(step = self.step(bytes, step, (word >> (8 * $k)) as u8, offset + $k, reply);)*
                };
            }
            // Not a loop: LLVM would keep one, and the verifier would follow it.
            steps!(0 1 2 3 4 5 6 7);
            offset += 8;
            if step.is_over() {
                return step.is_end();
            }
        }
        let (mut offset, len) = (bytes.hide_range(offset), bytes.hide_range(len));
        let mut rest = 0;
        while rest < 8 && offset < len {
            let Some(byte) = bytes.byte(start + offset) else {
                break;
            };
            step = self.step(bytes, step, byte, offset, reply);
            offset += 1;
            rest += 1;
        }
        step.is_end()
    }

    /// Takes the step of one byte.
    #[inline(always)]
    fn step<B: Bytes, const SIZE: usize>(
        &mut self,
        bytes: &B,
        step: Step,
        byte: u8,
        offset: usize,
        reply: &mut [u8; SIZE],
    ) -> Step {
        let step = step.next(byte);
        // Pinned, because LLVM makes a branch of a number that it knows to be 0 or 1. Factors and not masks,
        // because the verifier of Linux 6.18 follows both values of a number that it knows to be 0 or -1.
        let bit = |bit: u64| bytes.pinned(bit) as usize;

        let gap = step.gap() & self.open_gaps;
        self.starts[gap] = self.at;
        let mut at = self.at + self.gaps[gap];
        // The first `rport` or the end of the topmost value closes all gaps of a `Via`, and the end closes the
        // fields of that value.
        self.open_gaps &= !(bit(step.is_in_via()) * Gap::RportEnd as usize);
        self.fields[step.field() & self.open_fields].push(offset as u64);
        self.open_fields &= !(bit(step.ends_via()) * Field::Port as usize);

        let moved = at.wrapping_sub(self.line);
        self.line += moved.wrapping_mul(bit(step.begins_line()));
        reply[at & (SIZE - 1)] = byte;
        at += step.copies() as usize;
        let copied = at.wrapping_sub(self.line);
        self.at = at - copied.wrapping_mul(bit(step.undoes()));
        step
    }

    /// Returns where a gap begins in the reply; `None`: the reply has no such gap.
    #[inline(always)]
    #[must_use]
    pub const fn gap(&self, gap: Gap) -> Option<usize> {
        match self.starts[gap as usize] {
            0 => None,
            start => Some(start),
        }
    }

    /// Returns the offsets of a field.
    #[inline(always)]
    #[must_use]
    pub const fn field(&self, field: Field) -> FieldOffsets {
        self.fields[field as usize]
    }
}
