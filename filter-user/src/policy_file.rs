//! Policy files: TOML, read strictly, and refused whole with file, line and reason.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;

use filter_common::abi::{BLOCK_OBSERVE, MODE_ENFORCE, MODE_OBSERVE, Profile};
use filter_common::number::Digits;
use filter_common::plan::{
    FORMAT_BARE_NATIONAL, FORMAT_E164, FORMAT_NATIONAL, FORMAT_SUBSCRIBER, IDENTITY_FROM,
    IDENTITY_PAI, PREFIX_DIGITS_MAX,
};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Deserialize;
use toml::Spanned;

use crate::number_text;
use crate::policy::{Policy, Subject, Trunk};

/// Longest country code (ITU-T E.164) and longest area code in digits.
const COUNTRY_DIGITS_MAX: u32 = 3;
const AREA_DIGITS_MAX: u32 = 6;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    mode: Option<Mode>,
    ports: Option<Spanned<Vec<u16>>>,
    #[serde(default)]
    protected: Vec<Spanned<String>>,
    #[serde(default)]
    default: ProfileFields,
    #[serde(default)]
    trunk: Vec<TrunkTable>,
    #[serde(default)]
    block: Vec<Spanned<BlockTable>>,
    #[serde(default)]
    allow: Vec<Spanned<AllowTable>>,
    r#override: Option<OverrideTable>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Enforce,
    Observe,
}

impl Mode {
    fn number(self) -> u8 {
        match self {
            Mode::Enforce => MODE_ENFORCE,
            Mode::Observe => MODE_OBSERVE,
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Format {
    E164,
    National,
    BareNational,
    Subscriber,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Identity {
    From,
    Pai,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFields {
    country_code: Option<Spanned<String>>,
    trunk_prefix: Option<Spanned<String>>,
    international_prefixes: Option<Spanned<Vec<Spanned<String>>>>,
    formats: Option<Spanned<Vec<Format>>>,
    area_code: Option<Spanned<String>>,
    short_number_digits: Option<Spanned<u8>>,
    identity: Option<Identity>,
    mode: Option<Mode>,
}

/// [`ProfileFields`] with a name and sources. Written out, because `flatten` takes the
/// spans and the strictness away.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrunkTable {
    name: Spanned<String>,
    sources: Spanned<Vec<Spanned<String>>>,
    country_code: Option<Spanned<String>>,
    trunk_prefix: Option<Spanned<String>>,
    international_prefixes: Option<Spanned<Vec<Spanned<String>>>>,
    formats: Option<Spanned<Vec<Format>>>,
    area_code: Option<Spanned<String>>,
    short_number_digits: Option<Spanned<u8>>,
    identity: Option<Identity>,
    mode: Option<Mode>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockTable {
    number: Option<Spanned<String>>,
    prefix: Option<Spanned<String>>,
    expires: Option<Spanned<Time>>,
    #[serde(default)]
    permanent: bool,
    #[serde(rename = "reason")]
    _reason: Option<String>,
    #[serde(default)]
    observe: bool,
    action: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowTable {
    number: Option<Spanned<String>>,
    prefix: Option<Spanned<String>>,
    expires: Option<Spanned<Time>>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OverrideTable {
    until: Spanned<Time>,
}

/// A TOML date-time, or the same in a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Time {
    Toml(toml::value::Datetime),
    Text(String),
}

impl Time {
    /// Nanoseconds since 1970.
    fn nanoseconds(&self) -> Result<u64, String> {
        let text = match self {
            Time::Toml(time) => time.to_string(),
            Time::Text(text) => text.clone(),
        };
        let time: Timestamp = text.parse().map_err(|_| {
            format!("{text} is no time with a zone: write it as 2026-11-30T10:00:00Z")
        })?;
        match u64::try_from(time.as_nanosecond()) {
            Ok(nanoseconds) if nanoseconds > 0 => Ok(nanoseconds),
            _ => Err(format!("{text} is before 1970")),
        }
    }
}

/// An error, at a place of the file unless the command line is to blame.
struct Wrong {
    at: Option<Range<usize>>,
    message: String,
}

fn wrong<T>(at: Range<usize>, message: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { at: Some(at), message: message.into() })
}

/// Changes of the default profile that the command line makes before the file's numbers
/// are read.
pub type Adjust<'a> = &'a dyn Fn(&mut Policy) -> Result<(), String>;

/// Reads a policy file.
///
/// # Errors
/// `file:line:column: what is wrong`, in one line where possible.
pub fn read(path: &Path, adjust: Adjust<'_>) -> Result<Policy, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
    parse(&text, adjust).map_err(|wrong| {
        let Some(at) = wrong.at else {
            return wrong.message;
        };
        let before = text.get(..at.start).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        format!("{}:{line}:{column}: {}", path.display(), wrong.message)
    })
}

fn parse(text: &str, adjust: Adjust<'_>) -> Result<Policy, Wrong> {
    let file: File = toml::from_str(text).map_err(|error| Wrong {
        at: Some(error.span().unwrap_or(0..0)),
        message: error.message().to_owned(),
    })?;
    let mut policy = Policy::default();
    if let Some(mode) = file.mode {
        policy.settings.mode = mode.number();
    }
    if let Some(ports) = file.ports {
        if ports.get_ref().is_empty() || ports.get_ref().contains(&0) {
            return wrong(ports.span(), "ports: give at least one, none of them 0");
        }
        policy.ports = ports.into_inner();
    }
    profile(&mut policy.trunks[0].profile, &file.default)?;
    adjust(&mut policy).map_err(|message| Wrong { at: None, message })?;
    trunks(&mut policy, file.trunk)?;

    for text in &file.protected {
        let subject = subject(&policy, text)?;
        policy.protect(subject);
    }
    let mut seen = HashMap::new();
    for table in file.allow {
        let at = table.span();
        let table = table.into_inner();
        let subject = one_subject(&policy, at.clone(), &table.number, &table.prefix)?;
        once(text, &mut seen, ("allow", subject), at)?;
        let expires = table.expires.as_ref().map_or(Ok(0), nanoseconds)?;
        policy.allow(subject, expires);
    }
    for table in file.block {
        let at = table.span();
        let table = table.into_inner();
        let subject = one_subject(&policy, at.clone(), &table.number, &table.prefix)?;
        once(text, &mut seen, ("block", subject), at.clone())?;
        let expires = match (&table.expires, table.permanent) {
            (Some(time), false) => nanoseconds(time)?,
            (None, true) => 0,
            (Some(_), true) => return wrong(at, "a block has `expires` or `permanent`, not both"),
            (None, false) => {
                return wrong(at, "every block ends: give `expires`, or say `permanent = true`");
            }
        };
        match table.action {
            Some(action) if action.get_ref() != "drop" => {
                let message = format!("action {:?} is not in this version", action.get_ref());
                return wrong(action.span(), message);
            }
            _ => {}
        }
        policy.block(subject, expires, if table.observe { BLOCK_OBSERVE } else { 0 });
    }
    if let Some(table) = file.r#override {
        policy.override_until = nanoseconds(&table.until)?;
    }
    Ok(policy)
}

fn trunks(policy: &mut Policy, tables: Vec<TrunkTable>) -> Result<(), Wrong> {
    let mut sources = HashMap::new();
    for table in tables {
        let name = table.name.get_ref().clone();
        if name.is_empty() || policy.trunks.iter().any(|trunk| trunk.name == name) {
            let message = format!("trunk name {name:?} is empty or was used before");
            return wrong(table.name.span(), message);
        }
        if policy.trunks.len() >= filter_common::abi::TRUNKS_MAX as usize {
            return wrong(table.name.span(), "more trunks than the kernel program holds (63)");
        }
        let mut trunk = Trunk { name, sources: Vec::new(), profile: policy.trunks[0].profile };
        if table.sources.get_ref().is_empty() {
            return wrong(table.sources.span(), "a trunk needs at least one source");
        }
        for source in table.sources.get_ref() {
            let (at, text) = (source.span(), source.get_ref());
            let net = text
                .parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .or_else(|_| {
                    wrong(at.clone(), format!("{text:?} is no address or prefix (10.1.0.0/16)"))
                })?;
            let key = mapped(net);
            if let Some(other) = sources.insert(key, trunk.name.clone()) {
                return wrong(at, format!("{text} is a source of trunk {other:?} already"));
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
        policy.trunks.push(trunk);
        policy.settings.trunks_configured = 1;
    }
    Ok(())
}

/// A prefix of addresses as the map has it: IPv4 mapped into IPv6.
fn mapped(net: IpNet) -> ([u8; 16], u32) {
    match net.trunc() {
        IpNet::V4(net) => (net.addr().to_ipv6_mapped().octets(), 96 + u32::from(net.prefix_len())),
        IpNet::V6(net) => (net.addr().octets(), u32::from(net.prefix_len())),
    }
}

fn profile(profile: &mut Profile, fields: &ProfileFields) -> Result<(), Wrong> {
    let plan = &mut profile.plan;
    if let Some(text) = &fields.country_code {
        plan.country = digits(text, 1, COUNTRY_DIGITS_MAX)?;
        if plan.country.to_string().starts_with('0') {
            return wrong(text.span(), "no country code starts with 0");
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
        crate::policy::set_international(plan, prefixes)
            .or_else(|message| wrong(list.span(), message))?;
    }
    if let Some(formats) = &fields.formats {
        if formats.get_ref().is_empty() {
            return wrong(formats.span(), "formats: give at least one");
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
        };
    }
    if let Some(mode) = fields.mode {
        profile.mode = mode.number();
    }
    Ok(())
}

fn digits(text: &Spanned<String>, min: u32, max: u32) -> Result<Digits, Wrong> {
    match Digits::parse(text.get_ref()) {
        Some(digits) if (min..=max).contains(&digits.len()) => Ok(digits),
        _ => {
            let message = format!("{:?}: {min} to {max} digits are wanted", text.get_ref());
            wrong(text.span(), message)
        }
    }
}

fn nanoseconds(time: &Spanned<Time>) -> Result<u64, Wrong> {
    time.get_ref().nanoseconds().or_else(|message| wrong(time.span(), message))
}

fn subject(policy: &Policy, text: &Spanned<String>) -> Result<Subject, Wrong> {
    number_text::subject(text.get_ref(), &policy.trunks[0].profile.plan)
        .or_else(|message| wrong(text.span(), message))
}

fn one_subject(
    policy: &Policy,
    at: Range<usize>,
    number: &Option<Spanned<String>>,
    prefix: &Option<Spanned<String>>,
) -> Result<Subject, Wrong> {
    let (text, expect_prefix) = match (number, prefix) {
        (Some(text), None) => (text, false),
        (None, Some(text)) => (text, true),
        _ => return wrong(at, "give `number` or `prefix`, one of both"),
    };
    match (subject(policy, text)?, expect_prefix) {
        (Subject::Prefix(_), false) => wrong(text.span(), "a prefix stands in `prefix = …`"),
        (Subject::Number(_), true) => wrong(text.span(), "a prefix ends with *"),
        (subject, _) => Ok(subject),
    }
}

/// Refuses a second rule of one kind about one subject.
fn once<K: std::hash::Hash + Eq>(
    text: &str,
    seen: &mut HashMap<K, usize>,
    key: K,
    at: Range<usize>,
) -> Result<(), Wrong> {
    let line = text.get(..at.start).unwrap_or("").matches('\n').count() + 1;
    match seen.insert(key, line) {
        Some(first) => wrong(at, format!("this number or prefix stands in line {first} already")),
        None => Ok(()),
    }
}
