//! The formats in which a trunk sends numbers, by name.

use filter_common::plan::{
    FORMAT_BARE_NATIONAL, FORMAT_E164, FORMAT_NATIONAL, FORMAT_OWN_E164, FORMAT_SUBSCRIBER,
};
use serde::{Deserialize, Serialize};

/// A format of numbers without `+`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Country code and number, of any country.
    E164,
    /// Country code and number, of the plan's country only.
    OwnE164,
    /// Trunk prefix and national number.
    National,
    /// National number alone.
    BareNational,
    /// Subscriber number of the plan's area.
    Subscriber,
}

impl Format {
    /// All formats, in the order in which they are printed.
    pub const ALL: [Format; 5] =
        [Format::E164, Format::OwnE164, Format::National, Format::BareNational, Format::Subscriber];

    /// Returns the bit in [`Plan::formats`](filter_common::plan::Plan::formats).
    #[must_use]
    pub const fn bit(self) -> u8 {
        match self {
            Format::E164 => FORMAT_E164,
            Format::OwnE164 => FORMAT_OWN_E164,
            Format::National => FORMAT_NATIONAL,
            Format::BareNational => FORMAT_BARE_NATIONAL,
            Format::Subscriber => FORMAT_SUBSCRIBER,
        }
    }

    /// Returns the bits of several formats.
    #[must_use]
    pub fn bits(formats: &[Format]) -> u8 {
        formats.iter().fold(0, |bits, format| bits | format.bit())
    }

    /// Returns the formats of these bits.
    pub fn of_bits(bits: u8) -> impl Iterator<Item = Format> {
        Format::ALL.into_iter().filter(move |format| bits & format.bit() != 0)
    }

    /// Returns the line of the configuration that names these formats.
    #[must_use]
    pub fn setting(bits: u8) -> String {
        let names: Vec<_> = Format::of_bits(bits).map(Format::name).collect();
        format!("formats = {names:?}")
    }

    /// Returns the name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Format::E164 => "e164",
            Format::OwnE164 => "own-e164",
            Format::National => "national",
            Format::BareNational => "bare-national",
            Format::Subscriber => "subscriber",
        }
    }
}
