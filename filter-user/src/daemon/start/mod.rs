//! Prepares the process: log, privileges and socket.

pub(crate) mod logging;
pub(crate) mod privileges;
pub(crate) mod socket;
