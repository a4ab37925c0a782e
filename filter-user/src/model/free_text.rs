//! Limits the length of texts that people write. Every input is limited, so the sizes of the store, of
//! an import and of an answer are limited, too.

/// Longest reason, comment or note, in bytes.
pub const TEXT_MAX: usize = 1000;
/// Longest name of an author or of an origin, in bytes.
pub const NAME_MAX: usize = 256;
/// Longest name of an incident, in bytes.
const INCIDENT_MAX: usize = 100;

/// Reasons why a text is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A text that is too long.
    #[error("{field}: {length} bytes, and at most {longest} are kept: make it shorter")]
    TooLong {
        /// Name of the field.
        field: String,
        /// Its length in bytes.
        length: usize,
        /// Greatest length in bytes.
        longest: usize,
    },
    /// A name of an incident that is empty, too long, or on several lines.
    #[error("the name of an incident has 1 to {INCIDENT_MAX} bytes, on one line")]
    Incident,
}

/// Checks a reason, comment or note.
///
/// # Errors
/// [`TextError::TooLong`] if it is longer than [`TEXT_MAX`].
pub fn text(field: &str, text: &str) -> Result<(), TextError> {
    bounded(field, text, TEXT_MAX)
}

/// Checks the name of an author or of an origin.
///
/// # Errors
/// [`TextError::TooLong`] if it is longer than [`NAME_MAX`].
pub fn name(field: &str, text: &str) -> Result<(), TextError> {
    bounded(field, text, NAME_MAX)
}

fn bounded(field: &str, text: &str, longest: usize) -> Result<(), TextError> {
    if text.len() <= longest {
        return Ok(());
    }
    Err(TextError::TooLong { field: field.to_owned(), length: text.len(), longest })
}

/// Returns the name of an incident without white space at its ends.
///
/// # Errors
/// [`TextError::Incident`] if it is empty, longer than 100 bytes, or on more than one line.
pub fn incident(text: &str) -> Result<String, TextError> {
    let text = text.trim();
    if text.is_empty() || text.len() > INCIDENT_MAX || text.contains(char::is_control) {
        return Err(TextError::Incident);
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_longer_than_its_limit_in_bytes_is_refused() {
        assert_eq!(text("reason", &"x".repeat(TEXT_MAX)), Ok(()));
        let error = text("reason", &"é".repeat(TEXT_MAX / 2 + 1)).unwrap_err().to_string();
        assert!(error.starts_with("reason: 1002 bytes"), "{error}");
        assert_eq!(name("author", &"x".repeat(NAME_MAX)), Ok(()));
        name("author", &"x".repeat(NAME_MAX + 1)).unwrap_err();
    }

    #[test]
    fn incident_without_a_name_on_one_line_is_refused() {
        assert_eq!(incident(" 2026-118 "), Ok("2026-118".to_owned()));
        for odd in ["", "  ", "a\nb", &"x".repeat(INCIDENT_MAX + 1)] {
            incident(odd).unwrap_err();
        }
    }
}
