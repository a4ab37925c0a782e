//! The carrier in front of the gate, and the SIP server of the centre: real programs, and the calls through them.

mod asterisk;
mod call;
mod files;
mod gate;
mod kamailio;
mod server;

pub use asterisk::{Asterisk, Dialled};
pub use call::{Call, Outcome, calls_beside_pranks};
pub use files::Files;
pub use gate::{BLOCKED, gate};
pub use kamailio::{Dead, Kamailio};
pub use server::Server;
