//! Shared by the tests of the kernel program: fixtures, packets, and the two gates side by side.

pub mod gates;
pub mod invites;
pub mod mutations;
pub mod packet;
pub mod planted;
pub mod reference;
pub mod seeds;
pub mod verifier;
