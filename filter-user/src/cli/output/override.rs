//! Describes the override.

use crate::api::wire::Override;
use crate::cli::output;

/// Describes the override: `on until …: reason (author)`, or `off`.
#[must_use]
pub fn describe(state: &Override) -> String {
    if state.until.is_none() {
        return "off".to_owned();
    }
    let mut text = format!("on {}", output::until(state.until, ""));
    if let Some(reason) = &state.reason {
        text += &format!(": {reason}");
    }
    if let Some(author) = &state.author {
        text += &format!(" ({author})");
    }
    text
}
