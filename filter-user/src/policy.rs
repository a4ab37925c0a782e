//! A policy as the maps hold it: what a file, the command line or the store says, ready
//! to be written into the kernel or judged with on the host.

use filter_common::abi::{
    ABI_VERSION, Allow, Block, MODE_ENFORCE, PrefixKey, Profile, Settings, Verdict,
};
use filter_common::number::{Digits, Number};
use filter_common::plan::{FORMAT_E164, FORMAT_NATIONAL, IDENTITY_FROM, INTERNATIONAL_MAX, Plan};

/// The port of SIP over UDP (RFC 3261 §19.1.2).
pub const SIP_PORT: u16 = 5060;
/// Pass events of one CPU in a second before they are sampled.
pub const PASS_EVENTS_PER_SECOND: u32 = 10_000;

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// One number.
    Number(Number),
    /// All numbers that begin with these digits.
    Prefix(Digits),
}

impl Subject {
    /// The key of the tries of prefixes.
    #[must_use]
    pub fn key(self) -> PrefixKey {
        match self {
            Subject::Number(number) => PrefixKey::number(number),
            Subject::Prefix(digits) => PrefixKey::prefix(digits),
        }
    }

    /// The prefix that an entry of a trie of prefixes is about.
    #[must_use]
    pub fn of_prefix_entry(raw: Number) -> Subject {
        Subject::Prefix(Digits(raw.0))
    }

    /// The number or prefix as an entry of a map carries it.
    #[must_use]
    pub fn raw(self) -> Number {
        match self {
            Subject::Number(number) => number,
            Subject::Prefix(digits) => Number(digits.0),
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Number(number) => number.fmt(f),
            Subject::Prefix(digits) => write!(f, "{digits}*"),
        }
    }
}

/// A trunk: an upstream SIP peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trunk {
    /// Its name in records; `default` is the first one.
    pub name: String,
    /// Source prefixes: IPv6 or IPv4-mapped address, and bits that count of 128.
    pub sources: Vec<([u8; 16], u32)>,
    /// Its plan, mode and identity.
    pub profile: Profile,
}

/// A whole policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Settings for all trunks.
    pub settings: Settings,
    /// UDP ports that SIP is read on.
    pub ports: Vec<u16>,
    /// Trunks; the first one is the profile `default`.
    pub trunks: Vec<Trunk>,
    /// Until when nothing is refused, in nanoseconds of the filter's clock; 0: no override.
    pub override_until: u64,
    /// Protected numbers and prefixes.
    pub protected: Vec<(Subject, Allow)>,
    /// Allows.
    pub allows: Vec<(Subject, Allow)>,
    /// Blocks.
    pub blocks: Vec<(Subject, Block)>,
    /// What rule `id` is, at index `id - 1`: `block 62812*`.
    pub rules: Vec<String>,
}

/// The plan of a country without any international prefix: E.164 and national numbers.
#[must_use]
pub fn default_plan(country: Digits, trunk_prefix: Digits) -> Plan {
    Plan {
        country,
        trunk_prefix,
        formats: FORMAT_E164 | FORMAT_NATIONAL,
        short_digits: 6,
        ..Plan::default()
    }
}

/// Gives a plan these international prefixes, longest first.
///
/// # Errors
/// More than a plan holds.
pub fn set_international(plan: &mut Plan, mut prefixes: Vec<Digits>) -> Result<(), String> {
    prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
    prefixes.dedup();
    if prefixes.len() > INTERNATIONAL_MAX {
        return Err(format!("more than {INTERNATIONAL_MAX} international prefixes"));
    }
    plan.international = [Digits::EMPTY; INTERNATIONAL_MAX];
    plan.international[..prefixes.len()].copy_from_slice(&prefixes);
    Ok(())
}

impl Default for Policy {
    /// Nothing blocked, nothing allowed, Indonesian numbers, everything enforced.
    fn default() -> Policy {
        Policy {
            settings: Settings {
                abi_version: ABI_VERSION,
                pass_events_per_second: PASS_EVENTS_PER_SECOND,
                enforce_until: 0,
                mode: MODE_ENFORCE,
                trunks_configured: 0,
                reserved: [0; 2],
                callback_grace: 0,
            },
            ports: vec![SIP_PORT],
            trunks: vec![Trunk {
                name: "default".to_owned(),
                sources: Vec::new(),
                profile: Profile {
                    plan: default_plan(
                        Digits::parse("62").unwrap_or(Digits::EMPTY),
                        Digits::parse("0").unwrap_or(Digits::EMPTY),
                    ),
                    mode: MODE_ENFORCE,
                    identity: IDENTITY_FROM,
                    reserved: [0; 6],
                },
            }],
            override_until: 0,
            protected: Vec::new(),
            allows: Vec::new(),
            blocks: Vec::new(),
            rules: Vec::new(),
        }
    }
}

impl Policy {
    fn rule(&mut self, kind: &str, subject: Subject) -> u64 {
        self.rules.push(format!("{kind} {subject}"));
        self.rules.len() as u64
    }

    /// Adds a protected number or prefix.
    pub fn protect(&mut self, subject: Subject) {
        let rule = self.rule("protected", subject);
        self.protected.push((subject, Allow { number: subject.raw(), expires: 0, rule }));
    }

    /// Adds an allow; `expires` in nanoseconds of the filter's clock, 0: never.
    pub fn allow(&mut self, subject: Subject, expires: u64) {
        let rule = self.rule("allow", subject);
        self.allows.push((subject, Allow { number: subject.raw(), expires, rule }));
    }

    /// Adds a block that drops; `expires` in nanoseconds of the filter's clock, 0:
    /// permanent; `flags` are those of [`Block::flags`].
    pub fn block(&mut self, subject: Subject, expires: u64, flags: u8) {
        let rule = self.rule("block", subject);
        let block = Block {
            number: subject.raw(),
            expires,
            rule,
            action: Verdict::Drop as u8,
            flags,
            ..Block::default()
        };
        self.blocks.push((subject, block));
    }
}
