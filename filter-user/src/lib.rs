//! Palang, the caller gate for emergency call centres: everything but the command line.

pub mod datapath;
pub mod host;
pub mod object;
pub mod policy;
