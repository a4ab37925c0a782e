//! Formats and identities that an option names.

use crate::model::plan::format::Format;
use crate::model::plan::identity::Identity;

/// Parses the name of a format.
///
/// # Errors
/// Returns the mistake.
pub(crate) fn format(text: &str) -> Result<Format, String> {
    Format::ALL.into_iter().find(|format| format.name() == text).ok_or_else(|| {
        format!("{text:?} is no format: write {}", Format::ALL.map(Format::name).join(", "))
    })
}

/// Parses the name of an identity.
///
/// # Errors
/// Returns the mistake.
pub(crate) fn identity(text: &str) -> Result<Identity, String> {
    Identity::ALL.into_iter().find(|identity| identity.name() == text).ok_or_else(|| {
        format!("{text:?} is no identity: write {}", Identity::ALL.map(Identity::name).join(", "))
    })
}
