//! The modes in which the filter is attached to an interface.

use serde::{Deserialize, Serialize};

/// How the filter is attached to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum XdpMode {
    /// In the driver, or not at all.
    #[default]
    Native,
    /// In the kernel's core: on every interface, but slower.
    Generic,
    /// In the driver if it supports that, otherwise in the core.
    NativeOrGeneric,
}

impl XdpMode {
    /// Returns the name in configurations and the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
            XdpMode::NativeOrGeneric => "native-or-generic",
        }
    }
}
