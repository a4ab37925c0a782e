//! Parses what a user writes on the command line: numbers, times, options that several commands share.

pub(crate) mod agreement;
pub(crate) mod country;
pub(crate) mod error;
pub(crate) mod number;
pub(crate) mod options;
pub(crate) mod plan;
pub(crate) mod time;
pub(crate) mod trunk;
