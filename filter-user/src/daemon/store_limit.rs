//! Holds the limit of the store's size, and reports a store that is nearly full.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::Size;

/// Percentage of the limit above which the status warns.
const NEARLY: u64 = 80;
/// The limit in force.
#[derive(Debug, Default)]
pub struct StoreLimit(AtomicU64);

impl StoreLimit {
    /// Returns the limit in bytes; 0: not known yet.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Puts another limit in force, in bytes.
    pub fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// Returns the finding for the status, if a store of this size is nearly full.
    #[must_use]
    pub fn finding(&self, size: Size) -> Option<String> {
        let limit = self.bytes();
        let percent = size.used.saturating_mul(100).checked_div(limit)?;
        (percent >= NEARLY).then(|| {
            format!(
                "the store takes {percent} % of [retention] max_bytes ({} of {} MiB): at 100 % the \
                 oldest call records go before their time",
                size.used >> 20,
                limit >> 20
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn store_that_is_nearly_full_is_a_finding() {
        let limit = StoreLimit(AtomicU64::new(GIB));
        let full = limit.finding(Size { used: GIB, free: 0 }).unwrap();
        assert!(full.contains("100 % of [retention] max_bytes (1024 of 1024 MiB)"), "{full}");
        let of = |used| limit.finding(Size { used, free: GIB });
        assert_eq!(of(GIB / 100 * 79), None);
        assert!(of(GIB / 100 * 81).is_some());
        assert_eq!(
            StoreLimit::default().finding(Size { used: GIB, free: 0 }),
            None,
            "not known yet"
        );
    }
}
