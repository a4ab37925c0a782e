//! Reading SIP (RFC 3261): from the bytes of a datagram to caller numbers.
//!
//! Two automata read a message, each a pair of constant tables that a `const fn` makes.
//! [`headers`] walks from the Request-URI to the empty line and notes where fields
//! are. [`uri`] walks one URI and takes its digits. A branchy scanner would not
//! pass the kernel's verifier; a table look-up leaves it one path (`notes` in
//! ARCHITECTURE.md).

pub mod attempt_identity;
pub(crate) mod automaton;
pub mod fast;
pub mod fields;
pub mod headers;
pub mod message;
mod swar;
pub mod uri;
