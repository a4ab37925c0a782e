//! A step of the header automaton: the next state, and the field to note.

use super::class::CLASS_COUNT;
use crate::bytes::Bytes;
use crate::sip::fields::{Field, Fields};

/// The empty line was reached: everything is read.
pub const END: u8 = 0;
/// Not a SIP header section as far as the caller number is concerned.
pub const BAD: u8 = 1;
/// Where the automaton starts: at the first byte of the Request-URI.
pub const START: u8 = 2;
/// In the value of a header field that does not matter; after its CR; at the next line.
pub(super) const VALUE: u8 = 7;
pub(super) const VALUE_CR: u8 = 8;
pub(super) const VALUE_LINE: u8 = 9;

/// A step. The next state is in bits 5–12, where it is a row of the table. The form of a URI is in
/// bits 14–15, the field in bits 19–22. So each is extracted by one instruction.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Step(pub(super) u64);

impl Step {
    /// Makes a step to a state, with nothing to note.
    #[must_use]
    pub const fn at(state: u8) -> Step {
        Step(state as u64 * CLASS_COUNT as u64)
    }

    /// Packs a state (bits 0–7), a field (8–11) and a form (14–15) into an entry of the table.
    pub(super) const fn pack(next: u16) -> u32 {
        Step::at(next as u8).0 as u32 | (next & 0xC000) as u32 | ((next >> 8 & 0xF) as u32) << 19
    }

    /// Returns the state.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> u8 {
        (self.0 >> 5) as u8
    }

    /// Returns this step without its link to the table that it was read from.
    #[inline(always)]
    #[must_use]
    pub fn break_link<B: Bytes>(self, bytes: &B) -> Step {
        Step(bytes.break_link(self.0))
    }

    /// Notes the field at `offset`. A step without a field is noted in slot 0, which is never read.
    /// A branch instead would double the paths that the verifier walks.
    #[inline(always)]
    pub fn note(self, fields: &mut Fields, offset: usize) {
        let slot = (self.0 >> 19) as usize & 0xF;
        fields[slot].push(offset as u64 | self.0 & 0xC000);
    }
}

pub(super) const fn noted(state: u8, field: Field) -> u16 {
    state as u16 | (field as u16) << 8
}

pub(super) const fn noted_if(state: u8, field: Option<Field>) -> u16 {
    match field {
        Some(field) => noted(state, field),
        None => state as u16,
    }
}
