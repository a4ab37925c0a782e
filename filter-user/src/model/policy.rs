//! A policy in the form of the maps. It comes from a file, the command line or the store, and is
//! written to the kernel or used by the host.

use std::net::Ipv6Addr;

use filter_common::abi::{
    ABI_VERSION, Allow, Block, DROPPED_WITHOUT_DAEMON, EVENT_PAI, MODE_ENFORCE,
    PASSES_WITHOUT_DAEMON, PrefixKey, Profile, REPLY_PATH_AUTO, REPLY_PATH_DAEMON,
    RULE_SHORT_NUMBER, SEPARATE, Settings, Verdict,
};
use filter_common::contact::Contact;
use filter_common::number::{Digits, Number};
use filter_common::plan::{
    FORMAT_E164, FORMAT_NATIONAL, IDENTITY_FROM, INTERNATIONAL_MAX, Plan, Prefix,
};

/// The port of SIP over UDP (RFC 3261 §19.1.2).
pub const SIP_PORT: u16 = 5060;
/// Pass events per CPU and second before they are sampled.
pub const PASS_EVENTS_PER_SECOND: u32 = 10_000;

/// Numbers that carriers send for callers who withhold theirs, and the words that their digits spell on a
/// telephone's keys. No country assigns them.
pub const PLACEHOLDERS: [(&str, &str); 5] = [
    ("266696687", "ANONYMOUS"),
    ("7378742833", "RESTRICTED"),
    ("2562533", "BLOCKED"),
    ("8656696", "UNKNOWN"),
    ("86282452253", "UNAVAILABLE"),
];

/// The number or prefix of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// One number.
    Number(Number),
    /// All numbers that begin with these digits.
    Prefix(Digits),
}

impl Subject {
    /// Returns the key for the prefix tries.
    #[must_use]
    pub fn key(self) -> PrefixKey {
        match self {
            Subject::Number(number) => PrefixKey::number(number),
            Subject::Prefix(digits) => PrefixKey::prefix(digits),
        }
    }

    /// Returns the prefix of an entry of a prefix trie.
    #[must_use]
    pub fn of_prefix_entry(raw: Number) -> Subject {
        Subject::Prefix(Digits(raw.0))
    }

    /// Returns the subject of an entry of a trie whose key has this many bits.
    #[must_use]
    pub fn of_trie_entry(prefix_len: u32, entry: Number) -> Subject {
        if prefix_len == PrefixKey::number(entry).prefix_len {
            Subject::Number(entry)
        } else {
            Subject::of_prefix_entry(entry)
        }
    }

    /// Returns the number or prefix as stored in a map entry.
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
    /// Name in records; the first trunk is `default`.
    pub name: String,
    /// Source prefixes: IPv6 or IPv4-mapped address, and prefix length of 128 bits.
    pub sources: Vec<([u8; 16], u32)>,
    /// Plan, mode and identity.
    pub profile: Profile,
    /// Whether the carrier guarantees From, so that a report of a call on this trunk may be a strike.
    pub trusts_from: bool,
    /// Whether the calls come through an emergency services routing proxy (ESRP). Any error or time-out makes it
    /// take the centre for unreachable, so nothing is refused on this trunk.
    pub esinet: bool,
    /// Whether a call passes whose reply needs a daemon that does not run. The profile has it together with the path.
    pub passes_without_daemon: bool,
    /// Country whose preset the plan comes from (ISO 3166-1 alpha-2); `None`: it has single settings only.
    pub country: Option<&'static str>,
    /// Names of the plan's contexts, in its order.
    pub contexts: Vec<String>,
}

impl Trunk {
    /// Returns the sources as texts in the order of their addresses: `::ffff:10.1.0.0/112`.
    #[must_use]
    pub fn source_texts(&self) -> Vec<String> {
        let mut sources = self.sources.clone();
        sources.sort_unstable();
        sources.iter().map(|(address, len)| format!("{}/{len}", Ipv6Addr::from(*address))).collect()
    }

    /// Checks whether the trunk is trusted for its numbers, by From or by P-Asserted-Identity (RFC
    /// 3325).
    #[must_use]
    pub fn vouches(&self) -> bool {
        self.trusts_from || self.profile.trusts_pai()
    }

    /// Checks whether the trunk is trusted for a number from this header: [`EVENT_FROM`] or
    /// [`EVENT_PAI`].
    ///
    /// [`EVENT_FROM`]: filter_common::abi::EVENT_FROM
    #[must_use]
    pub fn vouches_for(&self, identity: u8) -> bool {
        self.trusts_from || identity == EVENT_PAI && self.profile.trusts_pai()
    }

    /// Lets the daemon send the replies of this trunk, if it answers and leaves the path open. Returns whether it does so.
    pub fn answer_by_daemon(&mut self) -> bool {
        let profile = &mut self.profile;
        if profile.refuse == 0 || profile.reply_path != REPLY_PATH_AUTO {
            return false;
        }
        profile.reply_path = REPLY_PATH_DAEMON;
        if self.passes_without_daemon {
            profile.without_daemon = PASSES_WITHOUT_DAEMON;
        }
        true
    }
}

/// A number or prefix that is never refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protected {
    /// The number or prefix.
    pub subject: Subject,
    /// The map entry.
    pub entry: Allow,
    /// Name of the owner: `RSUP Manado`; may be empty.
    pub name: String,
    /// Whether this is one of [`PLACEHOLDERS`], which no file lists.
    pub is_placeholder: bool,
}

impl std::fmt::Display for Protected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Protected { subject, name, .. } = self;
        if name.is_empty() { write!(f, "{subject}") } else { write!(f, "{subject} ({name})") }
    }
}

/// A complete policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Settings for all trunks.
    pub settings: Settings,
    /// UDP ports that are read as SIP.
    pub ports: Vec<u16>,
    /// Trunks; the first is the profile `default`.
    pub trunks: Vec<Trunk>,
    /// End of the override, in nanoseconds of the filter's clock; 0: no override.
    pub override_until: u64,
    /// Protected numbers and prefixes.
    pub protected: Vec<Protected>,
    /// Allows.
    pub allows: Vec<(Subject, Allow)>,
    /// Blocks.
    pub blocks: Vec<(Subject, Block)>,
    /// Descriptions of rules: rule `id` is at index `id - 1`, such as `block 62812*`.
    pub rules: Vec<String>,
}

/// Returns the plan of a country without international prefixes: E.164 and national numbers.
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

/// The error of a plan with more international prefixes than fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {INTERNATIONAL_MAX} international prefixes")]
pub struct TooManyPrefixes;

/// Sets the international prefixes of a plan, longest first. A longer one is doubtful if a text with it also
/// begins with a shorter one: `0016581234567` may have `001` or `00`.
///
/// # Errors
/// [`TooManyPrefixes`] if there are more than [`INTERNATIONAL_MAX`].
pub fn set_international(
    plan: &mut Plan,
    mut prefixes: Vec<Prefix>,
) -> Result<(), TooManyPrefixes> {
    for prefix in &mut prefixes {
        prefix.mask &= !Prefix::IS_DOUBTFUL;
    }
    prefixes.sort_by_key(|prefix| (std::cmp::Reverse(prefix.len()), prefix.digits, prefix.mask));
    prefixes.dedup();
    if prefixes.len() > INTERNATIONAL_MAX {
        return Err(TooManyPrefixes);
    }
    plan.international = [Prefix::EMPTY; INTERNATIONAL_MAX];
    for (slot, prefix) in plan.international.iter_mut().zip(&prefixes) {
        let shorter = |other: &Prefix| other.len() < prefix.len() && prefix.overlaps(other);
        let doubtful = if prefixes.iter().any(shorter) { Prefix::IS_DOUBTFUL } else { 0 };
        *slot = Prefix { mask: prefix.mask | doubtful, ..*prefix };
    }
    Ok(())
}

/// Describes the rule that protects numbers with fewer digits.
#[must_use]
pub fn short_number(shortest: u8) -> String {
    format!("protected fewer than {shortest} digits")
}

impl Default for Policy {
    /// Returns a policy that blocks and allows nothing, for Indonesian numbers, in mode enforce.
    fn default() -> Policy {
        Policy {
            settings: Settings {
                abi_version: ABI_VERSION,
                pass_events_per_second: PASS_EVENTS_PER_SECOND,
                enforce_until: 0,
                short_rule: RULE_SHORT_NUMBER,
                mode: MODE_ENFORCE,
                trunks_configured: 0,
                shortest_number: 0,
                shortest_prefix: 0,
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
                    refuse: 0,
                    replies_without_checksum: 0,
                    replies_per_second: 0,
                    separate: SEPARATE,
                    reply_path: REPLY_PATH_AUTO,
                    without_daemon: DROPPED_WITHOUT_DAEMON,
                    attempt_identity: 0,
                    contact: Contact::default(),
                    reserved: 0,
                },
                trusts_from: false,
                esinet: false,
                passes_without_daemon: true,
                country: None,
                contexts: Vec::new(),
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
    fn rule(&mut self, kind: &str, subject: &dyn std::fmt::Display) -> u64 {
        self.rules.push(format!("{kind} {subject}"));
        self.rules.len() as u64
    }

    /// Makes every source a source of one trunk, so that each packet is judged as if it came from there.
    /// Other trunks keep their places, but no sources. Without a trunk of this index no packet is of one.
    pub fn assume_trunk(&mut self, index: usize) {
        for trunk in &mut self.trunks {
            trunk.sources.clear();
        }
        // The profile `default` covers every source while no trunk is configured.
        self.settings.trunks_configured = u8::from(index > 0);
        if let Some(trunk) = self.trunks.get_mut(index).filter(|_| index > 0) {
            trunk.sources.push(([0; 16], 0));
        }
    }

    /// Adds a protected number or prefix.
    pub fn protect(&mut self, subject: Subject) {
        self.protect_named(subject, "");
    }

    /// Adds a protected number or prefix with the name of its owner.
    pub fn protect_named(&mut self, subject: Subject, name: &str) {
        let entry = Allow { number: subject.raw(), expires: 0, rule: 0 };
        let mut protected =
            Protected { subject, entry, name: name.to_owned(), is_placeholder: false };
        protected.entry.rule = self.rule("protected", &protected);
        self.protected.push(protected);
    }

    /// Adds each of [`PLACEHOLDERS`] that is not protected yet.
    pub fn protect_placeholders(&mut self) {
        for (number, word) in PLACEHOLDERS {
            let Some(digits) = Digits::parse(number) else { continue };
            let subject = Subject::Number(Number::e164(digits));
            if self.protected.iter().any(|known| known.subject == subject) {
                continue;
            }
            self.protect_named(subject, &format!("placeholder {word}"));
            if let Some(last) = self.protected.last_mut() {
                last.is_placeholder = true;
            }
        }
    }

    /// Returns the description of a rule: `block 62812*`; `None` if the policy has no such rule.
    #[must_use]
    pub fn rule_name(&self, rule: u64) -> Option<String> {
        if rule == RULE_SHORT_NUMBER {
            return Some(short_number(self.settings.shortest_number));
        }
        let index = usize::try_from(rule.checked_sub(1)?).ok()?;
        self.rules.get(index).cloned()
    }

    /// Returns why a block on a subject would never apply because it has too few digits; `None` if it has
    /// enough.
    #[must_use]
    pub fn too_short(&self, subject: Subject) -> Option<String> {
        let Settings { shortest_number, shortest_prefix, .. } = self.settings;
        match subject {
            Subject::Number(number) if number.count() < shortest_number.into() => Some(format!(
                "numbers of fewer than {shortest_number} digits are protected \
                 ([limits] shortest_number)"
            )),
            Subject::Prefix(prefix) if prefix.len() < shortest_prefix.into() => Some(format!(
                "a prefix must have at least {shortest_prefix} digits ([limits] shortest_prefix)"
            )),
            Subject::Number(_) | Subject::Prefix(_) => None,
        }
    }

    /// Adds an allow; `expires` is in nanoseconds of the filter's clock, 0 is never.
    pub fn allow(&mut self, subject: Subject, expires: u64) {
        let rule = self.rule("allow", &subject);
        self.allows.push((subject, Allow { number: subject.raw(), expires, rule }));
    }

    /// Adds a block that drops; `expires` is in nanoseconds of the filter's clock, 0 is permanent; `flags`
    /// are those of [`Block::flags`].
    pub fn block(&mut self, subject: Subject, expires: u64, flags: u8) {
        let rule = self.rule("block", &subject);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_short_names_the_setting() {
        let digits = |text: &str| Digits::parse(text).unwrap();
        let local = |text: &str| Subject::Number(Number::local(digits(text)).unwrap());
        let number = |text: &str| Subject::Number(Number::e164(digits(text)));
        let prefix = |text: &str| Subject::Prefix(digits(text));
        let mut policy = Policy::default();
        let all = [local("1"), local("14045"), number("1"), prefix("6"), prefix("62811")];
        for subject in all {
            assert_eq!(policy.too_short(subject), None, "{subject}");
        }
        policy.settings.shortest_number = 5;
        policy.settings.shortest_prefix = 4;
        for (subject, setting) in [
            (local("1669"), Some("shortest_number")),
            (local("14045"), None),
            (number("6281"), Some("shortest_number")),
            (number("62811"), None),
            (prefix("628"), Some("shortest_prefix")),
            (prefix("6281"), None),
        ] {
            let why = policy.too_short(subject);
            assert_eq!(why.is_some(), setting.is_some(), "{subject}: {why:?}");
            assert!(why.unwrap_or_default().contains(setting.unwrap_or_default()), "{subject}");
        }
    }

    #[test]
    fn placeholders_spell_their_words() {
        const KEYS: [&str; 8] = ["ABC", "DEF", "GHI", "JKL", "MNO", "PQRS", "TUV", "WXYZ"];
        for (number, word) in PLACEHOLDERS {
            let keys = word.chars().map(|letter| {
                (KEYS.iter().position(|key| key.contains(letter)).unwrap() + 2).to_string()
            });
            assert_eq!(keys.collect::<String>(), number);
        }
        let mut policy = Policy::default();
        let anonymous = Subject::Number(Number::e164(Digits::parse("266696687").unwrap()));
        policy.protect_named(anonymous, "ours");
        policy.protect_placeholders();
        let names: Vec<_> = policy.protected.iter().map(ToString::to_string).collect();
        assert_eq!(names[..2], ["266696687 (ours)", "7378742833 (placeholder RESTRICTED)"]);
        assert_eq!(names.len(), PLACEHOLDERS.len());
        assert!(!policy.protected[0].is_placeholder && policy.protected[1].is_placeholder);
    }

    #[test]
    fn every_rule_has_a_name() {
        let mut policy = Policy::default();
        let manado = Subject::Prefix(Digits::parse("62431").unwrap());
        policy.protect_named(manado, "RSUP Manado");
        policy.protect(manado);
        policy.block(manado, 0, 0);
        policy.settings.shortest_number = 5;
        for (rule, name) in [
            (0, None),
            (1, Some("protected 62431* (RSUP Manado)")),
            (2, Some("protected 62431*")),
            (3, Some("block 62431*")),
            (4, None),
            (RULE_SHORT_NUMBER, Some("protected fewer than 5 digits")),
            (u64::MAX, None),
        ] {
            assert_eq!(policy.rule_name(rule).as_deref(), name, "{rule}");
        }
    }
}
