//! Finds the SIP ports of this machine and edits the configuration for `palang setup`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, Value};

use crate::config::Config;
use crate::model::plan::format::Format;
use crate::model::plan::identity::Identity;
use crate::model::xdp_mode::XdpMode;

/// The configuration as delivered. A file with this text was not edited.
pub const DELIVERED: &str = include_str!("../../../docs/palang.toml");

/// Usual SIP ports; a SIP server also has media ports.
const SIP_PORTS: std::ops::RangeInclusive<u16> = 5060..=5099;

/// A cause of any type, whose text is part of the message.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Reasons why setup cannot read or change the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system call.
        source: std::io::Error,
    },
    /// The file is not a valid configuration.
    #[error("{0}")]
    Config(#[source] Cause),
    /// The file has other interfaces.
    #[error(
        "{path}: already set up for {interfaces}. To add {wanted}, list it under `interfaces` there, \
         then run `palang config check && systemctl reload palang`",
        path = path.display()
    )]
    OtherInterfaces {
        /// The file.
        path: PathBuf,
        /// Its interfaces.
        interfaces: String,
        /// The interface to set up.
        wanted: String,
    },
    /// The file is not TOML.
    #[error("{}: {source}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// The error of the parser.
        source: toml_edit::TomlError,
    },
    /// `default` of the file is an inline table.
    #[error("{}: write [default] as a table", .0.display())]
    InlineDefault(PathBuf),
    /// The trunks of the file are an inline array.
    #[error("{}: write each trunk as a table [[trunk]]", .0.display())]
    InlineTrunks(PathBuf),
    /// Two wanted trunks have one name.
    #[error(
        "--trunk: {0:?} is there twice; put all its sources into one --trunk, or give the other another name"
    )]
    TrunkTwice(String),
    /// The changed configuration is not valid.
    #[error("not valid with these options: {0}")]
    Options(#[source] Cause),
}

/// A UDP port that a process has bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The port.
    pub port: u16,
    /// Name of the process; `None` if we may not inspect it.
    pub process: Option<String>,
}

impl Listener {
    fn speaks_sip(&self) -> bool {
        // These two open no other kind of UDP port.
        let only_sip = matches!(self.process.as_deref(), Some("kamailio" | "opensips"));
        SIP_PORTS.contains(&self.port) || only_sip
    }
}

/// Returns the UDP ports of this network namespace that a SIP server has bound.
#[must_use]
pub fn sip_listeners() -> Vec<Listener> {
    let tables = ["/proc/self/net/udp", "/proc/self/net/udp6"];
    let texts = tables.iter().filter_map(|table| fs::read_to_string(table).ok());
    let mut ports: BTreeMap<u16, Option<String>> = BTreeMap::new();
    let mut sockets: BTreeMap<u64, u16> = BTreeMap::new();
    for text in texts {
        sockets.extend(bound(&text).into_iter().map(|(port, inode)| (inode, port)));
    }
    ports.extend(sockets.values().map(|port| (*port, None)));
    for (inode, process) in processes_of_sockets(&sockets) {
        if let Some(port) = sockets.get(&inode) {
            ports.insert(*port, Some(process));
        }
    }
    let all = ports.into_iter().map(|(port, process)| Listener { port, process });
    all.filter(Listener::speaks_sip).collect()
}

/// Returns port and inode of the sockets in a table such as `/proc/net/udp` (proc(5)).
fn bound(table: &str) -> Vec<(u16, u64)> {
    let line = |line: &str| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let port = fields.get(1)?.rsplit_once(':')?.1;
        Some((u16::from_str_radix(port, 16).ok()?, fields.get(9)?.parse().ok()?))
    };
    table.lines().skip(1).filter_map(line).collect()
}

/// Returns the names of the processes that own these sockets, by inode.
fn processes_of_sockets(sockets: &BTreeMap<u64, u16>) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(name) = fs::read_to_string(process.path().join("comm")) else { continue };
        for file in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(file.path()) else { continue };
            let inode = target
                .to_str()
                .and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode.filter(|inode| sockets.contains_key(inode)) {
                found.push((inode, name.trim_end().to_owned()));
            }
        }
    }
    found
}

/// The form in which a carrier sends callers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sends {
    /// Header that names the caller; `None` keeps that of the file.
    pub identity: Option<Identity>,
    /// Formats of numbers without `+`; empty: those of the plan.
    pub formats: Vec<Format>,
}

/// A trunk that setup wants in the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedTrunk {
    /// Its name.
    pub name: String,
    /// Its source addresses or prefixes.
    pub sources: Vec<String>,
    /// The form of its callers.
    pub sends: Sends,
}

/// The settings that setup wants in the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The interface.
    pub interface: String,
    /// UDP ports; `None` keeps those of the file.
    pub ports: Option<Vec<u16>>,
    /// Country of the preset; `None` keeps the plan of the file.
    pub country: Option<String>,
    /// Country code; `None` keeps that of the file.
    pub country_code: Option<String>,
    /// The form of callers on every trunk that has no other.
    pub sends: Sends,
    /// Trunks to add, or to change by their names.
    pub trunks: Vec<WantedTrunk>,
    /// Where the program runs; `None` keeps the setting of the file.
    pub xdp_mode: Option<XdpMode>,
}

/// A configuration file and its planned change.
#[derive(Clone, Debug)]
pub struct Change {
    /// The file.
    pub path: PathBuf,
    /// Current text; `None` if the file does not exist.
    pub before: Option<String>,
    /// The new configuration, already checked.
    pub config: Config,
}

impl Change {
    /// Checks whether the file has to be written.
    #[must_use]
    pub fn is_one(&self) -> bool {
        self.before.as_ref() != Some(&self.config.text)
    }
}

/// Reads the configuration file; `None` if it does not exist.
///
/// # Errors
/// [`Error::Read`] if the file cannot be read.
pub fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

/// Checks whether the file was never edited: it does not exist, or is as delivered. The delivered file
/// has the interface of the example or, in a package, no interface.
#[must_use]
pub fn is_untouched(before: Option<&str>) -> bool {
    let interfaces = |text: &str| {
        let document: DocumentMut = text.parse().ok()?;
        Some(document.get("interfaces")?.as_array()?.len())
    };
    let is_rest = |line: &&str| !line.starts_with("interfaces = [");
    before.is_none_or(|text| {
        let same_rest = text.lines().filter(is_rest).eq(DELIVERED.lines().filter(is_rest));
        text == DELIVERED || (same_rest && interfaces(text) == Some(0))
    })
}

/// Returns a text of the `[default]` of a configuration.
fn default_text(text: &str, key: &str) -> Option<String> {
    let document: DocumentMut = text.parse().ok()?;
    Some(document.get("default")?.get(key)?.as_str()?.to_owned())
}

/// Returns a configuration that a person has edited.
fn edited(before: Option<&str>) -> Option<&str> {
    before.filter(|text| !is_untouched(Some(text)))
}

/// Returns the country code of an edited configuration.
fn country_code(before: Option<&str>) -> Option<String> {
    default_text(edited(before)?, "country_code")
}

/// Returns whether an edited configuration has a country or a country code.
#[must_use]
pub fn has_country(before: Option<&str>) -> bool {
    let has = |key| edited(before).and_then(|text| default_text(text, key)).is_some();
    has("country") || has("country_code")
}

/// Returns whether a configuration is of a country already.
fn is_of(text: &str, country: &str) -> bool {
    default_text(text, "country").as_deref() == Some(country)
}

/// Settings of the delivered `[default]` that a preset replaces.
const PRESET_KEYS: [&str; 6] = [
    "country_code",
    "trunk_prefix",
    "international_prefixes",
    "national_lengths",
    "leading_zero",
    "formats",
];

/// Changes the lines of `[default]`.
fn map_default(text: &str, change: impl Fn(&str) -> String) -> String {
    let mut is_default = false;
    let lines = text.split_inclusive('\n').map(|line| {
        if line.starts_with('[') {
            is_default = line.trim_end() == "[default]";
        }
        if is_default { change(line) } else { line.to_owned() }
    });
    lines.collect()
}

/// Makes the settings that a preset replaces to comments. A setting of several lines stays as it is.
fn without_plan(text: &str) -> String {
    map_default(text, |line| {
        let begins = |key: &&str| {
            line.strip_prefix(*key).is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        let is_setting = PRESET_KEYS.iter().any(begins) && line.parse::<DocumentMut>().is_ok();
        if is_setting { format!("# {line}") } else { line.to_owned() }
    })
}

/// Puts a country in the place that the delivered configuration has for it.
fn with_country(text: &str, country: &str) -> String {
    map_default(text, |line| match line.strip_prefix("# country = ") {
        Some(rest) => {
            let comment = rest.trim_end().split_once('#').map_or("", |(_, comment)| comment);
            format!("{:<31} #{comment}\n", format!("country = {country:?}"))
        }
        None => line.to_owned(),
    })
}

/// Changes the wanted settings of a configuration and nothing else.
///
/// # Errors
/// [`Error`] if the file is not valid before or after the change, or has other interfaces.
pub fn change(path: &Path, before: Option<String>, wanted: &Wanted) -> Result<Change, Error> {
    let text = before.as_deref().unwrap_or(DELIVERED);
    let mut config =
        Config::of(path, text.to_owned()).map_err(|error| Error::Config(error.into()))?;
    let untouched = is_untouched(before.as_deref());
    let named = config.interfaces.contains(&wanted.interface);
    if !untouched && !named && !config.interfaces.is_empty() {
        return Err(Error::OtherInterfaces {
            path: path.to_owned(),
            interfaces: config.interfaces.join(", "),
            wanted: wanted.interface.clone(),
        });
    }
    let text = match &wanted.country {
        Some(country) if untouched => with_country(&without_plan(text), country),
        // A file with this country has settings beside it on purpose.
        Some(country) if is_of(text, country) => text.to_owned(),
        Some(_) => without_plan(text),
        None => text.to_owned(),
    };
    let mut document: DocumentMut =
        text.parse().map_err(|source| Error::Toml { path: path.to_owned(), source })?;
    let root = document.as_table_mut();
    if untouched || !named {
        put(root, "interfaces", Array::from_iter([wanted.interface.as_str()]).into());
    }
    let ports = wanted.ports.as_deref().map(once);
    if let Some(ports) = ports.filter(|ports| *ports != config.policy.ports) {
        put(root, "ports", ports.iter().map(|port| i64::from(*port)).collect::<Array>().into());
    }
    if let Some(mode) = wanted.xdp_mode.filter(|mode| *mode != config.xdp_mode) {
        put(root, "xdp_mode", mode.name().into());
    }
    plan(root, path, wanted, &text)?;
    for (index, trunk) in wanted.trunks.iter().enumerate() {
        if wanted.trunks[..index].iter().any(|other| other.name == trunk.name) {
            return Err(Error::TrunkTwice(trunk.name.clone()));
        }
        put_trunk(root, path, trunk)?;
    }
    config =
        Config::of(path, document.to_string()).map_err(|error| Error::Options(error.into()))?;
    Ok(Change { path: path.to_owned(), before, config })
}

/// Puts the plan of all trunks into `[default]`.
fn plan(root: &mut Table, path: &Path, wanted: &Wanted, text: &str) -> Result<(), Error> {
    let code = wanted.country_code.as_ref();
    let code = code.filter(|code| country_code(Some(text)).as_ref() != Some(*code));
    let has_plan = wanted.country.is_some() || wanted.sends != Sends::default();
    if code.is_none() && !has_plan {
        return Ok(());
    }
    let default = root.entry("default").or_insert_with(|| Item::Table(Table::new()));
    let Some(default) = default.as_table_mut() else {
        return Err(Error::InlineDefault(path.to_owned()));
    };
    if let Some(country) = wanted.country.as_ref().filter(|country| !is_of(text, country)) {
        // The preset has its own. A setting that stayed would make another plan of it.
        for key in PRESET_KEYS {
            default.remove(key);
        }
        put(default, "country", country.as_str().into());
    }
    if let Some(code) = code {
        put(default, "country_code", code.as_str().into());
    }
    put_sends(default, &wanted.sends);
    Ok(())
}

fn put_sends(table: &mut Table, sends: &Sends) {
    if let Some(identity) = sends.identity {
        put(table, "identity", identity.name().into());
    }
    if !sends.formats.is_empty() {
        put(
            table,
            "formats",
            once(&sends.formats).iter().map(|format| format.name()).collect::<Array>().into(),
        );
    }
}

/// Adds a trunk, or changes the one with its name.
fn put_trunk(root: &mut Table, path: &Path, wanted: &WantedTrunk) -> Result<(), Error> {
    let trunks = root.entry("trunk").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    let Some(trunks) = trunks.as_array_of_tables_mut() else {
        return Err(Error::InlineTrunks(path.to_owned()));
    };
    let name = |table: &Table| Some(table.get("name")?.as_str()? == wanted.name);
    let sources: Value = wanted.sources.iter().map(String::as_str).collect::<Array>().into();
    let known = trunks.iter_mut().find(|table| name(table) == Some(true));
    if let Some(table) = known {
        put(table, "sources", sources);
        put_sends(table, &wanted.sends);
        return Ok(());
    }
    let mut table = Table::new();
    put(&mut table, "name", wanted.name.as_str().into());
    put(&mut table, "sources", sources);
    put_sends(&mut table, &wanted.sends);
    trunks.push(table);
    Ok(())
}

/// Replaces a value and keeps its comments.
fn put(table: &mut Table, key: &str, mut value: Value) {
    match table.get_mut(key) {
        Some(item) => {
            if let Some(old) = item.as_value() {
                *value.decor_mut() = old.decor().clone();
            }
            *item = Item::Value(value);
        }
        None => {
            table.insert(key, Item::Value(value));
        }
    }
}

/// Returns each entry of a list once, at its first place.
fn once<T: Copy + PartialEq>(list: &[T]) -> Vec<T> {
    let mut once = Vec::new();
    for entry in list {
        if !once.contains(entry) {
            once.push(*entry);
        }
    }
    once
}

#[cfg(test)]
mod tests;
