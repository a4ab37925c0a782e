//! Converts the bytes of maps and rings to values, and back.

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

/// An entry of a ring.
///
/// # Safety
/// Every pattern of its bytes must be a value.
pub unsafe trait Entry: Copy {}

// SAFETY: `repr(C)`, of integers only.
unsafe impl Entry for EventEntry {}
// SAFETY: `repr(C)`, of integers only.
unsafe impl Entry for Evidence {}

/// Removes at most `limit` entries from a ring and returns them.
pub fn drain<T: Entry>(ring: &mut RingBuf<MapData>, limit: usize) -> Result<Vec<T>, Error> {
    let mut entries = Vec::new();
    while entries.len() < limit
        && let Some(item) = ring.next()
    {
        entries.push(entry(&item).ok_or(Error::Event(item.len()))?);
    }
    Ok(entries)
}

/// Removes all entries from a ring and returns their number.
pub fn discard(ring: &mut RingBuf<MapData>) -> u64 {
    let mut count = 0;
    while ring.next().is_some() {
        count += 1;
    }
    count
}

/// Returns the entry in an item of a ring; `None` if the item is too short.
fn entry<T: Entry>(item: &[u8]) -> Option<T> {
    if item.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: the item has the bytes of an entry, and every pattern of them is valid.
    Some(unsafe { item.as_ptr().cast::<T>().read_unaligned() })
}
