//! Why a configuration, a policy file or a ladder is refused.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Why a file is refused. Nothing of a refused file is used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}{hint}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The answer of the system.
        source: io::Error,
        /// Further help, with a separator in front; usually empty.
        hint: &'static str,
    },
    /// The file has a mistake.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line of the mistake, from 1.
        line: usize,
        /// Column of the mistake in characters, from 1.
        column: usize,
        /// The mistake.
        message: String,
    },
    /// An option of the command line has a mistake.
    #[error("{0}")]
    Argument(String),
}

impl ConfigError {
    /// Creates the error of a file that cannot be read.
    pub(crate) fn unreadable(path: &Path, source: io::Error) -> ConfigError {
        ConfigError::Unreadable { path: path.to_owned(), source, hint: "" }
    }
}

/// A mistake at a position in the text of a file; without one if the command line caused it.
#[derive(Debug)]
pub(crate) struct Mistake {
    pub(crate) at: Option<Range<usize>>,
    pub(crate) message: String,
}

impl Mistake {
    /// Names the file, line and column of the mistake.
    pub(crate) fn in_file(self, path: &Path, text: &str) -> ConfigError {
        let Mistake { at, message } = self;
        let Some(at) = at else {
            return ConfigError::Argument(message);
        };
        let before = text.get(..at.start).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        ConfigError::Invalid { path: path.to_owned(), line, column, message }
    }
}

/// Returns the error of a mistake at a position.
pub(crate) fn wrong<T>(at: Range<usize>, message: impl ToString) -> Result<T, Mistake> {
    Err(Mistake { at: Some(at), message: message.to_string() })
}

/// Parses TOML.
///
/// # Errors
/// Returns the first mistake: of syntax, or a key or value that the file may not have.
pub(crate) fn toml<T: DeserializeOwned>(text: &str) -> Result<T, Mistake> {
    toml::from_str(text).map_err(|error| Mistake {
        at: Some(error.span().unwrap_or(0..0)),
        message: error.message().to_owned(),
    })
}
