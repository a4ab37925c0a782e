//! TODO-DOC

pub mod client;
pub mod udp_payload;
pub mod wire;
