//! The header fields that can name the caller on a trunk, by name.

use filter_common::plan::{IDENTITY_FROM, IDENTITY_PAI, IDENTITY_PAI_ELSE_FROM};
use serde::{Deserialize, Serialize};

/// Which header field names the caller.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// `From`.
    From,
    /// `P-Asserted-Identity` (RFC 3325); a call without it passes.
    Pai,
    /// `P-Asserted-Identity`, and `From` where it is missing.
    PaiElseFrom,
}

impl Identity {
    /// All of them, in the order in which they are printed.
    pub const ALL: [Identity; 3] = [Identity::From, Identity::Pai, Identity::PaiElseFrom];

    /// Returns the value in [`Profile::identity`](filter_common::abi::Profile::identity).
    #[must_use]
    pub const fn value(self) -> u8 {
        match self {
            Identity::From => IDENTITY_FROM,
            Identity::Pai => IDENTITY_PAI,
            Identity::PaiElseFrom => IDENTITY_PAI_ELSE_FROM,
        }
    }

    /// Returns the identity with this value. The kernel takes an unknown one for the last.
    #[must_use]
    pub fn of_value(value: u8) -> Identity {
        let found = Identity::ALL.into_iter().find(|identity| identity.value() == value);
        found.unwrap_or(Identity::PaiElseFrom)
    }

    /// Returns the name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Identity::From => "from",
            Identity::Pai => "pai",
            Identity::PaiElseFrom => "pai-else-from",
        }
    }
}
