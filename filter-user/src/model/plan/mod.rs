//! Numbering plans as people write them: formats, lengths, and a preset for each country.

pub mod asserted;
pub mod example;
pub mod explain;
pub mod format;
pub mod identity;
pub mod lengths;
#[cfg(test)]
mod library;
pub mod preset;
pub mod presets;
mod table;
