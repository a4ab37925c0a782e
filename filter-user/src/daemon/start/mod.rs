//! TODO-DOC

pub(crate) mod logging;
pub(crate) mod privileges;
pub(crate) mod socket;
