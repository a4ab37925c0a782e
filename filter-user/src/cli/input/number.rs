//! A number or a prefix on the command line. The daemon parses it: it has the numbering plan.

use crate::cli::input::error::InputError;

/// Returns the trimmed text: the path of a request needs a non-empty part.
///
/// # Errors
/// `EmptyNumber` if the text is empty.
pub fn given(text: &str) -> Result<String, InputError> {
    let text = text.trim();
    if text.is_empty() { Err(InputError::EmptyNumber) } else { Ok(text.to_owned()) }
}
