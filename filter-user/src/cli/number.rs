//! A number or a prefix on the command line. The daemon knows the numbering plan and reads it.

/// Any text but none: the path of a request needs one.
///
/// # Errors
/// An empty text.
pub fn given(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() { Err("a number is wanted".into()) } else { Ok(text.to_owned()) }
}
