//! Reads policy files: strict TOML. An invalid file is refused whole, with file, line and reason.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use filter_common::abi::{BLOCK_NO_REDIAL, BLOCK_OBSERVE};
use jiff::Timestamp;
use serde::Deserialize;
use toml::Spanned;

use crate::config::error::{ConfigError, Mistake, wrong};
use crate::config::file::RedialTable;
use crate::config::profile::{
    Mode, ProfileFields, ProtectedEntry, ShortestTable, TrunkTable, ports, profile, protected,
    subject, trunks,
};
use crate::config::replies::{RefuseText, refusal};
use crate::config::{error, file};
use crate::model::ladder::Ladder;
use crate::model::policy::{Policy, Subject};
use crate::model::redial::{RedialError, RedialPolicy};
use crate::model::refuse::Refuse;

/// Contents of a policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFile {
    /// The policy that the gate uses.
    pub policy: Policy,
    /// Default redial setting of the blocks. Without `[redial]` no blocked caller is let through for
    /// calling again.
    pub redial: RedialPolicy,
    /// Ladder for reported calls; without `ladder`, reports have no effect.
    pub ladder: Option<Ladder>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    mode: Option<Mode>,
    ports: Option<Spanned<Vec<u16>>>,
    ladder: Option<Spanned<String>>,
    redial: Option<RedialTable>,
    #[serde(default)]
    protected: Vec<Spanned<ProtectedEntry>>,
    protect_placeholders: Option<bool>,
    #[serde(default)]
    limits: ShortestTable,
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
    redial: Option<Spanned<String>>,
    #[serde(default)]
    no_redial: bool,
    refuse: Option<Spanned<RefuseText>>,
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

/// A TOML date-time, or its text in a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Time {
    Toml(toml::value::Datetime),
    Text(String),
}

impl Time {
    /// Converts the time to nanoseconds since 1970.
    ///
    /// # Errors
    /// Returns the mistake at `at` if it is no time with a zone, or is before 1970.
    fn nanoseconds(&self, at: Range<usize>) -> Result<u64, Mistake> {
        let text = match self {
            Time::Toml(time) => time.to_string(),
            Time::Text(text) => text.clone(),
        };
        let Ok(time) = text.parse::<Timestamp>() else {
            let message =
                format!("{text} is not a time with a zone: write it as 2026-11-30T10:00:00Z");
            return wrong(at, message);
        };
        match u64::try_from(time.as_nanosecond()) {
            Ok(nanoseconds) if nanoseconds > 0 => Ok(nanoseconds),
            _ => wrong(at, format!("{text} is before 1970")),
        }
    }
}

/// Changes that the command line makes to the default profile before the numbers of the file are
/// parsed.
///
/// An error of it is [`ConfigError::Argument`].
pub type Adjust<'a> = &'a dyn Fn(&mut Policy) -> Result<(), ConfigError>;

/// Reads a policy file and the ladder that it names. The path of the ladder is relative to the file.
///
/// # Errors
/// `Unreadable` if one of the two files cannot be read; `Invalid` at the first mistake in one of them;
/// the error of `adjust`.
pub fn read(path: &Path, adjust: Adjust<'_>) -> Result<PolicyFile, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| ConfigError::unreadable(path, error))?;
    let (mut file, ladder) =
        parse(&text, adjust).map_err(|mistake| mistake.in_file(path, &text))?;
    if let Some(name) = ladder {
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        file.ladder = Some(Ladder::read(&folder.join(name))?);
    }
    Ok(file)
}

/// Parses the file without its ladder, and returns the path of the ladder.
fn parse(text: &str, adjust: Adjust<'_>) -> Result<(PolicyFile, Option<String>), Mistake> {
    let file: File = error::toml(text)?;
    let redial = match &file.redial {
        Some(table) => file::redial(table)?,
        None => RedialPolicy { attempts: 0, ..RedialPolicy::default() },
    };
    if let Some(name) = file.ladder.as_ref().filter(|name| name.get_ref().is_empty()) {
        return wrong(name.span(), "ladder: name a file, or omit it");
    }
    let mut policy = Policy::default();
    if let Some(mode) = file.mode {
        policy.settings.mode = mode.number();
    }
    ports(&mut policy, file.ports)?;
    profile(&mut policy.trunks[0], &file.default)?;
    adjust(&mut policy).map_err(|error| Mistake { at: None, message: error.to_string() })?;
    trunks(&mut policy, file.trunk, redial)?;
    protected(&mut policy, &file.protected)?;
    file.limits.apply(&mut policy)?;

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
            (Some(_), true) => {
                return wrong(at, "a block has either `expires` or `permanent`, not both");
            }
            (None, false) => {
                return wrong(at, "every block needs an end: set `expires`, or `permanent = true`");
            }
        };
        match table.action {
            Some(action) if action.get_ref() != "drop" => {
                let message =
                    format!("action {:?} is not supported by this version", action.get_ref());
                return wrong(action.span(), message);
            }
            _ => {}
        }
        let own = match &table.redial {
            Some(text) if table.no_redial => {
                return wrong(text.span(), "a block has either `redial` or `no_redial`, not both");
            }
            Some(text) => text
                .get_ref()
                .parse()
                .or_else(|error: RedialError| wrong(text.span(), error.to_string()))?,
            None => redial,
        };
        let flags = if table.observe { BLOCK_OBSERVE } else { 0 }
            | if table.no_redial { BLOCK_NO_REDIAL } else { 0 }
            | table.refuse.as_ref().map_or(Ok(0), |text| refusal(text).map(Refuse::flags))?;
        policy.block(subject, expires, flags);
        if let Some((_, block)) = policy.blocks.last_mut() {
            own.put(block);
        }
    }
    if let Some(table) = file.r#override {
        policy.override_until = nanoseconds(&table.until)?;
    }
    // Last: rules have the numbers that the file's order gives them.
    if file.protect_placeholders.unwrap_or(true) {
        policy.protect_placeholders();
    }
    let ladder = file.ladder.map(Spanned::into_inner);
    Ok((PolicyFile { policy, redial, ladder: None }, ladder))
}

fn nanoseconds(time: &Spanned<Time>) -> Result<u64, Mistake> {
    time.get_ref().nanoseconds(time.span())
}

fn one_subject(
    policy: &Policy,
    at: Range<usize>,
    number: &Option<Spanned<String>>,
    prefix: &Option<Spanned<String>>,
) -> Result<Subject, Mistake> {
    let (text, expect_prefix) = match (number, prefix) {
        (Some(text), None) => (text, false),
        (None, Some(text)) => (text, true),
        _ => return wrong(at, "set either `number` or `prefix`"),
    };
    match (subject(policy, text)?, expect_prefix) {
        (Subject::Prefix(_), false) => wrong(text.span(), "write a prefix as `prefix = …`"),
        (Subject::Number(_), true) => wrong(text.span(), "a prefix must end with *"),
        (subject, _) => Ok(subject),
    }
}

/// Refuses a second rule of one kind for one subject.
fn once<K: std::hash::Hash + Eq>(
    text: &str,
    seen: &mut HashMap<K, usize>,
    key: K,
    at: Range<usize>,
) -> Result<(), Mistake> {
    let line = text.get(..at.start).unwrap_or("").matches('\n').count() + 1;
    match seen.insert(key, line) {
        Some(first) => wrong(at, format!("this number or prefix is already in line {first}")),
        None => Ok(()),
    }
}
