//! How long the words may be that people give: every way in is bounded, so what the store, an import
//! and an answer take is bounded, too.

/// Longest reason, comment or note, in bytes.
pub const TEXT_MAX: usize = 1000;
/// Longest name of an author or of an origin, in bytes.
pub const NAME_MAX: usize = 256;
/// Longest name of an incident, in bytes.
const INCIDENT_MAX: usize = 100;

/// Checks a reason, comment or note.
///
/// # Errors
/// It is longer than [`TEXT_MAX`]; in words that begin with the field.
pub fn text(field: &str, text: &str) -> Result<(), String> {
    bounded(field, text, TEXT_MAX)
}

/// Checks the name of an author or of an origin.
///
/// # Errors
/// It is longer than [`NAME_MAX`]; in words that begin with the field.
pub fn name(field: &str, text: &str) -> Result<(), String> {
    bounded(field, text, NAME_MAX)
}

fn bounded(field: &str, text: &str, longest: usize) -> Result<(), String> {
    if text.len() <= longest {
        return Ok(());
    }
    Err(format!("{field}: {} bytes, and at most {longest} are kept: say it shorter", text.len()))
}

/// The name of an incident as it is kept: without white space at its ends.
///
/// # Errors
/// It is empty, longer than 100 bytes, or on more than one line.
pub fn incident(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.len() > INCIDENT_MAX || text.contains(char::is_control) {
        return Err(format!("an incident is named in 1 to {INCIDENT_MAX} bytes, on one line"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_in_bytes_and_named() {
        assert_eq!(text("reason", &"x".repeat(TEXT_MAX)), Ok(()));
        let told = text("reason", &"é".repeat(TEXT_MAX / 2 + 1)).unwrap_err();
        assert!(told.starts_with("reason: 1002 bytes"), "{told}");
        assert_eq!(name("author", &"x".repeat(NAME_MAX)), Ok(()));
        name("author", &"x".repeat(NAME_MAX + 1)).unwrap_err();
    }

    #[test]
    fn an_incident_has_a_name_on_one_line() {
        assert_eq!(incident(" 2026-118 "), Ok("2026-118".to_owned()));
        for odd in ["", "  ", "a\nb", &"x".repeat(INCIDENT_MAX + 1)] {
            incident(odd).unwrap_err();
        }
    }
}
