//! Describes the mode.

use crate::api::wire::Mode;
use crate::cli::output;

/// Describes the mode: `observe`, `enforce` or `enforce until …, then observe`.
#[must_use]
pub fn describe(mode: &Mode) -> String {
    match mode.until {
        None => mode.mode.clone(),
        Some(_) => format!("{} {}, then observe", mode.mode, output::until(mode.until, "")),
    }
}
