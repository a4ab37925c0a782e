//! TODO-DOC

use serde::de::DeserializeOwned;
use std::ops::Range;
use std::path::Path;

/// An error, at a position in the file unless the command line caused it.
pub(crate) struct ConfigError {
    pub(crate) at: Option<Range<usize>>,
    pub(crate) message: String,
}

impl ConfigError {
    /// Formats the error as `file:line:column: reason`.
    pub(crate) fn told(self, path: &Path, text: &str) -> String {
        let Some(at) = self.at else {
            return self.message;
        };
        let before = text.get(..at.start).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        format!("{}:{line}:{column}: {}", path.display(), self.message)
    }
}

pub(crate) fn wrong<T>(at: Range<usize>, message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError { at: Some(at), message: message.into() })
}

/// Parses TOML.
pub(crate) fn toml<T: DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError {
        at: Some(error.span().unwrap_or(0..0)),
        message: error.message().to_owned(),
    })
}
