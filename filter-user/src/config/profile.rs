//! Common parts of a policy file and the daemon's configuration: ports, protected numbers, the profile
//! `default`, trunks, and errors with file, line and column.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use filter_common::abi::{MODE_ENFORCE, MODE_OBSERVE, TRUNKS_MAX};
use filter_common::number::{DIGITS_MAX, Digits};
use filter_common::plan::{
    CONTEXTS_MAX, FORMAT_SUBSCRIBER, MCC_MAX, NamedContext, PREFIX_DIGITS_MAX, Plan, Prefix,
    STRIP_DIGITS_MAX, STRIP_MAX, TRUNK_PREFIX_DIGITS_MAX, context_name, mcc,
};
use ipnet::IpNet;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::config::attempts::{identities, separate};
use crate::config::error::{Mistake, wrong};
use crate::config::replies::{RefuseText, ReplyFields, ReplyPath, WithoutDaemon, replies};
use crate::config::strip;
use crate::model::attempt_identity::AttemptIdentity;
use crate::model::number_text;
use crate::model::plan::format::Format;
use crate::model::plan::identity::Identity;
use crate::model::plan::lengths;
use crate::model::plan::presets;
use crate::model::policy::{Policy, Subject, Trunk};
use crate::model::redial::RedialPolicy;

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

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProfileFields {
    pub(crate) country: Option<Spanned<String>>,
    pub(crate) country_code: Option<Spanned<String>>,
    pub(crate) trunk_prefix: Option<Spanned<String>>,
    pub(crate) strip_prefixes: Option<Spanned<Vec<Spanned<String>>>>,
    pub(crate) international_prefixes: Option<Spanned<Vec<Spanned<String>>>>,
    pub(crate) national_lengths: Option<Spanned<Vec<Spanned<String>>>>,
    pub(crate) leading_zero: Option<bool>,
    pub(crate) formats: Option<Spanned<Vec<Format>>>,
    pub(crate) phone_contexts: Option<Spanned<BTreeMap<String, Formats>>>,
    pub(crate) imsi_mcc: Option<Spanned<Vec<Spanned<String>>>>,
    pub(crate) area_code: Option<Spanned<String>>,
    pub(crate) short_number_digits: Option<Spanned<u8>>,
    pub(crate) identity: Option<Identity>,
    pub(crate) mode: Option<Mode>,
}

/// One format or several.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Formats {
    One(Format),
    Several(Vec<Format>),
}

impl Formats {
    /// Returns the formats as bits of a plan.
    fn bits(&self) -> u8 {
        match self {
            Formats::One(format) => format.bit(),
            Formats::Several(formats) => Format::bits(formats),
        }
    }
}

/// [`ProfileFields`] with a name and sources. The fields are repeated, because `flatten` loses the
/// spans and the strictness.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrunkTable {
    pub(crate) name: Spanned<String>,
    pub(crate) sources: Spanned<Vec<Spanned<String>>>,
    pub(crate) country: Option<Spanned<String>>,
    pub(crate) country_code: Option<Spanned<String>>,
    pub(crate) trunk_prefix: Option<Spanned<String>>,
    pub(crate) strip_prefixes: Option<Spanned<Vec<Spanned<String>>>>,
    pub(crate) international_prefixes: Option<Spanned<Vec<Spanned<String>>>>,
    pub(crate) national_lengths: Option<Spanned<Vec<Spanned<String>>>>,
    pub(crate) leading_zero: Option<bool>,
    pub(crate) formats: Option<Spanned<Vec<Format>>>,
    pub(crate) phone_contexts: Option<Spanned<BTreeMap<String, Formats>>>,
    pub(crate) imsi_mcc: Option<Spanned<Vec<Spanned<String>>>>,
    pub(crate) area_code: Option<Spanned<String>>,
    pub(crate) short_number_digits: Option<Spanned<u8>>,
    pub(crate) identity: Option<Identity>,
    pub(crate) mode: Option<Mode>,
    #[serde(default)]
    pub(crate) trusts_from: bool,
    pub(crate) esinet: Option<Spanned<bool>>,
    pub(crate) refuse: Option<Spanned<RefuseText>>,
    pub(crate) redirect: Option<Spanned<String>>,
    pub(crate) replies_per_second: Option<u32>,
    pub(crate) replies_without_checksum: Option<bool>,
    pub(crate) separate: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) attempt_identity: Vec<AttemptIdentity>,
    #[serde(default)]
    pub(crate) reply_path: ReplyPath,
    #[serde(default)]
    pub(crate) without_daemon: WithoutDaemon,
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

pub(crate) fn trunks(
    policy: &mut Policy,
    tables: Vec<TrunkTable>,
    redial: RedialPolicy,
) -> Result<(), Mistake> {
    let mut sources = HashMap::new();
    for table in tables {
        let name = table.name.get_ref().clone();
        let is_used = policy.trunks.iter().any(|trunk| trunk.name == name);
        if name.is_empty() || is_used || name.contains(char::is_control) {
            let message = format!("trunk name {name:?} is empty, already used or not on one line");
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
            country: table.country,
            country_code: table.country_code,
            trunk_prefix: table.trunk_prefix,
            strip_prefixes: table.strip_prefixes,
            international_prefixes: table.international_prefixes,
            national_lengths: table.national_lengths,
            leading_zero: table.leading_zero,
            formats: table.formats,
            phone_contexts: table.phone_contexts,
            imsi_mcc: table.imsi_mcc,
            area_code: table.area_code,
            short_number_digits: table.short_number_digits,
            identity: table.identity,
            mode: table.mode,
        };
        profile(&mut trunk, &fields)?;
        let reply_fields = ReplyFields {
            refuse: table.refuse.as_ref(),
            redirect: table.redirect.as_ref(),
            per_second: table.replies_per_second,
            without_checksum: table.replies_without_checksum,
            path: table.reply_path,
            without_daemon: table.without_daemon,
            esinet: table.esinet.as_ref(),
            enforces: fields.mode == Some(Mode::Enforce),
        };
        replies(&mut trunk, &reply_fields)?;
        separate(&mut trunk, table.separate.as_ref(), redial)?;
        identities(&mut trunk, &table.attempt_identity);
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

pub(crate) fn profile(trunk: &mut Trunk, fields: &ProfileFields) -> Result<(), Mistake> {
    country(trunk, fields)?;
    let plan = &mut trunk.profile.plan;
    if let Some(text) = &fields.trunk_prefix {
        plan.trunk_prefix = digits(text, 0, TRUNK_PREFIX_DIGITS_MAX)?;
    }
    if let Some(text) = &fields.area_code {
        plan.area = digits(text, 1, AREA_DIGITS_MAX)?;
    }
    if let Some(list) = &fields.international_prefixes {
        let mut prefixes = Vec::new();
        for text in list.get_ref() {
            prefixes.push(prefix(text)?);
        }
        crate::model::policy::set_international(plan, prefixes)
            .or_else(|error| wrong(list.span(), error.to_string()))?;
    }
    if let Some(zero) = fields.leading_zero {
        plan.leading_zero = zero.into();
    }
    if let Some(list) = &fields.national_lengths {
        plan.no_lengths = lengths::ANY;
        for (index, text) in list.get_ref().iter().enumerate() {
            lengths::add(&mut plan.no_lengths, text.get_ref(), index == 0)
                .or_else(|error| wrong(text.span(), format!("national_lengths: {error}")))?;
        }
    }
    if let Some(formats) = &fields.formats {
        if formats.get_ref().is_empty() {
            return wrong(formats.span(), "formats: list at least one");
        }
        plan.formats = Format::bits(formats.get_ref());
        if plan.formats & FORMAT_SUBSCRIBER != 0 && plan.area.is_empty() {
            return wrong(formats.span(), "format \"subscriber\" needs an area_code");
        }
    }
    if let Some(list) = &fields.imsi_mcc {
        if list.get_ref().len() > MCC_MAX {
            return wrong(list.span(), format!("imsi_mcc: at most {MCC_MAX} codes"));
        }
        plan.imsi = [0; MCC_MAX];
        for (slot, text) in plan.imsi.iter_mut().zip(list.get_ref()) {
            let Some(code) = mcc(text.get_ref()) else {
                let message = format!("imsi_mcc: {:?} must have 3 digits", text.get_ref());
                return wrong(text.span(), message);
            };
            *slot = code;
        }
    }
    strip_prefixes(plan, fields)?;
    phone_contexts(trunk, fields)?;
    let Trunk { profile, .. } = trunk;
    let plan = &mut profile.plan;
    if let Some(count) = &fields.short_number_digits {
        plan.short_digits = *count.get_ref();
        if plan.short_digits > 14 {
            return wrong(count.span(), "short_number_digits: at most 14");
        }
    }
    if let Some(identity) = fields.identity {
        profile.identity = identity.value();
    }
    if let Some(mode) = fields.mode {
        profile.mode = mode.number();
    }
    Ok(())
}

/// Reads `country` and `country_code`. A country replaces the whole plan by its preset.
fn country(trunk: &mut Trunk, fields: &ProfileFields) -> Result<(), Mistake> {
    let plan = &mut trunk.profile.plan;
    if let Some(text) = &fields.country {
        let Some(preset) = presets::of(text.get_ref()) else {
            let message = format!(
                "country: {:?} has no preset; write two letters of ISO 3166 such as \"ID\", or set \
                 country_code (`palang plan show --all` lists the presets)",
                text.get_ref()
            );
            return wrong(text.span(), message);
        };
        *plan = preset.plan();
        trunk.country = Some(preset.country);
        trunk.contexts = Vec::new();
    }
    let Some(text) = &fields.country_code else {
        return Ok(());
    };
    let code = digits(text, 1, COUNTRY_DIGITS_MAX)?;
    if code.to_string().starts_with('0') {
        return wrong(text.span(), "a country code does not start with 0");
    }
    if code != plan.country
        && let Some(country) = trunk.country
    {
        let message = format!(
            "country_code: the plan is that of country {country:?}, with country code {}; set \
             another country, or none",
            plan.country
        );
        return wrong(text.span(), message);
    }
    if code != plan.country && fields.national_lengths.is_none() && plan.no_lengths != lengths::ANY
    {
        let message = format!(
            "country_code: national_lengths of [default] are for country code {}; set \
             national_lengths, too",
            plan.country
        );
        return wrong(text.span(), message);
    }
    plan.country = code;
    Ok(())
}

/// Reads `strip_prefixes`, and compares these with the settings that they share with `[default]`.
fn strip_prefixes(plan: &mut Plan, fields: &ProfileFields) -> Result<(), Mistake> {
    if let Some(list) = &fields.strip_prefixes {
        if list.get_ref().len() > STRIP_MAX {
            return wrong(list.span(), format!("strip_prefixes: at most {STRIP_MAX} prefixes"));
        }
        plan.strip = [Digits::EMPTY; STRIP_MAX];
        for (slot, text) in plan.strip.iter_mut().zip(list.get_ref()) {
            *slot = digits(text, 1, STRIP_DIGITS_MAX)?;
        }
    }
    let Some(message) = strip::mistake(plan) else { return Ok(()) };
    let places = [
        fields.strip_prefixes.as_ref().map(Spanned::span),
        fields.international_prefixes.as_ref().map(Spanned::span),
        fields.formats.as_ref().map(Spanned::span),
        fields.trunk_prefix.as_ref().map(Spanned::span),
        fields.country_code.as_ref().map(Spanned::span),
        fields.country.as_ref().map(Spanned::span),
    ];
    wrong(
        places.into_iter().flatten().next().unwrap_or_default(),
        format!("strip_prefixes: {message}"),
    )
}

fn phone_contexts(trunk: &mut Trunk, fields: &ProfileFields) -> Result<(), Mistake> {
    let Some(table) = &fields.phone_contexts else {
        return Ok(());
    };
    let wrong = |message: String| wrong(table.span(), format!("phone_contexts: {message}"));
    if table.get_ref().len() > CONTEXTS_MAX {
        return wrong(format!("at most {CONTEXTS_MAX} names"));
    }
    let plan = &mut trunk.profile.plan;
    plan.contexts = [NamedContext::default(); CONTEXTS_MAX];
    trunk.contexts = Vec::new();
    for (slot, (name, formats)) in plan.contexts.iter_mut().zip(table.get_ref()) {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if name.is_empty() || !name.bytes().all(known) {
            return wrong(format!(
                "{name:?} is not a name: use letters, digits, dots, - and _; a context such as +62 \
                 needs no entry"
            ));
        }
        let formats = formats.bits();
        if formats == 0 {
            return wrong(format!("{name:?} has no format: list at least one"));
        }
        if formats & FORMAT_SUBSCRIBER != 0 && plan.area.is_empty() {
            return wrong("format \"subscriber\" needs an area_code".to_owned());
        }
        let hash = context_name(name.as_bytes());
        if trunk.contexts.iter().any(|other| context_name(other.as_bytes()) == hash) {
            return wrong(format!("{name:?} is there twice; upper and lower case are equal"));
        }
        *slot = NamedContext { name: hash, formats, ..NamedContext::default() };
        trunk.contexts.push(name.clone());
    }
    Ok(())
}

/// Reads an international prefix, in which an `x` is any digit.
fn prefix(text: &Spanned<String>) -> Result<Prefix, Mistake> {
    match Prefix::parse(text.get_ref()) {
        Some(prefix) if (1..=PREFIX_DIGITS_MAX).contains(&prefix.len()) && prefix.mask != 0 => {
            Ok(prefix)
        }
        _ => {
            let message = format!(
                "{:?} must have 1 to {PREFIX_DIGITS_MAX} digits; x is any digit",
                text.get_ref()
            );
            wrong(text.span(), message)
        }
    }
}

fn digits(text: &Spanned<String>, min: u32, max: u32) -> Result<Digits, Mistake> {
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
