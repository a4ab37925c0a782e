//! The numbering plan of a country.

use filter_common::number::Digits;
use filter_common::plan::{Plan, Prefix};

use crate::model::plan::format::Format;
use crate::model::plan::lengths;
use crate::model::policy::set_international;

/// The plan of one country.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// ISO 3166-1 alpha-2.
    pub country: &'static str,
    /// Country code.
    pub code: &'static str,
    /// Trunk prefix; may be empty.
    pub trunk_prefix: &'static str,
    /// International prefixes; an `x` is any digit.
    pub international: &'static [&'static str],
    /// Lengths of national numbers, in the form of [`lengths`].
    pub lengths: &'static [&'static str],
    /// Whether national numbers may begin with 0.
    pub leading_zero: bool,
    /// The formats that carriers may send, as far as no text is then read in two ways.
    pub formats: &'static [Format],
    /// Numbers of at most this many digits are local.
    pub short_digits: u8,
}

impl Preset {
    /// Returns the plan. A test reads each entry of the table, so no text of it is refused.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let digits = |text| Digits::parse(text).unwrap_or(Digits::EMPTY);
        let mut plan = Plan {
            country: digits(self.code),
            trunk_prefix: digits(self.trunk_prefix),
            formats: Format::bits(self.formats),
            short_digits: self.short_digits,
            leading_zero: self.leading_zero.into(),
            ..Plan::default()
        };
        let _ = set_international(
            &mut plan,
            self.international.iter().filter_map(|text| Prefix::parse(text)).collect(),
        );
        for (index, text) in self.lengths.iter().enumerate() {
            let _ = lengths::add(&mut plan.no_lengths, text, index == 0);
        }
        plan
    }
}
