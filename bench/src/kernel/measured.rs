//! Results of all measurements.

use super::cases::Case;
use super::programs::Loaded;
use super::replies;
use super::second_look::Row;

/// Results for a list of one size.
pub struct Size {
    /// Number of blocked numbers.
    pub numbers: u32,
    /// Drawing a frame, innocent callers, blocked callers.
    pub cases: [Case; 3],
    /// Memory of each map in bytes, the largest first.
    pub memory: Vec<(String, u64)>,
}

/// All results.
pub struct Measured {
    /// The programs side by side.
    pub programs: Vec<Case>,
    /// Size and verifier cost of each program.
    pub loaded: Vec<(&'static str, Loaded)>,
    /// Cost of each verdict.
    pub verdicts: Vec<Case>,
    /// Cases that are subtracted from the verdicts.
    pub bases: [Case; 3],
    /// The second look.
    pub second_look: Vec<Row>,
    /// A reply beside a drop.
    pub replies: Vec<replies::Row>,
    /// Results per size of the list.
    pub sizes: Vec<Size>,
    /// Sizes for which there was not enough memory.
    pub left_out: Vec<u32>,
}
