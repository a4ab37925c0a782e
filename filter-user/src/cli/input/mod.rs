//! TODO-DOC

pub(crate) mod number;
pub(crate) mod time;
