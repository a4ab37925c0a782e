//! Bytes of maps and rings as values, and back.

use aya::maps::{MapData, RingBuf};
use filter_common::abi::EventEntry;

use super::error::Error;

/// A type of `filter_common::abi` in a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Raw<T>(pub T);

// SAFETY: only used with types of `filter_common::abi`, which are `repr(C)`, of integers
// only and without padding.
unsafe impl<T: Copy + 'static> aya::Pod for Raw<T> {}

/// Takes at most `limit` events out of a ring.
pub fn drain(ring: &mut RingBuf<MapData>, limit: usize) -> Result<Vec<EventEntry>, Error> {
    let mut events = Vec::new();
    while events.len() < limit
        && let Some(item) = ring.next()
    {
        events.push(event(&item).ok_or(Error::Event(item.len()))?);
    }
    Ok(events)
}

/// Takes everything out of a ring; how many events it was.
pub fn discard(ring: &mut RingBuf<MapData>) -> u64 {
    let mut count = 0;
    while ring.next().is_some() {
        count += 1;
    }
    count
}

/// The event in an item of a ring; `None` when the item is too short.
fn event(item: &[u8]) -> Option<EventEntry> {
    if item.len() < size_of::<EventEntry>() {
        return None;
    }
    // SAFETY: there are as many bytes as an entry has, of which every pattern is valid.
    Some(unsafe { item.as_ptr().cast::<EventEntry>().read_unaligned() })
}
