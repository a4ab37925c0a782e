//! Remembers whether the kernel's maps keep their entries, because the store is not their own.
//!
//! The daemon holds the maps until a person decides whether the maps or the store are right: see
//! [`crate::daemon::adoption`].

use std::sync::{Mutex, PoisonError};

/// Whether the maps keep their entries, because the store is not their own.
#[derive(Debug, Default)]
pub struct MapHold {
    why: Mutex<Option<String>>,
    pub(crate) deciding: tokio::sync::Mutex<()>,
}

impl MapHold {
    /// Returns why the maps keep their entries; `None`: they follow the store.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns whether the maps keep their entries.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(crate) fn set(&self, why: Option<String>) {
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Returns the finding for the status.
    #[must_use]
    pub fn finding(&self) -> Option<String> {
        let why = self.why()?;
        Some(format!(
            "the kernel's maps were not written from this store, and keep their entries: {why}. \
             Decide: `palang store adopt --from-maps` stores the entries of the maps. \
             `palang store restore BACKUP --replace`, with the daemon stopped, or \
             `palang store adopt --from-store` let the maps follow a store"
        ))
    }
}
