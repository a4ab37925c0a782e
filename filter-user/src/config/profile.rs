//! Common parts of a policy file and the daemon's configuration: ports, protected numbers, the profile
//! `default`, trunks, and errors with file, line and column.

use std::collections::HashMap;
use std::net::IpAddr;

use filter_common::abi::{MODE_ENFORCE, MODE_OBSERVE, Profile, TRUNKS_MAX};
use filter_common::number::{DIGITS_MAX, Digits};
use filter_common::plan::{
    FORMAT_BARE_NATIONAL, FORMAT_E164, FORMAT_NATIONAL, FORMAT_SUBSCRIBER, IDENTITY_FROM,
    IDENTITY_PAI, IDENTITY_PAI_ELSE_FROM, PREFIX_DIGITS_MAX,
};
use ipnet::IpNet;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::config::error::{Mistake, wrong};
use crate::model::number_text;
use crate::model::policy::{Policy, Subject, Trunk};

/// Longest country code (ITU-T E.164) and longest area code, in digits.
const COUNTRY_DIGITS_MAX: u32 = 3;
const AREA_DIGITS_MAX: u32 = 6;

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    Enforce,
    Observe,
}

impl Mode {
    pub(crate) fn number(self) -> u8 {
        match self {
            Mode::Enforce => MODE_ENFORCE,
            Mode::Observe => MODE_OBSERVE,
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    E164,
    National,
    BareNational,
    Subscriber,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Identity {
    From,
    Pai,
    PaiElseFrom,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProfileFields {
    pub(crate) country_code: Option<Spanned<String>>,
    pub(crate) trunk_prefix: Option<Spanned<String>>,
    pub(crate) international_prefixes: Option<Spanned<Vec<Spanned<String>>>>,
    pub(crate) formats: Option<Spanned<Vec<Format>>>,
    pub(crate) area_code: Option<Spanned<String>>,
    pub(crate) short_number_digits: Option<Spanned<u8>>,
    pub(crate) identity: Option<Identity>,
    pub(crate) mode: Option<Mode>,
}

/// [`ProfileFields`] with a name and sources. The fields are repeated, because `flatten` loses the
/// spans and the strictness.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrunkTable {
    pub(crate) name: Spanned<String>,
    pub(crate) sources: Spanned<Vec<Spanned<String>>>,
    pub(crate) country_code: Option<Spanned<String>>,
    pub(crate) trunk_prefix: Option<Spanned<String>>,
    pub(crate) international_prefixes: Option<Spanned<Vec<Spanned<String>>>>,
    pub(crate) formats: Option<Spanned<Vec<Format>>>,
    pub(crate) area_code: Option<Spanned<String>>,
    pub(crate) short_number_digits: Option<Spanned<u8>>,
    pub(crate) identity: Option<Identity>,
    pub(crate) mode: Option<Mode>,
    #[serde(default)]
    pub(crate) trusts_from: bool,
    #[serde(default)]
    pub(crate) emergency_marks: Option<Spanned<IgnoredAny>>,
}

/// A protected number or prefix: `"112"`, or a table with the name of its owner.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProtectedTable {
    pub(crate) number: String,
    pub(crate) name: String,
}

pub(crate) struct ProtectedEntry(pub(crate) ProtectedTable);

impl<'de> Deserialize<'de> for ProtectedEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ProtectedEntry, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = ProtectedEntry;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number or prefix, or { number = \"…\", name = \"…\" }")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ProtectedEntry, E> {
                Ok(ProtectedEntry(ProtectedTable { number: text.into(), name: String::new() }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ProtectedEntry, A::Error> {
                let table = ProtectedTable::deserialize(MapAccessDeserializer::new(map))?;
                if table.name.trim().is_empty() || table.name.contains(char::is_control) {
                    return Err(A::Error::custom(
                        "name: write the owner of the number, in one line",
                    ));
                }
                Ok(ProtectedEntry(table))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Shortest number and prefix that may be blocked.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShortestTable {
    pub(crate) shortest_number: Option<Spanned<u8>>,
    pub(crate) shortest_prefix: Option<Spanned<u8>>,
}

impl ShortestTable {
    /// Applies these to the settings; missing ones stay unchanged.
    pub(crate) fn apply(&self, policy: &mut Policy) -> Result<(), Mistake> {
        let settings = &mut policy.settings;
        for (digits, name, setting) in [
            (&self.shortest_number, "shortest_number", &mut settings.shortest_number),
            (&self.shortest_prefix, "shortest_prefix", &mut settings.shortest_prefix),
        ] {
            let Some(digits) = digits else { continue };
            *setting = *digits.get_ref();
            if u32::from(*setting) > DIGITS_MAX {
                return wrong(digits.span(), format!("{name}: 0 to {DIGITS_MAX}; 0: any length"));
            }
        }
        Ok(())
    }
}

pub(crate) fn ports(policy: &mut Policy, ports: Option<Spanned<Vec<u16>>>) -> Result<(), Mistake> {
    if let Some(ports) = ports {
        if ports.get_ref().is_empty() || ports.get_ref().contains(&0) {
            return wrong(ports.span(), "ports: list at least one; 0 is not allowed");
        }
        policy.ports = ports.into_inner();
    }
    Ok(())
}

/// Parses protected numbers under the plan of the profile `default`, which has to be read before.
pub(crate) fn protected(
    policy: &mut Policy,
    entries: &[Spanned<ProtectedEntry>],
) -> Result<(), Mistake> {
    for entry in entries {
        let ProtectedEntry(ProtectedTable { number, name }) = entry.get_ref();
        let subject = number_text::subject(number, &policy.trunks[0].profile.plan)
            .or_else(|error| wrong(entry.span(), error.to_string()))?;
        policy.protect_named(subject, name);
    }
    Ok(())
}

pub(crate) fn trunks(policy: &mut Policy, tables: Vec<TrunkTable>) -> Result<(), Mistake> {
    let mut sources = HashMap::new();
    for table in tables {
        let name = table.name.get_ref().clone();
        if name.is_empty() || policy.trunks.iter().any(|trunk| trunk.name == name) {
            let message = format!("trunk name {name:?} is empty or already used");
            return wrong(table.name.span(), message);
        }
        if policy.trunks.len() >= TRUNKS_MAX as usize {
            return wrong(table.name.span(), "too many trunks: the kernel program has room for 63");
        }
        let trusts_from = table.trusts_from;
        let mut trunk = Trunk { name, trusts_from, ..policy.trunks[0].clone() };
        if table.sources.get_ref().is_empty() {
            return wrong(table.sources.span(), "a trunk needs at least one source");
        }
        for source in table.sources.get_ref() {
            let (at, text) = (source.span(), source.get_ref());
            let net = text
                .parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .or_else(|_| {
                    wrong(at.clone(), format!("{text:?} is not an address or prefix (10.1.0.0/16)"))
                })?;
            let key = mapped(net);
            if let Some(other) = sources.insert(key, trunk.name.clone()) {
                return wrong(at, format!("{text} is already a source of trunk {other:?}"));
            }
            trunk.sources.push(key);
        }
        let fields = ProfileFields {
            country_code: table.country_code,
            trunk_prefix: table.trunk_prefix,
            international_prefixes: table.international_prefixes,
            formats: table.formats,
            area_code: table.area_code,
            short_number_digits: table.short_number_digits,
            identity: table.identity,
            mode: table.mode,
        };
        profile(&mut trunk.profile, &fields)?;
        if let Some(marks) = &table.emergency_marks {
            return wrong(marks.span(), EMERGENCY_MARKS.to_owned());
        }
        policy.trunks.push(trunk);
        policy.settings.trunks_configured = 1;
    }
    Ok(())
}

/// The error for the key `emergency_marks`, which earlier versions had.
const EMERGENCY_MARKS: &str = "emergency_marks: this key was removed, because anyone who can send \
     an INVITE could set such a mark; delete the line";

/// Converts an address prefix to the map's form: IPv4 mapped into IPv6.
fn mapped(net: IpNet) -> ([u8; 16], u32) {
    match net.trunc() {
        IpNet::V4(net) => (net.addr().to_ipv6_mapped().octets(), 96 + u32::from(net.prefix_len())),
        IpNet::V6(net) => (net.addr().octets(), u32::from(net.prefix_len())),
    }
}

pub(crate) fn profile(profile: &mut Profile, fields: &ProfileFields) -> Result<(), Mistake> {
    let plan = &mut profile.plan;
    if let Some(text) = &fields.country_code {
        plan.country = digits(text, 1, COUNTRY_DIGITS_MAX)?;
        if plan.country.to_string().starts_with('0') {
            return wrong(text.span(), "a country code does not start with 0");
        }
    }
    if let Some(text) = &fields.trunk_prefix {
        plan.trunk_prefix = digits(text, 0, PREFIX_DIGITS_MAX)?;
    }
    if let Some(text) = &fields.area_code {
        plan.area = digits(text, 1, AREA_DIGITS_MAX)?;
    }
    if let Some(list) = &fields.international_prefixes {
        let mut prefixes = Vec::new();
        for text in list.get_ref() {
            prefixes.push(digits(text, 1, PREFIX_DIGITS_MAX)?);
        }
        crate::model::policy::set_international(plan, prefixes)
            .or_else(|error| wrong(list.span(), error.to_string()))?;
    }
    if let Some(formats) = &fields.formats {
        if formats.get_ref().is_empty() {
            return wrong(formats.span(), "formats: list at least one");
        }
        plan.formats = formats.get_ref().iter().fold(0, |bits, format| {
            bits | match format {
                Format::E164 => FORMAT_E164,
                Format::National => FORMAT_NATIONAL,
                Format::BareNational => FORMAT_BARE_NATIONAL,
                Format::Subscriber => FORMAT_SUBSCRIBER,
            }
        });
        if plan.formats & FORMAT_SUBSCRIBER != 0 && plan.area.is_empty() {
            return wrong(formats.span(), "format \"subscriber\" needs an area_code");
        }
    }
    if let Some(count) = &fields.short_number_digits {
        plan.short_digits = *count.get_ref();
        if plan.short_digits > 14 {
            return wrong(count.span(), "short_number_digits: at most 14");
        }
    }
    if let Some(identity) = fields.identity {
        profile.identity = match identity {
            Identity::From => IDENTITY_FROM,
            Identity::Pai => IDENTITY_PAI,
            Identity::PaiElseFrom => IDENTITY_PAI_ELSE_FROM,
        };
    }
    if let Some(mode) = fields.mode {
        profile.mode = mode.number();
    }
    Ok(())
}

pub(crate) fn digits(text: &Spanned<String>, min: u32, max: u32) -> Result<Digits, Mistake> {
    match Digits::parse(text.get_ref()) {
        Some(digits) if (min..=max).contains(&digits.len()) => Ok(digits),
        _ => {
            let message = format!("{:?} must have {min} to {max} digits", text.get_ref());
            wrong(text.span(), message)
        }
    }
}

pub(crate) fn subject(policy: &Policy, text: &Spanned<String>) -> Result<Subject, Mistake> {
    number_text::subject(text.get_ref(), &policy.trunks[0].profile.plan)
        .or_else(|error| wrong(text.span(), error.to_string()))
}
