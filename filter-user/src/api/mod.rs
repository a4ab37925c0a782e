//! The contract of the control API: its types and its client.

pub mod client;
pub mod udp_payload;
pub mod wire;
