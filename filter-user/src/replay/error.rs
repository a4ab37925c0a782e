//! Errors of reading and judging captures.

use crate::datapath;
use crate::replay::{capture, link};

/// Reasons why a capture was not judged to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The capture is not readable.
    #[error(transparent)]
    Capture(#[from] capture::Error),
    /// A frame has a link type that is not supported.
    #[error("frame {frame}: {source}")]
    Link {
        /// Number of the frame.
        frame: u64,
        /// The link type.
        source: link::UnsupportedLink,
    },
    /// The kernel returned an error.
    #[error(transparent)]
    Kernel(#[from] datapath::Error),
    /// The output cannot be written; it may have been closed.
    #[error("cannot write the output: {0}")]
    Output(#[source] std::io::Error),
}
