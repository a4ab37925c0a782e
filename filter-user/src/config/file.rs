//! Reads the daemon's configuration from its TOML file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use filter_common::abi::MODE_OBSERVE;
use filter_common::number::DIGITS_MAX;
use jiff::SignedDuration;
use serde::Deserialize;
use toml::Spanned;

use crate::config::error::{self, ConfigError, Mistake, wrong};
use crate::config::limits::{
    BLOCKS, BLOCKS_MAX, CALLS_KEPT, CALLS_KEPT_MAX, CALLS_KEPT_MIN, EVIDENCE_BYTES,
    EVIDENCE_BYTES_MAX, EVIDENCE_BYTES_MIN, EVIDENCE_CALLS, EVIDENCE_CALLS_MAX, EVIDENCE_KEPT,
    GRACE_MAX, INTERFACE_MAX, LONGEST_BLOCK, LONGEST_BLOCK_MAX, MAX_BYTES_MAX, MAX_BYTES_MIN,
    NOT_HERE, PER_NUMBER_MAX, PER_TRUNK_MAX, SHORTEST_NUMBER, SHORTEST_PREFIX,
    SHORTEST_PREFIX_OPERATE, SOCKET_PATH_MAX,
};
use crate::config::profile::{
    ProfileFields, ProtectedEntry, ShortestTable, TrunkTable, ports, profile, protected, trunks,
};
use crate::config::units::days;
use crate::config::{
    AutoRate, Config, EvidenceKept, OperateLimits, Paths, RecordLimits, Roles, Webhook,
};
use crate::model::duration;
use crate::model::ladder::Ladder;
use crate::model::policy::Policy;
use crate::model::redial::RedialPolicy;
use crate::model::xdp_mode::XdpMode;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) interfaces: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    pub(crate) xdp_mode: XdpMode,
    pub(crate) forwarded: Option<bool>,
    #[serde(default)]
    pub(crate) reassemble_forwarded: bool,
    pub(crate) ports: Option<Spanned<Vec<u16>>>,
    pub(crate) ladder: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) protected: Vec<Spanned<ProtectedEntry>>,
    pub(crate) protect_placeholders: Option<bool>,
    #[serde(default)]
    pub(crate) default: ProfileFields,
    #[serde(default)]
    pub(crate) trunk: Vec<TrunkTable>,
    #[serde(default)]
    pub(crate) limits: Limits,
    #[serde(default)]
    pub(crate) retention: Retention,
    #[serde(default)]
    pub(crate) records: RecordsTable,
    pub(crate) evidence: Option<EvidenceTable>,
    #[serde(default)]
    pub(crate) redial: RedialTable,
    #[serde(default)]
    pub(crate) auto_rate: AutoRateTable,
    #[serde(default)]
    pub(crate) notify: Notify,
    #[serde(default)]
    pub(crate) api: Api,
    #[serde(default)]
    pub(crate) callback: Callback,
    #[serde(default)]
    pub(crate) metrics: Metrics,
    pub(crate) roles: Option<Spanned<Roles>>,
    pub(crate) paths: Option<Spanned<Paths>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) blocks: Option<Spanned<i64>>,
    pub(crate) shortest_number: Option<Spanned<u8>>,
    pub(crate) shortest_prefix: Option<Spanned<u8>>,
    pub(crate) longest_block: Option<Spanned<String>>,
    pub(crate) shortest_prefix_operate: Option<Spanned<u8>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retention {
    pub(crate) calls: Option<Spanned<String>>,
    pub(crate) max_bytes: Option<Spanned<i64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordsTable {
    pub(crate) per_number: Option<Spanned<i64>>,
    pub(crate) per_trunk: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EvidenceTable {
    pub(crate) max_calls: Option<Spanned<i64>>,
    pub(crate) max_bytes: Option<Spanned<i64>>,
    pub(crate) retention: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RedialTable {
    pub(crate) attempts: Option<Spanned<i64>>,
    pub(crate) window: Option<Spanned<String>>,
    pub(crate) grant: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AutoRateTable {
    pub(crate) attempts: Option<Spanned<i64>>,
    pub(crate) window: Option<Spanned<String>>,
    pub(crate) block: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Notify {
    pub(crate) webhook: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Callback {
    pub(crate) grace: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metrics {
    pub(crate) listen: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Api {
    pub(crate) group: Option<Spanned<String>>,
    pub(crate) check_listen: Option<Spanned<String>>,
}

/// Parses a configuration without its ladder, which is in a separate file.
///
/// # Errors
/// Returns the first mistake.
pub(crate) fn parse(text: &str) -> Result<Config, Mistake> {
    let file: File = error::toml(text).map_err(not_here)?;
    let mut policy = Policy::default();
    policy.settings.mode = MODE_OBSERVE;
    ports(&mut policy, file.ports)?;
    profile(&mut policy.trunks[0], &file.default)?;
    let redial = redial(&file.redial)?;
    trunks(&mut policy, file.trunk, redial)?;
    protected(&mut policy, &file.protected)?;
    if file.protect_placeholders.unwrap_or(true) {
        policy.protect_placeholders();
    }
    policy.settings.callback_grace = file.callback.grace.as_ref().map_or(Ok(0), grace)?;
    policy.settings.shortest_number = SHORTEST_NUMBER;
    policy.settings.shortest_prefix = SHORTEST_PREFIX;
    let calls_kept = match &file.retention.calls {
        Some(text) => length(text, "calls", CALLS_KEPT_MAX)?,
        None => CALLS_KEPT,
    };
    let operate = operate(&file.limits)?;
    let Limits { blocks: blocks_limit, shortest_number, shortest_prefix, .. } = file.limits;
    ShortestTable { shortest_number, shortest_prefix }.apply(&mut policy)?;
    Ok(Config {
        path: PathBuf::new(),
        text: String::new(),
        policy,
        interfaces: interfaces(file.interfaces.get_ref())?,
        xdp_mode: file.xdp_mode,
        forwarded: file.forwarded.unwrap_or(true),
        reassemble_forwarded: file.reassemble_forwarded,
        blocks: blocks_limit.as_ref().map_or(Ok(BLOCKS), blocks)?,
        operate,
        calls_kept,
        records: records(&file.records)?,
        max_bytes: file.retention.max_bytes.as_ref().map(max_bytes).transpose()?,
        evidence: file.evidence.map(|table| evidence(&table, calls_kept)).transpose()?,
        redial,
        ladder: Ladder::default(),
        ladder_file: match file.ladder {
            Some(name) if name.get_ref().is_empty() => {
                return wrong(name.span(), "ladder: name a file, or leave it out");
            }
            name => name.map(Spanned::into_inner),
        },
        auto_rate: auto_rate(&file.auto_rate)?,
        webhook: file.notify.webhook.as_ref().map(webhook).transpose()?,
        group: match &file.api.group {
            Some(name) if is_group(name.get_ref()) => name.get_ref().clone(),
            Some(name) => return wrong(name.span(), no_group(name.get_ref())),
            None => "palang".to_owned(),
        },
        check_listen: file.api.check_listen.as_ref().map(loopback).transpose()?,
        metrics_listen: file.metrics.listen.as_ref().map(loopback).transpose()?,
        roles: file.roles.map_or_else(|| Ok(Roles::default()), roles)?,
        paths: file.paths.map_or_else(|| Ok(Paths::default()), paths)?,
    })
}

/// Names the command for a key that belongs to the daemon and not to the configuration.
fn not_here(wrong: Mistake) -> Mistake {
    let here = |key: &str| {
        // Only at the top of the file; `mode` is a field of a trunk, too.
        wrong.message.starts_with(&format!("unknown field `{key}`, "))
            && wrong.message.contains("`interfaces`")
    };
    match NOT_HERE.iter().find(|(key, _)| here(key)) {
        Some((key, command)) => Mistake {
            message: format!(
                "{key} is not part of the configuration: the daemon keeps it; set it with `{command}`"
            ),
            ..wrong
        },
        None => wrong,
    }
}

pub(crate) fn interfaces(names: &[Spanned<String>]) -> Result<Vec<String>, Mistake> {
    let mut seen: Vec<String> = Vec::new();
    for name in names {
        let text = name.get_ref();
        let fits =
            (1..=INTERFACE_MAX).contains(&text.len()) && !matches!(text.as_str(), "." | "..");
        if !fits || text.contains(|c: char| c.is_whitespace() || c.is_control() || "/:".contains(c))
        {
            let message = format!(
                "{text:?} is not a name of an interface: 1 to {INTERFACE_MAX} bytes, no blanks, / or :"
            );
            return wrong(name.span(), message);
        }
        if seen.contains(text) {
            return wrong(name.span(), format!("interface {text} is listed twice"));
        }
        seen.push(text.clone());
    }
    Ok(seen)
}

pub(crate) fn blocks(count: &Spanned<i64>) -> Result<u32, Mistake> {
    match u32::try_from(*count.get_ref()) {
        Ok(blocks) if (1..=BLOCKS_MAX).contains(count.get_ref()) => Ok(blocks),
        _ => wrong(count.span(), "blocks: 1 to 16000000"),
    }
}

/// Parses a length of time from an hour to `longest`.
pub(crate) fn length(
    text: &Spanned<String>,
    name: &str,
    longest: SignedDuration,
) -> Result<SignedDuration, Mistake> {
    match duration::parse(text.get_ref()) {
        None => {
            let message = format!(
                "{:?} is not a length of time: write it in weeks, days, hours or minutes, such as 90d",
                text.get_ref()
            );
            wrong(text.span(), message)
        }
        Some(kept) if (CALLS_KEPT_MIN..=longest).contains(&kept) => Ok(kept),
        Some(_) => wrong(text.span(), format!("{name}: 1h to {}", days(longest))),
    }
}

fn operate(limits: &Limits) -> Result<OperateLimits, Mistake> {
    let shortest_prefix = match &limits.shortest_prefix_operate {
        None => SHORTEST_PREFIX_OPERATE,
        Some(digits) if u32::from(*digits.get_ref()) <= DIGITS_MAX => *digits.get_ref(),
        Some(digits) => {
            let wrong_digits = format!("shortest_prefix_operate: 0 to {DIGITS_MAX}; 0: any length");
            return wrong(digits.span(), wrong_digits);
        }
    };
    let longest_block = match &limits.longest_block {
        None => LONGEST_BLOCK,
        Some(text) => length(text, "longest_block", LONGEST_BLOCK_MAX)?,
    };
    Ok(OperateLimits { longest_block, shortest_prefix })
}

pub(crate) fn records(table: &RecordsTable) -> Result<RecordLimits, Mistake> {
    let limit = |given: &Option<Spanned<i64>>, name, default, most: u32| match given {
        None => Ok(default),
        Some(given) => match u32::try_from(*given.get_ref()) {
            Ok(limit) if limit <= most => Ok(limit),
            Ok(_) | Err(_) => {
                wrong(given.span(), format!("{name}: 1 to {most}, or 0 for no limit"))
            }
        },
    };
    let RecordLimits { per_number, per_trunk } = RecordLimits::default();
    Ok(RecordLimits {
        per_number: limit(&table.per_number, "per_number", per_number, PER_NUMBER_MAX)?,
        per_trunk: limit(&table.per_trunk, "per_trunk", per_trunk, PER_TRUNK_MAX)?,
    })
}

pub(crate) fn max_bytes(count: &Spanned<i64>) -> Result<u64, Mistake> {
    match u64::try_from(*count.get_ref()) {
        Ok(bytes @ MAX_BYTES_MIN..=MAX_BYTES_MAX) => Ok(bytes),
        Ok(_) | Err(_) => {
            wrong(count.span(), format!("max_bytes: {MAX_BYTES_MIN} to {MAX_BYTES_MAX}"))
        }
    }
}

pub(crate) fn evidence(
    table: &EvidenceTable,
    calls_kept: SignedDuration,
) -> Result<EvidenceKept, Mistake> {
    let EvidenceTable { max_calls, max_bytes, retention } = table;
    Ok(EvidenceKept {
        max_calls: match max_calls {
            None => EVIDENCE_CALLS,
            Some(count) => match u32::try_from(*count.get_ref()) {
                Ok(calls @ 1..=EVIDENCE_CALLS_MAX) => calls,
                Ok(_) | Err(_) => {
                    return wrong(count.span(), format!("max_calls: 1 to {EVIDENCE_CALLS_MAX}"));
                }
            },
        },
        max_bytes: match max_bytes {
            None => EVIDENCE_BYTES,
            Some(count) => match u64::try_from(*count.get_ref()) {
                Ok(bytes @ EVIDENCE_BYTES_MIN..=EVIDENCE_BYTES_MAX) => bytes,
                Ok(_) | Err(_) => {
                    let message =
                        format!("max_bytes: {EVIDENCE_BYTES_MIN} to {EVIDENCE_BYTES_MAX}");
                    return wrong(count.span(), message);
                }
            },
        },
        kept: match retention {
            None => EVIDENCE_KEPT.min(calls_kept),
            // Without its call record, a message does not show the outcome of the call.
            Some(text) => length(text, "retention (at most that of calls)", calls_kept)?,
        },
    })
}

pub(crate) fn redial(table: &RedialTable) -> Result<RedialPolicy, Mistake> {
    let mut redial = RedialPolicy::default();
    if let Some(attempts) = &table.attempts {
        redial.attempts = RedialPolicy::check_attempts(*attempts.get_ref())
            .or_else(|error| wrong(attempts.span(), error.to_string()))?;
    }
    let seconds = |name, text: &Spanned<String>| {
        RedialPolicy::check_seconds(name, text.get_ref())
            .or_else(|error| wrong(text.span(), error.to_string()))
    };
    if let Some(window) = &table.window {
        redial.window = seconds("window", window)?;
    }
    if let Some(grant) = &table.grant {
        redial.grant = seconds("grant", grant)?;
    }
    Ok(redial)
}

pub(crate) fn auto_rate(table: &AutoRateTable) -> Result<AutoRate, Mistake> {
    let mut rate = AutoRate::default();
    if let Some(attempts) = &table.attempts {
        rate.attempts = match u8::try_from(*attempts.get_ref()) {
            Ok(attempts @ (0 | 2..=100)) => attempts,
            Ok(_) | Err(_) => return wrong(attempts.span(), "attempts: 2 to 100; 0 is off"),
        };
    }
    let seconds = |name, text: &Spanned<String>| {
        RedialPolicy::check_seconds(name, text.get_ref())
            .or_else(|error| wrong(text.span(), error.to_string()))
    };
    if let Some(window) = &table.window {
        rate.window = seconds("window", window)?;
    }
    if let Some(block) = &table.block {
        rate.block = seconds("block", block)?;
    }
    Ok(rate)
}

pub(crate) fn webhook(text: &Spanned<String>) -> Result<Webhook, Mistake> {
    let (at, url) = (text.span(), text.get_ref());
    let Ok(uri) = url.parse::<hyper::Uri>() else {
        return wrong(
            at,
            format!("{url:?} is not a URL: write it as http://127.0.0.1:8080/palang"),
        );
    };
    let address = uri.authority().and_then(|authority| {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let ip = host.parse::<std::net::IpAddr>().ok()?;
        Some(SocketAddr::new(ip, authority.port_u16().unwrap_or(80)))
    });
    match (uri.scheme_str(), address) {
        (Some("http"), Some(address)) if address.ip().to_canonical().is_loopback() => {
            let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
            Ok(Webhook { url: url.clone(), address, path })
        }
        _ => wrong(
            at,
            format!(
                "{url}: only http:// to a loopback address (127.0.0.1 or ::1), because notifications \
                 have full numbers; a program there may forward them"
            ),
        ),
    }
}

/// Parses the call-back grace into seconds; 0: off.
pub(crate) fn grace(text: &Spanned<String>) -> Result<u32, Mistake> {
    if text.get_ref() == "0" {
        return Ok(0);
    }
    let seconds = duration::seconds(text.get_ref());
    match seconds.and_then(|seconds| u32::try_from(seconds).ok()) {
        Some(seconds) if (1..=GRACE_MAX).contains(&seconds) => Ok(seconds),
        Some(_) | None => {
            let message = format!(
                "grace: {:?} is not 1s to 24h in whole seconds, such as 60m; 0 is off",
                text.get_ref()
            );
            wrong(text.span(), message)
        }
    }
}

fn is_group(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':')
}

fn no_group(name: &str) -> String {
    format!("{name:?} is not a name of a group")
}

/// Parses a loopback address: its clients see blocks, or the state of the centre, without a check of
/// who they are.
fn loopback(text: &Spanned<String>) -> Result<SocketAddr, Mistake> {
    let (at, text) = (text.span(), text.get_ref());
    match text.parse::<SocketAddr>() {
        Err(_) => {
            wrong(at, format!("{text:?} is not an address and port: write it as 127.0.0.1:9112"))
        }
        Ok(address) if !address.ip().to_canonical().is_loopback() => wrong(
            at,
            format!(
                "{text}: only a loopback address (127.0.0.1 or ::1), because its clients are not \
                 authenticated"
            ),
        ),
        Ok(address) if address.port() == 0 => wrong(at, "the port must not be 0"),
        Ok(address) => Ok(address),
    }
}

pub(crate) fn roles(roles: Spanned<Roles>) -> Result<Roles, Mistake> {
    let (at, roles) = (roles.span(), roles.into_inner());
    for name in [&roles.read, &roles.report, &roles.operate, &roles.admin].into_iter().flatten() {
        if !is_group(name) {
            return wrong(at, no_group(name));
        }
    }
    Ok(roles)
}

pub(crate) fn paths(paths: Spanned<Paths>) -> Result<Paths, Mistake> {
    let (at, paths) = (paths.span(), paths.into_inner());
    for path in [&paths.state, &paths.runtime, &paths.pins].into_iter().chain(&paths.backup) {
        if !path.is_absolute() {
            return wrong(at, format!("{} is not an absolute path", path.display()));
        }
    }
    if paths.socket().as_os_str().len() > SOCKET_PATH_MAX {
        let message = format!(
            "{}: too long for the path of a socket (at most {SOCKET_PATH_MAX} bytes)",
            paths.socket().display()
        );
        return wrong(at, message);
    }
    Ok(paths)
}

impl Config {
    /// Reads a configuration, and the ladder that it names; the path of that is relative to it.
    ///
    /// # Errors
    /// `Unreadable` if one of the two files cannot be read; `Invalid` at the first mistake in one of
    /// them.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| ConfigError::unreadable(path, error))?;
        Config::of(path, text)
    }

    /// Reads a configuration from the text of its file, and the ladder that it names.
    ///
    /// # Errors
    /// Returns the errors of [`Config::read`].
    pub fn of(path: &Path, text: String) -> Result<Config, ConfigError> {
        let mut config = parse(&text).map_err(|mistake| mistake.in_file(path, &text))?;
        config = Config { path: path.to_owned(), text, ..config };
        if let Some(file) = config.ladder_path() {
            config.ladder = Ladder::read(&file)?;
        }
        Ok(config)
    }
}
