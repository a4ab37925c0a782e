//! A number or a prefix on the command line. The daemon parses it: it has the numbering plan.

/// Returns the trimmed text: the path of a request needs a non-empty part.
///
/// # Errors
/// Returns a message if the text is empty.
pub fn given(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        Err("the number is empty: write it like 0812-3456-7890".into())
    } else {
        Ok(text.to_owned())
    }
}
