//! The configuration with every default filled in, and its summary for people.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use filter_common::abi::{MODE_ENFORCE, MODE_OBSERVE, SEPARATE, Settings};
use filter_common::answer::code::Code;
use filter_common::plan::Prefix;
use serde::Serialize;

use crate::config::replies::{ReplyPath, WithoutDaemon};
use crate::config::units::{self, days};
use crate::config::{AutoRate, Config, EvidenceKept, Paths, RecordLimits, Roles};
use crate::model::attempt_identity::AttemptIdentity;
use crate::model::ladder::Ladder;
use crate::model::plan::format::Format;
use crate::model::plan::identity::Identity;
use crate::model::plan::lengths;
use crate::model::policy::{Protected, Trunk};
use crate::model::redial::{RedialPolicy, short};
use crate::model::refuse::Refuse;
use crate::model::xdp_mode::XdpMode;

/// Describes in a line which refusals have a record.
fn records_summary(limits: RecordLimits) -> String {
    let most = |count: u32, whose: &str| (count > 0).then(|| format!("{count} of a {whose}"));
    let RecordLimits { per_number, per_trunk } = limits;
    let limits: Vec<_> =
        [most(per_number, "number"), most(per_trunk, "trunk")].into_iter().flatten().collect();
    if limits.is_empty() {
        return "every refusal has a record of its own, also in a flood".to_owned();
    }
    format!("refusals with a record of their own in a second: {}", limits.join(", "))
}

/// Describes in a line the blocks that reports lead to.
fn ladder_summary(ladder: &Ladder, file: Option<&str>, trunks: &[Trunk]) -> String {
    let trusted = trunks.iter().filter(|trunk| trunk.vouches()).map(|trunk| trunk.name.as_str());
    let trusted: Vec<_> = trusted.collect();
    if trusted.is_empty() {
        return "reports of calls lead to no block: no trunk's caller numbers are trusted"
            .to_owned();
    }
    let blocks = ladder.rungs.iter().filter_map(|rung| {
        let block = rung.block?;
        Some(format!(
            "{} strikes: {}",
            crate::model::ladder::decimal(rung.strikes),
            units::length(block)
        ))
    });
    let blocks: Vec<_> = blocks.collect();
    let rungs = if blocks.is_empty() { "no block".to_owned() } else { blocks.join(", ") };
    format!(
        "reports of calls on {} lead to ({}) {rungs}",
        trusted.join(", "),
        file.unwrap_or("the delivered ladder"),
    )
}

/// A configuration with every default filled in.
#[derive(Clone, Debug, Serialize)]
pub struct Effective {
    pub(crate) interfaces: Vec<String>,
    pub(crate) xdp_mode: XdpMode,
    pub(crate) forwarded: bool,
    pub(crate) reassemble_forwarded: bool,
    pub(crate) ports: Vec<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ladder: Option<String>,
    pub(crate) protected: Vec<EffectiveProtected>,
    pub(crate) protect_placeholders: bool,
    pub(crate) default: EffectiveProfile,
    pub(crate) limits: EffectiveLimits,
    pub(crate) retention: EffectiveRetention,
    pub(crate) records: EffectiveRecords,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) evidence: Option<EffectiveEvidence>,
    pub(crate) redial: EffectiveRedial,
    pub(crate) auto_rate: EffectiveAutoRate,
    pub(crate) notify: EffectiveNotify,
    pub(crate) callback: EffectiveCallback,
    pub(crate) api: EffectiveApi,
    pub(crate) metrics: EffectiveMetrics,
    pub(crate) roles: Roles,
    pub(crate) paths: Paths,
    pub(crate) trunk: Vec<EffectiveTrunk>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct EffectiveLimits {
    pub(crate) blocks: u32,
    pub(crate) shortest_number: u8,
    pub(crate) shortest_prefix: u8,
    pub(crate) longest_block: String,
    pub(crate) shortest_prefix_operate: u8,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct EffectiveEvidence {
    pub(crate) max_calls: u32,
    pub(crate) max_bytes: u64,
    pub(crate) retention: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum EffectiveProtected {
    Plain(String),
    Named { number: String, name: String },
}

impl Effective {
    /// Masks each protected number with `mask`.
    #[must_use]
    pub fn masked(mut self, mask: impl Fn(&str) -> String) -> Effective {
        for protected in &mut self.protected {
            let (EffectiveProtected::Plain(number) | EffectiveProtected::Named { number, .. }) =
                protected;
            *number = mask(number);
        }
        self
    }
}

impl EffectiveProtected {
    pub(crate) fn of(protected: &Protected) -> EffectiveProtected {
        let number = units::subject(protected.subject);
        match protected.name.as_str() {
            "" => EffectiveProtected::Plain(number),
            name => EffectiveProtected::Named { number, name: name.to_owned() },
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct EffectiveRetention {
    pub(crate) calls: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_bytes: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct EffectiveRecords {
    pub(crate) per_number: u32,
    pub(crate) per_trunk: u32,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct EffectiveRedial {
    pub(crate) attempts: u8,
    pub(crate) window: String,
    pub(crate) grant: String,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct EffectiveAutoRate {
    pub(crate) attempts: u8,
    pub(crate) window: String,
    pub(crate) block: String,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct EffectiveNotify {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) webhook: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct EffectiveCallback {
    pub(crate) grace: String,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct EffectiveMetrics {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<SocketAddr>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct EffectiveApi {
    pub(crate) group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) check_listen: Option<SocketAddr>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct EffectiveProfile {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) country: Option<&'static str>,
    pub(crate) country_code: String,
    pub(crate) trunk_prefix: String,
    pub(crate) strip_prefixes: Vec<String>,
    pub(crate) international_prefixes: Vec<String>,
    pub(crate) national_lengths: Vec<String>,
    pub(crate) leading_zero: bool,
    pub(crate) formats: Vec<Format>,
    pub(crate) imsi_mcc: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) area_code: String,
    pub(crate) short_number_digits: u8,
    pub(crate) identity: Identity,
    pub(crate) mode: &'static str,
    /// Formats by the name of the context. A trunk without them is printed so only if the profile
    /// `default` has some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) phone_contexts: Option<BTreeMap<String, Vec<Format>>>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct EffectiveTrunk {
    pub(crate) name: String,
    pub(crate) sources: Vec<String>,
    pub(crate) trusts_from: bool,
    pub(crate) esinet: bool,
    /// Not printed for an ESInet, which has no choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refuse: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) redirect: String,
    pub(crate) replies_per_second: u32,
    pub(crate) replies_without_checksum: bool,
    pub(crate) separate: String,
    pub(crate) attempt_identity: Vec<AttemptIdentity>,
    pub(crate) reply_path: ReplyPath,
    pub(crate) without_daemon: WithoutDaemon,
    #[serde(flatten)]
    pub(crate) profile: EffectiveProfile,
}

impl EffectiveProfile {
    /// Returns the profile of a trunk, which started as `default`.
    pub(crate) fn of(trunk: &Trunk, default: &Trunk) -> EffectiveProfile {
        let (profile, plan) = (&trunk.profile, &trunk.profile.plan);
        let contexts = trunk.contexts.iter().zip(&plan.contexts);
        let contexts = contexts
            .map(|(name, context)| (name.clone(), Format::of_bits(context.formats).collect()));
        let has_contexts = !trunk.contexts.is_empty() || !default.contexts.is_empty();
        EffectiveProfile {
            country: trunk.country,
            country_code: plan.country.to_string(),
            trunk_prefix: plan.trunk_prefix.to_string(),
            strip_prefixes: plan
                .strip
                .iter()
                .filter(|prefix| !prefix.is_empty())
                .map(ToString::to_string)
                .collect(),
            international_prefixes: plan
                .international
                .iter()
                .filter(|prefix| !prefix.is_empty())
                .map(Prefix::to_string)
                .collect(),
            national_lengths: lengths::texts(&plan.no_lengths),
            leading_zero: plan.leading_zero != 0,
            formats: Format::of_bits(plan.formats).collect(),
            imsi_mcc: plan
                .imsi
                .iter()
                .filter(|code| **code != 0)
                .map(|code| format!("{:03x}", code & 0xFFF))
                .collect(),
            area_code: plan.area.to_string(),
            short_number_digits: plan.short_digits,
            identity: Identity::of_value(profile.identity),
            mode: if profile.mode == MODE_ENFORCE { "enforce" } else { "observe" },
            phone_contexts: has_contexts.then(|| contexts.collect()),
        }
    }
}

impl EffectiveProfile {
    /// Returns each setting of the plan and the identity, for people.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        let names = |formats: &[Format]| {
            formats.iter().map(|format| format.name()).collect::<Vec<_>>().join(", ")
        };
        let mut lines = vec![
            ("country_code", self.country_code.clone()),
            ("trunk_prefix", self.trunk_prefix.clone()),
            ("international_prefixes", self.international_prefixes.join(", ")),
            (
                "national_lengths",
                match self.national_lengths.is_empty() {
                    true => "any".to_owned(),
                    false => self.national_lengths.join("; "),
                },
            ),
            ("leading_zero", self.leading_zero.to_string()),
            ("formats", names(&self.formats)),
            ("short_number_digits", self.short_number_digits.to_string()),
            ("identity", self.identity.name().to_owned()),
        ];
        if let Some(country) = self.country {
            lines.insert(0, ("country", country.to_owned()));
        }
        if !self.area_code.is_empty() {
            lines.push(("area_code", self.area_code.clone()));
        }
        if !self.strip_prefixes.is_empty() {
            lines.push(("strip_prefixes", self.strip_prefixes.join(", ")));
        }
        if !self.imsi_mcc.is_empty() {
            lines.push(("imsi_mcc", self.imsi_mcc.join(", ")));
        }
        for (name, formats) in self.phone_contexts.iter().flatten() {
            lines.push(("phone_contexts", format!("{name}: {}", names(formats))));
        }
        for (_, value) in &mut lines {
            if value.is_empty() {
                "none".clone_into(value);
            }
        }
        lines
    }
}

impl EffectiveTrunk {
    pub(crate) fn of(trunk: &Trunk, default: &Trunk) -> EffectiveTrunk {
        let source = |(address, bits): &([u8; 16], u32)| {
            let address = std::net::Ipv6Addr::from(*address);
            match address.to_ipv4_mapped() {
                Some(address) if *bits >= 96 => format!("{address}/{}", bits - 96),
                _ => format!("{address}/{bits}"),
            }
        };
        EffectiveTrunk {
            name: trunk.name.clone(),
            sources: trunk.sources.iter().map(source).collect(),
            trusts_from: trunk.trusts_from,
            esinet: trunk.esinet,
            refuse: (!trunk.esinet).then(|| Refuse::of_number(trunk.profile.refuse).name()),
            redirect: trunk.profile.contact.uri().to_owned(),
            replies_per_second: trunk.profile.replies_per_second,
            replies_without_checksum: trunk.profile.replies_without_checksum != 0,
            separate: short(trunk.profile.separate),
            attempt_identity: AttemptIdentity::of_bits(trunk.profile.attempt_identity).collect(),
            reply_path: ReplyPath::of(&trunk.profile),
            without_daemon: WithoutDaemon::of(trunk),
            profile: EffectiveProfile::of(trunk, default),
        }
    }
}

impl Config {
    /// Returns the trunks that answer with 302.
    pub fn redirecting(&self) -> impl Iterator<Item = &Trunk> {
        let redirects = |trunk: &&Trunk| trunk.profile.refuse == Code::MovedTemporarily as u8;
        self.policy.trunks.iter().filter(redirects)
    }

    /// Returns the protected numbers that the file lists.
    fn listed(&self) -> impl Iterator<Item = &Protected> {
        self.policy.protected.iter().filter(|protected| !protected.is_placeholder)
    }

    fn protects_placeholders(&self) -> bool {
        self.policy.protected.iter().any(|protected| protected.is_placeholder)
    }

    /// Returns every setting in force, with the defaults, in the form of the file.
    #[must_use]
    pub fn effective(&self) -> Effective {
        Effective {
            interfaces: self.interfaces.clone(),
            xdp_mode: self.xdp_mode,
            forwarded: self.forwarded,
            reassemble_forwarded: self.reassemble_forwarded,
            ports: self.policy.ports.clone(),
            ladder: self.ladder_file.clone(),
            protected: self.listed().map(EffectiveProtected::of).collect(),
            protect_placeholders: self.protects_placeholders(),
            default: EffectiveProfile::of(&self.policy.trunks[0], &self.policy.trunks[0]),
            limits: EffectiveLimits {
                blocks: self.blocks,
                shortest_number: self.policy.settings.shortest_number,
                shortest_prefix: self.policy.settings.shortest_prefix,
                longest_block: days(self.operate.longest_block),
                shortest_prefix_operate: self.operate.shortest_prefix,
            },
            retention: EffectiveRetention {
                calls: days(self.calls_kept),
                max_bytes: self.max_bytes,
            },
            records: EffectiveRecords {
                per_number: self.records.per_number,
                per_trunk: self.records.per_trunk,
            },
            evidence: self.evidence.map(|evidence| EffectiveEvidence {
                max_calls: evidence.max_calls,
                max_bytes: evidence.max_bytes,
                retention: days(evidence.kept),
            }),
            redial: EffectiveRedial {
                attempts: self.redial.attempts,
                window: short(self.redial.window),
                grant: short(self.redial.grant),
            },
            auto_rate: EffectiveAutoRate {
                attempts: self.auto_rate.attempts,
                window: short(self.auto_rate.window),
                block: short(self.auto_rate.block),
            },
            notify: EffectiveNotify { webhook: self.webhook.as_ref().map(|hook| hook.url.clone()) },
            callback: EffectiveCallback {
                grace: units::grace(self.policy.settings.callback_grace),
            },
            api: EffectiveApi { group: self.group.clone(), check_listen: self.check_listen },
            metrics: EffectiveMetrics { listen: self.metrics_listen },
            roles: self.roles.clone(),
            paths: self.paths.clone(),
            trunk: self.policy.trunks[1..]
                .iter()
                .map(|trunk| EffectiveTrunk::of(trunk, &self.policy.trunks[0]))
                .collect(),
        }
    }

    /// Describes in a few lines how the daemon works with this configuration.
    #[must_use]
    pub fn summary(&self) -> Vec<String> {
        let list = |texts: Vec<String>, none: &str| {
            if texts.is_empty() { none.to_owned() } else { texts.join(", ") }
        };
        let ports = self.policy.ports.iter().map(ToString::to_string).collect();
        let never = self.listed().map(|protected| {
            let number = units::subject(protected.subject);
            match protected.name.as_str() {
                "" => number,
                name => format!("{number} ({name})"),
            }
        });
        let Settings { shortest_number, shortest_prefix, .. } = self.policy.settings;
        let fewer = |count: u8, what: &str| {
            (count > 0).then(|| format!("{what} of fewer than {count} digits"))
        };
        let placeholders = self.protects_placeholders();
        let never = never
            .chain(fewer(shortest_number, "numbers"))
            .chain(placeholders.then(|| "placeholders of withheld numbers".to_owned()));
        let (default, trunks) = (&self.policy.trunks[0], &self.policy.trunks[1..]);
        let observing =
            self.policy.trunks.iter().filter(|trunk| trunk.profile.mode == MODE_OBSERVE);
        let mut lines = vec![
            format!(
                "reads SIP on UDP port {} of {}",
                list(ports, "-"),
                list(self.interfaces.clone(), "no interface until `palang attach INTERFACE`"),
            ),
            format!(
                "attaches {}",
                match self.xdp_mode {
                    XdpMode::Native => "native: in the driver, or not at all",
                    XdpMode::Generic => "generic: in the kernel's core, slower than native",
                    XdpMode::NativeOrGeneric =>
                        "native if the driver supports it, otherwise generic (slower)",
                }
            ),
            if self.forwarded {
                "judges calls in frames for other machines, too".to_owned()
            } else {
                "lets calls in frames for other machines pass".to_owned()
            },
            format!(
                "country code of the numbers: {}; trunks: {}",
                default.profile.plan.country,
                list(
                    trunks.iter().map(|trunk| trunk.name.clone()).collect(),
                    "none, any source may be refused"
                ),
            ),
            format!(
                "answers refused calls: {}",
                list(trunks.iter().map(refusal).collect(), "none; they end in silence")
            ),
            format!("never refused: {}", list(never.collect(), "no number is protected")),
            format!(
                "never in force: {}",
                fewer(shortest_prefix, "blocks against prefixes")
                    .unwrap_or_else(|| "no block is too short".into())
            ),
            format!("room for {} blocked numbers", self.blocks),
            format!(
                "role operate blocks for {} at most, and prefixes of at least {} digits",
                days(self.operate.longest_block),
                self.operate.shortest_prefix
            ),
            format!(
                "call records are kept for {}, while the store takes at most {}",
                days(self.calls_kept),
                match self.max_bytes {
                    Some(bytes) => format!("{bytes} bytes"),
                    None => "10 GiB, or 20 % of the free space where that is less".to_owned(),
                }
            ),
            records_summary(self.records),
            self.evidence.map_or_else(
                || "no message of a call is kept".to_owned(),
                |EvidenceKept { max_calls, max_bytes, kept }| {
                    format!(
                        "INVITEs of refused calls are kept for {}, at most {max_calls} and \
                         {max_bytes} bytes",
                        days(kept)
                    )
                },
            ),
            match self.redial {
                RedialPolicy { attempts: 0, .. } => {
                    "a blocked caller who calls repeatedly stays refused".to_owned()
                }
                RedialPolicy { attempts, window, grant } => format!(
                    "attempt {attempts} of a blocked caller within {} passes, and then every call for {}",
                    short(window),
                    short(grant)
                ),
            },
            ladder_summary(&self.ladder, self.ladder_file.as_deref(), trunks),
            format!("{} is for group {}", self.paths.socket().display(), self.group),
        ];
        if self.redial.attempts != 0 {
            lines.extend(trunks.iter().filter_map(|trunk| {
                let (configured, redial) = (trunk.profile.separate, self.redial);
                let counts = redial.separation(configured);
                (counts != configured).then(|| {
                    format!(
                        "trunk {}: attempts are separate after {}, not after {}: attempt {} has to be possible within {}",
                        trunk.name,
                        short(counts),
                        short(configured),
                        redial.attempts,
                        short(redial.window)
                    )
                })
            }));
            lines.extend(trunks.iter().filter(|trunk| may_redial_by_machine(trunk)).map(|trunk| {
                format!(
                    "trunk {}: refused in silence, so its carrier may call again by machine. Its calls open redial grants; set \
                     separate = \"35s\", or refuse with a reply (docs/carriers.md)",
                    trunk.name
                )
            }));
        }
        if let Some(webhook) = &self.webhook {
            lines.push(format!("redial grants are sent to {}", webhook.url));
        }
        if self.auto_rate.attempts != 0 {
            let AutoRate { attempts, window, block } = self.auto_rate;
            lines.push(format!(
                "a trusted number that calls more than {attempts} times within {} is blocked \
                 for {}",
                short(window),
                short(block)
            ));
        }
        let grace = self.policy.settings.callback_grace;
        if grace != 0 {
            let grace = units::grace(grace);
            lines.push(format!("a number that the centre calls is not refused for {grace}"));
        }
        if let Some(address) = self.check_listen {
            lines.push(format!("anyone on this machine may check numbers at {address}"));
        }
        if let Some(address) = self.metrics_listen {
            lines.push(format!("metrics and health are at http://{address}/metrics"));
        }
        let observing = list(observing.map(|trunk| trunk.name.clone()).collect(), "");
        if !observing.is_empty() {
            lines.push(format!("only observes, in every mode: {observing}"));
        }
        lines
    }
}

/// Returns whether a trunk refuses in silence, and its attempts are separate after the shortest time, because they
/// have no other identity.
fn may_redial_by_machine(trunk: &Trunk) -> bool {
    let is_silent = Refuse::of_number(trunk.profile.refuse) == Refuse::Drop && !trunk.esinet;
    is_silent && trunk.profile.separate == SEPARATE && trunk.profile.attempt_identity == 0
}

/// Returns how a trunk refuses, for people: `telkom 600`.
fn refusal(trunk: &Trunk) -> String {
    let refuse = match Refuse::of_number(trunk.profile.refuse) {
        _ if trunk.esinet => "refuses nothing (esinet)".to_owned(),
        Refuse::Drop => "in silence".to_owned(),
        Refuse::Reply(Code::MovedTemporarily) => format!("302 to {}", trunk.profile.contact.uri()),
        Refuse::Reply(code) => code.status().to_string(),
    };
    format!("{} {refuse}", trunk.name)
}
