//! The identities that all legs of one attempt share, by name.

use filter_common::abi::{ATTEMPT_EMERGENCY, ATTEMPT_ICID, ATTEMPT_SESSION};
use filter_common::sip::attempt_identity;
use serde::{Deserialize, Serialize};

/// A name of an attempt, besides the Call-ID of each leg.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum AttemptIdentity {
    /// `urn:emergency:uid:callid:…` in `Call-Info` (NENA-STA-010.3).
    EmergencyCallId,
    /// The `icid-value` of `P-Charging-Vector` (RFC 7315).
    Icid,
    /// The local UUID of `Session-ID` (RFC 7989).
    SessionId,
}

impl AttemptIdentity {
    /// All of them, in the order in which they are looked for.
    pub const ALL: [AttemptIdentity; 3] =
        [AttemptIdentity::EmergencyCallId, AttemptIdentity::Icid, AttemptIdentity::SessionId];

    /// Returns the bit in [`Profile::attempt_identity`](filter_common::abi::Profile::attempt_identity).
    #[must_use]
    pub const fn bit(self) -> u8 {
        match self {
            AttemptIdentity::EmergencyCallId => ATTEMPT_EMERGENCY,
            AttemptIdentity::Icid => ATTEMPT_ICID,
            AttemptIdentity::SessionId => ATTEMPT_SESSION,
        }
    }

    /// Returns those of these bits.
    pub fn of_bits(bits: u8) -> impl Iterator<Item = AttemptIdentity> {
        AttemptIdentity::ALL.into_iter().filter(move |identity| bits & identity.bit() != 0)
    }

    /// Returns the name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            AttemptIdentity::EmergencyCallId => "emergency-call-id",
            AttemptIdentity::Icid => "icid",
            AttemptIdentity::SessionId => "session-id",
        }
    }
}

/// Returns the names of these bits: `icid, session-id`.
#[must_use]
pub fn names(bits: u8) -> String {
    AttemptIdentity::of_bits(bits).map(AttemptIdentity::name).collect::<Vec<_>>().join(", ")
}

/// Returns the name and the hash of an identity that the gate has read: `icid 1f3c90aa`. Equal identities have equal hashes.
/// `None`: none was read.
#[must_use]
pub fn shown(identity: u32) -> Option<String> {
    let kind = AttemptIdentity::of_bits(attempt_identity::kind(identity)).next()?;
    Some(format!("{} {identity:08x}", kind.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_shown_with_its_name() {
        for (identity, expected) in [
            (0, None),
            (0x1234_5671, Some("emergency-call-id 12345671")),
            (0x0000_0002, Some("icid 00000002")),
            (0xFFFF_FFFF, Some("session-id ffffffff")),
        ] {
            assert_eq!(shown(identity).as_deref(), expected);
        }
        assert_eq!(names(ATTEMPT_ICID | ATTEMPT_SESSION), "icid, session-id");
    }
}
