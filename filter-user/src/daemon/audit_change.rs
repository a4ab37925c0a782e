//! Remembers that another program changed the audit.

use std::sync::{Mutex, PoisonError};

/// The fault of the audit, as far as it is known.
#[derive(Debug, Default)]
pub struct AuditChange(Mutex<Option<String>>);

impl AuditChange {
    /// Returns the finding for the status.
    #[must_use]
    pub fn finding(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes a fault; the first one stays, because later ones follow from it.
    pub(crate) fn note(&self, problem: String) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            tracing::error!(%problem, "the audit was changed");
            *known = Some(format!(
                "the audit was changed by another program: {problem}. Keep a copy of the store for the auditor. Compare it \
                 with the heads in the journal: `palang audit verify --head NUMBER:HASH`"
            ));
        }
    }
}
