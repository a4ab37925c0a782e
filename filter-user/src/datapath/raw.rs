//! Bytes of maps and rings as values, and back.

use filter_common::abi::EventEntry;

/// A type of `filter_common::abi` in a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Raw<T>(pub T);

// SAFETY: only used with types of `filter_common::abi`, which are `repr(C)`, of integers
// only and without padding.
unsafe impl<T: Copy + 'static> aya::Pod for Raw<T> {}

/// The event in an item of a ring; `None` when the item is too short.
pub fn event(item: &[u8]) -> Option<EventEntry> {
    if item.len() < size_of::<EventEntry>() {
        return None;
    }
    // SAFETY: there are as many bytes as an entry has, of which every pattern is valid.
    Some(unsafe { item.as_ptr().cast::<EventEntry>().read_unaligned() })
}
