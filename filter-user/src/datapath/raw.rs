//! Bytes of maps and rings as values, and back.

#![expect(unsafe_code, reason = "maps and rings hold bytes, and the types of abi are all bytes")]

use aya::maps::{MapData, RingBuf};
use filter_common::abi::{EventEntry, Evidence};

use crate::datapath::error::Error;

/// A type of `filter_common::abi` in a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Raw<T>(pub T);

// SAFETY: only used with types of `filter_common::abi`, which are `repr(C)`, of integers
// only and without padding.
unsafe impl<T: Copy + 'static> aya::Pod for Raw<T> {}

/// What a ring holds.
///
/// # Safety
/// Every pattern of its bytes is a value.
pub unsafe trait Entry: Copy {}

// SAFETY: `repr(C)`, of integers only.
unsafe impl Entry for EventEntry {}
// SAFETY: `repr(C)`, of integers only.
unsafe impl Entry for Evidence {}

/// Takes at most `limit` entries out of a ring.
pub fn drain<T: Entry>(ring: &mut RingBuf<MapData>, limit: usize) -> Result<Vec<T>, Error> {
    let mut entries = Vec::new();
    while entries.len() < limit
        && let Some(item) = ring.next()
    {
        entries.push(entry(&item).ok_or(Error::Event(item.len()))?);
    }
    Ok(entries)
}

/// Takes everything out of a ring; how many events it was.
pub fn discard(ring: &mut RingBuf<MapData>) -> u64 {
    let mut count = 0;
    while ring.next().is_some() {
        count += 1;
    }
    count
}

/// The entry in an item of a ring; `None` when the item is too short.
fn entry<T: Entry>(item: &[u8]) -> Option<T> {
    if item.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: there are as many bytes as an entry has, of which every pattern is valid.
    Some(unsafe { item.as_ptr().cast::<T>().read_unaligned() })
}
